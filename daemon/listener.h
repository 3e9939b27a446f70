/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix socket, made here or passed by the service manager. On the loop thread.
 */
#pragma once

#include "loop.h"

struct listener {
        struct loop *loop;
        int fd;
        int lock_fd; /* -1 when the socket was passed */
        char *path;  /* NULL when the socket was passed */
        bool accepting, closed;
        struct loop_op accept_op, pause_op;
        struct __kernel_timespec pause;
        void (*accepted)(void *userdata, int fd); /* takes over the descriptor */
        void *userdata;
};

/*
 * Binds `path`, mode 0660. A socket file that nobody serves any more is replaced; a lock beside it
 * (PATH.lock) decides between two daemons. -EADDRINUSE: another carvqd serves there; -ENOTSOCK:
 * something else has that name.
 */
int listener_bind(struct listener *listener, const char *path, int type, struct fault *ret_fault);
/* Takes over a listening socket after a look at its kind. -EINVAL. */
int listener_adopt(struct listener *listener, int fd, int type, struct fault *ret_fault);
void listener_start(struct listener *listener, struct loop *loop,
                    void (*accepted)(void *userdata, int fd), void *userdata);
/* No more connections; removes what listener_bind() made. Harmless twice, and on one that never
 * was. */
void listener_close(struct listener *listener);

/*
 * Whether peers may send descriptors over this socket, or over those that it will accept: if not,
 * their sendmsg() fails with EPERM. From Linux 6.16 on; before, they always may.
 */
void socket_pass_descriptors(int fd, bool pass);

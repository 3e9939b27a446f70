/* SPDX-License-Identifier: Apache-2.0 */
#include "listener.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "log.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* After running out of descriptors: not a busy loop, and soon enough for whoever waits. */
#define PAUSE_NS 100000000

static void start_accept(struct listener *l);

/* The lock lives as long as the daemon, so the socket file's age never has to be guessed. */
static int take_lock(const char *path, int *ret_fd, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        char lock_path[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];

        snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
        fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "%s: %s", lock_path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return fault_set(ret_fault, errno == EWOULDBLOCK ? -EADDRINUSE : -errno,
                                 "%s: another carvqd is serving on this socket", path);
        *ret_fd = steal_fd(&fd);
        return 0;
}

static int remove_stale(const char *path, struct fault *ret_fault) {
        struct stat st;

        if (lstat(path, &st) < 0)
                return errno == ENOENT
                               ? 0
                               : fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        if (!S_ISSOCK(st.st_mode))
                return fault_set(ret_fault, -ENOTSOCK, "%s: exists and is not a socket", path);
        if (unlink(path) < 0)
                return fault_set(ret_fault, -errno, "%s: cannot remove the stale socket: %s", path,
                                 strerror(errno));
        log_info("%s: replaced a socket that nobody served any more", path);
        return 0;
}

int listener_bind(struct listener *l, const char *path, int type, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1, lock_fd = -1;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        mode_t mask;
        int r;

        *l = (struct listener){ .fd = -1, .lock_fd = -1 };
        if (strlen(path) >= sizeof(address.sun_path))
                return fault_set(ret_fault, -ENAMETOOLONG, "%s: longer than %zu bytes", path,
                                 sizeof(address.sun_path) - 1);
        strcpy(address.sun_path, path);
        r = take_lock(path, &lock_fd, ret_fault);
        if (r < 0)
                return r;
        r = remove_stale(path, ret_fault);
        if (r < 0)
                return r;

        fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "socket: %s", strerror(errno));
        /* Owner and group from the first moment on; threads that create files do not exist yet. */
        mask = umask(0117);
        r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        umask(mask);
        if (r >= 0 && listen(fd, SOMAXCONN) < 0)
                r = -errno;
        if (r < 0)
                return fault_set(ret_fault, r, "%s: %s", path, strerror(-r));

        l->path = strdup(path);
        if (!l->path)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        l->fd = steal_fd(&fd);
        l->lock_fd = steal_fd(&lock_fd);
        return 0;
}

int listener_adopt(struct listener *l, int fd, int type, struct fault *ret_fault) {
        int found = 0, listening = 0, domain = 0;
        socklen_t n = sizeof(int);

        *l = (struct listener){ .fd = fd, .lock_fd = -1 };
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &n) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 || domain != AF_UNIX ||
            found != type || !listening)
                return fault_set(
                        ret_fault, -EINVAL,
                        "passed descriptor %d: expected a listening Unix socket of type %s", fd,
                        type == SOCK_SEQPACKET ? "SOCK_SEQPACKET" : "SOCK_STREAM");
        return 0;
}

static void pause_over(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct listener *l = container_of(op, struct listener, pause_op);

        (void)res;
        (void)cqe_flags;
        if (!l->closed)
                start_accept(l);
}

static void on_accept(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        static struct log_limit limit;
        struct listener *l = container_of(op, struct listener, accept_op);

        l->accepting = cqe_flags & IORING_CQE_F_MORE;
        if (res >= 0 && l->closed)
                close(res);
        else if (res >= 0)
                l->accepted(l->userdata, res);
        if (l->accepting || l->closed)
                return;
        if (res >= 0 || res == -ECONNABORTED || res == -EINTR) {
                start_accept(l);
                return;
        }
        /* A client that opens what there is causes this, again and again. */
        log_limited(&limit, LOG_LEVEL_WARNING, NULL, "cannot accept a connection: %s",
                    strerror(-res));
        l->pause.tv_nsec = PAUSE_NS;
        io_uring_prep_timeout(loop_prepare(l->loop, &l->pause_op), &l->pause, 0, 0);
}

void socket_pass_descriptors(int fd, bool pass) {
        setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &(int){ pass }, sizeof(int));
}

static void start_accept(struct listener *l) {
        l->accepting = true;
        io_uring_prep_multishot_accept(loop_prepare(l->loop, &l->accept_op), l->fd, NULL, NULL,
                                       SOCK_CLOEXEC);
}

void listener_start(struct listener *l, struct loop *loop, void (*accepted)(void *userdata, int fd),
                    void *userdata) {
        l->loop = loop;
        l->accepted = accepted;
        l->userdata = userdata;
        l->accept_op.done = on_accept;
        l->pause_op.done = pause_over;
        /* A descriptor that is let go may take as long as its sender likes, also in the queue of a
         * connection that nobody will have. */
        socket_pass_descriptors(l->fd, false);
        start_accept(l);
}

void listener_close(struct listener *l) {
        if (l->closed)
                return;
        l->closed = true;
        if (l->path)
                unlink(l->path);
        if (l->accepting)
                loop_cancel(l->loop, &l->accept_op);
        if (l->fd > 0)
                close(l->fd);
        if (l->lock_fd > 0)
                close(l->lock_fd);
        free(l->path);
        l->path = NULL;
        l->fd = l->lock_fd = -1;
}

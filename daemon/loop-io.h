/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a loop, the main thread's or a worker's, asks the kernel for things: a submission entry that
 * the caller fills with io_uring_prep_...() and a callback for its completions. io_uring performs
 * them, or epoll where io_uring is forbidden; only here and in loop-epoll.c is there a difference.
 * One thread after loop_io_init().
 */
#pragma once

#include "loop-epoll.h"

/* What the administrator wants: AUTO is io_uring, and epoll where that cannot be had. */
enum loop_choice { LOOP_AUTO, LOOP_IO_URING, LOOP_EPOLL };

/* Zero but for `done`; its owner keeps it until the last completion. */
struct loop_op {
        void (*done)(struct loop_op *op, int32_t res, uint32_t cqe_flags);
        struct loop_epoll_op epoll; /* loop-epoll.c's */
};

struct loop_io {
        struct io_uring ring;
        struct loop_epoll epoll;
        /* Why it is epoll though that was not asked for, and what can be done; else empty. */
        struct fault why, remedy;
};

/* `setup_flags` of io_uring_setup(). Negative errno where the choice cannot be had; the fault says
 * what forbids it. */
int loop_io_init(struct loop_io *io, enum loop_choice choice, uint32_t setup_flags,
                 struct fault *ret_fault);
void loop_io_deinit(struct loop_io *io);

static inline bool loop_io_is_epoll(const struct loop_io *io) {
        return io->epoll.fd >= 0;
}

/*
 * A zeroed entry that will complete into `op`, which is idle. NULL op: the completion is ignored;
 * then it is a cancellation, or a send with MSG_DONTWAIT. Cannot fail: a full queue is submitted
 * first.
 */
struct io_uring_sqe *loop_io_prepare(struct loop_io *io, struct loop_op *op);

/* False: preparing would have to go on submitting until the kernel takes something. */
bool loop_io_has_room(struct loop_io *io);

/* What is prepared; no system call if that is nothing. */
void loop_io_submit(struct loop_io *io);

/* The same, and waits for a completion. 0, also after a signal, or the errno of a broken loop. */
int loop_io_wait(struct loop_io *io);

/* Calls back for what has completed. No system call with io_uring; with epoll now and then. */
void loop_io_dispatch(struct loop_io *io);

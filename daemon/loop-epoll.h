/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What io_uring does, done with epoll and one system call at a time, for hosts that forbid it: the
 * few operations this daemon uses, from the same submission entries and with the same results. An
 * operation that cannot complete at once waits in its own struct loop_op, so nothing here allocates
 * and nothing but the kernel can refuse. One thread.
 */
#pragma once

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#include "proto/base.h"

struct loop_op;

#define LOOP_EPOLL_EVENTS 64

TAILQ_HEAD(loop_ops, loop_op);

/* An operation's part; zero while it is idle. */
struct loop_epoll_op {
        struct io_uring_sqe sqe;
        enum { OP_IDLE = 0, OP_PREPARED, OP_WATCHED, OP_TIMED, OP_DONE } state;
        int32_t res;
        uint64_t deadline_ns;
        TAILQ_ENTRY(loop_op) link; /* in the list of its state; watched ones are in none */
};

struct loop_epoll {
        int fd;                         /* -1: io_uring it is */
        struct loop_ops prepared, done; /* in order */
        struct loop_ops timed;          /* the earliest first */
        struct io_uring_sqe nameless;   /* an entry whose completion nobody wants */
        bool has_nameless;
        struct epoll_event events[LOOP_EPOLL_EVENTS]; /* of the last look, not yet told */
        int n_events;
        uint64_t looked_ns;
};

/* As the functions of loop-io.h. */
int loop_epoll_init(struct loop_epoll *e);
struct io_uring_sqe *loop_epoll_prepare(struct loop_epoll *e, struct loop_op *op);
void loop_epoll_submit(struct loop_epoll *e);
int loop_epoll_wait(struct loop_epoll *e);
void loop_epoll_dispatch(struct loop_epoll *e);

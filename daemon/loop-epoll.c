/* SPDX-License-Identifier: Apache-2.0 */
#include "loop-epoll.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "loop-io.h"
#include "proto/spin.h"

/* A thread that does not sleep asks for events no more often than this: a doorbell may be as late,
 * and the question costs a fraction of it. */
#define LOOK_NS   5000u

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

int loop_epoll_init(struct loop_epoll *e) {
        *e = (struct loop_epoll){ .fd = epoll_create1(EPOLL_CLOEXEC) };
        TAILQ_INIT(&e->prepared);
        TAILQ_INIT(&e->done);
        TAILQ_INIT(&e->timed);
        return e->fd < 0 ? -errno : 0;
}

/* ---- Single operations ---- */

static bool is_multishot(const struct io_uring_sqe *sqe) {
        return (sqe->opcode == IORING_OP_POLL_ADD && (sqe->len & IORING_POLL_ADD_MULTI)) ||
               (sqe->opcode == IORING_OP_ACCEPT && (sqe->ioprio & IORING_ACCEPT_MULTISHOT));
}

/*
 * The result, or -EAGAIN where it would have to wait. Only accept4() could really wait: a flag that
 * forbids it would be seen by whoever else has the socket, a service manager and the next daemon,
 * so it is called when epoll has seen a connection, which nobody else takes.
 */
static int32_t attempt(const struct io_uring_sqe *sqe) {
        int flags = (int)sqe->msg_flags | MSG_DONTWAIT;
        void *addr = (void *)(uintptr_t)sqe->addr;
        ssize_t n = -1;

        switch (sqe->opcode) {
        case IORING_OP_ACCEPT:
                n = accept4(sqe->fd, NULL, NULL, (int)sqe->accept_flags);
                break;
        case IORING_OP_RECVMSG:
                n = recvmsg(sqe->fd, addr, flags);
                break;
        case IORING_OP_RECV:
                n = recv(sqe->fd, addr, sqe->len, flags);
                break;
        case IORING_OP_SEND:
                n = send(sqe->fd, addr, sqe->len, flags);
                break;
        default:
                assert(!"an operation that loop-epoll.c does not have");
        }
        return n < 0 ? -errno : (int32_t)n;
}

static void finish(struct loop_epoll *e, struct loop_op *op, int32_t res) {
        op->epoll.state = OP_DONE;
        op->epoll.res = res;
        TAILQ_INSERT_TAIL(&e->done, op, epoll.link);
}

/* Operations of one loop on one descriptor never overlap, so the descriptor stands for one. */
static void watch(struct loop_epoll *e, struct loop_op *op, uint32_t events) {
        struct epoll_event event = { .events = events, .data.ptr = op };

        if (epoll_ctl(e->fd, EPOLL_CTL_ADD, op->epoll.sqe.fd, &event) < 0)
                finish(e, op, -errno);
        else
                op->epoll.state = OP_WATCHED;
}

static void unwatch(struct loop_epoll *e, struct loop_op *op) {
        epoll_ctl(e->fd, EPOLL_CTL_DEL, op->epoll.sqe.fd, NULL);
}

static void begin_timeout(struct loop_epoll *e, struct loop_op *op) {
        const struct io_uring_sqe *sqe = &op->epoll.sqe;
        const struct __kernel_timespec *t = (const void *)(uintptr_t)sqe->addr;
        struct loop_op *later;

        assert(!sqe->off && !sqe->timeout_flags); /* relative, and of no number of completions */
        op->epoll.state = OP_TIMED;
        op->epoll.deadline_ns = clock_ns() + (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_nsec;
        TAILQ_FOREACH(later, &e->timed, epoll.link) {
                if (later->epoll.deadline_ns > op->epoll.deadline_ns) {
                        TAILQ_INSERT_BEFORE(later, op, epoll.link);
                        return;
                }
        }
        TAILQ_INSERT_TAIL(&e->timed, op, epoll.link);
}

static void begin_transfer(struct loop_epoll *e, struct loop_op *op, uint32_t events) {
        int32_t res = attempt(&op->epoll.sqe);

        if (res == -EAGAIN && !(op->epoll.sqe.msg_flags & MSG_DONTWAIT))
                watch(e, op, events);
        else
                finish(e, op, res);
}

static void begin(struct loop_epoll *e, struct loop_op *op) {
        const struct io_uring_sqe *sqe = &op->epoll.sqe;

        switch (sqe->opcode) {
        case IORING_OP_TIMEOUT:
                begin_timeout(e, op);
                break;
        case IORING_OP_POLL_ADD:
                /* By edges, as each write to an eventfd is an event though nobody reads it. */
                watch(e, op, sqe->poll32_events | (is_multishot(sqe) ? (uint32_t)EPOLLET : 0));
                break;
        case IORING_OP_ACCEPT:
                watch(e, op, EPOLLIN);
                break;
        case IORING_OP_SEND:
                begin_transfer(e, op, EPOLLOUT);
                break;
        default:
                begin_transfer(e, op, EPOLLIN);
        }
}

/* What epoll has said of it before is not to be told any more. */
static void cancel(struct loop_epoll *e, struct loop_op *op) {
        if (op->epoll.state == OP_TIMED) {
                TAILQ_REMOVE(&e->timed, op, epoll.link);
                finish(e, op, -ECANCELED);
        } else if (op->epoll.state == OP_WATCHED) {
                for (int i = 0; i < e->n_events; i++)
                        if (e->events[i].data.ptr == op)
                                e->events[i].data.ptr = NULL;
                unwatch(e, op);
                finish(e, op, -ECANCELED);
        }
}

static void begin_nameless(struct loop_epoll *e) {
        const struct io_uring_sqe *sqe = &e->nameless;

        e->has_nameless = false;
        if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
                cancel(e, (struct loop_op *)(uintptr_t)sqe->addr);
                return;
        }
        assert(sqe->msg_flags & MSG_DONTWAIT); /* there is nothing that it could wait in */
        (void)attempt(sqe);
}

/* ---- The queues ---- */

struct io_uring_sqe *loop_epoll_prepare(struct loop_epoll *e, struct loop_op *op) {
        if (!op) {
                if (e->has_nameless)
                        loop_epoll_submit(e);
                e->has_nameless = true;
                return &e->nameless;
        }
        assert(op->epoll.state == OP_IDLE);
        op->epoll.state = OP_PREPARED;
        TAILQ_INSERT_TAIL(&e->prepared, op, epoll.link);
        return &op->epoll.sqe;
}

/* The nameless one last: it may cancel what was prepared before it. */
void loop_epoll_submit(struct loop_epoll *e) {
        struct loop_op *op;

        while ((op = TAILQ_FIRST(&e->prepared))) {
                TAILQ_REMOVE(&e->prepared, op, epoll.link);
                begin(e, op);
        }
        if (e->has_nameless)
                begin_nameless(e);
}

static int look(struct loop_epoll *e, int timeout_ms) {
        int n = epoll_wait(e->fd, e->events, LOOP_EPOLL_EVENTS, timeout_ms);

        e->n_events = MAX(n, 0);
        e->looked_ns = clock_ns();
        return n < 0 && errno != EINTR ? -errno : 0;
}

/* Rounded up, so that a timeout is over when it is looked at. */
static int ms_until(uint64_t deadline_ns) {
        uint64_t now_ns = clock_ns();

        if (deadline_ns <= now_ns)
                return 0;
        return (int)MIN(div_round_up(deadline_ns - now_ns, NS_PER_MS), (uint64_t)INT32_MAX);
}

int loop_epoll_wait(struct loop_epoll *e) {
        const struct loop_op *next;

        loop_epoll_submit(e);
        next = TAILQ_FIRST(&e->timed);
        if (!TAILQ_EMPTY(&e->done))
                return look(e, 0); /* and not later: what is done must not starve the others */
        return look(e, next ? ms_until(next->epoll.deadline_ns) : -1);
}

/* The operation may be gone when `done` returns, or under way again. */
static void tell(struct loop_op *op, int32_t res, uint32_t flags) {
        op->epoll.state = flags & IORING_CQE_F_MORE ? OP_WATCHED : OP_IDLE;
        op->done(op, res, flags);
}

static void happened(struct loop_epoll *e, struct loop_op *op, uint32_t events) {
        const struct io_uring_sqe *sqe = &op->epoll.sqe;
        int32_t res = sqe->opcode == IORING_OP_POLL_ADD ? (int32_t)events : attempt(sqe);
        bool more = is_multishot(sqe) && res >= 0;

        if (res == -EAGAIN)
                return;
        if (!more)
                unwatch(e, op);
        tell(op, res, more ? IORING_CQE_F_MORE : 0);
}

static void expire(struct loop_epoll *e) {
        struct loop_op *op = TAILQ_FIRST(&e->timed);
        uint64_t now_ns = op ? clock_ns() : 0;

        while (op && op->epoll.deadline_ns <= now_ns) {
                TAILQ_REMOVE(&e->timed, op, epoll.link);
                finish(e, op, -ETIME);
                op = TAILQ_FIRST(&e->timed);
        }
}

void loop_epoll_dispatch(struct loop_epoll *e) {
        struct loop_op *op;

        if (!e->n_events && clock_ns() - e->looked_ns > LOOK_NS)
                look(e, 0);
        expire(e);
        while ((op = TAILQ_FIRST(&e->done))) {
                TAILQ_REMOVE(&e->done, op, epoll.link);
                tell(op, op->epoll.res, 0);
        }
        for (int i = 0; i < e->n_events; i++)
                if ((op = e->events[i].data.ptr))
                        happened(e, op, e->events[i].events);
        e->n_events = 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of a loop, by io_uring and by epoll: the same entries, the same results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/loop-io.h"

#define RESULTS_MAX 16

/* An operation that remembers what it was told. */
struct probe {
        struct loop_op op;
        int32_t results[RESULTS_MAX];
        bool more[RESULTS_MAX];
        uint32_t n;
};

static struct loop_io io;
static struct probe *order[RESULTS_MAX]; /* whose completions came, in order */
static uint32_t n_order;

static void told(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct probe *p = container_of(op, struct probe, op);

        assert_true(p->n < RESULTS_MAX && n_order < RESULTS_MAX);
        p->results[p->n] = res;
        p->more[p->n++] = cqe_flags & IORING_CQE_F_MORE;
        order[n_order++] = p;
}

static struct probe probe(void) {
        return (struct probe){ .op.done = told };
}

/* Until `p` was told of `n` results. Whatever gets lost ends in the test's own time-out. */
static void wait_for(const struct probe *p, uint32_t n) {
        while (p->n < n) {
                assert_int_equal(loop_io_wait(&io), 0);
                loop_io_dispatch(&io);
        }
}

/* What is there by now, and nothing else. */
static void settle(void) {
        struct __kernel_timespec soon = { .tv_nsec = 1000000 };
        struct probe timer = probe();

        io_uring_prep_timeout(loop_io_prepare(&io, &timer.op), &soon, 0, 0);
        wait_for(&timer, 1);
        assert_int_equal(timer.results[0], -ETIME);
}

static int setup(void **state) {
        enum loop_choice choice = *(enum loop_choice *)*state;

        n_order = 0;
        if (loop_io_init(&io, choice, 0, NULL) >= 0) {
                assert_int_equal(loop_io_is_epoll(&io), choice == LOOP_EPOLL);
                return 0;
        }
        print_message("# left out: no io_uring here; epoll instead\n");
        return loop_io_init(&io, LOOP_EPOLL, 0, NULL);
}

static int teardown(void **state) {
        (void)state;
        loop_io_deinit(&io);
        return 0;
}

/* By their ends, whatever the order in which they began. */
static void test_timeouts(void **state) {
        struct __kernel_timespec t[3] = { { .tv_nsec = 60000000 },
                                          { .tv_nsec = 20000000 },
                                          { .tv_nsec = 40000000 } };
        struct probe p[3] = { probe(), probe(), probe() };

        (void)state;
        for (int i = 0; i < 3; i++)
                io_uring_prep_timeout(loop_io_prepare(&io, &p[i].op), &t[i], 0, 0);
        wait_for(&p[0], 1);
        assert_ptr_equal(order[0], &p[1]);
        assert_ptr_equal(order[1], &p[2]);
        assert_ptr_equal(order[2], &p[0]);
        for (int i = 0; i < 3; i++)
                assert_int_equal(p[i].results[0], -ETIME);
}

/* Each write is an event though nobody reads; the last completion of one that is cancelled says so,
 * and what came before is told before or not at all. */
static void test_doorbells(void **state) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct probe p = probe();
        uint32_t n;

        (void)state;
        io_uring_prep_poll_multishot(loop_io_prepare(&io, &p.op), fd, POLLIN);
        settle();
        assert_int_equal(p.n, 0);
        for (uint32_t i = 1; i <= 3; i++) {
                assert_int_equal(eventfd_write(fd, 1), 0);
                wait_for(&p, i);
                assert_true(p.results[i - 1] & POLLIN);
                assert_true(p.more[i - 1]);
                settle();
                assert_int_equal(p.n, i);
                n_order = 0;
        }
        assert_int_equal(eventfd_write(fd, 1), 0);
        io_uring_prep_cancel(loop_io_prepare(&io, NULL), &p.op, 0);
        loop_io_submit(&io);
        close(fd);
        settle();
        n = p.n;
        assert_in_range(n, 4, 5);
        assert_int_equal(p.results[n - 1], -ECANCELED);
        assert_false(p.more[n - 1]);
        settle();
        assert_int_equal(p.n, n);
}

/* Also when the event is already known, and the one who cancels is told of his own first. */
static struct probe victims[2];

static void told_and_cancels(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct probe *other = container_of(op, struct probe, op) == victims ? &victims[1] : victims;

        told(op, res, cqe_flags);
        if (!other->n)
                io_uring_prep_cancel(loop_io_prepare(&io, NULL), &other->op, 0);
        loop_io_submit(&io);
}

static void test_cancelling_each_other(void **state) {
        int fds[2];

        (void)state;
        for (int i = 0; i < 2; i++) {
                fds[i] = eventfd(1, EFD_CLOEXEC);
                victims[i] = (struct probe){ .op.done = told_and_cancels };
                io_uring_prep_poll_add(loop_io_prepare(&io, &victims[i].op), fds[i], POLLIN);
        }
        wait_for(&victims[0], 1);
        wait_for(&victims[1], 1);
        settle();
        for (int i = 0; i < 2; i++) {
                assert_int_equal(victims[i].n, 1);
                assert_true(victims[i].results[0] == POLLIN || victims[i].results[0] == -ECANCELED);
                close(fds[i]);
        }
}

/* At once, later, in part, and to nobody. */
static void test_transfers(void **state) {
        char text[8] = "", room[1 << 16];
        struct iovec iov = { text, sizeof(text) };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        struct probe r = probe(), s = probe();
        int fds[2];

        (void)state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(write(fds[1], "abc", 3), 3);
        io_uring_prep_recv(loop_io_prepare(&io, &r.op), fds[0], text, sizeof(text), 0);
        wait_for(&r, 1);
        assert_int_equal(r.results[0], 3);
        assert_memory_equal(text, "abc", 3);

        io_uring_prep_recvmsg(loop_io_prepare(&io, &r.op), fds[0], &m, MSG_CMSG_CLOEXEC);
        settle();
        assert_int_equal(r.n, 1);
        io_uring_prep_send(loop_io_prepare(&io, NULL), fds[1], "defg", 4,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        io_uring_prep_send(loop_io_prepare(&io, NULL), fds[1], "hi", 2,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        wait_for(&r, 2);
        assert_in_range(r.results[1], 4, 6);
        assert_memory_equal(text, "defghi", (size_t)r.results[1]);

        memset(room, 'x', sizeof(room));
        while (send(fds[1], room, sizeof(room), MSG_DONTWAIT) > 0)
                ;
        io_uring_prep_send(loop_io_prepare(&io, &s.op), fds[1], "y", 1, MSG_NOSIGNAL);
        settle();
        assert_int_equal(s.n, 0);
        while (recv(fds[0], room, sizeof(room), MSG_DONTWAIT) > 0)
                ;
        wait_for(&s, 1);
        assert_int_equal(s.results[0], 1);

        close(fds[0]);
        io_uring_prep_send(loop_io_prepare(&io, &s.op), fds[1], "z", 1, MSG_NOSIGNAL);
        io_uring_prep_recv(loop_io_prepare(&io, &r.op), fds[1], text, sizeof(text), 0);
        wait_for(&s, 2);
        wait_for(&r, 3);
        assert_int_equal(s.results[1], -EPIPE);
        assert_true(r.results[2] == 0 || r.results[2] == -ECONNRESET);
        close(fds[1]);
}

static int connect_to(const struct sockaddr_un *a, socklen_t n) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        assert_int_equal(connect(fd, (const struct sockaddr *)a, n), 0);
        return fd;
}

/* Though the socket blocks; and its number may be another's as soon as it is cancelled. */
static void test_accepting(void **state) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), clients[3];
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        socklen_t n = sizeof(a);
        struct probe p = probe();

        (void)state;
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)), 0); /* any name */
        assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
        assert_int_equal(listen(fd, 8), 0);
        io_uring_prep_multishot_accept(loop_io_prepare(&io, &p.op), fd, NULL, NULL, SOCK_CLOEXEC);
        for (uint32_t i = 0; i < 3; i++) {
                clients[i] = connect_to(&a, n);
                wait_for(&p, i + 1);
                assert_true(p.more[i]);
                assert_int_equal(fcntl(p.results[i], F_GETFD), FD_CLOEXEC);
                close(p.results[i]);
                close(clients[i]);
        }
        settle();
        io_uring_prep_cancel(loop_io_prepare(&io, NULL), &p.op, 0);
        loop_io_submit(&io);
        close(fd);
        wait_for(&p, 4);
        assert_int_equal(p.results[3], -ECANCELED);
}

static enum loop_choice choices[] = { LOOP_IO_URING, LOOP_EPOLL };

#define BOTH(test)                                                                                 \
        { #test ", io_uring", test, setup, teardown, &choices[0] }, {                              \
#test ", epoll", test, setup, teardown, &choices[1]                                \
        }

int main(void) {
        const struct CMUnitTest tests[] = {
                BOTH(test_timeouts),  BOTH(test_doorbells), BOTH(test_cancelling_each_other),
                BOTH(test_transfers), BOTH(test_accepting),
        };

        return cmocka_run_group_tests_name("loop-io", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeps and wakes by the hundred thousand, at every distance from one another: a client's ring and
 * a server's on two threads, with rings so small that both want of work and want of room put the
 * server to sleep. Pauses come from a seeded generator. A wake-up that is lost leaves a wait to its
 * time-out, which is a failure here and nothing else. The protocol in all its states, rather than
 * in very many: tests/model.
 *
 *   test-wakeup [SLEEPS [SEED]]
 */
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "client-ring.h"
#include "daemon/ring-server.h"
#include "proto/spin.h"
#include "random.h"

#define SLEEPS_DEFAULT 20000u
#define LOST_S         20 /* no wait is as long on the most crowded of machines */
#define ROUNDS         64u

static const struct ring_geometry geometry = { 2, 2, 4096, 4096 };
static uint64_t n_sleeps_wanted = SLEEPS_DEFAULT, seed = 1;

struct server {
        struct ring_server ring;
        struct io_uring uring;
        int doorbell_fd;
        uint32_t random;
        uint32_t look_again; /* before sleeping */
        atomic_bool stop;
        atomic_uint_fast64_t n_slept; /* as the kernel counts */
        uint64_t n_served, n_waits, n_waits_for_room, n_second_looks;
        const char *failure;
};

struct client {
        struct client_ring ring;
        int socket_fd;
        uint32_t random;
        uint64_t n_submitted, n_reaped, n_arms, n_waits, n_second_looks, n_messages;
        const char *failure;
};

/* Voluntary switches: this thread had nothing to do and really slept. */
static uint64_t n_slept(void) {
        struct rusage usage;

        getrusage(RUSAGE_THREAD, &usage);
        return (uint64_t)usage.ru_nvcsw;
}

/* Nothing, up to a few microseconds, or the CPU to somebody else. */
static void pause_randomly(uint32_t *random) {
        uint32_t r = test_random(random);

        if (r % 64 == 0)
                sched_yield();
        else if (r % 2)
                for (uint32_t n = (r >> 8) & ((1u << r / 2 % 8) - 1); n; n--)
                        cpu_relax();
}

/* ---- The server: what worker.c and serve.c do, but for the rows ---- */

static void poll_doorbell(struct server *s) {
        io_uring_prep_poll_multishot(io_uring_get_sqe(&s->uring), s->doorbell_fd, POLLIN);
        io_uring_submit(&s->uring);
}

static void take_events(struct server *s) {
        struct io_uring_cqe *cqe;

        while (!io_uring_peek_cqe(&s->uring, &cqe)) {
                bool more = cqe->flags & IORING_CQE_F_MORE;

                io_uring_cqe_seen(&s->uring, cqe);
                if (!more)
                        poll_doorbell(s);
        }
}

static bool look(struct server *s, uint32_t *ret_n_room, uint32_t *ret_n_pending) {
        if (ring_server_room(&s->ring, ret_n_room, NULL) < 0 ||
            ring_server_pending(&s->ring, ret_n_pending, NULL) < 0) {
                s->failure = "the client's index is impossible";
                *ret_n_room = *ret_n_pending = 0;
        }
        return *ret_n_room && *ret_n_pending;
}

static void publish(struct ring_server *s) {
        if (ring_server_publish(s))
                (void)send(s->socket_fd, &ring_server_wake, sizeof(ring_server_wake),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One submission or all that are there and have room, told in one go. */
static void serve(struct server *s, uint32_t n) {
        if (test_random(&s->random) % 2)
                n = 1;
        for (; n; n--) {
                struct ring_submission submission;

                ring_server_take(&s->ring, &submission);
                pause_randomly(&s->random);
                ring_server_complete(
                        &s->ring, &(struct ring_completion){ .user_data = submission.user_data });
                s->n_served++;
        }
        publish(&s->ring);
}

static void server_sleep(struct server *s) {
        struct __kernel_timespec lost = { .tv_sec = LOST_S };
        uint32_t n_room, n_pending;
        struct io_uring_cqe *cqe;

        ring_server_announce_sleep(&s->ring);
        if (look(s, &n_room, &n_pending)) {
                s->n_second_looks++;
        } else {
                s->n_waits++;
                s->n_waits_for_room += !n_room;
                if (io_uring_wait_cqe_timeout(&s->uring, &cqe, &lost) == -ETIME)
                        s->failure = "the server's wait ended by its time-out";
                if (s->n_waits % ROUNDS == 0)
                        atomic_store(&s->n_slept, n_slept());
        }
        ring_server_announce_awake(&s->ring);
        /* A budget of any size from none to about what the client's round takes. */
        s->look_again = test_random(&s->random) >> (20 + test_random(&s->random) % 8);
}

static void *server_main(void *userdata) {
        struct server *s = userdata;

        poll_doorbell(s);
        while (!atomic_load(&s->stop) && !s->failure) {
                uint32_t n_room, n_pending;

                take_events(s);
                if (look(s, &n_room, &n_pending))
                        serve(s, MIN(n_room, n_pending));
                else if (s->look_again)
                        s->look_again--;
                else
                        server_sleep(s);
        }
        atomic_store(&s->n_slept, n_slept());
        return NULL;
}

/* ---- The client: what ticket.c does ---- */

static void drain(struct client *c) {
        struct wire_wake wake;

        while (recv(c->socket_fd, &wake, sizeof(wake), MSG_DONTWAIT) > 0)
                c->n_messages++;
}

static void client_submit(struct client *c) {
        struct ring_submission submission = { .user_data = c->n_submitted };

        if (client_ring_submit(&c->ring, &submission) == 0)
                c->n_submitted++;
}

static void client_reap(struct client *c) {
        struct ring_completion completions[2];
        int n = client_ring_reap(&c->ring, completions, 1 + test_random(&c->random) % 2);

        if (n < 0)
                c->failure = "the server's index is impossible";
        for (int i = 0; i < n; i++)
                if (completions[i].user_data != c->n_reaped++)
                        c->failure = "a completion is missing, doubled or torn";
}

static void client_sleep(struct client *c) {
        struct pollfd socket = { .fd = c->socket_fd, .events = POLLIN };

        c->n_arms++;
        if (!client_ring_arm(&c->ring)) {
                c->n_second_looks++;
                return;
        }
        /* Between the arming and the poll an application may do something else. */
        pause_randomly(&c->random);
        if (test_random(&c->random) % 8 == 0)
                client_submit(c);
        if (test_random(&c->random) % 8) {
                c->n_waits++;
                if (poll(&socket, 1, LOST_S * 1000) == 0)
                        c->failure = "the client's wait ended by its time-out";
        }
        client_ring_disarm(&c->ring);
        if (test_random(&c->random) % 4)
                drain(c); /* else a message of this time ends the next wait at once */
}

static void client_round(struct client *c) {
        for (uint32_t n = 1 + test_random(&c->random) % 4; n; n--) {
                client_submit(c);
                pause_randomly(&c->random);
        }
        while (c->n_reaped < c->n_submitted && !c->failure) {
                client_reap(c);
                pause_randomly(&c->random);
                /* New work before all of the old is done: now and then, or nobody would sleep. */
                if (test_random(&c->random) % 8 == 0)
                        client_submit(c);
                if (c->n_reaped < c->n_submitted && test_random(&c->random) % 8 == 0)
                        client_sleep(c);
        }
}

static void setup(struct client *c, struct server *s) {
        _cleanup_(closep) int memfd = -1;
        struct fault fault = { "" };
        int sockets[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
        *c = (struct client){ .random = (uint32_t)(seed * 0x9e3779b9u) | 1 };
        *s = (struct server){ .random = (uint32_t)(seed * 0x85ebca6bu) | 1 };
        assert_int_equal(client_ring_init(&c->ring, &geometry, &memfd, &fault), 0);
        assert_int_equal(ring_server_init(&s->ring, memfd, &c->ring.layout, 1, sockets[1], &fault),
                         0);
        s->doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_int_equal(io_uring_queue_init(8, &s->uring, 0), 0);
        c->ring.doorbell_fd = fcntl(s->doorbell_fd, F_DUPFD_CLOEXEC, 0);
        c->socket_fd = sockets[0];
}

static void teardown(struct client *c, struct server *s) {
        io_uring_queue_exit(&s->uring);
        closep(&s->doorbell_fd);
        closep(&s->ring.socket_fd);
        closep(&c->socket_fd);
        ring_server_deinit(&s->ring);
        client_ring_deinit(&c->ring);
}

/* To the n-th of the CPUs that this process may use, or to the last. */
static void pin(pthread_t thread, const cpu_set_t *allowed, int n) {
        cpu_set_t one;

        for (int cpu = 0; cpu < CPU_SETSIZE && n >= 0; cpu++)
                if (CPU_ISSET(cpu, allowed)) {
                        CPU_ZERO(&one);
                        CPU_SET(cpu, &one);
                        n--;
                }
        pthread_setaffinity_np(thread, sizeof(one), &one);
}

static void expect_none_lost(struct client *c, struct server *s, uint64_t n_client,
                             uint64_t n_sleeps) {
        uint64_t n_server = atomic_load(&s->n_slept);

        print_message("# seed %" PRIu64 ": %" PRIu64 " lookups; the client slept %" PRIu64
                      " times (%" PRIu64 " waits, %" PRIu64 " second looks), the server %" PRIu64
                      " (%" PRIu64 " waits, %" PRIu64 " for room, %" PRIu64 " second looks)\n",
                      seed, c->n_reaped, n_client, c->n_waits, c->n_second_looks, n_server,
                      s->n_waits, s->n_waits_for_room, s->n_second_looks);
        if (c->failure || s->failure)
                fail_msg("%s", c->failure ? c->failure : s->failure);
        assert_int_equal(c->n_reaped, c->n_submitted);
        assert_int_equal(s->n_served, c->n_submitted);
        assert_true(c->n_messages <= c->n_arms);
        assert_true(n_client + n_server >= n_sleeps);
        /* All ways of going to sleep have been gone. */
        assert_true(n_client > n_sleeps / 50 && n_server > n_sleeps / 50);
        assert_true(s->n_waits_for_room > n_sleeps / 1000);
}

/* Until the two have slept `n_sleeps` times between them. */
static void sleep_and_wake(int server_cpu, uint64_t n_sleeps) {
        const uint64_t n_before = n_slept();
        uint64_t n_client = 0;
        cpu_set_t allowed;
        pthread_t thread;
        struct client c;
        struct server s;

        setup(&c, &s);
        sched_getaffinity(0, sizeof(allowed), &allowed);
        pin(pthread_self(), &allowed, 0);
        assert_int_equal(pthread_create(&thread, NULL, server_main, &s), 0);
        pin(thread, &allowed, server_cpu);
        while (n_client + atomic_load(&s.n_slept) < n_sleeps && !c.failure) {
                for (unsigned i = 0; i < ROUNDS && !c.failure; i++)
                        client_round(&c);
                n_client = n_slept() - n_before;
        }
        atomic_store(&s.stop, true);
        eventfd_write(s.doorbell_fd, 1);
        pthread_join(thread, NULL);
        sched_setaffinity(0, sizeof(allowed), &allowed);
        drain(&c);
        expect_none_lost(&c, &s, n_client, n_sleeps);
        teardown(&c, &s);
}

/* Each is interrupted by the other wherever that happens. */
static void test_on_one_cpu(void **state) {
        (void)state;
        sleep_and_wake(0, n_sleeps_wanted / 4);
}

/* Both run at once; where there is only one CPU, once more on that. */
static void test_on_two_cpus(void **state) {
        (void)state;
        sleep_and_wake(1, n_sleeps_wanted);
}

/* Rounds that decode a large batch bit by bit complete nothing for long: its client sleeps on. */
static void test_nothing_new_wakes_nobody(void **state) {
        struct ring_submission submission;
        struct client c;
        struct server s;

        (void)state;
        setup(&c, &s);
        client_submit(&c);
        assert_true(client_ring_arm(&c.ring));
        ring_server_take(&s.ring, &submission);
        publish(&s.ring);
        drain(&c);
        assert_int_equal(c.n_messages, 0);
        ring_server_complete(&s.ring, &(struct ring_completion){ 0 });
        for (int i = 0; i < 3; i++)
                publish(&s.ring);
        drain(&c);
        assert_int_equal(c.n_messages, 1);
        teardown(&c, &s);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_new_wakes_nobody),
                cmocka_unit_test(test_on_one_cpu),
                cmocka_unit_test(test_on_two_cpus),
        };

        if (argc > 1)
                n_sleeps_wanted = strtoull(argv[1], NULL, 0);
        if (argc > 2)
                seed = strtoull(argv[2], NULL, 0);
        return cmocka_run_group_tests_name("wakeup", tests, NULL, NULL);
}

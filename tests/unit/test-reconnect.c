/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Daemons that go and come back, at every message and with lookups in flight: what was asked for
 * arrives, once and right, or the documented error does; and no call waits that must not.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "carvq.h"
#include "client.h"
#include "fake-daemon.h"
#include "proto/spin.h"
#include "tests/make-table.h"

#define N_ROWS           200u
#define N_DIMS           24u

#define TIMEOUT_SHORT_NS UINT64_C(60000000)
#define TIMEOUT_LONG_NS  UINT64_C(20000000000)

static char dir[64], path[96];

static int setup(void **state) {
        (void)state;
        strcpy(dir, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/t.carvq", dir);
        make_table_file(path,
                        &(struct table_header){
                                .codec = TABLE_CODEC_F32, .n_rows = N_ROWS, .n_dims = N_DIMS },
                        99);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        unlink(path);
        return rmdir(dir);
}

/* One daemon after the other, one client, its table, and the same file opened directly. */
struct world {
        struct fake_daemon fake;
        carvq_client *client;
        carvq_table *table, *direct;
};

static void open_with(struct world *w, enum trick first, const enum trick *later, uint32_t n_later,
                      struct carvq_connect_options o) {
        char message[CARVQ_MESSAGE_BYTES] = "";

        fake_daemon_start(&w->fake, dir, path, first);
        w->fake.later = later;
        w->fake.n_later = n_later;
        o.size = sizeof(o);
        o.socket_path = w->fake.path;
        if (carvq_connect(&o, &w->client, message) != 0)
                fail_msg("%s", message);
        if (carvq_table_open(w->client, "t", &w->table) != 0)
                fail_msg("%s", carvq_client_error(w->client));
        assert_int_equal(carvq_file_open(path, NULL, &w->direct, NULL), 0);
}

#define LATER(...)                                                                                 \
        (const enum trick[]){ __VA_ARGS__ },                                                       \
                sizeof((enum trick[]){ __VA_ARGS__ }) / sizeof(enum trick)
#define ALONE NULL, 0
#define world_open(w, first, later)                                                                \
        open_with(w, first, later, (struct carvq_connect_options){ .timeout_ns = TIMEOUT_LONG_NS })

static void world_close(struct world *w) {
        carvq_table_close(w->direct);
        carvq_client_free(w->client);
        fake_daemon_stop(&w->fake);
}

static struct carvq_client_stats stats_of(const struct world *w) {
        struct carvq_client_stats stats = { .size = sizeof(stats) };

        assert_int_equal(carvq_client_stats(w->client, &stats), 0);
        return stats;
}

static int look_up(struct world *w) {
        const uint64_t ids[] = { 5, 199, 7 };
        float rows[3][N_DIMS], expected[3][N_DIMS];
        int r = carvq_lookup(w->table, ids, 3, NULL, rows, sizeof(rows));

        if (r < 0)
                return r;
        assert_int_equal(carvq_lookup(w->direct, ids, 3, NULL, expected, sizeof(expected)), 0);
        assert_memory_equal(rows, expected, sizeof(rows));
        return 0;
}

static carvq_ticket submit(struct world *w, uint64_t id) {
        carvq_ticket ticket;

        assert_int_equal(carvq_submit(w->table, &id, 1, NULL, &ticket), 0);
        return ticket;
}

static void check_rows(struct world *w, const struct carvq_rows *rows, uint64_t id) {
        float expected[N_DIMS];

        assert_int_equal(carvq_lookup(w->direct, &id, 1, NULL, expected, sizeof(expected)), 0);
        assert_int_equal(rows->n_rows, 1);
        assert_memory_equal(rows->rows, expected, sizeof(expected));
}

static void expect_error(const struct world *w, const char *text) {
        if (!strstr(carvq_client_error(w->client), text))
                fail_msg("found \"%s\", expected \"%s\" in it", carvq_client_error(w->client),
                         text);
}

/* The daemon goes, whatever it was doing. */
static void kill_daemon(struct world *w) {
        w->fake.trick = TRICK_CLOSE_WHEN_HELD;
        fake_daemon_hold(&w->fake, true);
}

/* With calls that do not wait. */
static void find_out(struct world *w) {
        const uint64_t n_before = stats_of(w).n_reconnects;

        while (stats_of(w).n_reconnects == n_before)
                assert_int_equal(carvq_arm(w->client), 0);
        fake_daemon_hold(&w->fake, false);
}

/* ---- The end at every message ---- */

static void test_ends_at_every_message(void **state) {
        const enum trick tricks[] = {
                TRICK_CLOSE_AT_ACCEPT, TRICK_CLOSE_AT_HELLO,     TRICK_CLOSE_AT_RING,
                TRICK_CLOSE_AT_OPEN,   TRICK_ERROR_AT_OPEN,      TRICK_CLOSE_AT_SUBMIT,
                TRICK_ERROR_AT_SUBMIT, TRICK_REFUSE_AT_ACCEPT,   TRICK_REFUSE_INTERNAL,
                TRICK_REFUSE_RING,     TRICK_WELCOME_SMALL_RING,
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(tricks); i++) {
                struct carvq_client_stats stats;
                struct world w;

                world_open(&w, TRICK_CLOSE_AT_SUBMIT,
                           LATER(tricks[i], tricks[i], tricks[i], tricks[i], TRICK_NONE));
                assert_int_equal(look_up(&w), 0);
                assert_int_equal(look_up(&w), 0);
                stats = stats_of(&w);
                assert_int_equal(w.fake.n_connections, 6);
                assert_int_equal(stats.epoch, 77 + 5);
                assert_in_range(stats.n_reconnects, 1, 5);
                assert_in_range(stats.n_resubmitted, 1, 5);
                assert_int_equal(stats.n_handovers, 0);
                assert_true(stats.last_pause_ns > 0);
                assert_true(stats.longest_pause_ns >= stats.last_pause_ns);
                world_close(&w);
        }
}

/* carvq_table_open() finds out itself, with and without tables that were open before. */
static void test_open_finds_out(void **state) {
        carvq_table *other;
        struct world w;

        (void)state;
        world_open(&w, TRICK_CLOSE_WHEN_HELD, LATER(TRICK_CLOSE_AT_OPEN, TRICK_NONE));
        fake_daemon_hold(&w.fake, true);
        assert_int_equal(carvq_table_open(w.client, "t", &other), 0);
        fake_daemon_hold(&w.fake, false);
        assert_int_equal(look_up(&w), 0);
        assert_int_equal(w.fake.n_connections, 3);
        assert_int_equal(stats_of(&w).n_reconnects, 2);
        assert_int_equal(stats_of(&w).n_resubmitted, 0);
        world_close(&w);
}

/* ---- In flight ---- */

static void test_tickets(void **state) {
        carvq_ticket done, tickets[100], cancelled;
        struct carvq_rows kept, rows;
        struct world w;

        (void)state;
        world_open(&w, TRICK_NONE, LATER(TRICK_NONE));
        done = submit(&w, 3);
        assert_int_equal(carvq_wait(w.client, done, 0, &kept), 0);
        fake_daemon_hold(&w.fake, true);
        for (uint64_t i = 0; i < 40; i++)
                tickets[i] = submit(&w, i);
        cancelled = submit(&w, 1);
        carvq_release(w.client, cancelled);
        fake_daemon_stop(&w.fake);
        assert_int_equal(carvq_wait(w.client, tickets[0], TIMEOUT_SHORT_NS, &rows), -ETIMEDOUT);
        /* Some more while there is none: more than the ring has entries. */
        for (uint64_t i = 40; i < 100; i++) {
                assert_int_equal(carvq_arm(w.client), 0);
                tickets[i] = submit(&w, i);
        }
        cancelled = submit(&w, 1);
        carvq_release(w.client, cancelled);
        fake_daemon_start(&w.fake, dir, path, TRICK_NONE);
        for (uint64_t i = 100; i-- > 0;) {
                assert_int_equal(carvq_wait(w.client, tickets[i], 0, &rows), 0);
                check_rows(&w, &rows, i);
                carvq_release(w.client, tickets[i]);
                assert_int_equal(carvq_wait(w.client, tickets[i], 0, &rows), -ENOENT);
        }
        check_rows(&w, &kept, 3);
        assert_int_equal(carvq_poll(w.client, done, &rows), 1);
        assert_ptr_equal(rows.rows, kept.rows);
        carvq_release(w.client, done);
        assert_int_equal(look_up(&w), 0);
        /* Each once, and nothing is left over. */
        assert_true(TAILQ_EMPTY(&w.client->arena.blocks) && TAILQ_EMPTY(&w.client->ids.blocks));
        assert_int_equal(w.client->n_with_daemon + w.client->n_pending + w.client->n_unseen, 0);
        assert_int_equal(stats_of(&w).n_resubmitted, 40);
        world_close(&w);
}

/* More pieces than fit into the arena at once, and the daemon goes in the middle of them. */
static void test_pieces(void **state) {
        enum { N = 20000 };
        static float rows[N][N_DIMS], expected[N][N_DIMS];
        static uint64_t ids[N];
        struct world w;

        (void)state;
        for (size_t i = 0; i < N; i++)
                ids[i] = i * 7 % N_ROWS;
        world_open(&w, TRICK_CLOSE_AFTER_COMPLETION,
                   LATER(TRICK_CLOSE_AFTER_COMPLETION, TRICK_CLOSE_AT_SUBMIT, TRICK_NONE));
        assert_int_equal(carvq_lookup(w.table, ids, N, NULL, rows, sizeof(rows)), 0);
        assert_int_equal(carvq_lookup(w.direct, ids, N, NULL, expected, sizeof(expected)), 0);
        assert_memory_equal(rows, expected, sizeof(rows));
        assert_int_equal(w.fake.n_connections, 4);
        /* From its first row again: the daemon got more than one lookup's pieces. */
        assert_true(w.fake.n_taken > N * sizeof(rows[0]) / 131072 + 5);
        world_close(&w);
}

/* ---- Tables ---- */

static void test_table_changed(void **state) {
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;

        (void)state;
        world_open(&w, TRICK_CLOSE_AT_SUBMIT, LATER(TRICK_TABLE_OTHER, TRICK_NONE));
        assert_int_equal(look_up(&w), -EBADF);
        expect_error(&w, "table t is another one since the daemon restarted: 201 x 24, expected "
                         "200 x 24");
        ticket = submit(&w, 3); /* asks again */
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), -EBADF);
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), -ENOENT);
        kill_daemon(&w);
        find_out(&w);
        assert_int_equal(look_up(&w), 0);
        world_close(&w);
}

static void test_table_gone(void **state) {
        struct carvq_table_info info = { .size = sizeof(info) };
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;
        int r;

        (void)state;
        world_open(&w, TRICK_CLOSE_AT_SUBMIT, LATER(TRICK_TABLE_GONE));
        ticket = submit(&w, 3);
        while ((r = carvq_poll(w.client, ticket, &rows)) == 0)
                ;
        assert_int_equal(r, -EBADF);
        expect_error(&w, "table t: no table named 't' is published");
        assert_int_equal(look_up(&w), -EBADF);
        assert_int_equal(stats_of(&w).n_reconnects, 1);
        w.fake.trick = TRICK_NONE; /* published by now */
        assert_int_equal(look_up(&w), 0);
        assert_int_equal(carvq_table_info(w.table, &info), 0);
        assert_int_equal(info.n_rows, N_ROWS);
        world_close(&w);
}

/* Closed while its lookup waits for a daemon: no crash, and an error. */
static void test_table_closed(void **state) {
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;

        (void)state;
        world_open(&w, TRICK_CLOSE_AT_SUBMIT, LATER(TRICK_NONE));
        ticket = submit(&w, 3);
        carvq_table_close(w.table);
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), -EBADF);
        assert_int_equal(carvq_table_open(w.client, "t", &w.table), 0);
        assert_int_equal(look_up(&w), 0);
        world_close(&w);
}

/* Of a direct table nothing depends on the daemon; what is claimed begins anew. */
static void test_direct(void **state) {
        struct carvq_table_options direct = { .size = sizeof(direct), .mode = CARVQ_MODE_DIRECT };
        const uint64_t id = 7;
        carvq_table *table;
        float row[N_DIMS];
        struct world w;

        (void)state;
        world_open(&w, TRICK_NONE, LATER(TRICK_NONE));
        assert_int_equal(carvq_table_open_with(w.client, "t", &direct, &table), 0);
        for (int i = 0; i < 3; i++)
                assert_int_equal(carvq_lookup(table, &id, 1, NULL, row, sizeof(row)), 0);
        assert_int_equal(w.client->ring.claims->n_lookups, 3);
        kill_daemon(&w);
        find_out(&w);
        assert_int_equal(carvq_lookup(table, &id, 1, NULL, row, sizeof(row)), 0);
        assert_int_equal(w.client->ring.claims->n_lookups, 1);
        carvq_table_close(table);
        assert_int_equal(look_up(&w), 0);
        assert_int_equal(w.fake.n_connections, 2);
        world_close(&w);
}

static void test_cache_is_asked_for_again(void **state) {
        struct carvq_table_options uncached = { .size = sizeof(uncached), .no_cache = 1 };
        carvq_table *table;
        const uint64_t id = 7;
        float row[N_DIMS];
        struct world w;

        (void)state;
        world_open(&w, TRICK_CACHE_LIES, LATER(TRICK_CACHE_LIES));
        assert_int_equal(carvq_table_open_with(w.client, "t", &uncached, &table), 0);
        assert_non_null(w.table->cache.memory);
        assert_int_equal(w.fake.n_caches_asked, 1);

        /* A hand-over: the same connection, another daemon. */
        atomic_store(&w.fake.header->epoch, 1234);
        assert_int_equal(look_up(&w), 0);
        assert_int_equal(look_up(&w), 0);
        assert_non_null(w.table->cache.memory);
        assert_int_equal(carvq_lookup(table, &id, 1, NULL, row, sizeof(row)), 0);
        assert_int_equal(w.fake.n_caches_asked, 2);
        assert_int_equal(stats_of(&w).n_handovers, 1);
        assert_int_equal(stats_of(&w).epoch, 1234);
        assert_int_equal(stats_of(&w).n_reconnects, 0);

        kill_daemon(&w);
        find_out(&w);
        assert_int_equal(look_up(&w), 0); /* opens it */
        assert_int_equal(look_up(&w), 0);
        assert_non_null(w.table->cache.memory);
        assert_int_equal(w.fake.n_caches_asked, 3);
        assert_int_equal(stats_of(&w).n_handovers, 1);
        world_close(&w);
}

/* ---- Event loops ---- */

/* Nothing but calls that do not wait, and an epoll set that is told of one descriptor once. */
static void test_event_loop(void **state) {
        struct epoll_event event = { .events = EPOLLIN };
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC), fd, r;

        (void)state;
        world_open(&w, TRICK_CLOSE_AT_SUBMIT,
                   LATER(TRICK_CLOSE_AT_HELLO, TRICK_CLOSE_AT_RING, TRICK_CLOSE_AT_OPEN,
                         TRICK_CLOSE_AT_SUBMIT, TRICK_CLOSE_AFTER_COMPLETION, TRICK_NONE));
        fd = carvq_client_fd(w.client);
        assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
        for (uint64_t id = 0; id < 3; id++) {
                int n_turns = 0;

                ticket = submit(&w, id);
                while ((r = carvq_poll(w.client, ticket, &rows)) == 0) {
                        if (carvq_arm(w.client) == 0)
                                assert_int_equal(epoll_wait(epoll_fd, &event, 1, 20000), 1);
                        assert_true(++n_turns < 100); /* it sleeps in between */
                }
                assert_int_equal(r, 1);
                check_rows(&w, &rows, id);
                carvq_release(w.client, ticket);
                assert_int_equal(carvq_client_fd(w.client), fd);
        }
        assert_int_equal(w.fake.n_connections, 7);
        assert_int_equal(carvq_arm(w.client), 0);
        assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
        close(epoll_fd);
        world_close(&w);
}

/* While nobody listens: the loop turns some times a second, and goes on when somebody does. */
static void test_event_loop_without_a_daemon(void **state) {
        struct pollfd p = { .events = POLLIN };
        const uint64_t end_ns = 300000000;
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;
        int n_turns = 0, r;

        (void)state;
        world_open(&w, TRICK_NONE, ALONE);
        p.fd = carvq_client_fd(w.client);
        fake_daemon_stop(&w.fake);
        ticket = submit(&w, 9);
        for (uint64_t slept_ns = 0; slept_ns < end_ns; n_turns++) {
                uint64_t start_ns = clock_ns();

                assert_int_equal(carvq_poll(w.client, ticket, &rows), 0);
                assert_int_equal(carvq_arm(w.client), 0);
                assert_int_equal(poll(&p, 1, 20000), 1);
                slept_ns += clock_ns() - start_ns;
        }
        assert_in_range(n_turns, 2, 40);
        fake_daemon_start(&w.fake, dir, path, TRICK_NONE);
        while ((r = carvq_poll(w.client, ticket, &rows)) == 0)
                if (carvq_arm(w.client) == 0)
                        assert_int_equal(poll(&p, 1, 20000), 1);
        assert_int_equal(r, 1);
        check_rows(&w, &rows, 9);
        carvq_release(w.client, ticket);
        world_close(&w);
}

/* ---- Limits ---- */

static void test_time_out(void **state) {
        struct carvq_rows rows;
        carvq_ticket ticket;
        carvq_table *other;
        struct world w;

        (void)state;
        world_open(&w, TRICK_NONE, ALONE);
        fake_daemon_stop(&w.fake);
        w.client->timeout_ns = TIMEOUT_SHORT_NS;
        ticket = submit(&w, 4);
        assert_int_equal(carvq_wait(w.client, ticket, 1, &rows), -ETIMEDOUT);
        assert_int_equal(look_up(&w), -ETIMEDOUT);
        expect_error(&w, "no daemon for ");
        expect_error(&w, "no daemon there");
        assert_int_equal(carvq_table_open(w.client, "t", &other), -ETIMEDOUT);
        fake_daemon_start(&w.fake, dir, path, TRICK_NONE);
        w.client->timeout_ns = TIMEOUT_LONG_NS;
        assert_int_equal(look_up(&w), 0);
        assert_int_equal(carvq_wait(w.client, ticket, TIMEOUT_LONG_NS, &rows), 0);
        check_rows(&w, &rows, 4);
        carvq_release(w.client, ticket);
        world_close(&w);
}

/* What answers does not speak our protocol: three times, and never again. */
static void test_foreign_daemon(void **state) {
        const enum trick tricks[] = { TRICK_WELCOME_MAGIC,    TRICK_WELCOME_MAJOR,
                                      TRICK_REFUSE_VERSION,   TRICK_WELCOME_FEATURES,
                                      TRICK_WELCOME_SHORT,    TRICK_WAKE_FOR_WELCOME,
                                      TRICK_READY_WITHOUT_FD, TRICK_READY_WITH_PIPE };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(tricks); i++) {
                struct carvq_rows rows;
                carvq_ticket ticket;
                struct world w;
                struct pollfd p = { .events = POLLIN };

                world_open(&w, TRICK_CLOSE_AT_SUBMIT, LATER(tricks[i]));
                p.fd = carvq_client_fd(w.client);
                ticket = submit(&w, 3);
                assert_int_equal(look_up(&w), -ECONNRESET);
                assert_int_equal(carvq_poll(w.client, ticket, &rows), -ECONNRESET);
                assert_int_equal(carvq_poll(w.client, ticket, &rows), -ENOENT);
                assert_int_equal(look_up(&w), -ECONNRESET);
                assert_int_equal(carvq_arm(w.client), -ECONNRESET);
                assert_int_equal(poll(&p, 1, 20000), 1);
                expect_error(&w, "what answers instead does not do");
                assert_int_equal(w.fake.n_connections, 1 + 3);
                world_close(&w);
        }
}

/* A violation in a session ends the client: the daemon that did it may still have the memory. */
static void test_violation(void **state) {
        const enum trick tricks[] = { TRICK_GARBAGE_AT_SUBMIT, TRICK_CQ_TAIL_AHEAD,
                                      TRICK_UNKNOWN_TICKET, TRICK_WRONG_ROWS };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(tricks); i++) {
                struct world w;

                world_open(&w, tricks[i], LATER(TRICK_NONE));
                assert_int_equal(look_up(&w), -ECONNRESET);
                assert_int_equal(look_up(&w), -ECONNRESET);
                assert_int_equal(stats_of(&w).n_reconnects, 0);
                world_close(&w);
        }
}

static void test_no_reconnect(void **state) {
        struct carvq_connect_options o = { .no_reconnect = 1 };
        struct world w;

        (void)state;
        open_with(&w, TRICK_CLOSE_AT_SUBMIT, LATER(TRICK_NONE), o);
        assert_int_equal(look_up(&w), -ECONNRESET);
        assert_int_equal(look_up(&w), -ECONNRESET);
        assert_int_equal(w.fake.n_connections, 1);
        assert_int_equal(stats_of(&w).n_reconnects, 0);
        world_close(&w);
}

/* The child may not, and keeps copies of everything while the parent does. */
static void test_fork(void **state) {
        struct pollfd p = { .events = POLLIN };
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;
        int said[2], done[2], status;
        char byte = 0;
        pid_t pid;

        (void)state;
        assert_int_equal(pipe(said), 0);
        assert_int_equal(pipe(done), 0);
        world_open(&w, TRICK_CLOSE_AT_SUBMIT, LATER(TRICK_NONE));
        p.fd = carvq_client_fd(w.client);
        ticket = submit(&w, 6);
        assert_int_equal(poll(&p, 1, 20000), 1);
        pid = fork();
        if (pid == 0) {
                byte = carvq_wait(w.client, ticket, 0, &rows) == -ECONNRESET &&
                       strstr(carvq_client_error(w.client), "forked");
                close(done[1]);
                (void)write(said[1], &byte, 1);
                (void)read(done[0], &byte, 1); /* until the parent closes it */
                _exit(0);
        }
        assert_int_equal(read(said[0], &byte, 1), 1);
        assert_int_equal(byte, 1);
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), 0);
        check_rows(&w, &rows, 6);
        carvq_release(w.client, ticket);
        assert_int_equal(carvq_arm(w.client), 0);
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(look_up(&w), 0);
        close(done[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        close(done[0]);
        close(said[0]);
        close(said[1]);
        world_close(&w);
}

static void test_stats(void **state) {
        struct carvq_client_stats stats;
        struct world w;

        (void)state;
        world_open(&w, TRICK_NONE, ALONE);
        memset(&stats, 0x5a, sizeof(stats));
        stats.size = 4;
        assert_int_equal(carvq_client_stats(w.client, &stats), -EINVAL);
        stats.size = offsetof(struct carvq_client_stats, n_reconnects);
        assert_int_equal(carvq_client_stats(w.client, &stats), 0);
        assert_int_equal(stats.epoch, 77);
        assert_int_equal(stats.n_reconnects, UINT64_C(0x5a5a5a5a5a5a5a5a));
        stats = stats_of(&w);
        assert_int_equal(stats.n_reconnects + stats.n_resubmitted + stats.longest_pause_ns, 0);
        world_close(&w);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ends_at_every_message),
                cmocka_unit_test(test_open_finds_out),
                cmocka_unit_test(test_tickets),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_table_changed),
                cmocka_unit_test(test_table_gone),
                cmocka_unit_test(test_table_closed),
                cmocka_unit_test(test_direct),
                cmocka_unit_test(test_cache_is_asked_for_again),
                cmocka_unit_test(test_event_loop),
                cmocka_unit_test(test_event_loop_without_a_daemon),
                cmocka_unit_test(test_time_out),
                cmocka_unit_test(test_foreign_daemon),
                cmocka_unit_test(test_violation),
                cmocka_unit_test(test_no_reconnect),
                cmocka_unit_test(test_fork),
                cmocka_unit_test(test_stats),
        };

        return cmocka_run_group_tests_name("reconnect", tests, setup, teardown);
}

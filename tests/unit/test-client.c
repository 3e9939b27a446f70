/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client against a daemon in a thread: rows by every way in, compared with direct lookups of
 * the same file; tickets, cancelling, event loops, limits.
 */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "carvq.h"
#include "client.h"
#include "fake-daemon.h"
#include "proto/spin.h"
#include "random.h"
#include "tests/make-table.h"

#define N_ROWS 500u
#define N_DIMS 40u
#define SECOND UINT64_C(1000000000)

static char dir[64], path[96];

static int setup(void **state) {
        (void)state;
        strcpy(dir, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/t.carvq", dir);
        make_table_file(path,
                        &(struct table_header){ .codec = TABLE_CODEC_CARVQ,
                                                .n_rows = N_ROWS,
                                                .n_dims = N_DIMS,
                                                .n_stages = 3,
                                                .codebook_bits = 4,
                                                .subvector_dims = 8,
                                                .group_cols = 16,
                                                .group_rows = N_ROWS },
                        99);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        unlink(path);
        return rmdir(dir);
}

/* One daemon, one client, its table, and the same file opened directly. */
struct world {
        struct fake_daemon fake;
        carvq_client *client;
        carvq_table *table, *direct;
};

static void world_open(struct world *w, struct carvq_connect_options *o, uint32_t max_ids) {
        struct carvq_connect_options none = { 0 };
        char message[CARVQ_MESSAGE_BYTES] = "";

        o = o ? o : &none;
        o->size = sizeof(*o);
        fake_daemon_start(&w->fake, dir, path, TRICK_NONE);
        w->fake.max_ids = max_ids;
        o->socket_path = w->fake.path;
        if (carvq_connect(o, &w->client, message) != 0)
                fail_msg("%s", message);
        assert_int_equal(carvq_table_open(w->client, "t", &w->table), 0);
        assert_int_equal(carvq_file_open(path, NULL, &w->direct, NULL), 0);
}

static void world_close(struct world *w) {
        carvq_table_close(w->direct);
        carvq_client_free(w->client);
        fake_daemon_stop(&w->fake);
}

/* ---- Rows ---- */

struct call {
        uint64_t ids[300], bags[100];
        size_t n_ids;
        struct carvq_lookup_options o;
};

static void random_call(struct call *c, uint32_t max_bag, uint32_t *seed) {
        c->n_ids = 1 + test_random(seed) % ARRAY_SIZE(c->ids);
        c->o = (struct carvq_lookup_options){ .size = sizeof(c->o) };
        c->o.type = test_random(seed) % 3;
        c->o.pooling = test_random(seed) % 3;
        c->o.out_of_range = test_random(seed) % 2;
        c->o.scale = (float)(int)(test_random(seed) % 5) - 2;
        if (test_random(seed) % 2) {
                c->o.col_first = test_random(seed) % N_DIMS;
                c->o.n_cols = test_random(seed) % (N_DIMS - c->o.col_first + 1);
        }
        if (test_random(seed) % 2)
                c->o.row_stride_bytes = 4 * (N_DIMS + test_random(seed) % 8);
        for (size_t i = 0; i < c->n_ids; i++)
                c->ids[i] = test_random(seed) % (c->o.out_of_range ? N_ROWS + 50 : N_ROWS);
        if (!c->o.pooling)
                return;
        /* Some bags empty, first and last ones too, and none above the limit. */
        c->o.bag_offsets = c->bags;
        c->bags[0] = 0;
        c->o.n_bags = 1;
        while (c->o.n_bags < ARRAY_SIZE(c->bags)) {
                uint64_t end = c->bags[c->o.n_bags - 1] + test_random(seed) % (max_bag + 1);

                c->bags[c->o.n_bags++] = end < c->n_ids ? end : c->n_ids;
        }
        if (c->n_ids - c->bags[c->o.n_bags - 1] > max_bag)
                c->n_ids = c->bags[c->o.n_bags - 1] + max_bag;
        if (!c->n_ids)
                c->n_ids = 1;
}

static void compare(struct world *w, const struct call *c) {
        static uint8_t ring[300 * 4 * (N_DIMS + 8)], direct[sizeof(ring)];
        int r;

        memset(ring, 0x5a, sizeof(ring));
        memset(direct, 0x5a, sizeof(direct));
        r = carvq_lookup(w->direct, c->ids, c->n_ids, &c->o, direct, sizeof(direct));
        if (r != 0)
                fail_msg("direct: %s", carvq_table_error(w->direct));
        r = carvq_lookup(w->table, c->ids, c->n_ids, &c->o, ring, sizeof(ring));
        if (r != 0)
                fail_msg("ring: %s", carvq_table_error(w->table));
        assert_string_equal(carvq_client_error(w->client), "");
        assert_memory_equal(ring, direct, sizeof(ring));
}

static void compare_many(struct carvq_connect_options *o, uint32_t max_ids, int n) {
        uint32_t seed = 1234567;
        struct world w;

        print_message("# seed %u\n", seed);
        world_open(&w, o, max_ids);
        for (int i = 0; i < n; i++) {
                struct call c;

                random_call(&c, max_ids < 20 ? max_ids : 20, &seed);
                compare(&w, &c);
        }
        world_close(&w);
}

static void test_rows(void **state) {
        (void)state;
        compare_many(NULL, RING_IDS_MAX, 500);
}

/* Hundreds of pieces: the arena holds a few rows, or the daemon takes a few ids. */
static void test_small_arena(void **state) {
        (void)state;
        compare_many(&(struct carvq_connect_options){ .arena_bytes = 1 }, RING_IDS_MAX, 200);
}

static void test_few_ids(void **state) {
        (void)state;
        compare_many(NULL, 3, 100);
}

static void test_spinning(void **state) {
        (void)state;
        compare_many(&(struct carvq_connect_options){ .spin_ns = SECOND }, RING_IDS_MAX, 50);
        compare_many(&(struct carvq_connect_options){ .spin_ns = UINT64_MAX }, RING_IDS_MAX, 50);
}

struct late_daemon {
        struct fake_daemon *fake;
        _Atomic bool stop;
};

/* As where the client has the daemon's CPU: nothing moves before it sleeps. */
static void *serve_sleepers(void *userdata) {
        struct late_daemon *late = userdata;

        while (!late->stop)
                if (late->fake->hold && late->fake->header->client_waiting & 1)
                        fake_daemon_hold(late->fake, false);
        return NULL;
}

/* Spinning that never helps is given up, however quick sleeping is. */
static void test_spinning_in_vain(void **state) {
        struct late_daemon late = { 0 };
        unsigned n_slept = 0;
        const uint64_t id = 3;
        float row[N_DIMS];
        pthread_t thread;
        struct world w;

        (void)state;
        world_open(&w, NULL, RING_IDS_MAX);
        w.client->single_cpu = false; /* wherever the test runs */
        assert_int_equal(carvq_lookup(w.table, &id, 1, NULL, row, sizeof(row)), 0);
        late.fake = &w.fake;
        assert_int_equal(pthread_create(&thread, NULL, serve_sleepers, &late), 0);
        for (int i = 0; i < 1000; i++) {
                fake_daemon_hold(&w.fake, true);
                n_slept += wait_budget_ns(&w.client->waits) == 0;
                assert_int_equal(carvq_lookup(w.table, &id, 1, NULL, row, sizeof(row)), 0);
        }
        late.stop = true;
        pthread_join(thread, NULL);
        assert_true(n_slept >= 750);
        world_close(&w);
}

static void check_rows(struct world *w, const struct carvq_rows *rows, uint64_t id) {
        float row[N_DIMS];

        assert_int_equal(carvq_lookup(w->direct, &id, 1, NULL, row, sizeof(row)), 0);
        assert_int_equal(rows->n_rows, 1);
        assert_int_equal(rows->n_cols, N_DIMS);
        assert_int_equal(rows->type, CARVQ_F32);
        assert_int_equal(rows->row_stride_bytes, 192);
        assert_int_equal((uintptr_t)rows->rows % 64, 0);
        assert_memory_equal(rows->rows, row, sizeof(row));
}

static uint64_t cpu_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* A wait longer than what one system call blocks for ends in time and takes no CPU meanwhile, also
 * where the socket's user has made it not block; and whoever sleeps there is woken. */
static void test_sleeping(void **state) {
        (void)state;
        for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
                const uint64_t id = 3, timeout_ns = CLIENT_SLEEP_NS_MAX + SECOND / 2;
                struct carvq_connect_options o = { .spin_ns = UINT64_MAX };
                struct late_daemon late = { 0 };
                struct carvq_rows rows;
                carvq_ticket ticket;
                uint64_t start_ns, start_cpu_ns;
                pthread_t thread;
                struct world w;

                world_open(&w, &o, RING_IDS_MAX);
                if (nonblocking)
                        fcntl(w.client->socket_fd, F_SETFL, O_NONBLOCK);
                fake_daemon_hold(&w.fake, true);
                assert_int_equal(carvq_submit(w.table, &id, 1, NULL, &ticket), 0);
                start_ns = clock_ns();
                start_cpu_ns = cpu_ns();
                assert_int_equal(carvq_wait(w.client, ticket, timeout_ns, &rows), -ETIMEDOUT);
                assert_in_range(clock_ns() - start_ns, timeout_ns, UINT64_MAX);
                assert_in_range(cpu_ns() - start_cpu_ns, 0, SECOND / 10);

                late.fake = &w.fake;
                assert_int_equal(pthread_create(&thread, NULL, serve_sleepers, &late), 0);
                assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), 0);
                late.stop = true;
                pthread_join(thread, NULL);
                check_rows(&w, &rows, 3);
                carvq_release(w.client, ticket);
                world_close(&w);
        }
}

/* More ids than one submission, or the arena, can take. */
static void test_large(void **state) {
        const size_t n = 200001, bytes = n * N_DIMS * sizeof(float);
        _cleanup_(freep) uint64_t *ids = malloc(n * sizeof(*ids));
        _cleanup_(freep) uint8_t *ring = malloc(bytes), *direct = malloc(bytes);
        uint32_t seed = 5;
        struct world w;

        (void)state;
        world_open(&w, &(struct carvq_connect_options){ .arena_bytes = 1 << 20 }, RING_IDS_MAX);
        for (size_t i = 0; i < n; i++)
                ids[i] = test_random(&seed) % N_ROWS;
        assert_int_equal(carvq_lookup(w.table, ids, n, NULL, ring, bytes), 0);
        assert_int_equal(carvq_lookup(w.direct, ids, n, NULL, direct, bytes), 0);
        assert_memory_equal(ring, direct, bytes);

        ids[n - 3] = N_ROWS + 7;
        assert_int_equal(carvq_lookup(w.table, ids, n, NULL, ring, bytes), -ERANGE);
        assert_string_equal(carvq_table_error(w.table),
                            "ids[199998] is 507, expected less than 500, the table's rows");
        ids[0] = N_ROWS; /* the pieces behind it are let go */
        assert_int_equal(carvq_lookup(w.table, ids, n, NULL, ring, bytes), -ERANGE);
        assert_int_equal(carvq_lookup(w.table, ids + 1, 1, NULL, ring, bytes), 0);
        world_close(&w);
}

static void test_too_large(void **state) {
        uint64_t ids[RING_IDS_MAX / 16], bags[] = { 0, 1 };
        struct carvq_lookup_options o = {
                .size = sizeof(o), .pooling = 1, .bag_offsets = bags, .n_bags = 2
        };
        float rows[2 * N_DIMS];
        carvq_ticket ticket;
        struct world w;

        (void)state;
        memset(ids, 0, sizeof(ids));
        world_open(&w, &(struct carvq_connect_options){ .arena_bytes = 8192 }, 100);
        assert_int_equal(carvq_lookup(w.table, ids, 102, &o, rows, sizeof(rows)), -EMSGSIZE);
        assert_non_null(strstr(carvq_table_error(w.table), "bag 1 has 101 ids"));
        assert_int_equal(carvq_lookup(w.table, ids, 101, &o, rows, sizeof(rows)), 0);
        assert_int_equal(carvq_submit(w.table, ids, 101, NULL, &ticket), -EMSGSIZE);
        assert_int_equal(carvq_submit(w.table, ids, 100, NULL, &ticket), -EMSGSIZE);
        assert_non_null(strstr(carvq_client_error(w.client), "arena"));
        assert_int_equal(carvq_submit(w.table, ids, 42, NULL, &ticket), 0);
        world_close(&w);
}

/* ---- Tickets ---- */

static void test_tickets(void **state) {
        carvq_ticket tickets[256], one_more;
        struct carvq_rows rows;
        struct world w;
        uint64_t id;

        (void)state;
        world_open(&w, NULL, RING_IDS_MAX);
        for (int round = 0; round < 3; round++) {
                for (id = 0; id < 256; id++) {
                        int r = carvq_submit(w.table, &id, 1, NULL, &tickets[id]);

                        /* The submission ring is shorter: let the daemon catch up. */
                        if (r == -EAGAIN) {
                                assert_int_equal(carvq_wait(w.client, tickets[id - 1], 0, &rows),
                                                 0);
                                r = carvq_submit(w.table, &id, 1, NULL, &tickets[id]);
                        }
                        assert_int_equal(r, 0);
                }
                for (id = 0; id < 256; id++) /* last ones first */
                        assert_int_equal(carvq_wait(w.client, tickets[255 - id], 0, &rows), 0);
                assert_int_equal(carvq_submit(w.table, &id, 1, NULL, &one_more), -EAGAIN);
                for (id = 0; id < 256; id++) {
                        uint64_t i = (id * 101) % 256; /* released out of order */

                        assert_int_equal(carvq_poll(w.client, tickets[i], &rows), 1);
                        check_rows(&w, &rows, i);
                        carvq_release(w.client, tickets[i]);
                        assert_int_equal(carvq_poll(w.client, tickets[i], &rows), -ENOENT);
                }
        }
        assert_int_equal(carvq_wait(w.client, 0, 0, &rows), -ENOENT);
        carvq_release(w.client, 12345);
        world_close(&w);
}

static void test_submission_errors(void **state) {
        const uint64_t ids[] = { 1, N_ROWS };
        struct carvq_rows rows;
        carvq_ticket ticket;
        struct world w;

        (void)state;
        world_open(&w, NULL, RING_IDS_MAX);
        assert_int_equal(carvq_submit(w.table, ids, 0, NULL, &ticket), -EINVAL);
        assert_int_equal(carvq_submit(w.table, ids, 2, NULL, &ticket), 0);
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), -ERANGE);
        assert_non_null(strstr(carvq_client_error(w.client), "ids[1] is 500"));
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), -ENOENT); /* released already */
        world_close(&w);
}

/* Time-outs, then the same ticket again; a cancelled one gives its memory back when it is done. */
static void test_held(void **state) {
        const uint64_t ids[] = { 3, 4 };
        struct carvq_connect_options o = { .arena_bytes = 4096, .timeout_ns = 10 * SECOND };
        carvq_ticket first, second;
        struct carvq_rows rows;
        static float out[20][N_DIMS];
        uint64_t many[20] = { 0 };
        struct world w;

        (void)state;
        world_open(&w, &o, RING_IDS_MAX);
        fake_daemon_hold(&w.fake, true);
        assert_int_equal(carvq_submit(w.table, ids, 1, NULL, &first), 0);
        assert_int_equal(carvq_submit(w.table, many, 19, NULL, &second), 0);
        assert_int_equal(carvq_poll(w.client, first, &rows), 0);
        assert_int_equal(carvq_wait(w.client, first, SECOND / 50, &rows), -ETIMEDOUT);
        assert_non_null(strstr(carvq_client_error(w.client), "the lookup is slow"));
        carvq_release(w.client, second);
        assert_int_equal(carvq_poll(w.client, second, &rows), -ENOENT);
        assert_int_equal(carvq_submit(w.table, many, 20, NULL, &second), -EAGAIN);

        fake_daemon_hold(&w.fake, false);
        assert_int_equal(carvq_wait(w.client, first, 0, &rows), 0);
        check_rows(&w, &rows, 3);
        /* Waits for the cancelled lookup's room by itself. */
        assert_int_equal(carvq_lookup(w.table, many, 20, NULL, out, sizeof(out)), 0);
        carvq_release(w.client, first);
        world_close(&w);
}

static void test_arena_held_by_tickets(void **state) {
        struct carvq_connect_options o = { .arena_bytes = 4096 };
        uint64_t ids[21] = { 0 };
        struct carvq_rows rows;
        carvq_ticket ticket;
        float row[N_DIMS];
        struct world w;

        (void)state;
        world_open(&w, &o, RING_IDS_MAX);
        assert_int_equal(carvq_submit(w.table, ids, 21, NULL, &ticket), 0);
        assert_int_equal(carvq_wait(w.client, ticket, 0, &rows), 0);
        assert_int_equal(carvq_lookup(w.table, ids, 1, NULL, row, sizeof(row)), -EAGAIN);
        assert_non_null(strstr(carvq_table_error(w.table), "release a ticket"));
        carvq_release(w.client, ticket);
        assert_int_equal(carvq_lookup(w.table, ids, 1, NULL, row, sizeof(row)), 0);
        world_close(&w);
}

static bool readable(carvq_client *client, int timeout_ms) {
        struct pollfd p = { .fd = carvq_client_fd(client), .events = POLLIN };

        return poll(&p, 1, timeout_ms) == 1;
}

static void test_event_loop(void **state) {
        const uint64_t ids[] = { 3, 4 };
        carvq_ticket a, b;
        struct carvq_rows rows;
        struct world w;

        (void)state;
        world_open(&w, NULL, RING_IDS_MAX);
        for (int round = 0; round < 20; round++) {
                int r;

                fake_daemon_hold(&w.fake, true);
                assert_int_equal(carvq_submit(w.table, ids, 1, NULL, &a), 0);
                assert_int_equal(carvq_submit(w.table, ids + 1, 1, NULL, &b), 0);
                assert_int_equal(carvq_arm(w.client), 0);
                assert_false(readable(w.client, 0));
                fake_daemon_hold(&w.fake, false);
                assert_true(readable(w.client, 10000));
                while ((r = carvq_poll(w.client, b, &rows)) == 0)
                        if (carvq_arm(w.client) == 0)
                                assert_true(readable(w.client, 10000));
                assert_int_equal(r, 1);
                check_rows(&w, &rows, 4);
                /* `a` came first and nobody asked: that must not be slept over. */
                assert_int_equal(carvq_arm(w.client), 1);
                assert_int_equal(carvq_poll(w.client, a, &rows), 1);
                check_rows(&w, &rows, 3);
                assert_int_equal(carvq_arm(w.client), 0);
                carvq_release(w.client, a);
                carvq_release(w.client, b);
        }
        assert_true(w.fake.n_wakes >= 20);
        world_close(&w);
}

/* ---- Tables ---- */

static void test_tables(void **state) {
        struct carvq_table_info info = { .size = sizeof(info) };
        carvq_table *other;
        struct world w;

        (void)state;
        world_open(&w, NULL, RING_IDS_MAX);
        assert_int_equal(carvq_table_info(w.table, &info), 0);
        assert_int_equal(info.n_rows, N_ROWS);
        assert_int_equal(info.n_dims, N_DIMS);
        assert_int_equal(info.generation, 5);
        assert_string_equal(info.codec_name, "carvq");
        assert_string_equal(info.kernel, "");
        assert_int_equal(carvq_table_open(w.client, "missing", &other), -ENOENT);
        assert_string_equal(carvq_client_error(w.client),
                            "table missing: no such table is published");
        assert_int_equal(carvq_table_open(w.client, "../t", &other), -ENOENT);
        assert_int_equal(carvq_table_open(w.client, "", &other), -ENOENT);
        for (int i = 0; i < 300; i++) {
                assert_int_equal(carvq_table_open(w.client, "t", &other), 0);
                carvq_table_close(other);
        }
        assert_int_equal(carvq_table_open(w.client, "t", &other), 0);
        assert_int_equal(w.fake.n_closed, 300);
        world_close(&w); /* frees `other` too */
}

/* The answer to an open that timed out comes later, and the table is handed back. */
static void test_late_table(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .timeout_ns = SECOND / 2 };
        struct fake_daemon fake;
        carvq_client *client;
        carvq_table *table;
        int r;

        (void)state;
        fake_daemon_start(&fake, dir, path, TRICK_SILENT_AT_OPEN);
        o.socket_path = fake.path;
        fake.hold = true;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "t", &table), -ETIMEDOUT);
        fake_daemon_hold(&fake, false);
        do
                r = carvq_table_open(client, "t", &table);
        while (r == -ETIMEDOUT);
        assert_int_equal(r, 0);
        do
                r = carvq_table_open(client, "missing", &table); /* a round trip */
        while (r == -ETIMEDOUT);
        assert_true(fake.n_closed >= 1);
        assert_int_equal(fake.n_opened - fake.n_closed, 1);
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

/* ---- Where there is no daemon ---- */

static int connect_to(const char *socket_path, char *ret_message) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = socket_path,
                                           .timeout_ns = SECOND / 20 };
        carvq_client *client = NULL;
        int r = carvq_connect(&o, &client, ret_message);

        carvq_client_free(client);
        return r;
}

static int listen_on(const char *socket_path, int type) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
        assert_int_equal(bind(fd, (void *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 0), 0);
        return fd;
}

static void test_no_daemon(void **state) {
        struct carvq_connect_options o = { .size = 1 };
        char message[CARVQ_MESSAGE_BYTES], file[96], long_path[200];
        carvq_client *client;
        int fd;

        (void)state;
        snprintf(file, sizeof(file), "%s/none", dir);
        assert_int_equal(connect_to(file, message), -ENOENT);
        assert_non_null(strstr(message, file));
        assert_int_equal(connect_to(file, NULL), -ENOENT);
        setenv("CARVQ_SOCKET", file, 1);
        assert_int_equal(connect_to(NULL, message), -ENOENT);
        assert_non_null(strstr(message, file));
        unsetenv("CARVQ_SOCKET");

        fd = listen_on(file, SOCK_STREAM);
        assert_int_equal(connect_to(file, message), -EPROTO);
        close(fd); /* and leave the file behind, as a daemon that died does */
        assert_int_equal(connect_to(file, message), -ECONNREFUSED);
        assert_non_null(strstr(message, "no daemon there"));
        unlink(file);

        memset(long_path, 'x', sizeof(long_path));
        long_path[sizeof(long_path) - 1] = '\0';
        assert_int_equal(connect_to(long_path, message), -EINVAL);
        assert_int_equal(carvq_connect(&o, &client, message), -EINVAL);
        carvq_client_free(NULL);
}

/* A daemon that accepts nothing any more: the backlog fills up, connect() itself would block. */
static void test_full_backlog(void **state) {
        char message[CARVQ_MESSAGE_BYTES], file[96];
        int fd;

        (void)state;
        snprintf(file, sizeof(file), "%s/full", dir);
        fd = listen_on(file, SOCK_SEQPACKET);
        for (int i = 0; i < 3; i++)
                assert_int_equal(connect_to(file, message), -ETIMEDOUT);
        assert_non_null(strstr(message, "accepts no connection"));
        close(fd);
        unlink(file);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_small_arena),
                cmocka_unit_test(test_few_ids),
                cmocka_unit_test(test_spinning),
                cmocka_unit_test(test_spinning_in_vain),
                cmocka_unit_test(test_sleeping),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_too_large),
                cmocka_unit_test(test_tickets),
                cmocka_unit_test(test_submission_errors),
                cmocka_unit_test(test_held),
                cmocka_unit_test(test_arena_held_by_tickets),
                cmocka_unit_test(test_event_loop),
                cmocka_unit_test(test_tables),
                cmocka_unit_test(test_late_table),
                cmocka_unit_test(test_no_daemon),
                cmocka_unit_test(test_full_backlog),
        };

        return cmocka_run_group_tests_name("client", tests, setup, teardown);
}

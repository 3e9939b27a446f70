/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real carvqd and real client processes. Every row that comes back is compared with the scalar
 * decoder's, byte for byte, or, where an adaptor's sums may be fused, within FORMAT.md's bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"
#include "tests/make-table.h"

#define CARVQ_TABLE(rows, dims, stages, bits, sub)                                                 \
        .codec = TABLE_CODEC_CARVQ, .n_rows = rows, .n_dims = dims, .n_stages = stages,            \
        .codebook_bits = bits, .subvector_dims = sub, .group_cols = 65536, .group_rows = rows

static const struct {
        const char *name;
        struct table_header header;
} tables[] = {
        { "wide", { CARVQ_TABLE(2000, 2048, 3, 4, 8), .row_scale = 1 } },
        { "minilm", { CARVQ_TABLE(3000, 384, 3, 4, 8), .row_scale = 1 } },
        { "gemma", { CARVQ_TABLE(1000, 640, 4, 4, 10) } },
        { "adapted",
          { CARVQ_TABLE(500, 1024, 3, 4, 8), .row_scale = 1, .latent_dims = 6,
            .hidden_dims = { 16 }, .adaptor_type = TABLE_ADAPTOR_HALF, .latent_bits = 16 } },
        { "word2vec", { CARVQ_TABLE(5000, 100, 3, 4, 8) } },
        { "one-dim", { CARVQ_TABLE(300, 1, 1, 3, 4) } },
        { "seven", { CARVQ_TABLE(77, 7, 2, 5, 3), .row_scale = 1 } },
        { "large", { CARVQ_TABLE(900, 300, 3, 8, 16), .adaptor_type = TABLE_ADAPTOR_HALF } },
        { "tiered",
          { CARVQ_TABLE(5000, 129, 4, 7, 8), .row_scale = 1, .n_tiers = 3,
            .tier_stages = { 0, 2, 4 }, .tier_rows = { 3000, 449 },
            .adaptor_type = TABLE_ADAPTOR_INT8, .latent_dims = 5, .latent_bits = 8 } },
        { "windows",
          { CARVQ_TABLE(900, 300, 1, 8, 4), .window_bits = 12, .col_scale = 1, .n_tiers = 2,
            .tier_stages = { 1, 1 }, .tier_bits = { 5, 8 }, .tier_rows = { 100 } } },
        { "widest", { CARVQ_TABLE(3, 65536, 2, 4, 8), .row_scale = 1 } },
        { "one-row", { CARVQ_TABLE(1, 128, 3, 4, 8) } },
        { "f32", { .codec = TABLE_CODEC_F32, .n_rows = 700, .n_dims = 100 } },
        { "f16", { .codec = TABLE_CODEC_F16, .n_rows = 700, .n_dims = 129 } },
        { "bf16", { .codec = TABLE_CODEC_BF16, .n_rows = 700, .n_dims = 384 } },
        { "int8", { .codec = TABLE_CODEC_INT8, .n_rows = 700, .n_dims = 385 } },
        { "int4", { .codec = TABLE_CODEC_INT4, .n_rows = 700, .n_dims = 641 } },
};

static struct harness h;
static size_t n_fds_at_start, n_maps_at_start, n_threads_at_start;

static int setup(void **state) {
        const char *args[2 * ARRAY_SIZE(tables) + 1] = { 0 };
        static char specs[ARRAY_SIZE(tables)][200];

        (void)state;
        harness_init(&h);
        for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
                const char *path = harness_path(&h, tables[i].name);

                make_table_file(path, &tables[i].header, i + 1);
                snprintf(specs[i], sizeof(specs[i]), "%s=%s", tables[i].name, path);
                args[2 * i] = "--table";
                args[2 * i + 1] = specs[i];
        }
        harness_start(&h, args);
        n_fds_at_start = harness_count(&h, "fd");
        n_maps_at_start = harness_count(&h, "map_files");
        n_threads_at_start = harness_count(&h, "task");
        return 0;
}

static int teardown(void **state) {
        (void)state;
        if (h.pid)
                assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static carvq_table *open_scalar(const char *name) {
        struct carvq_file_options o = { .size = sizeof(o), .cpu_mask = "scalar", .verify = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table = NULL;

        if (carvq_file_open(harness_path(&h, name), &o, &table, message) < 0)
                fprintf(stderr, "# %s\n", message);
        return table;
}

/* Exact, except where FORMAT.md lets an adaptor's sums be fused: 2^-10 of the row's largest value,
 * and for the 16-bit types one more rounding, 2^-8 of it. */
static bool rows_equal(const uint8_t *a, const uint8_t *b, size_t n_rows, uint32_t n_cols,
                       uint32_t type, bool exact) {
        size_t value_bytes = type == CARVQ_F32 ? 4 : 2;

        if (memcmp(a, b, n_rows * n_cols * value_bytes) == 0)
                return true;
        if (exact || type != CARVQ_F32)
                return false;
        for (size_t r = 0; r < n_rows; r++) {
                const float *x = (const float *)(const void *)a + r * n_cols;
                const float *y = (const float *)(const void *)b + r * n_cols;
                float largest = 0;

                for (uint32_t i = 0; i < n_cols; i++)
                        largest = fmaxf(largest, fabsf(y[i]));
                for (uint32_t i = 0; i < n_cols; i++)
                        if (!(fabsf(x[i] - y[i]) <= largest * 0x1p-10f))
                                return false;
        }
        return true;
}

/* One client process: batches of 1 to `max_ids` ids, types and options by `seed`. Exit status 0:
 * all right. */
static int client_process(const char *name, size_t max_ids, uint64_t n_batches, uint64_t seed) {
        carvq_client *client = harness_connect(&h);
        carvq_table *ring = NULL, *scalar = open_scalar(name);
        struct carvq_table_info info = { .size = sizeof(info) };
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        _cleanup_(freep) uint64_t *ids = malloc(max_ids * sizeof(*ids));
        _cleanup_(freep) uint8_t *a = NULL, *b = NULL;
        bool exact = strcmp(name, "adapted") && strcmp(name, "tiered");
        int r = 0;

        if (!client || !scalar || carvq_table_open(client, name, &ring) < 0)
                return 2;
        carvq_table_info(ring, &info);
        a = malloc(max_ids * info.n_dims * sizeof(float));
        b = malloc(max_ids * info.n_dims * sizeof(float));
        for (uint64_t i = 0; i < n_batches && r == 0; i++) {
                size_t n = i == 0 ? max_ids : 1 + next_random(&random) % max_ids;
                struct carvq_lookup_options o = { .size = sizeof(o),
                                                  .type = exact ? (uint32_t)(i % 3) : CARVQ_F32 };
                size_t bytes = n * info.n_dims * (o.type == CARVQ_F32 ? 4 : 2);

                for (size_t k = 0; k < n; k++)
                        ids[k] = next_random(&random) % info.n_rows;
                if (carvq_lookup(ring, ids, n, &o, a, bytes) < 0 ||
                    carvq_lookup(scalar, ids, n, &o, b, bytes) < 0) {
                        fprintf(stderr, "# %s: %s\n", name, carvq_client_error(client));
                        r = 3;
                } else if (!rows_equal(a, b, n, info.n_dims, o.type, exact)) {
                        fprintf(stderr, "# %s: wrong rows, seed %" PRIu64 ", batch %" PRIu64 "\n",
                                name, seed, i);
                        r = 1;
                }
        }
        carvq_table_close(scalar);
        carvq_client_free(client);
        return r;
}

static void expect_all_right(const pid_t *pids, size_t n) {
        for (size_t i = 0; i < n; i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 0);
        }
}

/* One process for each table, all at once, plus two on the same table; batches up to 65,536 where
 * rows are narrow enough for the memory of a small machine. */
static void test_many_processes_at_once(void **state) {
        pid_t pids[ARRAY_SIZE(tables) + 1];

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                size_t t = i % ARRAY_SIZE(tables);
                size_t max_ids = MIN(65536u, (8u << 20) / tables[t].header.n_dims);

                pids[i] = fork();
                if (pids[i] == 0)
                        _exit(client_process(tables[t].name, max_ids, 12, i + 1));
        }
        expect_all_right(pids, ARRAY_SIZE(pids));
}

static void test_single_rows_of_every_table(void **state) {
        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
                assert_int_equal(client_process(tables[i].name, 1, 50, i + 100), 0);
}

static void test_65536_ids_in_one_lookup(void **state) {
        (void)state;
        assert_int_equal(client_process("one-dim", 65536, 6, 7), 0);
        assert_int_equal(client_process("word2vec", 65536, 3, 8), 0);
        /* More than one submission can carry. */
        assert_int_equal(client_process("seven", 200000, 3, 9), 0);
}

/* Bags of 0 to thousands of ids, far more than the daemon decodes in one step, some outside the
 * table. */
static void test_bags(void **state) {
        enum { N_IDS = 30000, N_BAGS = 37 };
        static float ours[N_BAGS * 2048], theirs[N_BAGS * 2048];
        carvq_client *client = harness_connect(&h);
        carvq_table *ring = NULL, *scalar = open_scalar("wide");
        _cleanup_(freep) uint64_t *ids = malloc(N_IDS * sizeof(*ids));
        uint64_t offsets[N_BAGS] = { 0 }, random = 99;

        (void)state;
        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, "wide", &ring), 0);
        for (size_t i = 0; i < N_IDS; i++)
                ids[i] = next_random(&random) % 2100; /* of 2,000 rows */
        for (size_t b = 1; b < N_BAGS; b++)
                offsets[b] =
                        MIN(offsets[b - 1] + (b % 5 == 0 ? 0 : next_random(&random) % 1700), N_IDS);
        for (uint32_t pooling = CARVQ_POOLING_SUM; pooling <= CARVQ_POOLING_MEAN; pooling++) {
                struct carvq_lookup_options o = { .size = sizeof(o),
                                                  .pooling = pooling,
                                                  .out_of_range = CARVQ_OUT_OF_RANGE_ZERO_ROW,
                                                  .bag_offsets = offsets,
                                                  .n_bags = N_BAGS };

                memset(ours, 1, sizeof(ours));
                memset(theirs, 2, sizeof(theirs));
                assert_int_equal(carvq_lookup(scalar, ids, N_IDS, &o, ours, sizeof(ours)), 0);
                assert_int_equal(carvq_lookup(ring, ids, N_IDS, &o, theirs, sizeof(theirs)), 0);
                assert_memory_equal(ours, theirs, sizeof(ours));
        }
        carvq_table_close(scalar);
        carvq_client_free(client);
}

/* Tickets that nobody waits for give their room back, without the caller having to poll something.
 */
static void test_room_of_abandoned_lookups(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .arena_bytes = 2 * 4096 };
        carvq_client *client = NULL;
        carvq_table *table = NULL;
        carvq_ticket ticket;
        uint64_t ids[2] = { 1, 2 };
        time_t deadline = time(NULL) + 20;
        int n = 0, r;

        (void)state;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "minilm", &table), 0);
        while (n < 200) {
                r = carvq_submit(table, ids, 2, NULL, &ticket);
                if (r == 0) {
                        carvq_release(client, ticket);
                        n++;
                } else
                        assert_int_equal(r, -EAGAIN);
                assert_true(time(NULL) < deadline);
        }
        carvq_client_free(client);
}

static void test_submissions_in_flight(void **state) {
        carvq_client *client = harness_connect(&h);
        carvq_table *ring = NULL, *scalar = open_scalar("minilm");
        carvq_ticket tickets[16];
        float expected[40 * 384];
        uint64_t ids[40];

        (void)state;
        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, "minilm", &ring), 0);
        for (uint64_t t = 0; t < ARRAY_SIZE(tickets); t++) {
                for (uint64_t k = 0; k < 40; k++)
                        ids[k] = (t * 131 + k * 7) % 3000;
                assert_int_equal(carvq_submit(ring, ids, 40, NULL, &tickets[t]), 0);
        }
        /* Out of order, so that completions are kept for their owners. */
        for (uint64_t i = 0; i < ARRAY_SIZE(tickets); i++) {
                uint64_t t = (i * 5 + 3) % ARRAY_SIZE(tickets);
                struct carvq_rows rows;

                assert_int_equal(carvq_wait(client, tickets[t], 0, &rows), 0);
                assert_int_equal(rows.n_rows, 40);
                for (uint64_t k = 0; k < 40; k++)
                        ids[k] = (t * 131 + k * 7) % 3000;
                assert_int_equal(carvq_lookup(scalar, ids, 40, NULL, expected, sizeof(expected)),
                                 0);
                for (size_t k = 0; k < 40; k++)
                        assert_memory_equal((const uint8_t *)rows.rows + k * rows.row_stride_bytes,
                                            expected + k * 384, 384 * sizeof(float));
                carvq_release(client, tickets[t]);
        }
        carvq_table_close(scalar);
        carvq_client_free(client);
}

static void test_wrong_requests_get_documented_errors(void **state) {
        carvq_client *client = harness_connect(&h);
        struct carvq_lookup_options o = { .size = sizeof(o) };
        carvq_table *ring = NULL;
        uint64_t ids[3] = { 1, 2999, 3000 };
        float rows[3 * 384];

        (void)state;
        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, "no-such-table", &ring), -ENOENT);
        assert_non_null(strstr(carvq_client_error(client), "no-such-table"));
        assert_int_equal(carvq_table_open(client, "minilm", &ring), 0);
        assert_int_equal(carvq_lookup(ring, ids, 3, NULL, rows, sizeof(rows)), -ERANGE);
        assert_non_null(strstr(carvq_client_error(client), "3000"));
        assert_int_equal(carvq_lookup(ring, ids, 0, NULL, rows, sizeof(rows)), -EINVAL);
        assert_int_equal(carvq_lookup(ring, ids, 2, NULL, rows, 2 * 384 * 4 - 1), -ENOBUFS);
        o.type = 3;
        assert_int_equal(carvq_lookup(ring, ids, 2, &o, rows, sizeof(rows)), -EINVAL);
        o.type = CARVQ_F32;
        o.col_first = 384;
        assert_int_equal(carvq_lookup(ring, ids, 2, &o, rows, sizeof(rows)), -EINVAL);
        /* And the session goes on. */
        o.col_first = 0;
        o.out_of_range = CARVQ_OUT_OF_RANGE_ZERO_ROW;
        assert_int_equal(carvq_lookup(ring, ids, 3, &o, rows, sizeof(rows)), 0);
        for (size_t i = 0; i < 384; i++)
                assert_true(rows[2 * 384 + i] == 0.0f);
        carvq_client_free(client);
}

static void test_clients_that_die_leave_nothing(void **state) {
        (void)state;
        for (int i = 0; i < 40; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        carvq_client *client = harness_connect(&h);
                        carvq_ticket ticket;
                        carvq_table *table;
                        uint64_t ids[500];

                        for (uint64_t k = 0; k < 500; k++)
                                ids[k] = k;
                        if (!client || carvq_table_open(client, "wide", &table) < 0)
                                _exit(1);
                        for (int k = 0; k < i % 8; k++)
                                carvq_submit(table, ids, 500, NULL, &ticket);
                        raise(SIGKILL);
                }
                assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        harness_wait_count(&h, "fd", n_fds_at_start);
        harness_wait_count(&h, "map_files", n_maps_at_start);
        harness_wait_count(&h, "task", n_threads_at_start);
        assert_int_equal(client_process("wide", 100, 3, 2), 0);
}

static void test_second_daemon_is_refused(void **state) {
        (void)state;
        assert_int_equal(harness_start_fails(&h, NULL), 1);
        assert_true(harness_logged(&h, "another carvqd is serving on this socket"));
        assert_int_equal(client_process("minilm", 10, 3, 3), 0);
}

static void test_no_permission(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .socket_path = h.socket_path };
        int status;
        pid_t pid;

        (void)state;
        if (geteuid() != 0) {
                print_message("# left out: needs root to become another user\n");
                return;
        }
        chmod(h.folder, 0755);
        pid = fork();
        if (pid == 0) {
                carvq_client *client;

                if (setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(2);
                _exit(carvq_connect(&o, &client, NULL) == -EACCES ? 0 : 1);
        }
        waitpid(pid, &status, 0);
        assert_int_equal(WEXITSTATUS(status), 0);
}

/*
 * Neither side spins, so every lookup puts both to sleep and wakes them again, many times a second
 * and at every distance from one another. A wake-up that gets lost costs the whole time-out, and
 * fails.
 */
static int sleeper_process(uint64_t seed) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .spin_ns = UINT64_MAX,
                                           .timeout_ns = UINT64_C(10000000000) };
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        /* The second run, with several workers, is about them. */
        int n_lookups = getenv("CARVQD_WORKERS") ? 4000 : 20000, r = 0;
        carvq_client *client = NULL;
        carvq_table *table = NULL;
        float rows[7 * 4];

        if (carvq_connect(&o, &client, NULL) < 0 || carvq_table_open(client, "seven", &table) < 0)
                return 2;
        for (int i = 0; i < n_lookups && r == 0; i++) {
                uint64_t ids[4] = { next_random(&random) % 77 };

                r = carvq_lookup(table, ids, 1 + next_random(&random) % 4, NULL, rows,
                                 sizeof(rows));
                for (uint64_t pause = next_random(&random) % 400; pause; pause--)
                        __asm__ volatile("" ::: "memory");
        }
        if (r < 0)
                fprintf(stderr, "# %s\n", carvq_client_error(client));
        carvq_client_free(client);
        return r < 0;
}

static void test_no_wake_up_is_lost(void **state) {
        char spec[200];
        pid_t pids[3];

        (void)state;
        assert_int_equal(harness_stop(&h), 0);
        snprintf(spec, sizeof(spec), "seven=%s", harness_path(&h, "seven"));
        harness_start(&h, (const char *[]){ "--table", spec, "--spin-us", "0", NULL });
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                pids[i] = fork();
                if (pids[i] == 0)
                        _exit(sleeper_process(i + 1));
        }
        expect_all_right(pids, ARRAY_SIZE(pids));
        assert_int_equal(harness_stop(&h), 0);
}

/* What was submitted before SIGTERM is answered. */
static void test_sigterm_drains(void **state) {
        carvq_client *client = harness_connect(&h);
        carvq_ticket tickets[32];
        carvq_table *table = NULL;
        uint64_t ids[200];

        (void)state;
        assert_non_null(client);
        for (uint64_t k = 0; k < 200; k++)
                ids[k] = k;
        assert_int_equal(carvq_table_open(client, "wide", &table), 0);
        for (size_t t = 0; t < ARRAY_SIZE(tickets); t++)
                assert_int_equal(carvq_submit(table, ids, 200, NULL, &tickets[t]), 0);
        kill(h.pid, SIGTERM);
        for (size_t t = 0; t < ARRAY_SIZE(tickets); t++) {
                struct carvq_rows rows;

                assert_int_equal(carvq_wait(client, tickets[t], 0, &rows), 0);
                assert_int_equal(rows.n_rows, 200);
        }
        /* The signal may still be on its way: what comes before it is served, what comes after not.
         */
        while (carvq_submit(table, ids, 1, NULL, &tickets[0]) >= 0) {
                struct carvq_rows rows;

                if (carvq_wait(client, tickets[0], 0, &rows) < 0)
                        break;
                carvq_release(client, tickets[0]);
        }
        carvq_client_free(client);
        assert_int_equal(harness_stop(&h), 0);
        assert_int_equal(access(h.socket_path, F_OK), -1);
}

/* A socket file that a killed daemon left behind is replaced; a table that is broken keeps nobody
 * out. */
static void test_stale_socket_and_broken_table(void **state) {
        char good[200], truncated[200], foreign[200], missing[200];
        const char *path = harness_path(&h, "truncated");
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        FILE *f;

        (void)state;
        strcpy(a.sun_path, h.socket_path);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        close(fd);
        make_table_file(path, &tables[1].header, 2);
        assert_int_equal(truncate(path, 100000), 0);
        snprintf(good, sizeof(good), "minilm=%s", harness_path(&h, "minilm"));
        snprintf(truncated, sizeof(truncated), "truncated=%s", path);
        snprintf(foreign, sizeof(foreign), "foreign=%s", harness_path(&h, "foreign"));
        snprintf(missing, sizeof(missing), "missing=%s", harness_path(&h, "missing"));
        f = fopen(harness_path(&h, "foreign"), "we");
        for (int i = 0; i < 1000; i++)
                fputs("not a table ", f);
        fclose(f);

        harness_start(&h, (const char *[]){ "--table", truncated, "--table", foreign, "--table",
                                            missing, "--table", good, NULL });
        assert_true(harness_logged(&h, "file_bytes at byte 32"));
        assert_true(harness_logged(&h, "not a .carvq file"));
        assert_true(harness_logged(&h, "No such file"));
        assert_true(harness_logged(&h, "replaced a socket that nobody served"));
        assert_int_equal(client_process("minilm", 100, 5, 4), 0);
}

static carvq_client *connect_to(const char *name, carvq_table **ret_table) {
        carvq_client *client = harness_connect(&h);

        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, name, ret_table), 0);
        return client;
}

/* SIGBUS while rows are decoded: that table is retired, everything else goes on, and a new file
 * brings it back. */
static void test_truncated_file_retires_its_table(void **state) {
        char specs[2][200];
        float rows[2 * 2048];
        uint64_t ids[2] = { 0, 1999 };
        carvq_table *wide, *minilm, *again;
        carvq_client *client;

        (void)state;
        assert_int_equal(harness_stop(&h), 0);
        for (int i = 0; i < 2; i++) {
                const char *name = i ? "minilm" : "wide";

                snprintf(specs[i], sizeof(specs[i]), "%s=%s", name, harness_path(&h, name));
        }
        harness_start(&h, (const char *[]){ "--table", specs[0], "--table", specs[1], NULL });
        client = connect_to("wide", &wide);
        assert_int_equal(carvq_table_open(client, "minilm", &minilm), 0);
        assert_int_equal(carvq_lookup(wide, ids, 2, NULL, rows, sizeof(rows)), 0);
        assert_int_equal(truncate(harness_path(&h, "wide"), 4096), 0);
        assert_int_equal(carvq_lookup(wide, ids, 2, NULL, rows, sizeof(rows)), -EBADF);
        assert_int_equal(carvq_lookup(wide, ids, 2, NULL, rows, sizeof(rows)), -EBADF);
        assert_int_equal(carvq_lookup(minilm, ids, 2, NULL, rows, sizeof(rows)), 0);
        assert_int_equal(carvq_table_open(client, "wide", &again), -ENOENT);
        assert_true(harness_logged(&h, "was truncated or cannot be read; it is retired"));

        /* Reload: the truncated file is refused, a whole one is served again. */
        make_table_file(harness_path(&h, "new"), &tables[0].header, 1);
        assert_int_equal(rename(harness_path(&h, "new"), harness_path(&h, "wide")), 0);
        kill(h.pid, SIGHUP);
        for (int i = 0; i < 2000 && carvq_table_open(client, "wide", &again) == -ENOENT; i++)
                nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        assert_int_equal(carvq_lookup(again, ids, 2, NULL, rows, sizeof(rows)), 0);
        carvq_client_free(client);
        assert_int_equal(client_process("wide", 100, 3, 6), 0);
}

/* What was completed before the daemon died is good, whoever notices the death. */
static void test_completions_outlive_the_daemon(void **state) {
        uint64_t ids[1] = { 5 };
        float row[384];
        struct carvq_rows rows;
        const struct carvq_connect_options o = { .size = sizeof(o),
                                                 .socket_path = h.socket_path,
                                                 .no_reconnect = 1 };
        carvq_table *table, *other_table, *none;
        carvq_client *client, *other = connect_to("minilm", &other_table);
        struct pollfd p = { .events = POLLIN };
        carvq_ticket ticket;

        (void)state;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "minilm", &table), 0);
        p.fd = carvq_client_fd(client);
        assert_int_equal(carvq_submit(table, ids, 1, NULL, &ticket), 0);
        assert_int_equal(carvq_lookup(other_table, ids, 1, NULL, row, sizeof(row)), 0);
        if (carvq_arm(client) == 0) /* else it was complete already */
                assert_int_equal(poll(&p, 1, 20000), 1);
        kill(h.pid, SIGKILL);
        waitpid(h.pid, NULL, 0);
        h.pid = 0;
        assert_int_equal(carvq_table_open(client, "wide", &none), -ECONNRESET);
        assert_int_equal(carvq_wait(client, ticket, 0, &rows), 0);
        assert_memory_equal(rows.rows, row, sizeof(row));
        assert_int_equal(carvq_submit(table, ids, 1, NULL, &ticket), -ECONNRESET);
        carvq_client_free(client);
        carvq_client_free(other);
        harness_start(&h, NULL);
}

/* Stopped while tables are being loaded: nothing leaks and no socket stays. */
static void test_sigterm_while_loading(void **state) {
        char specs[8][200];
        const char *args[17] = { 0 };

        (void)state;
        assert_int_equal(harness_stop(&h), 0);
        for (int i = 0; i < 8; i++) {
                snprintf(specs[i], sizeof(specs[i]), "t%d=%s", i, harness_path(&h, "minilm"));
                args[2 * i] = "--table";
                args[2 * i + 1] = specs[i];
        }
        for (int i = 0; i < 10; i++) {
                harness_start(&h, args);
                kill(h.pid, SIGHUP);
                assert_int_equal(harness_stop(&h), 0);
                assert_int_equal(access(h.socket_path, F_OK), -1);
                assert_int_equal(access(h.control_path, F_OK), -1);
        }
        harness_start(&h, NULL);
}

static void test_sockets_from_the_service_manager(void **state) {
        char spec[200];

        (void)state;
        assert_int_equal(harness_stop(&h), 0);
        snprintf(spec, sizeof(spec), "minilm=%s", harness_path(&h, "minilm"));
        h.pass_sockets = true;
        harness_start(&h, (const char *[]){ "--table", spec, NULL });
        assert_int_equal(client_process("minilm", 100, 5, 5), 0);
        assert_int_equal(harness_stop(&h), 0);
        /* They are the manager's: still there for the next start. */
        assert_int_equal(access(h.socket_path, F_OK), 0);
        unlink(h.socket_path);
        unlink(h.control_path);
        h.pass_sockets = false;
        harness_start(&h, NULL);
}

int main(void) {
        /* In this order: the last ones stop the daemon and start others. */
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_many_processes_at_once),
                cmocka_unit_test(test_single_rows_of_every_table),
                cmocka_unit_test(test_65536_ids_in_one_lookup),
                cmocka_unit_test(test_bags),
                cmocka_unit_test(test_room_of_abandoned_lookups),
                cmocka_unit_test(test_submissions_in_flight),
                cmocka_unit_test(test_wrong_requests_get_documented_errors),
                cmocka_unit_test(test_clients_that_die_leave_nothing),
                cmocka_unit_test(test_second_daemon_is_refused),
                cmocka_unit_test(test_no_permission),
                cmocka_unit_test(test_sigterm_drains),
                cmocka_unit_test(test_stale_socket_and_broken_table),
                cmocka_unit_test(test_truncated_file_retires_its_table),
                cmocka_unit_test(test_completions_outlive_the_daemon),
                cmocka_unit_test(test_sigterm_while_loading),
                cmocka_unit_test(test_sockets_from_the_service_manager),
                cmocka_unit_test(test_no_wake_up_is_lost),
        };

        return cmocka_run_group_tests_name("serve", tests, setup, teardown);
}

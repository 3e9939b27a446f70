/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that clients of a real carvqd read for themselves: from a table's file that it hands over,
 * or from those that it keeps decoded. Every row is compared with direct decoding of a copy of the
 * file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"
#include "raw-client.h"
#include "tests/make-table.h"

#define N_ROWS 3000u
#define N_DIMS 192u

static const struct table_header adapted = {
        .codec = TABLE_CODEC_CARVQ,
        .n_rows = N_ROWS,
        .n_dims = N_DIMS,
        .n_stages = 3,
        .codebook_bits = 4,
        .subvector_dims = 8,
        .group_cols = 65536,
        .group_rows = N_ROWS,
        .row_scale = 1,
        .latent_dims = 6,
        .hidden_dims = { 16 },
        .adaptor_type = TABLE_ADAPTOR_HALF,
        .latent_bits = 16,
};

static struct harness h;

/* Tables "a" and "b" of one shape and other rows; "a" is served, as "t". */
static int setup_with(const char *option, const char *value) {
        char spec[200];

        harness_init(&h);
        make_table_file(harness_path(&h, "a"), &adapted, 1);
        make_table_file(harness_path(&h, "b"), &adapted, 2);
        make_table_file(harness_path(&h, "t"), &adapted, 1);
        snprintf(spec, sizeof(spec), "t=%s", harness_path(&h, "t"));
        harness_start(&h, (const char *[]){ "--table", spec, option, value, NULL });
        return 0;
}

static int setup(void **state) {
        (void)state;
        return setup_with(NULL, NULL);
}

/* Three sets: rows come and go all the time. */
static int setup_small_cache(void **state) {
        (void)state;
        return setup_with("--table", "t:cache-bytes=20K");
}

static int setup_no_cache(void **state) {
        (void)state;
        return setup_with("--cache-bytes", "0");
}

static int teardown(void **state) {
        (void)state;
        if (h.pid)
                assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

static carvq_table *open_file(const char *name) {
        carvq_table *table = NULL;

        assert_int_equal(carvq_file_open(harness_path(&h, name), NULL, &table, NULL), 0);
        return table;
}

static carvq_table *open_direct(carvq_client *client) {
        struct carvq_table_options o = { .size = sizeof(o), .mode = CARVQ_MODE_DIRECT };
        carvq_table *table = NULL;

        if (carvq_table_open_with(client, "t", &o, &table) < 0)
                fail_msg("%s", carvq_client_error(client));
        return table;
}

/* Some rows of both, by every type; true when they are the same. */
static bool same_rows(carvq_table *table, carvq_table *other, uint64_t first) {
        static float a[40 * N_DIMS], b[40 * N_DIMS];
        uint64_t ids[40];

        for (uint64_t i = 0; i < ARRAY_SIZE(ids); i++)
                ids[i] = (first + i * 73) % N_ROWS;
        for (uint32_t type = CARVQ_F32; type <= CARVQ_BF16; type++) {
                struct carvq_lookup_options o = { .size = sizeof(o), .type = type, .scale = 3 };

                memset(a, 0, sizeof(a));
                memset(b, 0, sizeof(b));
                assert_int_equal(carvq_lookup(table, ids, ARRAY_SIZE(ids), &o, a, sizeof(a)), 0);
                assert_int_equal(carvq_lookup(other, ids, ARRAY_SIZE(ids), &o, b, sizeof(b)), 0);
                if (memcmp(a, b, sizeof(a)) != 0)
                        return false;
        }
        return true;
}

/* What carvqctl prints as JSON without spaces. */
static void read_stats(char *ret_text, size_t bytes) {
        char command[400];
        size_t n;
        FILE *f;

        snprintf(command, sizeof(command), "%s --control %s stats --json | tr -d ' \\n'",
                 getenv("CARVQCTL"), h.control_path);
        f = popen(command, "re");
        assert_non_null(f);
        n = fread(ret_text, 1, bytes - 1, f);
        ret_text[n] = '\0';
        assert_int_equal(pclose(f), 0);
}

/* Publishes `name` as "t" by rename, and waits until it is. */
static void replace_with(const char *name) {
        carvq_client *client = harness_connect(&h);
        struct carvq_table_info info = { .size = sizeof(info) };
        uint64_t generation = 0;
        carvq_table *table;

        for (int i = 0; i < 4000; i++) {
                assert_int_equal(carvq_table_open(client, "t", &table), 0);
                carvq_table_info(table, &info);
                carvq_table_close(table);
                if (!generation) {
                        generation = info.generation;
                        assert_int_equal(rename(harness_path(&h, name), harness_path(&h, "t")), 0);
                        kill(h.pid, SIGHUP);
                }
                if (info.generation != generation)
                        break;
                nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        }
        assert_int_not_equal(info.generation, generation);
        carvq_client_free(client);
}

/* ---- Direct ---- */

static void test_direct_rows(void **state) {
        struct carvq_table_info info = { .size = sizeof(info) };
        carvq_client *client = harness_connect(&h);
        carvq_table *direct = open_direct(client), *file = open_file("a"), *ring;
        struct carvq_rows rows;
        carvq_ticket ticket;
        uint64_t ids[2] = { 1, N_ROWS };
        float out[2 * N_DIMS];
        uint64_t n_bytes, n_lines;
        char stats[65536], *claimed;

        (void)state;
        assert_true(same_rows(direct, file, 0));
        assert_int_equal(carvq_table_info(direct, &info), 0);
        assert_int_not_equal(info.generation, 0);
        assert_string_not_equal(info.kernel, "");

        /* Errors are the client's; there is no ring. */
        assert_int_equal(carvq_lookup(direct, ids, 2, NULL, out, sizeof(out)), -ERANGE);
        assert_non_null(strstr(carvq_client_error(client), "3000"));
        assert_string_equal(carvq_table_error(direct), carvq_client_error(client));
        assert_int_equal(carvq_submit(direct, ids, 1, NULL, &ticket), -EOPNOTSUPP);
        assert_int_equal(carvq_poll(client, 256, &rows), -ENOENT);

        /* Three lookups of 40 rows: told, and not mixed up with what the daemon did. */
        read_stats(stats, sizeof(stats));
        assert_non_null(strstr(stats, "\"claimed\":{\"n_lookups\":3,\"n_rows\":120,"
                                      "\"n_rows_read\":120,\"n_values_read\":23040,"));
        assert_null(strstr(stats, "\"counted\":{\"n_lookups\":3"));
        claimed = strstr(stats, "\"claimed\":{\"n_lookups\":3");
        assert_int_equal(sscanf(strstr(claimed, "\"table_read_bytes\""),
                                "\"table_read_bytes\":%" SCNu64 ",\"table_read_lines\":%" SCNu64,
                                &n_bytes, &n_lines),
                         2);
        assert_in_range(n_lines, n_bytes / 64, n_bytes / 64 + 2 * 120);

        /* Beside the ring, of the same client and table. */
        assert_int_equal(carvq_table_open(client, "t", &ring), 0);
        assert_true(same_rows(direct, ring, 7));
        carvq_table_close(direct);
        assert_true(same_rows(ring, file, 7));
        carvq_table_close(file);
        carvq_client_free(client);
}

/* The file that the daemon has mapped, not the one that its path names by now; and it stays. */
static void test_direct_generations(void **state) {
        const struct carvq_connect_options o = { .size = sizeof(o),
                                                 .socket_path = h.socket_path,
                                                 .no_reconnect = 1 };
        carvq_table *old, *a = open_file("a"), *b = open_file("b"), *new;
        carvq_client *client;

        (void)state;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        old = open_direct(client);
        replace_with("b");
        assert_true(same_rows(old, a, 1));
        new = open_direct(client);
        assert_true(same_rows(new, b, 2));
        assert_false(same_rows(new, old, 3));
        carvq_table_close(new);

        unlink(harness_path(&h, "t"));
        new = open_direct(client);
        assert_true(same_rows(new, b, 4));

        /* Without a daemon they go on, and everything else says that it is gone. */
        assert_int_equal(harness_stop(&h), 0);
        assert_true(same_rows(new, b, 5));
        assert_true(same_rows(old, a, 5));
        assert_int_equal(carvq_table_open(client, "t", &new), -ECONNRESET);
        carvq_client_free(client);
        carvq_table_close(a);
        carvq_table_close(b);
}

/* A generation that nobody has open any more is let go, descriptor included. */
static void test_direct_leaves_nothing(void **state) {
        size_t n_fds = harness_count(&h, "fd"), n_maps = harness_count(&h, "map_files");
        carvq_client *client = harness_connect(&h);

        (void)state;
        open_direct(client);
        replace_with("b");
        open_direct(client);
        carvq_client_free(client);
        harness_wait_count(&h, "fd", n_fds);
        harness_wait_count(&h, "map_files", n_maps);
}

/* ---- Cached ---- */

static carvq_table *open_uncached(carvq_client *client) {
        struct carvq_table_options o = { .size = sizeof(o), .no_cache = 1 };
        carvq_table *table = NULL;

        assert_int_equal(carvq_table_open_with(client, "t", &o, &table), 0);
        return table;
}

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

/* Small ids are much more frequent than large ones. */
static uint64_t skewed(uint64_t *random) {
        uint64_t range = UINT64_C(1) << next_random(random) % 12;

        return next_random(random) % range % N_ROWS;
}

/* Lookups of all kinds by two tables, which must agree to the byte. */
static bool agree(carvq_table *table, carvq_table *other, uint64_t seed, int n_lookups) {
        static float a[200 * (N_DIMS + 4)], b[200 * (N_DIMS + 4)];
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1, ids[200];

        for (int i = 0; i < n_lookups; i++) {
                struct carvq_lookup_options o = { .size = sizeof(o),
                                                  .type = (uint32_t)(next_random(&random) % 3) };
                size_t n = next_random(&random) % 3 ? 1 : 1 + next_random(&random) % 200;

                for (size_t k = 0; k < n; k++)
                        ids[k] = skewed(&random);
                if (next_random(&random) % 4 == 0) {
                        o.scale = (float)(next_random(&random) % 7) - 3;
                        o.col_first = (uint32_t)(next_random(&random) % N_DIMS);
                        o.n_cols = (uint32_t)(next_random(&random) % (N_DIMS - o.col_first));
                        o.row_stride_bytes = (N_DIMS + next_random(&random) % 4) * 4;
                }
                if (next_random(&random) % 8 == 0) {
                        o.out_of_range = CARVQ_OUT_OF_RANGE_ZERO_ROW;
                        ids[next_random(&random) % n] = N_ROWS + next_random(&random) % 5;
                }
                memset(a, 1, sizeof(a));
                memset(b, 1, sizeof(b));
                if (carvq_lookup(table, ids, n, &o, a, sizeof(a)) < 0 ||
                    carvq_lookup(other, ids, n, &o, b, sizeof(b)) < 0 ||
                    memcmp(a, b, sizeof(a)) != 0)
                        return false;
        }
        return true;
}

static uint64_t number_behind(const char *text, const char *name) {
        const char *at = strstr(text, name);

        assert_non_null(at);
        return strtoull(at + strlen(name), NULL, 10);
}

static void test_cached_rows(void **state) {
        carvq_client *client = harness_connect(&h);
        carvq_table *cached, *plain = open_uncached(client), *file = open_file("a");
        uint64_t ids[3] = { 1, 2, N_ROWS }, bags[2] = { 0, 1 };
        struct carvq_lookup_options pooled = { .size = sizeof(pooled),
                                               .pooling = CARVQ_POOLING_SUM,
                                               .bag_offsets = bags,
                                               .n_bags = 2 };
        float rows[3 * N_DIMS], expected[3 * N_DIMS];
        char stats[65536];
        uint64_t n_hits;

        (void)state;
        assert_int_equal(carvq_table_open(client, "t", &cached), 0);
        assert_true(agree(cached, plain, 1, 4000));
        assert_true(agree(cached, file, 2, 4000));
        read_stats(stats, sizeof(stats));
        n_hits = number_behind(stats, "\"claimed\":{\"n_hits\":");
        print_message("# %.140s\n", strstr(stats, "\"cache\":"));
        assert_true(n_hits > 10000);
        assert_true(number_behind(stats, "\"n_insertions\":") > 50);

        /* The index is the lookup's own, and bags do not look into the cache. */
        assert_int_equal(carvq_lookup(cached, ids, 3, NULL, rows, sizeof(rows)), -ERANGE);
        assert_non_null(strstr(carvq_table_error(cached), "ids[2] is 3000"));
        assert_int_equal(carvq_lookup(cached, ids, 2, &pooled, rows, sizeof(rows)), 0);
        assert_int_equal(carvq_lookup(plain, ids, 2, &pooled, expected, sizeof(rows)), 0);
        assert_memory_equal(rows, expected, 2 * N_DIMS * sizeof(float));

        /* Hits of tables that are closed are not lost. */
        carvq_table_close(cached);
        assert_int_equal(carvq_table_open(client, "t", &cached), 0);
        assert_true(agree(cached, plain, 3, 100));
        carvq_client_free(client);
        read_stats(stats, sizeof(stats));
        assert_true(number_behind(stats, "\"claimed\":{\"n_hits\":") > n_hits);
        carvq_table_close(file);
}

/* Three processes and a cache of 24 rows. */
static void test_cached_rows_are_replaced(void **state) {
        char stats[65536];
        pid_t pids[3];

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                pids[i] = fork();
                if (pids[i] == 0) {
                        carvq_client *client = harness_connect(&h);
                        carvq_table *cached = NULL, *file = open_file("a");

                        if (!client || carvq_table_open(client, "t", &cached) < 0)
                                _exit(2);
                        _exit(agree(cached, file, i + 1, 15000) ? 0 : 1);
                }
        }
        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 0);
        }
        read_stats(stats, sizeof(stats));
        print_message("# %.140s\n", strstr(stats, "\"cache\":"));
        assert_int_equal(number_behind(stats, "\"n_slots\":"), 24);
        assert_true(number_behind(stats, "\"n_evictions\":") > 1000);
        assert_true(number_behind(stats, "\"claimed\":{\"n_hits\":") > 1000);
}

/* Each generation has a cache of its own. */
static void test_cached_generations(void **state) {
        carvq_client *client = harness_connect(&h);
        carvq_table *old, *new, *a = open_file("a"), *b = open_file("b");

        (void)state;
        assert_int_equal(carvq_table_open(client, "t", &old), 0);
        assert_true(agree(old, a, 1, 500));
        replace_with("b");
        assert_int_equal(carvq_table_open(client, "t", &new), 0);
        for (uint64_t seed = 1; seed < 4; seed++) {
                assert_true(agree(new, b, seed, 500));
                assert_true(agree(old, a, seed, 500));
        }
        assert_false(agree(old, b, 1, 10));
        carvq_client_free(client);
        carvq_table_close(a);
        carvq_table_close(b);
}

static void test_without_cache(void **state) {
        carvq_client *client = harness_connect(&h);
        carvq_table *table, *file = open_file("a");
        char stats[65536];

        (void)state;
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_true(agree(table, file, 1, 500));
        read_stats(stats, sizeof(stats));
        assert_non_null(strstr(stats, "\"cache\":null"));
        carvq_client_free(client);
        carvq_table_close(file);
}

/* ---- Clients that ask wrongly ---- */

/* GET_FILE needs its feature in force, and a handle that is open. */
static void test_files(void **state) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_get_file get = { .header = { WIRE_GET_FILE, sizeof(get) }, .request = 9 };
        struct raw_client c;
        struct wire_table table;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        get.table = raw_open_table(&c, "t", &table);
        raw_send(&c, &get, sizeof(get), NULL, 0);
        raw_expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        for (uint64_t wrong = 0; wrong < 3; wrong++) {
                raw_handshake(&c, h.socket_path, WIRE_FEATURE_FILES);
                get.table = raw_open_table(&c, "t", &table) + 256 * wrong;
                raw_send(&c, &get, sizeof(get), NULL, 0);
                if (wrong) {
                        raw_expect_refusal(&c, WIRE_PROTOCOL, "GET_FILE: the handle names no open");
                        continue;
                }
                /* The descriptor cannot be written to. */
                assert_int_equal(raw_receive(&c, message), WIRE_FILE);
                assert_int_equal(fcntl(c.doorbell, F_GETFL) & O_ACCMODE, O_RDONLY);
                assert_int_equal(ftruncate(c.doorbell, 0), -1);
                raw_close(&c);
        }
}

/* The same of GET_CACHE, whose descriptor nobody can write to by any way. */
static void test_caches(void **state) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_get_cache get = { .header = { WIRE_GET_CACHE, sizeof(get) }, .request = 9 };
        struct wire_cache cache;
        struct raw_client c;
        struct wire_table table;

        (void)state;
        raw_handshake(&c, h.socket_path, WIRE_FEATURE_FILES);
        get.table = raw_open_table(&c, "t", &table);
        raw_send(&c, &get, sizeof(get), NULL, 0);
        raw_expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        raw_handshake(&c, h.socket_path, WIRE_FEATURE_CACHE);
        get.table = raw_open_table(&c, "t", &table) + 256;
        raw_send(&c, &get, sizeof(get), NULL, 0);
        raw_expect_refusal(&c, WIRE_PROTOCOL, "GET_CACHE: the handle names no open");

        raw_handshake(&c, h.socket_path, WIRE_FEATURE_CACHE);
        get.table = raw_open_table(&c, "t", &table);
        raw_send(&c, &get, sizeof(get), NULL, 0);
        assert_int_equal(raw_receive(&c, message), WIRE_CACHE);
        memcpy(&cache, message, sizeof(cache));
        assert_int_equal(cache.status, WIRE_OK);
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, c.doorbell, 0),
                         MAP_FAILED);
        assert_int_equal(pwrite(c.doorbell, "x", 1, 0), -1);
        assert_int_equal(ftruncate(c.doorbell, 0), -1);
        raw_close(&c);
}

/* Hints and claims are any bytes, while rows are looked up and statistics asked for. */
static void test_any_hints(void **state) {
        struct wire_table table;
        struct raw_client c;
        uint64_t random = 77;
        char command[300];

        (void)state;
        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        raw_open_table(&c, "t", &table);
        snprintf(command, sizeof(command), "%s --control %s stats >/dev/null", getenv("CARVQCTL"),
                 h.control_path);
        for (int i = 0; i < 300; i++) {
                struct ring_submission s = {
                        .table = table.table, .n_ids = 4, .row_stride_bytes = 4 * N_DIMS, .scale = 1
                };
                uint64_t *ids = (void *)(c.memory + c.layout.ids_offset);

                for (size_t at = RING_CLAIMS_OFFSET; at < RING_PAGE_BYTES; at += 8) {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        memcpy(c.memory + at, &random, 8);
                }
                for (size_t k = 0; k < 4; k++)
                        ids[k] = (random >> 7 * k) % 50;
                raw_submit(&c, &s);
                assert_int_equal(raw_complete(&c).status, RING_STATUS_OK);
                if (i % 50 == 0)
                        assert_int_equal(system(command), 0);
        }
        raw_close(&c);
        assert_int_equal(system(command), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_direct_rows, setup, teardown),
                cmocka_unit_test_setup_teardown(test_direct_generations, setup, teardown),
                cmocka_unit_test_setup_teardown(test_direct_leaves_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cached_rows, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cached_rows_are_replaced, setup_small_cache,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_cached_generations, setup, teardown),
                cmocka_unit_test_setup_teardown(test_without_cache, setup_no_cache, teardown),
                cmocka_unit_test_setup_teardown(test_files, setup, teardown),
                cmocka_unit_test_setup_teardown(test_caches, setup, teardown),
                cmocka_unit_test_setup_teardown(test_any_hints, setup_small_cache, teardown),
        };

        return cmocka_run_group_tests_name("tables", tests, NULL, NULL);
}

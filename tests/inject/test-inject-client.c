/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcarvq with the Nth call of each kind failing, N = 1, 2, 3 ... until none is left to fail: each
 * function returns an error that carvq.h tells of, or rows that are right, and leaves no
 * descriptor, mapping or memory behind. The daemon is a sound one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "inject.h"
#include "tests/integration/harness.h"
#include "tests/make-table.h"

#define N_ROWS   300
#define N_DIMS   64
#define N_IDS    200
#define WALK_MAX 500

static const char *const kind_names[] = { INJECT_NAMES };

static struct harness h;
static uint64_t ids[N_IDS];
static float expected[N_IDS * N_DIMS], expected_sum[N_DIMS];
static char table_path[160];

static const uint64_t one_bag = 0;
static const struct carvq_lookup_options pooled = {
        .size = sizeof(pooled), .pooling = CARVQ_POOLING_SUM, .bag_offsets = &one_bag, .n_bags = 1
};

static int setup(void **state) {
        static const struct table_header parameters = { .codec = TABLE_CODEC_INT8,
                                                        .n_rows = N_ROWS,
                                                        .n_dims = N_DIMS };
        char spec[200];
        carvq_table *table;

        (void)state;
        harness_init(&h);
        snprintf(table_path, sizeof(table_path), "%s", harness_path(&h, "t.carvq"));
        make_table_file(table_path, &parameters, 1);
        snprintf(spec, sizeof(spec), "t=%s", table_path);
        harness_start(&h, (const char *[]){ "--table", spec, "--cache-bytes", "64K", NULL });
        assert_int_equal(carvq_file_open(table_path, NULL, &table, NULL), 0);
        for (uint64_t i = 0; i < N_IDS; i++)
                ids[i] = (i * 37 + 5) % N_ROWS;
        assert_int_equal(carvq_lookup(table, ids, N_IDS, NULL, expected, sizeof(expected)), 0);
        assert_int_equal(
                carvq_lookup(table, ids, N_IDS, &pooled, expected_sum, sizeof(expected_sum)), 0);
        carvq_table_close(table);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

static size_t count_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

/* Rings, caches and tables. */
static size_t count_maps(void) {
        FILE *f = fopen("/proc/self/maps", "re");
        char line[512];
        size_t n = 0;

        assert_non_null(f);
        while (fgets(line, sizeof(line), f))
                n += strstr(line, "memfd:carvq") || strstr(line, ".carvq");
        fclose(f);
        return n;
}

/* ---- The walk ---- */

/* Once more if it failed for lack of memory: that must not be what the table is left with. */
static int look_up(carvq_table *table, size_t n_ids, const struct carvq_lookup_options *options) {
        static float rows[N_IDS * N_DIMS];
        int r = carvq_lookup(table, ids, n_ids, options, rows, sizeof(rows));

        if (r == -ENOMEM)
                assert_int_equal(carvq_lookup(table, ids, n_ids, options, rows, sizeof(rows)), 0);
        if (r != 0)
                return r;
        if (options)
                assert_memory_equal(rows, expected_sum, sizeof(expected_sum));
        else
                assert_memory_equal(rows, expected, n_ids * N_DIMS * sizeof(float));
        return 0;
}

static int look_up_all(carvq_table *table) {
        int r = 0;

        for (int i = 0; i < 3 && r == 0; i++)
                r = look_up(table, 1, NULL);
        if (r == 0)
                r = look_up(table, N_IDS, NULL);
        if (r == 0)
                r = look_up(table, N_IDS, &pooled);
        return r;
}

static int submit(carvq_client *client, carvq_table *table) {
        struct carvq_rows rows;
        carvq_ticket ticket;
        int r = carvq_submit(table, ids, N_IDS, NULL, &ticket);

        if (r == 0)
                r = carvq_wait(client, ticket, 0, &rows);
        if (r != 0)
                return r;
        assert_memory_equal(rows.rows, expected, sizeof(expected)); /* 64 x 4 bytes: no gaps */
        carvq_release(client, ticket);
        return 0;
}

static int use_daemon(void) {
        const struct carvq_connect_options o = { .size = sizeof(o),
                                                 .socket_path = h.socket_path,
                                                 .arena_bytes = 1 << 20,
                                                 .timeout_ns = UINT64_C(20000000000) };
        const struct carvq_table_options direct = { .size = sizeof(direct),
                                                    .mode = CARVQ_MODE_DIRECT };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client = NULL;
        carvq_table *table;
        int r = carvq_connect(&o, &client, message);

        if (r != 0) {
                assert_string_not_equal(message, "");
                return r;
        }
        r = carvq_table_open(client, "t", &table);
        if (r == 0) {
                r = look_up_all(table);
                if (r == 0)
                        r = submit(client, table);
                carvq_table_close(table);
        }
        if (r == 0)
                r = carvq_table_open_with(client, "t", &direct, &table);
        if (r == 0)
                r = look_up_all(table);
        if (r != 0)
                assert_string_not_equal(carvq_client_error(client), "");
        carvq_client_free(client);
        return r;
}

static int use_file(void) {
        const struct carvq_file_options o = { .size = sizeof(o), .verify = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table;
        int r = carvq_file_open(table_path, &o, &table, message);

        if (r != 0) {
                assert_string_not_equal(message, "");
                return r;
        }
        r = look_up_all(table);
        carvq_table_close(table);
        return r;
}

/* What carvq.h lists, and what the system calls that it names give: here what was made to fail. */
static bool is_documented(int r) {
        switch (r) {
        case -ENOMEM:
        case -EMFILE:
        case -ENOBUFS:
        case -EIO:
        case -ENOSPC:
        case -ECONNRESET:
                return true;
        default:
                return false;
        }
}

static void walk(enum inject_kind kind, int (*use)(void), const char *what) {
        size_t n_fds = count_fds(), n_maps = count_maps(), n_errors = 0;
        unsigned n = 0;

        for (bool failed = true; failed && n < WALK_MAX; n++) {
                int r;

                inject_arm(inject, kind, n);
                r = use();
                failed = inject_disarm(inject);
                if (r != 0 && !(failed && is_documented(r)))
                        fail_msg("%s, call %u of %s: %d (%s)", what, n + 1, kind_names[kind], r,
                                 strerror(-r));
                n_errors += r != 0;
                assert_int_equal(count_fds(), n_fds);
                assert_int_equal(count_maps(), n_maps);
        }
        assert_true(n < WALK_MAX);
        print_message("# %s, %s: %u calls failed, %zu with an error\n", what, kind_names[kind],
                      n - 1, n_errors);
}

static const enum inject_kind kinds[] = { INJECT_MEMORY,  INJECT_MMAP,  INJECT_OPEN,
                                          INJECT_SOCKET,  INJECT_STAT,  INJECT_READ,
                                          INJECT_WRITE,   INJECT_MEMFD, INJECT_EVENTFD,
                                          INJECT_RECEIVE, INJECT_SEND };

static void test_daemon(void **state) {
        (void)state;
        assert_int_equal(use_daemon(), 0);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                walk(kinds[i], use_daemon, "daemon");
}

static void test_file(void **state) {
        (void)state;
        assert_int_equal(use_file(), 0);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                walk(kinds[i], use_file, "file");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_daemon),
                cmocka_unit_test(test_file),
        };

        return cmocka_run_group_tests_name("inject-client", tests, setup, teardown);
}

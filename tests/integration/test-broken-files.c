/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real carvqd whose files are cut and overwritten while clients read them: that table is retired,
 * its clients get -EBADF and never a wrong row, and everybody else goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"
#include "tests/make-table.h"

#define N_ROWS       3000u
#define N_DIMS       64u
#define READERS_N    8u
#define READ_AT_ONCE 40u

static struct harness h;

/* In the watched folder. */
static const char *in(const char *name) {
        char relative[128];

        snprintf(relative, sizeof(relative), "t/%s", name);
        return harness_path(&h, relative);
}

static const struct table_header shape = { .codec = TABLE_CODEC_F32,
                                           .n_rows = N_ROWS,
                                           .n_dims = N_DIMS };

static void publish(const char *name, uint64_t seed) {
        make_table_file(in(".new"), &shape, seed);
        assert_int_equal(rename(in(".new"), in(name)), 0);
}

/* Into the file that is there, as nobody should do it: no byte of it is missing at any time. */
static void overwrite(const char *name, const void *bytes, size_t n_bytes) {
        int fd = open(in(name), O_WRONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
        close(fd);
}

/* ---- A table and the rows that it must have ---- */

struct expected {
        uint8_t *file;
        const float *rows; /* all of them, in it */
        uint64_t n_bytes;
};

static struct expected expected_of(uint64_t seed) {
        struct expected e;
        struct table_contents contents;

        e.file = make_table(&shape, seed, &e.n_bytes);
        if (table_check(e.file, TABLE_HEAD_BYTES_MAX, e.n_bytes, &contents, NULL) < 0)
                abort();
        e.rows = (const void *)(e.file + contents.rows.offset);
        return e;
}

/* 0 after the right rows, 1 after wrong ones, or the lookup's error. */
static int read_some(carvq_table *table, const struct expected *expected, uint64_t first) {
        float rows[READ_AT_ONCE * N_DIMS];
        uint64_t ids[READ_AT_ONCE];
        int r;

        for (uint64_t i = 0; i < READ_AT_ONCE; i++)
                ids[i] = (first + i * 71) % N_ROWS;
        r = carvq_lookup(table, ids, READ_AT_ONCE, NULL, rows, sizeof(rows));
        for (uint64_t i = 0; r == 0 && i < READ_AT_ONCE; i++)
                r = memcmp(rows + i * N_DIMS, expected->rows + ids[i] * N_DIMS,
                           N_DIMS * sizeof(float)) != 0;
        return r;
}

/* ---- Tests ---- */

static void start(const char *const *options) {
        const char *args[16] = { "--tables-dir", harness_path(&h, "t"), "--cache-bytes", "0" };

        for (size_t i = 0; options && options[i]; i++)
                args[4 + i] = options[i];
        harness_start(&h, args);
}

static int prepare(void **state) {
        (void)state;
        harness_init(&h);
        return mkdir(harness_path(&h, "t"), 0755);
}

static int teardown(void **state) {
        char command[200];
        int status = h.pid ? harness_stop(&h) : 0;

        (void)state;
        snprintf(command, sizeof(command), "rm -rf %s/t", h.folder);
        if (system(command) != 0)
                return -1;
        harness_deinit(&h);
        return status;
}

/* Tells when it is under way; goes on until the cut table is refused, and then some more. */
static int reader(int ready_fd, uint64_t seed) {
        const struct expected cut = expected_of(1), whole = expected_of(2);
        carvq_table *cut_table, *whole_table;
        carvq_client *client = harness_connect(&h);
        uint32_t n_after = 0;
        int r;

        if (!client || carvq_table_open(client, "cut", &cut_table) < 0 ||
            carvq_table_open(client, "whole", &whole_table) < 0)
                return 2;
        for (uint64_t i = 0; n_after < 50; i++) {
                r = read_some(cut_table, &cut, seed + i * 13);
                if (r != 0 && r != -EBADF)
                        return 3;
                if (r == 0 && n_after)
                        return 4; /* retired is for good */
                n_after += r == -EBADF;
                if (read_some(whole_table, &whole, seed + i * 17) != 0)
                        return 5;
                if (i == 5 && write(ready_fd, "r", 1) != 1)
                        return 6;
        }
        carvq_client_free(client);
        free(cut.file);
        free(whole.file);
        return 0;
}

/* `option` is how the table is kept, or NULL. */
static void cut_under_readers(const char *option) {
        pid_t pids[READERS_N];
        size_t n_maps;
        int ready[2], status;
        char byte;

        publish("cut.carvq", 1);
        publish("whole.carvq", 2);
        start((const char *[]){ "--workers", "2", option ? "--table" : NULL, option, NULL });
        n_maps = harness_count(&h, "map_files");
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        for (uint64_t i = 0; i < READERS_N; i++) {
                pids[i] = fork();
                assert_true(pids[i] >= 0);
                if (pids[i] == 0)
                        _exit(reader(ready[1], i * 1000));
        }
        close(ready[1]);
        for (size_t i = 0; i < READERS_N; i++)
                assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(truncate(in("cut.carvq"), 4096), 0);
        for (size_t i = 0; i < READERS_N; i++) {
                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
        }
        close(ready[0]);
        harness_wait_logged(&h, "was truncated or cannot be read; it is retired");
        /* The mapping goes with its last user. */
        harness_wait_count(&h, "map_files", n_maps - 1);

        publish("cut.carvq", 2);
        harness_wait_logged(&h, "table cut: 3000 x 64, f32, generation 3");
}

static void test_cut_under_readers(void **state) {
        (void)state;
        cut_under_readers(NULL);
}

static void test_cut_while_populated(void **state) {
        (void)state;
        cut_under_readers("cut:populate=yes");
}

static void test_cut_while_locked(void **state) {
        (void)state;
        cut_under_readers("cut:lock=yes");
}

static carvq_client *open_table(const char *name, carvq_table **ret_table) {
        carvq_client *client = harness_connect(&h);

        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, name, ret_table), 0);
        return client;
}

/* Nothing faults, so it is the file's date that tells: its older generation's rows are gone. */
static void test_overwritten_by_another(void **state) {
        struct expected first = expected_of(1), second = expected_of(2);
        carvq_table *table, *again;
        carvq_client *client;

        (void)state;
        publish("w.carvq", 1);
        start(NULL);
        client = open_table("w", &table);
        assert_int_equal(read_some(table, &first, 0), 0);
        overwrite("w.carvq", second.file, second.n_bytes);
        harness_wait_logged(&h, "w.carvq was overwritten, expected another file renamed to it; "
                                "generations from before are retired (1)");
        assert_int_equal(read_some(table, &first, 0), -EBADF);
        harness_wait_logged(&h, "generation 2,");
        assert_int_equal(carvq_table_open(client, "w", &again), 0);
        assert_int_equal(read_some(again, &second, 0), 0);
        assert_int_equal(read_some(table, &first, 0), -EBADF);
        carvq_client_free(client);
        free(first.file);
        free(second.file);
}

static void test_overwritten_by_garbage(void **state) {
        struct expected first = expected_of(1);
        carvq_table *table, *none;
        carvq_client *client;

        (void)state;
        publish("w.carvq", 1);
        start(NULL);
        client = open_table("w", &table);
        overwrite("w.carvq", "garbage", 7);
        harness_wait_logged(&h, "table w is not loaded: ");
        assert_true(harness_logged(&h, "generations from before are retired (1)"));
        assert_false(harness_logged(&h, "the older generation stays"));
        assert_int_equal(read_some(table, &first, 0), -EBADF);
        assert_int_equal(carvq_table_open(client, "w", &none), -ENOENT);
        carvq_client_free(client);
        free(first.file);
}

/* The same bytes once more, or only a new date: nobody's rows are wrong. */
static void test_overwritten_by_itself(void **state) {
        struct expected first = expected_of(1);
        carvq_table *table;
        carvq_client *client;

        (void)state;
        publish("w.carvq", 1);
        start(NULL);
        client = open_table("w", &table);
        overwrite("w.carvq", first.file, first.n_bytes);
        harness_wait_logged(&h, "generation 2,");
        assert_int_equal(read_some(table, &first, 0), 0);
        assert_false(harness_logged(&h, "was overwritten"));
        carvq_client_free(client);
        free(first.file);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_cut_under_readers, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_cut_while_populated, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_cut_while_locked, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_overwritten_by_another, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_overwritten_by_garbage, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_overwritten_by_itself, prepare, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts of use: every form they may come in, the weights that are made of them, and a sentence for
 * each way in which a file can be wrong. Damaged and random files must be read or refused, under
 * the sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>

#include "random.h"
#include "tools/carvq/counts.h"

#define SEED 20251117u

static char path[64];

static void write_file(const void *bytes, size_t n_bytes) {
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
}

static void write_text(const char *text) {
        write_file(text, strlen(text));
}

/* As numpy writes it: a header of 128 bytes. Returns the file's bytes. */
static size_t make_npy(const char *dict, const void *data, size_t n_bytes, char ret_file[1024]) {
        size_t n = strlen(dict);

        assert_true(n < 118 && n_bytes <= 1024 - 128);
        memset(ret_file, ' ', 128);
        memcpy(ret_file, "\x93NUMPY\1\0\x76\0", 10);
        memcpy(ret_file + 10, dict, n);
        ret_file[127] = '\n';
        memcpy(ret_file + 128, data, n_bytes);
        return 128 + n_bytes;
}

static void write_npy(const char *dict, const void *data, size_t n_bytes) {
        char file[1024];

        write_file(file, make_npy(dict, data, n_bytes, file));
}

static struct counts *open_good(uint64_t n_rows) {
        struct counts *counts;
        struct fault fault = { 0 };

        if (counts_open(path, n_rows, &counts, &fault) < 0)
                fail_msg("%s", fault.text);
        return counts;
}

static void expect_weights(const float *expected, size_t n_rows) {
        _cleanup_(counts_freep) struct counts *counts = open_good(n_rows);
        float weights[16];

        assert_int_equal(counts_read(counts, 0, n_rows, weights, NULL), 0);
        for (size_t i = 0; i < n_rows; i++)
                if (weights[i] != expected[i])
                        fail_msg("row %zu: %g, expected %g", i, (double)weights[i],
                                 (double)expected[i]);
}

#define EXPECT_WEIGHTS(...)                                                                        \
        expect_weights((const float[]){ __VA_ARGS__ },                                             \
                       sizeof((const float[]){ __VA_ARGS__ }) / sizeof(float))

/* The file's path, and then exactly this. */
static void expect_fault(uint64_t n_rows, int error, const char *sentence) {
        struct counts *counts = NULL;
        struct fault fault = { 0 };
        char expected[512];

        snprintf(expected, sizeof(expected), "%s: %s", path, sentence);
        assert_int_equal(counts_open(path, n_rows, &counts, &fault), error);
        assert_string_equal(fault.text, expected);
        assert_null(counts);
        assert_int_equal(counts_open(path, n_rows, &counts, NULL), error);
}

/* ---- Text ---- */

static void test_text(void **state) {
        (void)state;
        write_text("1\n2\n3\n");
        EXPECT_WEIGHTS(1, 2, 3);
        write_text("1\n2\n3"); /* the last line without its end */
        EXPECT_WEIGHTS(1, 2, 3);
        write_text("# counts of a corpus\n\n  7\t\r\n.5 # a half\n\t\n+1e3#\n0x10\n#end");
        EXPECT_WEIGHTS(7, .5f, 1000, 16);
        write_text("123456789012345678901234567890\n1e38\n");
        EXPECT_WEIGHTS(123456789012345678901234567890.f, 1e38f);
}

static void test_bad_text(void **state) {
        static char line[70000];

        (void)state;
        write_text("1\n2\n");
        expect_fault(3, -EBADMSG, "2 counts, expected 3 (one for each row)");
        write_text("");
        expect_fault(1, -EBADMSG, "0 counts, expected 1 (one for each row)");
        write_text("# nothing\n");
        expect_fault(1, -EBADMSG, "0 counts, expected 1 (one for each row)");
        write_text("1\n2\n\n# more\n3\n");
        expect_fault(2, -EBADMSG, "line 5: one count more than 2, expected one for each row");
        write_text("1\n2\nxyz\n");
        expect_fault(2, -EDOM, "line 3, row 2: found 'xyz', expected a number from 0 to 1e38");
        write_text("# a comment\n1\n-2\n3\n");
        expect_fault(3, -EDOM, "line 3, row 1: found '-2', expected a number from 0 to 1e38");
        write_text("1\nnan\n");
        expect_fault(2, -EDOM, "line 2, row 1: found 'nan', expected a number from 0 to 1e38");
        write_text("inf\n");
        expect_fault(1, -EDOM, "line 1, row 0: found 'inf', expected a number from 0 to 1e38");
        write_text("1.1e38\n");
        expect_fault(1, -EDOM, "line 1, row 0: found '1.1e38', expected a number from 0 to 1e38");
        write_text("1 2\n");
        expect_fault(1, -EDOM, "line 1, row 0: found '1 2', expected a number from 0 to 1e38");
        write_text("a 1\n");
        expect_fault(1, -EDOM, "line 1, row 0: found 'a 1', expected a number from 0 to 1e38");
        write_file("1\0", 2);
        expect_fault(1, -EDOM, "line 1, row 0: found '1', expected a number from 0 to 1e38");
        write_text("\x1b[2J\n");
        expect_fault(1, -EDOM, "line 1, row 0: found '?[2J', expected a number from 0 to 1e38");
        memset(line, '0', sizeof(line));
        write_file(line, 100);
        expect_fault(1, -EDOM,
                     "line 1, row 0: found"
                     " '000000000000000000000000000000000000000000000000000000000000000',"
                     " expected a number from 0 to 1e38");
        memcpy(line, "1\n", 2);
        write_file(line, sizeof(line));
        expect_fault(2, -EBADMSG, "line 2: longer than 65536 bytes");
}

/* Lines of any length, also just as long as the window, and rows asked for in any order. */
static void test_long_text(void **state) {
        static char text[1 << 20];
        static float expected[20000], weights[20000];
        _cleanup_(counts_freep) struct counts *counts = NULL;
        uint32_t random = SEED;
        size_t n_bytes = 0, n_rows = 0;

        (void)state;
        while (n_rows < ARRAY_SIZE(expected) && n_bytes < sizeof(text) - 70000) {
                size_t n_comment = test_random(&random) % 50;

                if (n_rows == 500)
                        n_comment = 65536 - 8; /* with its end as long as the window */
                expected[n_rows] = (float)(1000 + test_random(&random) % 9000);
                n_bytes += (size_t)sprintf(text + n_bytes, "%4.0f #", (double)expected[n_rows]);
                memset(text + n_bytes, 'x', n_comment);
                n_bytes += n_comment;
                n_bytes += (size_t)sprintf(text + n_bytes, "\r\n");
                n_rows++;
        }
        write_file(text, n_bytes);
        counts = open_good(n_rows);
        for (int i = 0; i < 100; i++) {
                size_t first = test_random(&random) % n_rows;
                size_t n = test_random(&random) % (n_rows - first + 1);

                assert_int_equal(counts_read(counts, first, n, weights, NULL), 0);
                assert_memory_equal(weights, expected + first, n * sizeof(*weights));
        }
        for (size_t row = 0, n; row < n_rows; row += n) {
                n = MIN(n_rows - row, 777);
                assert_int_equal(counts_read(counts, row, n, weights, NULL), 0);
                assert_memory_equal(weights, expected + row, n * sizeof(*weights));
        }
}

/* A line's end is the first byte that the window did not hold. */
static void test_text_window(void **state) {
        static char text[2 + 3 * 30000 + 1];
        static float weights[30000];
        _cleanup_(counts_freep) struct counts *counts = NULL;

        (void)state;
        strcpy(text, "#\n");
        for (int i = 0; i < 30000; i++)
                strcpy(text + 2 + 3 * i, "10\n");
        assert_true(text[65536] == '\n');
        write_text(text);
        counts = open_good(30000);
        assert_int_equal(counts_read(counts, 0, 30000, weights, NULL), 0);
        for (int i = 0; i < 30000; i++)
                assert_true(weights[i] == 10);
}

/* ---- .npy ---- */

static void test_npy(void **state) {
        (void)state;
#define CHECK_DTYPE(descr, type)                                                                   \
        do {                                                                                       \
                const type values[] = { 1, 100, 3 };                                               \
                                                                                                   \
                write_npy("{'descr': '" descr "', 'fortran_order': False, 'shape': (3,), }",       \
                          values, sizeof(values));                                                 \
                EXPECT_WEIGHTS(1, 100, 3);                                                         \
                write_npy("{'descr': '" descr "', 'fortran_order': True, 'shape': (3, 1), }",      \
                          values, sizeof(values));                                                 \
                EXPECT_WEIGHTS(1, 100, 3);                                                         \
        } while (false)
        CHECK_DTYPE("|i1", int8_t);
        CHECK_DTYPE("<i2", int16_t);
        CHECK_DTYPE("<i4", int32_t);
        CHECK_DTYPE("<i8", int64_t);
        CHECK_DTYPE("|u1", uint8_t);
        CHECK_DTYPE("<u2", uint16_t);
        CHECK_DTYPE("<u4", uint32_t);
        CHECK_DTYPE("<u8", uint64_t);
        CHECK_DTYPE("<f4", float);
        CHECK_DTYPE("<f8", double);
        write_npy("{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }", "\0\x3c\0\x38", 4);
        EXPECT_WEIGHTS(1, .5f);
        write_npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }",
                  "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
        EXPECT_WEIGHTS(0x1p64f);
}

static void test_bad_npy(void **state) {
        static const struct {
                uint64_t n_rows;
                int error;
                const char *dict, *sentence;
        } cases[] = {
                { 4, -EBADMSG, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
                  "3 counts, expected 4 (one for each row)" },
                { 2, -EBADMSG, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
                  "3 counts, expected 2 (one for each row)" },
                { 1, -EBADMSG, "{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }",
                  "12 bytes of data, expected 0 (0 x <f4)" },
                { 4, -EBADMSG, "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }",
                  "12 bytes of data, expected 16 (4 x <f4)" },
                { 4, -EBADMSG,
                  "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }",
                  "tensor '': its shape needs more than 2^63 bytes" },
                { 1, -EOPNOTSUPP, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }",
                  "shape: 2 axes, expected 1 (a count for each row)" },
                { 1, -EOPNOTSUPP, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
                  "shape: 0 axes, expected 1 (a count for each row)" },
                { 3, -EOPNOTSUPP, "{'descr': '>i4', 'fortran_order': False, 'shape': (3,), }",
                  "descr: '>i4', expected little-endian integers or floats" },
                { 3, -EOPNOTSUPP, "{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }",
                  "descr: '<c8', expected little-endian integers or floats" },
                { 3, -EOPNOTSUPP, "{'descr': [('a', '<f4')], 'shape': (3,), }",
                  "descr: a structured dtype, expected one such as '<f4'" },
                { 3, -EBADMSG, "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
                  "header at byte 61: '-', expected a length (a non-negative integer)" },
                { 3, -EDOM, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
                  "row 2: found -1, expected a number from 0 to 1e38" },
                { 3, -EDOM, "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }",
                  "row 2: found -1.08213e+09, expected a number from 0 to 1e38" },
        };
        static const float values[] = { 1, 2, -1 }, not_finite[] = { INFINITY, NAN };
        static const double huge = 1e300;
        const char *two = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                write_npy(cases[i].dict, values, sizeof(values));
                expect_fault(cases[i].n_rows, cases[i].error, cases[i].sentence);
        }
        write_npy(two, not_finite, sizeof(not_finite));
        expect_fault(2, -EDOM, "row 0: found inf, expected a number from 0 to 1e38");
        write_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", not_finite + 1, 4);
        expect_fault(1, -EDOM, "row 0: found nan, expected a number from 0 to 1e38");
        write_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", &huge, 8);
        expect_fault(1, -EDOM, "row 0: found inf, expected a number from 0 to 1e38");
        write_text("\x93NUMPY");
        expect_fault(1, -EBADMSG, "the file has 6 bytes, expected at least 12");
}

/* More than one block of rows. */
static void test_long_npy(void **state) {
        static const char dict[] = "{'descr': '<u2', 'fortran_order': False, 'shape': (30000,), }";
        static struct {
                char header[1024];
                uint16_t values[30000];
        } file;
        static float weights[30000];
        _cleanup_(counts_freep) struct counts *counts = NULL;
        struct fault fault = { 0 };
        size_t n_header = make_npy(dict, "", 0, file.header);
        uint32_t random = SEED;

        (void)state;
        memmove(file.header + sizeof(file.header) - n_header, file.header, n_header);
        for (size_t i = 0; i < 30000; i++)
                file.values[i] = (uint16_t)(1 + test_random(&random) % 65535);
        write_file(file.header + sizeof(file.header) - n_header, n_header + sizeof(file.values));
        counts = open_good(30000);
        for (int i = 0; i < 100; i++) {
                size_t first = test_random(&random) % 30000;
                size_t n = test_random(&random) % (30000 - first + 1);

                assert_int_equal(counts_read(counts, first, n, weights, NULL), 0);
                for (size_t k = 0; k < n; k++)
                        assert_true(weights[k] == file.values[first + k]);
        }
        /* The file grows shorter behind our back. */
        assert_int_equal(truncate(path, 128 + 40000), 0);
        assert_int_equal(counts_read(counts, 0, 20000, weights, NULL), 0);
        assert_int_equal(counts_read(counts, 0, 30000, weights, &fault), -EBADMSG);
        assert_non_null(strstr(fault.text, "ends at byte 40128, had 60128 when it was opened"));
}

/* ---- What counts are worth ---- */

/* Counts of `n` rows: `n_once` of 1, one of `large` if that is not 0, the others 0. */
static void write_counts(int n, int n_once, int large) {
        static char text[5000 * 8];
        size_t at = 0;

        for (int i = 0; i < n; i++)
                at += (size_t)sprintf(text + at, "%d\n",
                                      i < n_once                 ? 1
                                      : i == n_once && large > 0 ? large
                                                                 : 0);
        write_text(text);
}

static void expect_share(int n, int row, double share) {
        _cleanup_(counts_freep) struct counts *counts = open_good((uint64_t)n);
        float weight;

        assert_int_equal(counts_read(counts, (uint64_t)row, 1, &weight, NULL), 0);
        if (fabs((double)weight / share - 1) > 1e-6)
                fail_msg("row %d of %d: %g, expected %g", row, n, (double)weight, share);
}

static void test_unseen(void **state) {
        (void)state;
        /* 10 of 1000 rows seen once: 40 uses of 990 rows. */
        write_counts(1000, 10, 0);
        expect_share(1000, 999, 40. / 990);
        expect_share(1000, 9, 1);
        /* Not more than a row that was seen once. */
        write_text("10\n1\n1\n0\n0\n");
        EXPECT_WEIGHTS(10, 1, 1, 1, 1);
        /* In another unit. */
        write_text("5\n.5\n.5\n0\n0\n");
        EXPECT_WEIGHTS(5, .5f, .5f, .5f, .5f);
        write_text("4\n4\n8\n0\n");
        EXPECT_WEIGHTS(4, 4, 8, 4);
        /* All were seen, or none. */
        write_text("4\n1\n");
        EXPECT_WEIGHTS(4, 1);
        write_text("0\n-0\n0\n");
        EXPECT_WEIGHTS(1, 1, 1);
        /* The floor: one row seen once, but a thousandth of 64,000 for 998 unseen ones. */
        write_counts(1000, 1, 63999);
        expect_share(1000, 999, 64. / 998);
        /* The largest sums there can be are floats still. */
        write_text("1e38\n0\n");
        EXPECT_WEIGHTS(1e38f, 1e38f);
}

/* Beside rows seen once an unseen row is the likelier one: 20 in the first of four blocks. */
static void test_unseen_nearby(void **state) {
        double once = 20. / 4076, mean = 80. / 4076;

        (void)state;
        write_counts(4096, 20, 0);
        expect_share(4096, 1023, mean * 21 / (1004 + 1 / once) / once);
        expect_share(4096, 1024, mean * 1 / (1024 + 1 / once) / once);
        expect_share(4096, 4095, mean * 1 / (1024 + 1 / once) / once);
        /* None was seen in any block, the last of which is small. */
        write_counts(2050, 0, 0);
        expect_share(2050, 0, 1);
        expect_share(2050, 2049, 1);
}

static void test_rank(void **state) {
        _cleanup_(counts_freep) struct counts *counts = NULL;
        const uint64_t n_rows = UINT64_C(1) << 40;
        float weights[3];

        (void)state;
        assert_int_equal(counts_open("rank", n_rows, &counts, NULL), 0);
        assert_int_equal(counts_read(counts, 0, 3, weights, NULL), 0);
        for (int i = 0; i < 3; i++)
                assert_true(weights[i] == (float)(1 / (i + 2.7)));
        assert_int_equal(counts_read(counts, n_rows - 3, 3, weights, NULL), 0);
        assert_true(weights[2] > 0x1p-41f && weights[2] < 0x1p-39f);
}

/* ---- Files that are none, and files of anything ---- */

static void test_no_file(void **state) {
        struct counts *counts = NULL;
        struct fault fault = { 0 };

        (void)state;
        assert_int_equal(counts_open("/nowhere/counts", 1, &counts, &fault), -ENOENT);
        assert_string_equal(fault.text, "/nowhere/counts: cannot open: No such file or directory");
        assert_int_equal(counts_open("/tmp", 1, &counts, &fault), -EISDIR);
        assert_string_equal(fault.text, "/tmp: a directory, expected a regular file");
        assert_int_equal(counts_open("/dev/null", 1, &counts, &fault), -EINVAL);
        assert_null(counts);
}

/* Read or refused with a sentence; what is read is a weight. */
static void try_file(const void *bytes, size_t n_bytes, uint64_t n_rows) {
        _cleanup_(counts_freep) struct counts *counts = NULL;
        struct fault fault = { 0 };
        float weights[16];

        write_file(bytes, n_bytes);
        if (counts_open(path, n_rows, &counts, &fault) < 0) {
                assert_true(strlen(fault.text) > strlen(path) + 2);
                return;
        }
        assert_int_equal(counts_read(counts, 0, n_rows, weights, NULL), 0);
        for (uint64_t i = 0; i < n_rows; i++)
                assert_true(weights[i] >= 0 && weights[i] <= 2e38f);
}

static void test_damaged(void **state) {
        static const char alphabet[] = "0123456789.-+eE# \t\r\n\n\n\n";
        const float values[] = { 1, 2, 3, 4 };
        uint32_t random = SEED;
        char file[1024], damaged[1024];
        size_t n_bytes = make_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }",
                                  values, sizeof(values), file);

        (void)state;
        for (size_t at = 0; at < n_bytes; at++) {
                memcpy(damaged, file, n_bytes);
                damaged[at] = (char)(damaged[at] ^ (1 << test_random(&random) % 8));
                try_file(damaged, n_bytes, 4);
                try_file(file, at, 4);
        }
        for (int i = 0; i < 2000; i++) {
                n_bytes = test_random(&random) % 40;
                for (size_t k = 0; k < n_bytes; k++)
                        damaged[k] = i % 4 ? alphabet[test_random(&random) % sizeof(alphabet)]
                                           : (char)test_random(&random);
                try_file(damaged, n_bytes, 1 + test_random(&random) % 6);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),          cmocka_unit_test(test_bad_text),
                cmocka_unit_test(test_long_text),     cmocka_unit_test(test_text_window),
                cmocka_unit_test(test_npy),           cmocka_unit_test(test_bad_npy),
                cmocka_unit_test(test_long_npy),      cmocka_unit_test(test_unseen),
                cmocka_unit_test(test_unseen_nearby), cmocka_unit_test(test_rank),
                cmocka_unit_test(test_no_file),       cmocka_unit_test(test_damaged),
        };
        int fd, r;

        printf("# seed %u\n", SEED);
        strcpy(path, "/tmp/test-counts-XXXXXX");
        fd = mkstemp(path);
        if (fd < 0)
                return EXIT_FAILURE;
        close(fd);
        r = cmocka_run_group_tests_name("counts", tests, NULL, NULL);
        unlink(path);
        return r;
}

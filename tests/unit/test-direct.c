/* SPDX-License-Identifier: Apache-2.0 */
/* Direct lookups against arithmetic written out here, on tables made in a temporary folder. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "carvq.h"
#include "lib/codec/half.h"
#include "proto/table.h"
#include "tests/make-table.h"

#define N_ROWS 50u
#define N_DIMS 37u

static char dir[64], path[96];
static float table_values[N_ROWS][N_DIMS]; /* of the f32 table at `path` */

static carvq_table *open_table(const char *file) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table;

        if (carvq_file_open(file, NULL, &table, message) != 0)
                fail_msg("%s", message);
        return table;
}

static int setup(void **state) {
        carvq_table *table;
        int fd;

        (void)state;
        strcpy(dir, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/t.carvq", dir);
        make_table_file(path,
                        &(struct table_header){
                                .codec = TABLE_CODEC_F32, .n_rows = N_ROWS, .n_dims = N_DIMS },
                        4242);
        fd = open(path, O_RDONLY);
        assert_int_equal(pread(fd, table_values, sizeof(table_values), TABLE_ROWS_ALIGNMENT),
                         sizeof(table_values));
        close(fd);
        table = open_table(path);
        carvq_table_close(table);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        unlink(path);
        return rmdir(dir);
}

static void test_rows(void **state) {
        const uint64_t ids[] = { 0, 49, 7, 7, 12 };
        carvq_table *table = open_table(path);
        float rows[5][N_DIMS];

        (void)state;
        assert_int_equal(carvq_lookup(table, ids, 5, NULL, rows, sizeof(rows)), 0);
        for (size_t i = 0; i < 5; i++)
                assert_memory_equal(rows[i], table_values[ids[i]], sizeof(rows[i]));
        assert_string_equal(carvq_table_error(table), "");
        carvq_table_close(table);
}

static uint16_t to_bf16(float value) {
        uint32_t bits;

        memcpy(&bits, &value, sizeof(bits));
        return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void test_types(void **state) {
        const uint64_t ids[] = { 3, 4 };
        struct carvq_lookup_options o = { .size = sizeof(o), .scale = 0.3f };
        carvq_table *table = open_table(path);
        uint16_t halves[2 * N_DIMS];
        float floats[2 * N_DIMS];

        (void)state;
        assert_int_equal(carvq_lookup(table, ids, 2, &o, floats, sizeof(floats)), 0);
        for (size_t i = 0; i < 2; i++)
                for (size_t c = 0; c < N_DIMS; c++)
                        assert_true(floats[i * N_DIMS + c] == table_values[ids[i]][c] * 0.3f);
        o.type = CARVQ_F16;
        assert_int_equal(carvq_lookup(table, ids, 2, &o, halves, sizeof(halves)), 0);
        for (size_t i = 0; i < 2 * N_DIMS; i++)
                assert_int_equal(halves[i], float_to_half(floats[i]));
        o.type = CARVQ_BF16;
        assert_int_equal(carvq_lookup(table, ids, 2, &o, halves, sizeof(halves)), 0);
        for (size_t i = 0; i < 2 * N_DIMS; i++)
                assert_int_equal(halves[i], to_bf16(floats[i]));
        carvq_table_close(table);
}

/* Sums in id order; an empty bag is a zero row, a mean divides by the bag's ids. */
static void test_bags(void **state) {
        const uint64_t ids[] = { 1, 2, 3, 9, 1000, 5 }, offsets[] = { 0, 0, 3, 3, 5 };
        const size_t ends[] = { 0, 3, 3, 5, 6 };
        struct carvq_lookup_options o = { .size = sizeof(o),
                                          .bag_offsets = offsets,
                                          .n_bags = 5,
                                          .out_of_range = CARVQ_OUT_OF_RANGE_ZERO_ROW };
        carvq_table *table = open_table(path);
        float rows[5][N_DIMS];

        (void)state;
        for (o.pooling = CARVQ_POOLING_SUM; o.pooling <= CARVQ_POOLING_MEAN; o.pooling++) {
                memset(rows, 0xff, sizeof(rows));
                assert_int_equal(carvq_lookup(table, ids, 6, &o, rows, sizeof(rows)), 0);
                for (size_t b = 0; b < 5; b++)
                        for (size_t c = 0; c < N_DIMS; c++) {
                                float sum = 0, n = (float)(ends[b] - offsets[b]);

                                for (size_t i = offsets[b]; i < ends[b]; i++)
                                        sum += ids[i] < N_ROWS ? table_values[ids[i]][c] : 0;
                                if (o.pooling == CARVQ_POOLING_MEAN && n > 0)
                                        sum /= n;
                                if (fabsf(rows[b][c] - sum) > 1e-6f)
                                        fail_msg("bag %zu, column %zu: %f, expected %f", b, c,
                                                 (double)rows[b][c], (double)sum);
                        }
        }
        carvq_table_close(table);
}

static void test_slices_and_strides(void **state) {
        const uint64_t ids[] = { 8, 6 };
        struct carvq_lookup_options o = {
                .size = sizeof(o), .col_first = 10, .n_cols = 5, .row_stride_bytes = 48
        };
        carvq_table *table = open_table(path);
        float out[24];

        (void)state;
        memset(out, 0xff, sizeof(out));
        assert_int_equal(carvq_lookup(table, ids, 2, &o, out, 48 + 20), 0);
        assert_memory_equal(out, &table_values[8][10], 20);
        assert_memory_equal(out + 12, &table_values[6][10], 20);
        for (size_t i = 5; i < 12; i++) /* bytes between rows are left alone */
                assert_true(isnan(out[i]));
        for (size_t i = 17; i < 24; i++)
                assert_true(isnan(out[i]));
        o.n_cols = 0; /* to the row's end */
        o.row_stride_bytes = 0;
        o.col_first = N_DIMS - 3;
        assert_int_equal(carvq_lookup(table, ids, 2, &o, out, 24), 0);
        assert_memory_equal(out, &table_values[8][N_DIMS - 3], 12);
        assert_memory_equal(out + 3, &table_values[6][N_DIMS - 3], 12);
        carvq_table_close(table);
}

static void refuse(carvq_table *table, const uint64_t *ids, size_t n_ids,
                   const struct carvq_lookup_options *o, void *rows, size_t bytes, int error,
                   const char *text) {
        assert_int_equal(carvq_lookup(table, ids, n_ids, o, rows, bytes), error);
        if (!strstr(carvq_table_error(table), text))
                fail_msg("found \"%s\", expected \"%s\" in it", carvq_table_error(table), text);
}

static void test_refusals(void **state) {
        const uint64_t ids[] = { 1, 2, 50 }, bad_start[] = { 1, 2 }, descends[] = { 0, 2, 1 },
                       past[] = { 0, 4 };
        struct carvq_lookup_options o = { .size = sizeof(o) };
        struct {
                struct carvq_lookup_options o;
                uint64_t later;
        } newer = { { .size = sizeof(newer) }, 1 };
        carvq_table *table = open_table(path);
        float rows[3][N_DIMS + 1];
        carvq_ticket ticket;

        (void)state;
        refuse(table, ids, 0, &o, rows, sizeof(rows), -EINVAL, "n_ids is 0");
        refuse(table, ids, 3, &o, rows, sizeof(rows), -ERANGE, "ids[2] is 50");
        refuse(table, ids, 2, &o, rows, 2 * sizeof(float) * N_DIMS - 1, -ENOBUFS, "too few");
        refuse(table, ids, 2, &o, (char *)rows + 1, 1024, -EINVAL, "aligned");
        refuse(table, ids, 2, &newer.o, rows, sizeof(rows), -E2BIG, "newer");
        o.type = 256; /* would be 0 in eight bits */
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "type");
        o.type = 0;
        o.pooling = 257;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "pooling");
        o.pooling = 0;
        o.out_of_range = 2;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "out_of_range");
        o.out_of_range = 0;
        o.scale = NAN;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "scale");
        o.scale = 0;
        o.col_first = N_DIMS;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "columns");
        o.col_first = 1;
        o.n_cols = N_DIMS;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "columns");
        o.col_first = o.n_cols = 0;
        o.row_stride_bytes = 4 * N_DIMS - 4;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "stride");
        o.row_stride_bytes = 4 * N_DIMS + 2;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "row_stride_bytes");
        o.row_stride_bytes = SIZE_MAX - 3; /* the buffer's end wraps */
        refuse(table, ids, 3, &o, rows, sizeof(rows), -ENOBUFS, "too few");
        o.row_stride_bytes = 0;
        o.n_bags = 2;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "bags");
        o.pooling = CARVQ_POOLING_SUM;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "bags");
        o.bag_offsets = bad_start;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "bag_offsets[0]");
        o.bag_offsets = past;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "bag_offsets[1]");
        o.bag_offsets = descends;
        o.n_bags = 3;
        refuse(table, ids, 2, &o, rows, sizeof(rows), -EINVAL, "bag_offsets[2]");
        assert_int_equal(carvq_submit(table, ids, 1, NULL, &ticket), -EOPNOTSUPP);
        assert_string_not_equal(carvq_table_error(table), "");
        /* And it still works, and says so. */
        assert_int_equal(carvq_lookup(table, ids, 2, NULL, rows, sizeof(rows)), 0);
        assert_string_equal(carvq_table_error(table), "");
        carvq_table_close(table);
        carvq_table_close(NULL);
}

static void test_info(void **state) {
        struct carvq_file_options scalar = { .size = sizeof(scalar), .cpu_mask = "scalar" };
        struct carvq_table_info info = { .size = sizeof(info) };
        struct {
                struct carvq_table_info info;
                uint64_t later;
        } newer = { { .size = sizeof(newer) }, 1 };
        carvq_table *table;
        struct stat st;

        (void)state;
        assert_int_equal(carvq_file_open(path, &scalar, &table, NULL), 0);
        assert_int_equal(carvq_table_info(table, &info), 0);
        assert_int_equal(info.size, sizeof(info));
        assert_int_equal(info.n_rows, N_ROWS);
        assert_int_equal(info.n_dims, N_DIMS);
        assert_int_equal(info.record_bytes, 4 * N_DIMS);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(info.file_bytes, st.st_size);
        assert_string_equal(info.codec_name, "f32");
        assert_string_equal(info.kernel, "scalar");

        assert_int_equal(carvq_table_info(table, &newer.info), 0);
        assert_int_equal(newer.later, 0);
        info.size = offsetof(struct carvq_table_info, n_dims);
        info.n_dims = 999;
        assert_int_equal(carvq_table_info(table, &info), 0);
        assert_int_equal(info.n_dims, 999); /* an older caller's struct ends before it */
        info.size = 0;
        assert_int_equal(carvq_table_info(table, &info), -EINVAL);
        carvq_table_close(table);
}

/* Whatever the codec: one lookup of many rows equals many of one, on every kernel set. */
static void test_codecs(void **state) {
        enum { ROWS = 30, DIMS = 133 };
        struct table_header shapes[TABLE_CODEC_CARVQ + 1] = {
                [TABLE_CODEC_CARVQ] = { .n_stages = 3,
                                        .codebook_bits = 4,
                                        .subvector_dims = 8,
                                        .group_cols = 16,
                                        .group_rows = ROWS },
        };
        char file[96];
        uint64_t ids[ROWS];
        static float together[ROWS][DIMS], alone[DIMS], scalar[ROWS][DIMS];
        struct carvq_file_options o = { .size = sizeof(o), .cpu_mask = "scalar", .verify = 1 };

        (void)state;
        snprintf(file, sizeof(file), "%s/codec.carvq", dir);
        for (uint32_t codec = TABLE_CODEC_F32; codec <= TABLE_CODEC_CARVQ; codec++) {
                carvq_table *table, *plain;

                shapes[codec].codec = codec;
                shapes[codec].n_rows = ROWS;
                shapes[codec].n_dims = DIMS;
                make_table_file(file, &shapes[codec], 7 + codec);
                table = open_table(file);
                assert_int_equal(carvq_file_open(file, &o, &plain, NULL), 0);
                for (size_t i = 0; i < ROWS; i++)
                        ids[i] = (i * 7) % ROWS;
                assert_int_equal(carvq_lookup(table, ids, ROWS, NULL, together, sizeof(together)),
                                 0);
                assert_int_equal(carvq_lookup(plain, ids, ROWS, NULL, scalar, sizeof(scalar)), 0);
                assert_memory_equal(together, scalar, sizeof(scalar));
                for (size_t i = 0; i < ROWS; i++) {
                        assert_int_equal(
                                carvq_lookup(table, &ids[i], 1, NULL, alone, sizeof(alone)), 0);
                        assert_memory_equal(alone, together[i], sizeof(alone));
                        assert_true(isfinite(alone[0]));
                }
                carvq_table_close(table);
                carvq_table_close(plain);
        }
        unlink(file);
}

static void refuse_file(const char *file, const struct carvq_file_options *o, int error,
                        const char *text) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table = NULL;

        assert_int_equal(carvq_file_open(file, o, &table, message), error);
        assert_null(table);
        if (!strstr(message, text))
                fail_msg("found \"%s\", expected \"%s\" in it", message, text);
        assert_int_equal(carvq_file_open(file, o, &table, NULL), error);
}

static void patch(const char *file, off_t at, uint8_t flip) {
        int fd = open(file, O_RDWR);
        uint8_t byte;

        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= flip;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
}

static void test_bad_files(void **state) {
        struct carvq_file_options o = { .size = sizeof(o), .verify = 1 };
        char file[96];

        (void)state;
        snprintf(file, sizeof(file), "%s/bad.carvq", dir);
        refuse_file(file, NULL, -ENOENT, file);
        refuse_file(dir, NULL, -EBADMSG, "not a regular file");
        assert_int_equal(mkfifo(file, 0600), 0);
        refuse_file(file, NULL, -EBADMSG, file); /* and does not hang */
        unlink(file);

        make_table_file(file,
                        &(struct table_header){
                                .codec = TABLE_CODEC_F32, .n_rows = N_ROWS, .n_dims = N_DIMS },
                        1);
        patch(file, 0, 1);
        refuse_file(file, NULL, -EBADMSG, "magic");
        patch(file, 0, 1);
        patch(file, 5000, 4);
        refuse_file(file, &o, -EBADMSG, "chunk rows"); /* only verification reads it */
        o.verify = 0;
        o.cpu_mask = "quantum";
        refuse_file(file, &o, -EINVAL, "quantum");
        o.size = 0;
        refuse_file(file, &o, -EINVAL, "options.size");
        assert_int_equal(truncate(file, 4999), 0);
        refuse_file(file, NULL, -EBADMSG, "truncated");
        assert_int_equal(truncate(file, 0), 0);
        refuse_file(file, NULL, -EBADMSG, file);
        unlink(file);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),     cmocka_unit_test(test_types),
                cmocka_unit_test(test_bags),     cmocka_unit_test(test_slices_and_strides),
                cmocka_unit_test(test_refusals), cmocka_unit_test(test_info),
                cmocka_unit_test(test_codecs),   cmocka_unit_test(test_bad_files),
        };

        return cmocka_run_group_tests_name("direct", tests, setup, teardown);
}

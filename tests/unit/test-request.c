/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: what the check refuses, in words, and what decoding makes of the rest. The expected
 * rows are made here, one value at a time, from rows that the scalar kernel decodes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guarded-table.h"
#include "lib/codec/codec.h"
#include "lib/codec/half.h"

#define N_ROWS 50u
#define N_DIMS 100u

static uint64_t seed;
static const struct codec_kernels *sets[8];
static size_t n_sets;

static struct guarded file;
static struct codec_table table;
static float rows[N_ROWS][N_DIMS]; /* as the scalar kernel decodes them */

static int set_up(void **state) {
        struct table_header header = {
                .n_rows = N_ROWS,
                .n_dims = N_DIMS,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = TABLE_DIMS_MAX,
                .group_rows = N_ROWS,
        };
        struct table_contents contents;
        uint64_t random = seed;

        (void)state;
        make_table(&header, NULL, &random, &file);
        if (table_check(file.bytes, TABLE_HEAD_BYTES_MAX, header.file_bytes, &contents, NULL) < 0)
                return -1;
        codec_table_init(&table, &contents, file.bytes);
        for (uint64_t row = 0; row < N_ROWS; row++) {
                struct codec_record record = codec_kernels_scalar.find(&table, row);

                codec_kernels_scalar.decode[TABLE_CODEC_CARVQ](&table, &record, NULL, rows[row]);
        }
        return 0;
}

static int tear_down(void **state) {
        (void)state;
        guarded_deinit(&file);
        return 0;
}

static struct codec_request plain_request(const uint64_t *ids, uint64_t n_ids) {
        return (struct codec_request){
                .ids = ids,
                .n_ids = n_ids,
                .n_cols = N_DIMS,
                .scale = 1,
                .row_stride_bytes = N_DIMS * sizeof(float),
        };
}

/* ---- The check ---- */

static void assert_refused(const struct codec_request *request, int r, const char *expected) {
        struct fault fault = { 0 };
        uint64_t bad = 777;

        assert_int_equal(codec_request_check(request, &table.contents.header, &bad, &fault), r);
        assert_string_equal(fault.text, expected);
        assert_int_equal(bad == 777, r != -ERANGE);
        /* Without a fault to fill it refuses all the same. */
        assert_int_equal(codec_request_check(request, &table.contents.header, &bad, NULL), r);
}

static void assert_taken(const struct codec_request *request) {
        struct fault fault = { 0 };
        uint64_t bad;

        if (codec_request_check(request, &table.contents.header, &bad, &fault) < 0)
                fail_msg("refused: %s", fault.text);
}

#define REFUSED(r, expected, ...)                                                                  \
        do {                                                                                       \
                struct codec_request q = plain_request(ids, 3);                                    \
                __VA_ARGS__;                                                                       \
                assert_refused(&q, r, expected);                                                   \
        } while (0)

static void test_bad_shapes(void **state) {
        const uint64_t ids[] = { 0, 1, 2 };

        (void)state;
        REFUSED(-EINVAL, "output type is 3, expected 0 (f32), 1 (f16) or 2 (bf16)", q.type = 3);
        REFUSED(-EINVAL, "pooling is 3, expected 0 (none), 1 (sum) or 2 (mean)", q.pooling = 3);
        REFUSED(-EINVAL, "out-of-range policy is 2, expected 0 (error) or 1 (zero row)",
                q.out_of_range = 2);
        REFUSED(-EINVAL, "columns are 0 from 0, expected at least 1 inside the table's 100",
                q.n_cols = 0);
        REFUSED(-EINVAL, "columns are 101 from 0, expected at least 1 inside the table's 100",
                q.n_cols = 101, q.row_stride_bytes = 1000);
        REFUSED(-EINVAL, "columns are 100 from 1, expected at least 1 inside the table's 100",
                q.col_first = 1);
        REFUSED(-EINVAL,
                "columns are 1 from 4294967295, expected at least 1 inside the table's 100",
                q.col_first = UINT32_MAX, q.n_cols = 1);
        REFUSED(-EINVAL,
                "columns are 4294967295 from 2, expected at least 1 inside the table's 100",
                q.col_first = 2, q.n_cols = UINT32_MAX, q.row_stride_bytes = UINT64_MAX);
        REFUSED(-EINVAL, "row stride is 399 bytes, expected at least 400",
                q.row_stride_bytes = 399);
        REFUSED(-EINVAL, "row stride is 199 bytes, expected at least 200", q.row_stride_bytes = 199,
                q.type = CODEC_TYPE_F16);
        REFUSED(-EINVAL, "scale is nan, expected a finite number", q.scale = NAN);
        REFUSED(-EINVAL, "scale is inf, expected a finite number", q.scale = INFINITY);
}

static void test_bad_bags(void **state) {
        const uint64_t ids[] = { 0, 1, 2 }, offsets[] = { 0, 2, 1 }, late[] = { 1 },
                       long_[] = { 0, 4 };

        (void)state;
        REFUSED(-EINVAL, "bags are given (2), expected none without pooling",
                q.bag_offsets = offsets, q.n_bags = 2);
        REFUSED(-EINVAL, "n_bags is 0, expected at least 1 with pooling",
                q.pooling = CODEC_POOLING_SUM);
        REFUSED(-EINVAL, "n_bags is 0, expected at least 1 with pooling",
                q.pooling = CODEC_POOLING_SUM, q.bag_offsets = offsets);
        REFUSED(-EINVAL, "bag_offsets[0] is 1, expected 0", q.pooling = CODEC_POOLING_MEAN,
                q.bag_offsets = late, q.n_bags = 1);
        REFUSED(-EINVAL, "bag_offsets[2] is 1, expected at least 2, the one before",
                q.pooling = CODEC_POOLING_MEAN, q.bag_offsets = offsets, q.n_bags = 3);
        REFUSED(-EINVAL, "bag_offsets[1] is 4, expected at most 3, the number of ids",
                q.pooling = CODEC_POOLING_SUM, q.bag_offsets = long_, q.n_bags = 2);
}

static void test_bad_ids(void **state) {
        const uint64_t ids[] = { 0, N_ROWS, UINT64_MAX }, good[] = { 0, N_ROWS - 1 },
                       offsets[] = { 0 };
        struct codec_request request;
        uint64_t bad = 777;

        (void)state;
        REFUSED(-ERANGE, "ids[1] is 50, expected less than 50, the table's rows", (void)0);
        REFUSED(-ERANGE, "ids[1] is 50, expected less than 50, the table's rows",
                q.pooling = CODEC_POOLING_SUM, q.bag_offsets = offsets, q.n_bags = 1);
        request = plain_request(ids, 3);
        assert_int_equal(codec_request_check(&request, &table.contents.header, &bad, NULL),
                         -ERANGE);
        assert_int_equal(bad, 1);

        request.out_of_range = CODEC_OUT_OF_RANGE_ZERO;
        assert_taken(&request);
        request = plain_request(good, 2);
        assert_taken(&request);
        request = plain_request(NULL, 0);
        assert_taken(&request);
        request.pooling = CODEC_POOLING_SUM; /* one empty bag */
        request.bag_offsets = offsets;
        request.n_bags = 1;
        assert_taken(&request);
        assert_int_equal(codec_request_rows(&request), 1);
}

/* ---- Decoding ---- */

/* The columns of one output row as floats, by the words of codec.h. */
static void expect_row(const struct codec_request *q, uint64_t i, float *ret_values) {
        uint64_t first = i, end = i + 1;

        if (q->pooling) {
                first = q->bag_offsets[i];
                end = i + 1 < q->n_bags ? q->bag_offsets[i + 1] : q->n_ids;
        }
        for (uint32_t c = 0; c < q->n_cols; c++) {
                bool any = false;
                float v = 0;

                for (uint64_t k = first; k < end; k++) {
                        if (q->ids[k] >= N_ROWS)
                                continue;
                        v = any ? v + rows[q->ids[k]][q->col_first + c]
                                : rows[q->ids[k]][q->col_first + c];
                        any = true;
                }
                if (q->pooling == CODEC_POOLING_MEAN && any)
                        v = v / (float)(end - first);
                ret_values[c] = q->scale == 1 ? v : v * q->scale;
        }
}

static void expect_bytes(const struct codec_request *q, uint64_t i, uint8_t *ret_bytes) {
        float values[N_DIMS];

        expect_row(q, i, values);
        for (uint32_t c = 0; c < q->n_cols; c++) {
                uint16_t half = q->type == CODEC_TYPE_F16 ? float_to_half(values[c])
                                                          : float_to_bf16(values[c]);

                if (q->type == CODEC_TYPE_F32)
                        memcpy(ret_bytes + 4 * (size_t)c, &values[c], 4);
                else
                        memcpy(ret_bytes + 2 * (size_t)c, &half, 2);
        }
}

/*
 * Decodes in pieces, in memory that ends with the last row's last byte, and compares every byte:
 * those of rows with what they should be, those between rows with what was there.
 */
static void check_request(struct codec_request *q, uint64_t n_ids_max) {
        uint64_t n_rows = codec_request_rows(q), row_bytes = q->n_cols * codec_type_bytes(q->type);
        size_t n_bytes = n_rows ? (n_rows - 1) * q->row_stride_bytes + row_bytes : 0;
        uint64_t n_in_range = 0;
        struct guarded out, expected;

        assert_taken(q);
        guarded_init(&out, n_bytes);
        guarded_init(&expected, n_bytes);
        memset(expected.bytes, 0x5a, n_bytes);
        for (uint64_t i = 0; i < n_rows; i++)
                expect_bytes(q, i, expected.bytes + i * q->row_stride_bytes);
        for (uint64_t i = 0; i < q->n_ids; i++)
                n_in_range += q->ids[i] < N_ROWS;

        for (size_t s = 0; s < n_sets; s++) {
                float *values = malloc(q->n_cols * sizeof(float));
                struct codec_context context;
                struct codec_piece piece = {
                        .request = q,
                        .n_ids_max = n_ids_max,
                        .bag.values = values,
                        .cost = { .n_rows_read = 1, .bytes_read = 2, .bytes_written = 3 },
                };

                codec_context_init(&context, sets[s]);
                assert_int_equal(codec_context_reserve(&context, &table), 0);
                q->streams = s % 2; /* the same rows, by other stores */
                memset(out.bytes, 0x5a, n_bytes);
                q->out = out.bytes;
                while (piece.n_rows < n_rows)
                        codec_decode(&context, &table, &piece, 1);
                for (size_t i = 0; i < n_bytes; i++)
                        if (out.bytes[i] != expected.bytes[i])
                                fail_msg("%s, type %u, pooling %u, columns %u from %u, scale %f,"
                                         " stride %" PRIu64 ": byte %zu of row %" PRIu64,
                                         sets[s]->name, q->type, q->pooling, q->n_cols,
                                         q->col_first, (double)q->scale, q->row_stride_bytes,
                                         i % q->row_stride_bytes, i / q->row_stride_bytes);
                assert_int_equal(piece.cost.n_rows_read, 1 + n_in_range);
                assert_int_equal(piece.cost.bytes_read,
                                 2 + n_in_range * table.contents.header.record_bytes);
                assert_int_equal(piece.cost.bytes_written, 3 + n_rows * row_bytes);
                codec_context_deinit(&context);
                free(values);
        }
        guarded_deinit(&out);
        guarded_deinit(&expected);
}

/* Every combination of the options, over ids that repeat and ids outside the table. */
static void test_options(void **state) {
        const uint32_t slices[][2] = { { 0, N_DIMS }, { 0, 1 }, { 99, 1 }, { 13, 64 }, { 1, 99 } };
        const uint64_t offsets[] = { 0, 0, 5, 6, 6, 30, 40, 40 };
        const float scales[] = { 1, -0.5f, 0, 33.3f };
        uint64_t ids[40], random = seed;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ids[i] = test_random(&random) % N_ROWS;
        ids[5] = N_ROWS; /* the one id of its bag, which is a zero row then */
        ids[6] = UINT64_MAX;
        ids[20] = UINT64_C(1) << 40;

        for (uint32_t type = 0; type <= CODEC_TYPE_BF16; type++)
                for (uint32_t pooling = 0; pooling <= CODEC_POOLING_MEAN; pooling++)
                        for (size_t c = 0; c < ARRAY_SIZE(slices); c++)
                                for (size_t s = 0; s < ARRAY_SIZE(scales); s++)
                                        for (uint32_t pad = 0; pad < 10; pad++) {
                                                struct codec_request q =
                                                        plain_request(ids, ARRAY_SIZE(ids));

                                                q.type = (uint8_t)type;
                                                q.pooling = (uint8_t)pooling;
                                                q.bag_offsets = pooling ? offsets : NULL;
                                                q.n_bags = pooling ? ARRAY_SIZE(offsets) : 0;
                                                q.out_of_range = CODEC_OUT_OF_RANGE_ZERO;
                                                q.col_first = slices[c][0];
                                                q.n_cols = slices[c][1];
                                                q.scale = scales[s];
                                                q.row_stride_bytes =
                                                        q.n_cols * codec_type_bytes(type) + pad;
                                                check_request(&q, 1 + pad * pad);
                                        }
}

static void test_sizes(void **state) {
        const uint64_t one[] = { 7 }, offsets[] = { 0 };
        struct codec_request q = plain_request(one, 1);
        uint64_t ids[1000], random = seed;

        (void)state;
        check_request(&q, 1);
        q = plain_request(NULL, 0);
        check_request(&q, 1);
        q.pooling = CODEC_POOLING_MEAN;
        q.bag_offsets = offsets;
        q.n_bags = 1;
        check_request(&q, 1);

        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ids[i] = test_random(&random) % N_ROWS;
        for (uint64_t n = 1; n <= ARRAY_SIZE(ids); n = n * 3 / 2 + 1) {
                q = plain_request(ids, n);
                check_request(&q, n);
                check_request(&q, 7);
        }
}

/* A bag of one is its row to the bit: nothing is added to it. */
static void test_bag_of_one(void **state) {
        const uint64_t ids[] = { 3, 4, 5 }, offsets[] = { 0, 1, 2 };
        struct codec_request q = plain_request(ids, 3);

        (void)state;
        q.pooling = CODEC_POOLING_SUM;
        q.bag_offsets = offsets;
        q.n_bags = 3;
        for (uint32_t c = 0; c < 16; c++) {
                float values[N_DIMS];

                q.n_cols = c + 1;
                expect_row(&q, 1, values);
                assert_memory_equal(values, rows[4], q.n_cols * sizeof(float));
                check_request(&q, 2);
        }
}

/* One context serves narrow and wide tables in any order. */
static void test_context_grows(void **state) {
        struct codec_table wide = table;
        struct codec_context context;
        size_t narrow_floats;

        (void)state;
        codec_context_init(&context, &codec_kernels_scalar);
        assert_int_equal(codec_context_reserve(&context, &table), 0);
        narrow_floats = context.scratch_floats;
        wide.contents.header.n_dims = TABLE_DIMS_MAX;
        wide.contents.header.latent_dims = TABLE_LATENT_DIMS_MAX;
        wide.contents.header.hidden_dims[0] = TABLE_HIDDEN_DIMS_MAX;
        wide.contents.header.hidden_dims[1] = TABLE_HIDDEN_DIMS_MAX;
        assert_int_equal(codec_context_reserve(&context, &wide), 0);
        assert_true(context.scratch_floats >= narrow_floats);
        assert_true(context.scratch_floats >= 5 * 65536 + 1024);
        assert_int_equal((uintptr_t)context.scratch % 64, 0);
        narrow_floats = context.scratch_floats;
        assert_int_equal(codec_context_reserve(&context, &table), 0);
        assert_int_equal(context.scratch_floats, narrow_floats);
        codec_context_deinit(&context);
}

/* ---- Several requests together ---- */

enum { N_REQUESTS = 9, N_IDS = 70, ROW_BYTES = N_DIMS * sizeof(float) };

struct together {
        uint64_t ids[N_REQUESTS][N_IDS];
        struct codec_request requests[N_REQUESTS];
        uint8_t alone[N_REQUESTS][N_IDS * ROW_BYTES], together[N_REQUESTS][N_IDS * ROW_BYTES];
        float bags[N_REQUESTS][N_DIMS];
};

/* Ids that repeat within a request and from one to another, and some outside the table; bags that
 * are empty or long; requests of one id and of more than a batch. */
static void make_requests(struct together *t, uint64_t *random) {
        static const uint64_t offsets[] = { 0, 0, 1, 40 };

        for (size_t i = 0; i < N_REQUESTS; i++) {
                uint64_t n = i % 3 == 1 ? 1 : 1 + test_random(random) % N_IDS;
                bool pooled = i % 3 == 2;

                for (size_t k = 0; k < N_IDS; k++)
                        t->ids[i][k] = test_random(random) % (N_ROWS / 2 + 3) * 2;
                t->requests[i] = plain_request(t->ids[i], pooled ? N_IDS : n);
                t->requests[i].out_of_range = CODEC_OUT_OF_RANGE_ZERO;
                t->requests[i].type = (uint8_t)(test_random(random) % 3);
                t->requests[i].pooling = pooled ? CODEC_POOLING_MEAN : 0;
                t->requests[i].bag_offsets = pooled ? offsets : NULL;
                t->requests[i].n_bags = pooled ? ARRAY_SIZE(offsets) : 0;
        }
}

static void check_together(const struct codec_table *of, const struct codec_kernels *set,
                           struct together *t, uint64_t *random) {
        struct codec_piece pieces[N_REQUESTS] = { 0 };
        struct codec_cost alone = { 0 }, together = { 0 };
        struct codec_context context;
        size_t n_left = N_REQUESTS;

        codec_context_init(&context, set);
        assert_int_equal(codec_context_reserve(&context, of), 0);
        for (size_t i = 0; i < N_REQUESTS; i++) {
                t->requests[i].out = t->alone[i];
                codec_decode_all(&context, of, &t->requests[i], &alone);
                t->requests[i].out = t->together[i];
                pieces[i].request = &t->requests[i];
                pieces[i].bag.values = t->bags[i];
        }
        while (n_left) {
                for (size_t i = 0; i < n_left; i++)
                        pieces[i].n_ids_max = 1 + test_random(random) % 50;
                codec_decode(&context, of, pieces, n_left);
                for (size_t i = 0; i < n_left; i++)
                        if (pieces[i].n_rows == codec_request_rows(pieces[i].request)) {
                                together.n_rows_read += pieces[i].cost.n_rows_read;
                                together.bytes_read += pieces[i].cost.bytes_read;
                                together.lines_read += pieces[i].cost.lines_read;
                                together.bytes_written += pieces[i].cost.bytes_written;
                                pieces[i--] = pieces[--n_left];
                        }
        }
        assert_memory_equal(t->alone, t->together, sizeof(t->alone));
        assert_memory_equal(&alone, &together, sizeof(alone));
        codec_context_deinit(&context);
}

static void test_together(void **state) {
        struct table_header header = table.contents.header;
        struct together *t = calloc(1, sizeof(*t));
        struct table_contents contents;
        struct codec_table with_latents;
        struct guarded latents_file;
        uint64_t random = seed;

        (void)state;
        header.adaptor_type = TABLE_ADAPTOR_INT8;
        header.latent_dims = 5;
        header.latent_bits = 8;
        header.hidden_dims[0] = 40;
        make_table(&header, NULL, &random, &latents_file);
        assert_int_equal(table_check(latents_file.bytes, TABLE_HEAD_BYTES_MAX, header.file_bytes,
                                     &contents, NULL),
                         0);
        codec_table_init(&with_latents, &contents, latents_file.bytes);
        assert_int_equal(codec_prepare(&header, with_latents.col_scales, with_latents.adaptor,
                                       &with_latents.prepared),
                         0);
        for (int round = 0; round < 50; round++) {
                make_requests(t, &random);
                for (size_t s = 0; s < n_sets; s++) {
                        check_together(&table, sets[s], t, &random);
                        check_together(&with_latents, sets[s], t, &random);
                }
        }
        codec_prepared_free(with_latents.prepared);
        guarded_deinit(&latents_file);
        free(t);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bad_shapes),    cmocka_unit_test(test_bad_bags),
                cmocka_unit_test(test_bad_ids),       cmocka_unit_test(test_options),
                cmocka_unit_test(test_sizes),         cmocka_unit_test(test_bag_of_one),
                cmocka_unit_test(test_context_grows), cmocka_unit_test(test_together),
        };

        seed = test_seed();
        n_sets = test_kernels(sets);
        return cmocka_run_group_tests_name("request", tests, set_up, tear_down);
}

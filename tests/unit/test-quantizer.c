/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as the packer makes them. The decoder of lib/codec is the judge of the encoder: nothing
 * here believes the packer about its own bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/codec/codec.h"
#include "lib/codec/half.h"
#include "tools/carvq/quantizer.h"
#include "tools/carvq/rng.h"

#define SEED   UINT64_C(20260101)
#define N_ROWS 70u

static float *random_values(size_t n, uint64_t stream) {
        struct rng rng = rng_stream(SEED, stream);
        float *values = malloc(n * sizeof(float));

        assert_non_null(values);
        for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
        return values;
}

static const struct coder_effort effort = {
        .rvq = { .lloyd_passes = 3, .joint_passes = 3 },
        .trellis = { .n_passes = 4 },
        .n_subvectors = 4096,
};

/* ---- Records, judged by the decoder ---- */

static struct table_header make_header(uint32_t n_dims, uint32_t n_stages, uint32_t code_bits,
                                       uint32_t window_bits, uint32_t subvector_dims,
                                       uint32_t group_cols) {
        struct table_header h = {
                .n_rows = N_ROWS,
                .n_dims = n_dims,
                .codec = TABLE_CODEC_CARVQ,
                .codebook_bits = code_bits,
                .window_bits = window_bits,
                .subvector_dims = subvector_dims,
                .group_cols = group_cols,
                .group_rows = N_ROWS,
        };

        table_set_one_tier(&h, n_stages);
        return h;
}

/* The file's chunks in memory, as pack.c would write them. */
struct packed {
        struct codec_table table;
        uint8_t *records;
        uint8_t *codebooks;
        struct table_tier_block *map;
        size_t n_bytes;
};

static void packed_init(struct packed *p, const struct quantizer *q, const uint8_t *tiers) {
        const struct coder *c = &q->coder;
        size_t n = c->layout.codebook_bytes;

        *p = (struct packed){ .records = calloc(N_ROWS, c->layout.record_bytes),
                              .codebooks = aligned_alloc(64, align_up(n, 64)),
                              .map = aligned_alloc(64, c->layout.tiers_bytes + 64) };
        assert_true(p->records && p->codebooks && p->map);
        memset(p->codebooks, 0, n);
        if (c->header.col_scale)
                memcpy(p->codebooks, c->col_scales, c->header.n_dims * sizeof(uint16_t));
        memcpy(p->codebooks + c->layout.col_scale_bytes, c->codebooks,
               n - c->layout.col_scale_bytes);
        if (tiers)
                table_tiers_fill(&c->header, tiers, p->map);
        p->table.contents.header = c->header;
        p->table.contents.header.record_bytes = c->layout.record_bytes;
        p->table.contents.layout = c->layout;
        p->table.rows = p->records;
        p->table.tiers = tiers ? p->map : NULL;
        p->table.col_scales = c->header.col_scale ? (const uint16_t *)(void *)p->codebooks : NULL;
        p->table.codebooks =
                (const uint16_t *)(const void *)(p->codebooks + c->layout.col_scale_bytes);
}

static void packed_deinit(struct packed *p) {
        free(p->records);
        free(p->codebooks);
        free(p->map);
}

/* Decodes with the specification; compares with what the encoder claims to have reached. */
static double check_table(struct table_header h, const uint8_t *tiers) {
        float *rows = random_values((size_t)N_ROWS * h.n_dims, 9 + h.n_dims), *decoded, *scratch;
        struct quantizer_rows encoded = { rows, N_ROWS, 0, tiers };
        struct closeness claimed, seen;
        struct quantizer q;
        struct fault fault = { 0 };
        struct packed p;

        assert_int_equal(quantizer_init(&q, &h, NULL, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, rows, N_ROWS, tiers, NULL, &effort, SEED, 2, &fault),
                         0);
        packed_init(&p, &q, tiers);
        decoded = malloc(h.n_dims * sizeof(float));
        scratch = aligned_alloc(64, align_up(codec_scratch_floats(&h) * sizeof(float) + 64, 64));
        closeness_init(&claimed);
        closeness_init(&seen);
        assert_int_equal(quantizer_encode(&q, &encoded, p.records, &p.n_bytes, &claimed, &fault),
                         0);
        assert_true(p.n_bytes == q.coder.layout.rows_bytes);
        for (uint64_t r = 0; r < N_ROWS; r++) {
                struct codec_record record = codec_kernels_scalar.find(&p.table, r);

                codec_kernels_scalar.decode[TABLE_CODEC_CARVQ](&p.table, &record, scratch, decoded);
                closeness_add_row(&seen, rows + r * h.n_dims, decoded, h.n_dims);
        }
        /* Both add the same numbers in the same order: equal to the last bit. */
        assert_true(claimed.error == seen.error);
        assert_true(claimed.max_abs_error == seen.max_abs_error);
        free(rows);
        free(decoded);
        free(scratch);
        packed_deinit(&p);
        quantizer_deinit(&q);
        return closeness_rel_mse(&seen);
}

static void test_rvq_records(void **state) {
        static const struct {
                uint32_t n_dims, n_stages, bits, subvector_dims, group_cols;
        } shapes[] = {
                { 1, 3, 4, 1, 64 },    { 7, 3, 4, 7, 64 },   { 7, 2, 4, 5, 1 }, /* slots missing */
                { 100, 3, 4, 8, 64 },  { 100, 3, 5, 8, 5 },  { 384, 3, 4, 8, 64 },
                { 640, 2, 8, 8, 64 },  { 101, 2, 5, 16, 3 }, { 101, 2, 5, 16, 1 },
                { 1031, 5, 3, 8, 32 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
                for (uint32_t scale = 0; scale < 2; scale++) {
                        struct table_header h = make_header(
                                shapes[i].n_dims, shapes[i].n_stages, shapes[i].bits,
                                shapes[i].bits, shapes[i].subvector_dims, shapes[i].group_cols);

                        h.row_scale = scale;
                        assert_true(check_table(h, NULL) < 0.6);
                }
}

static void test_trellis_records(void **state) {
        static const struct {
                uint32_t n_dims, bits, window, subvector_dims, group_cols;
        } shapes[] = {
                { 1, 1, 5, 1, 64 },  { 1, 6, 8, 4, 64 },     { 7, 6, 8, 4, 64 },
                { 100, 3, 7, 2, 8 }, { 101, 5, 6, 4, 1000 }, { 384, 6, 8, 4, 1000 },
                { 65, 7, 9, 8, 3 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
                for (uint32_t scale = 0; scale < 4; scale++) {
                        struct table_header h =
                                make_header(shapes[i].n_dims, 1, shapes[i].bits, shapes[i].window,
                                            shapes[i].subvector_dims, shapes[i].group_cols);

                        h.row_scale = scale & 1;
                        h.col_scale = scale >> 1;
                        assert_true(check_table(h, NULL) < 0.8);
                }
}

/* Tiers of trellis codes differ in bits, of RVQ in stages; both may have one without codes. */
static void test_tiers(void **state) {
        struct table_header trellis = make_header(101, 1, 7, 9, 4, 1000);
        struct table_header rvq = make_header(101, 3, 4, 4, 8, 64);
        uint8_t tiers[N_ROWS];

        (void)state;
        for (uint32_t i = 0; i < N_ROWS; i++)
                tiers[i] = (uint8_t)(i * i % 7 % 3);
        trellis.n_tiers = rvq.n_tiers = 3;
        memcpy(trellis.tier_bits, (uint8_t[]){ 0, 4, 7, 0 }, 4);
        memcpy(trellis.tier_stages, (uint8_t[]){ 0, 1, 1, 0 }, 4);
        memcpy(rvq.tier_bits, (uint8_t[]){ 4, 4, 4, 0 }, 4);
        memcpy(rvq.tier_stages, (uint8_t[]){ 1, 2, 3, 0 }, 4);
        for (uint32_t t = 1; t < 3; t++) {
                for (uint32_t i = 0; i < N_ROWS; i++)
                        trellis.tier_rows[t - 1] += tiers[i] >= t;
                rvq.tier_rows[t - 1] = trellis.tier_rows[t - 1];
        }
        table_set_tier_scales(&trellis);
        table_set_tier_scales(&rvq);
        assert_true(check_table(trellis, tiers) < 1);
        assert_true(check_table(rvq, tiers) < 0.6);
        trellis.row_scale = trellis.col_scale = 1;
        assert_true(check_table(trellis, tiers) < 1);
}

static void test_half_overflow_is_named(void **state) {
        struct table_header h = make_header(8, 1, 4, 4, 8, 1);
        float *rows = random_values(N_ROWS * 8, 10);
        struct quantizer_rows encoded = { rows, N_ROWS, 0, NULL };
        struct fault fault = { 0 };
        struct closeness closeness;
        uint8_t records[N_ROWS * 16];
        struct quantizer q;
        size_t n_bytes;

        (void)state;
        for (size_t i = 0; i < N_ROWS * 8; i++)
                rows[i] *= 1e6f;
        assert_int_equal(quantizer_init(&q, &h, NULL, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, rows, N_ROWS, NULL, NULL, &effort, SEED, 1, &fault),
                         -ERANGE);
        assert_non_null(strstr(fault.text, "half-float codebook"));
        assert_non_null(strstr(fault.text, "--row-scale on"));
        quantizer_deinit(&q);

        /* With a scale the same table is fine: the unit moves it into range. */
        h.row_scale = 1;
        closeness_init(&closeness);
        assert_int_equal(quantizer_init(&q, &h, NULL, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, rows, N_ROWS, NULL, NULL, &effort, SEED, 1, &fault),
                         0);
        assert_int_equal(quantizer_encode(&q, &encoded, records, &n_bytes, &closeness, &fault), 0);
        assert_true(closeness_rel_mse(&closeness) < 0.7);
        quantizer_deinit(&q);
        free(rows);
}

/* ---- The codecs without training ---- */

static void test_scalar_codecs_decode_as_claimed(void **state) {
        static const uint32_t widths[] = { 1, 7, 63, 64, 65, 100, 384 };

        (void)state;
        for (uint32_t codec = TABLE_CODEC_F32; codec <= TABLE_CODEC_INT4; codec++)
                for (size_t w = 0; w < ARRAY_SIZE(widths); w++) {
                        struct table_header h = { .n_rows = 1,
                                                  .n_dims = widths[w],
                                                  .codec = codec };
                        struct codec_table table = { 0 };
                        float *row = random_values(widths[w], 20 + w);
                        float claimed[384], decoded[384], *scratch;
                        struct codec_record found;
                        uint8_t record[4 * 384];
                        uint32_t column;

                        assert_int_equal(table_layout_compute(&h, &table.contents.layout, NULL), 0);
                        h.record_bytes = table.contents.layout.record_bytes;
                        table.contents.header = h;
                        table.rows = record;
                        scratch = aligned_alloc(
                                64, align_up(codec_scratch_floats(&h) * sizeof(float) + 64, 64));
                        assert_int_equal(
                                scalar_encode(codec, row, widths[w], record, claimed, &column), 0);
                        found = codec_kernels_scalar.find(&table, 0);
                        codec_kernels_scalar.decode[codec](&table, &found, scratch, decoded);
                        assert_memory_equal(claimed, decoded, widths[w] * sizeof(float));
                        for (uint32_t i = 0; i < widths[w]; i++)
                                assert_true(fabsf(decoded[i] - row[i]) < 0.7f);
                        free(scratch);
                        free(row);
                }
}

static void test_f16_range(void **state) {
        const float row[3] = { 1, 65519, 65520 };
        float decoded[3];
        uint8_t record[6];
        uint32_t column = 9;

        (void)state;
        assert_int_equal(scalar_encode(TABLE_CODEC_F16, row, 2, record, decoded, &column), 0);
        assert_true(decoded[1] == 65504);
        assert_int_equal(scalar_encode(TABLE_CODEC_F16, row, 3, record, decoded, &column), -ERANGE);
        assert_int_equal(column, 2);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rvq_records),
                cmocka_unit_test(test_trellis_records),
                cmocka_unit_test(test_tiers),
                cmocka_unit_test(test_half_overflow_is_named),
                cmocka_unit_test(test_scalar_codecs_decode_as_claimed),
                cmocka_unit_test(test_f16_range),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

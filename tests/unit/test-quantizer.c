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

#include "decode-row.h"
#include "lib/codec/codec.h"
#include "lib/codec/half.h"
#include "normal-values.h"
#include "tools/carvq/quantizer.h"

#define SEED   UINT64_C(20260101)
#define N_ROWS 70u

static float *random_values(size_t n, uint64_t stream) {
        return normal_values(SEED, stream, n);
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
        uint8_t *adaptor; /* NULL: none */
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
        if (q->solver) {
                p->adaptor = aligned_alloc(
                        64, align_up(adaptor_stored_bytes(q->solver->adaptor) + 1, 64));
                assert_non_null(p->adaptor);
                adaptor_store(q->solver->adaptor, p->adaptor);
                p->table.adaptor = (const uint16_t *)(void *)p->adaptor;
        }
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
        free(p->adaptor);
        free(p->map);
}

/* Encodes, and decodes with the specification; compares with what the encoder claims. `ret_errors`
 * (NULL: nobody asks) are of the rows. Returns the sum of squared errors. */
static double encode_and_decode(const struct quantizer *q, const struct quantizer_rows *rows,
                                double *ret_errors) {
        uint32_t n_dims = q->coder.header.n_dims;
        float *decoded = malloc(n_dims * sizeof(float));
        struct closeness claimed, seen;
        struct fault fault = { 0 };
        struct packed p;

        packed_init(&p, q, rows->tiers);
        closeness_init(&claimed);
        closeness_init(&seen);
        assert_int_equal(quantizer_encode(q, rows, p.records, &p.n_bytes, &claimed, &fault), 0);
        assert_true(p.n_bytes == q->coder.layout.rows_bytes);
        for (uint64_t r = 0; r < N_ROWS; r++) {
                struct codec_record record = codec_kernels_scalar.find(&p.table, r);
                struct closeness row;

                decode_row(&codec_kernels_scalar, &p.table, &record, decoded);
                closeness_init(&row);
                closeness_add_row(&row, rows->rows + r * n_dims, decoded, n_dims);
                closeness_add_row(&seen, rows->rows + r * n_dims, decoded, n_dims);
                if (ret_errors)
                        ret_errors[r] = row.error;
        }
        /* Both add the same numbers in the same order: equal to the last bit. With hidden layers
         * the encoder's sums are in another order (FORMAT.md, "Decoding"). */
        if (q->solver && q->solver->adaptor->n_layers > 1)
                assert_true(fabs(claimed.error - seen.error) < 1e-3 * seen.error);
        else
                assert_true(claimed.error == seen.error &&
                            claimed.max_abs_error == seen.max_abs_error);
        free(decoded);
        packed_deinit(&p);
        return seen.error;
}

static double energy(const float *values, size_t n) {
        double sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += (double)values[i] * (double)values[i];
        return sum;
}

static double check_table(struct table_header h, const uint8_t *tiers) {
        float *rows = random_values((size_t)N_ROWS * h.n_dims, 9 + h.n_dims);
        struct quantizer_rows encoded = { rows, N_ROWS, 0, tiers };
        struct fault fault = { 0 };
        struct quantizer q;
        double error;

        assert_int_equal(quantizer_init(&q, &h, NULL, ADAPTOR_BEFORE, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, &encoded, NULL, &effort, SEED, 2, &fault), 0);
        error = encode_and_decode(&q, &encoded, NULL) / energy(rows, (size_t)N_ROWS * h.n_dims);
        quantizer_deinit(&q);
        free(rows);
        return error;
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

/* ---- Orders of the adaptor ---- */

#define N_AXES 3u

/* Rows with three strong directions in common, and a mean. */
static float *rows_in_common(uint32_t n_dims) {
        float *rows = random_values((size_t)N_ROWS * n_dims, 30);
        float *axes = random_values((N_AXES + 1) * (size_t)n_dims, 31);
        float *at = random_values(N_ROWS * N_AXES, 32);

        for (size_t r = 0; r < N_ROWS; r++)
                for (size_t d = 0; d < n_dims; d++) {
                        float value = axes[N_AXES * n_dims + d];

                        for (size_t i = 0; i < N_AXES; i++)
                                value += at[r * N_AXES + i] * axes[i * n_dims + d];
                        rows[r * n_dims + d] += value;
                }
        free(axes);
        free(at);
        return rows;
}

static void fit_to_rows(struct adaptor_fit *fit, const struct table_header *h, const float *rows) {
        *fit = (struct adaptor_fit){
                .shape = { .latent_dims = h->latent_dims,
                           .hidden_dims = { h->hidden_dims[0], h->hidden_dims[1] },
                           .n_dims = h->n_dims,
                           .latent_bits = h->latent_bits,
                           .type = h->adaptor_type },
                .effort = { .n_epochs = 3, .patience = 3 },
                .seed = SEED,
        };
        assert_int_equal(adaptor_fit_make(fit, rows, N_ROWS, 2), 0);
}

/* One of each kind of codes and of adaptor. */
static struct table_header header_with_adaptor(uint32_t kind) {
        struct table_header h =
                kind & 1 ? make_header(101, 1, 6, 8, 4, 1000) : make_header(101, 2, 4, 4, 8, 64);

        h.row_scale = kind >> 1 & 1;
        h.col_scale = kind & 1;
        h.adaptor_type = kind >> 2 == 2 ? TABLE_ADAPTOR_INT8 : TABLE_ADAPTOR_HALF;
        h.latent_dims = kind >> 2 == 0 ? 0 : N_AXES;
        h.latent_bits = h.latent_dims ? 8 : 0;
        h.hidden_dims[0] = kind >> 2 == 2 ? 9 : 0;
        return h;
}

#define N_KINDS 12u

/* What codes leave is the row less what they decode to, and the sum of errors the encoder's own. */
static void check_leftovers(const struct quantizer *q, const struct quantizer_rows *rows,
                            double error) {
        size_t n = (size_t)N_ROWS * q->coder.header.n_dims;
        float *left = malloc(n * sizeof(float)), *latents, *outputs;
        struct closeness claimed;
        double solved;

        assert_int_equal(quantizer_leftovers(q, rows, 2, left, &claimed, NULL), 0);
        assert_true(fabs(claimed.error - error) < 1e-3 * error);
        if (q->order != ADAPTOR_AFTER) {
                free(left);
                return;
        }
        /* After the codes the row's error is what the solver leaves of that, and nothing else. */
        latents = malloc(N_ROWS * (q->coder.header.latent_dims + 1) * sizeof(float));
        outputs = malloc(n * sizeof(float));
        assert_int_equal(adaptor_solve(q->solver, left, N_ROWS, latents, outputs), 0);
        for (size_t i = 0; i < n; i++)
                left[i] -= outputs[i];
        solved = energy(left, n);
        assert_true(fabs(solved - error) < 1e-3 * error);
        free(left);
        free(latents);
        free(outputs);
}

static void test_orders_decode_as_claimed(void **state) {
        (void)state;
        for (uint32_t kind = 0; kind < N_KINDS; kind++)
                for (uint32_t order = ADAPTOR_BEFORE; order <= ADAPTOR_ALTERNATE; order++) {
                        struct table_header h = header_with_adaptor(kind);
                        float *rows = rows_in_common(h.n_dims);
                        struct quantizer_rows encoded = { rows, N_ROWS, 0, NULL };
                        struct fault fault = { 0 };
                        struct adaptor_fit fit;
                        struct quantizer q;
                        double error;

                        fit_to_rows(&fit, &h, rows);
                        assert_int_equal(quantizer_init(&q, &h, &fit.solver, order, 0, &fault), 0);
                        assert_int_equal(
                                quantizer_train(&q, &encoded, &fit, &effort, SEED, 2, &fault), 0);
                        error = encode_and_decode(&q, &encoded, NULL);
                        assert_true(error < 0.5 * energy(rows, (size_t)N_ROWS * h.n_dims));
                        check_leftovers(&q, &encoded, error);
                        quantizer_deinit(&q);
                        adaptor_fit_deinit(&fit);
                        free(rows);
                }
}

/* What alternation begins with, if `effort` is all there is. */
static const struct coder_effort start_effort = {
        .rvq = { .lloyd_passes = 3, .joint_passes = 1 },
        .trellis = { .n_passes = 2 },
        .n_subvectors = 4096,
};

/* No row is worse than with the same codebooks before; no sample than with its first codebooks. */
static void test_alternation_never_raises_errors(void **state) {
        uint32_t n_better = 0;

        (void)state;
        for (uint32_t kind = 0; kind < N_KINDS; kind++) {
                struct table_header h = header_with_adaptor(kind);
                float *rows = rows_in_common(h.n_dims);
                struct quantizer_rows encoded = { rows, N_ROWS, 0, NULL };
                double before[N_ROWS], alternated[N_ROWS], start, frozen, refitted;
                struct fault fault = { 0 };
                struct adaptor_fit fit;
                struct quantizer q;

                fit_to_rows(&fit, &h, rows);
                assert_int_equal(quantizer_init(&q, &h, &fit.solver, ADAPTOR_BEFORE, 0, &fault), 0);
                assert_int_equal(
                        quantizer_train(&q, &encoded, NULL, &start_effort, SEED, 2, &fault), 0);
                encode_and_decode(&q, &encoded, before);
                q.order = ADAPTOR_ALTERNATE;
                start = encode_and_decode(&q, &encoded, alternated);
                for (uint32_t r = 0; r < N_ROWS; r++) {
                        /* Hidden layers: up to the order of sums. */
                        double slack = h.hidden_dims[0] ? 1e-4 : 1e-9;

                        assert_true(alternated[r] <= before[r] * (1 + slack));
                        n_better += alternated[r] < before[r] * (1 - slack);
                }
                assert_int_equal(quantizer_train(&q, &encoded, NULL, &effort, SEED, 2, &fault), 0);
                frozen = encode_and_decode(&q, &encoded, NULL);
                assert_int_equal(quantizer_train(&q, &encoded, &fit, &effort, SEED, 2, &fault), 0);
                refitted = encode_and_decode(&q, &encoded, NULL);
                assert_true(frozen <= start * (1 + 1e-4) && refitted <= start * (1 + 1e-4));
                quantizer_deinit(&q);
                adaptor_fit_deinit(&fit);
                free(rows);
        }
        /* With latents to solve again it finds something, nearly everywhere. */
        assert_true(n_better > N_ROWS * N_KINDS / 2);
}

/* An adaptor that is much worse once it is fitted again, since it is not given the time. */
static void test_a_round_that_raises_errors_is_undone(void **state) {
        struct table_header h = header_with_adaptor(4);
        float *rows = rows_in_common(h.n_dims), *left;
        struct quantizer_rows encoded = { rows, N_ROWS, 0, NULL };
        struct fault fault = { 0 };
        struct adaptor_fit fit;
        struct quantizer q;
        struct closeness start, end;

        (void)state;
        left = malloc((size_t)N_ROWS * h.n_dims * sizeof(float));
        h.hidden_dims[0] = 1;
        fit_to_rows(&fit, &h, rows);
        fit.effort.n_epochs = fit.effort.patience = 300;
        assert_int_equal(adaptor_fit_make(&fit, rows, N_ROWS, 2), 0);
        assert_int_equal(quantizer_init(&q, &h, &fit.solver, ADAPTOR_BEFORE, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, &encoded, NULL, &start_effort, SEED, 2, &fault), 0);
        q.order = ADAPTOR_ALTERNATE;
        assert_int_equal(quantizer_leftovers(&q, &encoded, 2, left, &start, NULL), 0);
        fit.effort.n_epochs = 0;
        assert_int_equal(quantizer_train(&q, &encoded, &fit, &effort, SEED, 2, &fault), 0);
        assert_int_equal(quantizer_leftovers(&q, &encoded, 2, left, &end, NULL), 0);
        assert_true(end.error <= start.error);
        quantizer_deinit(&q);
        adaptor_fit_deinit(&fit);
        free(rows);
        free(left);
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
        assert_int_equal(quantizer_init(&q, &h, NULL, ADAPTOR_BEFORE, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, &encoded, NULL, &effort, SEED, 1, &fault), -ERANGE);
        assert_non_null(strstr(fault.text, "half-float codebook"));
        assert_non_null(strstr(fault.text, "--row-scale on"));
        quantizer_deinit(&q);

        /* With a scale the same table is fine: the unit moves it into range. */
        h.row_scale = 1;
        closeness_init(&closeness);
        assert_int_equal(quantizer_init(&q, &h, NULL, ADAPTOR_BEFORE, 0, &fault), 0);
        assert_int_equal(quantizer_train(&q, &encoded, NULL, &effort, SEED, 1, &fault), 0);
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
                        float claimed[384], decoded[384];
                        struct codec_record found;
                        uint8_t record[4 * 384];
                        uint32_t column;

                        assert_int_equal(table_layout_compute(&h, &table.contents.layout, NULL), 0);
                        h.record_bytes = table.contents.layout.record_bytes;
                        table.contents.header = h;
                        table.rows = record;
                        assert_int_equal(
                                scalar_encode(codec, row, widths[w], record, claimed, &column), 0);
                        found = codec_kernels_scalar.find(&table, 0);
                        decode_row(&codec_kernels_scalar, &table, &found, decoded);
                        assert_memory_equal(claimed, decoded, widths[w] * sizeof(float));
                        for (uint32_t i = 0; i < widths[w]; i++)
                                assert_true(fabsf(decoded[i] - row[i]) < 0.7f);
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
                cmocka_unit_test(test_orders_decode_as_claimed),
                cmocka_unit_test(test_alternation_never_raises_errors),
                cmocka_unit_test(test_a_round_that_raises_errors_is_undone),
                cmocka_unit_test(test_half_overflow_is_named),
                cmocka_unit_test(test_scalar_codecs_decode_as_claimed),
                cmocka_unit_test(test_f16_range),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

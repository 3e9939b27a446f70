/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor: its gradient against finite differences, its training, the search for latents, and
 * its bytes, of which the decoder of lib/codec is the judge.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <cblas.h>

#include "decode-row.h"
#include "lib/codec/codec.h"
#include "lib/codec/half.h"
#include "tools/carvq/adaptor.h"
#include "tools/carvq/rng.h"

#define SEED UINT64_C(20260102)

static void fill(float *values, size_t n, uint64_t stream) {
        struct rng rng = rng_stream(SEED, stream);

        for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
}

static double error_of(const struct adaptor *a, const float *targets, const float *latents,
                       size_t n_rows) {
        float *gradients = calloc(a->n_parameters, sizeof(float));
        float *latent_gradients = calloc(n_rows * a->dims[0], sizeof(float));
        double error;

        assert_int_equal(
                adaptor_gradient(a, targets, latents, n_rows, gradients, latent_gradients, &error),
                0);
        free(gradients);
        free(latent_gradients);
        return error;
}

/* Central differences on a piecewise quadratic: a step small enough not to cross a kink often. */
static unsigned count_wrong(const struct adaptor *a, const float *targets, float *latents,
                            size_t n_rows, float *values, const float *gradients, size_t n) {
        const float step = 1e-2f;
        unsigned n_wrong = 0;

        for (size_t i = 0; i < n; i++) {
                float saved = values[i];
                double up, down, slope;

                values[i] = saved + step;
                up = error_of(a, targets, latents, n_rows);
                values[i] = saved - step;
                down = error_of(a, targets, latents, n_rows);
                values[i] = saved;
                slope = (up - down) / (2 * (double)step);
                n_wrong += fabs(slope - (double)gradients[i]) > 2e-2 * (1 + fabs(slope));
        }
        return n_wrong;
}

static void check_gradient(uint32_t hidden0, uint32_t hidden1) {
        enum { N_ROWS = 5, M = 3, N = 11 };
        const struct adaptor_shape shape = { .latent_dims = M,
                                             .hidden_dims = { hidden0, hidden1 },
                                             .n_dims = N };
        float targets[N_ROWS * N], latents[N_ROWS * M], latent_gradients[N_ROWS * M];
        struct adaptor a;
        float *gradients;
        double error;
        unsigned n_wrong;

        assert_int_equal(adaptor_init(&a, &shape), 0);
        fill(a.parameters, a.n_parameters, 1);
        fill(targets, N_ROWS * N, 2);
        fill(latents, N_ROWS * M, 3);
        gradients = calloc(a.n_parameters, sizeof(float));
        assert_int_equal(
                adaptor_gradient(&a, targets, latents, N_ROWS, gradients, latent_gradients, &error),
                0);
        n_wrong =
                count_wrong(&a, targets, latents, N_ROWS, a.parameters, gradients, a.n_parameters);
        /* A few parameters sit next to a kink of some ReLU. */
        assert_true(n_wrong <= a.n_parameters / 20);
        n_wrong = count_wrong(&a, targets, latents, N_ROWS, latents, latent_gradients, N_ROWS * M);
        assert_true(n_wrong <= 2);
        free(gradients);
        adaptor_deinit(&a);
}

static void test_gradient_equals_finite_differences(void **state) {
        (void)state;
        check_gradient(0, 0);
        check_gradient(8, 0);
        check_gradient(8, 6);
}

/* Rows near a plane of two dimensions, off the origin. */
static float *planar_rows(size_t n_rows, size_t n) {
        struct rng rng = rng_stream(SEED, 4);
        float *rows = malloc(n_rows * n * sizeof(float)), *axes = malloc(3 * n * sizeof(float));

        fill(axes, 3 * n, 5);
        for (size_t r = 0; r < n_rows; r++) {
                float u = rng_normal(&rng), v = rng_normal(&rng);

                for (size_t d = 0; d < n; d++)
                        rows[r * n + d] = axes[d] + u * axes[n + d] + v * axes[2 * n + d] +
                                          0.1f * rng_normal(&rng);
        }
        free(axes);
        return rows;
}

static double energy(const float *x, size_t n) {
        double sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += (double)x[i] * (double)x[i];
        return sum;
}

/* Relative error of the rows after training and solving. */
static double train_and_solve(const float *rows, size_t n_rows, const struct adaptor_shape *shape,
                              uint32_t n_epochs, unsigned n_threads, uint64_t *ret_hash) {
        const struct adaptor_effort effort = { n_epochs, 3 };
        size_t n = n_rows * shape->n_dims;
        float *latents = malloc(n_rows * shape->latent_dims * sizeof(float));
        float *outputs = malloc(n * sizeof(float));
        struct adaptor_solver solver;
        struct adaptor a;
        double error = 0;

        assert_int_equal(adaptor_train(rows, n_rows, shape, &effort, SEED, n_threads, &a, &solver),
                         0);
        assert_int_equal(adaptor_solve(&solver, rows, n_rows, latents, outputs), 0);
        for (size_t i = 0; i < n; i++)
                error += (double)(rows[i] - outputs[i]) * (double)(rows[i] - outputs[i]);
        *ret_hash = 0;
        for (size_t i = 0; i < a.n_parameters; i++) {
                uint32_t bits;

                memcpy(&bits, &a.parameters[i], sizeof(bits));
                *ret_hash = rng_mix(*ret_hash + bits);
        }
        adaptor_solver_deinit(&solver);
        adaptor_deinit(&a);
        free(latents);
        free(outputs);
        return error / energy(rows, n);
}

static void test_training_finds_a_plane(void **state) {
        const struct adaptor_shape shapes[] = {
                { .latent_dims = 2, .n_dims = 40 },
                { .latent_dims = 2, .hidden_dims = { 8 }, .n_dims = 40 },
                { .latent_dims = 2, .hidden_dims = { 8, 8 }, .n_dims = 40 },
                { .latent_dims = 2, .n_dims = 40, .latent_bits = 8, .type = TABLE_ADAPTOR_INT8 },
                { .latent_dims = 2,
                  .hidden_dims = { 8, 8 },
                  .n_dims = 40,
                  .latent_bits = 8,
                  .type = TABLE_ADAPTOR_INT8 },
                { .latent_dims = 3, .hidden_dims = { 3 }, .n_dims = 40 },
        };
        const size_t last = ARRAY_SIZE(shapes) - 1;
        float *rows = planar_rows(1500, 40);
        uint64_t hash;

        (void)state;
        for (size_t i = 0; i < last; i++)
                assert_true(train_and_solve(rows, 1500, &shapes[i], 4, 2, &hash) < 0.01);
        /* Too few hidden units for the affine start: still better than nothing. */
        assert_true(train_and_solve(rows, 1500, &shapes[last], 4, 2, &hash) < 0.9);
        free(rows);
}

/* A bent line: one latent and no hidden layer cannot follow it, ReLU units can. */
static void test_training_improves_on_affine(void **state) {
        enum { N_ROWS = 4000, N = 24 };
        float *rows = malloc(N_ROWS * N * sizeof(float)), axes[2 * N];
        struct adaptor_shape shape = { .latent_dims = 1, .hidden_dims = { 16 }, .n_dims = N };
        struct rng rng = rng_stream(SEED, 6);
        double affine, trained, coarse;
        uint64_t hash;

        (void)state;
        fill(axes, 2 * N, 7);
        for (size_t r = 0; r < N_ROWS; r++) {
                float u = rng_normal(&rng);

                for (size_t d = 0; d < N; d++)
                        rows[r * N + d] =
                                u * axes[d] + fabsf(u) * axes[N + d] + 0.1f * rng_normal(&rng);
        }
        affine = train_and_solve(rows, N_ROWS, &shape, 0, 2, &hash);
        trained = train_and_solve(rows, N_ROWS, &shape, 30, 2, &hash);
        assert_true(trained < 0.7 * affine);
        shape.latent_bits = 8;
        shape.type = TABLE_ADAPTOR_INT8;
        coarse = train_and_solve(rows, N_ROWS, &shape, 30, 2, &hash);
        print_message("# affine %.4f, trained %.4f, of 8 bits %.4f\n", affine, trained, coarse);
        assert_true(coarse < 1.05 * trained);
        free(rows);
}

static void test_training_ignores_thread_count(void **state) {
        const struct adaptor_shape shape = { .latent_dims = 2, .hidden_dims = { 8 }, .n_dims = 40 };
        float *rows = planar_rows(3000, 40);
        uint64_t hashes[3];

        (void)state;
        for (unsigned i = 0; i < 3; i++)
                train_and_solve(rows, 3000, &shape, 3, i + 1, &hashes[i]);
        assert_true(hashes[0] == hashes[1] && hashes[0] == hashes[2]);
        free(rows);
}

/* With random weights and no first guess: every row must end below where zero latents leave it. */
static void check_solve(uint32_t hidden0, uint32_t hidden1) {
        enum { N_ROWS = 200, M = 3, N = 30 };
        const struct adaptor_shape shape = { .latent_dims = M,
                                             .hidden_dims = { hidden0, hidden1 },
                                             .n_dims = N };
        float targets[N_ROWS * N], latents[N_ROWS * M], outputs[N_ROWS * N], zero[M] = { 0 };
        struct adaptor_solver solver;
        struct adaptor a;
        double total = 0, total_zero = 0;

        assert_int_equal(adaptor_init(&a, &shape), 0);
        fill(a.parameters, a.n_parameters, 8);
        fill(targets, N_ROWS * N, 9);
        assert_int_equal(adaptor_round(&a, TABLE_ADAPTOR_HALF), 0);
        assert_int_equal(adaptor_solver_init(&solver, &a, NULL, NULL, 0), 0);
        assert_int_equal(adaptor_solve(&solver, targets, N_ROWS, latents, outputs), 0);
        for (size_t r = 0; r < N_ROWS; r++) {
                double before = error_of(&a, targets + r * N, zero, 1);
                double after = error_of(&a, targets + r * N, latents + r * M, 1), output = 0;

                for (size_t d = 0; d < N; d++)
                        output += pow((double)(targets[r * N + d] - outputs[r * N + d]), 2);
                assert_true(fabs(output - after) < 1e-3 * (1 + after));
                assert_true(after <= before * (1 + 1e-2));
                total += after;
                total_zero += before;
        }
        assert_true(total < 0.95 * total_zero);
        adaptor_solver_deinit(&solver);
        adaptor_deinit(&a);
}

static void test_solving_lowers_the_error(void **state) {
        (void)state;
        check_solve(0, 0);
        check_solve(12, 0);
        check_solve(10, 9);
}

/* ---- Bytes ---- */

/* No weight moves by more than half its output's scale, and small ones are not clipped. */
static void test_int8_weights_are_nearest(void **state) {
        enum { M = 5, N = 40 };
        const struct adaptor_shape shape = { .latent_dims = M, .n_dims = N };
        float before[M * N];
        struct adaptor a;

        (void)state;
        assert_int_equal(adaptor_init(&a, &shape), 0);
        fill(a.parameters, a.n_parameters, 17);
        for (size_t i = 0; i < M * N; i++) /* down to where the scale is a subnormal half, and 0 */
                a.weights[0][i] *= i % N == N - 1 ? 0 : powf(2, -(float)(i % N) / 2);
        memcpy(before, a.weights[0], sizeof(before));
        assert_int_equal(adaptor_round(&a, TABLE_ADAPTOR_INT8), 0);
        for (size_t o = 0; o < N; o++) {
                float scale = a.scales[0][o], largest = 0;

                for (size_t i = 0; i < M; i++) {
                        float found = a.weights[0][i * N + o], moved = found - before[i * N + o];

                        assert_true(fabsf(moved) <= 0.501f * scale);
                        assert_true(found == 0 || found / scale == rintf(found / scale));
                        largest = MAX(largest, fabsf(before[i * N + o]));
                }
                assert_true(scale == half_to_float(float_to_half(scale)));
                assert_true(scale <= largest / 127 * 1.001f + 0x1p-24f);
        }
        a.weights[0][0] = INFINITY;
        assert_int_equal(adaptor_round(&a, TABLE_ADAPTOR_INT8), -ERANGE);
        a.weights[0][0] = 1e8f;
        assert_int_equal(adaptor_round(&a, TABLE_ADAPTOR_INT8), -ERANGE);
        adaptor_deinit(&a);
}

static void store_latent(const struct adaptor *a, const float *latent, uint8_t *at) {
        for (size_t i = 0; i < a->dims[0]; i++)
                if (a->latent_bits == 8) {
                        at[i] = (uint8_t)(int8_t)latent[i];
                } else {
                        uint16_t half = float_to_half(latent[i]);

                        memcpy(at + 2 * i, &half, sizeof(half));
                }
}

/* A row of zero codebooks: the decoder yields the adaptor's output and nothing else. */
static void decode_adaptor(const struct adaptor *a, const float *latent, float *ret_values) {
        struct codec_table t = { .contents.header = {
                                         .codec = TABLE_CODEC_CARVQ,
                                         .n_rows = 1,
                                         .n_dims = a->dims[a->n_layers],
                                         .codebook_bits = 1,
                                         .subvector_dims = 1,
                                         .group_cols = TABLE_DIMS_MAX,
                                         .group_rows = 1,
                                         .latent_dims = a->dims[0],
                                         .hidden_dims = { a->n_layers > 1 ? a->dims[1] : 0,
                                                          a->n_layers > 2 ? a->dims[2] : 0 },
                                         .adaptor_type = a->type,
                                         .latent_bits = a->dims[0] ? a->latent_bits : 0 } };
        struct table_header *h = &t.contents.header;
        struct codec_record record;
        uint8_t *chunk, *row;

        table_set_one_tier(h, 1);
        assert_int_equal(table_layout_compute(h, &t.contents.layout, NULL), 0);
        assert_int_equal(t.contents.layout.adaptor_bytes, adaptor_stored_bytes(a));
        chunk = malloc(adaptor_stored_bytes(a)); /* exactly: the sanitizer watches its end */
        row = calloc(1, t.contents.layout.rows_bytes);
        adaptor_store(a, chunk);
        store_latent(a, latent, row);
        t.rows = row;
        t.adaptor = (const void *)chunk;
        t.codebooks = calloc(1, t.contents.layout.codebook_bytes);
        record = codec_kernels_scalar.find(&t, 0);
        decode_row(&codec_kernels_scalar, &t, &record, ret_values);
        free((void *)t.codebooks);
        free(chunk);
        free(row);
}

static void check_bytes(const struct adaptor_shape *shape) {
        enum { N_ROWS = 20, N_MAX = 64, M_MAX = 4 };
        float targets[N_ROWS * N_MAX], outputs[N_ROWS * N_MAX], latents[N_ROWS * M_MAX];
        size_t n = shape->n_dims, m = shape->latent_dims;
        struct adaptor_solver solver;
        struct adaptor a;

        assert_int_equal(adaptor_init(&a, shape), 0);
        fill(a.parameters, a.n_parameters, 18);
        fill(targets, N_ROWS * n, 19);
        assert_int_equal(adaptor_round(&a, a.type), 0);
        assert_int_equal(adaptor_solver_init(&solver, &a, NULL, NULL, 0), 0);
        assert_int_equal(adaptor_solve(&solver, targets, N_ROWS, latents, outputs), 0);
        for (size_t r = 0; r < N_ROWS; r++) {
                float decoded[N_MAX];

                decode_adaptor(&a, latents + r * m, decoded);
                for (size_t d = 0; d < n; d++)
                        assert_true(fabsf(decoded[d] - outputs[r * n + d]) <=
                                    1e-4f * (1 + fabsf(decoded[d])));
                /* An affine adaptor of halves adds up in the decoder's order. */
                if (a.n_layers == 1 && a.type == TABLE_ADAPTOR_HALF)
                        assert_memory_equal(decoded, outputs + r * n, n * sizeof(float));
        }
        adaptor_solver_deinit(&solver);
        adaptor_deinit(&a);
}

static void test_decoder_sees_what_the_solver_saw(void **state) {
        const struct adaptor_shape shapes[] = {
                { .n_dims = 17 },
                { .latent_dims = 3, .n_dims = 17 }, /* an odd number of weights */
                { .latent_dims = 4, .n_dims = 64 },
                { .latent_dims = 3, .hidden_dims = { 7 }, .n_dims = 33 },
                { .latent_dims = 3, .hidden_dims = { 7, 5 }, .n_dims = 33 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
                for (uint32_t bits = 8; bits <= 16; bits += 8)
                        for (unsigned type = TABLE_ADAPTOR_HALF; type <= TABLE_ADAPTOR_INT8;
                             type++) {
                                struct adaptor_shape shape = shapes[i];

                                shape.latent_bits = bits;
                                shape.type = (enum table_adaptor)type;
                                check_bytes(&shape);
                        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_gradient_equals_finite_differences),
                cmocka_unit_test(test_training_finds_a_plane),
                cmocka_unit_test(test_training_improves_on_affine),
                cmocka_unit_test(test_training_ignores_thread_count),
                cmocka_unit_test(test_solving_lowers_the_error),
                cmocka_unit_test(test_int8_weights_are_nearest),
                cmocka_unit_test(test_decoder_sees_what_the_solver_saw),
        };

        openblas_set_num_threads(1);
        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

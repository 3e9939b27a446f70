/* SPDX-License-Identifier: Apache-2.0 */
/* Principal components against planted ones, and the affine adaptors that are made of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tools/carvq/adaptor.h"
#include "tools/carvq/rng.h"

#define SEED UINT64_C(20260103)

static void fill(float *values, size_t n, uint64_t stream) {
        struct rng rng = rng_stream(SEED, stream);

        for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
}

static double energy(const float *x, size_t n) {
        double sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += (double)x[i] * (double)x[i];
        return sum;
}

static double inner(const float *x, const float *y, size_t n) {
        double sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += (double)x[i] * (double)y[i];
        return sum;
}

enum { N_PLANTED = 3 };

/* Rows that vary by 4, 2 and 1 along the first three `axes`, and by 0.1 everywhere. */
static float *planted_rows(size_t n_rows, size_t n, float scale, float *ret_axes) {
        float *rows = malloc(n_rows * n * sizeof(float)), *offset = malloc(n * sizeof(float));
        struct rng rng = rng_stream(SEED, 10);

        fill(offset, n, 11);
        fill(ret_axes, N_PLANTED * n, 12);
        for (size_t i = 0; i < N_PLANTED; i++) {
                float *axis = ret_axes + i * n;
                double norm;

                for (size_t j = 0; j < i; j++) {
                        float product = (float)inner(axis, ret_axes + j * n, n);

                        for (size_t d = 0; d < n; d++)
                                axis[d] -= product * ret_axes[j * n + d];
                }
                norm = sqrt(energy(axis, n));
                for (size_t d = 0; d < n; d++)
                        axis[d] /= (float)norm;
        }
        for (size_t r = 0; r < n_rows; r++) {
                float z[N_PLANTED] = { 4 * rng_normal(&rng), 2 * rng_normal(&rng),
                                       rng_normal(&rng) };

                for (size_t d = 0; d < n; d++) {
                        float value = offset[d] + 0.1f * rng_normal(&rng);

                        for (size_t i = 0; i < N_PLANTED; i++)
                                value += z[i] * ret_axes[i * n + d];
                        rows[r * n + d] = scale * value;
                }
        }
        free(offset);
        return rows;
}

/* Or zero, where there is nothing. */
static void assert_orthonormal(const struct adaptor_spectrum *s) {
        for (size_t i = 0; i < s->n_components; i++)
                for (size_t j = 0; j <= i; j++) {
                        double product = inner(s->basis + i * s->n_dims, s->basis + j * s->n_dims,
                                               s->n_dims);
                        assert_true(product == 0 || fabs(product - (i == j)) < 1e-5);
                }
}

/* The axes are principal: projections on two of them have nothing in common. */
static void assert_uncorrelated(const struct adaptor_spectrum *s, const float *rows,
                                size_t n_rows) {
        size_t n = s->n_dims, m = s->n_components;
        double *moments = calloc(m * m, sizeof(double)), *at = malloc(m * sizeof(double));
        float *row = malloc(n * sizeof(float));

        for (size_t r = 0; r < n_rows; r++) {
                for (size_t d = 0; d < n; d++)
                        row[d] = rows[r * n + d] - s->means[d];
                for (size_t i = 0; i < m; i++)
                        at[i] = inner(row, s->basis + i * n, n);
                for (size_t i = 0; i < m * m; i++)
                        moments[i] += at[i / m] * at[i % m];
        }
        for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j < i; j++)
                        assert_true(fabs(moments[i * m + j]) <
                                    1e-3 * sqrt(moments[i * m + i] * moments[j * m + j]));
        free(moments);
        free(at);
        free(row);
}

/* Energies and reaches against the rows, with components taken off one by one. */
static void assert_energies(const struct adaptor_spectrum *s, const float *rows, size_t n_rows) {
        size_t n = s->n_dims;
        float *left = malloc(n_rows * n * sizeof(float));
        double unit = 1e-5 * s->energy_raw;

        assert_true(fabs(energy(rows, n_rows * n) / (double)(n_rows * n) - s->energy_raw) <= unit);
        for (size_t i = 0; i < n_rows * n; i++)
                left[i] = rows[i] - s->means[i % n];
        for (size_t i = 0; i <= s->n_components; i++) {
                double found = energy(left, n_rows * n) / (double)(n_rows * n), reach = 0;

                assert_true(s->energy[i] >= 0 && fabs(found - s->energy[i]) <= unit);
                if (i == s->n_components)
                        break;
                assert_true(s->energy[i + 1] <= s->energy[i]);
                for (size_t r = 0; r < n_rows; r++) {
                        double at = inner(left + r * n, s->basis + i * n, n);

                        reach = MAX(reach, fabs(at));
                        for (size_t d = 0; d < n; d++)
                                left[r * n + d] -= (float)at * s->basis[i * n + d];
                }
                assert_true(fabs(reach - (double)s->reach[i]) <= 1e-4 * reach);
        }
        free(left);
}

static void check_planted(size_t n_rows, size_t n, uint32_t n_components, float scale) {
        float *axes = malloc(N_PLANTED * n * sizeof(float));
        float *rows = planted_rows(n_rows, n, scale, axes);
        const double variances[] = { 16, 4, 1 };
        struct adaptor_spectrum s;

        assert_int_equal(adaptor_spectrum_fit(rows, n_rows, (uint32_t)n, n_components, SEED, 2, &s),
                         0);
        assert_int_equal(s.n_components, n_components);
        assert_orthonormal(&s);
        assert_energies(&s, rows, n_rows);
        if (n_rows <= 8192) /* of more, not all have been iterated over */
                assert_uncorrelated(&s, rows, n_rows);
        for (size_t i = 0; i < N_PLANTED; i++) {
                double gain = (s.energy[i] - s.energy[i + 1]) * (double)n;

                assert_true(fabs(inner(s.basis + i * n, axes + i * n, n)) > 0.99);
                assert_true(fabs(gain / pow((double)scale, 2) / variances[i] - 1) < 0.1);
        }
        assert_true(fabs(s.energy[N_PLANTED] / pow(0.1 * (double)scale, 2) - 1) < 0.1);
        adaptor_spectrum_deinit(&s);
        free(rows);
        free(axes);
}

static void test_spectrum_finds_planted_components(void **state) {
        (void)state;
        check_planted(2000, 150, 5, 1);
        check_planted(9001, 37, 12, 1); /* more rows than are iterated over */
        check_planted(2000, 150, 5, 0x1p-80f);
        check_planted(2000, 150, 5, 0x1p80f);
}

/* Columns of very different size: components are columns, down to one that is hardly there. */
static void test_spectrum_spans_magnitudes(void **state) {
        enum { N_ROWS = 600, N = 20, M = 5 };
        float *rows = calloc(N_ROWS * N, sizeof(float));
        struct adaptor_spectrum s;
        struct rng rng = rng_stream(SEED, 13);

        (void)state;
        for (size_t r = 0; r < N_ROWS; r++)
                for (size_t i = 0; i < 4; i++)
                        rows[r * N + 3 * i] = rng_normal(&rng) * powf(10, -(float)i);
        assert_int_equal(adaptor_spectrum_fit(rows, N_ROWS, N, M, SEED, 1, &s), 0);
        for (size_t i = 0; i < 4; i++)
                assert_true(fabsf(s.basis[i * N + 3 * i]) > 0.98f);
        /* The rows vary in no fifth direction. */
        assert_true(s.reach[4] < 1e-5f);
        adaptor_spectrum_deinit(&s);
        free(rows);
}

static void test_spectrum_ignores_thread_count(void **state) {
        enum { N_ROWS = 9000, N = 150, M = 6 };
        float *axes = malloc(N_PLANTED * N * sizeof(float));
        float *rows = planted_rows(N_ROWS, N, 1, axes);
        struct adaptor_spectrum s[3];

        (void)state;
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(adaptor_spectrum_fit(rows, N_ROWS, N, M, SEED, i + 1, &s[i]), 0);
                assert_memory_equal(s[i].means, s[0].means, N * sizeof(float));
                assert_memory_equal(s[i].basis, s[0].basis, M * N * sizeof(float));
                assert_memory_equal(s[i].energy, s[0].energy, (M + 1) * sizeof(double));
                assert_memory_equal(s[i].reach, s[0].reach, M * sizeof(float));
                assert_true(s[i].energy_raw == s[0].energy_raw);
        }
        for (unsigned i = 0; i < 3; i++)
                adaptor_spectrum_deinit(&s[i]);
        free(rows);
        free(axes);
}

/* Mean square of what the adaptor leaves of the rows. */
static double left_by(const struct adaptor_solver *solver, const float *rows, size_t n_rows,
                      float *ret_latents, float *ret_outputs) {
        size_t n = n_rows * solver->adaptor->dims[1];
        double sum = 0;

        assert_int_equal(adaptor_solve(solver, rows, n_rows, ret_latents, ret_outputs), 0);
        for (size_t i = 0; i < n; i++)
                sum += pow((double)(rows[i] - ret_outputs[i]), 2);
        return sum / (double)n;
}

/* The latent is the best up to half a step: what is left has less than half of one in it. */
static void assert_nearest(const struct adaptor *a, const float *rows, const float *latents,
                           const float *outputs, size_t n_rows) {
        size_t m = a->dims[0], n = a->dims[1];
        float *left = malloc(n * sizeof(float));

        for (size_t r = 0; r < n_rows; r++) {
                for (size_t d = 0; d < n; d++)
                        left[d] = rows[r * n + d] - outputs[r * n + d];
                for (size_t i = 0; i < m; i++) {
                        const float *weights = a->weights[0] + i * n;
                        double steps = inner(left, weights, n) / energy(weights, n);
                        float latent = latents[r * m + i];

                        assert_true(latent == rintf(latent) && fabsf(latent) <= 127);
                        assert_true(fabs(steps) < 0.51);
                }
        }
        free(left);
}

static void test_linear_latents_are_nearest(void **state) {
        enum { N_ROWS = 1000, N = 150, M = 4 };
        float *axes = malloc(N_PLANTED * N * sizeof(float));
        float *rows = planted_rows(N_ROWS, N, 1, axes);
        float *latents = malloc(N_ROWS * M * sizeof(float));
        float *outputs = malloc(N_ROWS * N * sizeof(float));
        struct adaptor_spectrum s;

        (void)state;
        assert_int_equal(adaptor_spectrum_fit(rows, N_ROWS, N, M, SEED, 2, &s), 0);
        for (uint32_t m = 0; m <= M; m++)
                for (uint32_t bits = 8; bits <= 16; bits += 8) {
                        struct adaptor_solver solver;
                        struct adaptor a;
                        double left;

                        assert_int_equal(adaptor_make_linear(&s, m, bits, &a, &solver), 0);
                        left = left_by(&solver, rows, N_ROWS, latents, outputs);
                        assert_true(left < s.energy[m] * 1.05 && left > s.energy[m] * 0.999);
                        if (bits == 8)
                                assert_nearest(&a, rows, latents, outputs, N_ROWS);
                        else
                                assert_true(left < s.energy[m] * 1.0001);
                        adaptor_solver_deinit(&solver);
                        adaptor_deinit(&a);
                }
        adaptor_spectrum_deinit(&s);
        free(latents);
        free(outputs);
        free(rows);
        free(axes);
}

/* Weights that are far from orthogonal: still the least squares. */
static void test_linear_solves_least_squares(void **state) {
        enum { N_ROWS = 50, M = 3, N = 9 };
        const struct adaptor_shape shape = { .latent_dims = M, .n_dims = N };
        float rows[N_ROWS * N], latents[N_ROWS * M], outputs[N_ROWS * N], left[N];
        struct adaptor_solver solver;
        struct adaptor a;

        (void)state;
        assert_int_equal(adaptor_init(&a, &shape), 0);
        fill(a.parameters, a.n_parameters, 14);
        for (size_t d = 0; d < N; d++)
                a.weights[0][N + d] = a.weights[0][d] + 0.1f * a.weights[0][N + d];
        fill(rows, N_ROWS * N, 15);
        assert_int_equal(adaptor_round(&a, TABLE_ADAPTOR_HALF), 0);
        assert_int_equal(adaptor_solver_init(&solver, &a, NULL, NULL, 0), 0);
        assert_int_equal(adaptor_solve(&solver, rows, N_ROWS, latents, outputs), 0);
        for (size_t r = 0; r < N_ROWS; r++) {
                for (size_t d = 0; d < N; d++)
                        left[d] = rows[r * N + d] - outputs[r * N + d];
                for (size_t i = 0; i < M; i++)
                        assert_true(fabs(inner(left, a.weights[0] + i * N, N)) < 0.1);
        }
        adaptor_solver_deinit(&solver);
        adaptor_deinit(&a);
}

/* Rows that leave nothing to catch, or fewer directions than are asked for. */
static void check_degenerate(const float *rows, size_t n_rows, uint32_t n, uint32_t n_components) {
        float *latents = malloc(n_rows * n_components * sizeof(float));
        float *outputs = malloc(n_rows * n * sizeof(float));
        double unit = 1e-3 * (energy(rows, n_rows * n) + 1e-30) / (double)(n_rows * n);
        struct adaptor_spectrum s;

        assert_int_equal(adaptor_spectrum_fit(rows, n_rows, n, n_components, SEED, 2, &s), 0);
        assert_int_equal(s.n_components, MIN(n, n_components));
        assert_true(s.energy[s.n_components] <= unit);
        assert_orthonormal(&s);
        for (uint32_t bits = 8; bits <= 16; bits += 8) {
                struct adaptor_solver solver;
                struct adaptor a;

                assert_int_equal(adaptor_make_linear(&s, s.n_components, bits, &a, &solver), 0);
                assert_true(left_by(&solver, rows, n_rows, latents, outputs) <= unit);
                for (size_t i = 0; i < n_rows * s.n_components; i++)
                        assert_true(isfinite(latents[i]));
                adaptor_solver_deinit(&solver);
                adaptor_deinit(&a);
        }
        adaptor_spectrum_deinit(&s);
        free(latents);
        free(outputs);
}

static void test_linear_on_degenerate_rows(void **state) {
        enum { N_ROWS = 300, N = 19 };
        float rows[N_ROWS * N] = { 0 };

        (void)state;
        check_degenerate(rows, N_ROWS, N, 4);
        for (size_t i = 0; i < N_ROWS * N; i++)
                rows[i] = 0.1f * (float)(i % N) - 1;
        check_degenerate(rows, N_ROWS, N, 4); /* all the same */
        fill(rows, N_ROWS * N, 16);
        check_degenerate(rows, 1, N, 4);
        for (size_t i = 0; i < 100; i++)
                check_degenerate(rows + 2 * N * i, 2, N, 4);
        check_degenerate(rows, N_ROWS, 3, 3);
        check_degenerate(rows, N_ROWS, 1, 64);
        for (size_t i = 0; i < N_ROWS; i++)
                rows[i * N + N - 1] = rows[i * N];
        check_degenerate(rows, N_ROWS, N, N); /* one direction less than dimensions */
}

static void test_linear_refuses_what_half_cannot_hold(void **state) {
        float rows[] = { 1e5f, 0, 1, 3e5f, 2, 1 };
        struct adaptor_solver solver;
        struct adaptor_spectrum s;
        struct adaptor a;

        (void)state;
        assert_int_equal(adaptor_spectrum_fit(rows, 2, 3, 1, SEED, 1, &s), 0);
        assert_int_equal(adaptor_make_linear(&s, 0, 0, &a, &solver), -ERANGE);
        assert_int_equal(adaptor_make_linear(&s, 1, 8, &a, &solver), -ERANGE);
        adaptor_spectrum_deinit(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_spectrum_finds_planted_components),
                cmocka_unit_test(test_spectrum_spans_magnitudes),
                cmocka_unit_test(test_spectrum_ignores_thread_count),
                cmocka_unit_test(test_linear_latents_are_nearest),
                cmocka_unit_test(test_linear_solves_least_squares),
                cmocka_unit_test(test_linear_on_degenerate_rows),
                cmocka_unit_test(test_linear_refuses_what_half_cannot_hold),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The adaptor: its gradient against finite differences, its training, the search for latents. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <cblas.h>

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
        const struct adaptor_shape shape = { M, { hidden0, hidden1 }, N };
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
                { 2, { 0, 0 }, 40 },
                { 2, { 8, 0 }, 40 },
                { 2, { 8, 8 }, 40 },
                { 3, { 3, 0 }, 40 },
        };
        float *rows = planar_rows(1500, 40);
        uint64_t hash;

        (void)state;
        for (size_t i = 0; i < 3; i++)
                assert_true(train_and_solve(rows, 1500, &shapes[i], 4, 2, &hash) < 0.01);
        /* Too few hidden units for the affine start: still better than nothing. */
        assert_true(train_and_solve(rows, 1500, &shapes[3], 4, 2, &hash) < 0.9);
        free(rows);
}

/* A bent line: one latent and no hidden layer cannot follow it, ReLU units can. */
static void test_training_improves_on_affine(void **state) {
        enum { N_ROWS = 4000, N = 24 };
        float *rows = malloc(N_ROWS * N * sizeof(float)), axes[2 * N];
        struct adaptor_shape shape = { 1, { 16, 0 }, N };
        struct rng rng = rng_stream(SEED, 6);
        double affine, trained;
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
        print_message("# affine %.4f, trained %.4f\n", affine, trained);
        assert_true(trained < 0.7 * affine);
        free(rows);
}

static void test_training_ignores_thread_count(void **state) {
        const struct adaptor_shape shape = { 2, { 8, 0 }, 40 };
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
        const struct adaptor_shape shape = { M, { hidden0, hidden1 }, N };
        float targets[N_ROWS * N], latents[N_ROWS * M], outputs[N_ROWS * N], zero[M] = { 0 };
        struct adaptor_solver solver;
        struct adaptor a;
        double total = 0, total_zero = 0;

        assert_int_equal(adaptor_init(&a, &shape), 0);
        fill(a.parameters, a.n_parameters, 8);
        fill(targets, N_ROWS * N, 9);
        assert_int_equal(adaptor_round(&a), 0);
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

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_gradient_equals_finite_differences),
                cmocka_unit_test(test_training_finds_a_plane),
                cmocka_unit_test(test_training_improves_on_affine),
                cmocka_unit_test(test_training_ignores_thread_count),
                cmocka_unit_test(test_solving_lowers_the_error),
        };

        openblas_set_num_threads(1);
        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

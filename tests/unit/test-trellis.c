/* SPDX-License-Identifier: Apache-2.0 */
/* Trellis codes: the search against brute force, training, and the bits of a path. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tools/carvq/rng.h"
#include "tools/carvq/trellis.h"

#define SEED UINT64_C(20260202)

static float *random_values(size_t n, uint64_t stream) {
        struct rng rng = rng_stream(SEED, stream);
        float *values = malloc(n * sizeof(float));

        assert_non_null(values);
        for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
        return values;
}

static float *random_centroids(const struct trellis_shape *shape, uint64_t stream) {
        return random_values(trellis_n_groups(shape) * trellis_group_floats(shape), stream);
}

static double path_error(const struct trellis_shape *shape, const float *centroids,
                         const uint16_t *states, const float *x, const float *weights) {
        float decoded[64];
        double sum = 0;

        trellis_decode(shape, centroids, states, decoded);
        for (uint32_t i = 0; i < shape->n_dims; i++)
                sum += (weights ? (double)weights[i] : 1) * ((double)x[i] - (double)decoded[i]) *
                       ((double)x[i] - (double)decoded[i]);
        return sum;
}

/* All streams of bits, one after another. */
static double brute_force(const struct trellis_shape *shape, const float *centroids, const float *x,
                          const float *weights, uint32_t code_bits) {
        uint32_t n = trellis_n_subvectors(shape), mask = (1u << shape->window_bits) - 1;
        uint32_t n_bits = shape->window_bits - code_bits + n * code_bits;
        double best = INFINITY;

        for (uint32_t stream = 0; stream < 1u << n_bits; stream++) {
                uint16_t states[16];

                for (uint32_t j = 0; j < n; j++)
                        states[j] = (uint16_t)(stream >> (n - 1 - j) * code_bits & mask);
                best = fmin(best, path_error(shape, centroids, states, x, weights));
        }
        return best;
}

static void test_search_equals_brute_force(void **state) {
        static const struct {
                uint32_t window, h, n_dims, group_cols, code_bits;
        } cases[] = {
                { 5, 1, 6, 100, 1 }, { 5, 2, 7, 100, 2 }, { 6, 4, 9, 2, 4 },   { 5, 3, 9, 1, 3 },
                { 5, 2, 4, 100, 5 }, { 7, 4, 9, 100, 5 }, { 9, 2, 3, 100, 1 }, { 6, 8, 3, 100, 6 },
        };

        (void)state;
        for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
                for (uint64_t i = 0; i < 20; i++) {
                        struct trellis_shape shape = { cases[c].window, cases[c].h, cases[c].n_dims,
                                                       cases[c].group_cols };
                        float *centroids = random_centroids(&shape, 100 * c + i);
                        float *x = random_values(shape.n_dims, 5000 + 100 * c + i);
                        float *weights = random_values(shape.n_dims, 9000 + 100 * c + i);
                        struct trellis_scratch scratch;
                        uint16_t states[16];

                        for (uint32_t d = 0; d < shape.n_dims; d++)
                                weights[d] *= weights[d];
                        assert_int_equal(trellis_scratch_init(&scratch, &shape, cases[c].code_bits),
                                         0);
                        for (int weighted = 0; weighted < 2; weighted++) {
                                const float *w = weighted ? weights : NULL;
                                double best =
                                        brute_force(&shape, centroids, x, w, cases[c].code_bits);

                                trellis_encode(&shape, centroids, &scratch, x, w,
                                               cases[c].code_bits, states);
                                for (uint32_t j = 1; j < trellis_n_subvectors(&shape); j++)
                                        assert_int_equal(states[j] >> cases[c].code_bits,
                                                         states[j - 1] &
                                                                 ((1u << (shape.window_bits -
                                                                          cases[c].code_bits)) -
                                                                  1));
                                assert_true(path_error(&shape, centroids, states, x, w) <=
                                            best * (1 + 1e-5) + 1e-6);
                        }
                        trellis_scratch_deinit(&scratch);
                        free(centroids);
                        free(x);
                        free(weights);
                }
}

/* As FORMAT.md reads them: window j is bits k j ... k j + S - 1, the first least significant. */
static void test_packed_bits_read_back(void **state) {
        static const uint32_t shapes[][3] = { { 12, 6, 33 }, { 5, 5, 7 }, { 16, 12, 9 },
                                              { 8, 1, 20 },  { 9, 7, 1 }, { 16, 1, 1 } };

        (void)state;
        for (size_t c = 0; c < ARRAY_SIZE(shapes); c++) {
                uint32_t window = shapes[c][0], k = shapes[c][1], n = shapes[c][2], at = 0;
                struct rng rng = rng_stream(SEED, 77 + c);
                uint16_t states[64];
                uint8_t bytes[64];

                memset(bytes, 0xff, sizeof(bytes));
                states[0] = (uint16_t)rng_below(&rng, 1u << window);
                for (uint32_t j = 1; j < n; j++)
                        states[j] = (uint16_t)(((uint32_t)states[j - 1] << k |
                                                (uint32_t)rng_below(&rng, 1u << k)) &
                                               ((1u << window) - 1));
                trellis_pack(states, n, window, k, bytes);
                for (uint32_t j = 0; j < n; j++, at += k) {
                        uint32_t entry = 0;

                        for (uint32_t i = 0; i < window; i++)
                                entry |= (uint32_t)(bytes[(at + i) / 8] >> (at + i) % 8 & 1) << i;
                        assert_int_equal(entry, trellis_entry(states[j], window));
                }
                /* The rest of the last byte is zero, and nothing behind it is touched. */
                at += window - k;
                if (at % 8)
                        assert_int_equal(bytes[at / 8] >> at % 8, 0);
                assert_int_equal(bytes[div_round_up(at, 8)], 0xff);
        }
}

struct trained {
        float *centroids;
        double error; /* on rows of the same kind that were not trained on */
};

static struct trained train(const struct trellis_shape *shape, uint32_t code_bits, size_t n_rows,
                            uint32_t n_passes, unsigned n_threads) {
        float *rows = random_values(n_rows * shape->n_dims, 1), *held;
        struct trained t = { .centroids = random_centroids(shape, 2) };
        uint8_t *bits = malloc(n_rows);
        struct trellis_samples samples = { rows, n_rows, NULL, NULL, bits };
        struct trellis_effort effort = { n_passes, NULL, NULL };
        struct trellis_scratch scratch;
        uint16_t states[512];

        memset(bits, (int)code_bits, n_rows);
        assert_int_equal(trellis_train(shape, &samples, &effort, SEED, n_threads, t.centroids), 0);
        held = random_values((size_t)40 * shape->n_dims, 3);
        assert_int_equal(trellis_scratch_init(&scratch, shape, code_bits), 0);
        for (size_t i = 0; i < 40; i++) {
                trellis_encode(shape, t.centroids, &scratch, held + i * shape->n_dims, NULL,
                               code_bits, states);
                t.error += path_error(shape, t.centroids, states, held + i * shape->n_dims, NULL);
        }
        t.error /= 40. * shape->n_dims;
        trellis_scratch_deinit(&scratch);
        free(rows);
        free(bits);
        free(held);
        return t;
}

static void test_training_reaches_known_error(void **state) {
        const struct trellis_shape shape = { 8, 4, 64, 1000 };
        struct trained t = train(&shape, 6, 1500, 8, 2);

        (void)state;
        print_message("# 6 bits of 4 dimensions, window of 8: %.4f\n", t.error);
        assert_true(t.error < 0.175);
        assert_true(t.error > 0.125); /* no code of 1.5 bits a value does better */
        free(t.centroids);
}

static void test_wider_windows_are_better(void **state) {
        double last = 1;

        (void)state;
        for (uint32_t window = 6; window <= 10; window += 2) {
                const struct trellis_shape shape = { window, 4, 64, 1000 };
                struct trained t = train(&shape, 6, 1500, 6, 2);

                assert_true(t.error < 0.97 * last);
                last = t.error;
                free(t.centroids);
        }
}

static void test_passes_never_raise_error(void **state) {
        const struct trellis_shape shape = { 7, 4, 62, 5 };
        double last = INFINITY;

        (void)state;
        /* Few rows: all of them are looked at in every pass. Each error is on the training rows. */
        for (uint32_t n_passes = 1; n_passes <= 6; n_passes++) {
                float *rows = random_values(7 * 62, 11);
                float *centroids = random_centroids(&shape, 12);
                uint8_t bits[7] = { 5, 5, 5, 5, 5, 5, 5 };
                struct trellis_samples samples = { rows, 7, NULL, NULL, bits };
                struct trellis_effort effort = { n_passes, NULL, NULL };
                struct trellis_scratch scratch;
                uint16_t states[16];
                double error = 0;

                assert_int_equal(trellis_train(&shape, &samples, &effort, SEED, 1, centroids), 0);
                assert_int_equal(trellis_scratch_init(&scratch, &shape, 5), 0);
                for (size_t i = 0; i < 7; i++) {
                        trellis_encode(&shape, centroids, &scratch, rows + i * 62, NULL, 5, states);
                        error += path_error(&shape, centroids, states, rows + i * 62, NULL);
                }
                assert_true(error <= last * (1 + 1e-6));
                last = error;
                trellis_scratch_deinit(&scratch);
                free(rows);
                free(centroids);
        }
}

static void test_threads_do_not_matter(void **state) {
        const struct trellis_shape shape = { 8, 4, 50, 6 };
        struct trained one = train(&shape, 5, 203, 5, 1), three = train(&shape, 5, 203, 5, 3);

        (void)state;
        assert_memory_equal(one.centroids, three.centroids,
                            trellis_n_groups(&shape) * trellis_group_floats(&shape) *
                                    sizeof(float));
        free(one.centroids);
        free(three.centroids);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_search_equals_brute_force),
                cmocka_unit_test(test_packed_bits_read_back),
                cmocka_unit_test(test_training_reaches_known_error),
                cmocka_unit_test(test_wider_windows_are_better),
                cmocka_unit_test(test_passes_never_raise_error),
                cmocka_unit_test(test_threads_do_not_matter),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

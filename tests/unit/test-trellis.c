/* SPDX-License-Identifier: Apache-2.0 */
/* Trellis codes: the search against brute force, training, and the bits of a path. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "normal-values.h"
#include "tools/carvq/trellis.h"

#define SEED UINT64_C(20260202)

static float *random_values(size_t n, uint64_t stream) {
        return normal_values(SEED, stream, n);
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

/* The windows of a string, bit by bit: the oldest bit of a state is the most significant. */
static void read_states(const uint8_t *string, size_t n_bytes, uint32_t n, uint32_t window_bits,
                        uint32_t code_bits, uint16_t *ret_states) {
        for (uint32_t j = 0; j < n; j++)
                for (uint32_t i = ret_states[j] = 0; i < window_bits; i++) {
                        size_t bit = (j * code_bits + i) % (8 * n_bytes);

                        ret_states[j] =
                                (uint16_t)(ret_states[j] << 1 | (string[bit / 8] >> bit % 8 & 1));
                }
}

/* All strings of bits, one after another. */
static double brute_force(const struct trellis_shape *shape, const float *centroids, const float *x,
                          const float *weights, uint32_t code_bits) {
        uint32_t n = trellis_n_subvectors(shape), n_bytes = (n * code_bits + 7) / 8;
        double best = INFINITY;

        assert_true(n_bytes <= 2);
        for (uint32_t string = 0; string < 1u << 8 * n_bytes; string++) {
                uint8_t bytes[2] = { (uint8_t)string, (uint8_t)(string >> 8) };
                uint16_t states[16];

                read_states(bytes, n_bytes, n, shape->window_bits, code_bits, states);
                best = fmin(best, path_error(shape, centroids, states, x, weights));
        }
        return best;
}

/* Of a path that is what the string reads back as. */
static double encode(const struct trellis_shape *shape, const float *centroids, const float *x,
                     const float *weights, uint32_t code_bits) {
        uint32_t n = trellis_n_subvectors(shape);
        struct trellis_scratch scratch;
        uint16_t states[16], read[16];
        uint8_t bytes[2];

        assert_int_equal(trellis_scratch_init(&scratch, shape, code_bits), 0);
        trellis_encode(shape, centroids, &scratch, x, weights, code_bits, states);
        trellis_scratch_deinit(&scratch);
        trellis_pack(states, n, shape->window_bits, code_bits, bytes);
        read_states(bytes, (n * code_bits + 7) / 8, n, shape->window_bits, code_bits, read);
        assert_memory_equal(states, read, n * sizeof(*states));
        return path_error(shape, centroids, states, x, weights);
}

/*
 * Over so short a ring the cut can be wrong: none is better than the best, nearly all are as good,
 * and where nothing goes around the end or all is tried, all are.
 */
static void test_search_equals_brute_force(void **state) {
        static const struct {
                uint32_t window, h, n_dims, group_cols, code_bits;
                bool exact;
        } cases[] = {
                { 5, 1, 15, 100, 1, false }, { 5, 2, 13, 100, 2, false },
                { 6, 4, 15, 2, 4, false },   { 5, 3, 9, 1, 3, false },
                { 5, 2, 4, 100, 5, true },   { 7, 4, 11, 100, 5, false },
                { 9, 2, 3, 100, 1, true },   { 6, 8, 3, 100, 6, true },
                { 12, 2, 3, 1, 4, true },    { 16, 1, 8, 100, 1, true },
                { 6, 1, 16, 5, 1, false },
        };

        (void)state;
        for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
                struct trellis_shape shape = { cases[c].window, cases[c].h, cases[c].n_dims,
                                               cases[c].group_cols };
                double sum_best = 0, sum = 0;
                int n_best = 0;

                for (uint64_t i = 0; i < 20; i++) {
                        float *centroids = random_centroids(&shape, 100 * c + i);
                        float *x = random_values(shape.n_dims, 5000 + 100 * c + i);
                        float *weights = random_values(shape.n_dims, 9000 + 100 * c + i);
                        const float *w = i % 2 ? weights : NULL;
                        double best, error;

                        for (uint32_t d = 0; d < shape.n_dims; d++)
                                weights[d] *= weights[d];
                        best = brute_force(&shape, centroids, x, w, cases[c].code_bits);
                        error = encode(&shape, centroids, x, w, cases[c].code_bits);
                        assert_true(error >= best * (1 - 1e-5) - 1e-6);
                        n_best += error <= best * (1 + 1e-5) + 1e-6;
                        sum_best += best;
                        sum += error;
                        free(centroids);
                        free(x);
                        free(weights);
                }
                printf("# %u bits in windows of %u, %u dimensions: %d of 20 best, %+.2f %% error\n",
                       cases[c].code_bits, cases[c].window, cases[c].n_dims, n_best,
                       100 * (sum / sum_best - 1));
                assert_true(n_best >= (cases[c].exact ? 20 : 8));
                assert_true(sum <= 1.1 * sum_best);
        }
}

/* As FORMAT.md reads them: window j is bits k j ... k j + S - 1, which are those of a ring. */
static void test_packed_bits_read_back(void **state) {
        static const uint32_t shapes[][3] = { { 12, 6, 33 }, { 5, 5, 7 }, { 16, 12, 9 },
                                              { 8, 1, 20 },  { 9, 7, 1 }, { 16, 1, 1 } };

        (void)state;
        for (size_t c = 0; c < ARRAY_SIZE(shapes); c++) {
                uint32_t window = shapes[c][0], k = shapes[c][1], n = shapes[c][2];
                uint32_t n_bytes = (uint32_t)div_round_up(n * k, 8);
                struct rng rng = rng_stream(SEED, 77 + c);
                uint16_t states[64];
                uint8_t bytes[64], string[64] = { 0 };

                memset(bytes, 0xff, sizeof(bytes));
                for (uint32_t i = 0; i < n_bytes; i++)
                        string[i] = (uint8_t)rng_below(&rng, 256);
                for (uint32_t i = k * (n - 1) + window; i < 8 * n_bytes; i++)
                        string[i / 8] &= (uint8_t) ~(1 << i % 8); /* no window's */
                read_states(string, n_bytes, n, window, k, states);
                trellis_pack(states, n, window, k, bytes);
                assert_memory_equal(bytes, string, n_bytes);
                assert_int_equal(bytes[n_bytes], 0xff);
                for (uint32_t i = 0, entry = trellis_entry(states[0], window); i < window; i++)
                        assert_int_equal(entry >> i & 1, string[i / 8 % n_bytes] >> i % 8 & 1);
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
        struct trellis_effort effort = { .n_passes = n_passes };
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
                struct trellis_effort effort = { .n_passes = n_passes };
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RVQ: seeding, training and search, against brute force.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "normal-values.h"
#include "tools/carvq/rvq.h"

#define SEED UINT64_C(20260101)

static float *random_values(size_t n, uint64_t stream) {
        return normal_values(SEED, stream, n);
}

static double squared_distance(const float *x, const float *y, size_t n) {
        double sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += (double)(x[i] - y[i]) * (double)(x[i] - y[i]);
        return sum;
}

/* Error of coding all samples with these codebooks as they are. */
static double coding_error(const struct rvq_shape *shape, const struct rvq_samples *samples,
                           const float *codebooks) {
        struct rvq_search search;
        struct rvq_scratch scratch;
        uint8_t codes[TABLE_STAGES_MAX];
        float decoded[TABLE_SUBVECTOR_DIMS_MAX];
        double sum = 0;

        assert_int_equal(rvq_search_init(&search, shape, codebooks, samples->n_slots, 0), 0);
        assert_int_equal(rvq_scratch_init(&scratch, &search), 0);
        for (size_t i = 0; i < samples->n; i++) {
                const float *x = samples->values + i * samples->n_slots;

                rvq_search_encode(&search, &scratch, x, shape->n_stages, codes);
                rvq_decode(shape, codebooks, samples->n_slots, shape->n_stages, codes, decoded);
                sum += squared_distance(x, decoded, samples->n_slots);
        }
        rvq_scratch_deinit(&scratch);
        rvq_search_deinit(&search);
        return sum / (double)samples->n;
}

static void test_lloyd_never_raises_error(void **state) {
        const struct rvq_shape shape = { 1, 4, 8 };
        const struct rvq_samples samples = { random_values(2000 * 8, 1), 2000, 8, NULL };
        float codebook[8 * 16];
        uint8_t codes[2000];
        double error, last = INFINITY;

        (void)state;
        assert_int_equal(rvq_seed(&shape, &samples, SEED, codebook), 0);
        for (int pass = 0; pass < 15; pass++) {
                assert_int_equal(rvq_pass(&shape, &samples, 0, 1, codebook, codes, &error), 0);
                assert_true(error <= last * (1 + 1e-6));
                last = error;
        }
        assert_true(last < 6); /* of 8 without any codebook; measured 5.4 */
        free((float *)samples.values);
}

/* A random codebook is a poor start: every joint step has something to gain and must not lose. */
static void test_joint_step_never_raises_error(void **state) {
        const struct rvq_shape shape = { 3, 4, 8 };
        const struct rvq_samples samples = { random_values(3000 * 8, 2), 3000, 8, NULL };
        float *codebooks = random_values(rvq_codebook_floats(&shape), 3);
        uint8_t codes[3000 * 3];
        double first = 0, last = INFINITY, error;

        (void)state;
        for (int pass = 0; pass < 12; pass++) {
                assert_int_equal(rvq_pass(&shape, &samples, 0, 2, codebooks, codes, &error), 0);
                assert_true(error <= last * (1 + 1e-6));
                first = pass ? first : error;
                last = error;
        }
        print_message("# joint passes: %.3f to %.3f\n", first, last);
        assert_true(last < 0.8 * first);
        free(codebooks);
        free((float *)samples.values);
}

static void test_training_reaches_known_error(void **state) {
        const struct rvq_shape shape = { 3, 4, 8 };
        const struct rvq_effort effort = { .lloyd_passes = 8, .joint_passes = 15 };
        const struct rvq_samples train = { random_values(32768 * 8, 4), 32768, 8, NULL };
        const struct rvq_samples test = { random_values(4096 * 8, 5), 4096, 8, NULL };
        float *codebooks = malloc(rvq_codebook_floats(&shape) * sizeof(float));

        (void)state;
        assert_int_equal(rvq_train(&shape, &train, &effort, SEED, 2, codebooks), 0);
        /* Greedy stages reach 0.218 of the energy on normal samples; joint ones 0.18. */
        assert_true(coding_error(&shape, &test, codebooks) / 8 < 0.19);
        free(codebooks);
        free((float *)train.values);
        free((float *)test.values);
}

/* Fewer samples than centroids, and all of them equal. */
static void test_training_on_next_to_nothing(void **state) {
        const struct rvq_shape shape = { 3, 4, 8 };
        const struct rvq_effort effort = { .lloyd_passes = 4, .joint_passes = 4 };
        static const float equal[5 * 8] = { 0 };
        const struct rvq_samples zeros = { equal, 5, 8, NULL };
        const struct rvq_samples one = { random_values(8, 6), 1, 8, NULL };
        float *codebooks = malloc(rvq_codebook_floats(&shape) * sizeof(float));

        (void)state;
        assert_int_equal(rvq_train(&shape, &zeros, &effort, SEED, 1, codebooks), 0);
        assert_true(coding_error(&shape, &zeros, codebooks) < 1e-9);
        assert_int_equal(rvq_train(&shape, &one, &effort, SEED, 1, codebooks), 0);
        assert_true(coding_error(&shape, &one, codebooks) < 1e-6);
        free(codebooks);
        free((float *)one.values);
}

static double brute_force(const struct rvq_shape *shape, const float *codebooks, const float *x,
                          uint32_t n_slots) {
        uint32_t n_all = 1u << shape->codebook_bits * shape->n_stages;
        uint32_t mask = (1u << shape->codebook_bits) - 1;
        float decoded[TABLE_SUBVECTOR_DIMS_MAX];
        uint8_t codes[TABLE_STAGES_MAX];
        double best = INFINITY;

        for (uint32_t all = 0; all < n_all; all++) {
                for (uint32_t l = 0; l < shape->n_stages; l++)
                        codes[l] = (uint8_t)(all >> l * shape->codebook_bits & mask);
                rvq_decode(shape, codebooks, n_slots, shape->n_stages, codes, decoded);
                best = MIN(best, squared_distance(x, decoded, n_slots));
        }
        return best;
}

/* `width` 0: the exhaustive search; 2^(k L): a beam that drops nothing. */
static void check_search(const struct rvq_shape *shape, uint32_t n_slots, uint32_t width,
                         double slack) {
        size_t n_stage = rvq_codebook_floats(shape) / shape->n_stages;
        float *codebooks = random_values(rvq_codebook_floats(shape), 7);
        float *x = random_values(100 * (size_t)n_slots, 8);
        float decoded[TABLE_SUBVECTOR_DIMS_MAX];
        uint8_t codes[TABLE_STAGES_MAX];
        struct rvq_scratch scratch;
        struct rvq_search search;
        double sum = 0, best = 0;

        /* Later stages are finer, as in trained codebooks. */
        for (size_t i = 0; i < rvq_codebook_floats(shape); i++)
                codebooks[i] *= powf(0.6f, (float)(i / n_stage));
        assert_int_equal(rvq_search_init(&search, shape, codebooks, n_slots, width), 0);
        assert_int_equal(rvq_scratch_init(&scratch, &search), 0);
        for (size_t i = 0; i < 100; i++) {
                float error = rvq_search_encode(&search, &scratch, x + i * n_slots, shape->n_stages,
                                                codes);

                for (uint32_t l = 0; l < shape->n_stages; l++)
                        assert_true(codes[l] < 1u << shape->codebook_bits);
                rvq_decode(shape, codebooks, n_slots, shape->n_stages, codes, decoded);
                sum += squared_distance(x + i * n_slots, decoded, n_slots);
                best += brute_force(shape, codebooks, x + i * n_slots, n_slots);
                assert_true(fabs((double)error -
                                 squared_distance(x + i * n_slots, decoded, n_slots)) < 1e-3);
        }
        if (sum > best * (1 + slack) + 1e-4)
                print_message("# L=%u k=%u slots=%u width=%u: %g, best %g\n", shape->n_stages,
                              shape->codebook_bits, n_slots, width, sum, best);
        assert_true(sum <= best * (1 + slack) + 1e-4);
        rvq_scratch_deinit(&scratch);
        rvq_search_deinit(&search);
        free(codebooks);
        free(x);
}

static void test_search_equals_brute_force(void **state) {
        (void)state;
        for (uint32_t n_slots = 1; n_slots <= 8; n_slots += 7)
                for (uint32_t k = 1; k <= 5; k++)
                        for (uint32_t l = 1; l <= 3 && k * l <= 12; l++) {
                                const struct rvq_shape shape = { l, k, 8 };

                                check_search(&shape, n_slots, 0, 1e-5);
                                check_search(&shape, n_slots, 1u << k * l, 1e-5);
                        }
}

static void test_narrow_beam_stays_close(void **state) {
        const struct rvq_shape shape = { 4, 3, 6 };

        (void)state;
        check_search(&shape, 6, 16, 0.1);
        check_search(&shape, 6, 1, 3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lloyd_never_raises_error),
                cmocka_unit_test(test_joint_step_never_raises_error),
                cmocka_unit_test(test_training_reaches_known_error),
                cmocka_unit_test(test_training_on_next_to_nothing),
                cmocka_unit_test(test_search_equals_brute_force),
                cmocka_unit_test(test_narrow_beam_stays_close),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests(tests, NULL, NULL);
}

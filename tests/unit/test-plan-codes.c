/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The planner's model of codes against codes: it spends bits by what it believes that they buy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "normal-values.h"
#include "tools/carvq/plan-codes.h"

#define SEED     UINT64_C(20261122)
#define N_VALUES (160u << 10)
#define N_DIMS   512u
#define TOLERATE 0.10 /* of the error: a third of what a bit a sub-vector of four buys */

/* Trained on all rows, twice as many values as a large codebook needs, and measured on them. */
static double measure(uint32_t n_dims, uint32_t subvector_dims, uint32_t code_bits,
                      uint32_t window_bits) {
        const size_t n_rows = N_VALUES / n_dims;
        const struct coder_effort effort = { .trellis = { .n_passes = 8 } };
        struct table_header h = { .n_rows = n_rows, .n_dims = n_dims, .codec = TABLE_CODEC_CARVQ };
        _cleanup_(freep) float *rows = normal_values(SEED, 1, N_VALUES);
        struct quantizer_rows all = { .rows = rows, .n_rows = n_rows };
        struct closeness closeness;
        struct quantizer q;
        struct fault fault = { 0 };

        plan_set_codes(&h, subvector_dims, code_bits, window_bits);
        if (quantizer_init(&q, &h, NULL, ADAPTOR_BEFORE, 0, &fault) < 0 ||
            quantizer_train(&q, &all, NULL, &effort, SEED, 2, &fault) < 0 ||
            quantizer_leftovers(&q, &all, 2, NULL, &closeness, &fault) < 0)
                fail_msg("%s", fault.text);
        quantizer_deinit(&q);
        return closeness_rel_mse(&closeness);
}

static void test_model(void **state) {
        /* Codebooks that so few rows can train. Above five bits a value the model is off by more,
         * and nothing is left to choose. */
        static const uint32_t shapes[][4] = {
                { 4, 2, 8, N_DIMS }, { 4, 4, 8, N_DIMS }, { 4, 6, 8, N_DIMS }, { 4, 6, 9, N_DIMS },
                { 4, 8, 9, N_DIMS }, { 2, 2, 8, N_DIMS }, { 2, 4, 8, N_DIMS }, { 2, 6, 8, N_DIMS },
                { 2, 4, 9, N_DIMS }, { 2, 7, 9, N_DIMS }, { 1, 3, 8, N_DIMS }, { 1, 4, 9, N_DIMS },
                { 1, 5, 9, N_DIMS }, { 4, 6, 9, 100 },    { 2, 5, 9, 100 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
                const uint32_t *s = shapes[i];
                double seen = measure(s[3], s[0], s[1], s[2]);
                double believed = plan_code_error(s[0], s[1], s[2]);

                printf("# %u of %u dimensions, %u bits of %u: %.5f, modelled %.5f (%+.1f %%)\n",
                       s[0], s[3], s[1], s[2], seen, believed, 100 * (believed / seen - 1));
                if (fabs(believed / seen - 1) > TOLERATE)
                        fail_msg("%u dimensions, %u bits of %u: %g, modelled %g", s[0], s[1], s[2],
                                 seen, believed);
        }
        assert_true(plan_code_error(4, 0, 12) == 1);
}

/* More bits, a longer window, and narrower sub-vectors at the same rate leave less. */
static void test_order(void **state) {
        (void)state;
        for (uint32_t h = 1; h <= 4; h *= 2)
                for (uint32_t k = 1; k <= 12; k++)
                        for (uint32_t s = MAX(k, 5u); s < 14; s++) {
                                assert_true(plan_code_error(h, k, s + 1) <
                                            plan_code_error(h, k, s));
                                if (k < s)
                                        assert_true(plan_code_error(h, k + 1, s) <
                                                    plan_code_error(h, k, s));
                        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_model),
                cmocka_unit_test(test_order),
        };

        printf("# seed %" PRIu64 "\n", SEED);
        return cmocka_run_group_tests_name("plan-codes", tests, NULL, NULL);
}

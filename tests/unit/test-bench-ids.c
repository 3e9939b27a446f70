/* SPDX-License-Identifier: Apache-2.0 */
/* What the benches take for uniform and for Zipf(1.0): shares of ids against what they should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "tools/bench/ids.h"

#define N_ROWS 1000u
#define N_IDS  1000000u
#define SEED   7u

static int descending(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x < y) - (x > y);
}

/* How often each row is drawn, most frequent first; all below N_ROWS. */
static void count(enum ids_kind kind, uint64_t counts[N_ROWS]) {
        uint64_t *ids = ids_draw(kind, N_ROWS, N_IDS, SEED);

        for (size_t i = 0; i < N_IDS; i++) {
                assert_true(ids[i] < N_ROWS);
                counts[ids[i]]++;
        }
        free(ids);
        qsort(counts, N_ROWS, sizeof(*counts), descending);
}

static void uniform(void **state) {
        uint64_t counts[N_ROWS] = { 0 };

        (void)state;
        print_message("# seed %u\n", SEED);
        count(IDS_UNIFORM, counts);
        /* Five standard deviations of a row's count. */
        assert_true(counts[0] < 1000 + 5 * 32);
        assert_true(counts[N_ROWS - 1] > 1000 - 5 * 32);
}

static void zipf(void **state) {
        uint64_t counts[N_ROWS] = { 0 };
        double harmonic = 0;

        (void)state;
        for (unsigned r = 1; r <= N_ROWS; r++)
                harmonic += 1.0 / r;
        count(IDS_ZIPF, counts);
        for (unsigned r = 1; r <= 16; r *= 2) {
                double expected = N_IDS / (r * harmonic);

                assert_true(fabs((double)counts[r - 1] - expected) < 5 * sqrt(expected));
        }
        assert_true(counts[N_ROWS - 1] > 0);
}

static void same_seed_same_ids(void **state) {
        uint64_t *a = ids_draw(IDS_ZIPF, N_ROWS, 100, SEED),
                 *b = ids_draw(IDS_ZIPF, N_ROWS, 100, SEED);
        uint64_t *c = ids_draw(IDS_ZIPF, N_ROWS, 100, SEED + 1);

        (void)state;
        assert_memory_equal(a, b, 100 * sizeof(*a));
        assert_memory_not_equal(a, c, 100 * sizeof(*a));
        free(a);
        free(b);
        free(c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(uniform),
                cmocka_unit_test(zipf),
                cmocka_unit_test(same_seed_same_ids),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

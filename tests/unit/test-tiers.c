/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiers of rows: the allocation against every possible one on small tables, its promises (budget,
 * filling, number of tiers) on larger ones, rows dealt as the allocation says, and the map of the
 * result against the format's own checker and addressing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "guarded-table.h"
#include "lib/codec/codec.h"
#include "tools/carvq/tiers.h"

#define N_CASES 3000

static uint64_t seed;

static double uniform(uint64_t *random) {
        return (double)(test_random(random) >> 11) * 0x1p-53;
}

static uint64_t below(uint64_t *random, uint64_t n) {
        return (uint64_t)(uniform(random) * (double)n);
}

static struct tier_histogram *histogram_of(const float *weights, size_t n) {
        struct tier_histogram *histogram = calloc(1, sizeof(*histogram));

        assert_non_null(histogram);
        tier_histogram_add(histogram, weights, n);
        return histogram;
}

static int allocate(const float *weights, size_t n, const struct tier_level *levels,
                    uint32_t n_levels, uint32_t n_tiers_max, double budget_bytes,
                    struct tier_allocation *ret_allocation) {
        _cleanup_(freep) struct tier_histogram *histogram = histogram_of(weights, n);

        return tiers_allocate(histogram, levels, n_levels, n_tiers_max, budget_bytes,
                              ret_allocation);
}

/* ---- Small tables, against all there is ---- */

struct small {
        float weights[6];
        size_t n_rows;
        struct tier_level levels[4];
        uint32_t n_levels, n_tiers_max;
};

/* Whole numbers of few digits, so that each bin holds equal weights. */
static struct small random_small(uint64_t *random, double unit_bytes) {
        struct small s = { .n_rows = 1 + below(random, 6),
                           .n_levels = 1 + (uint32_t)below(random, 4),
                           .n_tiers_max = 1 + (uint32_t)below(random, 4) };
        double bytes = 0, error = 1;

        for (size_t i = 0; i < s.n_rows; i++)
                s.weights[i] = (float)(below(random, 5) ? below(random, 256) : below(random, 3));
        for (uint32_t l = 0; l < s.n_levels; l++) {
                bytes += unit_bytes * (double)(1 + below(random, 20));
                error *= below(random, 8) ? uniform(random) : 2; /* some levels are no use */
                s.levels[l] = (struct tier_level){ .bytes = bytes, .error = error };
        }
        return s;
}

/* Tables of at most 448 rows: each tier above the first has one block of the map. */
static void weigh(const struct small *s, const uint32_t *level, double *ret_bytes,
                  double *ret_error, uint32_t *ret_n_tiers) {
        uint32_t used = 0;

        *ret_bytes = *ret_error = 0;
        for (size_t row = 0; row < s->n_rows; row++) {
                used |= 1u << level[row];
                *ret_bytes += s->levels[level[row]].bytes;
                *ret_error += (double)s->weights[row] * s->levels[level[row]].error;
        }
        *ret_n_tiers = (uint32_t)__builtin_popcount(used);
        *ret_bytes += 64 * (*ret_n_tiers - 1);
}

/* The least error of all assignments within the budget; infinity when there is none. */
static double exhaustive(const struct small *s, double budget_bytes) {
        uint32_t level[6] = { 0 }, n_tiers;
        double best = INFINITY, bytes, error;
        size_t row;

        do {
                weigh(s, level, &bytes, &error, &n_tiers);
                if (bytes <= budget_bytes && n_tiers <= s->n_tiers_max)
                        best = MIN(best, error);
                for (row = 0; row < s->n_rows && ++level[row] == s->n_levels; row++)
                        level[row] = 0;
        } while (row < s->n_rows);
        return best;
}

static double total_weight(const struct small *s) {
        double total = 0;

        for (size_t row = 0; row < s->n_rows; row++)
                total += (double)s->weights[row];
        return total;
}

static void test_exhaustive(void **state) {
        uint64_t random = seed;
        int n_optimal = 0, n_feasible = 0, n_tiered = 0;

        (void)state;
        for (int i = 0; i < N_CASES; i++) {
                struct small s = random_small(&random, 100);
                double low = (double)s.n_rows * s.levels[0].bytes;
                double high = (double)s.n_rows * s.levels[s.n_levels - 1].bytes + 200;
                double budget = low - 50 + uniform(&random) * (high - low + 50), best, step = 0;
                struct tier_allocation a;
                int r = allocate(s.weights, s.n_rows, s.levels, s.n_levels, s.n_tiers_max, budget,
                                 &a);

                best = exhaustive(&s, budget);
                if (!isfinite(best)) {
                        assert_int_equal(r, -ENOSPC);
                        continue;
                }
                assert_int_equal(r, 0);
                assert_true(a.bytes <= budget);
                if (total_weight(&s) == 0) /* then they count as 1 */
                        continue;
                /* What the one row that did not fit any more would have saved. */
                for (size_t row = 0; row < s.n_rows; row++)
                        for (uint32_t l = 0; l < s.n_levels; l++)
                                step = MAX(step, (double)s.weights[row] *
                                                         (s.levels[0].error - s.levels[l].error));
                assert_true(a.error >= best * (1 - 1e-12));
                assert_true(a.error * 0.999 <= best + step + 1e-9);
                n_optimal += a.error <= best * (1 + 1e-12);
                n_feasible++;
                n_tiered += a.n_tiers > 1;
        }
        printf("# optimal in %d of %d cases, %d of two tiers or more\n", n_optimal, n_feasible,
               n_tiered);
        /* Between two prices it may miss the optimum, by less than a step; it seldom does. */
        assert_true(n_optimal > n_feasible * 9 / 10 && n_tiered > n_feasible / 5);
}

/* Of a random price for a byte: it is the optimum for the bytes that it takes. */
static void lagrangian(const struct small *s, uint64_t *random, double *ret_bytes,
                       double *ret_error, uint32_t *ret_n_tiers) {
        double price = exp(uniform(random) * 9 - 3) / s->levels[s->n_levels - 1].bytes;
        uint32_t level[6];

        for (size_t row = 0; row < s->n_rows; row++) {
                double least = INFINITY;

                for (uint32_t l = 0; l < s->n_levels; l++) {
                        double cost = (double)s->weights[row] * s->levels[l].error +
                                      price * s->levels[l].bytes;

                        if (cost < least) {
                                least = cost;
                                level[row] = l;
                        }
                }
        }
        weigh(s, level, ret_bytes, ret_error, ret_n_tiers);
}

/* Records are so large that the map changes nobody's order. */
static void test_on_hull(void **state) {
        uint64_t random = seed;
        int n_tiered = 0;

        (void)state;
        for (int i = 0; i < N_CASES; i++) {
                struct small s = random_small(&random, 1e6);
                double bytes, error;
                uint32_t n_tiers;
                struct tier_allocation a;

                if (total_weight(&s) == 0)
                        continue;
                lagrangian(&s, &random, &bytes, &error, &n_tiers);
                assert_int_equal(allocate(s.weights, s.n_rows, s.levels, s.n_levels,
                                          TABLE_TIERS_MAX, bytes, &a),
                                 0);
                assert_true(a.bytes <= bytes);
                assert_true(a.error * 0.999 <= error * (1 + 1e-12));
                if (a.n_tiers < n_tiers) /* one more was not worth it */
                        continue;
                assert_true(a.error <= error * (1 + 1e-12) + 1e-12);
                n_tiered += n_tiers > 1;
        }
        printf("# %d cases of two tiers or more\n", n_tiered);
        assert_true(n_tiered > N_CASES / 5);
}

/* ---- Larger tables ---- */

static struct table_header header_of(uint64_t n_rows, uint32_t n_dims) {
        return (struct table_header){
                .n_rows = n_rows,
                .n_dims = n_dims,
                .codec = TABLE_CODEC_CARVQ,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = n_rows,
                .row_scale = 1,
        };
}

/* Level i has i stages; each takes a third to two thirds off the error. */
static void random_levels(const struct table_header *h, uint64_t *random,
                          struct tier_level ret_levels[TIER_LEVELS_MAX]) {
        double error = 1;

        for (uint32_t l = 0; l < TIER_LEVELS_MAX; l++) {
                ret_levels[l] = (struct tier_level){ (double)table_record_bytes(h, l, 4), error };
                error *= (1 + uniform(random)) / 3;
        }
}

static const uint8_t stages[TIER_LEVELS_MAX] = { 0, 1,  2,  3,  4,  5,  6,  7, 8,
                                                 9, 10, 11, 12, 13, 14, 15, 16 };

/* A header's tiers as allocated, level i meaning `level_stages[i]` stages. */
static void describe(const struct tier_allocation *allocation, const uint8_t *level_stages,
                     struct table_header *header) {
        uint32_t n_tiers = allocation->n_tiers;

        assert_int_equal(allocation->n_rows[0], header->n_rows);
        memset(header->tier_stages, 0, sizeof(header->tier_stages));
        memset(header->tier_rows, 0, sizeof(header->tier_rows));
        for (uint32_t t = 0; t < n_tiers; t++)
                header->tier_stages[t] = level_stages[allocation->level[t]];
        for (uint32_t t = 1; t < n_tiers; t++)
                header->tier_rows[t - 1] = allocation->n_rows[t];
        header->n_tiers = n_tiers;
        header->n_stages = header->tier_stages[n_tiers - 1];
        table_set_code_bits(header);
}

/* The layout of the tiers is what was allocated, and the rows are dealt as it says. */
static void check_allocation(const float *weights, size_t n_rows, uint32_t n_dims,
                             const struct tier_level *levels, double budget,
                             const struct tier_allocation *a) {
        _cleanup_(freep) struct tier_histogram *histogram = histogram_of(weights, n_rows);
        _cleanup_(freep) struct tier_assigner *assigner = malloc(sizeof(*assigner));
        struct table_header h = header_of(n_rows, n_dims);
        uint64_t n_dealt[TABLE_TIERS_MAX] = { 0 };
        double error = 0, step = 0, lightest[TABLE_TIERS_MAX];
        double heaviest[TABLE_TIERS_MAX] = { 0 };
        struct table_layout layout;
        struct fault fault;

        assert_true(a->bytes <= budget);
        describe(a, stages, &h);
        if (table_layout_compute(&h, &layout, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_true((double)(layout.rows_bytes + layout.tiers_bytes) == a->bytes);

        tier_assigner_init(assigner, histogram, a);
        for (uint32_t t = 0; t < a->n_tiers; t++)
                lightest[t] = INFINITY;
        for (size_t row = 0; row < n_rows; row++) {
                uint8_t tier = tier_assign(assigner, weights[row]);
                double weight = (double)weights[row];

                assert_true(tier < a->n_tiers);
                error += weight * levels[a->level[tier]].error;
                lightest[tier] = MIN(lightest[tier], weight);
                heaviest[tier] = MAX(heaviest[tier], weight);
                for (uint32_t t = 0; t <= tier; t++)
                        n_dealt[t]++;
        }
        assert_memory_equal(n_dealt, a->n_rows, sizeof(n_dealt));
        assert_true(fabs(error - a->error) <= error / 128);
        for (uint32_t t = 1; t < a->n_tiers; t++) {
                step = MAX(step, levels[a->level[t]].bytes - levels[a->level[t - 1]].bytes);
                assert_true(lightest[t] >= heaviest[t - 1] * (1 - 0x1p-8)); /* but for one bin */
                assert_true(n_dealt[t] > 0 && n_dealt[t] < n_dealt[t - 1]);
        }
        if (a->n_tiers > 1) /* within one step of a row, and a block of the map that it may need */
                assert_true(budget - a->bytes < step + (a->n_tiers > 2 ? 64 : 0));
}

static void random_weights(uint64_t *random, size_t n_rows, float *ret_weights) {
        uint64_t kind = below(random, 4);

        for (size_t i = 0; i < n_rows; i++) {
                double u = uniform(random);

                ret_weights[i] = (float)(kind == 0   ? u
                                         : kind == 1 ? 1 / ((double)i + 2.7)
                                         : kind == 2 ? floor(1 / (u + 1e-4))
                                                     : exp(60 * u - 30));
        }
}

static void test_promises(void **state) {
        static float weights[20000];
        uint64_t random = seed;

        (void)state;
        for (int i = 0; i < 40; i++) {
                size_t n_rows = 500 + below(&random, ARRAY_SIZE(weights) - 500);
                uint32_t n_dims = 8 + (uint32_t)below(&random, 200);
                struct table_header h = header_of(n_rows, n_dims);
                struct tier_level levels[TIER_LEVELS_MAX];
                double low, high, budget, error = INFINITY;

                random_weights(&random, n_rows, weights);
                random_levels(&h, &random, levels);
                low = (double)n_rows * levels[1].bytes; /* a table has a stage */
                high = (double)n_rows * levels[TIER_LEVELS_MAX - 1].bytes;
                budget = floor(low + uniform(&random) * (high - low));
                for (uint32_t n = 1; n <= TABLE_TIERS_MAX; n++) {
                        struct tier_allocation a;

                        assert_int_equal(
                                allocate(weights, n_rows, levels, TIER_LEVELS_MAX, n, budget, &a),
                                0);
                        check_allocation(weights, n_rows, n_dims, levels, budget, &a);
                        assert_true(a.n_tiers <= n);
                        /* The same tiers, or 0.1 % better with more of them. */
                        assert_true(a.error <= error);
                        error = a.error;
                }
        }
}

/* ---- Cases that can be said in a line ---- */

static const struct tier_level two_levels[] = { { 100, 0.5 }, { 200, 0.25 } };

static void deal(const float *weights, size_t n_rows, const struct tier_allocation *a,
                 uint8_t *ret_tiers) {
        _cleanup_(freep) struct tier_histogram *histogram = histogram_of(weights, n_rows);
        _cleanup_(freep) struct tier_assigner *assigner = malloc(sizeof(*assigner));

        tier_assigner_init(assigner, histogram, a);
        for (size_t row = 0; row < n_rows; row++)
                ret_tiers[row] = tier_assign(assigner, weights[row]);
}

/* 1,000 rows, of which the budget lifts 250, and half a step is left; 3 blocks of the map. */
static void check_first_250(const float *weights, double unit_weight) {
        uint8_t tiers[1000];
        struct tier_allocation a;

        assert_int_equal(allocate(weights, 1000, two_levels, 2, 4, 100000 + 192 + 25050, &a), 0);
        assert_int_equal(a.n_tiers, 2);
        assert_int_equal(a.level[0], 0);
        assert_int_equal(a.level[1], 1);
        assert_int_equal(a.n_rows[0], 1000);
        assert_int_equal(a.n_rows[1], 250);
        assert_true(a.bytes == 100000 + 192 + 25000);
        assert_true(a.error == unit_weight * (750 * 0.5 + 250 * 0.25));
        deal(weights, 1000, &a, tiers);
        for (size_t row = 0; row < 1000; row++)
                assert_int_equal(tiers[row], row < 250);
}

static void test_equal_weights(void **state) {
        float weights[1000];

        (void)state;
        for (size_t i = 0; i < 1000; i++)
                weights[i] = 3;
        check_first_250(weights, 3);
        memset(weights, 0, sizeof(weights));
        check_first_250(weights, 1);
        /* What is no weight is none. */
        weights[0] = NAN;
        weights[1] = -1;
        weights[2] = INFINITY;
        weights[3] = -0.0f;
        check_first_250(weights, 1);
}

/* Every tenth row is used at all: these go first, then the others in their order. */
static void test_zero_weights(void **state) {
        float weights[1000] = { 0 };
        uint8_t tiers[1000];
        struct tier_allocation a;
        size_t n_others = 0;

        (void)state;
        for (size_t i = 9; i < 1000; i += 10)
                weights[i] = 1e-30f;
        assert_int_equal(allocate(weights, 1000, two_levels, 2, 4, 100000 + 192 + 25050, &a), 0);
        assert_int_equal(a.n_rows[1], 250);
        deal(weights, 1000, &a, tiers);
        for (size_t row = 0; row < 1000; row++)
                if (row % 10 == 9)
                        assert_int_equal(tiers[row], 1);
                else
                        assert_int_equal(tiers[row], n_others++ < 150);
        /* 50 fewer than are used. */
        assert_int_equal(allocate(weights, 1000, two_levels, 2, 4, 100000 + 192 + 5000, &a), 0);
        deal(weights, 1000, &a, tiers);
        for (size_t row = 0; row < 1000; row++)
                assert_int_equal(tiers[row], row % 10 == 9 && row < 500);
}

static void test_one_row(void **state) {
        const struct tier_level levels[] = { { 100, 0.5 }, { 200, 0.25 }, { 300, 0.125 } };
        const float weight = 7;
        struct tier_allocation a;

        (void)state;
        for (int bytes = 100; bytes < 500; bytes += 33) {
                assert_int_equal(allocate(&weight, 1, levels, 3, 4, bytes, &a), 0);
                assert_int_equal(a.n_tiers, 1);
                assert_int_equal(a.level[0], MIN(bytes / 100 - 1, 2));
                assert_int_equal(a.n_rows[0], 1);
                assert_true(a.error == 7 * levels[a.level[0]].error);
        }
}

static void test_no_space(void **state) {
        const float weights[] = { 1, 2, 3 };
        struct tier_allocation a = { .n_tiers = 99 };

        (void)state;
        assert_int_equal(allocate(weights, 3, two_levels, 2, 4, 299.9, &a), -ENOSPC);
        assert_int_equal(a.n_tiers, 99);
        assert_int_equal(allocate(weights, 3, two_levels, 2, 4, 300, &a), 0);
        assert_int_equal(a.n_tiers, 1);
        assert_int_equal(a.level[0], 0);
        /* A block of the map costs as much as it does. */
        assert_int_equal(allocate(weights, 3, two_levels, 2, 4, 463.9, &a), 0);
        assert_int_equal(a.n_tiers, 1);
        assert_int_equal(allocate(weights, 3, two_levels, 2, 4, 464, &a), 0);
        assert_int_equal(a.n_tiers, 2);
        assert_int_equal(a.n_rows[1], 1);
        /* Whatever there is: no map. */
        assert_int_equal(allocate(weights, 3, two_levels, 2, 4, 1e9, &a), 0);
        assert_int_equal(a.n_tiers, 1);
        assert_int_equal(a.level[0], 1);
}

/* Five classes of rows, a hundred times apart: each tier more pays, as far as there are any. */
static void test_four_tiers(void **state) {
        static const float classes[] = { 1e8f, 1e6f, 1e4f, 100, 1 };
        struct tier_level levels[TIER_LEVELS_MAX];
        float weights[5000];
        double error = INFINITY;

        (void)state;
        for (size_t i = 0; i < 5000; i++)
                weights[i] = classes[i % 5];
        for (uint32_t l = 0; l < TIER_LEVELS_MAX; l++)
                levels[l] = (struct tier_level){ 100 + 100 * l, pow(0.25, l) };
        for (uint32_t n = 1; n <= 4; n++) {
                struct tier_allocation a;

                assert_int_equal(allocate(weights, 5000, levels, TIER_LEVELS_MAX, n, 4e6, &a), 0);
                assert_int_equal(a.n_tiers, n);
                assert_true(a.error < error / 2);
                error = a.error;
        }
}

/* A row or two of a thousand that are all used alike. */
static void test_tier_must_pay(void **state) {
        struct tier_allocation a;
        float weights[1000];

        (void)state;
        for (size_t i = 0; i < 1000; i++)
                weights[i] = 1;
        assert_int_equal(allocate(weights, 1000, two_levels, 2, 4, 100000 + 192 + 100, &a), 0);
        assert_int_equal(a.n_tiers, 1);
        assert_int_equal(allocate(weights, 1000, two_levels, 2, 4, 100000 + 192 + 300, &a), 0);
        assert_int_equal(a.n_tiers, 2);
}

/* Levels that cost more for less, or more than their neighbours' mean, between the good ones. */
static void test_dominated(void **state) {
        static const struct tier_level good[] = { { 100, 1 }, { 200, 0.4 }, { 300, 0.2 } };
        static const struct tier_level all[] = { { 100, 1 },   { 120, 1 },   { 150, 0.9 },
                                                 { 200, 0.4 }, { 220, 0.5 }, { 290, 0.3 },
                                                 { 300, 0.2 }, { 400, 0.2 }, { 500, 7 } };
        static const uint32_t place[] = { 0, 3, 6 };
        uint64_t random = seed;
        float weights[1000];

        (void)state;
        random_weights(&random, 1000, weights);
        for (int i = 1; i < 20; i++) {
                struct tier_allocation a, b;

                assert_int_equal(allocate(weights, 1000, good, 3, 4, 1e5 + 1e4 * i, &a), 0);
                assert_int_equal(allocate(weights, 1000, all, 9, 4, 1e5 + 1e4 * i, &b), 0);
                assert_int_equal(a.n_tiers, b.n_tiers);
                assert_true(a.error == b.error && a.bytes == b.bytes);
                assert_memory_equal(a.n_rows, b.n_rows, sizeof(a.n_rows));
                for (uint32_t t = 0; t < a.n_tiers; t++)
                        assert_int_equal(place[a.level[t]], b.level[t]);
        }
}

/*
 * Records so small that the map counts: a row of tier 1 costs its position in level 2 as well. All
 * divisions into three tiers are tried; the weights fall so that rank is order.
 */
static void test_map_is_paid(void **state) {
        static const struct tier_level levels[] = { { 1, 1 }, { 2, 0.15 }, { 4, 0.01 } };
        static double sums[4481]; /* of the first weights */
        static float weights[4480];
        const double budget = 4480 + 640 + 1866;
        double best = INFINITY;
        struct tier_allocation a;

        (void)state;
        for (int i = 0; i < 4480; i++) {
                weights[i] = (float)exp(-i / 200.);
                sums[i + 1] = sums[i] + (double)weights[i];
        }
        for (int n1 = 1; n1 < 4480; n1++) {
                int n_blocks = (n1 + 447) / 448;
                double left = budget - 4480 - 640 - n1 - 64 * n_blocks;
                int n2 = left < 0 ? 0 : (int)MIN(left / 2, n1 - 1);

                if (n2)
                        best = MIN(best, sums[4480] - 0.85 * sums[n1] - 0.14 * sums[n2]);
        }
        assert_int_equal(allocate(weights, 4480, levels, 3, 3, budget, &a), 0);
        assert_int_equal(a.n_tiers, 3);
        printf("# %g of the optimum\n", a.error / best);
        assert_true(a.error < best * 1.005);
}

/* ---- The map ---- */

/* The same bytes as the format's own, sound to its checker, and rows are where counting says. */
static void check_map(const uint8_t *tiers, size_t n_rows, uint32_t n_tiers) {
        static const uint8_t rows[1]; /* never read */
        struct tier_allocation a = { .n_tiers = n_tiers, .level = { 0, 2, 3, 7 } };
        struct codec_table table = { .rows = rows };
        struct table_header *h = &table.contents.header;
        struct table_layout *layout = &table.contents.layout;
        _cleanup_(freep) struct table_tier_block *blocks = NULL, *expected = NULL;
        struct fault fault = { 0 };
        uint64_t offset = 0;

        for (size_t row = 0; row < n_rows; row++)
                for (uint32_t t = 0; t <= tiers[row]; t++)
                        a.n_rows[t]++;
        *h = header_of(n_rows, 16);
        describe(&a, stages, h);
        assert_int_equal(h->n_stages, stages[a.level[n_tiers - 1]]);
        if (table_layout_compute(h, layout, &fault) < 0)
                fail_msg("%s", fault.text);
        table.contents.tiers.length = layout->tiers_bytes;
        blocks = aligned_alloc(64, layout->tiers_bytes);
        expected = aligned_alloc(64, layout->tiers_bytes);
        memset(blocks, 0xa5, layout->tiers_bytes);

        table_tiers_fill(h, tiers, blocks);
        if (table_tiers_check(&table.contents, blocks, &fault) < 0)
                fail_msg("%s", fault.text);

        table.tiers = blocks;
        for (size_t row = 0; row < n_rows; row++) {
                struct codec_record record = codec_kernels_scalar.find(&table, row);

                assert_int_equal((uintptr_t)record.bytes - (uintptr_t)rows, offset);
                assert_int_equal(record.n_stages, stages[a.level[tiers[row]]]);
                offset += table_record_bytes(h, stages[a.level[tiers[row]]], 4);
        }
        assert_int_equal(offset, layout->rows_bytes);
}

static void test_map(void **state) {
        const size_t sizes[] = { 1, 2, 63, 64, 65, 447, 448, 449, 896, 897, 1344, 5000 };
        uint8_t tiers[5000];
        uint64_t random = seed;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                for (uint32_t n_tiers = 2; n_tiers <= TABLE_TIERS_MAX; n_tiers++) {
                        uint8_t top = (uint8_t)(n_tiers - 1);

                        memset(tiers, top, sizes[i]);
                        check_map(tiers, sizes[i], n_tiers);
                        memset(tiers, 0, sizes[i]);
                        tiers[sizes[i] - 1] = top;
                        check_map(tiers, sizes[i], n_tiers);
                        for (size_t row = 0; row < sizes[i]; row++)
                                tiers[row] = (uint8_t)below(&random, n_tiers);
                        tiers[sizes[i] / 2] = top;
                        check_map(tiers, sizes[i], n_tiers);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_exhaustive),    cmocka_unit_test(test_on_hull),
                cmocka_unit_test(test_promises),      cmocka_unit_test(test_equal_weights),
                cmocka_unit_test(test_zero_weights),  cmocka_unit_test(test_one_row),
                cmocka_unit_test(test_no_space),      cmocka_unit_test(test_four_tiers),
                cmocka_unit_test(test_tier_must_pay), cmocka_unit_test(test_dominated),
                cmocka_unit_test(test_map_is_paid),   cmocka_unit_test(test_map),
        };

        seed = test_seed();
        return cmocka_run_group_tests_name("tiers", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lagrangian allocation of levels to rows (Everett 1963; for quantizers, Shoham and Gersho 1988).
 * At a price for a byte, each row takes every step up whose gain (weight x error saved for a byte)
 * is above the price. With levels on a convex curve the steps' gains fall from step to step, so the
 * rows that take a step are the heaviest ones, and a tier is a number of them. The price at which
 * the budget is just kept is found by bisection, for every choice of levels in turn: a few
 * thousand, with some hundred look-ups in sums over the histogram for each.
 */
#include "tiers.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#define MIN_GAIN 0.001 /* of one tier more, as a share of the error */

/* A map position's share of its block. */
#define POSITION_BYTES ((double)sizeof(struct table_tier_block) / TABLE_TIER_BLOCK_ROWS)

/* One bin's rows, as many as it has; the heaviest bin comes first. */
struct group {
        double weight;        /* of one row */
        uint64_t rows_before; /* in the groups before this one */
        double weight_before; /* of these rows */
};

struct ranking {
        struct group *groups; /* n_groups, and one at the end for the sums */
        size_t n_groups;
};

/* One choice of levels, and what is dealt to them. */
struct trial {
        struct tier_level level[TABLE_TIERS_MAX];
        double gain[TABLE_TIERS_MAX]; /* [t]: error that the step to tier t saves for a byte */
        uint64_t n_rows[TABLE_TIERS_MAX];
        uint32_t n_tiers;
};

static size_t bin_of(float weight) {
        uint32_t bits;

        if (!(weight > 0 && weight <= FLT_MAX)) /* -0 and NaN as well */
                return 0;
        memcpy(&bits, &weight, sizeof(bits));
        return bits >> 15;
}

void tier_histogram_add(struct tier_histogram *histogram, const float *weights, size_t n_weights) {
        for (size_t i = 0; i < n_weights; i++) {
                size_t bin = bin_of(weights[i]);

                histogram->n[bin]++;
                if (bin)
                        histogram->weight[bin] += (double)weights[i];
        }
}

/* Groups of the bins that have rows. */
static int rank_rows(const struct tier_histogram *histogram, struct ranking *ret_ranking) {
        struct group *groups = malloc((TIER_BINS + 1) * sizeof(*groups)), end = { 0 };
        double mean = INFINITY, total = 0;
        size_t n_groups = 0;

        if (!groups)
                return -ENOMEM;
        for (size_t bin = 0; bin < TIER_BINS; bin++)
                total += histogram->weight[bin];
        for (size_t bin = TIER_BINS; bin-- > 0;) {
                double n = (double)histogram->n[bin];

                if (!histogram->n[bin])
                        continue;
                /* A mean that was rounded up past its bin's end must not disturb the order. */
                mean = total > 0 ? MIN(mean, histogram->weight[bin] / n) : 1;
                end.weight = mean;
                groups[n_groups++] = end;
                end.rows_before += histogram->n[bin];
                end.weight_before += mean * n;
        }
        groups[n_groups] = end;
        *ret_ranking = (struct ranking){ groups, n_groups };
        return 0;
}

/* Rows for which weight x gain is above the price, or equal to it if `equal`. */
static uint64_t rows_above(const struct ranking *ranking, double gain, double price, bool equal) {
        size_t low = 0, high = ranking->n_groups;

        while (low < high) {
                size_t middle = (low + high) / 2;
                double value = ranking->groups[middle].weight * gain;

                if (value > price || (equal && value == price))
                        low = middle + 1;
                else
                        high = middle;
        }
        return ranking->groups[low].rows_before;
}

/* Of the `n` heaviest rows. */
static double weight_of_top(const struct ranking *ranking, uint64_t n) {
        size_t low = 0, high = ranking->n_groups; /* the last group that begins at or before n */

        while (low < high) {
                size_t middle = (low + high + 1) / 2;

                if (ranking->groups[middle].rows_before <= n)
                        low = middle;
                else
                        high = middle - 1;
        }
        return ranking->groups[low].weight_before +
               (double)(n - ranking->groups[low].rows_before) * ranking->groups[low].weight;
}

/* As the layout has it (proto/table.c). Never falls when a tier grows, rounding included. */
static double trial_bytes(const struct trial *trial) {
        double bytes = (double)trial->n_rows[0] * trial->level[0].bytes;

        for (uint32_t t = 1; t < trial->n_tiers; t++) {
                uint64_t n_blocks = div_round_up(trial->n_rows[t - 1], TABLE_TIER_BLOCK_ROWS);

                bytes += (double)trial->n_rows[t] *
                         (trial->level[t].bytes - trial->level[t - 1].bytes);
                bytes += (double)(n_blocks * sizeof(struct table_tier_block));
        }
        return bytes;
}

static double trial_error(const struct trial *trial, const struct ranking *ranking) {
        double error = 0, above = 0;

        for (uint32_t t = trial->n_tiers; t-- > 0;) {
                double weight = weight_of_top(ranking, trial->n_rows[t]);

                error += (weight - above) * trial->level[t].error;
                above = weight;
        }
        return error;
}

/*
 * Takes the levels whose bits are set. False when they are not convex: then the choice without the
 * ones that are off the hull does as well, and is tried too.
 */
static bool trial_init(struct trial *trial, const struct tier_level *levels, uint32_t chosen) {
        *trial = (struct trial){ .gain[0] = INFINITY };
        for (; chosen; chosen &= chosen - 1)
                trial->level[trial->n_tiers++] = levels[__builtin_ctz(chosen)];
        for (uint32_t t = 1; t < trial->n_tiers; t++) {
                const struct tier_level *to = &trial->level[t], *from = to - 1;
                /* A row that may rise further has a position in the next level of the map. */
                double map_bytes = t + 1 < trial->n_tiers ? POSITION_BYTES : 0;

                trial->gain[t] = (from->error - to->error) / (to->bytes - from->bytes + map_bytes);
                if (!(trial->gain[t] > 0 && trial->gain[t] < trial->gain[t - 1]))
                        return false;
        }
        return true;
}

/* Every row takes the steps that gain more than the price. True when the budget allows it. */
static bool trial_take(struct trial *trial, const struct ranking *ranking, double price,
                       double budget_bytes) {
        for (uint32_t t = 1; t < trial->n_tiers; t++)
                trial->n_rows[t] = rows_above(ranking, trial->gain[t], price, false);
        return trial_bytes(trial) <= budget_bytes;
}

/* The least price that the budget allows, to the last bit: doubles are ordered like their bits. */
static double find_price(struct trial *trial, const struct ranking *ranking, double budget_bytes) {
        double price = INFINITY;
        uint64_t low = 0, high;

        memcpy(&high, &price, sizeof(high));
        while (low < high) {
                uint64_t middle = low + (high - low) / 2;

                memcpy(&price, &middle, sizeof(price));
                if (trial_take(trial, ranking, price, budget_bytes))
                        high = middle;
                else
                        low = middle + 1;
        }
        memcpy(&price, &high, sizeof(price));
        return price;
}

/* As many of `n_max` rows in tier t as the budget allows. */
static void trial_fill(struct trial *trial, uint32_t t, uint64_t n_max, double budget_bytes) {
        uint64_t low = trial->n_rows[t], high = n_max;

        while (low < high) {
                trial->n_rows[t] = low + (high - low + 1) / 2;
                if (trial_bytes(trial) <= budget_bytes)
                        low = trial->n_rows[t];
                else
                        high = trial->n_rows[t] - 1;
        }
        trial->n_rows[t] = low;
}

/* False when the budget does not allow it, or when a tier stays empty: fewer tiers do as well. */
static bool trial_allocate(struct trial *trial, const struct ranking *ranking,
                           double budget_bytes) {
        double price;

        trial->n_rows[0] = ranking->groups[ranking->n_groups].rows_before;
        if (!trial_take(trial, ranking, INFINITY, budget_bytes))
                return false;
        price = find_price(trial, ranking, budget_bytes);
        trial_take(trial, ranking, price, budget_bytes);
        /* Below this price all steps that gain exactly as much would be taken: not all can be. */
        for (uint32_t t = 1; t < trial->n_tiers; t++) {
                uint64_t n_max = rows_above(ranking, trial->gain[t], price, true);

                /* Rounding can make two steps of a row gain the same. */
                trial_fill(trial, t, MIN(n_max, trial->n_rows[t - 1]), budget_bytes);
                if (!trial->n_rows[t] || trial->n_rows[t] == trial->n_rows[t - 1])
                        return false;
        }
        return true;
}

static void trial_report(const struct trial *trial, uint32_t chosen, double error,
                         struct tier_allocation *ret_allocation) {
        *ret_allocation = (struct tier_allocation){
                .n_tiers = trial->n_tiers,
                .error = error,
                .bytes = trial_bytes(trial),
        };
        memcpy(ret_allocation->n_rows, trial->n_rows, sizeof(trial->n_rows));
        for (uint32_t t = 0; chosen; t++, chosen &= chosen - 1)
                ret_allocation->level[t] = (uint32_t)__builtin_ctz(chosen);
}

int tiers_allocate(const struct tier_histogram *histogram, const struct tier_level *levels,
                   uint32_t n_levels, uint32_t n_tiers_max, double budget_bytes,
                   struct tier_allocation *ret_allocation) {
        struct tier_allocation best[TABLE_TIERS_MAX + 1] = { 0 }; /* [number of tiers] */
        _cleanup_(freep) struct group *groups = NULL;
        struct ranking ranking;
        uint32_t n_tiers = 1;
        int r;

        assert(n_levels >= 1 && n_levels <= TIER_LEVELS_MAX);
        assert(n_tiers_max >= 1 && n_tiers_max <= TABLE_TIERS_MAX);
        for (uint32_t i = 1; i < n_levels; i++)
                assert(levels[i].bytes > levels[i - 1].bytes);

        r = rank_rows(histogram, &ranking);
        if (r < 0)
                return r;
        groups = ranking.groups;
        for (uint32_t chosen = 1; chosen < 1u << n_levels; chosen++) {
                uint32_t n = (uint32_t)__builtin_popcount(chosen);
                struct trial trial;
                double error;

                if (n > n_tiers_max || !trial_init(&trial, levels, chosen) ||
                    !trial_allocate(&trial, &ranking, budget_bytes))
                        continue;
                error = trial_error(&trial, &ranking);
                if (!best[n].n_tiers || error < best[n].error)
                        trial_report(&trial, chosen, error, &best[n]);
        }
        if (!best[1].n_tiers)
                return -ENOSPC;
        for (uint32_t n = 2; n <= n_tiers_max; n++)
                if (best[n].n_tiers && best[n].error < best[n_tiers].error * (1 - MIN_GAIN))
                        n_tiers = n;
        *ret_allocation = best[n_tiers];
        return 0;
}

void tier_assigner_init(struct tier_assigner *assigner, const struct tier_histogram *histogram,
                        const struct tier_allocation *allocation) {
        uint64_t rank = 0;

        for (size_t bin = TIER_BINS; bin-- > 0; rank += histogram->n[bin])
                assigner->rank[bin] = rank;
        memcpy(assigner->n_rows, allocation->n_rows, sizeof(assigner->n_rows));
}

uint8_t tier_assign(struct tier_assigner *assigner, float weight) {
        uint64_t rank = assigner->rank[bin_of(weight)]++;
        uint8_t tier = 0;

        for (uint32_t t = 1; t < TABLE_TIERS_MAX; t++)
                tier += rank < assigner->n_rows[t]; /* 0 rows in tiers that there are not */
        return tier;
}

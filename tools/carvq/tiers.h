/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rows get how many bytes: rows that are used more get more. A level is what a row may cost
 * and the error that it then has; at most TABLE_TIERS_MAX levels are chosen, and the rows are dealt
 * to them so that the sum of weight x error is least within a budget. Rows are known by a histogram
 * of their weights alone, so memory does not grow with the table. Trusts its caller; pure, one
 * thread at a time, and the same input gives the same tiers.
 */
#pragma once

#include "proto/table.h"

#define TIER_LEVELS_MAX (TABLE_STAGES_MAX + 1u) /* a row may have no stages */

/* By the upper 16 bits of the weight behind its sign: neighbours in a bin differ by at most 2^-8 */
#define TIER_BINS 65536u

struct tier_level {
        double bytes; /* of a record */
        double error; /* of a row of weight 1 */
};

/* A megabyte, for the heap. Begin with zeros. */
struct tier_histogram {
        uint64_t n[TIER_BINS]; /* rows */
        double weight[TIER_BINS];
};

/* Weights are finite and not negative; anything else counts as 0. */
void tier_histogram_add(struct tier_histogram *histogram, const float *weights, size_t n_weights);

struct tier_allocation {
        uint32_t n_tiers;
        uint32_t level[TABLE_TIERS_MAX];  /* of each tier, ascending */
        uint64_t n_rows[TABLE_TIERS_MAX]; /* of at least this tier; [0]: all */
        double error;                     /* sum over the rows of weight x error */
        double bytes;                     /* of all records and of the tier map */
};

/*
 * `levels` have ascending bytes; those that are no use (a larger error, or off the convex hull) are
 * left alone. A tier more must take 0.1 % off the error to be worth having, and no tier is empty.
 * `budget_bytes` is for records and tier map, not for the padding around their chunks; with two
 * tiers or more, what is left of it is less than one step of one row, or than a block of the map.
 * Weights that are all 0 count as all 1. -ENOSPC: the budget is less than the lowest level for all
 * rows; -ENOMEM.
 */
int tiers_allocate(const struct tier_histogram *histogram, const struct tier_level *levels,
                   uint32_t n_levels, uint32_t n_tiers_max, double budget_bytes,
                   struct tier_allocation *ret_allocation);

/* Deals the rows, ranked by bin from the heaviest down, rows of a bin in their order. For the heap.
 */
struct tier_assigner {
        uint64_t rank[TIER_BINS]; /* of the next row of each bin */
        uint64_t n_rows[TABLE_TIERS_MAX];
};

void tier_assigner_init(struct tier_assigner *assigner, const struct tier_histogram *histogram,
                        const struct tier_allocation *allocation);

/* The tier of the next row: call it once for each row of the histogram, in the order of rows. */
uint8_t tier_assign(struct tier_assigner *assigner, float weight);

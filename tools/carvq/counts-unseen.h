/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a row of count 0 is expected to weigh: rows that were never seen are read sooner or later,
 * and in most tables they are nearly all rows. Pure; one thread at a time; memory is 16 bytes for
 * each UNSEEN_BLOCK_ROWS rows.
 */
#pragma once

#include "proto/base.h"

#define UNSEEN_BLOCK_ROWS 1024u

struct unseen_block {
        double share; /* once estimated; before, the least count above 0 */
        uint32_t n_least, n_unseen;
};

struct unseen {
        struct unseen_block *blocks;
        uint64_t n_rows;
        double total;
};

/* Begin with zeros. -ENOMEM. */
int unseen_init(struct unseen *unseen, uint64_t n_rows);
void unseen_deinit(struct unseen *unseen);

/* Counts of rows [row_first, row_first + n_counts): finite and not negative; each row once. */
void unseen_add(struct unseen *unseen, uint64_t row_first, const float *counts, size_t n_counts);

/* After the last row. */
void unseen_estimate(struct unseen *unseen);

/* The weight of a row of count 0: at most the least count above 0, which a row of count 1 has. */
static inline double unseen_share(const struct unseen *unseen, uint64_t row) {
        return unseen->blocks[row / UNSEEN_BLOCK_ROWS].share;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much each row of a table is used, as weights for the tiers: from a file with one count for
 * each row, or from the row's number alone. Every byte of a file is hostile. Counts are read in
 * blocks, so memory does not grow with the table. One thread at a time.
 */
#pragma once

#include "proto/base.h"

struct counts;

/*
 * `path` is "rank" (row i weighs 1 / (i + 2.7); for a file of that name write "./rank"), an .npy
 * file of integers or floats, n_rows or n_rows x 1, or a text of one number a line, where # begins
 * a comment and empty lines do not count. Files are read once to the end, so that what is wrong
 * with a count is said here. -EBADMSG (damaged, foreign, too few or too many counts), -EDOM (a
 * count that is no number from 0 to 1e38; the fault names the row), -EOPNOTSUPP (a dtype
 * or layout we do not read), -ENOMEM, or the errno of open and read.
 */
int counts_open(const char *path, uint64_t n_rows, struct counts **ret_counts,
                struct fault *ret_fault);
void counts_free(struct counts *counts);
static inline void counts_freep(struct counts **counts) {
        counts_free(*counts);
}

/*
 * Weights of rows [row_first, row_first + n_rows), which must be rows of the table: finite, and
 * for a row of count 0 what rows that were never seen are expected to weigh. A text is read on from
 * where the last call ended; going back in it means to begin anew. The errors of counts_open(),
 * should the file have changed since.
 */
int counts_read(struct counts *counts, uint64_t row_first, size_t n_rows, float *ret_weights,
                struct fault *ret_fault);

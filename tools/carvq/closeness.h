/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How close decoded rows are to the rows they stand for. Sums over rows: added up in row order they
 * are the same for every number of threads.
 */
#pragma once

#include "proto/base.h"

struct closeness {
        double error;  /* sum of squared differences */
        double energy; /* sum of squares of the rows */
        double cosine_sum, cosine_min;
        double max_abs_error;
        uint64_t n_rows;
};

void closeness_init(struct closeness *closeness);
void closeness_add_row(struct closeness *closeness, const float *row, const float *decoded,
                       uint32_t n_dims);
void closeness_add(struct closeness *closeness, const struct closeness *other);
double closeness_rel_mse(const struct closeness *closeness);
double closeness_cosine_mean(const struct closeness *closeness);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded sample of a table's rows: evenly spread, one row from each of as many equal stretches
 * as fit, at a place in the stretch that the seed decides.
 */
#pragma once

#include "source.h"

struct sample {
        float *rows;       /* [n_rows][n_dims] */
        uint64_t *indices; /* [n_rows]: ascending, in the table */
        size_t n_rows;
};

/* Of rows [row_first, row_first + n_rows); at most max_bytes, at least one row. */
int sample_read(struct source *source, uint64_t row_first, uint64_t n_rows, size_t max_bytes,
                uint64_t seed, unsigned n_threads, struct sample *ret_sample,
                struct fault *ret_fault);
void sample_deinit(struct sample *sample);

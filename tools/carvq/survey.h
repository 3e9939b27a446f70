/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at every row before bits are dealt out. Codes reach some five standard deviations; a row
 * with a spike far beyond, such as the one that a language model keeps for the beginning of a text,
 * would lose it, and no mean would show. Such rows are named here and stored as integers. Of the
 * others it is known how much there is of them.
 */
#pragma once

#include "adaptor.h"
#include "progress.h"
#include "sample.h"

struct survey {
        uint8_t *rows; /* [n_rows]: SURVEY_OUTLIER, or the class of what codes have to represent */
        uint64_t n_outliers;
};

#define SURVEY_OUTLIER UINT8_MAX

static inline bool survey_is_outlier(const struct survey *survey, uint64_t row) {
        return survey->rows[row] == SURVEY_OUTLIER;
}

/* Energy of what the adaptor leaves of a row that is no outlier, within 10 %: 1 is the mean. */
float survey_energy(const struct survey *survey, uint64_t row);

/*
 * `solver` may be NULL. With row scales a row is measured against its own size: rows of a few large
 * values are not meant, but rows of one. More than one outlier in SURVEY_SHARE rows are none: then
 * the values are like that, and codebooks learn it.
 */
#define SURVEY_SHARE 256u

int survey_rows(struct source *source, const struct sample *sample,
                const struct adaptor_solver *solver, bool row_scale, unsigned n_threads,
                struct progress *progress, struct survey *ret_survey, struct fault *ret_fault);
void survey_deinit(struct survey *survey);

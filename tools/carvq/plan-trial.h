/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters judged by the error of rows that nothing was trained on: codebooks are trained quickly
 * on some of the sample, and others of it coded. Main thread.
 */
#pragma once

#include "plan.h"

struct trial {
        const struct plan_request *request;
        struct progress *progress;
        uint64_t n_done;            /* trials */
        struct sample train, held;  /* both of the sample, evenly */
        struct quantizer quantizer; /* of the last trial, trained */
};

/* Row 7, 15, 23 ... are held out, as in adaptor_train(): it never saw them either. */
int trial_init(struct trial *trial, const struct plan_request *request, const struct sample *sample,
               struct progress *progress);
void trial_deinit(struct trial *trial);

/*
 * Relative error of the held-out rows under these parameters, infinite where they cannot represent
 * the table at all. `fit` (NULL: no adaptor) has been fitted, unless it comes after the codes; in
 * any order but BEFORE it is fitted again.
 */
int trial_run(struct trial *trial, const struct table_header *header, struct adaptor_fit *fit,
              enum adaptor_order order, double *ret_error, struct fault *ret_fault);

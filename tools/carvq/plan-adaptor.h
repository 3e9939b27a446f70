/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which adaptor a table gets, if any, and whether it comes before its codes: what leaves the least
 * error on held-out rows at equal bytes. With it the row scale is decided. Main thread.
 */
#pragma once

#include "plan.h"

/* Fewer rows in the sample: nothing can be held out. */
#define PLAN_ROWS_MIN 64u

/*
 * *header has codes of about the right rate; adaptor and row scale are set there, adaptor, order
 * and note in *plan. The sample has at least PLAN_ROWS_MIN rows.
 */
int plan_decide_adaptor(const struct plan_request *request, const struct sample *sample,
                        struct progress *progress, struct table_header *header, struct plan *plan,
                        struct fault *ret_fault);

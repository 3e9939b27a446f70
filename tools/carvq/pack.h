/* SPDX-License-Identifier: Apache-2.0 */
/* From a selected tensor to a .carvq file: sample, plan, train, encode, commit. */
#pragma once

#include "plan.h"

struct pack_result {
        struct table_header header;
        struct closeness closeness;
        char note[PLAN_NOTE_BYTES]; /* why there is an adaptor or not; empty if nobody asked */
};

/* `request->header` holds codec and parameters; its n_rows and n_dims are the tensor's. */
int pack_table(struct source *source, const char *out_path, const struct plan_request *request,
               struct progress *progress, struct pack_result *ret_result, struct fault *ret_fault);

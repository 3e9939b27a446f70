/* SPDX-License-Identifier: Apache-2.0 */
/* One row by one set of kernels, with scratch of exactly the size that they ask for. */
#pragma once

#include "lib/codec/prepared.h"

static inline void decode_row(const struct codec_kernels *set, const struct codec_table *table,
                              const struct codec_record *record, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        size_t stride = codec_scratch_round(h->n_dims);
        float *scratch = NULL, *addends = NULL;

        if (codec_runs_batches(set, table)) {
                scratch = aligned_alloc(CODEC_SCRATCH_ALIGNMENT,
                                        codec_scratch_floats(h) * sizeof(float));
                addends = aligned_alloc(CODEC_SCRATCH_ALIGNMENT, stride * sizeof(float));
                set->adaptor(table, record, 1, scratch, stride, addends);
        }
        set->decode[h->codec](table, record, addends, ret_values);
        free(scratch);
        free(addends);
}

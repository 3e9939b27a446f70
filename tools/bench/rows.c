/* SPDX-License-Identifier: Apache-2.0 */
#include "rows.h"

void rows_decode(struct codec_context *context, const struct codec_table *table,
                 const uint64_t *ids, size_t n_ids, uint8_t type, void *ret_rows) {
        const struct codec_request request = {
                .ids = ids,
                .n_ids = n_ids,
                .n_cols = table->contents.header.n_dims,
                .scale = 1,
                .type = type,
                .row_stride_bytes = table->contents.header.n_dims * codec_type_bytes(type),
                .out = ret_rows,
        };
        struct codec_cost cost = { 0 };

        codec_decode_all(context, table, &request, &cost);
}

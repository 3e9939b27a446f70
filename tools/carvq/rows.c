/* SPDX-License-Identifier: Apache-2.0 */
/* A context for each call: calls are for thousands of rows, so that it costs nothing. */
#include "rows.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

int rows_decode(const struct codec_file *file, uint64_t row_first, size_t n_rows, float *ret_values,
                struct fault *ret_fault) {
        const struct table_header *h = &file->table.contents.header;
        _cleanup_(codec_context_deinit) struct codec_context context;
        _cleanup_(freep) uint64_t *ids = malloc(n_rows * sizeof(uint64_t));
        struct codec_cost cost = { 0 };
        int r;

        codec_context_init(&context, codec_kernels_choose(codec_cpu_features()));
        r = ids ? codec_context_reserve(&context, &file->table) : -ENOMEM;
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_rows; i++)
                ids[i] = row_first + i;

        const struct codec_request request = {
                .ids = ids,
                .n_ids = n_rows,
                .n_cols = h->n_dims,
                .scale = 1,
                .type = CODEC_TYPE_F32,
                .row_stride_bytes = h->n_dims * sizeof(float),
                .out = ret_values,
        };
        codec_decode_all(&context, &file->table, &request, &cost);
        for (size_t i = 0; i < n_rows * h->n_dims; i++)
                if (!isfinite(ret_values[i]))
                        return fault_set(ret_fault, -EDOM,
                                         "row %" PRIu64 ", column %" PRIu64
                                         " decodes to %g, expected a finite value",
                                         row_first + i / h->n_dims, (uint64_t)i % h->n_dims,
                                         (double)ret_values[i]);
        return 0;
}

void rows_release(const struct codec_file *file, uint64_t row_first, size_t n_rows) {
        /* Records lie in row order. */
        struct codec_record from = codec_kernels_scalar.find(&file->table, row_first);
        struct codec_record last = codec_kernels_scalar.find(&file->table, row_first + n_rows - 1);
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t first = (uint64_t)(from.bytes - (const uint8_t *)file->map);
        uint64_t end = (uint64_t)(last.bytes + last.n_bytes - (const uint8_t *)file->map);

        /* Advice only: a page shared with a neighbour comes back from the page cache. */
        first = first / page * page;
        (void)madvise((uint8_t *)file->map + first, end - first, MADV_DONTNEED);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Pure; both sides compute it from what came over the socket and never from shared memory. */
#include "cache.h"

#include "ring.h"
#include "table.h"

int cache_layout_compute(uint32_t n_sets, uint32_t n_dims, struct cache_layout *ret_layout,
                         struct fault *ret_fault) {
        struct cache_layout l = { .n_sets = n_sets, .n_dims = n_dims };

        if (n_sets < 1 || n_sets > CACHE_SETS_MAX)
                return fault_set(ret_fault, -EINVAL,
                                 "a cache of %" PRIu32 " sets, expected 1 to %" PRIu32, n_sets,
                                 CACHE_SETS_MAX);
        if (n_dims < 1 || n_dims > TABLE_DIMS_MAX)
                return fault_set(ret_fault, -EINVAL,
                                 "a cache of rows of %" PRIu32 " values, expected 1 to %u", n_dims,
                                 (unsigned)TABLE_DIMS_MAX);
        /* At most 2^24 x 2^3 x 2^18: nothing wraps. */
        l.row_stride_bytes = align_up((uint64_t)n_dims * sizeof(float), 64);
        l.rows_offset = align_up((uint64_t)n_sets * sizeof(cache_set), RING_PAGE_BYTES);
        l.cache_bytes = align_up(cache_row_offset(&l, cache_slots(&l)), RING_PAGE_BYTES);
        if (l.cache_bytes > RING_BYTES_MAX)
                return fault_set(ret_fault, -EINVAL,
                                 "a cache of %" PRIu64 " bytes, expected at most %" PRIu64,
                                 l.cache_bytes, RING_BYTES_MAX);
        *ret_layout = l;
        return 0;
}

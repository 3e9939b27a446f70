/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of the rings: pure functions over private copies. They trust nothing and form no sum
 * before it is known not to wrap.
 */
#include "ring.h"

#include <math.h>

static int check_entries(const char *field, uint32_t entries, uint32_t min,
                         struct fault *ret_fault) {
        if (entries < min || entries > RING_ENTRIES_MAX || (entries & (entries - 1)))
                return fault_set(ret_fault, -EINVAL,
                                 "%s is %" PRIu32 ", expected a power of two, %" PRIu32 " to %u",
                                 field, entries, min, RING_ENTRIES_MAX);
        return 0;
}

static int check_area(const char *field, uint64_t bytes, struct fault *ret_fault) {
        if (!bytes || bytes % RING_PAGE_BYTES || bytes > RING_BYTES_MAX)
                return fault_set(ret_fault, -EINVAL,
                                 "%s is %" PRIu64 ", expected a multiple of %u, at most 2^40",
                                 field, bytes, RING_PAGE_BYTES);
        return 0;
}

int ring_layout_compute(const struct ring_geometry *g, struct ring_layout *ret_layout,
                        struct fault *ret_fault) {
        struct ring_layout l = { .geometry = *g };
        int r;

        r = check_entries("sq_entries", g->sq_entries, 1, ret_fault);
        if (r < 0)
                return r;
        r = check_entries("cq_entries", g->cq_entries, g->sq_entries, ret_fault);
        if (r < 0)
                return r;
        r = check_area("ids_bytes", g->ids_bytes, ret_fault);
        if (r < 0)
                return r;
        r = check_area("arena_bytes", g->arena_bytes, ret_fault);
        if (r < 0)
                return r;

        l.sq_offset = RING_PAGE_BYTES;
        l.cq_offset = l.sq_offset +
                      align_up(g->sq_entries * sizeof(struct ring_submission), RING_PAGE_BYTES);
        l.ids_offset = l.cq_offset +
                       align_up(g->cq_entries * sizeof(struct ring_completion), RING_PAGE_BYTES);
        l.arena_offset = l.ids_offset + g->ids_bytes;
        l.ring_bytes = l.arena_offset + g->arena_bytes;
        *ret_layout = l;
        return 0;
}

static int check_fields(const struct ring_submission *s, struct fault *ret_fault) {
        const struct {
                const char *field;
                uint32_t value, min, max;
        } fields[] = {
                { "n_ids", s->n_ids, 1, RING_IDS_MAX },
                { "type", s->type, 0, RING_TYPE_BF16 },
                { "pooling", s->pooling, 0, RING_POOLING_MEAN },
                { "out_of_range", s->out_of_range, 0, RING_OUT_OF_RANGE_ZERO },
                { "n_bags", s->n_bags, s->pooling ? 1 : 0, s->pooling ? RING_IDS_MAX : 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
                if (fields[i].value < fields[i].min || fields[i].value > fields[i].max)
                        return fault_set(ret_fault, -EINVAL,
                                         "%s is %" PRIu32 ", expected %" PRIu32 " to %" PRIu32,
                                         fields[i].field, fields[i].value, fields[i].min,
                                         fields[i].max);
        if (s->flags & ~RING_SUBMISSION_FLAGS)
                return fault_set(ret_fault, -EINVAL, "flags has unknown bits: 0x%x", s->flags);
        if (!isfinite(s->scale))
                return fault_set(ret_fault, -EINVAL, "scale is not a finite number");
        if (!s->pooling && s->bags_offset)
                return fault_set(ret_fault, -EINVAL, "bags_offset is set without pooling");
        for (size_t i = 0; i < sizeof(s->reserved); i++)
                if (s->reserved[i])
                        return fault_set(ret_fault, -EINVAL, "reserved byte %zu is not 0", i);
        return 0;
}

/* An array of u64 in the id area. */
static int check_ids(const char *field, uint64_t offset, uint32_t n, const struct ring_layout *l,
                     struct fault *ret_fault) {
        if (offset % sizeof(uint64_t) ||
            !range_inside(offset, (uint64_t)n * sizeof(uint64_t), l->geometry.ids_bytes))
                return fault_set(ret_fault, -EINVAL,
                                 "%s is %" PRIu64 ", expected a multiple of 8 with %" PRIu32
                                 " words inside the id area's %" PRIu64 " bytes",
                                 field, offset, n, l->geometry.ids_bytes);
        return 0;
}

int ring_submission_check(const struct ring_submission *s, const struct ring_layout *l,
                          uint32_t n_dims, uint32_t *ret_n_rows, uint32_t *ret_n_cols,
                          struct fault *ret_fault) {
        uint32_t n_rows, n_cols, value_bytes;
        uint64_t row_bytes, out_bytes;
        int r;

        r = check_fields(s, ret_fault);
        if (r < 0)
                return r;
        r = check_ids("ids_offset", s->ids_offset, s->n_ids, l, ret_fault);
        if (r < 0)
                return r;
        r = check_ids("bags_offset", s->bags_offset, s->n_bags, l, ret_fault);
        if (r < 0)
                return r;

        if (s->col_first >= n_dims || s->n_cols > n_dims - s->col_first)
                return fault_set(ret_fault, -EINVAL,
                                 "columns %" PRIu32 " + %" PRIu32 " leave the row of %" PRIu32,
                                 s->col_first, s->n_cols, n_dims);
        n_cols = s->n_cols ? s->n_cols : n_dims - s->col_first;
        n_rows = s->pooling ? s->n_bags : s->n_ids;
        value_bytes = s->type == RING_TYPE_F32 ? 4 : 2;
        row_bytes = (uint64_t)n_cols * value_bytes;

        if (s->row_stride_bytes < row_bytes || s->row_stride_bytes % value_bytes)
                return fault_set(ret_fault, -EINVAL,
                                 "row_stride_bytes is %" PRIu64 ", expected a multiple of %" PRIu32
                                 ", at least %" PRIu64,
                                 s->row_stride_bytes, value_bytes, row_bytes);
        if (s->out_offset % RING_OUT_ALIGNMENT ||
            __builtin_mul_overflow(s->row_stride_bytes, (uint64_t)n_rows - 1, &out_bytes) ||
            __builtin_add_overflow(out_bytes, row_bytes, &out_bytes) ||
            !range_inside(s->out_offset, out_bytes, l->geometry.arena_bytes))
                return fault_set(ret_fault, -EINVAL,
                                 "out_offset is %" PRIu64
                                 ", expected a multiple of %u with %" PRIu32
                                 " rows of stride %" PRIu64 " inside the arena's %" PRIu64 " bytes",
                                 s->out_offset, RING_OUT_ALIGNMENT, n_rows, s->row_stride_bytes,
                                 l->geometry.arena_bytes);
        *ret_n_rows = n_rows;
        *ret_n_cols = n_cols;
        return 0;
}

int ring_distance(uint32_t ahead, uint32_t behind, uint32_t n_max, uint32_t *ret_n) {
        uint32_t n = ahead - behind; /* free-running indices: wraps as intended */

        if (n > n_max)
                return -EPROTO;
        *ret_n = n;
        return 0;
}

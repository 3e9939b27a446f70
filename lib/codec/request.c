/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check of a request: pure, any thread. Trusts that the request and its arrays are private to
 * the caller and do not change afterwards; trusts no value in them.
 */
#include "codec.h"

#include <math.h>

size_t codec_type_bytes(uint32_t type) {
        switch (type) {
        case CODEC_TYPE_F32:
                return 4;
        case CODEC_TYPE_F16:
        case CODEC_TYPE_BF16:
                return 2;
        default:
                return 0;
        }
}

uint64_t codec_request_rows(const struct codec_request *request) {
        return request->pooling ? request->n_bags : request->n_ids;
}

/* ---- The check ---- */

static int check_bags(const struct codec_request *request, struct fault *ret_fault) {
        const uint64_t *offsets = request->bag_offsets;

        if (!request->pooling) {
                if (offsets || request->n_bags)
                        return fault_set(ret_fault, -EINVAL,
                                         "bags are given (%" PRIu64 "), expected none without"
                                         " pooling",
                                         request->n_bags);
                return 0;
        }
        if (!offsets || !request->n_bags)
                return fault_set(ret_fault, -EINVAL,
                                 "n_bags is 0, expected at least 1 with pooling");
        if (offsets[0] != 0)
                return fault_set(ret_fault, -EINVAL, "bag_offsets[0] is %" PRIu64 ", expected 0",
                                 offsets[0]);
        for (uint64_t i = 1; i < request->n_bags; i++)
                if (offsets[i] < offsets[i - 1])
                        return fault_set(ret_fault, -EINVAL,
                                         "bag_offsets[%" PRIu64 "] is %" PRIu64
                                         ", expected at least %" PRIu64 ", the one before",
                                         i, offsets[i], offsets[i - 1]);
        if (offsets[request->n_bags - 1] > request->n_ids)
                return fault_set(ret_fault, -EINVAL,
                                 "bag_offsets[%" PRIu64 "] is %" PRIu64
                                 ", expected at most %" PRIu64 ", the number of ids",
                                 request->n_bags - 1, offsets[request->n_bags - 1], request->n_ids);
        return 0;
}

static int check_shape(const struct codec_request *request, const struct table_header *h,
                       struct fault *ret_fault) {
        uint64_t row_bytes = (uint64_t)request->n_cols * codec_type_bytes(request->type);

        if (!row_bytes && request->n_cols)
                return fault_set(ret_fault, -EINVAL,
                                 "output type is %u, expected 0 (f32), 1 (f16) or 2 (bf16)",
                                 request->type);
        if (request->pooling > CODEC_POOLING_MEAN)
                return fault_set(ret_fault, -EINVAL,
                                 "pooling is %u, expected 0 (none), 1 (sum) or 2 (mean)",
                                 request->pooling);
        if (request->out_of_range > CODEC_OUT_OF_RANGE_ZERO)
                return fault_set(ret_fault, -EINVAL,
                                 "out-of-range policy is %u, expected 0 (error) or 1 (zero row)",
                                 request->out_of_range);
        if (!request->n_cols || !range_inside(request->col_first, request->n_cols, h->n_dims))
                return fault_set(ret_fault, -EINVAL,
                                 "columns are %" PRIu32 " from %" PRIu32
                                 ", expected at least 1 inside the table's %" PRIu32,
                                 request->n_cols, request->col_first, h->n_dims);
        if (request->row_stride_bytes < row_bytes)
                return fault_set(ret_fault, -EINVAL,
                                 "row stride is %" PRIu64 " bytes, expected at least %" PRIu64,
                                 request->row_stride_bytes, row_bytes);
        if (!isfinite(request->scale))
                return fault_set(ret_fault, -EINVAL, "scale is %f, expected a finite number",
                                 (double)request->scale);
        return 0;
}

int codec_request_check(const struct codec_request *request, const struct table_header *header,
                        uint64_t *ret_bad_index, struct fault *ret_fault) {
        int r;

        r = check_shape(request, header, ret_fault);
        if (r < 0)
                return r;
        r = check_bags(request, ret_fault);
        if (r < 0)
                return r;

        if (request->out_of_range == CODEC_OUT_OF_RANGE_ZERO)
                return 0;
        for (uint64_t i = 0; i < request->n_ids; i++)
                if (request->ids[i] >= header->n_rows) {
                        *ret_bad_index = i;
                        return fault_set(ret_fault, -ERANGE,
                                         "ids[%" PRIu64 "] is %" PRIu64 ", expected less than"
                                         " %" PRIu64 ", the table's rows",
                                         i, request->ids[i], header->n_rows);
                }
        return 0;
}

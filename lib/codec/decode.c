/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request over a table: checked once, then decoded in any number of pieces. Trusts that the
 * request and its arrays are private to the caller and do not change after the check; trusts no
 * value in them before it. The output may be shared memory: it is written once and never read. One
 * context per thread.
 */
#include "kernels.h"

#include <math.h>

/* Records are found and prefetched this many ids ahead, and no more than this much of each: the
 * hardware follows a stream once it runs, and a core has about a dozen misses in flight. What says
 * where a record is must be there by then, and is prefetched as many ids further ahead. */
#define PREFETCH_IDS   4u
#define PREFETCH_BYTES 2048u
#define LINE_BYTES     64u

/* Room for the record that is being decoded, too; a power of two. */
#define AHEAD_SLOTS (2 * PREFETCH_IDS)

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

/* ---- The context ---- */

/* Scratch of a context: a row, a pooled row, then what the kernel gets. */
static size_t row_floats(const struct table_header *h) {
        return codec_scratch_round(h->n_dims);
}

void codec_context_init(struct codec_context *context, const struct codec_kernels *kernels) {
        *context = (struct codec_context){ .kernels = kernels };
}

void codec_context_deinit(struct codec_context *context) {
        free(context->scratch);
        *context = (struct codec_context){ 0 };
}

int codec_context_reserve(struct codec_context *context, const struct codec_table *table) {
        const struct table_header *h = &table->contents.header;
        size_t n = 2 * row_floats(h) + codec_scratch_floats(h);
        float *scratch;

        if (n <= context->scratch_floats)
                return 0;
        scratch = aligned_alloc(CODEC_SCRATCH_ALIGNMENT, n * sizeof(float));
        if (!scratch)
                return -ENOMEM;
        free(context->scratch);
        context->scratch = scratch;
        context->scratch_floats = n;
        return 0;
}

/* ---- Decoding ---- */

/* What stays the same over one call. */
struct job {
        const struct codec_kernels *kernels;
        const struct codec_table *table;
        const struct codec_request *request;
        struct codec_cost *cost;
        float *row, *pooled, *scratch;
        uint64_t end_id;                        /* ids past it belong to another piece */
        struct codec_record ahead[AHEAD_SLOTS]; /* of id i at i % AHEAD_SLOTS */
};

/* The block of the tier map's first level; of the others, which are smaller, only the first knows
 * which. Inlined by force: GCC 12 takes a function of prefetches alone for pure and drops its
 * calls. */
static inline __attribute__((always_inline)) void prefetch_tier(const struct job *job,
                                                                uint64_t index) {
        if (index < job->end_id && job->request->ids[index] < job->table->contents.header.n_rows)
                __builtin_prefetch(job->table->tiers +
                                   job->request->ids[index] / TABLE_TIER_BLOCK_ROWS);
}

/* Finds a record that will be decoded soon, if it is one, and sets its bytes on their way. */
static inline void look_ahead(struct job *job, uint64_t index) {
        const struct table_header *h = &job->table->contents.header;
        struct codec_record *record = &job->ahead[index % AHEAD_SLOTS];
        const uint8_t *end;

        record->bytes = NULL;
        if (index >= job->end_id || job->request->ids[index] >= h->n_rows)
                return;
        if (h->n_tiers > 1) {
                prefetch_tier(job, index + PREFETCH_IDS);
                *record = job->kernels->find(job->table, job->request->ids[index]);
        } else {
                *record = codec_find_uniform(job->table, job->request->ids[index]);
        }
        end = record->bytes + MIN(record->n_bytes, PREFETCH_BYTES);
        for (const uint8_t *p = record->bytes; p < end; p += LINE_BYTES)
                __builtin_prefetch(p);
}

/* False for an id outside the table, and then nothing is written. */
static bool decode_id(struct job *job, uint64_t index, float *ret_values) {
        const struct codec_record *record = &job->ahead[index % AHEAD_SLOTS];

        look_ahead(job, index + PREFETCH_IDS);
        if (!record->bytes)
                return false;
        job->kernels->decode[job->table->contents.header.codec](job->table, record, job->scratch,
                                                                ret_values);
        job->cost->n_rows_read++;
        job->cost->bytes_read += record->n_bytes;
        return true;
}

static uint64_t bag_end(const struct codec_request *q, uint64_t bag) {
        return bag + 1 < q->n_bags ? q->bag_offsets[bag + 1] : q->n_ids;
}

/* The first row is copied, so that a bag of one is that row to the bit; a row outside the table
 * adds nothing. */
static bool bag_add(struct job *job, uint64_t index, uint64_t n_max, struct codec_bag *bag) {
        const struct codec_request *q = job->request;
        uint64_t next = q->bag_offsets[index] + bag->n_ids, end = bag_end(q, index);
        const float *columns = job->row + q->col_first;

        for (; next < end && n_max; next++, n_max--, bag->n_ids++) {
                if (!decode_id(job, next, job->row))
                        continue;
                if (bag->n_added++ == 0)
                        memcpy(bag->values, columns, q->n_cols * sizeof(float));
                else
                        for (size_t c = 0; c < q->n_cols; c++)
                                bag->values[c] += columns[c];
        }
        return next == end;
}

static void bag_end_values(const struct codec_request *q, const struct codec_bag *bag) {
        if (!bag->n_added)
                memset(bag->values, 0, q->n_cols * sizeof(float));
        else if (q->pooling == CODEC_POOLING_MEAN)
                for (size_t c = 0; c < q->n_cols; c++)
                        bag->values[c] /= (float)bag->n_ids;
}

/* Rounds `values` to the request's type. A place that is not aligned for it, which a caller's odd
 * stride may give, is reached by a copy. */
static void write_values(const struct job *job, const float *values, uint8_t *out) {
        const struct codec_request *q = job->request;
        size_t value_bytes = codec_type_bytes(q->type), n_bytes = q->n_cols * value_bytes;
        bool aligned = (uintptr_t)out % value_bytes == 0;
        uint16_t *halves = aligned ? (void *)out : (void *)job->scratch;

        switch (q->type) {
        case CODEC_TYPE_F32:
                memcpy(out, values, n_bytes);
                return;
        case CODEC_TYPE_F16:
                job->kernels->f32_to_f16(values, q->n_cols, halves);
                break;
        case CODEC_TYPE_BF16:
                job->kernels->f32_to_bf16(values, q->n_cols, halves);
                break;
        }
        if (!aligned)
                memcpy(out, halves, n_bytes);
}

/* The last steps of an output row that is in private memory. */
static void finish_row(const struct job *job, const float *values, uint64_t i) {
        const struct codec_request *q = job->request;

        if (q->scale != 1) {
                for (size_t c = 0; c < q->n_cols; c++)
                        job->pooled[c] = values[c] * q->scale;
                values = job->pooled;
        }
        write_values(job, values, (uint8_t *)q->out + i * q->row_stride_bytes);
}

static void decode_row(struct job *job, uint64_t i) {
        const struct codec_request *q = job->request;
        struct codec_bag bag = { .values = job->pooled };

        if (q->pooling) {
                bag_add(job, i, UINT64_MAX, &bag);
                bag_end_values(q, &bag);
                finish_row(job, bag.values, i);
                return;
        }
        if (!decode_id(job, i, job->row))
                memset(job->row, 0, job->table->contents.header.n_dims * sizeof(float));
        finish_row(job, job->row + q->col_first, i);
}

/* Whole f32 rows as the table has them need no stop on the way. */
static bool is_plain(const struct codec_request *q, const struct table_header *h) {
        return !q->pooling && q->type == CODEC_TYPE_F32 && q->n_cols == h->n_dims &&
               q->scale == 1 && (uintptr_t)q->out % sizeof(float) == 0 &&
               q->row_stride_bytes % sizeof(float) == 0;
}

static struct job job_of(const struct codec_context *context, const struct codec_table *table,
                         const struct codec_request *request, struct codec_cost *cost) {
        const struct table_header *h = &table->contents.header;

        return (struct job){
                .kernels = context->kernels,
                .table = table,
                .request = request,
                .cost = cost,
                .row = context->scratch,
                .pooled = context->scratch + row_floats(h),
                .scratch = context->scratch + 2 * row_floats(h),
        };
}

static void look_ahead_first(struct job *job, uint64_t index) {
        for (uint64_t i = 0; i < PREFETCH_IDS; i++)
                look_ahead(job, index + i);
}

void codec_decode(struct codec_context *context, const struct codec_table *table,
                  const struct codec_request *request, uint64_t row_first, uint64_t n_rows,
                  struct codec_cost *cost) {
        const struct table_header *h = &table->contents.header;
        struct job job = job_of(context, table, request, cost);
        const uint64_t end = row_first + n_rows;
        bool plain = is_plain(request, h);

        if (!n_rows)
                return;
        job.end_id = request->pooling ? bag_end(request, end - 1) : end;
        look_ahead_first(&job, request->pooling ? request->bag_offsets[row_first] : row_first);
        for (uint64_t i = row_first; i < end; i++) {
                uint8_t *out = (uint8_t *)request->out + i * request->row_stride_bytes;

                if (!plain)
                        decode_row(&job, i);
                else if (!decode_id(&job, i, (float *)(void *)out))
                        memset(out, 0, h->n_dims * sizeof(float));
        }
        cost->bytes_written += n_rows * request->n_cols * codec_type_bytes(request->type);
}

bool codec_bag_add(struct codec_context *context, const struct codec_table *table,
                   const struct codec_request *request, uint64_t index, uint64_t n_max,
                   struct codec_bag *bag, struct codec_cost *cost) {
        struct job job = job_of(context, table, request, cost);
        uint64_t first = request->bag_offsets[index] + bag->n_ids;

        job.end_id = MIN(bag_end(request, index), first + n_max);
        look_ahead_first(&job, first);
        return bag_add(&job, index, n_max, bag);
}

void codec_bag_write(struct codec_context *context, const struct codec_table *table,
                     const struct codec_request *request, uint64_t index, struct codec_bag *bag,
                     struct codec_cost *cost) {
        struct job job = job_of(context, table, request, cost);

        bag_end_values(request, bag);
        finish_row(&job, bag->values, index);
        cost->bytes_written += request->n_cols * codec_type_bytes(request->type);
}

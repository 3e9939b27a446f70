/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests over a table, checked before, decoded in any number of pieces. The ids of all pieces of
 * a call are one stream: each is looked up ahead (its record found and prefetched), decoded, and
 * put where its piece wants it. An adaptor with hidden layers runs for a batch of the stream at a
 * time, so that its weights are read once for all of them, and once for a row that repeats.
 * The output may be shared memory: it is written once and never read. One context per thread.
 */
#include "prepared.h"
#include "stream.h"

/* Records are found and prefetched this many ids ahead, and no more than this much of each: the
 * hardware follows a stream once it runs, and a core has about a dozen misses in flight. What says
 * where a record is must be there by then, and is prefetched as many ids further ahead. */
#define PREFETCH_IDS   4u
#define PREFETCH_BYTES 2048u
#define LINE_BYTES     64u

/* Records of a batch for the adaptor, and of the next one; a power of two. */
#define AHEAD_SLOTS (2 * CODEC_BATCH_ROWS)

/* ---- The context ---- */

/* Scratch of a context: a row, a pooled row, a finished row, a batch of the adaptor's outputs, and
 * what the adaptor needs. */
#define CONTEXT_ROWS 3u

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
        size_t n = CONTEXT_ROWS * row_floats(h);

        float *scratch;

        if (codec_runs_batches(context->kernels, table))
                n += CODEC_BATCH_ROWS * row_floats(h) + codec_scratch_floats(h);
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

/* ---- The stream of ids ---- */

/* The ids of a piece that this call will look at: [first, end) of the request's. */
struct span {
        uint64_t first, end;
};

static uint64_t bag_end(const struct codec_request *q, uint64_t bag) {
        return bag + 1 < q->n_bags ? q->bag_offsets[bag + 1] : q->n_ids;
}

/* An empty bag costs as much as an id. */
static struct span span_of_bags(const struct codec_piece *piece) {
        const struct codec_request *q = piece->request;
        uint64_t bag = piece->n_rows, n_left = piece->n_ids_max;
        struct span span;

        if (bag == q->n_bags)
                return (struct span){ 0 };
        span.first = span.end = q->bag_offsets[bag] + piece->bag.n_ids;
        for (; bag < q->n_bags && n_left; bag++) {
                uint64_t n = MIN(bag_end(q, bag) - span.end, n_left);

                span.end += n;
                n_left -= MAX(n, 1u);
        }
        return span;
}

static struct span span_of(const struct codec_piece *piece) {
        const struct codec_request *q = piece->request;

        if (q->pooling)
                return span_of_bags(piece);
        return (struct span){
                .first = piece->n_rows,
                .end = piece->n_rows + MIN(q->n_ids - piece->n_rows, piece->n_ids_max),
        };
}

/* A position in it. */
struct cursor {
        size_t piece;
        struct span span; /* what is left of the piece's */
};

struct ahead {
        struct codec_record record; /* no bytes: the id is outside the table */
        const float *addends;       /* the adaptor's outputs, from when its batch has run */
};

/* What stays the same over one call, and the stream's state. */
struct job {
        const struct codec_kernels *kernels;
        const struct codec_table *table;
        struct codec_piece *pieces;
        size_t n_pieces;
        float *row, *pooled;
        float *addends, *scratch; /* NULL unless the adaptor runs for batches */
        bool streams;             /* the piece under way goes around the caches */
        void *aligned;            /* a row that has to be copied to its place */
        struct cursor front;      /* the next id to look up ahead */
        uint64_t n_ahead, n_used; /* ids that were looked up, decoded */
        struct ahead *ahead;      /* of id i of the stream at i % AHEAD_SLOTS */
};

/* The next id of the stream; false at its end. */
static inline bool take_id(struct job *job, uint64_t *ret_id) {
        struct cursor *c = &job->front;

        while (c->span.first == c->span.end) {
                if (++c->piece >= job->n_pieces)
                        return false;
                c->span = span_of(&job->pieces[c->piece]);
        }
        *ret_id = job->pieces[c->piece].request->ids[c->span.first++];
        return true;
}

/* The block of the tier map's first level; of the others, which are smaller, only the first knows
 * which. Of ids of the same piece. Inlined by force: GCC 12 takes a function of prefetches alone
 * for pure and drops its calls. */
static inline __attribute__((always_inline)) void prefetch_tier(const struct job *job) {
        const struct cursor *c = &job->front;
        const uint64_t *ids = job->pieces[c->piece].request->ids;

        if (c->span.end - c->span.first > PREFETCH_IDS &&
            ids[c->span.first + PREFETCH_IDS] < job->table->contents.header.n_rows)
                __builtin_prefetch(job->table->tiers +
                                   ids[c->span.first + PREFETCH_IDS] / TABLE_TIER_BLOCK_ROWS);
}

/* Finds the next record, if it is one, and sets its bytes on their way. */
static inline void look_ahead(struct job *job) {
        const struct table_header *h = &job->table->contents.header;
        struct codec_record *record = &job->ahead[job->n_ahead % AHEAD_SLOTS].record;
        const uint8_t *end;
        uint64_t id;

        if (!take_id(job, &id))
                return;
        job->n_ahead++;
        record->bytes = NULL;
        if (id >= h->n_rows)
                return;
        if (h->n_tiers > 1) {
                prefetch_tier(job);
                *record = job->kernels->find(job->table, id);
        } else {
                *record = codec_find_uniform(job->table, id);
        }
        end = record->bytes + MIN(record->n_bytes, PREFETCH_BYTES);
        for (const uint8_t *p = record->bytes; p < end; p += LINE_BYTES)
                __builtin_prefetch(p);
}

/* The adaptor, for a batch of the records that have been found. */
static void run_adaptor(struct job *job) {
        size_t n_dims = row_floats(&job->table->contents.header), n_rows = 0;
        size_t n = (size_t)MIN(job->n_ahead - job->n_used, CODEC_BATCH_ROWS);
        struct codec_record rows[CODEC_BATCH_ROWS];

        for (size_t i = 0; i < n; i++) {
                struct ahead *a = &job->ahead[(job->n_used + i) % AHEAD_SLOTS];
                size_t same = 0;

                if (!a->record.bytes)
                        continue;
                while (same < n_rows && rows[same].row != a->record.row)
                        same++;
                if (same == n_rows)
                        rows[n_rows++] = a->record;
                a->addends = job->addends + same * n_dims;
        }
        if (n_rows)
                job->kernels->adaptor(job->table, rows, n_rows, job->scratch, n_dims, job->addends);
}

/* What the memory bus moves for a record: it may begin anywhere in a line. */
static inline uint64_t lines_of(const struct codec_record *record) {
        return ((uintptr_t)record->bytes % LINE_BYTES + record->n_bytes + LINE_BYTES - 1) /
               LINE_BYTES;
}

/* The stream's next row; false for an id outside the table, and then nothing is written. */
static bool decode_next(struct job *job, struct codec_cost *cost, float *ret_values) {
        const struct table_header *h = &job->table->contents.header;
        const struct ahead *a = &job->ahead[job->n_used % AHEAD_SLOTS];

        if (job->addends && job->n_used % CODEC_BATCH_ROWS == 0)
                run_adaptor(job);
        look_ahead(job);
        job->n_used++;
        if (!a->record.bytes)
                return false;
        job->kernels->decode[h->codec](job->table, &a->record, job->addends ? a->addends : NULL,
                                       ret_values);
        cost->n_rows_read++;
        cost->bytes_read += a->record.n_bytes;
        cost->lines_read += lines_of(&a->record);
        return true;
}

/* ---- Rows ---- */

void codec_finish_row(const struct codec_kernels *kernels, const struct codec_request *q,
                      float *values, void *ret_row) {
        if (q->scale != 1)
                for (size_t c = 0; c < q->n_cols; c++)
                        values[c] *= q->scale;
        switch (q->type) {
        case CODEC_TYPE_F32:
                memcpy(ret_row, values, q->n_cols * sizeof(float));
                break;
        case CODEC_TYPE_F16:
                kernels->f32_to_f16(values, q->n_cols, ret_row);
                break;
        case CODEC_TYPE_BF16:
                kernels->f32_to_bf16(values, q->n_cols, ret_row);
                break;
        }
}

/* The piece's next row, which is in private memory, to its place. One that goes around the caches,
 * or is not aligned for its type, as a caller's odd stride may make it, is reached by a copy. */
static void finish_row(const struct job *job, struct codec_piece *piece, float *values) {
        const struct codec_request *q = piece->request;
        size_t value_bytes = codec_type_bytes(q->type), n_bytes = q->n_cols * value_bytes;
        uint8_t *out = (uint8_t *)q->out + piece->n_rows * q->row_stride_bytes;
        bool in_place = !job->streams && (uintptr_t)out % value_bytes == 0;

        if (job->streams && q->type == CODEC_TYPE_F32 && q->scale == 1) {
                stream_copy(out, values, n_bytes);
        } else {
                codec_finish_row(job->kernels, q, values, in_place ? (void *)out : job->aligned);
                if (job->streams)
                        stream_copy(out, job->aligned, n_bytes);
                else if (!in_place)
                        memcpy(out, job->aligned, n_bytes);
        }
        piece->n_rows++;
        piece->cost.bytes_written += n_bytes;
}

/* The first row is copied, so that a bag of one is that row to the bit; a row outside the table
 * adds nothing. */
static void bag_add(struct job *job, struct codec_piece *piece, uint64_t n, float *values) {
        const struct codec_request *q = piece->request;
        const float *columns = job->row + q->col_first;
        struct codec_bag *bag = &piece->bag;

        for (; n; n--, bag->n_ids++) {
                if (!decode_next(job, &piece->cost, job->row))
                        continue;
                if (bag->n_added++ == 0)
                        memcpy(values, columns, q->n_cols * sizeof(float));
                else
                        for (size_t c = 0; c < q->n_cols; c++)
                                values[c] += columns[c];
        }
}

static void bag_end_values(const struct codec_request *q, const struct codec_bag *bag,
                           float *values) {
        if (!bag->n_added)
                memset(values, 0, q->n_cols * sizeof(float));
        else if (q->pooling == CODEC_POOLING_MEAN)
                for (size_t c = 0; c < q->n_cols; c++)
                        values[c] /= (float)bag->n_ids;
}

static void decode_bags(struct job *job, struct codec_piece *piece) {
        const struct codec_request *q = piece->request;
        float *values = piece->bag.values ? piece->bag.values : job->pooled;
        uint64_t n_left = piece->n_ids_max;

        while (piece->n_rows < q->n_bags && n_left) {
                uint64_t n_bag = bag_end(q, piece->n_rows) - q->bag_offsets[piece->n_rows];
                uint64_t n = MIN(n_bag - piece->bag.n_ids, n_left);

                bag_add(job, piece, n, values);
                n_left -= MAX(n, 1u);
                if (piece->bag.n_ids < n_bag)
                        return;
                bag_end_values(q, &piece->bag, values);
                finish_row(job, piece, values);
                piece->bag.n_ids = piece->bag.n_added = 0;
        }
}

static bool is_plain(const struct codec_request *q, const struct table_header *h) {
        return codec_request_is_plain(q, h) && (uintptr_t)q->out % sizeof(float) == 0 &&
               q->row_stride_bytes % sizeof(float) == 0;
}

static void decode_rows(struct job *job, struct codec_piece *piece) {
        const struct codec_request *q = piece->request;
        const struct table_header *h = &job->table->contents.header;
        const struct span span = span_of(piece);
        bool plain = !job->streams && is_plain(q, h);

        for (uint64_t i = span.first; i < span.end; i++) {
                uint8_t *out = (uint8_t *)q->out + i * q->row_stride_bytes;
                float *values = plain ? (float *)(void *)out : job->row;

                if (!decode_next(job, &piece->cost, values))
                        memset(values, 0, h->n_dims * sizeof(float));
                if (!plain)
                        finish_row(job, piece, job->row + q->col_first);
        }
        if (plain) {
                piece->n_rows = span.end;
                piece->cost.bytes_written += (span.end - span.first) * h->n_dims * sizeof(float);
        }
}

void codec_decode(struct codec_context *context, const struct codec_table *table,
                  struct codec_piece *pieces, size_t n_pieces) {
        const struct table_header *h = &table->contents.header;
        struct ahead ahead[AHEAD_SLOTS]; /* too large to be cleared for a single row */
        bool batches = codec_runs_batches(context->kernels, table), streamed = false;
        struct job job = {
                .kernels = context->kernels,
                .table = table,
                .pieces = pieces,
                .n_pieces = n_pieces,
                .row = context->scratch,
                .pooled = context->scratch + row_floats(h),
                .aligned = context->scratch + 2 * row_floats(h),
                .ahead = ahead,
        };

        if (!n_pieces)
                return;
        if (batches) {
                job.addends = context->scratch + CONTEXT_ROWS * row_floats(h);
                job.scratch = job.addends + CODEC_BATCH_ROWS * row_floats(h);
        }
        job.front.span = span_of(&pieces[0]);
        for (size_t i = 0; i < (batches ? CODEC_BATCH_ROWS : PREFETCH_IDS); i++)
                look_ahead(&job);
        for (size_t i = 0; i < n_pieces; i++) {
                job.streams = pieces[i].request->streams;
                streamed |= job.streams;
                if (pieces[i].request->pooling)
                        decode_bags(&job, &pieces[i]);
                else
                        decode_rows(&job, &pieces[i]);
        }
        if (streamed)
                stream_fence();
}

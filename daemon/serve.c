/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <string.h>

#include "guard.h"
#include "proto/spin.h"

/* Decoded in one step: enough to run at full speed, and tens of microseconds, which is fair to
 * others. */
#define PIECE_VALUES     (64u * 1024u)
#define PIECE_ADAPTOR_US 64u

/* A client's clock reading older than this is not believed. */
#define LATENCY_NS_MAX UINT64_C(600000000000)

static_assert((int)CODEC_TYPE_BF16 == (int)RING_TYPE_BF16 &&
                      (int)CODEC_POOLING_MEAN == (int)RING_POOLING_MEAN &&
                      (int)CODEC_OUT_OF_RANGE_ZERO == (int)RING_OUT_OF_RANGE_ZERO,
              "ring and codec use the same values");

static struct store_table *find_table(struct seat *seat, uint64_t handle) {
        struct serve_slot *slot = &seat->slots[handle % WIRE_TABLES_MAX];

        return handle && slot->handle == handle ? slot->table : NULL;
}

/* Grows a buffer without keeping its content. */
static int reserve(void *pointer, size_t *size, size_t n, size_t item_bytes) {
        void **buffer = pointer;

        if (n <= *size)
                return 0;
        free(*buffer);
        *buffer = malloc(n * item_bytes);
        *size = *buffer ? n : 0;
        return *buffer ? 0 : -ENOMEM;
}

/* Copy, then check, then use: from here on nothing of the request is read from shared memory. */
static enum ring_status job_prepare(struct seat *seat, const struct ring_submission *s,
                                    uint64_t *ret_detail) {
        struct serve_job *job = &seat->job;
        const struct table_header *header;
        uint32_t n_cols;

        job->table = find_table(seat, s->table);
        if (!job->table)
                return RING_STATUS_NO_TABLE;
        if (atomic_load_explicit(&job->table->failed, memory_order_relaxed))
                return RING_STATUS_RETIRED;
        header = &job->table->file.table.contents.header;
        if (ring_submission_check(s, &seat->ring.layout, header->n_dims, &job->n_rows, &n_cols,
                                  NULL) < 0)
                return RING_STATUS_INVALID;
        if (reserve(&job->words, &job->words_size, (size_t)s->n_ids + s->n_bags, sizeof(uint64_t)) <
                    0 ||
            (s->pooling &&
             reserve(&job->piece.bag.values, &job->bag_size, n_cols, sizeof(float)) < 0))
                return RING_STATUS_NO_MEMORY;
        memcpy(job->words, seat->ring.ids + s->ids_offset, s->n_ids * sizeof(uint64_t));
        memcpy(job->words + s->n_ids, seat->ring.ids + s->bags_offset,
               s->n_bags * sizeof(uint64_t));

        job->request = (struct codec_request){
                .ids = job->words,
                .n_ids = s->n_ids,
                .bag_offsets = s->n_bags ? job->words + s->n_ids : NULL,
                .n_bags = s->n_bags,
                .col_first = s->col_first,
                .n_cols = n_cols,
                .scale = s->scale,
                .type = s->type,
                .pooling = s->pooling,
                .out_of_range = s->out_of_range,
                .row_stride_bytes = s->row_stride_bytes,
                .out = seat->ring.arena + s->out_offset,
        };
        switch (codec_request_check(&job->request, header, ret_detail, NULL)) {
        case 0:
                return RING_STATUS_OK;
        case -ERANGE:
                return RING_STATUS_OUT_OF_RANGE;
        default:
                return RING_STATUS_INVALID;
        }
}

/* Rows that the client has not been told of. */
static uint32_t n_fresh(const struct serve_job *job) {
        return (uint32_t)job->piece.n_rows - job->n_completed;
}

static void job_end(struct seat *seat, enum ring_status status, uint64_t detail) {
        struct serve_job *job = &seat->job;
        uint64_t now = clock_ns();

        /* Before the client can know of it: whoever then asks for statistics finds it counted. */
        stats_add_lookup(&seat->stats, status, now - job->start_ns);
        if (job->table)
                stats_add_lookup(&job->table->stats, status, now - job->start_ns);
        ring_server_complete(&seat->ring, &(struct ring_completion){
                                                  .user_data = job->user_data,
                                                  .status = status,
                                                  .row_first = job->n_completed,
                                                  .n_rows = n_fresh(job),
                                                  .detail = detail,
                                          });
        job->active = false;
}

static void job_start(struct seat *seat) {
        struct serve_job *job = &seat->job;
        struct ring_submission s;
        enum ring_status status;
        uint64_t now = clock_ns(), detail = 0;

        ring_server_take(&seat->ring, &s);
        job->active = true;
        job->flags = s.flags;
        job->user_data = s.user_data;
        job->start_ns =
                s.submit_ns <= now && now - s.submit_ns < LATENCY_NS_MAX ? s.submit_ns : now;
        job->n_rows = job->n_completed = 0;
        job->piece = (struct codec_piece){
                .request = &job->request,
                .bag.values = job->piece.bag.values,
        };
        status = job_prepare(seat, &s, &detail);
        if (status != RING_STATUS_OK)
                job_end(seat, status, detail);
}

/* Whole batches for the adaptor where there is time for one. */
static uint32_t rows_per_piece(const struct table_contents *c,
                               const struct codec_kernels *kernels) {
        uint64_t n_weights = MAX(c->layout.n_weights, 1u);
        uint64_t n = MIN(PIECE_VALUES / c->header.n_dims,
                         (uint64_t)PIECE_ADAPTOR_US * kernels->adaptor_rate / n_weights);

        if (c->header.latent_dims && n > CODEC_BATCH_ROWS)
                n -= n % CODEC_BATCH_ROWS;
        return (uint32_t)MAX(n, 1u);
}

struct step {
        struct codec_context *context;
        const struct codec_table *table;
        struct codec_piece *piece;
};

/* Runs under the guard: owns nothing. */
static void decode_step(void *userdata) {
        struct step *step = userdata;

        codec_decode(step->context, step->table, step->piece, 1);
}

static void job_piece(struct seat *seat, struct codec_context *context, uint32_t n_room) {
        struct serve_job *job = &seat->job;
        struct store_table *table = job->table;
        struct step step = { context, &table->file.table, &job->piece };
        uint32_t n_dims = table->file.table.contents.header.n_dims;
        uint64_t n_before = job->piece.n_rows;
        bool sound;

        job->piece.n_ids_max = rows_per_piece(&table->file.table.contents, context->kernels);
        job->piece.cost = (struct codec_cost){ 0 };
        sound = guard_run(table->file.map, table->file.map_bytes, decode_step, &step);
        stats_add_piece(&seat->stats, &job->piece.cost, job->piece.n_rows - n_before, n_dims);
        stats_add_piece(&table->stats, &job->piece.cost, job->piece.n_rows - n_before, n_dims);
        if (!sound) {
                store_table_fail(table);
                job_end(seat, RING_STATUS_RETIRED, 0);
                return;
        }
        if (job->piece.n_rows == job->n_rows) {
                job_end(seat, RING_STATUS_OK, 0);
                return;
        }
        /* The last entry is kept for the end; a piece that finds no room travels with the next one.
         */
        if (!(job->flags & RING_SUBMISSION_PIECES) || n_room < 2 ||
            job->piece.n_rows == job->n_completed)
                return;
        ring_server_complete(&seat->ring, &(struct ring_completion){
                                                  .user_data = job->user_data,
                                                  .flags = RING_COMPLETION_MORE,
                                                  .row_first = job->n_completed,
                                                  .n_rows = n_fresh(job),
                                          });
        job->n_completed = (uint32_t)job->piece.n_rows;
}

int serve_step(struct seat *seat, struct codec_context *context, struct fault *ret_fault) {
        uint32_t n_room, n_pending;
        int r;

        r = ring_server_room(&seat->ring, &n_room, ret_fault);
        if (r < 0)
                return r;
        /* Nothing starts that could not end: a client that does not reap holds up only itself. */
        if (n_room == 0)
                return SERVE_IDLE;
        if (!seat->job.active) {
                r = ring_server_pending(&seat->ring, &n_pending, ret_fault);
                if (r < 0)
                        return r;
                if (n_pending == 0)
                        return SERVE_IDLE;
                job_start(seat);
        }
        if (seat->job.active)
                job_piece(seat, context, n_room);
        return SERVE_WORKED;
}

void serve_abort(struct seat *seat, enum ring_status status) {
        if (seat->job.active)
                job_end(seat, status, 0);
}

bool serve_has_work(struct seat *seat) {
        uint32_t n_room, n_pending;

        /* An impossible index counts as work: serve_step() will say what is wrong with it. */
        if (ring_server_room(&seat->ring, &n_room, NULL) < 0 ||
            ring_server_pending(&seat->ring, &n_pending, NULL) < 0)
                return true;
        return n_room && (seat->job.active || n_pending);
}

void serve_deinit(struct seat *seat) {
        free(seat->job.words);
        free(seat->job.piece.bag.values);
        ring_server_deinit(&seat->ring);
}

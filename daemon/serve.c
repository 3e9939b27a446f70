/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <string.h>

#include "clock.h"

/* Output of one step: long enough to run at full speed, short enough (tens of microseconds) to be
 * fair. */
#define PIECE_BYTES (256u * 1024u)

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

static int reserve_words(struct serve_job *job, size_t n) {
        uint64_t *words;

        if (n <= job->words_size)
                return 0;
        words = realloc(job->words, n * sizeof(*words));
        if (!words)
                return -ENOMEM;
        job->words = words;
        job->words_size = n;
        return 0;
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
        header = &job->table->file.table.contents.header;
        if (ring_submission_check(s, &seat->ring.layout, header->n_dims, &job->n_rows, &n_cols,
                                  NULL) < 0)
                return RING_STATUS_INVALID;
        if (reserve_words(job, (size_t)s->n_ids + s->n_bags) < 0)
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

static void job_end(struct seat *seat, enum ring_status status, uint64_t detail) {
        struct serve_job *job = &seat->job;
        uint64_t now = clock_ns();

        ring_server_complete(&seat->ring, &(struct ring_completion){
                                                  .user_data = job->user_data,
                                                  .status = status,
                                                  .row_first = job->n_completed,
                                                  .n_rows = job->n_done - job->n_completed,
                                                  .detail = detail,
                                          });
        stats_add_lookup(&seat->stats, status, now - job->start_ns);
        if (job->table)
                stats_add_lookup(&job->table->stats, status, now - job->start_ns);
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
        job->n_rows = job->n_done = job->n_completed = 0;
        status = job_prepare(seat, &s, &detail);
        if (status != RING_STATUS_OK)
                job_end(seat, status, detail);
}

/* Output rows of the next piece: at least one; of bags, as many as read about a piece's worth of
 * rows. */
static uint32_t piece_rows(const struct serve_job *job) {
        const struct codec_request *request = &job->request;
        uint64_t n_max = MAX(PIECE_BYTES / (request->n_cols * codec_type_bytes(request->type)), 1u);
        uint32_t first = job->n_done, n = 1;

        if (!request->pooling)
                return (uint32_t)MIN(n_max, job->n_rows - first);
        while (first + n < job->n_rows &&
               request->bag_offsets[first + n] - request->bag_offsets[first] < n_max && n < n_max)
                n++;
        return n;
}

static void job_piece(struct seat *seat, struct codec_context *context, uint32_t n_room) {
        struct serve_job *job = &seat->job;
        const struct codec_request *request = &job->request;
        struct codec_cost cost = { 0 };
        uint32_t n = piece_rows(job);

        codec_decode(context, &job->table->file.table, request, job->n_done, n, &cost);
        job->n_done += n;
        stats_add_piece(&seat->stats, &cost, n, job->table->file.table.contents.header.n_dims);
        stats_add_piece(&job->table->stats, &cost, n,
                        job->table->file.table.contents.header.n_dims);

        if (job->n_done == job->n_rows) {
                job_end(seat, RING_STATUS_OK, 0);
                return;
        }
        /* The last entry is kept for the end; a piece that finds no room travels with the next one.
         */
        if (!(job->flags & RING_SUBMISSION_PIECES) || n_room < 2)
                return;
        ring_server_complete(&seat->ring, &(struct ring_completion){
                                                  .user_data = job->user_data,
                                                  .flags = RING_COMPLETION_MORE,
                                                  .row_first = job->n_completed,
                                                  .n_rows = job->n_done - job->n_completed,
                                          });
        job->n_completed = job->n_done;
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
        ring_server_deinit(&seat->ring);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include <string.h>

#include "proto/spin.h"

/* A client's clock reading older than this is not believed. */
#define LATENCY_NS_MAX UINT64_C(600000000000)

static_assert((int)CODEC_TYPE_BF16 == (int)RING_TYPE_BF16 &&
                      (int)CODEC_POOLING_MEAN == (int)RING_POOLING_MEAN &&
                      (int)CODEC_OUT_OF_RANGE_ZERO == (int)RING_OUT_OF_RANGE_ZERO,
              "ring and codec use the same values");

/* Of buffers that are kept for the next ones. As many large submissions as there are clients can be
 * on their way at once, with half a MiB of ids each, and may never be again. */
#define POOL_BYTES_MAX (UINT64_C(4) << 20)

static uint64_t buffer_bytes(const struct job *job) {
        return job->words_size * sizeof(*job->words) +
               job->bag_size * sizeof(*job->piece.bag.values);
}

struct job *job_new(struct job_pool *pool) {
        struct job *job = SLIST_FIRST(&pool->jobs);

        if (!job)
                return calloc(1, sizeof(*job));
        SLIST_REMOVE_HEAD(&pool->jobs, link);
        pool->n_bytes -= buffer_bytes(job);
        return job;
}

static void free_buffers(struct job *job) {
        free(job->words);
        free(job->piece.bag.values);
        job->words = NULL;
        job->piece.bag.values = NULL;
        job->words_size = job->bag_size = 0;
}

/* The last one freed is the next one used: its buffers are in the cache. */
struct job *job_free(struct job_pool *pool, struct job *job) {
        if (!job)
                return NULL;
        if (buffer_bytes(job) > POOL_BYTES_MAX - pool->n_bytes)
                free_buffers(job);
        pool->n_bytes += buffer_bytes(job);
        SLIST_INSERT_HEAD(&pool->jobs, job, link);
        return NULL;
}

void job_pool_deinit(struct job_pool *pool) {
        struct job *job;

        while ((job = SLIST_FIRST(&pool->jobs))) {
                SLIST_REMOVE_HEAD(&pool->jobs, link);
                free_buffers(job);
                free(job);
        }
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

/*
 * Answers from here on go around the caches, to a client on another CPU: else each line is fetched
 * from there, where it was read the last time, and fetched back. A row of 256 of 384 or 640
 * dimensions takes the client half of the time so. Small ones are sooner there from cache to cache.
 */
#define STREAM_BYTES UINT64_C(65536)

/* Asked once: it is a system call. */
static bool on_one_cpu(void) {
        static _Atomic int answer; /* 0: not asked yet */
        int known = atomic_load_explicit(&answer, memory_order_relaxed);

        if (!known) {
                known = single_cpu() ? 1 : 2;
                atomic_store_explicit(&answer, known, memory_order_relaxed);
        }
        return known == 1;
}

static enum ring_status copy_and_check(struct job *job, const struct ring_server *ring,
                                       const struct ring_submission *s) {
        const struct table_header *header;
        uint32_t n_cols;

        if (!job->table)
                return RING_STATUS_NO_TABLE;
        if (atomic_load_explicit(&job->table->failed, memory_order_relaxed))
                return RING_STATUS_RETIRED;
        header = &job->table->file.table.contents.header;
        if (ring_submission_check(s, &ring->layout, header->n_dims, &job->n_rows, &n_cols, NULL) <
            0)
                return RING_STATUS_INVALID;
        if (reserve(&job->words, &job->words_size, (size_t)s->n_ids + s->n_bags, sizeof(uint64_t)) <
                    0 ||
            (s->pooling &&
             reserve(&job->piece.bag.values, &job->bag_size, n_cols, sizeof(float)) < 0))
                return RING_STATUS_NO_MEMORY;
        memcpy(job->words, ring->ids + s->ids_offset, s->n_ids * sizeof(uint64_t));
        memcpy(job->words + s->n_ids, ring->ids + s->bags_offset, s->n_bags * sizeof(uint64_t));

        job->n_ids_left = (uint64_t)s->n_ids + s->n_bags;
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
                .streams = job->n_rows * s->row_stride_bytes >= STREAM_BYTES && !on_one_cpu(),
                .row_stride_bytes = s->row_stride_bytes,
                .out = ring->arena + s->out_offset,
        };
        switch (codec_request_check(&job->request, header, &job->detail, NULL)) {
        case 0:
                return RING_STATUS_OK;
        case -ERANGE:
                return RING_STATUS_OUT_OF_RANGE;
        default:
                return RING_STATUS_INVALID;
        }
}

void job_prepare(struct job *job, const struct ring_server *ring, struct store_table *table,
                 const struct ring_submission *s, uint64_t now_ns) {
        bool believed = s->submit_ns <= now_ns && now_ns - s->submit_ns < LATENCY_NS_MAX;

        job->handle = s->table;
        job->table = table;
        job->flags = s->flags;
        job->user_data = s->user_data;
        job->start_ns = believed ? s->submit_ns : now_ns;
        job->detail = 0;
        job->n_rows = job->n_counted = job->n_completed = 0;
        job->n_ids_left = job->n_ids_charged = 0;
        job->piece = (struct codec_piece){
                .request = &job->request,
                .bag.values = job->piece.bag.values,
        };
        job->status = copy_and_check(job, ring, s);
}

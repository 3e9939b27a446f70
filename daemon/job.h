/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One submission on its way: a private copy of the request, checked, and how far it is decoded.
 * Trusts nothing of the client. Jobs and their buffers belong to a worker and are used again, so
 * that nothing is allocated once the worker has seen as many and as large ones as it gets, short of
 * a crowd of large ones. On the worker.
 */
#pragma once

#include <sys/queue.h>

#include "ring-server.h"
#include "store.h"

struct job {
        uint64_t handle;           /* by which the client names the table */
        struct store_table *table; /* NULL: the handle names none */
        enum ring_status status;   /* other than OK: there is nothing to decode */
        uint8_t flags;
        uint64_t user_data;
        uint64_t start_ns; /* of the submission, by the client's clock */
        uint64_t detail;
        struct codec_request request;
        struct codec_piece piece; /* how far it is decoded; its bag's values grow */
        uint64_t n_ids_left;      /* to look at, an empty bag counting as one; at most */
        uint64_t n_ids_charged;   /* to its user; 0: it has not outlived a round */
        uint32_t n_rows;          /* of output */
        uint32_t n_counted;       /* of them, in the statistics */
        uint32_t n_completed;     /* of them, told to the client */
        uint64_t *words;          /* private copies of ids, then bags; grows */
        size_t words_size;
        size_t bag_size;
        SLIST_ENTRY(job) link; /* while free */
};

struct job_pool {
        SLIST_HEAD(, job) jobs;
        uint64_t n_bytes; /* of their buffers */
};

/* NULL: no memory. */
struct job *job_new(struct job_pool *pool);
/* Back to the pool; returns NULL. */
struct job *job_free(struct job_pool *pool, struct job *job);
void job_pool_deinit(struct job_pool *pool);

/*
 * Fills the job from a private copy of the submission; ids and bags are copied here, checked after
 * that and not read from shared memory again. What is wrong with it is in `status`.
 */
void job_prepare(struct job *job, const struct ring_server *ring, struct store_table *table,
                 const struct ring_submission *submission, uint64_t now_ns);

/* Nothing is left to decode. */
static inline bool job_done(const struct job *job) {
        return job->status != RING_STATUS_OK || job->piece.n_rows == job->n_rows;
}

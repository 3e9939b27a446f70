/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows' way through the daemon, on the worker: request -> table -> decode -> completion. A round
 * takes a bounded share of work from every seat, decodes what it took table by table, each table's
 * in one go, and completes it. So a large batch holds up nobody for longer than a round, many
 * clients' rows fill the adaptor's batches together, and small submissions share the cost of a
 * look.
 */
#pragma once

#include "fill.h"
#include "job.h"
#include "loop-io.h"
#include "quota.h"
#include "stats.h"

/* Submissions in one round, of all seats. */
#define SERVE_JOBS_MAX 256u

struct serve_slot {
        uint64_t handle; /* what the client calls it; 0: free */
        struct store_table *table;
};

/* What a session lends to the worker while it is attached. */
struct seat {
        struct ring_server ring;
        struct serve_slot slots[WIRE_TABLES_MAX];
        bool takes_nothing; /* but ends what is begun */
        uint64_t n_hints;   /* of the client's that were looked at */
        struct job *job;    /* begun and not done: at most one between rounds, the oldest */
        int64_t credit;     /* what it may cost until it is others' turn; below 0: a debt */
        uint64_t start_ns;  /* of the last submission taken */
        struct quota_ids *ids_quota; /* its user's on this worker; NULL: not counted */
        struct stats stats;
};

/* A seat's part of a round. */
struct serve_turn {
        struct seat *seat;
        uint32_t n_room;        /* in its completion ring */
        uint32_t first, n_jobs; /* of the round's */
        bool wakes;             /* the client sleeps, and has completions */
};

/* A worker's. */
struct serve {
        struct codec_context context;
        struct job_pool pool;
        struct fill fill;
        uint64_t now_ns; /* when the round began */
        int64_t share;   /* of its cost, for each seat */
        int64_t left;    /* of its cost */
        uint32_t n_turns, n_jobs;
        struct serve_turn turns[SERVE_JOBS_MAX];
        struct job *jobs[SERVE_JOBS_MAX];              /* in the order of turns and submissions */
        struct codec_piece pieces[SERVE_JOBS_MAX + 1]; /* and what goes into a cache */
        struct loop_io *io;                            /* borrowed: where wake-ups go */
};

void serve_init(struct serve *serve, const struct codec_kernels *kernels, struct loop_io *io);
void serve_deinit(struct serve *serve);

/* Before a table is served. -ENOMEM. */
int serve_reserve(struct serve *serve, const struct store_table *table);

enum serve_result {
        SERVE_IDLE = 0,
        SERVE_WORKED = 1,
        SERVE_HELD = 2, /* has work, and its user as many ids in flight as it may */
};

/* A round: begin, take from seats until all had their turn or it is full, and finish. */
void serve_begin(struct serve *serve);
/* SERVE_IDLE: nothing to do, or no room to complete it. -EPROTO: the session must end. */
int serve_take(struct serve *serve, struct seat *seat, struct fault *ret_fault);
bool serve_full(const struct serve *serve);
/* Decodes and completes. The turns stay readable until the next round begins. */
void serve_finish(struct serve *serve);

/* Between rounds: ends the job under way, if any, without its rows; or forgets it. */
void serve_abort(struct serve *serve, struct seat *seat, enum ring_status status);
void serve_forget(struct serve *serve, struct seat *seat);

/* True if serve_take() would find work: the last look before sleeping. */
bool serve_has_work(struct seat *seat);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A row's way through the daemon, on the worker: request -> table -> decode -> completion. One job
 * at a time for each seat, done in bounded pieces so that a large batch does not hold up the other
 * seats.
 */
#pragma once

#include "ring-server.h"
#include "stats.h"
#include "store.h"

struct serve_slot {
        uint64_t handle; /* what the client calls it; 0: free */
        struct store_table *table;
};

struct serve_job {
        bool active;
        uint8_t flags;
        uint64_t user_data;
        uint64_t start_ns;
        struct store_table *table;
        struct codec_request request;
        struct codec_piece piece; /* how far it is decoded; its bag's values grow */
        uint32_t n_rows;          /* of output */
        uint32_t n_completed;     /* told to the client */
        uint64_t *words;          /* private copies of ids, then bags; grows */
        size_t words_size;
        size_t bag_size;
};

/* What a session lends to the worker while it is attached. */
struct seat {
        struct ring_server ring;
        struct serve_slot slots[WIRE_TABLES_MAX];
        struct serve_job job;
        struct stats stats;
};

enum serve_result {
        SERVE_IDLE = 0,
        SERVE_WORKED = 1,
};

/* One step: takes a submission or decodes the next piece. -EPROTO: the session must end. */
int serve_step(struct seat *seat, struct codec_context *context, struct fault *ret_fault);

/* Ends the job under way, if any, without its rows. */
void serve_abort(struct seat *seat, enum ring_status status);

/* True if serve_step() would find work: the last look before sleeping. */
bool serve_has_work(struct seat *seat);

void serve_deinit(struct seat *seat);

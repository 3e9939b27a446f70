/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of bench-ring: how long one client waits, and how much many get. */
#pragma once

#include <sys/types.h>

#include "bench.h"
#include "lib/carvq.h"
#include "outcome.h"

#define RING_TABLE       "rows"
#define RING_BATCHES     4u
#define RING_BATCH_MAX   4096u
#define RING_COUNTS      5u /* of clients */
#define RING_CLIENTS_MAX 64u

extern const uint32_t ring_batches[RING_BATCHES];

struct ring_bench {
        uint64_t n_rows, n_dims, n_lookups, cell_ms, n_rounds, seed;
        uint64_t only_batch, only_clients; /* 0: all */
        const char *table_path, *socket_path;
        pid_t daemon_pid;
};

/* A connection with the table open; dies without. */
void ring_connect(const struct ring_bench *bench, uint64_t spin_ns, carvq_client **ret_client,
                  carvq_table **ret_table);
carvq_table *ring_open_direct(const struct ring_bench *bench);

/* One lookup through the rings whose rows stay where the daemon wrote them. */
void ring_lookup(carvq_client *client, carvq_table *table, const uint64_t *ids, uint32_t n_ids);

/* Prints, and adds "latency" and its targets to the outcome. */
void ring_latency(const struct ring_bench *bench, json_t *outcome);

/* Clients that never sleep for want of a budget, or that always do; `state` is "awake" or "asleep",
 * as is the daemon. Prints, and adds to the outcome's "throughput". */
void ring_throughput(const struct ring_bench *bench, const char *state, uint64_t spin_ns,
                     json_t *outcome);

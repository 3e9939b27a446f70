/* SPDX-License-Identifier: Apache-2.0 */
/* What bench-peers finds, and its parts: timing, memory, the plot. Main thread. */
#pragma once

#include <jansson.h>

#include "ids.h"
#include "peer.h"

#define PEERS_MAX     8u
#define PEERS_CLIENTS 2u /* counts of clients */
#define PEERS_BATCHES 4u
#define PEERS_IDS     2u /* kinds of ids */

extern const size_t peers_batches[PEERS_BATCHES];
extern const unsigned peers_clients[PEERS_CLIENTS];

struct peers_cell {
        double p50_us, p99_us, rows_per_s; /* of a batch */
};

struct peers_result {
        const struct peer *peer;
        struct peers_cell cells[PEERS_IDS][PEERS_BATCHES];
        uint64_t pss_bytes[PEERS_CLIENTS]; /* of clients and server */
};

/* Every peer in every cell, in turn, for about `cell_ns` each; `ids` are `n_ids` of each kind. */
void peers_time(struct peer_world *world, struct peers_result *results, size_t n_results,
                uint64_t *const ids[PEERS_IDS], size_t n_ids, uint64_t cell_ns);

/* With so many clients, each of which has read every row. */
uint64_t peers_memory(struct peer_world *world, const struct peer *peer, unsigned n_clients);

/* An SVG by gnuplot; false, with the reason, where there is none. */
bool peers_plot(const struct peers_result *results, size_t n_results, const char *title,
                const char *path, struct fault *ret_why);

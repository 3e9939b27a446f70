/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's half of the shared memory: it makes it, fills the submission ring, empties the
 * completion ring and sleeps without missing a wake-up. PROTOCOL.md, "Memory order", has the
 * reasoning; what a completion means is its caller's business. The client's thread.
 */
#pragma once

#include "codec/codec.h"
#include "proto/ring.h"

struct client_ring {
        struct ring_layout layout;
        uint8_t *memory; /* layout.ring_bytes; NULL: none */
        struct ring_header *header;
        struct ring_submission *submissions;
        const struct ring_completion *completions;
        int doorbell_fd;
        /* The indices that count; the shared words are copies for the other side. */
        uint32_t sq_tail;
        uint32_t cq_head;
        bool has_pieces;  /* a submission may have more completions than one */
        uint32_t waiting; /* odd while a wake message is asked for */
        struct ring_claims *claims;
        uint64_t n_direct_lookups, n_direct_rows, n_direct_values; /* as claimed */
        struct codec_cost direct_cost;
        struct ring_cache_use *cache_use;
        uint64_t n_hints;
        uint64_t n_hits[RING_TABLES_N]; /* as claimed */
};

/* Makes and seals the memory. `*ret_memfd` is for the daemon; the mapping does not need it. */
int client_ring_init(struct client_ring *ring, const struct ring_geometry *geometry, int *ret_memfd,
                     struct fault *ret_fault);
void client_ring_deinit(struct client_ring *ring);

/*
 * As it was after client_ring_init(), for another daemon; nobody else may be using it. Ids and
 * answers stay, where they are.
 */
void client_ring_reset(struct client_ring *ring);

/* -EAGAIN: the submission ring is full; -EPROTO: the daemon's index makes no sense. */
int client_ring_submit(struct client_ring *ring, const struct ring_submission *submission);

/*
 * Copies up to `n_max` completions out and gives their entries back to the daemon. Returns how
 * many; -EPROTO: the daemon's index makes no sense.
 */
int client_ring_reap(struct client_ring *ring, struct ring_completion *ret_completions,
                     uint32_t n_max);

/* True when there is a completion to reap. Touches nothing but memory. */
bool client_ring_ready(const struct client_ring *ring);

/* Busy-waits for a completion until `until_ns`: true when there is one. */
bool client_ring_spin(const struct client_ring *ring, uint64_t until_ns);

/*
 * Asks for a WAKE message at the next completion. False: one is there already, and nothing was
 * asked for. After true, client_ring_disarm() ends the waiting.
 */
bool client_ring_arm(struct client_ring *ring);
void client_ring_disarm(struct client_ring *ring);

/* Counts a lookup that was decoded here: `cost` and rows of output, of a table of `n_dims`. */
void client_ring_claim(struct client_ring *ring, const struct codec_cost *cost, uint64_t n_rows,
                       uint32_t n_dims);

/* Counts a row that was found in the cache of the table with this handle, and hints at its slot. */
void client_ring_hit(struct client_ring *ring, uint64_t handle, uint32_t slot);

/* When the daemon last showed life; 0: never. */
uint64_t client_ring_heartbeat_ns(const struct client_ring *ring);

/* Of the daemon that serves this ring. */
uint64_t client_ring_epoch(const struct client_ring *ring);

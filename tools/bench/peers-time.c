/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"
#include "peers.h"

/* Peers take turns so many times: what else the machine does hits all alike. */
#define ROUNDS      5u
#define SAMPLES_MAX 50000u /* of one turn */

const size_t peers_batches[PEERS_BATCHES] = { 1, 16, 256, 4096 };

struct timing {
        void *handles[PEERS_MAX];
        uint64_t *samples[PEERS_MAX]; /* ns of a batch */
        size_t n_samples[PEERS_MAX];
        uint64_t total_ns[PEERS_MAX];
        void *buffer;
};

/* The same ids for everyone in a round: it begins where the round says. */
static void take_turn(struct timing *t, const struct peer *peer, size_t i, const uint64_t *ids,
                      size_t n_ids, size_t batch, unsigned round, uint64_t turn_ns) {
        size_t n_batches = n_ids / batch, next = round * n_batches / ROUNDS, n = 0;
        uint64_t end_ns = clock_ns() + turn_ns;
        struct peer_rows rows;

        peer->get(t->handles[i], ids + next * batch, batch, t->buffer,
                  &rows); /* caches, spinning */
        do {
                uint64_t start_ns = clock_ns(), took_ns;

                next = (next + 1) % n_batches;
                peer->get(t->handles[i], ids + next * batch, batch, t->buffer, &rows);
                took_ns = clock_ns() - start_ns;
                t->samples[i][t->n_samples[i]++] = took_ns;
                t->total_ns[i] += took_ns;
        } while (++n < SAMPLES_MAX && clock_ns() < end_ns);
}

static void time_cell(struct timing *t, struct peers_result *results, size_t n_results, size_t kind,
                      size_t batch_index, const uint64_t *ids, size_t n_ids, uint64_t cell_ns) {
        size_t batch = peers_batches[batch_index];

        for (size_t i = 0; i < n_results; i++)
                t->n_samples[i] = t->total_ns[i] = 0;
        for (unsigned round = 0; round < ROUNDS; round++)
                for (size_t i = 0; i < n_results; i++)
                        take_turn(t, results[i].peer, i, ids, n_ids, batch, round,
                                  cell_ns / ROUNDS);
        for (size_t i = 0; i < n_results; i++) {
                struct peers_cell *cell = &results[i].cells[kind][batch_index];
                size_t n = t->n_samples[i];

                cell->p50_us = (double)percentile(t->samples[i], n, 0.5) / 1e3;
                cell->p99_us = (double)percentile(t->samples[i], n, 0.99) / 1e3;
                cell->rows_per_s = (double)(n * batch) / ((double)t->total_ns[i] / 1e9);
        }
}

void peers_time(struct peer_world *world, struct peers_result *results, size_t n_results,
                uint64_t *const ids[PEERS_IDS], size_t n_ids, uint64_t cell_ns) {
        struct timing t = {
                .buffer = allocate_pages(peers_batches[PEERS_BATCHES - 1] * world->row_bytes),
        };

        for (size_t i = 0; i < n_results; i++) {
                t.handles[i] = results[i].peer->open(world);
                t.samples[i] = allocate((size_t)ROUNDS * SAMPLES_MAX, sizeof(uint64_t));
        }
        for (size_t kind = 0; kind < PEERS_IDS; kind++)
                for (size_t b = 0; b < PEERS_BATCHES; b++)
                        time_cell(&t, results, n_results, kind, b, ids[kind], n_ids, cell_ns);
        for (size_t i = 0; i < n_results; i++) {
                results[i].peer->close(t.handles[i]);
                free(t.samples[i]);
        }
        free(t.buffer);
}

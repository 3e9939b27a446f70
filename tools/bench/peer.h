/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever can deliver rows by id: the same rows, in the same type, into a buffer of the caller's.
 * A peer makes its store from rows that carvq decoded, and one process then opens it any number of
 * times. One thread for each handle. What should not fail dies with a sentence.
 */
#pragma once

#include <limits.h>
#include <sys/types.h>

#include "lib/codec/codec.h"

/* What all peers serve. */
struct peer_world {
        uint64_t n_rows;
        uint32_t n_dims;
        uint8_t type;     /* of the rows delivered, a codec_type */
        size_t row_bytes; /* of one of them */
        char table_path[PATH_MAX];

        struct codec_table halves; /* a row of f16, wherever it is */
        struct codec_context context;
};

void peer_world_init(struct peer_world *world, const char *table_path, uint8_t type);
void peer_world_deinit(struct peer_world *world);

/* Calls `put` with block after block of the table's rows, as `type`. */
typedef void peer_put(void *userdata, uint64_t first, size_t n_rows, const void *rows);
void peer_world_each(struct peer_world *world, uint8_t type, peer_put *put, void *userdata);

/* A row of f16 to the type of the world, by the kernels that decode f16 tables. */
void peer_deliver(struct peer_world *world, const void *halves, void *ret_row);

struct peer_rows {
        const void *rows; /* in the buffer given, or the peer's own until the next get or close */
        size_t stride_bytes;
};

struct peer {
        const char *name;
        const char *missing; /* why it was not built; then nothing below is set */

        /* Makes the store, starts the server. False: it cannot be had here, and why. */
        bool (*set_up)(struct peer_world *world, struct fault *ret_why);
        void *(*open)(struct peer_world *world);
        void (*get)(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                    struct peer_rows *ret_rows);
        void (*close)(void *handle);
        void (*tear_down)(void);
        pid_t (*server)(void); /* NULL: it has none */
};

extern const struct peer peer_npy_f32, peer_npy_f16, peer_lmdb, peer_redis, peer_direct, peer_ring,
        peer_ring_in_place;

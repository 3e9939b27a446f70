/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trellis coding of rows (Marcellin, Fischer 1990; the bit-shift trellis of Tseng et al.: QTIP,
 * 2024): the centroid of a sub-vector is chosen by `window_bits` bits of the row's stream,
 * of which `code_bits` are its own. So neighbours share bits, and a row is coded as a whole: the
 * best path is found by dynamic programming (Viterbi 1967). The string is a ring, so that no bits
 * serve a few sub-vectors alone (tail-biting: Ma, Wolf 1986). Works on plain arrays of floats;
 * knows nothing of files.
 *
 * A state is a window, oldest bit most significant; FORMAT.md counts the same bits from the other
 * end. Centroids are float[column groups][h][2^window_bits].
 */
#pragma once

#include "proto/table.h"

struct trellis_shape {
        uint32_t window_bits;
        uint32_t subvector_dims;
        uint32_t n_dims;
        uint32_t group_cols; /* neighbouring sub-vectors that share centroids */
};

uint32_t trellis_n_subvectors(const struct trellis_shape *shape);
size_t trellis_group_floats(const struct trellis_shape *shape);
uint32_t trellis_n_groups(const struct trellis_shape *shape);

/* One thread's working memory, for codes of at least `code_bits_min` bits. */
struct trellis_scratch {
        float *costs[2];    /* [2^window_bits] */
        int32_t *best;      /* [2^(window_bits - k)]: the cheapest way into each set of states */
        int32_t *best_from; /* and the bits that leave the window on it */
        uint16_t *from;     /* [sub-vectors][2^(window_bits - k)] */
};

int trellis_scratch_init(struct trellis_scratch *scratch, const struct trellis_shape *shape,
                         uint32_t code_bits_min);
void trellis_scratch_deinit(struct trellis_scratch *scratch);

/*
 * A path of states around the ring with a small sum of weights[i] (values[i] - centroid[i])^2 over
 * the row: where the ring is cut open, a path over both ends decides, and from there it is the
 * least. `weights` may be NULL: all 1. `code_bits` is 1 to window_bits. Deterministic; ties go to
 * the lowest state. The same on every instruction set.
 */
void trellis_encode(const struct trellis_shape *shape, const float *centroids,
                    struct trellis_scratch *scratch, const float *values, const float *weights,
                    uint32_t code_bits, uint16_t *ret_states);

/* The centroids of a path. */
void trellis_decode(const struct trellis_shape *shape, const float *centroids,
                    const uint16_t *states, float *ret_values);

struct trellis_samples {
        const float *rows; /* [n_rows][n_dims] */
        size_t n_rows;
        const float *weights;     /* [n_dims], or NULL */
        const float *row_weights; /* [n_rows], or NULL */
        const uint8_t *code_bits; /* [n_rows]: each row is coded with as many */
};

struct trellis_effort {
        uint32_t n_passes;
        bool warm; /* go on from the centroids there are */
        /* May be NULL: called after each pass. */
        void (*passed)(void *userdata, uint32_t n_passes);
        void *userdata;
};

/*
 * Lloyd's iteration over paths: rows are coded, then each centroid moves to the weighted mean of
 * what it stood for. The result depends on samples and seed only.
 */
int trellis_train(const struct trellis_shape *shape, const struct trellis_samples *samples,
                  const struct trellis_effort *effort, uint64_t seed, unsigned n_threads,
                  float *ret_centroids);

/*
 * Packs a path as FORMAT.md's bit string into ceil(k J / 8) bytes; and the centroids' order there:
 * state s is entry trellis_entry(s) of the file's codebook.
 */
void trellis_pack(const uint16_t *states, uint32_t n_subvectors, uint32_t window_bits,
                  uint32_t code_bits, uint8_t *ret_bytes);
uint32_t trellis_entry(uint32_t state, uint32_t window_bits);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What prepare.c makes of a table for the kernels. Its columns: scales, and means or the whole of
 * an adaptor that is a linear map of few inputs, which then is part of decode(): floats, to be read
 * as they are. And the layers of an adaptor, packed for batches (adaptor.h).
 */
#pragma once

#include "kernels.h"

/* Inputs up to which a linear map costs less for each row by itself than for a batch, whose outputs
 * go through memory. Where there are fewer than three, the others' weights are zeros. */
#define CODEC_LINEAR_INPUTS_MAX 4u
#define CODEC_LINEAR_INPUTS_MIN 3u

/* Columns' arrays are `stride` floats apart, of which the last CODEC_COLUMNS_PAD belong to no
 * column: a vector may be loaded anywhere. */
#define CODEC_COLUMNS_PAD 16u

struct codec_columns {
        size_t stride;
        size_t n_inputs;      /* of the linear map; 0: there is none */
        const float *scales;  /* 1 where the table has none: exact */
        const float *biases;  /* means, or the linear map's; -0 where there are none: exact */
        const float *weights; /* an array for each input, and at least three */
};

#define CODEC_PANEL_OUTPUTS 16u /* that are computed together */
#define CODEC_TILE_INPUTS   64u /* a kilobyte of weights of a panel */
#define CODEC_TILE_BYTES    (CODEC_PANEL_OUTPUTS * CODEC_TILE_INPUTS)

/* One layer. Zeros fill the last panel and the last tile. */
struct codec_packed {
        size_t n_in, n_out;
        size_t n_panels, n_tiles;
        uint32_t n_digits; /* of a weight; 0: floats */
        bool relu;
        const float *biases;  /* [n_panels][16] */
        const float *scales;  /* [n_panels][16], of integers */
        const float *floats;  /* [n_panels][n_in][16] */
        const int8_t *digits; /* [n_panels][n_tiles][n_digits][16][16][4]: inputs by fours, outputs,
                                 inputs of the four; w1 before w0 */
};

struct codec_prepared {
        struct codec_columns columns;
        size_t n_layers; /* 0: no latents, or a weight is not finite */
        struct codec_packed layers[CODEC_LAYERS_MAX];
};

static inline const int8_t *codec_packed_tile(const struct codec_packed *l, size_t panel,
                                              size_t tile) {
        return l->digits + (panel * l->n_tiles + tile) * l->n_digits * CODEC_TILE_BYTES;
}

/* Whether the adaptor runs for batches of rows, and its outputs are what decode() adds. */
static inline bool codec_runs_batches(const struct codec_kernels *kernels,
                                      const struct codec_table *table) {
        bool linear = table->prepared && table->prepared->columns.n_inputs;

        return table->contents.header.latent_dims && !(kernels->runs_linear_map && linear);
}

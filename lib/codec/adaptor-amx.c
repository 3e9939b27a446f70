/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's steps (adaptor.h) for AMX: an instruction adds the products of 16 rows by 64 inputs
 * with 64 inputs by 16 outputs. Tiles are configured for a layer and released behind it, so that no
 * context switch has to save them elsewhere; nothing that is read meanwhile is mapped from a file.
 * The system's permission has been asked for (kernels.c). Any thread.
 */
#include "adaptor-avx512.h"
#include "adaptor-layers.h"

/* With fewer rows there is less for a tile to do than it costs. */
#define AMX_ROWS_MIN 4u

#define TILE_ROWS    16u

/* Weights come from the second cache: they are asked for so many tiles ahead. */
#define TILES_AHEAD 2u

/* Sums of a panel, by digits, for 16 rows and for the others; and what they are made of. */
#define TILE_HIGH  0
#define TILE_LOW   1
#define TILE_HIGH2 2
#define TILE_LOW2  3
#define TILE_X1    4 /* 64 inputs of 16 rows, by digits */
#define TILE_X0    5
#define TILE_W1    6 /* weights of 64 inputs, by digits */
#define TILE_W0    7

/* The sums of a block of inputs for a panel. */
struct sums {
        _Alignas(64) int32_t high[2 * TILE_ROWS][LANES];
        int32_t low[2 * TILE_ROWS][LANES];
};

/* What stays the same over a layer. */
struct job {
        const struct codec_packed *layer;
        const uint8_t *tiles;
        const float *scales;
        float *const *outputs;
        size_t n_rows, n_tile_rows;
};

/* Intel SDM, LDTILECFG: palette 1. */
struct tile_config {
        uint8_t palette, start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
};

static_assert(sizeof(struct tile_config) == 64, "a tile configuration is 64 bytes");

/* The intrinsics do not tell GCC 12 what memory they read. */
static _always_inline void memory_barrier(const void *memory) {
        __asm__ volatile("" : : "r"(memory) : "memory");
}

static void configure(size_t n_rows) {
        struct tile_config config = { .palette = 1 };

        for (size_t i = 0; i < 8; i++) {
                config.row_bytes[i] = 64;
                config.rows[i] = (uint8_t)n_rows;
        }
        config.rows[TILE_W1] = config.rows[TILE_W0] = CODEC_TILE_INPUTS / 4;
        memory_barrier(&config);
        _tile_loadconfig(&config);
}

/* Over one tile of inputs. */
static _always_inline void add_products(uint32_t n_digits, bool two, const int8_t *weights,
                                        const uint8_t *inputs, size_t n_tile_rows) {
        for (size_t i = 0; i < n_digits * CODEC_TILE_BYTES; i += 64)
                _mm_prefetch(weights + TILES_AHEAD * n_digits * CODEC_TILE_BYTES + i, _MM_HINT_T0);
        _tile_loadd(TILE_W1, weights, 64);
        _tile_loadd(TILE_X1, inputs, CODEC_INPUT_ROW_BYTES);
        _tile_dpbusd(TILE_HIGH, TILE_X1, TILE_W1);
        _tile_loadd(TILE_X0, inputs + CODEC_INPUT_DIGIT_BYTES, CODEC_INPUT_ROW_BYTES);
        _tile_dpbusd(TILE_LOW, TILE_X0, TILE_W1);
        if (n_digits == 2) {
                _tile_loadd(TILE_W0, weights + CODEC_TILE_BYTES, 64);
                _tile_dpbusd(TILE_LOW, TILE_X1, TILE_W0);
        }
        if (!two)
                return;
        inputs += n_tile_rows * CODEC_INPUT_ROW_BYTES;
        _tile_loadd(TILE_X1, inputs, CODEC_INPUT_ROW_BYTES);
        _tile_dpbusd(TILE_HIGH2, TILE_X1, TILE_W1);
        _tile_loadd(TILE_X0, inputs + CODEC_INPUT_DIGIT_BYTES, CODEC_INPUT_ROW_BYTES);
        _tile_dpbusd(TILE_LOW2, TILE_X0, TILE_W1);
        if (n_digits == 2)
                _tile_dpbusd(TILE_LOW2, TILE_X1, TILE_W0);
}

static _always_inline void sum_block(const struct job *job, uint32_t n_digits, bool two,
                                     size_t panel, size_t first, struct sums *ret_sums) {
        const struct codec_packed *l = job->layer;
        size_t n_tiles = MIN(l->n_tiles - first, CODEC_BLOCK_TILES);
        const int8_t *weights = codec_packed_tile(l, panel, first);
        const uint8_t *inputs = job->tiles + first * CODEC_INPUT_TILE_BYTES;

        _tile_zero(TILE_HIGH);
        _tile_zero(TILE_LOW);
        _tile_zero(TILE_HIGH2);
        _tile_zero(TILE_LOW2);
        for (size_t t = 0; t < n_tiles; t++)
                add_products(n_digits, two, weights + t * n_digits * CODEC_TILE_BYTES,
                             inputs + t * CODEC_INPUT_TILE_BYTES, job->n_tile_rows);
        _tile_stored(TILE_HIGH, ret_sums->high, 64);
        _tile_stored(TILE_LOW, ret_sums->low, 64);
        if (two) {
                _tile_stored(TILE_HIGH2, ret_sums->high[job->n_tile_rows], 64);
                _tile_stored(TILE_LOW2, ret_sums->low[job->n_tile_rows], 64);
        }
        memory_barrier(ret_sums);
}

static _always_inline void digits_layer(const struct job *job, uint32_t n_digits, bool two) {
        const struct codec_packed *l = job->layer;
        struct sums sums;

        for (size_t panel = 0; panel < l->n_panels; panel++)
                for (size_t first = 0; first < l->n_tiles; first += CODEC_BLOCK_TILES) {
                        struct panel_end end = panel_end(l, panel, first);

                        sum_block(job, n_digits, two, panel, first, &sums);
                        for (size_t r = 0; r < job->n_rows; r++)
                                end_row(&end, _mm512_load_si512(sums.high[r]),
                                        _mm512_load_si512(sums.low[r]), job->scales[r],
                                        job->outputs[r]);
                }
}

/* Two tiles of rows are alike, so that they may share those of inputs: with an odd number of rows
 * the last of the second is none, and its sums are nobody's. */
static void digits(const struct codec_packed *l, const uint8_t *tiles, const float *scales,
                   size_t n_rows, float *const *ret_outputs) {
        const struct job job = {
                .layer = l,
                .tiles = tiles,
                .scales = scales,
                .outputs = ret_outputs,
                .n_rows = n_rows,
                .n_tile_rows = n_rows > TILE_ROWS ? (n_rows + 1) / 2 : n_rows,
        };
        bool two = n_rows > TILE_ROWS;

        if (n_rows < AMX_ROWS_MIN) {
                codec_vnni_digits(l, tiles, scales, n_rows, ret_outputs);
                return;
        }
        configure(job.n_tile_rows);
        memory_barrier(tiles);
        if (l->n_digits == 2 && two)
                digits_layer(&job, 2, true);
        else if (l->n_digits == 2)
                digits_layer(&job, 2, false);
        else if (two)
                digits_layer(&job, 1, true);
        else
                digits_layer(&job, 1, false);
        _tile_release();
}

ADAPTOR(codec_amx_adaptor, codec_vnni_floats, codec_vnni_quantize, digits)

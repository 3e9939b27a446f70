/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the batched adaptor share: its weights as they are packed at load (prepared.h),
 * the walk over its layers (adaptor-batch.c), and the steps that each instruction set has.
 *
 * One algorithm for all of them, so that a row's bits depend neither on the machine nor on the
 * batch it is in. The first layer, whose inputs are few and of both signs, is in f32: from the bias
 * on, one fused multiplication and addition for each input, in their order. Inputs of the others
 * have passed a ReLU. A row's are divided by its largest and rounded to 14 bits; int8 weights are
 * what they are, half weights are divided by their output's largest and rounded to 15. Then of each
 * CODEC_BLOCK_INPUTS inputs the sum of products is an integer that fits 32 bits, which may be made
 * of whole numbers or of digits, in any order; the blocks' sums become f32 and are added in order.
 *
 * An input x is 128 x1 + x0, 0 <= x0, x1 < 128: digits that every instruction takes, signed or not,
 * and that AVX2's do not saturate with. A half weight w is 128 w1 + w0, -64 <= w0 < 64, of whose
 * products with x all but w0 x0 are used: that is at most 2^-15 of the largest, of either sign.
 */
#pragma once

#include "prepared.h"

#define CODEC_BLOCK_INPUTS 1024u /* 2^14 x 2^7 x 2^10 is the largest sum */
#define CODEC_BLOCK_TILES  (CODEC_BLOCK_INPUTS / CODEC_TILE_INPUTS)

#define CODEC_INPUT_MAX    16383 /* 127 x 128 + 127 */
#define CODEC_WEIGHT_MAX   16319 /* 127 x 128 + 63 */

/* Inputs of a tile: for all rows of a batch, 64 digits x1, then x0; or 64 of the type int16_t. */
#define CODEC_INPUT_ROW_BYTES   64u
#define CODEC_INPUT_DIGIT_BYTES (CODEC_BATCH_ROWS * CODEC_INPUT_ROW_BYTES)
#define CODEC_INPUT_TILE_BYTES  (2 * CODEC_INPUT_DIGIT_BYTES)

/* Row maxima below this count as 0, so that nothing is divided by what is nearly that. */
#define CODEC_TINY 0x1p-100f
#define CODEC_HUGE 0x1.fffffep127f

/*
 * Outputs go to whole panels: rows of them have room for multiples of 16. A ReLU leaves 0 of a NaN
 * and the largest float of an infinity, so that what follows is finite.
 */
struct codec_adaptor_steps {
        void (*floats)(const struct codec_packed *layer, const float *inputs, size_t stride,
                       size_t n_rows, float *const *ret_outputs);
        /* The `n` inputs of a row, padded with zeros to a multiple of 16, to its places in the
         * tiles. Returns what 1 is worth. */
        float (*quantize)(const float *inputs, size_t n, uint8_t *tiles, size_t row);
        void (*digits)(const struct codec_packed *layer, const uint8_t *tiles, const float *scales,
                       size_t n_rows, float *const *ret_outputs);
};

/* The entry of struct codec_kernels, by these steps. */
void codec_adaptor_batch(const struct codec_adaptor_steps *steps, const struct codec_table *table,
                         const struct codec_record *records, size_t n_rows, float *scratch,
                         size_t stride, float *ret_outputs);

/* What scale and factor a row has whose largest input is this. */
static inline float codec_input_scale(float max) {
        return max < CODEC_TINY ? 0 : max / CODEC_INPUT_MAX;
}

static inline float codec_input_factor(float max) {
        return max < CODEC_TINY ? 0 : CODEC_INPUT_MAX / max;
}

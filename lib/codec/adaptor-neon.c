/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's steps (adaptor.h) for NEON as every 64-bit Arm has it. Inputs are whole numbers of
 * 16 bits, four to a multiplication. Any thread.
 */
#include "adaptor-neon.h"
#include "adaptor-layers.h"

/* ---- The first layer ---- */

#define FLOAT_ROWS 4u

static _always_inline void floats_block(const struct codec_packed *l, size_t panel,
                                        const float *inputs, size_t stride, size_t row,
                                        size_t n_rows, float *const *outputs) {
        const float *weights = l->floats + panel * l->n_in * CODEC_PANEL_OUTPUTS;
        size_t first = panel * CODEC_PANEL_OUTPUTS;
        float32x4_t sums[FLOAT_ROWS][VECTORS];

        inputs += row * stride;
        for (size_t r = 0; r < n_rows; r++)
                for (size_t v = 0; v < VECTORS; v++)
                        sums[r][v] = vld1q_f32(l->biases + first + v * LANES);
        for (size_t i = 0; i < l->n_in; i++)
                for (size_t v = 0; v < VECTORS; v++) {
                        float32x4_t w = vld1q_f32(weights + i * CODEC_PANEL_OUTPUTS + v * LANES);

                        for (size_t r = 0; r < n_rows; r++)
                                sums[r][v] = vfmaq_n_f32(sums[r][v], w, inputs[r * stride + i]);
                }
        for (size_t r = 0; r < n_rows; r++)
                for (size_t v = 0; v < VECTORS; v++)
                        vst1q_f32(outputs[row + r] + first + v * LANES,
                                  l->relu ? relu(sums[r][v]) : sums[r][v]);
}

void codec_neon_floats(const struct codec_packed *l, const float *inputs, size_t stride,
                       size_t n_rows, float *const *ret_outputs) {
        for (size_t panel = 0; panel < l->n_panels; panel++) {
                size_t row = 0;

                for (; row + FLOAT_ROWS <= n_rows; row += FLOAT_ROWS)
                        floats_block(l, panel, inputs, stride, row, FLOAT_ROWS, ret_outputs);
                for (; row < n_rows; row++)
                        floats_block(l, panel, inputs, stride, row, 1, ret_outputs);
        }
}

/* ---- The others ---- */

static float quantize(const float *inputs, size_t n, uint8_t *tiles, size_t row) {
        float max = largest(inputs, n), factor = codec_input_factor(max);

        tiles += row * 2 * CODEC_INPUT_ROW_BYTES;
        for (size_t i = 0; i < align_up(n, CODEC_TILE_INPUTS); i += LANES) {
                uint8_t *at = tiles + i / CODEC_TILE_INPUTS * CODEC_INPUT_TILE_BYTES +
                              i % CODEC_TILE_INPUTS * sizeof(int16_t);

                vst1_u16((uint16_t *)(void *)at, vmovn_u32(quantize_vector(inputs, i, n, factor)));
        }
        return codec_input_scale(max);
}

/* Four sums for each output, one for each of four inputs: a quarter of a panel at a time. */
#define DIGIT_ROWS 4u

static _always_inline void add_tile(const int8_t *weights, uint32_t n_digits, const uint8_t *inputs,
                                    size_t n_rows, int32x4_t sums[DIGIT_ROWS][LANES]) {
        for (size_t i = 0; i < CODEC_TILE_INPUTS; i += 4)
                for (size_t d = 0; d < n_digits; d++) {
                        int8x16_t w =
                                vld1q_s8(weights + d * CODEC_TILE_BYTES + i * CODEC_PANEL_OUTPUTS);
                        int16x8_t low = vmovl_s8(vget_low_s8(w)), high = vmovl_high_s8(w);

                        for (size_t r = 0; r < n_rows; r++) {
                                int16x4_t x = vld1_s16(
                                        (const void *)(inputs + r * 2 * CODEC_INPUT_ROW_BYTES +
                                                       i * sizeof(int16_t)));

                                if (d)
                                        x = vshr_n_s16(x, 7);
                                sums[r][0] = vmlal_s16(sums[r][0], vget_low_s16(low), x);
                                sums[r][1] = vmlal_s16(sums[r][1], vget_high_s16(low), x);
                                sums[r][2] = vmlal_s16(sums[r][2], vget_low_s16(high), x);
                                sums[r][3] = vmlal_s16(sums[r][3], vget_high_s16(high), x);
                        }
                }
}

static _always_inline void digits_block(const struct codec_packed *l, uint32_t n_digits,
                                        size_t panel, size_t vector, const uint8_t *tiles,
                                        const float *scales, size_t row, size_t n_rows,
                                        float *const *outputs) {
        tiles += row * 2 * CODEC_INPUT_ROW_BYTES;
        for (size_t first = 0; first < l->n_tiles; first += CODEC_BLOCK_TILES) {
                size_t end = MIN(first + CODEC_BLOCK_TILES, l->n_tiles);
                int32x4_t sums[DIGIT_ROWS][LANES];

                for (size_t r = 0; r < n_rows; r++)
                        for (size_t o = 0; o < LANES; o++)
                                sums[r][o] = vdupq_n_s32(0);
                for (size_t t = first; t < end; t++)
                        add_tile(codec_packed_tile(l, panel, t) + vector * 16, n_digits,
                                 tiles + t * CODEC_INPUT_TILE_BYTES, n_rows, sums);
                for (size_t r = 0; r < n_rows; r++) {
                        int32x4_t four = vpaddq_s32(vpaddq_s32(sums[r][0], sums[r][1]),
                                                    vpaddq_s32(sums[r][2], sums[r][3]));

                        finish_block(l, panel * CODEC_PANEL_OUTPUTS + vector * LANES, first, four,
                                     scales[row + r], outputs[row + r]);
                }
        }
}

static _always_inline void digits_layer(const struct codec_packed *l, uint32_t n_digits,
                                        const uint8_t *tiles, const float *scales, size_t n_rows,
                                        float *const *outputs) {
        for (size_t v = 0; v < l->n_panels * VECTORS; v++) {
                size_t panel = v / VECTORS, vector = v % VECTORS, row = 0;

                for (; row + DIGIT_ROWS <= n_rows; row += DIGIT_ROWS)
                        digits_block(l, n_digits, panel, vector, tiles, scales, row, DIGIT_ROWS,
                                     outputs);
                for (; row < n_rows; row++)
                        digits_block(l, n_digits, panel, vector, tiles, scales, row, 1, outputs);
        }
}

static DIGITS_STEP(digits)

        ADAPTOR(codec_neon_adaptor, codec_neon_floats, quantize, digits)

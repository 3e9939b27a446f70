/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's steps (adaptor.h) for NEON with dot products: an instruction adds four products of
 * signed bytes to each of four sums. Any thread.
 */
#include "adaptor-layers.h"
#include "adaptor-neon.h"

static float quantize(const float *inputs, size_t n, uint8_t *tiles, size_t row) {
        float max = largest(inputs, n), factor = codec_input_factor(max);

        tiles += row * CODEC_INPUT_ROW_BYTES;
        for (size_t i = 0; i < align_up(n, CODEC_TILE_INPUTS); i += 2 * LANES) {
                uint8_t *at = tiles + i / CODEC_TILE_INPUTS * CODEC_INPUT_TILE_BYTES +
                              i % CODEC_TILE_INPUTS;
                uint16x8_t q =
                        vcombine_u16(vmovn_u32(quantize_vector(inputs, i, n, factor)),
                                     vmovn_u32(quantize_vector(inputs, i + LANES, n, factor)));

                vst1_u8(at, vshrn_n_u16(q, 7));
                vst1_u8(at + CODEC_INPUT_DIGIT_BYTES, vmovn_u16(vandq_u16(q, vdupq_n_u16(127))));
        }
        return codec_input_scale(max);
}

#define DIGIT_ROWS 3u

static _always_inline void add_tile(const int8_t *weights, uint32_t n_digits, const uint8_t *inputs,
                                    size_t n_rows, int32x4_t high[DIGIT_ROWS][VECTORS],
                                    int32x4_t low[DIGIT_ROWS][VECTORS]) {
        for (size_t i = 0; i < CODEC_TILE_INPUTS; i += 4) {
                int8x16_t x1[DIGIT_ROWS], x0[DIGIT_ROWS];

                for (size_t r = 0; r < n_rows; r++) {
                        const uint8_t *at = inputs + r * CODEC_INPUT_ROW_BYTES + i;

                        x1[r] = vreinterpretq_s8_s32(vld1q_dup_s32((const void *)at));
                        x0[r] = vreinterpretq_s8_s32(
                                vld1q_dup_s32((const void *)(at + CODEC_INPUT_DIGIT_BYTES)));
                }
                for (size_t v = 0; v < VECTORS; v++) {
                        const int8_t *at = weights + i * CODEC_PANEL_OUTPUTS + v * 16;
                        int8x16_t w1 = vld1q_s8(at);

                        for (size_t r = 0; r < n_rows; r++) {
                                high[r][v] = vdotq_s32(high[r][v], w1, x1[r]);
                                low[r][v] = vdotq_s32(low[r][v], w1, x0[r]);
                                if (n_digits == 2)
                                        low[r][v] = vdotq_s32(
                                                low[r][v], vld1q_s8(at + CODEC_TILE_BYTES), x1[r]);
                        }
                }
        }
}

static _always_inline void digits_block(const struct codec_packed *l, uint32_t n_digits,
                                        size_t panel, const uint8_t *tiles, const float *scales,
                                        size_t row, size_t n_rows, float *const *outputs) {
        tiles += row * CODEC_INPUT_ROW_BYTES;
        for (size_t first = 0; first < l->n_tiles; first += CODEC_BLOCK_TILES) {
                size_t end = MIN(first + CODEC_BLOCK_TILES, l->n_tiles);
                int32x4_t high[DIGIT_ROWS][VECTORS], low[DIGIT_ROWS][VECTORS];

                for (size_t r = 0; r < n_rows; r++)
                        for (size_t v = 0; v < VECTORS; v++)
                                high[r][v] = low[r][v] = vdupq_n_s32(0);
                for (size_t t = first; t < end; t++)
                        add_tile(codec_packed_tile(l, panel, t), n_digits,
                                 tiles + t * CODEC_INPUT_TILE_BYTES, n_rows, high, low);
                for (size_t r = 0; r < n_rows; r++)
                        for (size_t v = 0; v < VECTORS; v++)
                                finish_block(l, panel * CODEC_PANEL_OUTPUTS + v * LANES, first,
                                             vaddq_s32(vshlq_n_s32(high[r][v], 7), low[r][v]),
                                             scales[row + r], outputs[row + r]);
        }
}

static _always_inline void digits_layer(const struct codec_packed *l, uint32_t n_digits,
                                        const uint8_t *tiles, const float *scales, size_t n_rows,
                                        float *const *outputs) {
        for (size_t panel = 0; panel < l->n_panels; panel++) {
                size_t row = 0;

                for (; row + DIGIT_ROWS <= n_rows; row += DIGIT_ROWS)
                        digits_block(l, n_digits, panel, tiles, scales, row, DIGIT_ROWS, outputs);
                for (; row < n_rows; row++)
                        digits_block(l, n_digits, panel, tiles, scales, row, 1, outputs);
        }
}

static DIGITS_STEP(digits)

        ADAPTOR(codec_dotprod_adaptor, codec_neon_floats, quantize, digits)

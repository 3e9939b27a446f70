/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's steps (adaptor.h) for AVX-512 with VNNI, whose instruction adds four products of an
 * unsigned and a signed byte to each of 16 sums. Sums of a few panels and rows stay in registers
 * while their inputs and weights pass by. Any thread.
 */
#include "adaptor-avx512.h"
#include "adaptor-layers.h"

/* ---- The first layer ---- */

#define FLOAT_PANELS 2u
#define FLOAT_ROWS   8u

static _always_inline void floats_block(const struct codec_packed *l, size_t panel, size_t n_panels,
                                        const float *inputs, size_t stride, size_t row,
                                        size_t n_rows, float *const *outputs) {
        const float *weights = l->floats + panel * l->n_in * LANES;
        __m512 sums[FLOAT_PANELS][FLOAT_ROWS];

        inputs += row * stride;
        for (size_t p = 0; p < n_panels; p++)
                for (size_t r = 0; r < n_rows; r++)
                        sums[p][r] = _mm512_loadu_ps(l->biases + (panel + p) * LANES);
        for (size_t i = 0; i < l->n_in; i++) {
                __m512 w[FLOAT_PANELS];

                for (size_t p = 0; p < n_panels; p++)
                        w[p] = _mm512_loadu_ps(weights + (p * l->n_in + i) * LANES);
                for (size_t r = 0; r < n_rows; r++) {
                        __m512 x = _mm512_set1_ps(inputs[r * stride + i]);

                        for (size_t p = 0; p < n_panels; p++)
                                sums[p][r] = _mm512_fmadd_ps(w[p], x, sums[p][r]);
                }
        }
        for (size_t p = 0; p < n_panels; p++)
                for (size_t r = 0; r < n_rows; r++)
                        _mm512_storeu_ps(outputs[row + r] + (panel + p) * LANES,
                                         l->relu ? relu(sums[p][r]) : sums[p][r]);
}

static _always_inline void floats_panels(const struct codec_packed *l, size_t panel,
                                         size_t n_panels, const float *inputs, size_t stride,
                                         size_t n_rows, float *const *outputs) {
        size_t row = 0;

        for (; row + FLOAT_ROWS <= n_rows; row += FLOAT_ROWS)
                floats_block(l, panel, n_panels, inputs, stride, row, FLOAT_ROWS, outputs);
        for (; row + 2 <= n_rows; row += 2)
                floats_block(l, panel, n_panels, inputs, stride, row, 2, outputs);
        if (row < n_rows)
                floats_block(l, panel, n_panels, inputs, stride, row, 1, outputs);
}

void codec_vnni_floats(const struct codec_packed *l, const float *inputs, size_t stride,
                       size_t n_rows, float *const *ret_outputs) {
        size_t panel = 0;

        for (; panel + FLOAT_PANELS <= l->n_panels; panel += FLOAT_PANELS)
                floats_panels(l, panel, FLOAT_PANELS, inputs, stride, n_rows, ret_outputs);
        if (panel < l->n_panels)
                floats_panels(l, panel, 1, inputs, stride, n_rows, ret_outputs);
}

/* ---- The others ---- */

static float largest(const float *inputs, size_t n) {
        __m512 max[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                          _mm512_setzero_ps() };

        for (size_t i = 0; i < n; i += LANES) {
                size_t k = i / LANES % 4;

                max[k] = _mm512_max_ps(max[k], _mm512_loadu_ps(inputs + i));
        }
        return _mm512_reduce_max_ps(
                _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3])));
}

/* 16 inputs, or fewer and zeros. */
static _always_inline void quantize_vector(__m512 inputs, __m512 factor, uint8_t *at) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(inputs, factor));

        q = _mm512_min_epi32(q, _mm512_set1_epi32(CODEC_INPUT_MAX));
        _mm_store_si128((void *)at, _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 7)));
        q = _mm512_and_si512(q, _mm512_set1_epi32(127));
        _mm_store_si128((void *)(at + CODEC_INPUT_DIGIT_BYTES), _mm512_cvtepi32_epi8(q));
}

float codec_vnni_quantize(const float *inputs, size_t n, uint8_t *tiles, size_t row) {
        float max = largest(inputs, n);
        const __m512 factor = _mm512_set1_ps(codec_input_factor(max));
        uint8_t *at = tiles + row * CODEC_INPUT_ROW_BYTES;

        for (; n >= CODEC_TILE_INPUTS; n -= CODEC_TILE_INPUTS) {
                for (size_t i = 0; i < CODEC_TILE_INPUTS; i += LANES)
                        quantize_vector(_mm512_loadu_ps(inputs + i), factor, at + i);
                inputs += CODEC_TILE_INPUTS;
                at += CODEC_INPUT_TILE_BYTES;
        }
        for (size_t i = 0; n && i < CODEC_TILE_INPUTS; i += LANES)
                quantize_vector(i < n ? _mm512_loadu_ps(inputs + i) : _mm512_setzero_ps(), factor,
                                at + i);
        return codec_input_scale(max);
}

#define DIGIT_PANELS 4u
#define DIGIT_ROWS   4u

static _always_inline __m512i four_inputs(const uint8_t *inputs) {
        int32_t four;

        memcpy(&four, inputs, sizeof(four));
        return _mm512_set1_epi32(four);
}

/* Sums of products over one tile. */
static _always_inline void add_tile(const struct codec_packed *l, uint32_t n_digits, size_t panel,
                                    size_t n_panels, size_t tile, const uint8_t *inputs,
                                    size_t n_rows, __m512i high[DIGIT_PANELS][DIGIT_ROWS],
                                    __m512i low[DIGIT_PANELS][DIGIT_ROWS]) {
        const int8_t *weights = codec_packed_tile(l, panel, tile);
        size_t panel_bytes = l->n_tiles * n_digits * CODEC_TILE_BYTES;

        for (size_t i = 0; i < CODEC_TILE_INPUTS; i += 4) {
                __m512i w1[DIGIT_PANELS], w0[DIGIT_PANELS];

                for (size_t p = 0; p < n_panels; p++) {
                        const int8_t *at = weights + p * panel_bytes + i * LANES;

                        w1[p] = _mm512_load_si512(at);
                        if (n_digits == 2)
                                w0[p] = _mm512_load_si512(at + CODEC_TILE_BYTES);
                }
                for (size_t r = 0; r < n_rows; r++) {
                        const uint8_t *at = inputs + r * CODEC_INPUT_ROW_BYTES + i;
                        __m512i x1 = four_inputs(at),
                                x0 = four_inputs(at + CODEC_INPUT_DIGIT_BYTES);

                        for (size_t p = 0; p < n_panels; p++) {
                                high[p][r] = _mm512_dpbusd_epi32(high[p][r], x1, w1[p]);
                                low[p][r] = _mm512_dpbusd_epi32(low[p][r], x0, w1[p]);
                                if (n_digits == 2)
                                        low[p][r] = _mm512_dpbusd_epi32(low[p][r], x1, w0[p]);
                        }
                }
        }
}

static _always_inline void digits_block(const struct codec_packed *l, uint32_t n_digits,
                                        size_t panel, size_t n_panels, const uint8_t *tiles,
                                        const float *scales, size_t row, size_t n_rows,
                                        float *const *outputs) {
        tiles += row * CODEC_INPUT_ROW_BYTES;
        for (size_t first = 0; first < l->n_tiles; first += CODEC_BLOCK_TILES) {
                size_t end = MIN(first + CODEC_BLOCK_TILES, l->n_tiles);
                __m512i high[DIGIT_PANELS][DIGIT_ROWS], low[DIGIT_PANELS][DIGIT_ROWS];

                for (size_t p = 0; p < n_panels; p++)
                        for (size_t r = 0; r < n_rows; r++)
                                high[p][r] = low[p][r] = _mm512_setzero_si512();
                for (size_t t = first; t < end; t++)
                        add_tile(l, n_digits, panel, n_panels, t,
                                 tiles + t * CODEC_INPUT_TILE_BYTES, n_rows, high, low);
                for (size_t p = 0; p < n_panels; p++) {
                        struct panel_end end_panel = panel_end(l, panel + p, first);

                        for (size_t r = 0; r < n_rows; r++)
                                end_row(&end_panel, high[p][r], low[p][r], scales[row + r],
                                        outputs[row + r]);
                }
        }
}

/* As many sums as registers: of many rows, or of many panels of one. */
static _always_inline void digits_layer(const struct codec_packed *l, uint32_t n_digits,
                                        const uint8_t *tiles, const float *scales, size_t n_rows,
                                        float *const *outputs) {
        size_t panel = 0;

        if (n_rows < 2)
                for (; panel + 4 <= l->n_panels; panel += 4)
                        digits_block(l, n_digits, panel, 4, tiles, scales, 0, 1, outputs);
        for (; panel < l->n_panels; panel += 2) {
                size_t row = 0;

                if (panel + 1 == l->n_panels) {
                        for (; row < n_rows; row++)
                                digits_block(l, n_digits, panel, 1, tiles, scales, row, 1, outputs);
                        break;
                }
                for (; row + 4 <= n_rows; row += 4)
                        digits_block(l, n_digits, panel, 2, tiles, scales, row, 4, outputs);
                for (; row < n_rows; row++)
                        digits_block(l, n_digits, panel, 2, tiles, scales, row, 1, outputs);
        }
}

DIGITS_STEP(codec_vnni_digits)

ADAPTOR(codec_vnni_adaptor, codec_vnni_floats, codec_vnni_quantize, codec_vnni_digits)

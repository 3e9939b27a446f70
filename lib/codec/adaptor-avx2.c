/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's steps (adaptor.h) for AVX2 with FMA. Inputs are whole numbers of 16 bits and not
 * digits: a multiplication of 16-bit numbers makes one of what takes two of bytes, and their
 * additions. Also for AVX-512 without VNNI, which is no faster at it. Any thread.
 */
#include <immintrin.h>

#include "adaptor-layers.h"

#define LANES          8u
#define _always_inline inline __attribute__((always_inline))

/* Of a NaN and 0, max gives the second. */
static _always_inline __m256 relu(__m256 v) {
        return _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), _mm256_set1_ps(CODEC_HUGE));
}

/* ---- The first layer ---- */

#define FLOAT_ROWS 4u

static _always_inline void floats_block(const struct codec_packed *l, size_t panel,
                                        const float *inputs, size_t stride, size_t row,
                                        size_t n_rows, float *const *outputs) {
        const float *weights = l->floats + panel * l->n_in * CODEC_PANEL_OUTPUTS;
        __m256 sums[FLOAT_ROWS][2];

        inputs += row * stride;
        for (size_t r = 0; r < n_rows; r++)
                for (size_t p = 0; p < 2; p++)
                        sums[r][p] = _mm256_loadu_ps(l->biases + panel * CODEC_PANEL_OUTPUTS +
                                                     p * LANES);
        for (size_t i = 0; i < l->n_in; i++) {
                __m256 w[] = { _mm256_loadu_ps(weights + i * CODEC_PANEL_OUTPUTS),
                               _mm256_loadu_ps(weights + i * CODEC_PANEL_OUTPUTS + LANES) };

                for (size_t r = 0; r < n_rows; r++) {
                        __m256 x = _mm256_set1_ps(inputs[r * stride + i]);

                        for (size_t p = 0; p < 2; p++)
                                sums[r][p] = _mm256_fmadd_ps(w[p], x, sums[r][p]);
                }
        }
        for (size_t r = 0; r < n_rows; r++)
                for (size_t p = 0; p < 2; p++)
                        _mm256_storeu_ps(outputs[row + r] + panel * CODEC_PANEL_OUTPUTS + p * LANES,
                                         l->relu ? relu(sums[r][p]) : sums[r][p]);
}

static void floats(const struct codec_packed *l, const float *inputs, size_t stride, size_t n_rows,
                   float *const *ret_outputs) {
        for (size_t panel = 0; panel < l->n_panels; panel++) {
                size_t row = 0;

                for (; row + FLOAT_ROWS <= n_rows; row += FLOAT_ROWS)
                        floats_block(l, panel, inputs, stride, row, FLOAT_ROWS, ret_outputs);
                for (; row < n_rows; row++)
                        floats_block(l, panel, inputs, stride, row, 1, ret_outputs);
        }
}

/* ---- The others ---- */

static float largest(const float *inputs, size_t n) {
        __m256 max = _mm256_setzero_ps();
        __m128 v;

        for (size_t i = 0; i < align_up(n, LANES); i += LANES)
                max = _mm256_max_ps(max, _mm256_loadu_ps(inputs + i));
        v = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps(max, 1));
        v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}

static float quantize(const float *inputs, size_t n, uint8_t *tiles, size_t row) {
        float max = largest(inputs, n);
        __m256 factor = _mm256_set1_ps(codec_input_factor(max));

        tiles += row * 2 * CODEC_INPUT_ROW_BYTES;
        for (size_t i = 0; i < align_up(n, CODEC_TILE_INPUTS); i += LANES) {
                uint8_t *at = tiles + i / CODEC_TILE_INPUTS * CODEC_INPUT_TILE_BYTES +
                              i % CODEC_TILE_INPUTS * sizeof(int16_t);
                __m256i q = _mm256_setzero_si256();

                if (i < n)
                        q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(inputs + i), factor));
                q = _mm256_min_epi32(q, _mm256_set1_epi32(CODEC_INPUT_MAX));
                _mm_store_si128((void *)at, _mm_packs_epi32(_mm256_castsi256_si128(q),
                                                            _mm256_extracti128_si256(q, 1)));
        }
        return codec_input_scale(max);
}

/* Four outputs in each vector, and of each two sums: of the first and of the last two of four
 * inputs. Half a panel for some rows, or a whole one for one, is what the registers hold. */
#define VECTORS    4u
#define DIGIT_ROWS 4u

static _always_inline void add_tile(const int8_t *weights, uint32_t n_digits, const uint8_t *inputs,
                                    size_t n_rows, size_t n_vectors,
                                    __m256i sums[DIGIT_ROWS][VECTORS]) {
        for (size_t i = 0; i < CODEC_TILE_INPUTS; i += 4)
                for (size_t d = 0; d < n_digits; d++) {
                        const int8_t *at = weights + d * CODEC_TILE_BYTES + i * CODEC_PANEL_OUTPUTS;
                        __m256i x[DIGIT_ROWS];

                        for (size_t r = 0; r < n_rows; r++) {
                                int64_t four;

                                memcpy(&four,
                                       inputs + r * 2 * CODEC_INPUT_ROW_BYTES + i * sizeof(int16_t),
                                       sizeof(four));
                                x[r] = _mm256_set1_epi64x(four);
                                if (d)
                                        x[r] = _mm256_srli_epi16(x[r], 7);
                        }
                        for (size_t v = 0; v < n_vectors; v++) {
                                __m256i w = _mm256_cvtepi8_epi16(
                                        _mm_load_si128((const void *)(at + 16 * v)));

                                for (size_t r = 0; r < n_rows; r++)
                                        sums[r][v] = _mm256_add_epi32(sums[r][v],
                                                                      _mm256_madd_epi16(x[r], w));
                        }
                }
}

/* Sums of outputs from `at` on over the block of inputs that begins with tile `first`, for one row.
 */
static _always_inline void finish_block(const struct codec_packed *l, size_t at, size_t first,
                                        const __m256i sums[2], float scale, float *output) {
        __m256i pairs = _mm256_hadd_epi32(sums[0], sums[1]);
        __m256 v = _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(pairs, _MM_SHUFFLE(3, 1, 2, 0)));

        if (first)
                v = _mm256_add_ps(_mm256_loadu_ps(output + at), v);
        if (first + CODEC_BLOCK_TILES >= l->n_tiles) {
                __m256 scales =
                        _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(l->scales + at));

                v = _mm256_fmadd_ps(v, scales, _mm256_loadu_ps(l->biases + at));
                if (l->relu)
                        v = relu(v);
        }
        _mm256_storeu_ps(output + at, v);
}

static _always_inline void digits_block(const struct codec_packed *l, uint32_t n_digits, size_t at,
                                        size_t n_vectors, const uint8_t *tiles, const float *scales,
                                        size_t row, size_t n_rows, float *const *outputs) {
        size_t panel = at / CODEC_PANEL_OUTPUTS, within = at % CODEC_PANEL_OUTPUTS;

        tiles += row * 2 * CODEC_INPUT_ROW_BYTES;
        for (size_t first = 0; first < l->n_tiles; first += CODEC_BLOCK_TILES) {
                size_t end = MIN(first + CODEC_BLOCK_TILES, l->n_tiles);
                __m256i sums[DIGIT_ROWS][VECTORS];

                for (size_t r = 0; r < n_rows; r++)
                        for (size_t v = 0; v < n_vectors; v++)
                                sums[r][v] = _mm256_setzero_si256();
                for (size_t t = first; t < end; t++)
                        add_tile(codec_packed_tile(l, panel, t) + within * 4, n_digits,
                                 tiles + t * CODEC_INPUT_TILE_BYTES, n_rows, n_vectors, sums);
                for (size_t r = 0; r < n_rows; r++)
                        for (size_t v = 0; v < n_vectors; v += 2)
                                finish_block(l, at + v * 4, first, &sums[r][v], scales[row + r],
                                             outputs[row + r]);
        }
}

static _always_inline void digits_layer(const struct codec_packed *l, uint32_t n_digits,
                                        const uint8_t *tiles, const float *scales, size_t n_rows,
                                        float *const *outputs) {
        size_t n_in_fours = n_rows - n_rows % DIGIT_ROWS;

        for (size_t panel = 0; panel < l->n_panels; panel++) {
                size_t at = panel * CODEC_PANEL_OUTPUTS;

                for (size_t half = at; half < at + CODEC_PANEL_OUTPUTS; half += LANES)
                        for (size_t row = 0; row < n_in_fours; row += DIGIT_ROWS)
                                digits_block(l, n_digits, half, 2, tiles, scales, row, DIGIT_ROWS,
                                             outputs);
                for (size_t row = n_in_fours; row < n_rows; row++)
                        digits_block(l, n_digits, at, 4, tiles, scales, row, 1, outputs);
        }
}

static DIGITS_STEP(digits)

        ADAPTOR(codec_avx2_adaptor, floats, quantize, digits)

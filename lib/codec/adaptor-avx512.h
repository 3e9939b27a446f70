/* SPDX-License-Identifier: Apache-2.0 */
/* What the adaptors with VNNI and with AMX share. */
#pragma once

#include "adaptor.h"
#include "avx512.h"

void codec_vnni_floats(const struct codec_packed *layer, const float *inputs, size_t stride,
                       size_t n_rows, float *const *ret_outputs);
float codec_vnni_quantize(const float *inputs, size_t n, uint8_t *tiles, size_t row);
void codec_vnni_digits(const struct codec_packed *layer, const uint8_t *tiles, const float *scales,
                       size_t n_rows, float *const *ret_outputs);

/* Of a NaN and 0, max gives the second. */
static _always_inline __m512 relu(__m512 v) {
        return _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), _mm512_set1_ps(CODEC_HUGE));
}

/* What becomes of a panel's sums over a block of inputs: in registers, since a store of outputs may
 * change, for all that a compiler knows, whatever is in memory. */
struct panel_end {
        bool goes_on, ends, relu; /* from a block before; with this one */
        size_t at;
        __m512 scales, biases;
};

static _always_inline struct panel_end panel_end(const struct codec_packed *l, size_t panel,
                                                 size_t first_tile) {
        size_t at = panel * LANES;

        return (struct panel_end){
                .goes_on = first_tile > 0,
                .ends = first_tile + CODEC_BLOCK_TILES >= l->n_tiles,
                .relu = l->relu,
                .at = at,
                .scales = _mm512_loadu_ps(l->scales + at),
                .biases = _mm512_loadu_ps(l->biases + at),
        };
}

/* For one row. */
static _always_inline void end_row(const struct panel_end *end, __m512i high, __m512i low,
                                   float scale, float *outputs) {
        __m512 v = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 7), low));

        outputs += end->at;
        if (end->goes_on)
                v = _mm512_add_ps(_mm512_loadu_ps(outputs), v);
        if (end->ends)
                v = _mm512_fmadd_ps(v, _mm512_mul_ps(_mm512_set1_ps(scale), end->scales),
                                    end->biases);
        if (end->ends && end->relu)
                v = relu(v);
        _mm512_storeu_ps(outputs, v);
}

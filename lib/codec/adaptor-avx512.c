/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's layers, row by row. Sums are fused, within FORMAT.md's bound of adaptor-scalar.c.
 * Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "avx512.h"

/* Inputs whose weights are added while the outputs are in registers: these pass through memory a
 * quarter as often. */
#define INPUTS 4u

static _always_inline __m512 load_weights(const struct codec_layer *l, bool integers,
                                          __mmask16 mask, size_t at) {
        if (integers)
                return _mm512_cvtepi32_ps(
                        _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, l->integers + at)));
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, l->halves + at));
}

/* outputs += weights of the inputs of these numbers x the inputs, in their order. */
static _always_inline void add_inputs(const struct codec_layer *l, bool integers,
                                      const float *inputs, const size_t *numbers, size_t n_inputs,
                                      float *outputs) {
        for (size_t o = 0; o < l->n_out; o += LANES) {
                __mmask16 mask = lanes(l->n_out - o);
                __m512 v = _mm512_maskz_loadu_ps(mask, outputs + o);

                for (size_t i = 0; i < n_inputs; i++)
                        v = _mm512_fmadd_ps(
                                load_weights(l, integers, mask, numbers[i] * l->n_out + o),
                                _mm512_set1_ps(inputs[numbers[i]]), v);
                _mm512_mask_storeu_ps(outputs + o, mask, v);
        }
}

static _always_inline void run_layer(const struct codec_layer *l, bool integers,
                                     const float *inputs, float *ret_outputs) {
        size_t pending[INPUTS], n_pending = 0;

        for (size_t o = 0; o < l->n_out; o += LANES) {
                __mmask16 mask = lanes(l->n_out - o);

                _mm512_mask_storeu_ps(ret_outputs + o, mask,
                                      integers ? _mm512_setzero_ps()
                                               : load_halves(l->biases + o, mask));
        }
        for (size_t i = 0; i < l->n_in; i++) {
                if (inputs[i] == 0)
                        continue;
                pending[n_pending++] = i;
                if (n_pending == INPUTS) {
                        add_inputs(l, integers, inputs, pending, INPUTS, ret_outputs);
                        n_pending = 0;
                }
        }
        for (size_t i = 0; i < n_pending; i++)
                add_inputs(l, integers, inputs, &pending[i], 1, ret_outputs);

        for (size_t o = 0; (integers || l->relu) && o < l->n_out; o += LANES) {
                __mmask16 mask = lanes(l->n_out - o);
                __m512 v = _mm512_maskz_loadu_ps(mask, ret_outputs + o);

                if (integers)
                        v = _mm512_fmadd_ps(v, load_halves(l->scales + o, mask),
                                            load_halves(l->biases + o, mask));
                /* Of a NaN and 0, max gives the second. */
                if (l->relu)
                        v = _mm512_max_ps(v, _mm512_setzero_ps());
                _mm512_mask_storeu_ps(ret_outputs + o, mask, v);
        }
}

void codec_avx512_layer(const struct codec_layer *l, const float *inputs, float *ret_outputs) {
        if (l->integers)
                run_layer(l, true, inputs, ret_outputs);
        else
                run_layer(l, false, inputs, ret_outputs);
}

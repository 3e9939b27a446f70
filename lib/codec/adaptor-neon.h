/* SPDX-License-Identifier: Apache-2.0 */
/* What the adaptors of NEON share: the first layer, a row's largest input, and the last step. */
#pragma once

#include <arm_neon.h>

#include "adaptor.h"

#define LANES          4u
#define VECTORS        (CODEC_PANEL_OUTPUTS / LANES)
#define _always_inline inline __attribute__((always_inline))

void codec_neon_floats(const struct codec_packed *layer, const float *inputs, size_t stride,
                       size_t n_rows, float *const *ret_outputs);

/* Of a NaN and 0, both give the number. */
static _always_inline float32x4_t relu(float32x4_t v) {
        return vminnmq_f32(vmaxnmq_f32(v, vdupq_n_f32(0)), vdupq_n_f32(CODEC_HUGE));
}

static _always_inline float largest(const float *inputs, size_t n) {
        float32x4_t max = vdupq_n_f32(0);

        for (size_t i = 0; i < n; i += LANES)
                max = vmaxq_f32(max, vld1q_f32(inputs + i));
        return vmaxvq_f32(max);
}

/* Inputs [i, i + 4) as integers, zeros from the padding on. */
static _always_inline uint32x4_t quantize_vector(const float *inputs, size_t i, size_t n,
                                                 float factor) {
        if (i >= n)
                return vdupq_n_u32(0);
        return vminq_u32(vcvtnq_u32_f32(vmulq_n_f32(vld1q_f32(inputs + i), factor)),
                         vdupq_n_u32(CODEC_INPUT_MAX));
}

/* Sums of four outputs from `at` on over the block of inputs that begins with tile `first`, for one
 * row. */
static _always_inline void finish_block(const struct codec_packed *l, size_t at, size_t first,
                                        int32x4_t sums, float scale, float *outputs) {
        float32x4_t v = vcvtq_f32_s32(sums);

        if (first)
                v = vaddq_f32(vld1q_f32(outputs + at), v);
        if (first + CODEC_BLOCK_TILES >= l->n_tiles) {
                float32x4_t scales = vmulq_n_f32(vld1q_f32(l->scales + at), scale);

                v = vfmaq_f32(vld1q_f32(l->biases + at), v, scales);
                if (l->relu)
                        v = relu(v);
        }
        vst1q_f32(outputs + at, v);
}

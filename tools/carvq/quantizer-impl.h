/* SPDX-License-Identifier: Apache-2.0 */
/* What encoding and training of the quantizer share: rows as the coder sees them. Any thread. */
#pragma once

#include <math.h>

#include "lib/codec/half.h"
#include "quantizer.h"

static inline double root_mean_square(const float *values, uint32_t n) {
        double sum = 0;

        for (uint32_t i = 0; i < n; i++)
                sum += (double)values[i] * (double)values[i];
        return sqrt(sum / n);
}

static inline float quantizer_row_scale(const struct quantizer *q, const float *residual) {
        double rms = root_mean_square(residual, q->coder.header.n_dims) / (double)q->unit;

        return half_to_float(float_to_half((float)rms));
}

/* Of all rows of a tier; the product with a row's own scale is exact. */
static inline float quantizer_tier_scale(const struct quantizer *q, uint32_t tier) {
        return half_to_float(q->coder.header.tier_scale[tier]);
}

/* ret_values = residual / scale in units of the trained centroids. A zero scale decodes to zero. */
static inline void quantizer_normalize(const struct quantizer *q, float scale,
                                       const float *residual, float *ret_values) {
        for (uint32_t i = 0; i < q->coder.header.n_dims; i++)
                ret_values[i] = scale > 0 ? residual[i] / scale : 0;
}

/* What the adaptor makes of rows by themselves, which is where their encoding starts. */
int quantizer_start(const struct quantizer *quantizer, const float *rows, size_t n_rows,
                    float *ret_latents, float *ret_outputs);

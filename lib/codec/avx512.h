/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the AVX-512 files share: the only ones built with its flags, entered through the kernel
 * table alone. Masked loads and stores at every edge: nothing outside the table's chunks is read,
 * nothing past n_dims is written.
 */
#pragma once

#include <immintrin.h>

#include "half.h"
#include "kernels.h"

#define LANES 16u

static inline __mmask16 lanes(size_t n) {
        return n >= LANES ? 0xffff : (__mmask16)((1u << n) - 1);
}

static _always_inline __m512 load_halves(const uint16_t *halves, __mmask16 mask) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));
}

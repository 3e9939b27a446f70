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

#define LANES          16u
#define BLOCK_VECTORS  (TABLE_BLOCK_CODES / LANES)
#define _always_inline inline __attribute__((always_inline))

static inline __mmask16 lanes(size_t n) {
        return n >= LANES ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* What becomes of a row's stages' sums; a NULL finish: nothing. Of the last two at most one is set.
 */
struct finish {
        __m512 scale;               /* 1 where the table has none: exact */
        const uint16_t *col_scales; /* as the table has them */
        const float *addends;       /* the adaptor's outputs */
        const uint16_t *means;      /* the same, as the table has them, of one without inputs */
};

static _always_inline __m512 load_halves(const uint16_t *halves, __mmask16 mask) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));
}

/* What differs from column to column. */
static inline bool finish_has_columns(const struct finish *finish) {
        return finish && (finish->col_scales || finish->addends || finish->means);
}

/* Dimensions `at` and following of a row that has been multiplied by its scale. */
static _always_inline __m512 finish_columns(const struct finish *finish, __mmask16 mask, size_t at,
                                            __m512 v) {
        if (finish->col_scales)
                v = _mm512_mul_ps(v, load_halves(finish->col_scales + at, mask));
        if (finish->addends)
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, finish->addends + at));
        else if (finish->means)
                v = _mm512_add_ps(v, load_halves(finish->means + at, mask));
        return v;
}

static inline __m512i widen(const uint8_t *bytes) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
}

/*
 * A block's 4-bit codes as indices. A permute looks at the low four bits of a lane only, so
 * whatever the packing leaves above them stays.
 */
static inline void unpack_indices(const uint8_t *packed, size_t n_codes,
                                  __m512i ret_indices[BLOCK_VECTORS]) {
        uint8_t codes[TABLE_BLOCK_CODES];
        size_t n_bytes = (n_codes + 1) / 2;
        __m256i low;

        if (n_codes == TABLE_BLOCK_CODES) {
                for (size_t i = 0; i < 2; i++) {
                        ret_indices[i] = widen(packed + i * LANES);
                        ret_indices[i + 2] = _mm512_srli_epi32(ret_indices[i], 4);
                }
                return;
        }

        /* High nibbles go right behind the low ones, of which there are as many as bytes. */
        low = _mm256_maskz_loadu_epi8((__mmask32)((UINT64_C(1) << n_bytes) - 1), packed);
        _mm512_storeu_si512(codes, _mm512_setzero_si512());
        _mm256_storeu_si256((void *)codes, low);
        _mm256_storeu_si256((void *)(codes + n_bytes), _mm256_srli_epi16(low, 4));
        for (size_t i = 0; i < BLOCK_VECTORS; i++)
                ret_indices[i] = widen(codes + i * LANES);
}

/* FORMAT.md, decoding steps 1 to 3, of a record of at least one stage: k = 4 with groups that no
 * vector of indices straddles (small), k > 4 (large). */
bool codec_avx512_is_small(const struct codec_table *table);
void codec_avx512_small(const struct codec_table *table, const struct codec_record *record,
                        const struct finish *finish, float *ret_values);
void codec_avx512_large(const struct codec_table *table, const struct codec_record *record,
                        const struct finish *finish, float *ret_values);

codec_layer_fn codec_avx512_layer;

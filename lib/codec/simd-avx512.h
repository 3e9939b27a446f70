/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of AVX-512 F, BW, DQ, VL in which simd-*.h are written. Masked loads and stores at
 * every edge: nothing past the first `n` values is touched.
 */
#pragma once

#include "avx512.h"

typedef __m512 vector; /* LANES floats */

static _always_inline vector v_set(float value) {
        return _mm512_set1_ps(value);
}

static _always_inline vector v_add(vector a, vector b) {
        return _mm512_add_ps(a, b);
}

static _always_inline vector v_mul(vector a, vector b) {
        return _mm512_mul_ps(a, b);
}

/* a x b + c, rounded once. */
static _always_inline vector v_fma(vector a, vector b, vector c) {
        return _mm512_fmadd_ps(a, b, c);
}

/* ---- Loads and stores of the first n lanes; n may be larger than LANES ---- */

static _always_inline vector v_load(const float *values, size_t n) {
        return n >= LANES ? _mm512_loadu_ps(values) : _mm512_maskz_loadu_ps(lanes(n), values);
}

static _always_inline __m256i load_words(const void *words, size_t n) {
        return n >= LANES ? _mm256_loadu_si256(words) : _mm256_maskz_loadu_epi16(lanes(n), words);
}

static _always_inline vector v_load_halves(const void *halves, size_t n) {
        return _mm512_cvtph_ps(load_words(halves, n));
}

static _always_inline vector v_load_bf16(const void *values, size_t n) {
        return _mm512_castsi512_ps(
                _mm512_slli_epi32(_mm512_cvtepu16_epi32(load_words(values, n)), 16));
}

static _always_inline vector v_load_int8(const void *integers, size_t n) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes(n), integers)));
}

static _always_inline void v_store(float *values, size_t n, vector v) {
        if (n >= LANES)
                _mm512_storeu_ps(values, v);
        else
                _mm512_mask_storeu_ps(values, lanes(n), v);
}

static _always_inline void store_words(uint16_t *words, size_t n, __m256i v) {
        if (n >= LANES)
                _mm256_storeu_si256((void *)words, v);
        else
                _mm256_mask_storeu_epi16(words, lanes(n), v);
}

static _always_inline void v_store_halves(uint16_t *halves, size_t n, vector v) {
        store_words(halves, n, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* By integers, as half.h does it: the instruction for it flushes subnormals. */
static _always_inline void v_store_bf16(uint16_t *values, size_t n, vector v) {
        __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
        __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));

        rounded = _mm512_srli_epi32(rounded, 16);
        rounded = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x0040));
        store_words(values, n, _mm512_cvtepi32_epi16(rounded));
}

/* ---- Large codebooks ---- */

/* Centroids of n_slots halves, a power of two of at most LANES, side by side. They are put together
 * by broadcasts under masks, which, unlike insertions, do not take the port of the conversions. */
static _always_inline vector v_join(const uint16_t *codebook, const size_t *x, size_t n_slots) {
        __m256i v;

        switch (n_slots) {
        case 2:
                v = _mm256_castsi128_si256(_mm_loadu_si32(codebook + x[0]));
                for (size_t i = 1; i < 8; i++)
                        v = _mm256_mask_broadcastd_epi32(v, (__mmask8)(1u << i),
                                                         _mm_loadu_si32(codebook + x[i]));
                break;
        case 4:
                v = _mm256_castsi128_si256(_mm_loadu_si64(codebook + x[0]));
                for (size_t i = 1; i < 4; i++)
                        v = _mm256_mask_broadcastq_epi64(v, (__mmask8)(1u << i),
                                                         _mm_loadu_si64(codebook + x[i]));
                break;
        case 8:
                v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)(codebook + x[0])));
                v = _mm256_mask_broadcast_i64x2(v, 0xc,
                                                _mm_loadu_si128((const void *)(codebook + x[1])));
                break;
        default:
                v = _mm256_loadu_si256((const void *)(codebook + x[0]));
        }
        return _mm512_cvtph_ps(v);
}

/* ---- Small codebooks ---- */

#define PART 16u /* codes of an index vector */

typedef __m512 centroids;
typedef __m512i indices;

static _always_inline centroids load_centroids(const uint16_t *halves, uint32_t bits) {
        return v_load_halves(halves, bits == 4 ? LANES : 1u << bits);
}

static _always_inline indices load_indices(const uint8_t *codes) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)codes));
}

/* A whole block's codes of 4 bits. The permute looks at the low four bits of a lane only. */
static _always_inline void unpack_indices(const uint8_t *packed, indices *ret_indices) {
        for (size_t i = 0; i < 2; i++) {
                ret_indices[i] = load_indices(packed + i * PART);
                ret_indices[i + 2] = _mm512_srli_epi32(ret_indices[i], 4);
        }
}

static _always_inline void look_up(centroids c, indices i, vector ret_values[PART / LANES]) {
        ret_values[0] = _mm512_permutexvar_ps(i, c);
}

/* Halves at any offsets from a multiple of 4 bytes, each loaded with its neighbour: a codebook has
 * an even number of them. */
static _always_inline vector v_gather(const uint16_t *halves, const uint32_t offsets[LANES]) {
        __m512i at = _mm512_loadu_si512(offsets);
        __m512i pairs = _mm512_i32gather_epi32(_mm512_srli_epi32(at, 1), halves, 4);
        __m512i odd = _mm512_slli_epi32(_mm512_and_si512(at, _mm512_set1_epi32(1)), 4);

        return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srlv_epi32(pairs, odd)));
}

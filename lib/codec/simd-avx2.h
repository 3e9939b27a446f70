/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of AVX2, FMA and F16C in which simd-*.h are written. Nothing past the first `n` values
 * is touched: what is less than a vector goes through a buffer.
 */
#pragma once

#include <immintrin.h>

#include "kernels.h"

#define LANES 8u

typedef __m256 vector; /* LANES floats */

static _always_inline vector v_set(float value) {
        return _mm256_set1_ps(value);
}

static _always_inline vector v_add(vector a, vector b) {
        return _mm256_add_ps(a, b);
}

static _always_inline vector v_mul(vector a, vector b) {
        return _mm256_mul_ps(a, b);
}

/* a x b + c, rounded once. */
static _always_inline vector v_fma(vector a, vector b, vector c) {
        return _mm256_fmadd_ps(a, b, c);
}

/* ---- Loads and stores of the first n lanes; n may be larger than LANES ---- */

static _always_inline __m256i first_lanes(size_t n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Not by a load under a mask: QEMU's reads what the mask excludes, too. */
static _always_inline vector v_load(const float *values, size_t n) {
        float some[LANES] = { 0 };

        if (n >= LANES)
                return _mm256_loadu_ps(values);
        for (size_t i = 0; i < n; i++)
                some[i] = values[i];
        return _mm256_loadu_ps(some);
}

static inline __m128i load_some_bytes(const uint8_t *bytes, size_t n_bytes) {
        uint8_t some[16] = { 0 };

        for (size_t i = 0; i < n_bytes; i++)
                some[i] = bytes[i];
        return _mm_loadu_si128((const void *)some);
}

static _always_inline __m128i load_words(const void *words, size_t n) {
        return n >= LANES ? _mm_loadu_si128(words) : load_some_bytes(words, 2 * n);
}

static _always_inline vector v_load_halves(const void *halves, size_t n) {
        return _mm256_cvtph_ps(load_words(halves, n));
}

static _always_inline vector v_load_bf16(const void *values, size_t n) {
        return _mm256_castsi256_ps(
                _mm256_slli_epi32(_mm256_cvtepu16_epi32(load_words(values, n)), 16));
}

static _always_inline vector v_load_int8(const void *integers, size_t n) {
        __m128i bytes = n >= LANES ? _mm_loadu_si64(integers) : load_some_bytes(integers, n);

        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

static _always_inline void v_store(float *values, size_t n, vector v) {
        if (n >= LANES)
                _mm256_storeu_ps(values, v);
        else
                _mm256_maskstore_ps(values, first_lanes(n), v);
}

static _always_inline void store_words(uint16_t *words, size_t n, __m128i v) {
        uint16_t some[LANES];

        if (n >= LANES) {
                _mm_storeu_si128((void *)words, v);
                return;
        }
        _mm_storeu_si128((void *)some, v);
        for (size_t i = 0; i < n; i++)
                words[i] = some[i];
}

static _always_inline void v_store_halves(uint16_t *halves, size_t n, vector v) {
        store_words(halves, n, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* By integers, as half.h does it. */
static _always_inline void v_store_bf16(uint16_t *values, size_t n, vector v) {
        __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        __m256i bits = _mm256_castps_si256(v), upper = _mm256_srli_epi32(bits, 16);
        __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x0040)), words;

        words = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), quiet, nan);
        words = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
        store_words(values, n, _mm256_castsi256_si128(words));
}

/* ---- Large codebooks ---- */

/* Centroids of n_slots halves, a power of two of at most LANES, side by side. */
static _always_inline vector v_join(const uint16_t *codebook, const size_t *x, size_t n_slots) {
        __m128i v;
        int pairs[3];

        switch (n_slots) {
        case 2:
                v = _mm_loadu_si32(codebook + x[0]);
                for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
                        memcpy(&pairs[i], codebook + x[i + 1], sizeof(pairs[i]));
                v = _mm_insert_epi32(v, pairs[0], 1);
                v = _mm_insert_epi32(v, pairs[1], 2);
                v = _mm_insert_epi32(v, pairs[2], 3);
                break;
        case 4:
                v = _mm_unpacklo_epi64(_mm_loadu_si64(codebook + x[0]),
                                       _mm_loadu_si64(codebook + x[1]));
                break;
        default:
                v = _mm_loadu_si128((const void *)(codebook + x[0]));
        }
        return _mm256_cvtph_ps(v);
}

/* ---- Small codebooks ---- */

#define PART 16u /* codes of an index vector */

/* Entries 0 to 7 in both halves of a register, and 8 to 15. */
typedef struct {
        __m256i low, high;
} centroids;

/* For each code the bytes of its entry in `low`, which a byte shuffle takes for 0 from entry 8 on.
 * With their highest bits turned they are those of `high`, and 0 up to entry 7. */
typedef __m256i indices;

static _always_inline centroids load_centroids(const uint16_t *halves, uint32_t bits) {
        const __m128i *entries = (const void *)halves;

        if (bits == 4)
                return (centroids){ .low = _mm256_broadcastsi128_si256(_mm_loadu_si128(entries)),
                                    .high = _mm256_broadcastsi128_si256(
                                            _mm_loadu_si128(entries + 1)) };
        return (centroids){ .low = _mm256_broadcastsi128_si256(bits == 3 ? _mm_loadu_si128(entries)
                                                               : bits == 2
                                                                       ? _mm_loadu_si64(entries)
                                                                       : _mm_loadu_si32(entries)) };
}

static _always_inline indices make_indices(__m256i codes) {
        return _mm256_add_epi16(_mm256_mullo_epi16(codes, _mm256_set1_epi16(0x0202)),
                                _mm256_set1_epi16(0x7170));
}

static _always_inline indices load_indices(const uint8_t *codes) {
        return make_indices(_mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)codes)));
}

/* A whole block's codes of 4 bits. */
static _always_inline void unpack_indices(const uint8_t *packed, indices *ret_indices) {
        for (size_t i = 0; i < 2; i++) {
                __m128i bytes = _mm_loadu_si128((const void *)(packed + i * PART));
                __m256i words = _mm256_cvtepu8_epi16(bytes);

                ret_indices[i] = make_indices(_mm256_and_si256(words, _mm256_set1_epi16(15)));
                ret_indices[i + 2] = make_indices(_mm256_srli_epi16(words, 4));
        }
}

/*
 * The halves pass through memory: a conversion out of it takes no shuffle, of which there is one
 * port for all. The empty statement keeps the compiler from finding them in the register still.
 */
static _always_inline void look_up(centroids c, indices i, vector ret_values[PART / LANES]) {
        const __m256i flip = _mm256_set1_epi8((char)0x80);
        __m256i halves;

        halves = _mm256_or_si256(_mm256_shuffle_epi8(c.low, i),
                                 _mm256_shuffle_epi8(c.high, _mm256_xor_si256(i, flip)));
        __asm__("" : "+m"(halves));
        ret_values[0] = _mm256_cvtph_ps(((const __m128i *)&halves)[0]);
        ret_values[1] = _mm256_cvtph_ps(((const __m128i *)&halves)[1]);
}

/* Halves at any offsets. */
static _always_inline vector v_gather(const uint16_t *halves, const uint32_t offsets[LANES]) {
        __m128i v = _mm_cvtsi32_si128(halves[offsets[0]]);

        v = _mm_insert_epi16(v, halves[offsets[1]], 1);
        v = _mm_insert_epi16(v, halves[offsets[2]], 2);
        v = _mm_insert_epi16(v, halves[offsets[3]], 3);
        v = _mm_insert_epi16(v, halves[offsets[4]], 4);
        v = _mm_insert_epi16(v, halves[offsets[5]], 5);
        v = _mm_insert_epi16(v, halves[offsets[6]], 6);
        v = _mm_insert_epi16(v, halves[offsets[7]], 7);
        return _mm256_cvtph_ps(v);
}

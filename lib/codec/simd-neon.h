/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of NEON, as every aarch64 has it, in which simd-*.h are written. Nothing past the first
 * `n` values is touched: what is less than a vector goes through a buffer.
 */
#pragma once

#include <arm_neon.h>

#include "kernels.h"

#define LANES 4u

typedef float32x4_t vector; /* LANES floats */

static _always_inline vector v_set(float value) {
        return vdupq_n_f32(value);
}

static _always_inline vector v_add(vector a, vector b) {
        return vaddq_f32(a, b);
}

static _always_inline vector v_mul(vector a, vector b) {
        return vmulq_f32(a, b);
}

/* a x b + c, rounded once. */
static _always_inline vector v_fma(vector a, vector b, vector c) {
        return vfmaq_f32(c, a, b);
}

/* ---- Loads and stores of the first n lanes; n may be larger than LANES ---- */

static _always_inline vector v_load(const float *values, size_t n) {
        float some[LANES] = { 0 };

        if (n >= LANES)
                return vld1q_f32(values);
        for (size_t i = 0; i < n; i++)
                some[i] = values[i];
        return vld1q_f32(some);
}

static _always_inline uint16x4_t load_words(const void *words, size_t n) {
        uint16_t some[LANES] = { 0 };

        if (n >= LANES)
                return vld1_u16(words);
        memcpy(some, words, n * sizeof(some[0]));
        return vld1_u16(some);
}

static _always_inline vector convert_halves(uint16x4_t halves) {
        return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}

static _always_inline vector v_load_halves(const void *halves, size_t n) {
        return convert_halves(load_words(halves, n));
}

static _always_inline vector v_load_bf16(const void *values, size_t n) {
        return vreinterpretq_f32_u32(vshll_n_u16(load_words(values, n), 16));
}

static _always_inline vector v_load_int8(const void *integers, size_t n) {
        int8_t some[8] = { 0 };

        if (n >= LANES)
                memcpy(some, integers, LANES);
        else
                memcpy(some, integers, n);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vld1_s8(some)))));
}

static _always_inline void v_store(float *values, size_t n, vector v) {
        float some[LANES];

        if (n >= LANES) {
                vst1q_f32(values, v);
                return;
        }
        vst1q_f32(some, v);
        for (size_t i = 0; i < n; i++)
                values[i] = some[i];
}

static _always_inline void store_words(uint16_t *words, size_t n, uint16x4_t v) {
        uint16_t some[LANES];

        if (n >= LANES) {
                vst1_u16(words, v);
                return;
        }
        vst1_u16(some, v);
        for (size_t i = 0; i < n; i++)
                words[i] = some[i];
}

static _always_inline void v_store_halves(uint16_t *halves, size_t n, vector v) {
        store_words(halves, n, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}

/* By integers, as half.h does it. */
static _always_inline void v_store_bf16(uint16_t *values, size_t n, vector v) {
        uint32x4_t bits = vreinterpretq_u32_f32(v), upper = vshrq_n_u32(bits, 16);
        uint32x4_t odd = vandq_u32(upper, vdupq_n_u32(1));
        uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        uint32x4_t quiet = vorrq_u32(upper, vdupq_n_u32(0x0040));

        store_words(values, n,
                    vmovn_u32(vbslq_u32(vceqq_f32(v, v), vshrq_n_u32(rounded, 16), quiet)));
}

/* ---- Large codebooks ---- */

/* Centroids of n_slots halves, a power of two of at most LANES, side by side. */
static _always_inline vector v_join(const uint16_t *codebook, const size_t *x, size_t n_slots) {
        uint32_t pairs[2];

        if (n_slots == LANES)
                return convert_halves(vld1_u16(codebook + x[0]));
        for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
                memcpy(&pairs[i], codebook + x[i], sizeof(pairs[i]));
        return convert_halves(
                vreinterpret_u16_u32(vset_lane_u32(pairs[1], vdup_n_u32(pairs[0]), 1)));
}

/* ---- Small codebooks ---- */

#define PART 8u /* codes of an index vector */

/* All entries: a table of two registers of bytes. */
typedef uint8x16x2_t centroids;

/* For each code the two bytes of its entry. */
typedef uint8x16_t indices;

static _always_inline centroids load_centroids(const uint16_t *halves, uint32_t bits) {
        uint8_t entries[32] = { 0 };

        memcpy(entries, halves, bits == 4 ? sizeof(entries) : (size_t)2 << bits);
        return (centroids){ .val = { vld1q_u8(entries), vld1q_u8(entries + 16) } };
}

static _always_inline indices make_indices(uint8x8_t codes) {
        return vreinterpretq_u8_u16(vmlaq_n_u16(vdupq_n_u16(0x0100), vmovl_u8(codes), 0x0202));
}

static _always_inline indices load_indices(const uint8_t *codes) {
        return make_indices(vld1_u8(codes));
}

/* A whole block's codes of 4 bits. */
static _always_inline void unpack_indices(const uint8_t *packed, indices *ret_indices) {
        for (size_t i = 0; i < 4; i++) {
                uint8x8_t bytes = vld1_u8(packed + i * PART);

                ret_indices[i] = make_indices(vand_u8(bytes, vdup_n_u8(15)));
                ret_indices[i + 4] = make_indices(vshr_n_u8(bytes, 4));
        }
}

static _always_inline void look_up(centroids c, indices i, vector ret_values[PART / LANES]) {
        uint16x8_t halves = vreinterpretq_u16_u8(vqtbl2q_u8(c, i));

        ret_values[0] = convert_halves(vget_low_u16(halves));
        ret_values[1] = convert_halves(vget_high_u16(halves));
}

/* Halves at any offsets. */
static _always_inline vector v_gather(const uint16_t *halves, const uint32_t offsets[LANES]) {
        uint16x4_t v = vdup_n_u16(halves[offsets[0]]);

        v = vld1_lane_u16(halves + offsets[1], v, 1);
        v = vld1_lane_u16(halves + offsets[2], v, 2);
        v = vld1_lane_u16(halves + offsets[3], v, 3);
        return convert_halves(v);
}

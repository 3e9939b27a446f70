/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ggml's tensor types: numbers, sizes, and dequantization of those we read. Layouts and formulas
 * follow the public description of the types (ggml-quants and the `gguf` Python package); products
 * are formed in the same order as there, so values agree bit for bit. Any block decodes to
 * something; whether it is finite is the reader's question. Called by any thread.
 */
#include "source-impl.h"

#include <string.h>

#include "lib/codec/half.h"

#define QK   32  /* values of a simple block */
#define QK_K 256 /* values of a super-block */

static float load_half(const uint8_t *at) {
        uint16_t half;

        memcpy(&half, at, sizeof(half));
        return half_to_float(half);
}

/* q8_0: half d, i8 q[32]. */
static void decode_q8_0(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 34, v += QK) {
                float d = load_half(block);

                for (size_t i = 0; i < QK; i++)
                        v[i] = d * (float)(int8_t)block[2 + i];
        }
}

/* Nibbles: the low ones are the first half of the block, the high ones the second. */
static void decode_q4_0(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 18, v += QK) {
                const uint8_t *q = block + 2;
                float d = load_half(block);

                for (size_t i = 0; i < QK / 2; i++) {
                        v[i] = d * (float)((q[i] & 15) - 8);
                        v[i + QK / 2] = d * (float)((q[i] >> 4) - 8);
                }
        }
}

static void decode_q4_1(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 20, v += QK) {
                const uint8_t *q = block + 4;
                float d = load_half(block), min = load_half(block + 2);

                for (size_t i = 0; i < QK / 2; i++) {
                        v[i] = d * (float)(q[i] & 15) + min;
                        v[i + QK / 2] = d * (float)(q[i] >> 4) + min;
                }
        }
}

/* As q4, with the fifth bits of all 32 values in one word before the nibbles. */
static void unpack_5bit(const uint8_t *at, uint8_t ret_q[QK]) {
        uint32_t high;

        memcpy(&high, at, sizeof(high));
        for (size_t i = 0; i < QK / 2; i++) {
                uint8_t low = at[4 + i];

                ret_q[i] = (uint8_t)((low & 15) | (high >> i & 1) << 4);
                ret_q[i + QK / 2] = (uint8_t)(low >> 4 | (high >> (i + QK / 2) & 1) << 4);
        }
}

static void decode_q5_0(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 22, v += QK) {
                float d = load_half(block);
                uint8_t q[QK];

                unpack_5bit(block + 2, q);
                for (size_t i = 0; i < QK; i++)
                        v[i] = d * (float)(q[i] - 16);
        }
}

static void decode_q5_1(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 24, v += QK) {
                float d = load_half(block), min = load_half(block + 2);
                uint8_t q[QK];

                unpack_5bit(block + 4, q);
                for (size_t i = 0; i < QK; i++)
                        v[i] = d * (float)q[i] + min;
        }
}

/*
 * Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes: the first four of
 * each in the low bits of bytes 0-3 and 4-7, the last four split between bytes 8-11 (low 4 bits)
 * and the spare top bits of bytes 0-7.
 */
static void unpack_scale_min(const uint8_t p[12], size_t i, uint8_t *ret_scale, uint8_t *ret_min) {
        if (i < 4) {
                *ret_scale = p[i] & 63;
                *ret_min = p[i + 4] & 63;
        } else {
                *ret_scale = (uint8_t)((p[i + 4] & 15) | p[i - 4] >> 6 << 4);
                *ret_min = (uint8_t)(p[i + 4] >> 4 | p[i] >> 6 << 4);
        }
}

/* Half d, half min, 12 bytes of scales, then (Q5_K) 32 bytes of fifth bits, then 128 of nibbles. */
static void decode_super_block(const uint8_t *block, const uint8_t *high, const uint8_t *low,
                               float *v) {
        float d = load_half(block), d_min = load_half(block + 2);

        for (size_t s = 0; s < QK_K / 32; s++) {
                const uint8_t *q = low + s / 2 * 32;
                uint8_t scale, min;

                unpack_scale_min(block + 4, s, &scale, &min);
                float sub_d = d * (float)scale, sub_min = d_min * (float)min;

                for (size_t i = 0; i < 32; i++) {
                        uint32_t nibble = s % 2 ? q[i] >> 4 : q[i] & 15;
                        uint32_t fifth = high ? high[i] >> s & 1 : 0;

                        *v++ = sub_d * (float)(nibble | fifth << 4) - sub_min;
                }
        }
}

static void decode_q4_k(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 144, v += QK_K)
                decode_super_block(block, NULL, block + 16, v);
}

static void decode_q5_k(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 176, v += QK_K)
                decode_super_block(block, block + 16, block + 48, v);
}

/*
 * q6_K: 128 bytes of low nibbles, 64 of high bit pairs, i8 scale[16], half d. Each half of the
 * block is four runs of 32 values: run g has its nibbles in bytes (g & 1) * 32 ..., low ones for
 * the first two runs, and its bit pairs at bit 2g of 32 bytes that all four share.
 */
static void decode_q6_k(const uint8_t *block, size_t n_blocks, float *v) {
        for (; n_blocks--; block += 210) {
                float d = load_half(block + 208);

                for (size_t run = 0; run < QK_K / 32; run++) {
                        const uint8_t *low = block + run / 4 * 64 + run % 2 * 32;
                        const uint8_t *high = block + 128 + run / 4 * 32;
                        size_t g = run % 4;

                        for (size_t i = 0; i < 32; i++) {
                                float scale = (float)(int8_t)block[192 + run * 2 + i / 16];
                                int q = (low[i] >> g / 2 * 4 & 15) | (high[i] >> g * 2 & 3) << 4;

                                *v++ = d * scale * (float)(q - 32);
                        }
                }
        }
}

/* Indexed by the type's number in the file; numbers not listed here were withdrawn or are new. */
static const struct source_dtype gguf_dtypes[] = {
        [0] = { "F32", 1, 4, dtype_decode_f32 },
        [1] = { "F16", 1, 2, dtype_decode_f16 },
        [2] = { "Q4_0", QK, 18, decode_q4_0 },
        [3] = { "Q4_1", QK, 20, decode_q4_1 },
        [6] = { "Q5_0", QK, 22, decode_q5_0 },
        [7] = { "Q5_1", QK, 24, decode_q5_1 },
        [8] = { "Q8_0", QK, 34, decode_q8_0 },
        [9] = { "Q8_1", QK, 40, NULL },
        [10] = { "Q2_K", QK_K, 84, NULL },
        [11] = { "Q3_K", QK_K, 110, NULL },
        [12] = { "Q4_K", QK_K, 144, decode_q4_k },
        [13] = { "Q5_K", QK_K, 176, decode_q5_k },
        [14] = { "Q6_K", QK_K, 210, decode_q6_k },
        [15] = { "Q8_K", QK_K, 292, NULL },
        [16] = { "IQ2_XXS", QK_K, 66, NULL },
        [17] = { "IQ2_XS", QK_K, 74, NULL },
        [18] = { "IQ3_XXS", QK_K, 98, NULL },
        [19] = { "IQ1_S", QK_K, 50, NULL },
        [20] = { "IQ4_NL", QK, 18, NULL },
        [21] = { "IQ3_S", QK_K, 110, NULL },
        [22] = { "IQ2_S", QK_K, 82, NULL },
        [23] = { "IQ4_XS", QK_K, 136, NULL },
        [24] = { "I8", 1, 1, NULL },
        [25] = { "I16", 1, 2, NULL },
        [26] = { "I32", 1, 4, NULL },
        [27] = { "I64", 1, 8, NULL },
        [28] = { "F64", 1, 8, NULL },
        [29] = { "IQ1_M", QK_K, 56, NULL },
        [30] = { "BF16", 1, 2, dtype_decode_bf16 },
        [34] = { "TQ1_0", QK_K, 54, NULL },
        [35] = { "TQ2_0", QK_K, 66, NULL },
        [39] = { "MXFP4", QK, 17, NULL },
};

static const struct source_dtype gguf_unknown = { "unknown", 0, 0, NULL };

const struct source_dtype *gguf_dtype(uint32_t type) {
        if (type >= ARRAY_SIZE(gguf_dtypes) || !gguf_dtypes[type].name)
                return &gguf_unknown;
        return &gguf_dtypes[type];
}

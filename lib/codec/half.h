/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half (IEEE 754 binary16) and bfloat16 to and from float, on bits alone, so that every machine
 * gives the same result: to nearest, ties to even; subnormals kept; a NaN stays a quiet NaN with
 * the upper bits of its payload. Byte-equal to vcvtph2ps and vcvtps2ph. Pure, any thread.
 */
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float value) {
        uint32_t bits;

        memcpy(&bits, &value, sizeof(bits));
        return bits;
}

static inline float float_from_bits(uint32_t bits) {
        float value;

        memcpy(&value, &bits, sizeof(value));
        return value;
}

static inline float half_to_float(uint16_t half) {
        uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;

        /* Subnormals: units of 2^-24, and a product of 10 bits with a power of two is exact. */
        if (magnitude < 0x0400)
                return float_from_bits(sign | float_bits((float)magnitude * 0x1p-24f));
        if (magnitude < 0x7c00)
                return float_from_bits(sign | ((magnitude << 13) + ((127 - 15) << 23)));
        return float_from_bits(sign | 0x7f800000 | magnitude << 13 |
                               (magnitude > 0x7c00 ? 0x00400000 : 0));
}

static inline uint16_t float_to_half(float value) {
        uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000;
        uint32_t magnitude = bits & 0x7fffffff, half;

        if (magnitude > 0x7f800000)
                half = 0x7e00 | (magnitude >> 13 & 0x03ff);
        else if (magnitude >= 0x477ff000) /* 65,520: half way from the largest half to 2^16 */
                half = 0x7c00;
        else if (magnitude >= 0x38800000) /* 2^-14: normal */
                half = (magnitude - ((127 - 15) << 23) + 0x0fff + (magnitude >> 13 & 1)) >> 13;
        else /* One unit in the last place of 0.5 is 2^-24: the addition does the rounding. */
                half = float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | half);
}

static inline float bf16_to_float(uint16_t bf16) {
        return float_from_bits((uint32_t)bf16 << 16);
}

static inline uint16_t float_to_bf16(float value) {
        uint32_t bits = float_bits(value);

        if ((bits & 0x7fffffff) > 0x7f800000)
                return (uint16_t)(bits >> 16 | 0x0040);
        return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

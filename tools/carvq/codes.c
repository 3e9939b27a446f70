/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bits of the records: packed codes, and the codecs that round each value by itself (f32, f16,
 * bf16, int8, int4). Pure functions of one row.
 */
#include <math.h>
#include <string.h>

#include "lib/codec/half.h"
#include "quantizer.h"

/* Byte i of a block holds pieces i, q + i, 2 q + i ..., q = bytes of the block. */
static uint8_t *pack_block(const uint8_t *codes, size_t n, uint32_t shift, uint32_t width,
                           uint8_t *bytes) {
        size_t n_bytes = div_round_up(n * width, 8);

        memset(bytes, 0, n_bytes);
        for (size_t t = 0; t < n; t++) {
                uint32_t piece = codes[t] >> shift & ((1u << width) - 1);

                bytes[t % n_bytes] |= (uint8_t)(piece << t / n_bytes * width);
        }
        return bytes + n_bytes;
}

/* One string of bits: of codes that are windows of their own. */
static void pack_string(const uint8_t *codes, size_t n_codes, uint32_t bits, uint8_t *ret_bytes) {
        memset(ret_bytes, 0, div_round_up(n_codes * bits, 8));
        for (size_t i = 0; i < n_codes * bits; i++)
                ret_bytes[i / 8] |= (uint8_t)((codes[i / bits] >> i % bits & 1) << i % 8);
}

void codes_pack(const uint8_t *codes, size_t n_codes, uint32_t bits, uint8_t *ret_bytes) {
        uint32_t shift = 0;

        if (bits > TABLE_SMALL_BITS_MAX) {
                pack_string(codes, n_codes, bits, ret_bytes);
                return;
        }
        for (uint32_t width = TABLE_SMALL_BITS_MAX; width; width >>= 1) {
                if (!(bits & width))
                        continue;
                for (size_t i = 0; i < n_codes; i += TABLE_BLOCK_CODES)
                        ret_bytes = pack_block(codes + i, MIN(n_codes - i, TABLE_BLOCK_CODES),
                                               shift, width, ret_bytes);
                shift += width;
        }
}

static float largest(const float *row, uint32_t n_dims, uint32_t *ret_column) {
        uint32_t column = 0;

        for (uint32_t i = 1; i < n_dims; i++)
                if (fabsf(row[i]) > fabsf(row[column]))
                        column = i;
        *ret_column = column;
        return row[column];
}

/* Adding zero turns -0, which no code can hold, into 0. */
static float quantize(float value, float scale, float min, float max) {
        return scale > 0 ? MIN(MAX(rintf(value / scale), min), max) + 0.f : 0;
}

static void encode_int8(const float *row, uint32_t n_dims, uint8_t *ret_record,
                        float *ret_decoded) {
        uint32_t column;
        float scale = fabsf(largest(row, n_dims, &column)) / 127;

        memcpy(ret_record, &scale, sizeof(scale));
        for (uint32_t i = 0; i < n_dims; i++) {
                float q = quantize(row[i], scale, -127, 127);

                ret_record[sizeof(scale) + i] = (uint8_t)(int8_t)q;
                ret_decoded[i] = scale * q;
        }
}

/*
 * Clipping the largest values a little often pays with so few levels: of eight scales the one with
 * the least error is taken. The first uses all of [-7, 7] and never clips.
 */
static float choose_int4_scale(const float *row, uint32_t n_dims) {
        uint32_t column;
        float full = fabsf(largest(row, n_dims, &column)) / 7, best = full;
        double best_error = INFINITY;

        for (unsigned step = 0; step < 8; step++) {
                float scale = full * (1 - 0.0625f * (float)step);
                double error = 0;

                for (uint32_t i = 0; i < n_dims; i++) {
                        double d =
                                (double)row[i] - (double)(scale * quantize(row[i], scale, -8, 7));
                        error += d * d;
                }
                if (error < best_error) {
                        best_error = error;
                        best = scale;
                }
        }
        return best;
}

static void encode_int4(const float *row, uint32_t n_dims, uint8_t *ret_record,
                        float *ret_decoded) {
        float scale = choose_int4_scale(row, n_dims);
        uint8_t *bytes = ret_record + sizeof(scale);

        memcpy(ret_record, &scale, sizeof(scale));
        for (uint32_t i = 0; i < n_dims; i += TABLE_BLOCK_CODES) {
                uint8_t codes[TABLE_BLOCK_CODES];
                uint32_t n = MIN(n_dims - i, TABLE_BLOCK_CODES);

                for (uint32_t t = 0; t < n; t++) {
                        float q = quantize(row[i + t], scale, -8, 7);

                        codes[t] = (uint8_t)(q + 8);
                        ret_decoded[i + t] = scale * q;
                }
                bytes = pack_block(codes, n, 0, 4, bytes);
        }
}

/* f16 and bf16: -ERANGE where the nearest value is infinite. */
static int encode_16(uint32_t codec, const float *row, uint32_t n_dims, uint8_t *ret_record,
                     float *ret_decoded, uint32_t *ret_column) {
        for (uint32_t i = 0; i < n_dims; i++) {
                bool half = codec == TABLE_CODEC_F16;
                uint16_t bits = half ? float_to_half(row[i]) : float_to_bf16(row[i]);

                ret_decoded[i] = half ? half_to_float(bits) : bf16_to_float(bits);
                if (!isfinite(ret_decoded[i])) {
                        *ret_column = i;
                        return -ERANGE;
                }
                memcpy(ret_record + (size_t)i * sizeof(bits), &bits, sizeof(bits));
        }
        return 0;
}

int scalar_encode(uint32_t codec, const float *row, uint32_t n_dims, uint8_t *ret_record,
                  float *ret_decoded, uint32_t *ret_column) {
        switch (codec) {
        case TABLE_CODEC_F32:
                memcpy(ret_record, row, n_dims * sizeof(float));
                memcpy(ret_decoded, row, n_dims * sizeof(float));
                return 0;
        case TABLE_CODEC_INT8:
                encode_int8(row, n_dims, ret_record, ret_decoded);
                return 0;
        case TABLE_CODEC_INT4:
                encode_int4(row, n_dims, ret_record, ret_decoded);
                return 0;
        default:
                return encode_16(codec, row, n_dims, ret_record, ret_decoded, ret_column);
        }
}

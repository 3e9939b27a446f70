/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dtypes of safetensors and .npy: names, sizes, and conversion to f32 of those we read. Any bit
 * pattern converts to something; whether it is finite is the reader's question. Called by any
 * thread.
 */
#include "source-impl.h"

#include <string.h>

#include "lib/codec/half.h"

void dtype_decode_f16(const uint8_t *blocks, size_t n_blocks, float *ret_values) {
        for (size_t i = 0; i < n_blocks; i++) {
                uint16_t half;

                memcpy(&half, blocks + i * sizeof(half), sizeof(half));
                ret_values[i] = half_to_float(half);
        }
}

void dtype_decode_bf16(const uint8_t *blocks, size_t n_blocks, float *ret_values) {
        for (size_t i = 0; i < n_blocks; i++) {
                uint16_t bf16;

                memcpy(&bf16, blocks + i * sizeof(bf16), sizeof(bf16));
                ret_values[i] = bf16_to_float(bf16);
        }
}

void dtype_decode_f32(const uint8_t *blocks, size_t n_blocks, float *ret_values) {
        memcpy(ret_values, blocks, n_blocks * sizeof(float));
}

void dtype_decode_f64(const uint8_t *blocks, size_t n_blocks, float *ret_values) {
        for (size_t i = 0; i < n_blocks; i++) {
                double value;

                memcpy(&value, blocks + i * sizeof(value), sizeof(value));
                ret_values[i] = (float)value;
        }
}

/* Names as in the safetensors reference implementation; sub-byte ones come in whole bytes. */
static const struct source_dtype safetensors_dtypes[] = {
        { "F32", 1, 4, dtype_decode_f32 },
        { "F16", 1, 2, dtype_decode_f16 },
        { "BF16", 1, 2, dtype_decode_bf16 },
        { "BOOL", 1, 1, NULL },
        { "U8", 1, 1, NULL },
        { "I8", 1, 1, NULL },
        { "F8_E4M3", 1, 1, NULL },
        { "F8_E5M2", 1, 1, NULL },
        { "F8_E8M0", 1, 1, NULL },
        { "F4", 2, 1, NULL },
        { "F6_E2M3", 4, 3, NULL },
        { "F6_E3M2", 4, 3, NULL },
        { "U16", 1, 2, NULL },
        { "I16", 1, 2, NULL },
        { "U32", 1, 4, NULL },
        { "I32", 1, 4, NULL },
        { "U64", 1, 8, NULL },
        { "I64", 1, 8, NULL },
        { "F64", 1, 8, NULL },
        { "C64", 1, 8, NULL },
};

static const struct source_dtype safetensors_unknown = { "unknown", 0, 0, NULL };

static const struct source_dtype npy_dtypes[] = {
        { "f2", 1, 2, dtype_decode_f16 },
        { "f4", 1, 4, dtype_decode_f32 },
        { "f8", 1, 8, dtype_decode_f64 },
};

const struct source_dtype *safetensors_dtype(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(safetensors_dtypes); i++)
                if (!strcmp(safetensors_dtypes[i].name, name))
                        return &safetensors_dtypes[i];
        return &safetensors_unknown;
}

const struct source_dtype *npy_dtype(const char *descr) {
        for (size_t i = 0; i < ARRAY_SIZE(npy_dtypes); i++)
                if (descr[0] == '<' && !strcmp(npy_dtypes[i].name, descr + 1))
                        return &npy_dtypes[i];
        return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of kernels for NEON, as every aarch64 has it. Byte-equal to decode-scalar.c, but for the
 * adaptor's sums. Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "simd-neon.h"

#include "simd-decode.h"

static void adaptor(const struct codec_table *table, const struct codec_record *records,
                    size_t n_rows, float *scratch, size_t stride, float *ret_outputs) {
        codec_adaptor(table, records, n_rows, codec_scalar_layer, scratch, stride, ret_outputs);
}

const struct codec_kernels codec_kernels_neon = {
        .name = "neon",
        .find = find,
        .decode = {
                [TABLE_CODEC_F32] = codec_decode_f32,
                [TABLE_CODEC_F16] = decode_f16,
                [TABLE_CODEC_BF16] = decode_bf16,
                [TABLE_CODEC_INT8] = decode_int8,
                [TABLE_CODEC_INT4] = decode_int4,
                [TABLE_CODEC_CARVQ] = decode_carvq,
        },
        .adaptor = adaptor,
        .f32_to_f16 = f32_to_f16,
        .f32_to_bf16 = f32_to_bf16,
};

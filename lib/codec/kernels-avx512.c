/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders for AVX-512 F, BW, DQ, VL with AVX2, FMA and F16C. Byte-equal to decode-scalar.c,
 * except that the adaptor's sums are fused. Trusts a checked table's layout and nothing in its
 * chunks. Any thread.
 */
#include "avx512.h"

#define ROUND (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

static struct codec_record find(const struct codec_table *table, uint64_t row) {
        return codec_find(table, row);
}

/* A row of no stages is what the adaptor makes of it. */
static void decode_no_stages(const struct codec_table *table, const struct finish *finish,
                             float *ret_values) {
        size_t n_dims = table->contents.header.n_dims;

        for (size_t i = 0; i < n_dims; i += LANES) {
                __mmask16 mask = lanes(n_dims - i);

                _mm512_mask_storeu_ps(ret_values + i, mask,
                                      finish_columns(finish, mask, i, _mm512_setzero_ps()));
        }
}

static void decode_integers(const uint8_t *integers, float scale, size_t n, float *ret_values) {
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m128i codes = _mm_maskz_loadu_epi8(mask, integers + i);
                __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));

                _mm512_mask_storeu_ps(ret_values + i, mask,
                                      _mm512_mul_ps(_mm512_set1_ps(scale), q));
        }
}

static void decode_carvq(const struct codec_table *table, const struct codec_record *record,
                         const float *addends, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        float scale = codec_row_scale(table, record);
        struct finish finish = {
                .scale = _mm512_set1_ps(scale),
                .col_scales = record->n_stages ? table->col_scales : NULL,
                .addends = addends,
                .means = codec_adaptor_means(table),
        }, *any;

        any = scale != 1 || finish_has_columns(&finish) ? &finish : NULL;
        if (codec_is_int8(table, record))
                decode_integers(record->bytes + sizeof(uint16_t),
                                half_to_float(codec_load_half(record->bytes)), h->n_dims,
                                ret_values);
        else if (!record->n_stages)
                decode_no_stages(table, &finish, ret_values);
        else if (!table_small_codebooks(h))
                codec_avx512_large(table, record, any, ret_values);
        else if (codec_avx512_is_small(table))
                codec_avx512_small(table, record, any, ret_values);
        else
                codec_scalar_codes(table, record, addends, ret_values);
}

static void adaptor(const struct codec_table *table, const struct codec_record *records,
                    size_t n_rows, float *scratch, size_t stride, float *ret_outputs) {
        codec_adaptor(table, records, n_rows, codec_avx512_layer, scratch, stride, ret_outputs);
}

/* ---- The other codecs ---- */

static void decode_f16(const struct codec_table *table, const struct codec_record *record,
                       const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n = table->contents.header.n_dims;

        (void)addends;
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m256i halves = _mm256_maskz_loadu_epi16(mask, bytes + 2 * i);

                _mm512_mask_storeu_ps(ret_values + i, mask, _mm512_cvtph_ps(halves));
        }
}

static void decode_bf16(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n = table->contents.header.n_dims;

        (void)addends;
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m512i words =
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, bytes + 2 * i));

                _mm512_mask_storeu_epi32(ret_values + i, mask, _mm512_slli_epi32(words, 16));
        }
}

static void decode_int8(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        float scale;

        (void)addends;
        memcpy(&scale, record->bytes, sizeof(scale));
        decode_integers(record->bytes + sizeof(scale), scale, table->contents.header.n_dims,
                        ret_values);
}

static void decode_int4(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        const __m512i levels =
                _mm512_setr_epi32(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
        const uint8_t *bytes = record->bytes;
        size_t n_dims = table->contents.header.n_dims;
        __m512 values;
        float scale;

        (void)addends;
        memcpy(&scale, bytes, sizeof(scale));
        values = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(levels));
        for (size_t first = 0; first < n_dims; first += TABLE_BLOCK_CODES) {
                size_t n = MIN(n_dims - first, TABLE_BLOCK_CODES);
                __m512i indices[BLOCK_VECTORS];

                unpack_indices(bytes + sizeof(scale) + first / 2, n, indices);
                for (size_t i = 0; i * LANES < n; i++)
                        _mm512_mask_storeu_ps(ret_values + first + i * LANES, lanes(n - i * LANES),
                                              _mm512_permutexvar_ps(indices[i], values));
        }
}

static void f32_to_f16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m512 v = _mm512_maskz_loadu_ps(mask, values + i);

                _mm256_mask_storeu_epi16(ret_values + i, mask, _mm512_cvtps_ph(v, ROUND));
        }
}

/* By integers, as half.h does it: the instruction for it flushes subnormals. */
static void f32_to_bf16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m512 v = _mm512_maskz_loadu_ps(mask, values + i);
                __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
                __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
                __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
                __m512i rounded =
                        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));

                rounded = _mm512_srli_epi32(rounded, 16);
                rounded = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x0040));
                _mm256_mask_storeu_epi16(ret_values + i, mask, _mm512_cvtepi32_epi16(rounded));
        }
}

const struct codec_kernels codec_kernels_avx512 = {
        .name = "avx512",
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

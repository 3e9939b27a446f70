/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders for AVX-512 F, BW, DQ, VL with AVX2, FMA and F16C; the only file built with those
 * flags, entered through the kernel table alone. Byte-equal to decode-scalar.c, except that the
 * adaptor's sums are fused. Masked loads and stores at every edge: nothing outside the record is
 * read, nothing past n_dims is written. Any thread.
 *
 * Codebooks of 16 entries fit one register each, so a permute is the whole look-up: 16 values per
 * instruction, and the layout (FORMAT.md) makes them neighbours in the output.
 */
#include <immintrin.h>

#include "half.h"
#include "kernels.h"

#define LANES          16u
#define ROUND          (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define _always_inline inline __attribute__((always_inline))

static inline __mmask16 lanes(size_t n) {
        return n >= LANES ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* ---- Permuted codebooks: carvq with k = 4, and int4 as one stage of one slot ---- */

#define BLOCK_VECTORS (TABLE_BLOCK_CODES / LANES)

static inline __m512i widen(const uint8_t *bytes) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
}

/*
 * A block's codes as indices. A permute looks at the low four bits of a lane only, so whatever the
 * packing leaves above them stays.
 */
static inline void unpack_block(const uint8_t *packed, size_t n_codes,
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

/* How the stages' sum becomes a value; NULL: as it is. */
struct finish {
        __m512 scale; /* 1 where the table has none: exact */
        const float *addends;
};

static inline __m512 load_centroids(const uint16_t *halves) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)halves));
}

/*
 * FORMAT.md, steps 1 to 3, for vectors [i, i + n_vectors) of the block at sub-vector `block`, all
 * in one group; the last may end at `n_codes`. Codebooks are converted as they are loaded: a copy
 * kept in memory costs more than it saves while the output's stores miss L1.
 */
static _always_inline void decode_vectors(const struct codec_table *table,
                                          const uint16_t *codebooks,
                                          __m512i indices[][BLOCK_VECTORS], size_t n_stages,
                                          size_t block, size_t n_codes, size_t i, size_t n_vectors,
                                          const struct finish *finish, float *ret_values) {
        size_t n_slots = table->contents.header.subvector_dims, first = block + i * LANES;
        size_t n_dims = table->contents.header.n_dims, stride = table->contents.layout.n_subvectors;

        for (size_t d = 0, dim = first; d < n_slots && dim < n_dims; d++, dim += stride) {
                size_t n = MIN(n_codes - i * LANES, n_dims - dim);
                __m512 c = load_centroids(codebooks + d * LANES), v[BLOCK_VECTORS];

                for (size_t j = 0; j < n_vectors; j++)
                        v[j] = _mm512_permutexvar_ps(indices[0][i + j], c);
                for (size_t s = 1; s < n_stages; s++) {
                        c = load_centroids(codebooks + (s * n_slots + d) * LANES);
                        for (size_t j = 0; j < n_vectors; j++)
                                v[j] = _mm512_add_ps(v[j],
                                                     _mm512_permutexvar_ps(indices[s][i + j], c));
                }
                for (size_t j = 0; finish && j < n_vectors; j++)
                        v[j] = _mm512_mul_ps(v[j], finish->scale);

                /* Making masks shares the permutes' port too: only at the end of a slot. */
                if (n >= n_vectors * LANES && !(finish && finish->addends)) {
                        for (size_t j = 0; j < n_vectors; j++)
                                _mm512_storeu_ps(ret_values + dim + j * LANES, v[j]);
                        continue;
                }
                for (size_t j = 0; j < n_vectors && j * LANES < n; j++) {
                        __mmask16 mask = lanes(n - j * LANES);
                        size_t at = dim + j * LANES;

                        if (finish && finish->addends)
                                v[j] = _mm512_add_ps(
                                        v[j], _mm512_maskz_loadu_ps(mask, finish->addends + at));
                        _mm512_mask_storeu_ps(ret_values + at, mask, v[j]);
                }
        }
}

/* One row. With `n_stages` known to the compiler, a block's indices stay in registers. */
static _always_inline void decode_codes(const struct codec_table *table,
                                        const struct codec_record *record, size_t n_stages,
                                        const struct finish *finish, float *ret_values) {
        const struct table_layout *l = &table->contents.layout;
        const uint8_t *codes = record->bytes + l->codes_offset;
        const uint16_t *codebooks = codec_row_codebooks(table, record->row);
        size_t group_cols = table->contents.header.group_cols;
        size_t group_halves = l->group_bytes / sizeof(uint16_t);

        for (size_t block = 0; block < l->n_subvectors; block += TABLE_BLOCK_CODES) {
                size_t n_codes = MIN(l->n_subvectors - block, TABLE_BLOCK_CODES);
                __m512i indices[TABLE_STAGES_MAX][BLOCK_VECTORS];

                for (size_t s = 0; s < n_stages; s++)
                        unpack_block(codes + s * l->stage_bytes + block / 2, n_codes, indices[s]);
                if (n_codes > 2 * LANES &&
                    block / group_cols == (block + n_codes - 1) / group_cols) {
                        decode_vectors(table, codebooks + block / group_cols * group_halves,
                                       indices, n_stages, block, n_codes, 0, BLOCK_VECTORS, finish,
                                       ret_values);
                        continue;
                }
                for (size_t i = 0; i * LANES < n_codes; i++)
                        decode_vectors(table,
                                       codebooks + (block + i * LANES) / group_cols * group_halves,
                                       indices, n_stages, block, n_codes, i, 1, finish, ret_values);
        }
}

static _always_inline void decode_stages(const struct codec_table *table,
                                         const struct codec_record *record,
                                         const struct finish *finish, float *ret_values) {
        size_t n_stages = record->n_stages;

        switch (n_stages) {
        case 2:
                decode_codes(table, record, 2, finish, ret_values);
                break;
        case 3:
                decode_codes(table, record, 3, finish, ret_values);
                break;
        case 4:
                decode_codes(table, record, 4, finish, ret_values);
                break;
        default:
                decode_codes(table, record, n_stages, finish, ret_values);
        }
}

/* A register holds 16 centroids, and no vector of indices may straddle two groups. */
static bool permutable(const struct codec_table *table) {
        return table->contents.header.codebook_bits == 4 &&
               (table->contents.layout.n_col_groups == 1 ||
                table->contents.header.group_cols % LANES == 0);
}

/* ---- The adaptor ---- */

/* outputs += weights of up to four inputs x those inputs, in ascending order of input. */
static _always_inline void add_inputs(const uint16_t *const weights[], const float inputs[],
                                      size_t n_inputs, size_t n_out, float *outputs) {
        for (size_t o = 0; o < n_out; o += LANES) {
                __mmask16 mask = lanes(n_out - o);
                __m512 v = _mm512_maskz_loadu_ps(mask, outputs + o);

                for (size_t i = 0; i < n_inputs; i++) {
                        __m256i w = _mm256_maskz_loadu_epi16(mask, weights[i] + o);

                        v = _mm512_fmadd_ps(_mm512_cvtph_ps(w), _mm512_set1_ps(inputs[i]), v);
                }
                _mm512_mask_storeu_ps(outputs + o, mask, v);
        }
}

static void layer_avx512(const struct codec_layer *layer, const float *inputs, float *ret_outputs) {
        const uint16_t *weights = layer->halves, *bias = layer->biases, *pending_weights[4];
        size_t n_in = layer->n_in, n_out = layer->n_out, n_pending = 0;
        float pending[4];

        if (layer->integers) {
                codec_scalar_layer(layer, inputs, ret_outputs);
                return;
        }
        for (size_t o = 0; o < n_out; o += LANES) {
                __mmask16 mask = lanes(n_out - o);
                __m256i b = _mm256_maskz_loadu_epi16(mask, bias + o);

                _mm512_mask_storeu_ps(ret_outputs + o, mask, _mm512_cvtph_ps(b));
        }

        /* Four inputs at a time: the outputs pass through memory a quarter as often. */
        for (size_t i = 0; i < n_in; i++) {
                if (inputs[i] == 0)
                        continue;
                pending_weights[n_pending] = weights + i * n_out;
                pending[n_pending++] = inputs[i];
                if (n_pending == 4) {
                        add_inputs(pending_weights, pending, 4, n_out, ret_outputs);
                        n_pending = 0;
                }
        }
        for (size_t i = 0; i < n_pending; i++)
                add_inputs(&pending_weights[i], &pending[i], 1, n_out, ret_outputs);

        for (size_t o = 0; layer->relu && o < n_out; o += LANES) {
                __mmask16 mask = lanes(n_out - o);
                __m512 v = _mm512_maskz_loadu_ps(mask, ret_outputs + o);

                /* Of a NaN and 0, max gives the second. */
                _mm512_mask_storeu_ps(ret_outputs + o, mask, _mm512_max_ps(v, _mm512_setzero_ps()));
        }
}

static struct codec_record find(const struct codec_table *table, uint64_t row) {
        return codec_find(table, row);
}

static void decode_carvq(const struct codec_table *table, const struct codec_record *record,
                         float *scratch, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const float *addends = codec_adaptor(table, record, layer_avx512, scratch);

        if (!permutable(table) || !record->n_stages) {
                codec_scalar_codes(table, record, addends, ret_values);
        } else if (!h->row_scale && !addends) {
                decode_stages(table, record, NULL, ret_values);
        } else {
                float scale = h->row_scale ? half_to_float(codec_load_half(record->bytes)) : 1;
                struct finish finish = { .scale = _mm512_set1_ps(scale), .addends = addends };

                decode_stages(table, record, &finish, ret_values);
        }
}

/* ---- The other codecs ---- */

static void decode_f16(const struct codec_table *table, const struct codec_record *record,
                       float *scratch, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n = table->contents.header.n_dims;

        (void)scratch;
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m256i halves = _mm256_maskz_loadu_epi16(mask, bytes + 2 * i);

                _mm512_mask_storeu_ps(ret_values + i, mask, _mm512_cvtph_ps(halves));
        }
}

static void decode_bf16(const struct codec_table *table, const struct codec_record *record,
                        float *scratch, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n = table->contents.header.n_dims;

        (void)scratch;
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m512i words =
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, bytes + 2 * i));

                _mm512_mask_storeu_epi32(ret_values + i, mask, _mm512_slli_epi32(words, 16));
        }
}

static void decode_int8(const struct codec_table *table, const struct codec_record *record,
                        float *scratch, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n = table->contents.header.n_dims;
        float scale;

        (void)scratch;
        memcpy(&scale, bytes, sizeof(scale));
        for (size_t i = 0; i < n; i += LANES) {
                __mmask16 mask = lanes(n - i);
                __m128i codes = _mm_maskz_loadu_epi8(mask, bytes + sizeof(scale) + i);
                __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));

                _mm512_mask_storeu_ps(ret_values + i, mask,
                                      _mm512_mul_ps(_mm512_set1_ps(scale), q));
        }
}

static void decode_int4(const struct codec_table *table, const struct codec_record *record,
                        float *scratch, float *ret_values) {
        const __m512i levels =
                _mm512_setr_epi32(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
        const uint8_t *bytes = record->bytes;
        size_t n_dims = table->contents.header.n_dims;
        __m512 values;
        float scale;

        (void)scratch;
        memcpy(&scale, bytes, sizeof(scale));
        values = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(levels));
        for (size_t first = 0; first < n_dims; first += TABLE_BLOCK_CODES) {
                size_t n = MIN(n_dims - first, TABLE_BLOCK_CODES);
                __m512i indices[BLOCK_VECTORS];

                unpack_block(bytes + sizeof(scale) + first / 2, n, indices);
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
        .f32_to_f16 = f32_to_f16,
        .f32_to_bf16 = f32_to_bf16,
};

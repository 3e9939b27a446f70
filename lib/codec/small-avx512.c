/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codebooks of 16 entries fit one register each, so a permute is the whole look-up: 16 values per
 * instruction, and the layout (FORMAT.md, "Sub-vectors") makes them neighbours in the output.
 * Byte-equal to decode-scalar.c. Trusts a checked table's layout and nothing in its chunks. Any
 * thread.
 */
#include "avx512.h"

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
                if (n >= n_vectors * LANES && !finish_has_columns(finish)) {
                        for (size_t j = 0; j < n_vectors; j++)
                                _mm512_storeu_ps(ret_values + dim + j * LANES, v[j]);
                        continue;
                }
                for (size_t j = 0; j < n_vectors && j * LANES < n; j++) {
                        __mmask16 mask = lanes(n - j * LANES);
                        size_t at = dim + j * LANES;

                        if (finish)
                                v[j] = finish_columns(finish, mask, at, v[j]);
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
                        unpack_indices(codes + s * record->stage_bytes + block / 2, n_codes,
                                       indices[s]);
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
        switch (record->n_stages) {
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
                decode_codes(table, record, record->n_stages, finish, ret_values);
        }
}

/* A register holds 16 centroids, and no vector of indices may straddle two groups. */
bool codec_avx512_is_small(const struct codec_table *table) {
        return table->contents.header.codebook_bits == 4 &&
               (table->contents.layout.n_col_groups == 1 ||
                table->contents.header.group_cols % LANES == 0);
}

void codec_avx512_small(const struct codec_table *table, const struct codec_record *record,
                        const struct finish *finish, float *ret_values) {
        if (finish)
                decode_stages(table, record, finish, ret_values);
        else
                decode_stages(table, record, NULL, ret_values);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel files share among themselves: the sets, the shape of the scratch, where a row is,
 * and the pieces of the scalar decoder that a SIMD set reuses where it has nothing better.
 */
#pragma once

#include <string.h>

#include "codec.h"
#include "half.h"

#if defined(__x86_64__)
extern const struct codec_kernels codec_kernels_avx2;
extern const struct codec_kernels codec_kernels_avx512;
extern const struct codec_kernels codec_kernels_avx512_vnni;
extern const struct codec_kernels codec_kernels_avx512_amx;
#elif defined(__aarch64__)
extern const struct codec_kernels codec_kernels_neon;
extern const struct codec_kernels codec_kernels_neon_dotprod;
#endif

/* For what is written once and compiled for each shape that it is given as constants. */
#define _always_inline inline __attribute__((always_inline))

/* Parts of the scratch start at multiples of a cache line. */
#define CODEC_SCRATCH_ALIGNMENT 64u

static inline size_t codec_scratch_round(size_t n_floats) {
        return align_up(n_floats, CODEC_SCRATCH_ALIGNMENT / sizeof(float));
}

/* ---- Where a row is ---- */

static inline struct codec_record codec_record_at(const struct codec_table *table, uint64_t row,
                                                  uint64_t offset, uint32_t tier) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;

        return (struct codec_record){
                .bytes = table->rows + offset,
                .n_bytes = l->tier_bytes[tier],
                .row = row,
                .stage_bytes = l->stage_bytes[tier],
                .n_stages = h->tier_stages[tier],
                .code_bits = h->tier_bits[tier],
                .tier = tier,
        };
}

/* For tables of one tier. */
static inline struct codec_record codec_find_uniform(const struct codec_table *table,
                                                     uint64_t row) {
        return codec_record_at(table, row, row * table->contents.layout.record_bytes, 0);
}

/* Ones before `position` of a level, and whether it is one itself. All of the cache line is
 * counted, under masks: where in its block a row is, no branch can predict. */
static inline uint64_t codec_tier_rank(const struct table_tier_block *level, uint64_t position,
                                       bool *ret_marked) {
        const struct table_tier_block *b = level + position / TABLE_TIER_BLOCK_ROWS;
        uint64_t bit = position % TABLE_TIER_BLOCK_ROWS, last = bit / 64;
        uint64_t below = (UINT64_C(1) << bit % 64) - 1;
        uint64_t rank = __atomic_load_n(&b->rank, __ATOMIC_RELAXED);

#pragma GCC unroll 7
        for (uint64_t w = 0; w < ARRAY_SIZE(b->bits); w++) {
                uint64_t word = __atomic_load_n(&b->bits[w], __ATOMIC_RELAXED);
                uint64_t mask = -(uint64_t)(w < last) | (-(uint64_t)(w == last) & below);

                rank += (uint64_t)__builtin_popcountll(word & mask);
        }
        *ret_marked = __atomic_load_n(&b->bits[last], __ATOMIC_RELAXED) >> bit % 64 & 1;
        return rank;
}

/*
 * FORMAT.md, "Tiers". The map was checked when the file was opened, but whoever owns the file may
 * have overwritten it since. So a rank counts for no more than its level's rows, and a bit only
 * below that: then the offset is at most that of the chunk's last record, and the record ends
 * inside it. What a lying map decodes to is some row, as with any other byte of the file.
 */
static inline struct codec_record codec_find_tiered(const struct codec_table *table, uint64_t row) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        uint64_t offset = row * l->tier_bytes[0], position = row, n_rows = h->n_rows;
        uint32_t tier = 0;

        for (uint32_t level = 1; level < h->n_tiers; level++) {
                uint64_t n_marked = h->tier_rows[level - 1], rank = n_marked;
                bool marked = false;

                if (position < n_rows)
                        rank = codec_tier_rank(table->tiers + l->level_first[level - 1], position,
                                               &marked);
                tier += marked & (rank < n_marked) & (tier == level - 1);
                rank = MIN(rank, n_marked);
                offset += rank * (l->tier_bytes[level] - l->tier_bytes[level - 1]);
                position = rank;
                n_rows = n_marked;
        }
        return codec_record_at(table, row, offset, tier);
}

static inline struct codec_record codec_find(const struct codec_table *table, uint64_t row) {
        return table->contents.header.n_tiers > 1 ? codec_find_tiered(table, row)
                                                  : codec_find_uniform(table, row);
}

/* Codebooks of the row's group in column group 0; those of the next follow `group_bytes` on. */
static inline const uint16_t *codec_row_codebooks(const struct codec_table *table, uint64_t row) {
        const struct table_layout *l = &table->contents.layout;
        uint64_t row_group = l->n_row_groups == 1 ? 0 : row / table->contents.header.group_rows;

        return table->codebooks + row_group * l->n_col_groups * (l->group_bytes / sizeof(uint16_t));
}

static inline uint16_t codec_load_half(const uint8_t *bytes) {
        uint16_t half;

        memcpy(&half, bytes, sizeof(half));
        return half;
}

/* ---- The adaptor (adaptor-scalar.c) ---- */

#define CODEC_LAYERS_MAX 3u

/* One layer, in place: weights [n_in][n_out] of either type. */
struct codec_layer {
        const uint16_t *halves; /* NULL: int8 */
        const int8_t *integers; /* NULL: half */
        const uint16_t *scales; /* half[n_out]; int8 only */
        const uint16_t *biases; /* half[n_out] */
        size_t n_in, n_out;
        bool relu;
};

/* Returns their number. */
size_t codec_layers(const struct table_header *header, const uint16_t *adaptor,
                    struct codec_layer ret_layers[CODEC_LAYERS_MAX]);

/* Whether a record of the carvq codec holds integers instead of codes. */
static inline bool codec_is_int8(const struct codec_table *table,
                                 const struct codec_record *record) {
        return record->tier >= table_code_tiers(&table->contents.header);
}

/* FORMAT.md, decoding step 2: the scale of a row of codes. Exact: a product of two halves. */
static inline float codec_row_scale(const struct codec_table *table,
                                    const struct codec_record *record) {
        const struct table_header *h = &table->contents.header;
        float scale = half_to_float(h->tier_scale[record->tier]);

        return h->row_scale ? scale * half_to_float(codec_load_half(record->bytes)) : scale;
}

/* The outputs of an adaptor without inputs, which are the same for all rows: half[n_dims]. NULL for
 * every other table. */
const uint16_t *codec_adaptor_means(const struct codec_table *table);

/* The latent's values as floats. */
void codec_load_latent(const struct table_header *header, const struct codec_record *record,
                       float *ret_inputs);

/* Entries of struct codec_kernels: as specified, and batched by weights that are packed at load. */
typedef void codec_adaptor_fn(const struct codec_table *table, const struct codec_record *records,
                              size_t n_rows, float *scratch, size_t stride, float *ret_outputs);

codec_adaptor_fn codec_scalar_adaptor;
#if defined(__x86_64__)
codec_adaptor_fn codec_avx2_adaptor; /* with FMA */
codec_adaptor_fn codec_vnni_adaptor; /* with AVX-512 */
codec_adaptor_fn codec_amx_adaptor;  /* with both */
#elif defined(__aarch64__)
codec_adaptor_fn codec_neon_adaptor;
codec_adaptor_fn codec_dotprod_adaptor;
#endif

/* ---- The scalar decoder (decode-scalar.c) ---- */

/* The record is the row: no instruction set does better than memcpy(). */
void codec_decode_f32(const struct codec_table *table, const struct codec_record *record,
                      const float *addends, float *ret_values);

/* Bits [first, first + n_bits), at most 25, of a string that is a ring: behind its last byte is its
 * first. */
static inline uint32_t codec_load_bits(const uint8_t *bytes, size_t n_bytes, size_t first,
                                       uint32_t n_bits) {
        uint32_t word = 0;

        for (uint32_t i = 0; i < first % 8 + n_bits; i += 8)
                word |= (uint32_t)bytes[(first / 8 + i / 8) % n_bytes] << i;
        return word >> first % 8 & ((1u << n_bits) - 1);
}

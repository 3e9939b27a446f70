/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel files share among themselves: the sets, the shape of the scratch, and the two
 * pieces of the scalar decoder that a SIMD set reuses where it has nothing better.
 */
#pragma once

#include <string.h>

#include "codec.h"

#if defined(__x86_64__)
extern const struct codec_kernels codec_kernels_avx512;
#endif

/* Parts of the scratch start at multiples of a cache line. */
#define CODEC_SCRATCH_ALIGNMENT 64u

static inline size_t codec_scratch_round(size_t n_floats) {
        return align_up(n_floats, CODEC_SCRATCH_ALIGNMENT / sizeof(float));
}

static inline const uint8_t *codec_record(const struct codec_table *table, uint64_t row) {
        return table->rows + row * table->contents.layout.record_bytes;
}

/* Codebooks of the row's group in column group 0; those of the next follow `group_bytes` on. */
static inline const uint16_t *codec_row_codebooks(const struct codec_table *table, uint64_t row) {
        const struct table_layout *l = &table->contents.layout;
        uint64_t row_group = row / table->contents.header.group_rows;

        return table->codebooks + row_group * l->n_col_groups * (l->group_bytes / sizeof(uint16_t));
}

static inline uint16_t codec_load_half(const uint8_t *bytes) {
        uint16_t half;

        memcpy(&half, bytes, sizeof(half));
        return half;
}

/* One layer: `weights` are half[n_in][n_out] and then the bias, half[n_out]. */
typedef void codec_layer_fn(const uint16_t *weights, const float *inputs, size_t n_in, size_t n_out,
                            bool relu, float *ret_outputs);

/*
 * FORMAT.md, decoding step 3: the adaptor's n_dims outputs for a record, inside `scratch`; NULL for
 * a table without an adaptor.
 */
const float *codec_adaptor(const struct codec_table *table, const uint8_t *record,
                           codec_layer_fn *layer, float *scratch);

/* The record is the row: no instruction set does better than memcpy(). */
void codec_decode_f32(const struct codec_table *table, uint64_t row, float *scratch,
                      float *ret_values);

/* FORMAT.md, decoding steps 1 and 2, and the addition of `addends` (NULL: none). */
void codec_scalar_codes(const struct codec_table *table, uint64_t row, const float *addends,
                        float *ret_values);

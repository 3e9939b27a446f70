/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codebooks of more than 16 entries: a sub-vector's values in one stage are neighbours in memory
 * (FORMAT.md, "Codebooks"), so a stage is a load and an addition, and the sum is stored as it is.
 * Byte-equal to decode-scalar.c. Trusts a checked table's layout and nothing in its chunks. Any
 * thread.
 */
#include "avx512.h"

/* The codebooks of one sub-vector after another. */
struct groups {
        const uint16_t *at;
        size_t n_left; /* sub-vectors that share them */
        size_t group_cols, group_halves;
};

static _always_inline const uint16_t *next_group(struct groups *g) {
        const uint16_t *group = g->at;

        if (--g->n_left == 0) {
                g->at += g->group_halves;
                g->n_left = g->group_cols;
        }
        return group;
}

/* What does not change within a row. */
struct shape {
        size_t n_stages, n_slots, stage_halves;
        const struct finish *finish;
};

static _always_inline __m256i load_slots(const uint16_t *halves, __mmask16 mask) {
        return mask == 0xffff ? _mm256_loadu_si256((const void *)halves)
                              : _mm256_maskz_loadu_epi16(mask, halves);
}

static _always_inline void store(const struct shape *q, __m512 v, __mmask16 mask, size_t at,
                                 float *ret_values) {
        if (q->finish)
                v = finish_columns(q->finish, mask, at, _mm512_mul_ps(v, q->finish->scale));
        if (mask == 0xffff)
                _mm512_storeu_ps(ret_values + at, v);
        else
                _mm512_mask_storeu_ps(ret_values + at, mask, v);
}

/* The first `n` slots of a sub-vector, whose first dimension is `at`. */
static _always_inline void decode_one(const struct shape *q, const uint16_t *group,
                                      const uint16_t *codes, size_t stride, size_t n, size_t at,
                                      float *ret_values) {
        for (size_t slot = 0; slot < n; slot += LANES) {
                __mmask16 mask = lanes(n - slot);
                const uint16_t *stage = group + slot;
                __m512 v = _mm512_cvtph_ps(load_slots(stage + codes[0] * q->n_slots, mask));

                for (size_t s = 1; s < q->n_stages; s++) {
                        stage += q->stage_halves;
                        v = _mm512_add_ps(v,
                                          _mm512_cvtph_ps(load_slots(
                                                  stage + codes[s * stride] * q->n_slots, mask)));
                }
                store(q, v, mask, at + slot, ret_values);
        }
}

static _always_inline __m512 load_two(const uint16_t *first, const uint16_t *second) {
        __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const void *)first));

        return _mm512_cvtph_ps(
                _mm256_inserti128_si256(low, _mm_loadu_si128((const void *)second), 1));
}

/* Two whole sub-vectors of 8 slots. */
static _always_inline void decode_two(const struct shape *q, const uint16_t *first,
                                      const uint16_t *second, const uint16_t *codes, size_t stride,
                                      size_t at, float *ret_values) {
        __m512 v = load_two(first + codes[0] * 8, second + codes[1] * 8);

        for (size_t s = 1; s < q->n_stages; s++) {
                const uint16_t *c = codes + s * stride;

                first += q->stage_halves;
                second += q->stage_halves;
                v = _mm512_add_ps(v, load_two(first + c[0] * 8, second + c[1] * 8));
        }
        store(q, v, 0xffff, at, ret_values);
}

/* Sub-vectors [first, end). */
static _always_inline void decode_run(const struct shape *q, size_t n_dims, struct groups *groups,
                                      const uint16_t *codes, size_t stride, size_t first,
                                      size_t end, float *ret_values) {
        size_t whole = MIN(end, n_dims / q->n_slots), j = first;

        if (q->n_slots == 8)
                for (; j + 2 <= whole; j += 2, codes += 2) {
                        const uint16_t *one = next_group(groups), *two = next_group(groups);

                        decode_two(q, one, two, codes, stride, j * 8, ret_values);
                }
        for (; j < whole; j++, codes++)
                decode_one(q, next_group(groups), codes, stride, q->n_slots, j * q->n_slots,
                           ret_values);
        if (j < end) /* the last sub-vector is cut */
                decode_one(q, next_group(groups), codes, stride, n_dims - j * q->n_slots,
                           j * q->n_slots, ret_values);
}

/* Which centroids a block's sub-vectors have in a stage. */
static void choose_centroids(const struct codec_record *record, const uint8_t *codes,
                             uint32_t window_bits, size_t first, size_t n,
                             uint16_t ret_centroids[TABLE_BLOCK_CODES]) {
        for (size_t i = 0; i < n; i++)
                ret_centroids[i] = (uint16_t)codec_load_bits(codes, (first + i) * record->code_bits,
                                                             window_bits);
}

/* One row. With `n_slots` and `n_stages` known to the compiler, a sub-vector is a few instructions
 * without a loop. */
static _always_inline void decode_row(const struct codec_table *table,
                                      const struct codec_record *record, size_t n_slots,
                                      size_t n_stages, const struct finish *finish,
                                      float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        const uint8_t *packed = record->bytes + l->codes_offset;
        const struct shape q = { n_stages, n_slots, n_slots << h->window_bits, finish };
        struct groups groups = { codec_row_codebooks(table, record->row), h->group_cols,
                                 h->group_cols, l->group_bytes / sizeof(uint16_t) };
        uint16_t centroids[TABLE_STAGES_MAX][TABLE_BLOCK_CODES];

        for (size_t first = 0; first < l->n_subvectors; first += TABLE_BLOCK_CODES) {
                size_t n = MIN(l->n_subvectors - first, TABLE_BLOCK_CODES);

                for (size_t s = 0; s < n_stages; s++)
                        choose_centroids(record, packed + s * record->stage_bytes, h->window_bits,
                                         first, n, centroids[s]);
                decode_run(&q, h->n_dims, &groups, centroids[0], TABLE_BLOCK_CODES, first,
                           first + n, ret_values);
        }
}

#define DECODE(n)                                                                                  \
        case n:                                                                                    \
                decode_row(table, record, n_slots, n, finish, ret_values);                         \
                break

static _always_inline void decode_stages(const struct codec_table *table,
                                         const struct codec_record *record, size_t n_slots,
                                         const struct finish *finish, float *ret_values) {
        switch (record->n_stages) {
                DECODE(1);
                DECODE(2);
                DECODE(3);
                DECODE(4);
                DECODE(5);
                DECODE(6);
                DECODE(7);
                DECODE(8);
        default:
                decode_row(table, record, n_slots, record->n_stages, finish, ret_values);
        }
}

static _always_inline void decode_slots(const struct codec_table *table,
                                        const struct codec_record *record,
                                        const struct finish *finish, float *ret_values) {
        size_t n_slots = table->contents.header.subvector_dims;

        switch (n_slots) {
        case 8:
                decode_stages(table, record, 8, finish, ret_values);
                break;
        case 16:
                decode_stages(table, record, 16, finish, ret_values);
                break;
        default:
                decode_row(table, record, n_slots, record->n_stages, finish, ret_values);
        }
}

void codec_avx512_large(const struct codec_table *table, const struct codec_record *record,
                        const struct finish *finish, float *ret_values) {
        if (finish)
                decode_slots(table, record, finish, ret_values);
        else
                decode_slots(table, record, NULL, ret_values);
}

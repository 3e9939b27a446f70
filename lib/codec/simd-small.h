/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codebooks of at most 16 entries fit one register or two, so a shuffle is the whole look-up, and
 * the layout (FORMAT.md, "Sub-vectors") makes its results neighbours in the output. Written in the
 * words of whichever simd-ISA.h was included before. Byte-equal to decode-scalar.c. Trusts a
 * checked table's layout and nothing in its chunks. Any thread.
 */
#pragma once

#include "simd-finish.h"

#define PART_VECTORS (PART / LANES)
#define BLOCK_PARTS  (TABLE_BLOCK_CODES / PART)

/* What does not change within a row. */
struct small_row {
        const uint8_t *codes; /* stage 0 */
        const uint16_t *codebooks;
        size_t stage_bytes, n_slots, n_stages, n_dims, n_subvectors, group_cols, group_halves;
        size_t ahead; /* output this many floats on is prefetched */
        uint32_t bits;
        const struct finish *finish;
};

/* The codes of a block, whose last pieces may make a few too many. */
struct block {
        size_t first, n_codes;
        uint8_t codes[TABLE_STAGES_MAX][TABLE_BLOCK_CODES + 8];
};

/* ---- Codes ---- */

static _always_inline void add_pieces(const uint8_t *restrict pieces, size_t n_bytes,
                                      uint32_t width, uint32_t shift, uint8_t *restrict codes) {
        const uint8_t mask = (uint8_t)((1u << width) - 1);

        for (uint32_t at = 0; at < 8; at += width, codes += n_bytes)
                for (size_t i = 0; i < n_bytes; i++)
                        codes[i] |= (uint8_t)((pieces[i] >> at & mask) << shift);
}

/* Adds a run's pieces of the block at `first` to its codes, and returns where the next run is. */
static _always_inline const uint8_t *unpack_run(const uint8_t *run, size_t n_codes, size_t first,
                                                uint32_t width, uint32_t shift, uint8_t *codes) {
        size_t whole_bytes = n_codes / TABLE_BLOCK_CODES * 8 * width;
        size_t tail_bytes = div_round_up(n_codes % TABLE_BLOCK_CODES * width, 8);
        const uint8_t *pieces = run + first / 8 * width;

        if (n_codes - first >= TABLE_BLOCK_CODES) /* constants, and so vectors */
                add_pieces(pieces, (size_t)8 * width, width, shift, codes);
        else
                add_pieces(pieces, tail_bytes, width, shift, codes);
        return run + whole_bytes + tail_bytes;
}

/* FORMAT.md, "Packed codes": those of the block at `first`, a byte each; what follows the last is
 * below 2^bits, too. */
static _always_inline void unpack_codes(const uint8_t *packed, size_t n_codes, uint32_t bits,
                                        size_t first, uint8_t ret_codes[TABLE_BLOCK_CODES + 8]) {
        memset(ret_codes, 0, TABLE_BLOCK_CODES + 8);
        if (bits & 4)
                unpack_run(packed, n_codes, first, 4, 0, ret_codes);
        if (bits & 2)
                packed = unpack_run(packed, n_codes, first, 2, 0, ret_codes);
        if (bits & 1)
                unpack_run(packed, n_codes, first, 1, bits & 2, ret_codes);
}

/* The same as indices; `codes` are wanted where groups divide the block, else they are scratch. */
static _always_inline void block_indices(const uint8_t *packed, size_t n_codes, uint32_t bits,
                                         size_t first, bool divided,
                                         uint8_t codes[TABLE_BLOCK_CODES + 8],
                                         indices ret_indices[BLOCK_PARTS]) {
        if (bits == 4 && n_codes - first >= TABLE_BLOCK_CODES && !divided) {
                unpack_indices(packed + first / 2, ret_indices);
                return;
        }
        unpack_codes(packed, n_codes, bits, first, codes);
        for (size_t p = 0; p < BLOCK_PARTS; p++)
                ret_indices[p] = load_indices(codes + p * PART);
}

/* ---- Parts of a block ---- */

/* The first n values of a slot from dimension `dim` on. */
static _always_inline void store_slot(const struct finish *finish, enum finish_kind kind,
                                      size_t dim, size_t n, size_t n_vectors, const vector *v,
                                      size_t ahead, float *ret_values) {
        for (size_t i = 0; i < n_vectors && i * LANES < n; i++) {
                size_t at = dim + i * LANES, n_left = n - i * LANES;

                __builtin_prefetch(ret_values + at + ahead, 1);
                v_store(ret_values + at, n_left, finish_values(finish, kind, at, n_left, v[i]));
        }
}

/*
 * FORMAT.md, steps 1 to 3, for parts [first, first + n_parts) of a block, which are of the group
 * that has these codebooks. They are converted as they are loaded: a copy kept in memory costs more
 * than it saves while the output's stores miss L1.
 */
static _always_inline void decode_parts(const struct small_row *q, const struct finish *finish,
                                        enum finish_kind kind, const uint16_t *codebooks,
                                        size_t n_stages, const struct block *b,
                                        indices in[][BLOCK_PARTS], size_t first, size_t n_parts,
                                        float *ret_values) {
        const size_t n_vectors = n_parts * PART_VECTORS;
        size_t dim = b->first + first * PART;

        for (size_t d = 0; d < q->n_slots && dim < q->n_dims; d++, dim += q->n_subvectors) {
                size_t n = MIN(b->n_codes - first * PART, q->n_dims - dim);
                const uint16_t *table = codebooks + (d << q->bits);
                centroids c = load_centroids(table, q->bits);
                vector v[BLOCK_PARTS * PART_VECTORS], t[PART_VECTORS];

                for (size_t p = 0; p < n_parts; p++)
                        look_up(c, in[0][first + p], v + p * PART_VECTORS);
                for (size_t s = 1; s < n_stages; s++) {
                        table += q->n_slots << q->bits;
                        c = load_centroids(table, q->bits);
                        for (size_t i = 0; i < n_vectors; i++) {
                                if (i % PART_VECTORS == 0)
                                        look_up(c, in[s][first + i / PART_VECTORS], t);
                                v[i] = v_add(v[i], t[i % PART_VECTORS]);
                        }
                }
                if (n >= n_vectors * LANES)
                        store_slot(finish, kind, dim, n_vectors * LANES, n_vectors, v, q->ahead,
                                   ret_values);
                else
                        store_slot(finish, kind, dim, n, n_vectors, v, q->ahead, ret_values);
        }
}

/* The same for a vector of sub-vectors of more than one group: each has codebooks of its own. */
static void decode_mixed(const struct small_row *q, const struct block *b, size_t first,
                         float *ret_values) {
        uint32_t offsets[TABLE_STAGES_MAX][LANES];
        size_t dim = b->first + first;

        for (size_t s = 0; s < q->n_stages; s++)
                for (size_t i = 0; i < LANES; i++) {
                        size_t j = MIN(dim + i, q->n_subvectors - 1);

                        offsets[s][i] =
                                (uint32_t)(j / q->group_cols * q->group_halves +
                                           (s * q->n_slots << q->bits) + b->codes[s][first + i]);
                }
        for (size_t d = 0; d < q->n_slots && dim < q->n_dims; d++, dim += q->n_subvectors) {
                const uint16_t *slot = q->codebooks + (d << q->bits);
                vector v = v_gather(slot, offsets[0]);

                for (size_t s = 1; s < q->n_stages; s++)
                        v = v_add(v, v_gather(slot, offsets[s]));
                store_slot(q->finish, q->finish->kind, dim,
                           MIN(b->n_codes - first, q->n_dims - dim), 1, &v, q->ahead, ret_values);
        }
}

static _always_inline const uint16_t *group_codebooks(const struct small_row *q, size_t j) {
        return q->codebooks + j / q->group_cols * q->group_halves;
}

/* A block that groups divide: parts of one group as ever, others by vectors. */
static void decode_divided(const struct small_row *q, const struct block *b,
                           indices in[][BLOCK_PARTS], float *ret_values) {
        for (size_t p = 0; p * PART < b->n_codes; p++) {
                size_t j = b->first + p * PART, end = MIN(j + PART, b->first + b->n_codes);

                if (j / q->group_cols == (end - 1) / q->group_cols) {
                        decode_parts(q, q->finish, q->finish->kind, group_codebooks(q, j),
                                     q->n_stages, b, in, p, 1, ret_values);
                        continue;
                }
                for (; j < end; j += LANES)
                        decode_mixed(q, b, j - b->first, ret_values);
        }
}

/* ---- A row ---- */

/* With these constants known to the compiler, a block's indices stay in registers. */
static _always_inline void decode_blocks(const struct small_row *row, enum finish_kind kind,
                                         uint32_t bits, size_t n_stages, float *ret_values) {
        struct small_row q = *row; /* copies, which no store can change */
        struct finish f = *row->finish;
        struct block b;

        q.bits = bits;
        for (b.first = 0; b.first < q.n_subvectors; b.first += TABLE_BLOCK_CODES) {
                indices in[TABLE_STAGES_MAX][BLOCK_PARTS];
                bool divided;

                b.n_codes = MIN(q.n_subvectors - b.first, TABLE_BLOCK_CODES);
                divided = b.first / q.group_cols != (b.first + b.n_codes - 1) / q.group_cols;
                for (size_t s = 0; s < n_stages; s++)
                        block_indices(q.codes + s * q.stage_bytes, q.n_subvectors, bits, b.first,
                                      divided, b.codes[s], in[s]);
                if (divided)
                        decode_divided(&q, &b, in, ret_values);
                else
                        decode_parts(&q, &f, kind, group_codebooks(&q, b.first), n_stages, &b, in,
                                     0, BLOCK_PARTS, ret_values);
        }
}

static _always_inline void decode_stages(const struct small_row *q, enum finish_kind kind,
                                         float *ret_values) {
        if (q->bits == 1)
                decode_blocks(q, kind, 1, q->n_stages, ret_values);
        else if (q->bits == 2)
                decode_blocks(q, kind, 2, q->n_stages, ret_values);
        else if (q->bits == 3)
                decode_blocks(q, kind, 3, q->n_stages, ret_values);
        else if (q->n_stages == 2)
                decode_blocks(q, kind, 4, 2, ret_values);
        else if (q->n_stages == 3)
                decode_blocks(q, kind, 4, 3, ret_values);
        else if (q->n_stages == 4)
                decode_blocks(q, kind, 4, 4, ret_values);
        else
                decode_blocks(q, kind, 4, q->n_stages, ret_values);
}

/* FORMAT.md, decoding steps 1 to 3, of a record of at least one stage. */
static void decode_small(const struct codec_table *table, const struct codec_record *record,
                         const struct finish *finish, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        const struct small_row q = {
                .codes = record->bytes + l->codes_offset,
                .codebooks = codec_row_codebooks(table, record->row),
                .stage_bytes = record->stage_bytes,
                .n_slots = h->subvector_dims,
                .n_stages = record->n_stages,
                .n_dims = h->n_dims,
                .n_subvectors = l->n_subvectors,
                .group_cols = h->group_cols,
                .group_halves = l->group_bytes / sizeof(uint16_t),
                .ahead = MAX(h->n_dims, STORE_AHEAD),
                .bits = record->code_bits,
                .finish = finish,
        };

        if (finish->kind == FINISH_NONE)
                decode_stages(&q, FINISH_NONE, ret_values);
        else if (finish->kind == FINISH_COLUMNS)
                decode_stages(&q, FINISH_COLUMNS, ret_values);
        else
                decode_stages(&q, FINISH_LINEAR, ret_values);
}

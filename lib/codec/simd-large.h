/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large codebooks: a sub-vector's centroid is chosen by a window over its stage's codes, and its
 * values are neighbours in memory (FORMAT.md, "Windows", "Codebooks"). Eight sub-vectors make a
 * unit, whose windows are cut from two words of codes. Then, by the number of slots:
 *
 * - a power of two of at most LANES: the centroids of as many sub-vectors as fill a vector are put
 *   side by side in it;
 * - a multiple of LANES: a sub-vector is some whole vectors;
 * - any other: centroids are copied side by side in memory, and vectors loaded from there.
 *
 * Written in the words of whichever simd-ISA.h was included before. Byte-equal to decode-scalar.c.
 * Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#pragma once

#include "simd-finish.h"

/* Sub-vectors decoded together: their codes are a whole number of bytes. */
#define UNIT 8u

/* Output this many floats on is prefetched: a batch's output is larger than L1, and a store that
 * misses holds up those behind it. */
#define STORE_AHEAD 512u

/* What does not change within a row. */
struct large_row {
        const uint8_t *codes; /* stage 0 */
        const uint16_t *codebooks;
        size_t stage_bytes, code_bits, window_mask;
        size_t n_slots, n_stages, n_dims, n_subvectors, group_cols, stage_halves, group_halves;
        const struct finish *finish;
};

/* ---- Windows ---- */

/* Four windows from bit `shift` of a word on, which is at most 11: with the other three codes and a
 * window that makes 63 bits. */
static _always_inline void cut_four(const struct large_row *q, uint64_t word, size_t shift,
                                    size_t ret_centroids[4]) {
        word >>= shift;
        for (size_t i = 0; i < 4; i++, word >>= q->code_bits)
                ret_centroids[i] = word & q->window_mask;
}

#define RING_BYTES 16u /* in which a unit's windows lie */

/* The bytes of a stage from byte `at` on, which go around its end; they lie in `buffer`. */
static _always_inline const uint8_t *go_around(const struct large_row *q, const uint8_t *codes,
                                               size_t at, uint8_t buffer[2 * RING_BYTES]) {
        if (__builtin_expect(q->stage_bytes < RING_BYTES, 0)) {
                for (size_t i = 0; i < RING_BYTES; i++)
                        buffer[i] = codes[(at + i) % q->stage_bytes];
                return buffer;
        }
        memcpy(buffer, codes + q->stage_bytes - RING_BYTES, RING_BYTES);
        memcpy(buffer + RING_BYTES, codes, RING_BYTES);
        return buffer + RING_BYTES - (q->stage_bytes - at);
}

/* Where in a stage's codebooks the centroids of a unit are that begins at bit `bit`: `groups`, if
 * not NULL, says where each sub-vector's own are. */
static _always_inline void choose(const struct large_row *q, const uint8_t *codes, size_t bit,
                                  const size_t *groups, size_t n_slots, size_t ret_x[UNIT]) {
        size_t at = bit / 8, half = q->code_bits / 2;
        uint8_t buffer[2 * RING_BYTES];
        uint64_t low, high;

        if (__builtin_expect(q->stage_bytes - at < RING_BYTES, 0))
                codes = go_around(q, codes, at, buffer);
        else
                codes += at;
        memcpy(&low, codes, sizeof(low));
        memcpy(&high, codes + half, sizeof(high)); /* 4 codes on, less half a byte if k is odd */
        cut_four(q, low, bit % 8, ret_x);
        cut_four(q, high, bit % 8 + q->code_bits % 2 * 4, ret_x + 4);
        for (size_t i = 0; i < UNIT; i++)
                ret_x[i] = ret_x[i] * n_slots + (groups ? groups[i] : 0);
}

/* ---- Groups of columns ---- */

/* Where a walk over the sub-vectors is: in the group whose codebooks are here, and how many more
 * sub-vectors it has. */
struct walk {
        size_t group, n_left;
};

/* Where the codebooks of each sub-vector of the unit at `first` are; past the last, its own. */
static _always_inline void next_groups(const struct large_row *q, struct walk *walk, size_t first,
                                       size_t ret_groups[UNIT]) {
        for (size_t i = 0; i < UNIT; i++)
                ret_groups[i] = walk->group;
        if (walk->n_left > UNIT) {
                walk->n_left -= UNIT;
                return;
        }
        for (size_t i = 0; i < UNIT; i++) {
                ret_groups[i] = walk->group;
                if (first + i + 1 < q->n_subvectors && --walk->n_left == 0) {
                        walk->group += q->group_halves;
                        walk->n_left = q->group_cols;
                }
        }
}

/* ---- A power of two of slots, at most LANES ---- */

/* The first `n_values` of a unit. What a window past the end chooses is a centroid like any other,
 * and is not stored. */
static _always_inline void decode_unit(const struct large_row *q, const struct finish *finish,
                                       enum finish_kind kind, const uint16_t *codebook,
                                       const size_t *groups, size_t n_slots, size_t n_stages,
                                       size_t first, size_t n_values, float *ret_values) {
        const size_t n = LANES / n_slots, n_vectors = UNIT / n, bit = first * q->code_bits;
        size_t x[UNIT], at = first * n_slots;
        vector v[UNIT];

        choose(q, q->codes, bit, groups, n_slots, x);
        for (size_t i = 0; i < n_vectors; i++)
                v[i] = v_join(codebook, x + i * n, n_slots);
        for (size_t s = 1; s < n_stages; s++) {
                const uint16_t *stage = codebook + s * q->stage_halves;

                choose(q, q->codes + s * q->stage_bytes, bit, groups, n_slots, x);
                for (size_t i = 0; i < n_vectors; i++)
                        v[i] = v_add(v[i], v_join(stage, x + i * n, n_slots));
        }
        for (size_t i = 0; i < n_vectors && i * LANES < n_values; i++, at += LANES) {
                size_t n_left = n_values - i * LANES;

                __builtin_prefetch(ret_values + at + STORE_AHEAD, 1);
                v_store(ret_values + at, n_left, finish_values(finish, kind, at, n_left, v[i]));
        }
}

/* The whole units of sub-vectors [first, end), which share codebooks; returns how far it came. */
static _always_inline size_t decode_units(const struct large_row *row, enum finish_kind kind,
                                          const uint16_t *codebook, size_t n_slots, size_t n_stages,
                                          size_t first, size_t end, float *ret_values) {
        const struct large_row q = *row; /* copies, which no store can change */
        const struct finish f = *row->finish;

        for (; first + UNIT <= end; first += UNIT)
                decode_unit(&q, &f, kind, codebook, NULL, n_slots, n_stages, first, UNIT * n_slots,
                            ret_values);
        return first;
}

typedef size_t decode_units_fn(const struct large_row *q, const uint16_t *codebook, size_t first,
                               size_t end, float *ret_values);

/* With slots, stages and finish known to the compiler, a unit is straight code; and in a function
 * of its own it has the registers to itself. */
#define UNITS(name, slots, stages, kind)                                                           \
        static __attribute__((noinline)) size_t name(const struct large_row *q,                    \
                                                     const uint16_t *codebook, size_t first,       \
                                                     size_t end, float *ret_values) {              \
                return decode_units(q, kind, codebook, slots, stages, first, end, ret_values);     \
        }
#define UNITS_OF_STAGES(slots, stages, n_stages)                                                   \
        UNITS(units_##slots##_##stages##_none, slots, n_stages, FINISH_NONE)                       \
        UNITS(units_##slots##_##stages##_columns, slots, n_stages, FINISH_COLUMNS)                 \
        UNITS(units_##slots##_##stages##_linear, slots, n_stages, FINISH_LINEAR)
#define UNITS_OF_SLOTS(slots)                                                                      \
        UNITS_OF_STAGES(slots, 1, 1)                                                               \
        UNITS_OF_STAGES(slots, 2, 2)                                                               \
        UNITS_OF_STAGES(slots, 3, 3)                                                               \
        UNITS_OF_STAGES(slots, n, q->n_stages)                                                     \
                                                                                                   \
        static decode_units_fn *const units_##slots[4][3] = {                                      \
                { units_##slots##_1_none, units_##slots##_1_columns, units_##slots##_1_linear },   \
                { units_##slots##_2_none, units_##slots##_2_columns, units_##slots##_2_linear },   \
                { units_##slots##_3_none, units_##slots##_3_columns, units_##slots##_3_linear },   \
                { units_##slots##_n_none, units_##slots##_n_columns, units_##slots##_n_linear },   \
        };

UNITS_OF_SLOTS(2)
UNITS_OF_SLOTS(4)
#if LANES >= 8
UNITS_OF_SLOTS(8)
#endif
#if LANES >= 16
UNITS_OF_SLOTS(16)
#endif

/* What is left of a run, less than a unit, or a whole row of many small groups; the last sub-vector
 * may be cut. */
static _always_inline void decode_rest(const struct large_row *q, const uint16_t *codebook,
                                       size_t n_slots, size_t first, size_t end,
                                       float *ret_values) {
        struct walk walk = { .n_left = q->group_cols - first % q->group_cols };
        size_t n_values = MIN(end * n_slots, q->n_dims);

        for (; first < end; first += UNIT) {
                size_t groups[UNIT];

                next_groups(q, &walk, first, groups);
                decode_unit(q, q->finish, q->finish->kind, codebook, groups, n_slots, q->n_stages,
                            first, MIN(UNIT * n_slots, n_values - first * n_slots), ret_values);
        }
}

static _always_inline void decode_joined(const struct large_row *q, size_t n_slots,
                                         decode_units_fn *const units[4][3], float *ret_values) {
        decode_units_fn *decode_whole = units[MIN(q->n_stages, 4u) - 1][q->finish->kind];
        const uint16_t *codebook = q->codebooks;

        if (q->group_cols < UNIT) {
                decode_rest(q, codebook, n_slots, 0, q->n_subvectors, ret_values);
                return;
        }
        for (size_t j = 0; j < q->n_subvectors; j += q->group_cols, codebook += q->group_halves) {
                size_t end = MIN(j + q->group_cols, q->n_subvectors), first = j;
                size_t whole = MIN(end, q->n_dims / n_slots);

                first = decode_whole(q, codebook, first, whole, ret_values);
                decode_rest(q, codebook, n_slots, first, end, ret_values);
        }
}

/* ---- A multiple of LANES ---- */

static void decode_long(const struct large_row *row, float *ret_values) {
        const struct large_row q = *row; /* copies, which no store can change */
        struct walk walk = { .n_left = q.group_cols };

        for (size_t first = 0; first < q.n_subvectors; first += UNIT) {
                size_t groups[UNIT], x[TABLE_STAGES_MAX][UNIT];
                size_t at = first * q.n_slots, end = MIN(at + UNIT * q.n_slots, q.n_dims);

                next_groups(&q, &walk, first, groups);
                for (size_t s = 0; s < q.n_stages; s++)
                        choose(&q, q.codes + s * q.stage_bytes, first * q.code_bits, groups,
                               q.n_slots, x[s]);
                for (size_t i = 0, slot = 0; at < end; at += LANES) {
                        const uint16_t *stage = q.codebooks + slot;
                        vector v = v_load_halves(stage + x[0][i], LANES);

                        for (size_t s = 1; s < q.n_stages; s++) {
                                stage += q.stage_halves;
                                v = v_add(v, v_load_halves(stage + x[s][i], LANES));
                        }
                        __builtin_prefetch(ret_values + at + STORE_AHEAD, 1);
                        v_store(ret_values + at, end - at,
                                finish_values(q.finish, q.finish->kind, at, end - at, v));
                        slot += LANES;
                        if (slot == q.n_slots) {
                                slot = 0;
                                i++;
                        }
                }
        }
}

/* ---- Any other number of slots ---- */

/* Halves that are side by side at a time: of a unit with all stages and slots there may be. Of more
 * than one unit as a rule, so that they are in the cache by the time that they are loaded again: a
 * load cannot be served from two stores that are still under way. */
#define COPIED_HALVES (UNIT * TABLE_STAGES_MAX * TABLE_SUBVECTOR_DIMS_MAX)
#define COPIED_UNITS  8u

/* Two copies of `width` halves, which overlap where there are less than two of them. */
static _always_inline void copy_centroid(const uint16_t *from, size_t n_slots, size_t width,
                                         uint16_t *to) {
        memcpy(to, from, width * sizeof(*to));
        memcpy(to + n_slots - width, from + n_slots - width, width * sizeof(*to));
}

/* The sums of what has been copied: `stride` from one stage to the next. */
static _always_inline void sum_copied(const struct large_row *q, const uint16_t *halves,
                                      size_t stride, size_t at, size_t n_values,
                                      float *ret_values) {
        for (size_t i = 0; i < n_values; i += LANES) {
                vector v = v_load_halves(halves + i, LANES);

                for (size_t s = 1; s < q->n_stages; s++)
                        v = v_add(v, v_load_halves(halves + s * stride + i, LANES));
                __builtin_prefetch(ret_values + at + i + STORE_AHEAD, 1);
                v_store(ret_values + at + i, n_values - i,
                        finish_values(q->finish, q->finish->kind, at + i, n_values - i, v));
        }
}

static _always_inline void decode_copied(const struct large_row *row, size_t width,
                                         float *ret_values) {
        const struct large_row q = *row; /* copies, which no store can change */
        const size_t unit_halves = UNIT * q.n_slots;
        const size_t n_units = MIN(COPIED_HALVES / (unit_halves * q.n_stages), COPIED_UNITS);
        const size_t stride = n_units * unit_halves;
        uint16_t halves[COPIED_HALVES + LANES]; /* the last vector may end behind them */
        struct walk walk = { .n_left = q.group_cols };
        size_t at = 0;

        for (size_t first = 0; first < q.n_subvectors; at += stride) {
                size_t end = MIN(first + n_units * UNIT, q.n_subvectors);

                for (uint16_t *to = halves; first < end; first += UNIT, to += unit_halves) {
                        size_t groups[UNIT], x[UNIT];

                        next_groups(&q, &walk, first, groups);
                        for (size_t s = 0; s < q.n_stages; s++) {
                                choose(&q, q.codes + s * q.stage_bytes, first * q.code_bits, groups,
                                       q.n_slots, x);
                                for (size_t i = 0; i < UNIT; i++)
                                        copy_centroid(q.codebooks + s * q.stage_halves + x[i],
                                                      q.n_slots, width,
                                                      to + s * stride + i * q.n_slots);
                        }
                }
                sum_copied(&q, halves, stride, at, MIN(stride, q.n_dims - at), ret_values);
        }
}

/* ---- A row ---- */

/* A short ring, unrolled: windows that begin in its first round never reach the end. */
static _always_inline void unroll_ring(struct large_row *q, uint8_t buffer[2 * RING_BYTES]) {
        size_t n = q->stage_bytes;

        memcpy(buffer, q->codes, n);
        for (size_t i = 0; i < RING_BYTES; i++)
                buffer[n + i] = buffer[i];
        q->codes = buffer;
        q->stage_bytes += RING_BYTES;
}

/* FORMAT.md, decoding steps 1 to 3, of a record of at least one stage. */
static void decode_large(const struct codec_table *table, const struct codec_record *record,
                         const struct finish *finish, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        uint8_t buffer[2 * RING_BYTES];
        struct large_row q = {
                .codes = record->bytes + l->codes_offset,
                .codebooks = codec_row_codebooks(table, record->row),
                .stage_bytes = record->stage_bytes,
                .code_bits = record->code_bits,
                .window_mask = (1u << h->window_bits) - 1,
                .n_slots = h->subvector_dims,
                .n_stages = record->n_stages,
                .n_dims = h->n_dims,
                .n_subvectors = l->n_subvectors,
                .group_cols = h->group_cols,
                .stage_halves = (size_t)h->subvector_dims << h->window_bits,
                .group_halves = l->group_bytes / sizeof(uint16_t),
                .finish = finish,
        };

        if (q.n_stages == 1 && q.stage_bytes < RING_BYTES)
                unroll_ring(&q, buffer);
        if (q.n_slots == 2)
                decode_joined(&q, 2, units_2, ret_values);
        else if (q.n_slots == 4)
                decode_joined(&q, 4, units_4, ret_values);
#if LANES >= 8
        else if (q.n_slots == 8)
                decode_joined(&q, 8, units_8, ret_values);
#endif
#if LANES >= 16
        else if (q.n_slots == 16)
                decode_joined(&q, 16, units_16, ret_values);
#endif
        else if (q.n_slots % LANES == 0)
                decode_long(&q, ret_values);
        else if (q.n_slots == 1)
                decode_copied(&q, 1, ret_values);
        else if (q.n_slots < 4)
                decode_copied(&q, 2, ret_values);
        else if (q.n_slots < 8)
                decode_copied(&q, 4, ret_values);
        else if (q.n_slots < 16)
                decode_copied(&q, 8, ret_values);
        else if (q.n_slots < 32)
                decode_copied(&q, 16, ret_values);
        else
                decode_copied(&q, 32, ret_values);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large codebooks: a sub-vector's centroid is chosen by a window over its stage's codes, and its
 * values are neighbours in memory (FORMAT.md, "Windows", "Codebooks"). Eight sub-vectors are
 * decoded together: their windows are cut from two words of codes, the centroids of as many as fill
 * a register are put side by side and converted, and the stages' sum is stored as it is. Byte-equal
 * to decode-scalar.c. Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "avx512.h"

/* Sub-vectors decoded together: their codes are a whole number of bytes. */
#define UNIT 8u

/* Output this many floats on is prefetched: a batch's output is larger than L1, and a store that
 * misses holds up those behind it. */
#define STORE_AHEAD 512u

/* What does not change within a row. */
struct row {
        const uint8_t *codes; /* stage 0 */
        size_t stage_bytes, code_bits, window_mask;
        size_t n_slots, n_stages, n_dims, group_cols, stage_halves, group_halves;
        const struct finish *finish;
};

/* ---- Windows ---- */

/* Four windows from bit `shift` of a word on, which is at most 11: with the other three codes and a
 * window that makes 63 bits. */
static _always_inline void cut_four(const struct row *q, uint64_t word, size_t shift,
                                    size_t ret_centroids[4]) {
        word >>= shift;
        for (size_t i = 0; i < 4; i++)
                ret_centroids[i] = word >> i * q->code_bits & q->window_mask;
}

/* The sixteen bytes of a stage from byte `at` on, which go around its end. */
static _always_inline void go_around(const struct row *q, const uint8_t *codes, size_t at,
                                     uint8_t ret_bytes[16]) {
        size_t n_left = q->stage_bytes - at;

        if (__builtin_expect(q->stage_bytes < 16, 0)) {
                for (size_t i = 0; i < 16; i++)
                        ret_bytes[i] = codes[(at + i) % q->stage_bytes];
                return;
        }
        __mmask16 left = (__mmask16)((1u << n_left) - 1);
        __m128i rest = _mm_maskz_loadu_epi8(left, codes + at);

        /* Bytes 0, 1 ... at place n_left, n_left + 1 ... : loaded from where place 0 would be. */
        rest = _mm_mask_loadu_epi8(rest, (__mmask16)~left, codes - n_left);
        _mm_storeu_si128((void *)ret_bytes, rest);
}

/* Where in a stage's codebook the centroids of a unit are that begins at bit `bit`. */
static _always_inline void choose(const struct row *q, const uint8_t *codes, size_t bit,
                                  const size_t *groups, size_t n_slots, size_t ret_x[UNIT]) {
        size_t at = bit / 8, half = q->code_bits / 2;
        uint64_t low, high;
        uint8_t rest[16];

        if (__builtin_expect(q->stage_bytes - at < sizeof(rest), 0)) {
                go_around(q, codes, at, rest);
                codes = rest;
        } else {
                codes += at;
        }
        memcpy(&low, codes, sizeof(low));
        memcpy(&high, codes + half, sizeof(high)); /* 4 codes on, less half a byte if k is odd */
        cut_four(q, low, bit % 8, ret_x);
        cut_four(q, high, bit % 8 + q->code_bits % 2 * 4, ret_x + 4);
        for (size_t i = 0; i < UNIT; i++)
                ret_x[i] = ret_x[i] * n_slots + (groups ? groups[i] : 0);
}

/* The one that begins at bit `bit`. */
static _always_inline size_t choose_one(const struct row *q, const uint8_t *codes, size_t bit) {
        size_t at = bit / 8, n_left = q->stage_bytes - at;
        uint32_t word;

        if (__builtin_expect(n_left < sizeof(word), 0))
                return codec_load_bits(codes, q->stage_bytes, bit,
                                       (uint32_t)__builtin_popcountl(q->window_mask));
        memcpy(&word, codes + at, sizeof(word));
        return word >> bit % 8 & q->window_mask;
}

/* ---- Centroids ---- */

static _always_inline __m128i load_4(const uint16_t *halves) {
        return _mm_loadu_si64(halves);
}

static _always_inline __m128i load_8(const uint16_t *halves) {
        return _mm_loadu_si128((const void *)halves);
}

/* Those of 16 / n_slots sub-vectors. They are put together by broadcasts under masks, which, unlike
 * insertions, do not take the port of the conversions. */
static _always_inline __m512 look_up(const uint16_t *codebook, const size_t *x, size_t n_slots) {
        __m256i v;

        switch (n_slots) {
        case 2:
                v = _mm256_castsi128_si256(_mm_loadu_si32(codebook + x[0]));
                for (size_t i = 1; i < 8; i++)
                        v = _mm256_mask_broadcastd_epi32(v, (__mmask8)(1u << i),
                                                         _mm_loadu_si32(codebook + x[i]));
                break;
        case 4:
                v = _mm256_castsi128_si256(load_4(codebook + x[0]));
                for (size_t i = 1; i < 4; i++)
                        v = _mm256_mask_broadcastq_epi64(v, (__mmask8)(1u << i),
                                                         load_4(codebook + x[i]));
                break;
        case 8:
                v = _mm256_castsi128_si256(load_8(codebook + x[0]));
                v = _mm256_mask_broadcast_i64x2(v, 0xc, load_8(codebook + x[1]));
                break;
        default:
                v = _mm256_loadu_si256((const void *)(codebook + x[0]));
        }
        return _mm512_cvtph_ps(v);
}

/* ---- Units ---- */

static _always_inline void store(const struct finish *finish, __mmask16 mask, size_t at, __m512 v,
                                 float *ret_values) {
        if (finish)
                v = finish_columns(finish, mask, at, _mm512_mul_ps(v, finish->scale));
        if (mask == 0xffff)
                _mm512_storeu_ps(ret_values + at, v);
        else
                _mm512_mask_storeu_ps(ret_values + at, mask, v);
}

/*
 * The first `n_values` of a unit. What a window past the end chooses is a centroid like any other,
 * and is not stored. `groups`, if not NULL, says where each sub-vector's codebooks are.
 */
static _always_inline void decode_unit(const struct row *q, const struct finish *finish,
                                       const uint16_t *codebook, const size_t *groups,
                                       size_t n_slots, size_t n_stages, size_t first,
                                       size_t n_values, float *ret_values) {
        const size_t n = LANES / n_slots, n_vectors = UNIT / n, bit = first * q->code_bits;
        size_t x[UNIT], at = first * n_slots;
        __m512 v[UNIT];

        choose(q, q->codes, bit, groups, n_slots, x);
        for (size_t i = 0; i < n_vectors; i++)
                v[i] = i * LANES < n_values ? look_up(codebook, x + i * n, n_slots)
                                            : _mm512_setzero_ps();
        for (size_t s = 1; s < n_stages; s++) {
                const uint16_t *stage = codebook + s * q->stage_halves;

                choose(q, q->codes + s * q->stage_bytes, bit, groups, n_slots, x);
                for (size_t i = 0; i < n_vectors && i * LANES < n_values; i++)
                        v[i] = _mm512_add_ps(v[i], look_up(stage, x + i * n, n_slots));
        }
        for (size_t i = 0; i < n_vectors && i * LANES < n_values; i++, at += LANES) {
                if (!finish)
                        __builtin_prefetch(ret_values + at + STORE_AHEAD, 1);
                store(finish, lanes(n_values - i * LANES), at, v[i], ret_values);
        }
}

/* The whole units of sub-vectors [first, end), which share codebooks; returns how far it came. */
static _always_inline size_t decode_units(const struct row *row, const struct finish *finish,
                                          const uint16_t *codebook, size_t n_slots, size_t n_stages,
                                          size_t first, size_t end, float *ret_values) {
        const struct row q = *row; /* copies, which no store can change */
        const struct finish f = finish ? *finish : (struct finish){ 0 };

        for (; first + UNIT <= end; first += UNIT)
                decode_unit(&q, finish ? &f : NULL, codebook, NULL, n_slots, n_stages, first,
                            UNIT * n_slots, ret_values);
        return first;
}

/* A function for each shape: with slots and stages known to the compiler, a unit is straight code
 * that keeps all in registers. */
typedef size_t units_fn(const struct row *q, const uint16_t *codebook, size_t first, size_t end,
                        float *ret_values);

#define UNITS(slots, stages)                                                                       \
        static size_t plain_##slots##_##stages(const struct row *q, const uint16_t *codebook,      \
                                               size_t first, size_t end, float *ret_values) {      \
                return decode_units(q, NULL, codebook, slots, stages ? stages : q->n_stages,       \
                                    first, end, ret_values);                                       \
        }                                                                                          \
        static size_t finish_##slots##_##stages(const struct row *q, const uint16_t *codebook,     \
                                                size_t first, size_t end, float *ret_values) {     \
                return decode_units(q, q->finish, codebook, slots, stages ? stages : q->n_stages,  \
                                    first, end, ret_values);                                       \
        }

/* What is left of a run, less than a unit, or a whole row of many small groups; the last sub-vector
 * may be cut. */
typedef void rest_fn(const struct row *q, const uint16_t *codebook, size_t first, size_t end,
                     float *ret_values);

static _always_inline void decode_rest(const struct row *q, const uint16_t *codebook,
                                       size_t n_slots, size_t first, size_t end,
                                       float *ret_values) {
        size_t n_left = q->group_cols - first % q->group_cols, group = 0, groups[UNIT];

        for (; first < end; first += UNIT) {
                for (size_t i = 0; i < UNIT; i++) {
                        groups[i] = group;
                        if (first + i + 1 < end && --n_left == 0) {
                                group += q->group_halves;
                                n_left = q->group_cols;
                        }
                }
                decode_unit(q, q->finish, codebook, groups, n_slots, q->n_stages, first,
                            MIN((first + UNIT) * n_slots, q->n_dims) - first * n_slots, ret_values);
        }
}

#define SLOTS(slots)                                                                               \
        UNITS(slots, 0)                                                                            \
        UNITS(slots, 1)                                                                            \
        UNITS(slots, 2)                                                                            \
        UNITS(slots, 3)                                                                            \
        static void rest_##slots(const struct row *q, const uint16_t *codebook, size_t first,      \
                                 size_t end, float *ret_values) {                                  \
                decode_rest(q, codebook, slots, first, end, ret_values);                           \
        }

SLOTS(2)
SLOTS(4)
SLOTS(8)
SLOTS(16)

static const struct shape {
        size_t n_slots;
        units_fn *plain[4], *finish[4]; /* [n_stages]; [0]: more than 3 */
        rest_fn *rest;
} shapes[] = {
#define SHAPE(slots)                                                                               \
        {                                                                                          \
                slots,                                                                             \
                        { plain_##slots##_0, plain_##slots##_1, plain_##slots##_2,                 \
                          plain_##slots##_3 },                                                     \
                        { finish_##slots##_0, finish_##slots##_1, finish_##slots##_2,              \
                          finish_##slots##_3 },                                                    \
                        rest_##slots                                                               \
        }
        SHAPE(2), SHAPE(4), SHAPE(8), SHAPE(16)
};

/* ---- One sub-vector of any number of slots, cut or not ---- */

static void decode_one(const struct row *q, const uint16_t *codebook, size_t j, float *ret_values) {
        size_t at = j * q->n_slots, n = MIN(q->n_dims - at, q->n_slots), bit = j * q->code_bits;

        for (size_t slot = 0; slot < n; slot += LANES) {
                const uint16_t *stage = codebook + slot;
                const uint8_t *codes = q->codes;
                __mmask16 mask = lanes(n - slot);
                __m512 v = load_halves(stage + choose_one(q, codes, bit) * q->n_slots, mask);

                for (size_t s = 1; s < q->n_stages; s++) {
                        stage += q->stage_halves;
                        codes += q->stage_bytes;
                        v = _mm512_add_ps(
                                v,
                                load_halves(stage + choose_one(q, codes, bit) * q->n_slots, mask));
                }
                store(q->finish, mask, at + slot, v, ret_values);
        }
}

/* ---- A row ---- */

/* Sub-vectors [first, end), which share codebooks; only the last of all may be cut. */
static void decode_run(const struct row *q, const struct shape *shape, const uint16_t *codebook,
                       size_t first, size_t end, float *ret_values) {
        size_t whole = MIN(end, q->n_dims / q->n_slots);
        size_t n_stages = q->n_stages < ARRAY_SIZE(shape->plain) ? q->n_stages : 0;

        if (shape) {
                units_fn *units = (q->finish ? shape->finish : shape->plain)[n_stages];

                first = units(q, codebook, first, whole, ret_values);
                if (first < end)
                        shape->rest(q, codebook, first, end, ret_values);
                return;
        }
        for (; first < end; first++)
                decode_one(q, codebook, first, ret_values);
}

void codec_avx512_large(const struct codec_table *table, const struct codec_record *record,
                        const struct finish *finish, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        const uint16_t *codebook = codec_row_codebooks(table, record->row);
        const struct row q = {
                .codes = record->bytes + l->codes_offset,
                .stage_bytes = record->stage_bytes,
                .code_bits = record->code_bits,
                .window_mask = (1u << h->window_bits) - 1,
                .n_slots = h->subvector_dims,
                .n_stages = record->n_stages,
                .n_dims = h->n_dims,
                .group_cols = h->group_cols,
                .stage_halves = (size_t)h->subvector_dims << h->window_bits,
                .group_halves = l->group_bytes / sizeof(uint16_t),
                .finish = finish,
        };
        const struct shape *shape = NULL;

        for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
                if (shapes[i].n_slots == q.n_slots)
                        shape = &shapes[i];
        if (shape && q.group_cols < UNIT) {
                shape->rest(&q, codebook, 0, l->n_subvectors, ret_values);
                return;
        }
        for (size_t j = 0; j < l->n_subvectors; j += q.group_cols, codebook += q.group_halves)
                decode_run(&q, shape, codebook, j, MIN(j + q.group_cols, l->n_subvectors),
                           ret_values);
}

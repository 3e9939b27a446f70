/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for codes. Greedy coding stage by stage loses a fifth of the accuracy that the same
 * codebooks allow, so several prefixes are kept from stage to stage (beam search; Chen, Guan, Wang
 * 2010 call it joint coding). Where the width is no less than the number of prefixes, none is
 * dropped and the result is the best there is.
 *
 * |x - sum c_l|^2 = |x|^2 + sum (|c_l|^2 - 2 <x, c_l>) + sum 2 <c_a, c_b>: after the inner products
 * with x, a candidate costs additions of table entries only, sixteen candidates at a time.
 */
#include "rvq.h"

#include <float.h>
#include <string.h>

#include "lanes.h"

/* ---- Tables ---- */

static float *entry_row(const struct rvq_search *s, uint32_t stage, uint32_t slot) {
        return s->entries + ((size_t)stage * s->n_slots + slot) * s->n_lanes;
}

/* Of stages a < b: what each entry of a adds to the cost of all entries of b. */
static float *cross_rows(const struct rvq_search *s, uint32_t a, uint32_t b) {
        size_t pair = (size_t)b * (b - 1) / 2 + a;

        return s->cross + (pair << s->shape.codebook_bits) * s->n_lanes;
}

_simd_clones_ static void fill_cross(struct rvq_search *s, uint32_t a, uint32_t b) {
        uint32_t n_entries = 1u << s->shape.codebook_bits;
        float *row = cross_rows(s, a, b);

        for (uint32_t i = 0; i < n_entries; i++, row += s->n_lanes)
                for (uint32_t c = 0; c < s->n_lanes; c += LANES) {
                        lanes_f32 sum = { 0 };

                        for (uint32_t d = 0; d < s->n_slots; d++)
                                sum += *(const lanes_f32 *)(entry_row(s, b, d) + c) *
                                       entry_row(s, a, d)[i];
                        *(lanes_f32 *)(row + c) = 2 * sum;
                }
}

static void fill_norms(struct rvq_search *s, uint32_t stage) {
        for (uint32_t i = 0; i < s->n_lanes; i++) {
                double sum = 0;

                for (uint32_t d = 0; d < s->n_slots; d++)
                        sum += (double)entry_row(s, stage, d)[i] * entry_row(s, stage, d)[i];
                s->norms[stage * s->n_lanes + i] =
                        i >> s->shape.codebook_bits ? FLT_MAX / 4 : (float)sum;
        }
}

static size_t n_pairs(const struct rvq_shape *shape) {
        return (size_t)shape->n_stages * (shape->n_stages - 1) / 2;
}

/* Never more than there are prefixes; and all of them where they are few and nobody objects. */
static uint32_t choose_width(const struct rvq_shape *shape, uint32_t width) {
        uint32_t bits = shape->codebook_bits * (shape->n_stages - 1);

        if (width == 0 && bits + shape->codebook_bits <= RVQ_EXHAUSTIVE_BITS)
                return 1u << bits;
        width = width ? width : RVQ_WIDTH_DEFAULT;
        return bits < 31 ? MIN(width, 1u << bits) : width;
}

uint64_t rvq_search_bytes(const struct rvq_shape *shape, uint32_t n_slots) {
        uint64_t n_entries = 1u << shape->codebook_bits, n_lanes = align_up(n_entries, LANES);

        return sizeof(float) * n_lanes *
               ((uint64_t)shape->n_stages * (n_slots + 1) + n_pairs(shape) * n_entries);
}

int rvq_search_init(struct rvq_search *search, const struct rvq_shape *shape,
                    const float *codebooks, uint32_t n_slots, uint32_t width) {
        uint32_t n_entries = 1u << shape->codebook_bits;
        struct rvq_search s = {
                .shape = *shape,
                .n_slots = n_slots,
                .n_lanes = (uint32_t)align_up(n_entries, LANES),
                .width = choose_width(shape, width),
        };
        size_t n_stages = shape->n_stages;

        s.entries = calloc(n_stages * n_slots * s.n_lanes, sizeof(float));
        s.norms = calloc(n_stages * s.n_lanes, sizeof(float));
        s.cross = calloc(MAX(n_pairs(shape), 1u) * n_entries * s.n_lanes, sizeof(float));
        if (!s.entries || !s.norms || !s.cross) {
                rvq_search_deinit(&s);
                return -ENOMEM;
        }
        for (uint32_t l = 0; l < n_stages; l++) {
                for (uint32_t d = 0; d < n_slots; d++)
                        memcpy(entry_row(&s, l, d),
                               codebooks + ((size_t)l * shape->subvector_dims + d) * n_entries,
                               n_entries * sizeof(float));
                fill_norms(&s, l);
                for (uint32_t a = 0; a < l; a++)
                        fill_cross(&s, a, l);
        }
        *search = s;
        return 0;
}

void rvq_search_deinit(struct rvq_search *search) {
        free(search->entries);
        free(search->norms);
        free(search->cross);
        *search = (struct rvq_search){ 0 };
}

int rvq_scratch_init(struct rvq_scratch *scratch, const struct rvq_search *search) {
        size_t width = search->width, n_stages = search->shape.n_stages;
        struct rvq_scratch s = {
                .products = malloc(n_stages * search->n_lanes * sizeof(float)),
                .keys = malloc(width * sizeof(uint64_t)),
                .costs = { malloc(width * sizeof(float)), malloc(width * sizeof(float)) },
                .codes = { malloc(width * n_stages), malloc(width * n_stages) },
        };

        if (!s.products || !s.keys || !s.costs[0] || !s.costs[1] || !s.codes[0] || !s.codes[1]) {
                rvq_scratch_deinit(&s);
                return -ENOMEM;
        }
        *scratch = s;
        return 0;
}

void rvq_scratch_deinit(struct rvq_scratch *scratch) {
        free(scratch->products);
        free(scratch->keys);
        for (int i = 0; i < 2; i++) {
                free(scratch->costs[i]);
                free(scratch->codes[i]);
        }
        *scratch = (struct rvq_scratch){ 0 };
}

/* ---- Candidates ---- */

/* products[l][c] = |c|^2 - 2 <x, c>, four vectors at a time so that their sums overlap. */
_simd_clones_ static void score_entries(const struct rvq_search *s, const float *values,
                                        uint32_t n_stages, float *ret_products) {
        uint32_t n = s->n_lanes, step = n % (4 * LANES) ? 1 : 4;

        for (uint32_t l = 0; l < n_stages; l++)
                for (uint32_t c = 0; c < n; c += step * LANES) {
                        const float *entries = s->entries + (size_t)l * s->n_slots * n + c;
                        const float *norms = s->norms + l * n + c;
                        lanes_f32 sums[4] = { 0 };

                        if (step == 4)
                                for (uint32_t d = 0; d < s->n_slots; d++, entries += n)
                                        for (uint32_t v = 0; v < 4; v++)
                                                sums[v] +=
                                                        *(const lanes_f32 *)(entries + v * LANES) *
                                                        values[d];
                        else
                                for (uint32_t d = 0; d < s->n_slots; d++, entries += n)
                                        sums[0] += *(const lanes_f32 *)entries * values[d];
                        for (uint32_t v = 0; v < step; v++)
                                *(lanes_f32 *)(ret_products + l * n + c + v * LANES) =
                                        *(const lanes_f32 *)(norms + v * LANES) - 2 * sums[v];
                }
}

typedef uint64_t lanes_u64 __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* Whether a lane is below zero. By sign bits: compilers take vectors of comparisons apart. */
static inline bool any_negative(const lanes_i32 *lanes) {
        lanes_u64 words = (lanes_u64)*lanes;
        uint64_t sum = ((words[0] | words[1]) | (words[2] | words[3])) |
                       ((words[4] | words[5]) | (words[6] | words[7]));

        return sum & UINT64_C(0x8000000080000000);
}

/* Orders by cost, then by index: no two are equal, so the choice is the same everywhere. */
static uint64_t candidate_key(float cost, uint32_t index) {
        int32_t bits;

        memcpy(&bits, &cost, sizeof(bits));
        return (uint64_t)((uint32_t)bits ^ ((uint32_t)(bits >> 31) | 0x80000000u)) << 32 | index;
}

static float key_cost(uint64_t key) {
        uint32_t ordered = (uint32_t)(key >> 32), bits;
        float cost;

        bits = ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered;
        memcpy(&cost, &bits, sizeof(cost));
        return cost;
}

/*
 * The lowest keys seen so far, ascending. A candidate that costs `limit` or more is none of them.
 * Where all candidates will be kept they stay as they come.
 */
struct selection {
        uint64_t *keys;
        size_t n, n_max;
        bool all;
        float limit;
};

/* Few come this far: insertion into a short list beats anything that is cleverer later. */
static void selection_insert(struct selection *selection, uint64_t key) {
        size_t at = selection->n < selection->n_max ? selection->n++ : selection->n - 1;

        if (selection->all) {
                selection->keys[at] = key;
                return;
        }
        for (; at > 0 && selection->keys[at - 1] > key; at--)
                selection->keys[at] = selection->keys[at - 1];
        selection->keys[at] = key;
        if (selection->n == selection->n_max)
                selection->limit = key_cost(selection->keys[selection->n - 1]);
}

static inline void selection_add(struct selection *selection, const lanes_f32 *lanes,
                                 uint32_t index) {
        const lanes_i32 below = (lanes_i32)(*lanes - selection->limit);
        float costs[LANES];

        if (!any_negative(&below))
                return;
        memcpy(costs, lanes, sizeof(costs));
        for (uint32_t e = 0; e < LANES; e++)
                if (costs[e] < selection->limit)
                        selection_insert(selection, candidate_key(costs[e], index + e));
}

/* All continuations of every kept prefix by one more stage. */
_simd_clones_ static void score_stage(const struct rvq_search *s, uint32_t stage,
                                      const struct rvq_scratch *scratch, int from, uint32_t n_kept,
                                      struct selection *selection) {
        const float *products = scratch->products + (size_t)stage * s->n_lanes;
        uint32_t bits = s->shape.codebook_bits, n_step = s->n_lanes % (4 * LANES) ? 1 : 4;

        for (uint32_t i = 0; i < n_kept; i++) {
                const uint8_t *codes = scratch->codes[from] + (size_t)i * s->shape.n_stages;
                const float *rows[TABLE_STAGES_MAX];
                float cost = scratch->costs[from][i];

#pragma GCC unroll 1
                for (uint32_t a = 0; a < stage; a++)
                        rows[a] = cross_rows(s, a, stage) + (size_t)codes[a] * s->n_lanes;
                for (uint32_t c = 0; c < s->n_lanes; c += n_step * LANES) {
                        const lanes_f32 *base = (const lanes_f32 *)(products + c);
                        lanes_f32 costs[4];

                        if (n_step == 1) {
                                costs[0] = base[0] + cost;
                                for (uint32_t a = 0; a < stage; a++)
                                        costs[0] += *(const lanes_f32 *)(rows[a] + c);
                                selection_add(selection, &costs[0], (i << bits) + c);
                                continue;
                        }
                        lanes_f32 c0 = base[0] + cost, c1 = base[1] + cost, c2 = base[2] + cost,
                                  c3 = base[3] + cost;
#pragma GCC unroll 1
                        for (uint32_t a = 0; a < stage; a++) {
                                const lanes_f32 *row = (const lanes_f32 *)(rows[a] + c);

                                c0 += row[0];
                                c1 += row[1];
                                c2 += row[2];
                                c3 += row[3];
                        }
                        lanes_f32 limit = (lanes_f32){ 0 } + selection->limit;
                        lanes_i32 below = (lanes_i32)(c0 - limit) | (lanes_i32)(c1 - limit) |
                                          (lanes_i32)(c2 - limit) | (lanes_i32)(c3 - limit);
                        if (!any_negative(&below))
                                continue;
                        costs[0] = c0, costs[1] = c1, costs[2] = c2, costs[3] = c3;
                        for (uint32_t v = 0; v < 4; v++)
                                selection_add(selection, &costs[v], (i << bits) + c + v * LANES);
                }
        }
}

/* Candidates become prefixes, the cheapest first: it sets a low limit for the next stage. */
static uint32_t keep(const struct rvq_search *s, struct rvq_scratch *scratch, uint32_t stage,
                     int from, const struct selection *selection) {
        uint32_t bits = s->shape.codebook_bits, n_stages = s->shape.n_stages;

        for (size_t i = 0; i < selection->n; i++) {
                uint32_t index = (uint32_t)selection->keys[i];
                uint8_t *codes = scratch->codes[!from] + i * n_stages;

                memcpy(codes, scratch->codes[from] + (size_t)(index >> bits) * n_stages, stage);
                codes[stage] = (uint8_t)(index & ((1u << bits) - 1));
                scratch->costs[!from][i] = key_cost(selection->keys[i]);
        }
        return (uint32_t)selection->n;
}

float rvq_search_encode(const struct rvq_search *s, struct rvq_scratch *scratch,
                        const float *values, uint32_t n_stages, uint8_t *ret_codes) {
        uint32_t n_kept = 1;
        float norm = 0;
        int from = 0;

        for (uint32_t d = 0; d < s->n_slots; d++)
                norm += values[d] * values[d];
        score_entries(s, values, n_stages, scratch->products);
        scratch->costs[from][0] = 0;
        for (uint32_t l = 0; l < n_stages; l++, from = !from) {
                struct selection selection = {
                        .keys = scratch->keys,
                        .n_max = l + 1 < n_stages ? s->width : 1,
                        .all = (n_kept << s->shape.codebook_bits) <= s->width && l + 1 < n_stages,
                        .limit = FLT_MAX / 8,
                };

                score_stage(s, l, scratch, from, n_kept, &selection);
                n_kept = keep(s, scratch, l, from, &selection);
        }
        memcpy(ret_codes, scratch->codes[from], n_stages);
        return n_stages ? MAX(norm + scratch->costs[from][0], 0.f) : norm;
}

void rvq_decode(const struct rvq_shape *shape, const float *codebooks, uint32_t n_slots,
                uint32_t n_stages, const uint8_t *codes, float *ret_values) {
        size_t n_stage = (size_t)shape->subvector_dims << shape->codebook_bits;

        for (uint32_t d = 0; d < n_slots; d++) {
                const float *entries = codebooks + ((size_t)d << shape->codebook_bits);
                float value = 0;

                for (uint32_t l = 0; l < n_stages; l++)
                        value = l ? value + entries[l * n_stage + codes[l]] : entries[codes[0]];
                ret_values[d] = value;
        }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for codes. Greedy coding stage by stage loses a fifth of the accuracy that the same
 * codebooks allow, so several prefixes are kept (beam search; Chen, Guan, Wang 2010 call it joint
 * coding). Where all stages but the last have at most RVQ_WIDTH_EXHAUSTIVE combinations, none is
 * dropped and the result is the best there is.
 *
 * |x - sum c_l|^2 = |x|^2 + sum (|c_l|^2 - 2 <x, c_l>) + sum 2 <c_a, c_b>: after the inner products
 * with x, a candidate costs additions of table entries only, sixteen candidates at a time.
 */
#include "rvq.h"

#include <float.h>
#include <string.h>

#define LANES 16u

/* Lowered to whatever the target has: lanes are independent, so the results are the same bits. */
typedef float lanes_f32 __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t lanes_i32 __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#if defined(__x86_64__)
#define _simd_clones_ __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define _simd_clones_
#endif

static float *entry_row(const struct rvq_search *s, uint32_t stage, uint32_t slot) {
        return s->entries + ((size_t)stage * s->n_slots + slot) * s->n_lanes;
}

static float *cross_rows(const struct rvq_search *s, uint32_t a, uint32_t b) {
        return s->cross +
               (((size_t)a * s->shape.n_stages + b) << s->shape.codebook_bits) * s->n_lanes;
}

static void fill_cross(struct rvq_search *s, uint32_t a, uint32_t b) {
        uint32_t n_entries = 1u << s->shape.codebook_bits;
        float *rows = cross_rows(s, a, b);

        for (uint32_t i = 0; i < n_entries; i++)
                for (uint32_t j = 0; j < n_entries; j++) {
                        double sum = 0;

                        for (uint32_t d = 0; d < s->n_slots; d++)
                                sum += (double)entry_row(s, a, d)[i] * entry_row(s, b, d)[j];
                        rows[i * s->n_lanes + j] = (float)(2 * sum);
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

/* What all entries of a combination cost among themselves: the sum of their cross terms. */
static int fill_prefixes(struct rvq_search *s) {
        uint32_t bits = s->shape.codebook_bits, last = s->shape.n_stages - 1;

        s->prefixes = calloc((size_t)s->n_prefixes * s->n_lanes, sizeof(float));
        if (!s->prefixes)
                return -ENOMEM;
        for (uint32_t p = 0; p < s->n_prefixes; p++)
                for (uint32_t c = 0; c < 1u << bits; c++) {
                        uint32_t combination = p << bits | c;
                        float *sum = &s->prefixes[(size_t)p * s->n_lanes + c];

                        for (uint32_t b = 1; b <= last; b++)
                                for (uint32_t a = 0; a < b; a++) {
                                        uint32_t i = combination >> bits * (last - a);
                                        uint32_t j = combination >> bits * (last - b);
                                        uint32_t mask = (1u << bits) - 1;

                                        *sum += cross_rows(s, a,
                                                           b)[(i & mask) * s->n_lanes + (j & mask)];
                                }
                }
        return 0;
}

static uint32_t choose_prefixes(const struct rvq_shape *shape) {
        uint32_t bits = shape->codebook_bits * (shape->n_stages - 1);

        return 1u << MIN(bits, 31u) <= RVQ_WIDTH_EXHAUSTIVE ? 1u << bits : 0;
}

uint64_t rvq_search_bytes(const struct rvq_shape *shape, uint32_t n_slots) {
        uint64_t n_entries = 1u << shape->codebook_bits, n_lanes = align_up(n_entries, LANES);
        uint64_t n_stages = shape->n_stages;

        return sizeof(float) * n_lanes *
               (n_stages * (n_slots + 1) + n_stages * n_stages * n_entries +
                choose_prefixes(shape));
}

int rvq_search_init(struct rvq_search *search, const struct rvq_shape *shape,
                    const float *codebooks, uint32_t n_slots, uint32_t width) {
        uint32_t n_entries = 1u << shape->codebook_bits;
        struct rvq_search s = {
                .shape = *shape,
                .n_slots = n_slots,
                .n_lanes = (uint32_t)align_up(n_entries, LANES),
        };
        size_t n_stages = shape->n_stages;

        s.n_prefixes = width ? 0 : choose_prefixes(shape);
        s.width = width ? width : s.n_prefixes ? s.n_prefixes : RVQ_WIDTH_BEAM;

        s.entries = calloc(n_stages * n_slots * s.n_lanes, sizeof(float));
        s.norms = calloc(n_stages * s.n_lanes, sizeof(float));
        s.cross = calloc(n_stages * n_stages * n_entries * s.n_lanes, sizeof(float));
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
        if (s.n_prefixes && fill_prefixes(&s) < 0) {
                rvq_search_deinit(&s);
                return -ENOMEM;
        }
        *search = s;
        return 0;
}

void rvq_search_deinit(struct rvq_search *search) {
        free(search->entries);
        free(search->norms);
        free(search->cross);
        free(search->prefixes);
        *search = (struct rvq_search){ 0 };
}

int rvq_scratch_init(struct rvq_scratch *scratch, const struct rvq_search *search) {
        size_t width = search->width, n_stages = search->shape.n_stages, n_lanes = search->n_lanes;
        struct rvq_scratch s = {
                .products = malloc(n_stages * n_lanes * sizeof(float)),
                .candidates = malloc(width * n_lanes * sizeof(float)),
                .sorted = malloc(width * n_lanes * sizeof(float)),
                .costs = { malloc(width * sizeof(float)), malloc(width * sizeof(float)) },
                .codes = { malloc(width * n_stages), malloc(width * n_stages) },
        };

        if (!s.products || !s.candidates || !s.sorted || !s.costs[0] || !s.costs[1] ||
            !s.codes[0] || !s.codes[1]) {
                rvq_scratch_deinit(&s);
                return -ENOMEM;
        }
        *scratch = s;
        return 0;
}

void rvq_scratch_deinit(struct rvq_scratch *scratch) {
        free(scratch->products);
        free(scratch->candidates);
        free(scratch->sorted);
        for (int i = 0; i < 2; i++) {
                free(scratch->costs[i]);
                free(scratch->codes[i]);
        }
        *scratch = (struct rvq_scratch){ 0 };
}

/* products[l][c] = |c|^2 - 2 <x, c> */
_simd_clones_ static void score_entries(const struct rvq_search *s, const float *values,
                                        float *ret_products) {
        for (uint32_t l = 0; l < s->shape.n_stages; l++)
                for (uint32_t c = 0; c < s->n_lanes; c += LANES) {
                        const float *entries = s->entries + (size_t)l * s->n_slots * s->n_lanes + c;
                        lanes_f32 sum = { 0 };

                        for (uint32_t d = 0; d < s->n_slots; d++)
                                sum += *(const lanes_f32 *)(entries + (size_t)d * s->n_lanes) *
                                       values[d];
                        *(lanes_f32 *)(ret_products + l * s->n_lanes + c) =
                                *(const lanes_f32 *)(s->norms + l * s->n_lanes + c) - 2 * sum;
                }
}

/* Costs of all continuations of every kept prefix by one more stage. */
_simd_clones_ static void score_stage(const struct rvq_search *s, uint32_t stage,
                                      const float *products, const float *costs,
                                      const uint8_t *codes, uint32_t n_kept,
                                      float *ret_candidates) {
        uint32_t n_stages = s->shape.n_stages, bits = s->shape.codebook_bits;

        for (uint32_t i = 0; i < n_kept; i++)
                for (uint32_t c = 0; c < s->n_lanes; c += LANES) {
                        lanes_f32 sum = *(const lanes_f32 *)(products + c) + costs[i];

                        for (uint32_t a = 0; a < stage; a++) {
                                size_t row = (((size_t)a * n_stages + stage) << bits) +
                                             codes[i * n_stages + a];
                                sum += *(const lanes_f32 *)(s->cross + row * s->n_lanes + c);
                        }
                        *(lanes_f32 *)(ret_candidates + i * s->n_lanes + c) = sum;
                }
}

/*
 * The best of all combinations. `prefixes` holds what the entries cost among themselves, `costs`
 * what each prefix costs with x: one addition more gives the total, and one running best in each
 * lane is all that is kept.
 */
_simd_clones_ static float best_combination(const struct rvq_search *s, const float *products,
                                            const float *costs, uint32_t *ret_prefix,
                                            uint32_t *ret_entry) {
        float best_cost = FLT_MAX;

        *ret_prefix = *ret_entry = 0;
        for (uint32_t c = 0; c < s->n_lanes; c += LANES) {
                const lanes_f32 last = *(const lanes_f32 *)(products + c);
                lanes_f32 best = (lanes_f32){ 0 } + FLT_MAX;
                lanes_i32 best_at = { 0 };

                for (uint32_t p = 0; p < s->n_prefixes; p++) {
                        lanes_f32 sum =
                                *(const lanes_f32 *)(s->prefixes + (size_t)p * s->n_lanes + c) +
                                (last + costs[p]);
                        lanes_i32 less = sum < best;

                        best = (lanes_f32)(((lanes_i32)sum & less) | ((lanes_i32)best & ~less));
                        best_at = (less & (int32_t)p) | (best_at & ~less);
                }
                for (uint32_t e = 0; e < LANES; e++)
                        if (best[e] < best_cost) {
                                best_cost = best[e];
                                *ret_prefix = (uint32_t)best_at[e];
                                *ret_entry = c + e;
                        }
        }
        return best_cost;
}

static float encode_exhaustive(const struct rvq_search *s, struct rvq_scratch *scratch,
                               uint8_t *ret_codes) {
        uint32_t bits = s->shape.codebook_bits, last = s->shape.n_stages - 1, prefix, entry;
        float *costs = scratch->costs[0], cost;

        /* Expands in place from the end: entry p << bits | c comes from p, which is not behind. */
        costs[0] = 0;
        for (uint32_t l = 0, n = 1; l < last; l++, n <<= bits)
                for (uint32_t p = n; p-- > 0;) {
                        const float *products = scratch->products + l * s->n_lanes, base = costs[p];

                        for (uint32_t c = 0; c < 1u << bits; c++)
                                costs[(p << bits) + c] = base + products[c];
                }
        cost = best_combination(s, scratch->products + last * s->n_lanes, costs, &prefix, &entry);
        ret_codes[last] = (uint8_t)entry;
        for (uint32_t l = last; l-- > 0; prefix >>= bits)
                ret_codes[l] = (uint8_t)(prefix & ((1u << bits) - 1));
        return cost;
}

/* The value that exactly `rank` others precede, by Hoare's selection; reorders `values`. */
static float select_rank(float *values, size_t n, size_t rank) {
        size_t low = 0, high = n - 1;

        while (low < high) {
                float pivot = values[low + (high - low) / 2];
                size_t i = low, j = high;

                for (;;) {
                        while (values[i] < pivot)
                                i++;
                        while (values[j] > pivot)
                                j--;
                        if (i >= j)
                                break;

                        float other = values[i];
                        values[i++] = values[j];
                        values[j--] = other;
                }
                if (rank <= j)
                        high = j;
                else
                        low = j + 1;
        }
        return values[rank];
}

/* Keeps the `width` cheapest candidates, in index order. */
static uint32_t keep_best(const struct rvq_search *s, struct rvq_scratch *scratch, uint32_t stage,
                          uint32_t n_kept, int from) {
        uint32_t n_entries = 1u << s->shape.codebook_bits, n_stages = s->shape.n_stages, n = 0;
        size_t n_candidates = (size_t)n_kept * n_entries, n_ties = n_candidates;
        float limit = FLT_MAX;

        if (n_candidates > s->width) {
                for (uint32_t i = 0; i < n_kept; i++)
                        memcpy(scratch->sorted + (size_t)i * n_entries,
                               scratch->candidates + (size_t)i * s->n_lanes,
                               n_entries * sizeof(float));
                limit = select_rank(scratch->sorted, n_candidates, s->width - 1);
                n_ties = s->width;
                for (size_t i = 0; i < n_candidates; i++)
                        n_ties -= scratch->sorted[i] < limit;
        }
        for (uint32_t i = 0; i < n_kept; i++)
                for (uint32_t c = 0; c < n_entries; c++) {
                        float cost = scratch->candidates[(size_t)i * s->n_lanes + c];
                        uint8_t *codes = scratch->codes[!from] + (size_t)n * n_stages;

                        if (cost > limit || (cost == limit && n_ties == 0))
                                continue;
                        n_ties -= cost == limit;
                        memcpy(codes, scratch->codes[from] + (size_t)i * n_stages, stage);
                        codes[stage] = (uint8_t)c;
                        scratch->costs[!from][n++] = cost;
                }
        return n;
}

static float encode_beam(const struct rvq_search *s, struct rvq_scratch *scratch,
                         uint8_t *ret_codes) {
        uint32_t n_kept = 1, n_stages = s->shape.n_stages, best = 0;
        int from = 0;

        scratch->costs[from][0] = 0;
        for (uint32_t l = 0; l < n_stages; l++, from = !from) {
                score_stage(s, l, scratch->products + l * s->n_lanes, scratch->costs[from],
                            scratch->codes[from], n_kept, scratch->candidates);
                n_kept = keep_best(s, scratch, l, n_kept, from);
        }
        for (uint32_t i = 1; i < n_kept; i++)
                if (scratch->costs[from][i] < scratch->costs[from][best])
                        best = i;
        memcpy(ret_codes, scratch->codes[from] + (size_t)best * n_stages, n_stages);
        return scratch->costs[from][best];
}

float rvq_search_encode(const struct rvq_search *s, struct rvq_scratch *scratch,
                        const float *values, uint8_t *ret_codes) {
        float norm = 0, cost;

        for (uint32_t d = 0; d < s->n_slots; d++)
                norm += values[d] * values[d];
        score_entries(s, values, scratch->products);
        cost = s->prefixes ? encode_exhaustive(s, scratch, ret_codes)
                           : encode_beam(s, scratch, ret_codes);
        return MAX(norm + cost, 0.f);
}

void rvq_decode(const struct rvq_shape *shape, const float *codebooks, uint32_t n_slots,
                const uint8_t *codes, float *ret_values) {
        for (uint32_t d = 0; d < n_slots; d++) {
                const float *entries = codebooks + ((size_t)d << shape->codebook_bits);
                float value = entries[codes[0]];

                for (uint32_t l = 1; l < shape->n_stages; l++)
                        value += entries[((size_t)l * shape->subvector_dims
                                          << shape->codebook_bits) +
                                         codes[l]];
                ret_values[d] = value;
        }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for a row's path, its packing, and its way back to values. Costs are sums of squares,
 * so their bit patterns as integers have the same order: all selections are made on those, with
 * arithmetic that every compiler turns into vectors.
 */
#include "trellis.h"

#include <math.h>
#include <string.h>

#include "lanes.h"

#define _always_inline_ inline __attribute__((always_inline))

uint32_t trellis_n_subvectors(const struct trellis_shape *shape) {
        return (uint32_t)div_round_up(shape->n_dims, shape->subvector_dims);
}

uint32_t trellis_n_groups(const struct trellis_shape *shape) {
        return (uint32_t)div_round_up(trellis_n_subvectors(shape), shape->group_cols);
}

size_t trellis_group_floats(const struct trellis_shape *shape) {
        return (size_t)shape->subvector_dims << shape->window_bits;
}

int trellis_scratch_init(struct trellis_scratch *scratch, const struct trellis_shape *shape,
                         uint32_t code_bits_min) {
        size_t n_states = (size_t)1 << shape->window_bits;
        size_t n_sets = n_states >> code_bits_min;
        struct trellis_scratch s = {
                .costs = { aligned_alloc(64, MAX(n_states, LANES) * sizeof(float)),
                           aligned_alloc(64, MAX(n_states, LANES) * sizeof(float)) },
                .best = malloc(n_sets * sizeof(int32_t)),
                .best_from = malloc(n_sets * sizeof(int32_t)),
                .from = malloc(trellis_n_subvectors(shape) * n_sets * sizeof(uint16_t)),
        };

        if (!s.costs[0] || !s.costs[1] || !s.best || !s.best_from || !s.from) {
                trellis_scratch_deinit(&s);
                return -ENOMEM;
        }
        *scratch = s;
        return 0;
}

void trellis_scratch_deinit(struct trellis_scratch *scratch) {
        free(scratch->costs[0]);
        free(scratch->costs[1]);
        free(scratch->best);
        free(scratch->best_from);
        free(scratch->from);
        *scratch = (struct trellis_scratch){ 0 };
}

/*
 * States whose low S - k bits are u lead to the states u << k | code: of each such set only the
 * cheapest member can be on the best path.
 */
_simd_clones_ static void reduce_states(const float *costs, uint32_t n_sets, uint32_t n_codes,
                                        int32_t *ret_best, int32_t *ret_from) {
        const int32_t *bits = (const int32_t *)(const void *)costs;

        for (uint32_t u = 0; n_sets >= LANES && u < n_sets; u += LANES) {
                lanes_i32 best = *(const lanes_i32 *)(bits + u), from = { 0 };

                for (uint32_t q = 1; q < n_codes; q++) {
                        lanes_i32 less = *(const lanes_i32 *)(bits + (size_t)q * n_sets + u) - best;
                        lanes_i32 mask = less >> 31;

                        best += less & mask;
                        from = (from & ~mask) | (mask & (int32_t)q);
                }
                *(lanes_i32 *)(ret_best + u) = best;
                *(lanes_i32 *)(ret_from + u) = from;
        }
        for (uint32_t u = 0; n_sets < LANES && u < n_sets; u++) {
                ret_best[u] = bits[u];
                ret_from[u] = 0;
                for (uint32_t q = 1; q < n_codes; q++)
                        if (bits[(size_t)q * n_sets + u] < ret_best[u]) {
                                ret_best[u] = bits[(size_t)q * n_sets + u];
                                ret_from[u] = (int32_t)q;
                        }
        }
}

/* The cheapest ways into sixteen neighbouring states. */
static _always_inline_ void spread(const int32_t *best, uint32_t state, uint32_t code_bits,
                                   lanes_f32 *ret_costs) {
        lanes_i32 costs = { 0 };

        if (code_bits >= 4)
                costs += best[state >> code_bits];
        else
                for (uint32_t e = 0; e < LANES; e++)
                        costs[e] = best[(state + e) >> code_bits];
        *ret_costs = (lanes_f32)costs;
}

/* costs[s] = best way into s + what its centroid costs. Absent slots have weight 0. */
static _always_inline_ void enter_states(const float *centroids, uint32_t window_bits,
                                         uint32_t n_slots, const float *values,
                                         const float *weights, const int32_t *best,
                                         uint32_t code_bits, float *ret_costs) {
        uint32_t n_states = 1u << window_bits;

        for (uint32_t s = 0; s < n_states; s += LANES) {
                lanes_f32 costs = { 0 };

                if (best)
                        spread(best, s, code_bits, &costs);
                for (uint32_t d = 0; d < n_slots; d++) {
                        lanes_f32 off =
                                *(const lanes_f32 *)(centroids + ((size_t)d << window_bits) + s) -
                                values[d];

                        costs += weights ? off * off * weights[d] : off * off;
                }
                *(lanes_f32 *)(ret_costs + s) = costs;
        }
}

_simd_clones_ static void enter(const float *centroids, uint32_t window_bits, uint32_t n_slots,
                                const float *values, const float *weights, const int32_t *best,
                                uint32_t code_bits, float *ret_costs) {
        if (n_slots == 4 && weights)
                enter_states(centroids, window_bits, 4, values, weights, best, code_bits,
                             ret_costs);
        else if (n_slots == 4)
                enter_states(centroids, window_bits, 4, values, NULL, best, code_bits, ret_costs);
        else if (n_slots == 2 && weights)
                enter_states(centroids, window_bits, 2, values, weights, best, code_bits,
                             ret_costs);
        else if (n_slots == 2)
                enter_states(centroids, window_bits, 2, values, NULL, best, code_bits, ret_costs);
        else
                enter_states(centroids, window_bits, n_slots, values, weights, best, code_bits,
                             ret_costs);
}

static uint32_t cheapest(const float *costs, uint32_t n) {
        uint32_t best = 0;

        for (uint32_t s = 1; s < n; s++)
                if (costs[s] < costs[best])
                        best = s;
        return best;
}

/* Value i of a path. */
static float trellis_value(const struct trellis_shape *shape, const float *centroids,
                           const uint16_t *states, uint32_t i) {
        uint32_t j = i / shape->subvector_dims, d = i % shape->subvector_dims;

        return centroids[j / shape->group_cols * trellis_group_floats(shape) +
                         ((size_t)d << shape->window_bits) + states[j]];
}

/* ---- A row's ring ---- */

/* Bits of a row's string. */
static uint32_t string_bits(uint32_t n_subvectors, uint32_t code_bits) {
        return (uint32_t)align_up((size_t)n_subvectors * code_bits, 8);
}

/* One row, and how its windows lie on the ring. */
struct search {
        const struct trellis_shape *shape;
        const float *centroids;
        struct trellis_scratch *scratch;
        const float *values, *weights;
        uint32_t n_subvectors, code_bits;
        uint32_t pad_bits;    /* between the last sub-vector's own bits and the first one's */
        uint32_t shared_bits; /* that the last window has of the first one's; 0: none */
};

static struct search search_begin(const struct trellis_shape *shape, const float *centroids,
                                  struct trellis_scratch *scratch, const float *values,
                                  const float *weights, uint32_t code_bits) {
        uint32_t n = trellis_n_subvectors(shape), n_bits = string_bits(n, code_bits);
        uint32_t end_bit = (n - 1) * code_bits + shape->window_bits;

        return (struct search){ .shape = shape,
                                .centroids = centroids,
                                .scratch = scratch,
                                .values = values,
                                .weights = weights,
                                .n_subvectors = n,
                                .code_bits = code_bits,
                                .pad_bits = n_bits - n * code_bits,
                                .shared_bits = end_bit > n_bits ? end_bit - n_bits : 0 };
}

/* Bits that are new in the window of sub-vector j. */
static uint32_t new_bits(const struct search *s, uint32_t j) {
        return s->code_bits + (j == 0 ? s->pad_bits : 0);
}

/* Only states are left whose bits from `shift` on are these. */
static void keep_states(const struct search *s, uint32_t shift, uint32_t shared, float *costs) {
        uint32_t mask = (1u << s->shared_bits) - 1;

        for (uint32_t state = 0; state < 1u << s->shape->window_bits; state++)
                if ((state >> shift & mask) != shared)
                        costs[state] = INFINITY;
}

#define SHARED_ANY UINT32_MAX

/*
 * The cheapest path over `n` sub-vectors from `first` on around the ring. With `shared` bits given
 * the walk is once around, and it begins and ends with these.
 */
static void find_path(const struct search *s, uint32_t first, uint32_t n, uint32_t shared,
                      uint16_t *ret_states) {
        const struct trellis_shape *shape = s->shape;
        struct trellis_scratch *scratch = s->scratch;
        uint32_t h = shape->subvector_dims, state;
        size_t stride = (size_t)1 << (shape->window_bits - s->code_bits);
        int now = 0;

        for (uint32_t i = 0; i < n; i++, now = !now) {
                uint32_t j = (first + i) % s->n_subvectors, shift = new_bits(s, j);
                uint32_t n_sets = i > 0 ? 1u << (shape->window_bits - shift) : 0;

                if (i > 0)
                        reduce_states(scratch->costs[!now], n_sets, 1u << shift, scratch->best,
                                      scratch->best_from);
                for (uint32_t u = 0; u < n_sets; u++)
                        scratch->from[i * stride + u] = (uint16_t)scratch->best_from[u];
                enter(s->centroids + j / shape->group_cols * trellis_group_floats(shape),
                      shape->window_bits, MIN(h, shape->n_dims - j * h), s->values + (size_t)j * h,
                      s->weights ? s->weights + (size_t)j * h : NULL, i > 0 ? scratch->best : NULL,
                      shift, scratch->costs[now]);
                if (shared != SHARED_ANY && i == 0)
                        keep_states(s, shape->window_bits - s->shared_bits, shared,
                                    scratch->costs[now]);
                if (shared != SHARED_ANY && i + 1 == n)
                        keep_states(s, 0, shared, scratch->costs[now]);
        }
        state = cheapest(scratch->costs[!now], 1u << shape->window_bits);
        for (uint32_t i = n; i-- > 0;) {
                uint32_t shift = new_bits(s, (first + i) % s->n_subvectors);
                uint32_t set = state >> shift;

                ret_states[i] = (uint16_t)state;
                if (i > 0)
                        state = (uint32_t)scratch->from[i * stride + set]
                                        << (shape->window_bits - shift) |
                                set;
        }
}

/*
 * Where the ring is best cut open: what the best path over both ends has there. So far from the
 * cut as some five windows, nothing has a say in that any more.
 */
static uint32_t guess_shared(const struct search *s, uint16_t *states) {
        uint32_t window = (uint32_t)div_round_up(s->shape->window_bits, s->code_bits);
        uint32_t n = MIN(10 * window, s->n_subvectors);

        find_path(s, s->n_subvectors - n / 2, n, SHARED_ANY, states);
        return states[n / 2] >> (s->shape->window_bits - s->shared_bits);
}

/* A string of one byte, which windows may go around twice: all 256 are tried. */
static void encode_byte(const struct search *s, uint16_t *ret_states) {
        const struct trellis_shape *shape = s->shape;
        double best = INFINITY;

        for (uint32_t string = 0; string < 256; string++) {
                uint16_t states[8];
                double error = 0;

                for (uint32_t j = 0; j < s->n_subvectors; j++)
                        for (uint32_t i = states[j] = 0; i < shape->window_bits; i++)
                                states[j] = (uint16_t)(states[j] << 1 |
                                                       (string >> (j * s->code_bits + i) % 8 & 1));
                for (uint32_t i = 0; i < shape->n_dims; i++) {
                        double off = (double)s->values[i] -
                                     (double)trellis_value(shape, s->centroids, states, i);

                        error += (s->weights ? (double)s->weights[i] : 1) * off * off;
                }
                if (error < best) {
                        best = error;
                        memcpy(ret_states, states, s->n_subvectors * sizeof(*states));
                }
        }
}

void trellis_encode(const struct trellis_shape *shape, const float *centroids,
                    struct trellis_scratch *scratch, const float *values, const float *weights,
                    uint32_t code_bits, uint16_t *ret_states) {
        const struct search s = search_begin(shape, centroids, scratch, values, weights, code_bits);
        uint32_t shared = SHARED_ANY;

        if (string_bits(s.n_subvectors, code_bits) == 8) {
                encode_byte(&s, ret_states);
                return;
        }
        if (s.shared_bits)
                shared = guess_shared(&s, ret_states);
        find_path(&s, 0, s.n_subvectors, shared, ret_states);
}

void trellis_decode(const struct trellis_shape *shape, const float *centroids,
                    const uint16_t *states, float *ret_values) {
        for (uint32_t i = 0; i < shape->n_dims; i++)
                ret_values[i] = trellis_value(shape, centroids, states, i);
}

/* ---- The file's order ---- */

uint32_t trellis_entry(uint32_t state, uint32_t window_bits) {
        uint32_t entry = 0;

        for (uint32_t i = 0; i < window_bits; i++)
                entry |= (state >> i & 1) << (window_bits - 1 - i);
        return entry;
}

void trellis_pack(const uint16_t *states, uint32_t n_subvectors, uint32_t window_bits,
                  uint32_t code_bits, uint8_t *ret_bytes) {
        uint32_t n_bits = string_bits(n_subvectors, code_bits), at = 0;

        memset(ret_bytes, 0, n_bits / 8);
        for (uint32_t j = 0; j < n_subvectors; j++)
                for (uint32_t i = j ? code_bits : window_bits; i-- > 0 && at < n_bits; at++)
                        ret_bytes[at / 8] |= (uint8_t)((states[j] >> i & 1) << at % 8);
}

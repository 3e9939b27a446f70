/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers that depend on a seed and a counter alone: the n-th draw of a stream is a pure
 * function, so work may be cut into blocks without changing what is drawn. Not for secrets.
 */
#pragma once

#include <math.h>

#include "proto/base.h"

struct rng {
        uint64_t key;
        uint64_t counter;
};

/* The finalizer of SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t rng_mix(uint64_t x) {
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

/* Streams of one seed do not overlap: `stream` tells groups, stages and phases apart. */
static inline struct rng rng_stream(uint64_t seed, uint64_t stream) {
        return (struct rng){ .key = rng_mix(rng_mix(seed + UINT64_C(0x9e3779b97f4a7c15)) +
                                            stream * UINT64_C(0xd1342543de82ef95)) };
}

static inline uint64_t rng_next(struct rng *rng) {
        return rng_mix(rng->key + ++rng->counter * UINT64_C(0x9e3779b97f4a7c15));
}

/* [0, 1) */
static inline double rng_uniform(struct rng *rng) {
        return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

/* [0, n), 0 < n < 2^53; the bias is far below anything that matters here. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n) {
        return (uint64_t)(rng_uniform(rng) * (double)n);
}

/* Standard normal, by Box and Muller. */
static inline float rng_normal(struct rng *rng) {
        double u = 1 - rng_uniform(rng), v = rng_uniform(rng);

        return (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * v));
}

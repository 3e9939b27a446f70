/* SPDX-License-Identifier: Apache-2.0 */
#include "stats.h"

#define add(counter, n)  atomic_fetch_add_explicit(counter, n, memory_order_relaxed)
#define read_of(counter) atomic_load_explicit(counter, memory_order_relaxed)

/* The buckets of [2^e, 2^(e+1)) start at (e - SUB_BITS + 1) << SUB_BITS; below 2^SUB_BITS they are
 * exact. */
static uint32_t bucket_of(uint64_t ns) {
        uint32_t exponent, bucket;

        if (ns < (1u << STATS_SUB_BITS))
                return (uint32_t)ns;
        exponent = 63 - (uint32_t)__builtin_clzll(ns);
        bucket = ((exponent - STATS_SUB_BITS + 1) << STATS_SUB_BITS) |
                 (uint32_t)((ns >> (exponent - STATS_SUB_BITS)) & ((1u << STATS_SUB_BITS) - 1));
        return MIN(bucket, STATS_BUCKETS_N - 1);
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_end(uint32_t bucket) {
        uint32_t shift = bucket >> STATS_SUB_BITS;
        uint64_t sub = bucket & ((1u << STATS_SUB_BITS) - 1);

        if (shift == 0)
                return sub;
        return (((1ull << STATS_SUB_BITS) + sub + 1) << (shift - 1)) - 1;
}

void stats_add_piece(struct stats *s, const struct codec_cost *cost, uint64_t n_rows,
                     uint32_t n_dims) {
        add(&s->n_rows, n_rows);
        add(&s->n_rows_read, cost->n_rows_read);
        add(&s->n_values_read, cost->n_rows_read * n_dims);
        add(&s->bytes_read, cost->bytes_read);
        add(&s->lines_read, cost->lines_read);
        add(&s->bytes_written, cost->bytes_written);
}

void stats_add_lookup(struct stats *s, enum ring_status status, uint64_t latency_ns) {
        uint64_t max;

        add(&s->n_lookups, 1);
        add(&s->n_status[status], 1);
        if (status != RING_STATUS_OK)
                return;
        add(&s->latency[bucket_of(latency_ns)], 1);
        max = read_of(&s->latency_max_ns);
        while (latency_ns > max &&
               !atomic_compare_exchange_weak_explicit(&s->latency_max_ns, &max, latency_ns,
                                                      memory_order_relaxed, memory_order_relaxed))
                ;
}

/* The bucket that holds the ceil(share x n)-th smallest value. */
static uint64_t percentile(const uint64_t counts[STATS_BUCKETS_N], uint64_t n, uint64_t per_mille,
                           uint64_t max) {
        uint64_t rank = div_round_up(n * per_mille, 1000), seen = 0;

        for (uint32_t b = 0; b < STATS_BUCKETS_N; b++) {
                seen += counts[b];
                if (seen && seen >= rank)
                        return MIN(bucket_end(b), max);
        }
        return max;
}

void stats_read(const struct stats *s, struct stats_snapshot *ret) {
        uint64_t counts[STATS_BUCKETS_N], n = 0;
        struct stats_snapshot r = {
                .n_lookups = read_of(&s->n_lookups),
                .n_rows = read_of(&s->n_rows),
                .n_rows_read = read_of(&s->n_rows_read),
                .n_values_read = read_of(&s->n_values_read),
                .bytes_read = read_of(&s->bytes_read),
                .lines_read = read_of(&s->lines_read),
                .bytes_written = read_of(&s->bytes_written),
                .latency_max_ns = read_of(&s->latency_max_ns),
        };

        for (uint32_t i = 0; i < STATS_STATUS_N; i++) {
                r.n_status[i] = read_of(&s->n_status[i]);
                if (i != RING_STATUS_OK)
                        r.n_errors += r.n_status[i];
        }
        for (uint32_t b = 0; b < STATS_BUCKETS_N; b++)
                n += counts[b] = read_of(&s->latency[b]);
        if (n) {
                r.latency_p50_ns = percentile(counts, n, 500, r.latency_max_ns);
                r.latency_p99_ns = percentile(counts, n, 990, r.latency_max_ns);
        }
        *ret = r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was served, counted. Workers add, the loop thread reads; relaxed atomics, because a reader
 * wants totals and not a consistent cut. One instance for each table generation and each session.
 */
#pragma once

#include <stdatomic.h>

#include "lib/codec/codec.h"
#include "proto/ring.h"

#define STATS_STATUS_N (RING_STATUS_NO_MEMORY + 1)

/*
 * Log-linear histogram of nanoseconds: 8 buckets for each power of two, so a percentile is known to
 * within 12.5 %. The last bucket takes everything above 2^40 ns (18 minutes).
 */
#define STATS_SUB_BITS  3u
#define STATS_BUCKETS_N ((40u - STATS_SUB_BITS + 1u) << STATS_SUB_BITS)

struct stats {
        _Atomic uint64_t n_lookups; /* completed submissions, failed ones too */
        _Atomic uint64_t n_rows;    /* output rows delivered */
        _Atomic uint64_t n_rows_read;
        _Atomic uint64_t
                n_values_read; /* rows read x dimensions: what a full-precision table would read */
        _Atomic uint64_t bytes_read;
        _Atomic uint64_t lines_read;
        _Atomic uint64_t bytes_written;
        _Atomic uint64_t n_status[STATS_STATUS_N]; /* completed submissions by outcome */
        _Atomic uint64_t latency_max_ns;
        _Atomic uint64_t
                latency[STATS_BUCKETS_N]; /* request to completion, of lookups that succeeded */
};

/* One piece of work. The last piece of a submission is followed by stats_add_lookup(). */
void stats_add_piece(struct stats *stats, const struct codec_cost *cost, uint64_t n_rows,
                     uint32_t n_dims);
void stats_add_lookup(struct stats *stats, enum ring_status status, uint64_t latency_ns);

/* Plain numbers for a report. */
struct stats_snapshot {
        uint64_t n_lookups, n_rows, n_rows_read, n_values_read, bytes_read, lines_read,
                bytes_written;
        uint64_t n_status[STATS_STATUS_N];
        uint64_t n_errors; /* lookups with any status but OK */
        uint64_t latency_p50_ns, latency_p99_ns,
                latency_max_ns; /* upper ends of buckets; 0: no data */
};

void stats_read(const struct stats *stats, struct stats_snapshot *ret_snapshot);

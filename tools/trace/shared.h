/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the BPF programs write and carvq-trace reads: plain memory that both have mapped. Included
 * by both, so it knows neither libc nor kernel headers but the types.
 */
#pragma once

#include <linux/types.h>

/*
 * Log-linear, as the daemon's own statistics: values below 16 have a bucket each, then 8 for each
 * power of two, so that a percentile is known to within 12.5 %. The last one takes everything from
 * 2^40 ns (18 minutes) on.
 */
#define BUCKETS_N 304u

struct histogram {
        __u64 n;
        __u64 sum_ns;
        __u64 buckets[BUCKETS_N];
};

static inline __u32 bucket_of(__u64 ns) {
        __u32 shift = 0, bucket;

        /* What is left has four bits: BPF has no instruction that counts zeros. */
        if (ns >> 35)
                ns >>= 32, shift += 32;
        if (ns >> 19)
                ns >>= 16, shift += 16;
        if (ns >> 11)
                ns >>= 8, shift += 8;
        if (ns >> 7)
                ns >>= 4, shift += 4;
        if (ns >> 5)
                ns >>= 2, shift += 2;
        if (ns >> 4)
                ns >>= 1, shift += 1;
        bucket = 8 * shift + (__u32)ns;
        return bucket < BUCKETS_N ? bucket : BUCKETS_N - 1;
}

/* The largest value that falls into it. */
static inline __u64 bucket_end(__u32 bucket) {
        return bucket < 16 ? bucket : ((__u64)(bucket % 8 + 9) << (bucket / 8 - 1)) - 1;
}

/* The phases of a lookup, in the order of its way. The first four add up to the fifth. */
enum phase {
        PHASE_QUEUED,    /* submitted -> taken by the worker */
        PHASE_GATHERED,  /* taken -> decoded, less the time that its table was being decoded */
        PHASE_DECODED,   /* its table was being decoded: with what others asked of it */
        PHASE_COMPLETED, /* decoded -> completed */
        PHASE_TOTAL,     /* submitted -> completed */
        PHASE_DOORBELL,  /* doorbell -> first submission taken, by a worker that slept */
        PHASE_CLIENT,    /* completed -> runs, of a client that slept */
        PHASE_FAULT,     /* of major faults on tables */
        PHASE_BLOCK,     /* of reads from disk for tables */
        PHASES_N,
};

/* A file that the daemon has mapped; numbered by carvq-trace. */
#define FILES_N 1024u /* a power of two */

struct file_counts {
        __u64 n_faults;
        __u64 n_major_faults;
        __u64 n_block_reads;
        __u64 block_read_bytes;
};

/* Where it lies. Sorted and without overlaps. */
struct range {
        __u64 start, end;
        __u32 file, unused;
};

/* Two lists: one is looked at while carvq-trace writes the other. */
struct ranges {
        __u32 n[2];
        __u32 active;
        __u32 unused;
        struct range list[2][FILES_N];
};

/* A generation of a table, by what passes through the probes. */
#define TABLES_N 1024u

struct table_counts {
        __u64 map; /* where its file lies in the daemon; 0: nothing was decoded yet */
        __u64 n_lookups;
        __u64 n_rows;
        __u64 decode_ns;
        __u64 n_cache_hits, n_cache_misses;
};

struct counts {
        __u64 n_submitted, n_completed, n_failed;
        __u64 n_unknown; /* completed, but not seen when they were taken */
        __u64 n_sessions_opened, n_sessions_closed;
        __u64 n_tables_published, n_tables_retired;
        __u64 n_faults_elsewhere; /* of the daemon, not on a table */
        /* What found no room in a map. */
        __u64 n_lost_lookups, n_lost_threads, n_lost_decodes, n_lost_wakes, n_lost_tables,
                n_lost_block;
};

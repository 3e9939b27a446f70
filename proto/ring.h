/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared memory between one client and carvqd: two rings, an id area and an arena for the
 * answers. PROTOCOL.md is the specification. The layout is canonical: it follows from the geometry
 * that the client sends over the socket, so nothing about it is ever read from shared memory.
 */
#pragma once

#include <assert.h>
#include <stdatomic.h>

#include "base.h"

#define RING_ENTRIES_MAX   4096u
#define RING_IDS_MAX       65536u /* of one submission */
#define RING_OUT_ALIGNMENT 64u    /* of out_offset in the arena */
#define RING_PAGE_BYTES    4096u
#define RING_BYTES_MAX     (UINT64_C(1) << 40)

/* Each word has one writer, named behind it, and a line of its own (two, for the pair prefetcher).
 */
struct ring_header {
        _Alignas(128) _Atomic uint32_t sq_tail;         /* client */
        _Alignas(128) _Atomic uint32_t sq_head;         /* daemon */
        _Alignas(128) _Atomic uint32_t cq_tail;         /* daemon */
        _Alignas(128) _Atomic uint32_t cq_head;         /* client */
        _Alignas(128) _Atomic uint32_t daemon_sleeping; /* daemon: 1 asks for a doorbell */
        _Alignas(128) _Atomic uint32_t client_waiting;  /* client: odd asks for a wake message */
        _Alignas(128) _Atomic uint64_t heartbeat_ns;    /* daemon: CLOCK_MONOTONIC, now and then */
        _Atomic uint64_t epoch;                         /* daemon: as in wire_welcome */
};

static_assert(sizeof(struct ring_header) == 896, "seven lines");
static_assert(offsetof(struct ring_header, sq_head) == 128, "");
static_assert(offsetof(struct ring_header, cq_tail) == 256, "");
static_assert(offsetof(struct ring_header, cq_head) == 384, "");
static_assert(offsetof(struct ring_header, daemon_sleeping) == 512, "");
static_assert(offsetof(struct ring_header, client_waiting) == 640, "");
static_assert(offsetof(struct ring_header, heartbeat_ns) == 768, "");
static_assert(offsetof(struct ring_header, epoch) == 776, "");
static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LONG_LOCK_FREE == 2, "shared words need no lock");

/*
 * What a client counts itself, where rows come without the daemon's help: totals of this
 * connection, written by the client, believed by nobody, for reports only. Behind the header, on
 * its page.
 */
#define RING_CLAIMS_OFFSET 1024u

struct ring_claims {
        _Alignas(128) _Atomic uint64_t n_lookups;
        _Atomic uint64_t n_rows;        /* of output */
        _Atomic uint64_t n_rows_read;   /* records decoded */
        _Atomic uint64_t n_values_read; /* rows read x dimensions */
        _Atomic uint64_t bytes_read;    /* of the records */
        _Atomic uint64_t bytes_written;
        _Atomic uint64_t lines_read; /* of 64 bytes, in which these records lie */
};

/*
 * What a client found in tables' caches, written by the client likewise: rows, by table, and which
 * slots they were in. Hints go round in a ring; whoever comes late misses some.
 */
#define RING_CACHE_USE_OFFSET 1152u
#define RING_HINTS_N          64u
#define RING_TABLES_N         256u

struct ring_cache_use {
        _Alignas(128) _Atomic uint64_t n_hints; /* made so far */
        _Alignas(
                128) _Atomic uint64_t hints[RING_HINTS_N]; /* a table's handle % 256 << 32 | slot */
        _Atomic uint64_t n_hits[RING_TABLES_N];            /* rows, at a table's handle % 256 */
};

static_assert(sizeof(struct ring_header) <= RING_CLAIMS_OFFSET &&
                      RING_CLAIMS_OFFSET + sizeof(struct ring_claims) <= RING_CACHE_USE_OFFSET &&
                      RING_CACHE_USE_OFFSET + sizeof(struct ring_cache_use) <= RING_PAGE_BYTES,
              "on the header's page");
static_assert(RING_CACHE_USE_OFFSET % _Alignof(struct ring_cache_use) == 0, "");

enum ring_type {
        RING_TYPE_F32 = 0,
        RING_TYPE_F16 = 1,
        RING_TYPE_BF16 = 2,
};

enum ring_pooling {
        RING_POOLING_NONE = 0,
        RING_POOLING_SUM = 1,
        RING_POOLING_MEAN = 2,
};

enum ring_out_of_range {
        RING_OUT_OF_RANGE_ERROR = 0,
        RING_OUT_OF_RANGE_ZERO = 1,
};

/* Submission flags. */
#define RING_SUBMISSION_PIECES 0x01u /* complete in pieces, in order, as rows become ready */
#define RING_SUBMISSION_FLAGS  0x01u /* all that exist */

struct ring_submission {
        uint64_t user_data;        /* comes back in the completion */
        uint64_t table;            /* a handle from wire_table */
        uint64_t submit_ns;        /* CLOCK_MONOTONIC; for statistics only */
        uint64_t ids_offset;       /* in the id area: n_ids x u64, multiple of 8 */
        uint64_t bags_offset;      /* in the id area: n_bags x u64; 0 unless pooling */
        uint64_t out_offset;       /* in the arena, multiple of RING_OUT_ALIGNMENT */
        uint64_t row_stride_bytes; /* at least a row, multiple of a value's size */
        uint32_t n_ids;            /* 1 to RING_IDS_MAX */
        uint32_t n_bags;           /* 0 unless pooling */
        uint32_t col_first;
        uint32_t n_cols; /* 0: to the row's end */
        float scale;
        uint8_t type;
        uint8_t pooling;
        uint8_t out_of_range;
        uint8_t flags;
        uint8_t reserved[48];
};

static_assert(sizeof(struct ring_submission) == 128, "");
static_assert(offsetof(struct ring_submission, n_ids) == 56, "");
static_assert(offsetof(struct ring_submission, scale) == 72, "");
static_assert(offsetof(struct ring_submission, type) == 76, "");

enum ring_status {
        RING_STATUS_OK = 0,
        RING_STATUS_INVALID = 1,      /* a field is outside PROTOCOL.md's limits */
        RING_STATUS_OUT_OF_RANGE = 2, /* an id is not below the table's rows; detail is its index */
        RING_STATUS_NO_TABLE = 3,     /* the handle names no open table */
        RING_STATUS_RETIRED = 4,      /* the table's file failed under the daemon */
        RING_STATUS_NO_MEMORY = 5,    /* the daemon could not copy the ids */
};

/* More completions of the same submission follow. */
#define RING_COMPLETION_MORE 0x01u

struct ring_completion {
        uint64_t user_data;
        uint32_t status;
        uint32_t flags;
        uint32_t row_first; /* output rows [row_first, row_first + n_rows) are in the arena */
        uint32_t n_rows;
        uint64_t detail;
};

static_assert(sizeof(struct ring_completion) == 32, "");

/* What the client chooses and sends (wire_ring). */
struct ring_geometry {
        uint32_t sq_entries; /* powers of two, 1 to RING_ENTRIES_MAX */
        uint32_t cq_entries; /* at least sq_entries */
        uint64_t ids_bytes;  /* multiples of a page, at least one */
        uint64_t arena_bytes;
};

/* What follows from it: offsets into the memory, all multiples of a page. */
struct ring_layout {
        struct ring_geometry geometry;
        uint64_t sq_offset;
        uint64_t cq_offset;
        uint64_t ids_offset;
        uint64_t arena_offset;
        uint64_t ring_bytes; /* exact length of the memfd */
};

/* Pure. -EINVAL; the fault names the field. */
int ring_layout_compute(const struct ring_geometry *geometry, struct ring_layout *ret_layout,
                        struct fault *ret_fault);

/*
 * Pure. A private copy of a submission, for a table of `n_dims`: every count, offset, flag and
 * reserved byte; on 0 all its ranges lie inside the id area and the arena. Ids and bags are not
 * looked at. -EINVAL; the fault names the field. `*ret_n_rows` and `*ret_n_cols` are what will be
 * written.
 */
int ring_submission_check(const struct ring_submission *submission,
                          const struct ring_layout *layout, uint32_t n_dims, uint32_t *ret_n_rows,
                          uint32_t *ret_n_cols, struct fault *ret_fault);

/*
 * Pure. The other side's index as read from shared memory, against our own: how many entries lie
 * between. -EPROTO when it claims more than `n_max` (it jumped back or too far ahead).
 */
int ring_distance(uint32_t ahead, uint32_t behind, uint32_t n_max, uint32_t *ret_n);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded rows in memory that the daemon writes and clients read, one for each table; PROTOCOL.md
 * is the specification. A row is kept in one of the ways of its id's set. The set's words, a cache
 * line, say which rows are there; each carries the sequence by which a reader notices that the row
 * changed while it was copied.
 */
#pragma once

#include <stdatomic.h>

#include "base.h"

#define CACHE_WAYS     8u
#define CACHE_SETS_MAX (UINT32_C(1) << 24)

/*
 * A word is the row's id and a sequence of 24 bits: 0 when nothing has ever been there, odd while
 * the row is being written, else even. Ids have 40 bits.
 */
#define CACHE_SEQUENCE_BITS 24u
#define CACHE_SEQUENCE_MASK ((UINT64_C(1) << CACHE_SEQUENCE_BITS) - 1)

typedef _Atomic uint64_t cache_set[CACHE_WAYS];

/* It follows from the table's dimensions and the number of sets, which come over the socket. */
struct cache_layout {
        uint32_t n_sets;
        uint32_t n_dims;
        uint64_t row_stride_bytes; /* of f32 values, rounded up to a cache line */
        uint64_t rows_offset;      /* behind the words, at a page; slot 0 first */
        uint64_t cache_bytes;      /* exact length of the memory */
};

/* Pure. -EINVAL; the fault says why. */
int cache_layout_compute(uint32_t n_sets, uint32_t n_dims, struct cache_layout *ret_layout,
                         struct fault *ret_fault);

/* Any set but for the hash: neighbouring ids go to different ones. */
static inline uint32_t cache_set_of(const struct cache_layout *layout, uint64_t id) {
        uint64_t hash = id * UINT64_C(0x9e3779b97f4a7c15);

        return (uint32_t)(((hash >> 32) * layout->n_sets) >> 32);
}

/* The word says that the row is there, and whole. */
static inline bool cache_word_holds(uint64_t word, uint64_t id) {
        return word >> CACHE_SEQUENCE_BITS == id && word & CACHE_SEQUENCE_MASK && !(word & 1);
}

static inline uint64_t cache_slots(const struct cache_layout *layout) {
        return (uint64_t)layout->n_sets * CACHE_WAYS;
}

static inline uint64_t cache_row_offset(const struct cache_layout *layout, uint64_t slot) {
        return layout->rows_offset + slot * layout->row_stride_bytes;
}

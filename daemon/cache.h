/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of a table's decoded rows, which clients read without asking (proto/cache.h). What is
 * kept: rows that were missed twice within a while, so that a scan, which meets each row once,
 * leaves no trace; a row makes room when its set's hand comes by and nobody has hinted at it since
 * the last time. Several workers share it; whoever finds another one at it goes without.
 */
#pragma once

#include "lib/codec/codec.h"
#include "proto/cache.h"

/* Rows put in at a time. */
#define CACHE_FILL_MAX CODEC_BATCH_ROWS

struct cache {
        struct cache_layout layout;
        uint8_t *memory;
        int fd;          /* sealed: nobody else can ever write to it */
        uint64_t n_rows; /* of the table */
        atomic_flag busy;
        uint16_t *seen; /* fingerprints of ids that were missed once */
        uint64_t n_seen;
        _Atomic uint8_t *hinted; /* a bit for each way of a set */
        uint8_t *hands;          /* of each set: the way to look at first */
        _Atomic uint64_t n_misses, n_insertions, n_evictions;
        uint64_t n_hits; /* as clients say; the loop's */
};

/* What "auto" means for a table: nothing unless rows go through an adaptor, else as much as its
 * file, at most 64 MiB. */
uint64_t cache_auto_bytes(const struct table_header *header);

/* Of at most `bytes`, and no larger than makes sense for the table; NULL in `*ret_cache` if that is
 * not even one set. */
int cache_new(uint64_t bytes, const struct table_header *header, struct cache **ret_cache,
              struct fault *ret_fault);
struct cache *cache_free(struct cache *cache);

/* Ids that were looked up and not found by their clients: which of them are worth to be put in, at
 * most `n_max`. Never waits. */
uint32_t cache_admit(struct cache *cache, const uint64_t *ids, uint64_t n_ids, uint64_t *ret_ids,
                     uint32_t n_max);

/* Puts a row in, or does nothing if another worker is at it. */
void cache_put(struct cache *cache, uint64_t id, const float *values);

/* A client had use of the slot, or says so. Any number. */
void cache_hint(struct cache *cache, uint64_t slot);

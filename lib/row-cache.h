/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of a table's decoded rows, in memory that the daemon writes while we read. Its size
 * and kind are checked once, its layout follows from the daemon's message; what is in it may be
 * anything at any time, and the worst that comes of it are wrong rows. The client's thread.
 */
#pragma once

#include "proto/cache.h"

struct row_cache {
        struct cache_layout layout;
        const uint8_t *memory; /* NULL: none */
};

/* Checks and maps it; `fd` stays the caller's. -EPROTO with the reason, or mmap's errno. */
int row_cache_init(struct row_cache *cache, int fd, uint32_t n_sets, uint32_t n_dims,
                   struct fault *ret_fault);
void row_cache_deinit(struct row_cache *cache);

/* Before a read of the same id, a few reads ahead. */
static inline void row_cache_prefetch(const struct row_cache *cache, uint64_t id) {
        __builtin_prefetch(cache->memory + cache_set_of(&cache->layout, id) * sizeof(cache_set));
}

/*
 * n_dims values of a row, or false: it is not there, or was replaced meanwhile, and then
 * `ret_values` may hold anything. At a multiple of 4 bytes.
 */
bool row_cache_read(const struct row_cache *cache, uint64_t id, float *ret_values,
                    uint32_t *ret_slot);

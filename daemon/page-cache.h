/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says about a file's pages in memory, whoever has read them. Walks over them, so
 * not for the loop thread.
 */
#pragma once

#include "proto/base.h"

struct page_cache {
        uint64_t cached_bytes;
        bool knows_evicted;     /* from Linux 6.5 on */
        uint64_t evicted_bytes; /* that were in memory of late, and would be read again */
};

/*
 * By cachestat(2), else by mincore(2) of `map`, the whole file. -EPERM: it tells the owner of the
 * file only, and those who may write it.
 */
int page_cache_measure(int fd, void *map, uint64_t n_bytes, struct page_cache *ret_cache);

/* The file's pages that this process's control group has read more than once, because they had been
 * evicted meanwhile: workingset_refault_file of its memory.stat. -errno. */
int page_cache_refaults(uint64_t *ret_pages);

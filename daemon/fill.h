/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a round and a table's cache: rows that clients missed again are decoded once more, beside
 * the clients' own and in the same call, into memory that no client can touch; from there they go
 * into the cache. On the worker.
 */
#pragma once

#include "cache.h"
#include "job.h"

struct fill {
        uint64_t ids[CACHE_FILL_MAX];
        uint32_t n_ids;
        struct codec_request request;
        float *rows;
        size_t n_floats; /* of `rows`; grows to the widest table */
};

/* Before a table with a cache is served. -ENOMEM. */
int fill_reserve(struct fill *fill, const struct cache *cache);
void fill_deinit(struct fill *fill);

/* Before decoding: chooses among what the job will look up now. */
void fill_look(struct fill *fill, struct cache *cache, const struct job *job);
/* The piece to decode with the jobs'; false: there is nothing to put in. */
bool fill_piece(struct fill *fill, const struct cache *cache, struct codec_piece *ret_piece);
/* After it, with `sound` false if the rows could not be decoded. */
void fill_finish(struct fill *fill, struct cache *cache, bool sound);

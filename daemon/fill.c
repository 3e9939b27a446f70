/* SPDX-License-Identifier: Apache-2.0 */
#include "fill.h"

#include "probes.h"

/* Of a large batch only these are looked at: it must not pay more for the cache than it may ever
 * gain by it. */
#define LOOK_MAX 64u

static uint64_t stride_floats(const struct cache *cache) {
        return cache->layout.row_stride_bytes / sizeof(float);
}

int fill_reserve(struct fill *fill, const struct cache *cache) {
        size_t n_floats = CACHE_FILL_MAX * stride_floats(cache);
        float *rows;

        if (n_floats <= fill->n_floats)
                return 0;
        rows = aligned_alloc(64, n_floats * sizeof(float));
        if (!rows)
                return -ENOMEM;
        free(fill->rows);
        fill->rows = rows;
        fill->n_floats = n_floats;
        return 0;
}

void fill_deinit(struct fill *fill) {
        free(fill->rows);
}

void fill_look(struct fill *fill, struct cache *cache, const struct job *job) {
        const struct codec_request *q = &job->request;
        uint64_t n_ids;

        if (q->pooling)
                return; /* clients do not look for them in the cache */
        n_ids = MIN(q->n_ids - job->piece.n_rows, job->piece.n_ids_max);
        atomic_fetch_add_explicit(&cache->n_misses, n_ids, memory_order_relaxed);
        probe_cache_miss(job->table->generation, n_ids);
        fill->n_ids += cache_admit(cache, q->ids + job->piece.n_rows, MIN(n_ids, LOOK_MAX),
                                   fill->ids + fill->n_ids, CACHE_FILL_MAX - fill->n_ids);
}

bool fill_piece(struct fill *fill, const struct cache *cache, struct codec_piece *ret_piece) {
        if (!fill->n_ids)
                return false;
        fill->request = (struct codec_request){
                .ids = fill->ids,
                .n_ids = fill->n_ids,
                .n_cols = cache->layout.n_dims,
                .scale = 1,
                .row_stride_bytes = cache->layout.row_stride_bytes,
                .out = fill->rows,
        };
        *ret_piece = (struct codec_piece){ .request = &fill->request, .n_ids_max = fill->n_ids };
        return true;
}

void fill_finish(struct fill *fill, struct cache *cache, bool sound) {
        for (uint32_t i = 0; sound && i < fill->n_ids; i++)
                cache_put(cache, fill->ids[i], fill->rows + i * stride_floats(cache));
        fill->n_ids = 0;
}

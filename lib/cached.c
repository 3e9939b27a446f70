/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups of a table whose decoded rows can be read without asking: rows that are there are copied
 * and finished here, as codec does it, the others go through the ring together. The client's
 * thread.
 */
#include "client.h"

#include <string.h>

/* Sets of ids that will be looked at next are on their way meanwhile. */
#define PREFETCH_IDS 8u

int cached_init(struct carvq_table *table, int fd, uint32_t n_sets, struct fault *ret_fault) {
        struct carvq_client *client = table->client;
        int r;

        if (!client->misses)
                client->misses = malloc(sizeof(*client->misses));
        table->row = aligned_alloc(64, align_up(table->shape.n_dims * sizeof(float), 64));
        if (!client->misses || !table->row)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = row_cache_init(&table->cache, fd, n_sets, table->shape.n_dims, ret_fault);
        if (r < 0)
                return r;
        /* For conversions alone: no matrix units, for which the whole process would be asked. */
        table->kernels = codec_kernels_choose(codec_cpu_features() & ~(uint32_t)CODEC_CPU_AMX);
        return 0;
}

void cached_deinit(struct carvq_table *table) {
        row_cache_deinit(&table->cache);
        free(table->row);
        table->row = NULL;
}

/* Output row i, if its row is there. */
static bool read_row(struct carvq_table *table, const struct codec_request *q, uint64_t i,
                     bool plain) {
        uint8_t *out = (uint8_t *)q->out + i * q->row_stride_bytes;
        float *values = plain ? (float *)(void *)out : table->row;
        uint32_t slot;

        if (!row_cache_read(&table->cache, q->ids[i], values, &slot))
                return false;
        if (!plain)
                codec_finish_row(table->kernels, q, table->row + q->col_first, out);
        client_ring_hit(&table->client->ring, table->handle, slot);
        return true;
}

/* Rows [first, first + n) from the cache or else through the ring. */
static int lookup_some(struct carvq_table *table, const struct codec_request *q, uint64_t first,
                       uint64_t n, uint64_t deadline_ns) {
        struct client_misses *m = table->client->misses;
        bool plain = codec_request_is_plain(q, &table->shape);
        struct codec_request rest = *q;
        uint64_t n_misses = 0;

        for (uint64_t i = first; i < first + n; i++) {
                if (i + PREFETCH_IDS < first + n)
                        row_cache_prefetch(&table->cache, q->ids[i + PREFETCH_IDS]);
                if (q->ids[i] < table->shape.n_rows && read_row(table, q, i, plain))
                        continue;
                m->ids[n_misses] = q->ids[i];
                m->places[n_misses++] = i;
        }
        if (!n_misses)
                return 0;
        rest.ids = m->ids;
        rest.n_ids = n_misses;
        return ring_lookup(table, &rest, m->places, deadline_ns);
}

/* The daemon words what is wrong with an id, and counts from the first one of the lookup. */
static bool has_wrong_id(const struct carvq_table *table, const struct codec_request *q) {
        if (q->out_of_range == CODEC_OUT_OF_RANGE_ZERO)
                return false;
        for (uint64_t i = 0; i < q->n_ids; i++)
                if (q->ids[i] >= table->shape.n_rows)
                        return true;
        return false;
}

int cached_lookup(struct carvq_table *table, const struct codec_request *q, uint64_t deadline_ns) {
        int r;

        r = client_check(table->client);
        if (r < 0)
                return r;
        if (q->pooling || has_wrong_id(table, q))
                return ring_lookup(table, q, NULL, deadline_ns);
        for (uint64_t first = 0; first < q->n_ids && r >= 0; first += CLIENT_MISSES_MAX)
                r = lookup_some(table, q, first, MIN(q->n_ids - first, CLIENT_MISSES_MAX),
                                deadline_ns);
        return r;
}

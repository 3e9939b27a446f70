/* SPDX-License-Identifier: Apache-2.0 */
#include "npy-rows.h"

#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "rows.h"

/* Magic, version 1.0, the length of what follows, and a description padded to a multiple of 64. */
#define NPY_HEAD_BYTES 128u

/* As codec_decode() looks ahead. */
#define PREFETCH_IDS   4u
#define PREFETCH_BYTES 2048u
#define LINE_BYTES     64u

FILE *npy_create(const char *path, enum npy_type type, uint64_t n_rows, uint32_t n_dims) {
        char head[NPY_HEAD_BYTES];
        FILE *f = fopen(path, "we");
        int n;

        memset(head, ' ', sizeof(head));
        memcpy(head, "\x93NUMPY\x01\x00", 8);
        head[8] = NPY_HEAD_BYTES - 10;
        head[9] = 0;
        n = snprintf(head + 10, sizeof(head) - 10,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu32
                     "), }",
                     type == NPY_F16 ? "<f2" : "<f4", n_rows, n_dims);
        head[10 + n] = ' ';
        head[NPY_HEAD_BYTES - 1] = '\n';
        if (!f || fwrite(head, sizeof(head), 1, f) != 1)
                die("%s: %s", path, strerror(errno));
        return f;
}

/* A table that has nothing but rows. */
static void describe(struct codec_table *table, enum npy_type type, uint64_t n_rows,
                     uint32_t n_dims) {
        struct table_header h = {
                .codec = type == NPY_F16 ? TABLE_CODEC_F16 : TABLE_CODEC_F32,
                .n_rows = n_rows,
                .n_dims = n_dims,
        };
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct fault fault;

        if (table_plan(&h, 0, chunks, &fault) < 0 ||
            table_layout_compute(&h, &table->contents.layout, &fault) < 0)
                die("%s", fault.text);
        table->contents.header = h;
}

void npy_open(struct npy_rows *npy, const char *path, enum npy_type type, uint64_t n_rows,
              uint32_t n_dims) {
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

        *npy = (struct npy_rows){ 0 };
        describe(&npy->table, type, n_rows, n_dims);
        npy->map_bytes = NPY_HEAD_BYTES + n_rows * npy->table.contents.header.record_bytes;
        npy->map = fd < 0 ? MAP_FAILED : mmap(NULL, npy->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (npy->map == MAP_FAILED)
                die("%s: %s", path, strerror(errno));
        npy->table.rows = (const uint8_t *)npy->map + NPY_HEAD_BYTES;
        codec_context_init(&npy->context, codec_kernels_choose(codec_cpu_features()));
        if (codec_context_reserve(&npy->context, &npy->table) < 0)
                die("out of memory");
}

void npy_copy_to_huge_pages(struct npy_rows *npy) {
        npy->copy = allocate_huge(npy->map_bytes);
        memcpy(npy->copy, npy->map, npy->map_bytes);
        npy->table.rows = npy->copy + NPY_HEAD_BYTES;
}

void npy_close(struct npy_rows *npy) {
        codec_context_deinit(&npy->context);
        munmap(npy->map, npy->map_bytes);
        free(npy->copy);
}

/* The file has the type that is wanted: nothing is as quick as a copy. */
static void copy_rows(const struct npy_rows *npy, const uint64_t *ids, size_t n_ids,
                      uint8_t *ret_rows) {
        size_t row_bytes = npy->table.contents.header.record_bytes;

        for (size_t i = 0; i < n_ids; i++) {
                if (i + PREFETCH_IDS < n_ids) {
                        const uint8_t *next = npy->table.rows + ids[i + PREFETCH_IDS] * row_bytes;

                        for (size_t at = 0; at < MIN(row_bytes, PREFETCH_BYTES); at += LINE_BYTES)
                                __builtin_prefetch(next + at);
                }
                memcpy(ret_rows + i * row_bytes, npy->table.rows + ids[i] * row_bytes, row_bytes);
        }
}

void npy_gather(struct npy_rows *npy, const uint64_t *ids, size_t n_ids, uint8_t type,
                void *ret_rows) {
        static const uint32_t codecs[] = { [CODEC_TYPE_F32] = TABLE_CODEC_F32,
                                           [CODEC_TYPE_F16] = TABLE_CODEC_F16,
                                           [CODEC_TYPE_BF16] = TABLE_CODEC_BF16 };

        if (npy->table.contents.header.codec == codecs[type])
                copy_rows(npy, ids, n_ids, ret_rows);
        else
                rows_decode(&npy->context, &npy->table, ids, n_ids, type, ret_rows);
}

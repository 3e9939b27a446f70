/* SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <string.h>

#include "bench.h"
#include "rows.h"

#define BLOCK_ROWS 1024u

void peer_world_init(struct peer_world *world, const char *table_path, uint8_t type) {
        struct table_header h = { .codec = TABLE_CODEC_F16, .n_rows = 1 };
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct codec_file file;
        struct fault fault;

        if (codec_file_open(table_path, &file, &fault) < 0)
                die("%s", fault.text);
        *world = (struct peer_world){
                .n_rows = file.table.contents.header.n_rows,
                .n_dims = file.table.contents.header.n_dims,
                .type = type,
                .row_bytes = file.table.contents.header.n_dims * codec_type_bytes(type),
        };
        codec_file_unmap(&file);
        if (!realpath(table_path, world->table_path))
                die("%s: %s", table_path, strerror(errno));

        h.n_dims = world->n_dims;
        if (table_plan(&h, 0, chunks, &fault) < 0)
                die("%s", fault.text);
        world->halves.contents.header = h;
        codec_context_init(&world->context, codec_kernels_choose(codec_cpu_features()));
        if (codec_context_reserve(&world->context, &world->halves) < 0)
                die("out of memory");
}

void peer_world_deinit(struct peer_world *world) {
        codec_context_deinit(&world->context);
}

void peer_world_each(struct peer_world *world, uint8_t type, peer_put *put, void *userdata) {
        size_t row_bytes = world->n_dims * codec_type_bytes(type);
        _cleanup_(freep) void *rows = allocate(BLOCK_ROWS, row_bytes);
        _cleanup_(freep) uint64_t *ids = allocate(world->n_rows, sizeof(*ids));
        struct codec_context context;
        struct codec_file file;
        struct fault fault;

        if (codec_file_open(world->table_path, &file, &fault) < 0)
                die("%s", fault.text);
        codec_context_init(&context, world->context.kernels);
        if (codec_context_reserve(&context, &file.table) < 0)
                die("out of memory");
        for (uint64_t i = 0; i < world->n_rows; i++)
                ids[i] = i;
        for (uint64_t first = 0; first < world->n_rows; first += BLOCK_ROWS) {
                size_t n = MIN(world->n_rows - first, BLOCK_ROWS);

                rows_decode(&context, &file.table, ids + first, n, type, rows);
                put(userdata, first, n, rows);
        }
        codec_context_deinit(&context);
        codec_file_unmap(&file);
}

void peer_deliver(struct peer_world *world, const void *halves, void *ret_row) {
        struct codec_record record = { .bytes = halves,
                                       .n_bytes = world->n_dims * sizeof(uint16_t) };

        if (world->type == CODEC_TYPE_F16)
                memcpy(ret_row, halves, world->row_bytes);
        else
                world->context.kernels->decode[TABLE_CODEC_F16](&world->halves, &record, NULL,
                                                                ret_row);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First fit from the bottom. A ring would be as short, but it walks through the whole arena and
 * meets cold pages all the time; this way small lookups, and large ones with two pieces in flight,
 * come back to the bytes that are still in the cache. The walk is over the lookups in flight: a
 * handful.
 */
#include "arena.h"

void arena_init(struct arena *arena, uint64_t bytes, uint64_t alignment) {
        arena->bytes = bytes;
        arena->alignment = alignment;
        TAILQ_INIT(&arena->blocks);
}

int arena_alloc(struct arena *arena, uint64_t bytes, struct arena_block *block) {
        struct arena_block *next;
        uint64_t offset = 0;

        if (bytes > arena->bytes)
                return -EMSGSIZE;
        bytes = align_up(bytes, arena->alignment);

        TAILQ_FOREACH(next, &arena->blocks, link) {
                if (bytes <= next->offset - offset)
                        break;
                offset = next->offset + next->bytes;
        }
        if (!next && !range_inside(offset, bytes, arena->bytes))
                return -EAGAIN;

        block->offset = offset;
        block->bytes = bytes;
        if (next)
                TAILQ_INSERT_BEFORE(next, block, link);
        else
                TAILQ_INSERT_TAIL(&arena->blocks, block, link);
        return 0;
}

void arena_free(struct arena *arena, struct arena_block *block) {
        TAILQ_REMOVE(&arena->blocks, block, link);
}

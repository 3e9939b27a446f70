/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who uses which bytes of the id area and of the arena. Private to the client: the blocks live in
 * its own memory, so a daemon that scribbles over the ring cannot confuse it. Pure bookkeeping; the
 * client's thread runs it.
 */
#pragma once

#include <sys/queue.h>

#include "proto/base.h"

/* Embedded in what the bytes are for, so releasing cannot fail and needs no search. */
struct arena_block {
        uint64_t offset;
        uint64_t bytes;
        TAILQ_ENTRY(arena_block) link;
};

struct arena {
        uint64_t bytes; /* a multiple of the alignment */
        uint64_t alignment;
        TAILQ_HEAD(, arena_block) blocks; /* in use, by ascending offset */
};

void arena_init(struct arena *arena, uint64_t bytes, uint64_t alignment);

/*
 * The lowest free range that fits. -EMSGSIZE: larger than the arena; -EAGAIN: not now. `block` must
 * stay where it is until arena_free().
 */
int arena_alloc(struct arena *arena, uint64_t bytes, struct arena_block *block);
void arena_free(struct arena *arena, struct arena_block *block);

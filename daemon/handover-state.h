/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon that ends tells the next one about its sessions, beside their descriptors: one
 * block of memory, packed. The next one may be another version and trusts none of it; nothing in
 * here is about access, which goes by what the kernel says of the sockets. Pure.
 *
 *   header, tables[n_tables], sessions[n_sessions], uses[n_uses]
 *
 * The uses of the first session come first, then those of the second, and so on. Descriptors are
 * kept under names with the index of what they belong to: "table-0", "session-0"; the block itself
 * is "state".
 */
#pragma once

#include "proto/wire.h"

#define HANDOVER_MAGIC      UINT64_C(0x444e414851565243) /* "CRVQHAND" */
#define HANDOVER_VERSION    1u

#define HANDOVER_TABLES_MAX 1024u
#define HANDOVER_PATH_BYTES 4096u

struct handover_header {
        uint64_t magic;
        uint32_t version; /* of the layout: another one is not read */
        uint32_t reserved;
        uint64_t n_bytes;      /* of the whole block */
        uint64_t checksum;     /* XXH3, 64 bits, of the block with this word as 0 */
        uint64_t last_session; /* numbers that were given out */
        uint64_t last_generation;
        uint32_t n_tables;
        uint32_t n_sessions;
        uint32_t n_uses;
        uint32_t reserved_too;
};

/* A generation of a table. */
struct handover_table {
        uint64_t generation;
        uint64_t device, inode, file_bytes; /* of the file when it was loaded */
        int64_t changed_ns;
        uint32_t origin; /* enum store_origin */
        uint32_t published;
        char name[WIRE_NAME_BYTES];
        char path[HANDOVER_PATH_BYTES]; /* for people, and to tell whether it is the same */
};

struct handover_session {
        uint64_t id;
        uint64_t features;
        uint64_t last_nonce; /* of its handles */
        uint64_t connected_ns;
        struct ring_geometry geometry;
        uint32_t sq_head, cq_tail, wait_answered; /* as the daemon kept them privately */
        uint32_t n_uses;
        char name[WIRE_NAME_BYTES];
};

/* A session has a table open. */
struct handover_use {
        uint64_t handle;
        uint32_t table; /* index */
        uint32_t reserved;
};

static_assert(sizeof(struct handover_header) == 64, "");
static_assert(sizeof(struct handover_table) == 48 + 128 + 4096, "");
static_assert(sizeof(struct handover_session) == 72 + 128, "");
static_assert(sizeof(struct handover_use) == 16, "");

/* Into a block. */
struct handover_state {
        const struct handover_header *header;
        const struct handover_table *tables;
        const struct handover_session *sessions;
        const struct handover_use *uses;
};

/* Length of a block with so many of each. */
uint64_t handover_state_bytes(uint64_t n_tables, uint64_t n_sessions, uint64_t n_uses);

/* Magic, version, length and checksum of a block whose counts and content are there. */
void handover_state_seal(void *block);

/*
 * A block of `n_bytes`, aligned to 8 bytes, which must outlive what is returned. After 0 every
 * count, index, text and number is in its range. -EPROTONOSUPPORT: another version; -EBADMSG; the
 * fault says what is wrong.
 */
int handover_state_check(const void *block, size_t n_bytes, struct handover_state *ret_state,
                         struct fault *ret_fault);

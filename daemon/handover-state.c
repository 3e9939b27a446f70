/* SPDX-License-Identifier: Apache-2.0 */
/* See handover-state.h. */
#include "handover-state.h"

#include <string.h>
#include <xxhash.h>

#include "store.h"

uint64_t handover_state_bytes(uint64_t n_tables, uint64_t n_sessions, uint64_t n_uses) {
        return sizeof(struct handover_header) + n_tables * sizeof(struct handover_table) +
               n_sessions * sizeof(struct handover_session) + n_uses * sizeof(struct handover_use);
}

static uint64_t bytes_of(const struct handover_header *h) {
        return handover_state_bytes(h->n_tables, h->n_sessions, h->n_uses);
}

/* The header is hashed from a copy, so that a block that cannot be written can be checked. */
static uint64_t checksum_of(const void *block, uint64_t n_bytes) {
        struct handover_header header = *(const struct handover_header *)block;
        const uint8_t *content = (const uint8_t *)block + sizeof(header);

        header.checksum = 0;
        return XXH3_64bits_withSeed(content, n_bytes - sizeof(header),
                                    XXH3_64bits(&header, sizeof(header)));
}

void handover_state_seal(void *block) {
        struct handover_header *h = block;

        h->magic = HANDOVER_MAGIC;
        h->version = HANDOVER_VERSION;
        h->n_bytes = bytes_of(h);
        h->checksum = checksum_of(block, h->n_bytes);
}

static int check_header(const void *block, size_t n_bytes, struct fault *ret_fault) {
        const struct handover_header *h = block;

        if (n_bytes < sizeof(*h) || h->magic != HANDOVER_MAGIC)
                return fault_set(ret_fault, -EBADMSG, "%zu bytes that are no state of carvqd",
                                 n_bytes);
        if (h->version != HANDOVER_VERSION)
                return fault_set(ret_fault, -EPROTONOSUPPORT,
                                 "its version is %" PRIu32 ", expected %u", h->version,
                                 HANDOVER_VERSION);
        if (h->n_bytes != n_bytes || bytes_of(h) != n_bytes)
                return fault_set(ret_fault, -EBADMSG,
                                 "it has %zu bytes, says %" PRIu64 ", and its counts make %" PRIu64,
                                 n_bytes, h->n_bytes, bytes_of(h));
        if (h->checksum != checksum_of(block, n_bytes))
                return fault_set(ret_fault, -EBADMSG, "its checksum is wrong");
        if (h->reserved || h->reserved_too || h->n_tables > HANDOVER_TABLES_MAX)
                return fault_set(ret_fault, -EBADMSG, "its header is wrong");
        return 0;
}

/* The first `i` are known to be good. */
static const char *table_problem(const struct handover_header *h,
                                 const struct handover_table *tables, uint32_t i) {
        const struct handover_table *t = &tables[i];

        if (!t->generation || t->generation > h->last_generation)
                return "generation";
        if (t->origin > STORE_FOLDER)
                return "origin";
        if (t->published > 1)
                return "published";
        if (!wire_text_padded(t->name, sizeof(t->name)) || !wire_table_name_valid(t->name))
                return "name";
        if (!wire_text_padded(t->path, sizeof(t->path)) || !t->path[0])
                return "path";
        for (uint32_t k = 0; k < i; k++) {
                if (tables[k].generation == t->generation)
                        return "generation, which another one has";
                if (tables[k].published && t->published && !strcmp(tables[k].name, t->name))
                        return "name, which another one has";
        }
        return NULL;
}

static const char *use_problem(const struct handover_header *h, const struct handover_session *s,
                               const struct handover_use *uses) {
        bool taken[WIRE_TABLES_MAX] = { 0 };

        for (uint32_t i = 0; i < s->n_uses; i++) {
                bool *slot = &taken[uses[i].handle % WIRE_TABLES_MAX];

                if (!(uses[i].handle / WIRE_TABLES_MAX) ||
                    uses[i].handle / WIRE_TABLES_MAX > s->last_nonce || *slot)
                        return "handle";
                if (uses[i].table >= h->n_tables || uses[i].reserved)
                        return "table";
                *slot = true;
        }
        return NULL;
}

/* Numbers ascend, as they were given out. `n_uses` are left for this session and all after it. */
static const char *session_problem(const struct handover_header *h,
                                   const struct handover_session *s, uint64_t former_id,
                                   const struct handover_use *uses, uint32_t n_uses) {
        struct ring_layout layout;

        if (s->id <= former_id || s->id > h->last_session)
                return "id";
        if (!wire_text_padded(s->name, sizeof(s->name)))
                return "name";
        if (ring_layout_compute(&s->geometry, &layout, NULL) < 0)
                return "geometry";
        /* A handle is a nonce and a slot. */
        if (s->last_nonce > UINT64_MAX / WIRE_TABLES_MAX - 1)
                return "last_nonce";
        if (s->n_uses > WIRE_TABLES_MAX || s->n_uses > n_uses)
                return "n_uses";
        return use_problem(h, s, uses);
}

static int check_content(const struct handover_state *s, struct fault *ret_fault) {
        const struct handover_header *h = s->header;
        const char *problem;
        uint32_t n_uses = 0;
        uint64_t id = 0;

        for (uint32_t i = 0; i < h->n_tables; i++) {
                problem = table_problem(h, s->tables, i);
                if (problem)
                        return fault_set(ret_fault, -EBADMSG,
                                         "of table %" PRIu32 " this is wrong: %s", i, problem);
        }
        for (uint32_t i = 0; i < h->n_sessions; i++) {
                problem = session_problem(h, &s->sessions[i], id, s->uses + n_uses,
                                          h->n_uses - n_uses);
                if (problem)
                        return fault_set(ret_fault, -EBADMSG,
                                         "of session %" PRIu32 " this is wrong: %s", i, problem);
                id = s->sessions[i].id;
                n_uses += s->sessions[i].n_uses;
        }
        if (n_uses != h->n_uses)
                return fault_set(ret_fault, -EBADMSG,
                                 "it has %" PRIu32 " uses of tables, expected %" PRIu32, h->n_uses,
                                 n_uses);
        return 0;
}

int handover_state_check(const void *block, size_t n_bytes, struct handover_state *ret_state,
                         struct fault *ret_fault) {
        struct handover_state state = { .header = block };
        int r;

        r = check_header(block, n_bytes, ret_fault);
        if (r < 0)
                return r;
        state.tables = (const void *)(state.header + 1);
        state.sessions = (const void *)(state.tables + state.header->n_tables);
        state.uses = (const void *)(state.sessions + state.header->n_sessions);
        r = check_content(&state, ret_fault);
        if (r < 0)
                return r;
        *ret_state = state;
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of the .carvq format: bytes and a length in, a checked description or one precise
 * sentence out. Trusts nothing, touches nothing but its arguments. The layout is canonical, so most
 * fields have exactly one right value, and a check is a comparison with what table_plan() would
 * have written.
 */
#include "table.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static int check_identity(const struct table_header *h, struct fault *ret_fault) {
        if (memcmp(h->magic, TABLE_MAGIC, sizeof(h->magic)) != 0)
                return fault_set(
                        ret_fault, -EBADMSG,
                        "magic at byte 0: not a .carvq file, expected 89 43 41 52 56 51 0d 0a");
        if (h->version_major != TABLE_VERSION_MAJOR)
                return fault_set(ret_fault, -EPROTONOSUPPORT,
                                 "version at byte 8: found %u.%u, this program reads %u.x",
                                 h->version_major, h->version_minor, TABLE_VERSION_MAJOR);
        if (h->header_bytes != sizeof(*h))
                return fault_set(ret_fault, -EBADMSG,
                                 "header_bytes at byte 12: found %" PRIu32 ", expected %zu",
                                 h->header_bytes, sizeof(*h));
        if (h->header_checksum != XXH3_64bits(h, offsetof(struct table_header, header_checksum)))
                return fault_set(
                        ret_fault, -EBADMSG,
                        "header_checksum at byte 248: does not match, the header is damaged");
        if (h->features_required & ~TABLE_FEATURES_KNOWN)
                return fault_set(ret_fault, -EPROTONOSUPPORT,
                                 "features_required at byte 16: bits 0x%" PRIx64
                                 " are unknown, a newer program is needed",
                                 h->features_required & ~TABLE_FEATURES_KNOWN);
        return 0;
}

/* A later minor version may have given these bytes a meaning that we may ignore. */
static int check_reserved(const struct table_header *h, struct fault *ret_fault) {
        if (h->version_minor > TABLE_VERSION_MINOR)
                return 0;
        if (h->reserved0)
                return fault_set(ret_fault, -EBADMSG, "reserved0 at byte 68: expected 0");
        for (size_t i = 0; i < sizeof(h->reserved1); i++)
                if (h->reserved1[i])
                        return fault_set(ret_fault, -EBADMSG, "reserved1 at byte %zu: expected 0",
                                         offsetof(struct table_header, reserved1) + i);
        return 0;
}

static int check_contents(const struct table_header *h, const struct table_chunk *found,
                          const struct table_header *plan, const struct table_chunk *wanted,
                          struct fault *ret_fault) {
        if (h->contents_checksum != XXH3_64bits(found, h->n_chunks * sizeof(*found)))
                return fault_set(ret_fault, -EBADMSG,
                                 "contents_checksum at byte 240: does not match,"
                                 " the contents table is damaged");
        for (uint32_t i = 0; i < plan->n_chunks; i++) {
                size_t at = sizeof(*h) + i * sizeof(*found);
                const struct {
                        const char *field;
                        size_t at;
                        uint64_t found, wanted;
                } fields[] = {
                        { "id", at, found[i].id, wanted[i].id },
                        { "reserved", at + 4, found[i].reserved, 0 },
                        { "offset", at + 8, found[i].offset, wanted[i].offset },
                        { "length", at + 16, found[i].length, wanted[i].length },
                };

                for (size_t f = 0; f < ARRAY_SIZE(fields); f++)
                        if (fields[f].found != fields[f].wanted)
                                return fault_set(ret_fault, -EBADMSG,
                                                 "chunk %s, %s at byte %zu: found %" PRIu64
                                                 ", expected %" PRIu64,
                                                 table_chunk_name(wanted[i].id), fields[f].field,
                                                 fields[f].at, fields[f].found, fields[f].wanted);
        }
        return 0;
}

/* The meta chunk is optional and the only one whose length the parameters do not give. */
static uint64_t claimed_meta_bytes(const struct table_header *h, const struct table_chunk *chunks) {
        const struct table_chunk *last = &chunks[h->n_chunks - 1];

        return last->id == TABLE_CHUNK_META ? last->length : 0;
}

static int read_header(const void *head, size_t head_bytes, uint64_t file_bytes,
                       struct table_header *ret_header, struct fault *ret_fault) {
        struct table_header h;
        int r;

        if (head_bytes < sizeof(h))
                return fault_set(ret_fault, -EBADMSG,
                                 "the file has %" PRIu64 " bytes, expected at least %zu (header)",
                                 file_bytes, sizeof(h));
        memcpy(&h, head, sizeof(h));

        r = check_identity(&h, ret_fault);
        if (r < 0)
                return r;
        r = check_reserved(&h, ret_fault);
        if (r < 0)
                return r;
        if (h.file_bytes != file_bytes)
                return fault_set(ret_fault, -EBADMSG,
                                 "file_bytes at byte 32: the header says %" PRIu64
                                 ", the file has %" PRIu64 " (%s)",
                                 h.file_bytes, file_bytes,
                                 file_bytes < h.file_bytes ? "truncated" : "trailing bytes");
        *ret_header = h;
        return 0;
}

static int read_contents(const void *head, size_t head_bytes, const struct table_header *h,
                         struct table_chunk ret_chunks[TABLE_CHUNKS_MAX], struct fault *ret_fault) {
        size_t contents_bytes;

        if (h->n_chunks < 1 || h->n_chunks > TABLE_CHUNKS_MAX)
                return fault_set(ret_fault, -EBADMSG,
                                 "n_chunks at byte 64: found %" PRIu32 ", expected 1 to %u",
                                 h->n_chunks, TABLE_CHUNKS_MAX);
        contents_bytes = h->n_chunks * sizeof(struct table_chunk);
        if (contents_bytes > head_bytes - sizeof(*h))
                return fault_set(ret_fault, -EBADMSG,
                                 "the file has %" PRIu64
                                 " bytes, expected at least %zu (contents table)",
                                 h->file_bytes, sizeof(*h) + contents_bytes);
        memcpy(ret_chunks, (const uint8_t *)head + sizeof(*h), contents_bytes);
        return 0;
}

static void slice(const struct table_chunk *chunks, struct table_contents *contents) {
        for (uint32_t i = 0; i < contents->header.n_chunks; i++)
                switch (chunks[i].id) {
                case TABLE_CHUNK_CODEBOOKS:
                        contents->codebooks = chunks[i];
                        break;
                case TABLE_CHUNK_ADAPTOR:
                        contents->adaptor = chunks[i];
                        break;
                case TABLE_CHUNK_TIERS:
                        contents->tiers = chunks[i];
                        break;
                case TABLE_CHUNK_ROWS:
                        contents->rows = chunks[i];
                        break;
                case TABLE_CHUNK_META:
                        contents->meta = chunks[i];
                        break;
                }
}

int table_check(const void *head, size_t head_bytes, uint64_t file_bytes,
                struct table_contents *ret_contents, struct fault *ret_fault) {
        struct table_chunk found[TABLE_CHUNKS_MAX], wanted[TABLE_CHUNKS_MAX];
        struct table_contents c = { 0 };
        struct table_header plan;
        int r;

        r = read_header(head, head_bytes, file_bytes, &c.header, ret_fault);
        if (r < 0)
                return r;
        r = read_contents(head, head_bytes, &c.header, found, ret_fault);
        if (r < 0)
                return r;

        r = table_layout_compute(&c.header, &c.layout, ret_fault);
        if (r < 0)
                return -EBADMSG;
        plan = c.header;
        r = table_plan(&plan, claimed_meta_bytes(&c.header, found), wanted, ret_fault);
        if (r < 0)
                return -EBADMSG;
        if (plan.n_chunks != c.header.n_chunks)
                return fault_set(ret_fault, -EBADMSG,
                                 "n_chunks at byte 64: found %" PRIu32 ", expected %" PRIu32,
                                 c.header.n_chunks, plan.n_chunks);
        r = check_contents(&c.header, found, &plan, wanted, ret_fault);
        if (r < 0)
                return r;
        if (c.header.record_bytes != plan.record_bytes)
                return fault_set(ret_fault, -EBADMSG,
                                 "record_bytes at byte 56: found %" PRIu64 ", expected %" PRIu64,
                                 c.header.record_bytes, plan.record_bytes);
        if (c.header.file_bytes != plan.file_bytes)
                return fault_set(ret_fault, -EBADMSG,
                                 "file_bytes at byte 32: found %" PRIu64 ", expected %" PRIu64
                                 " (end of the last chunk)",
                                 c.header.file_bytes, plan.file_bytes);

        slice(found, &c);
        *ret_contents = c;
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A .carvq file as a read-only mapping. Trusts nothing but the kernel's word on the file's length;
 * a file cut short while mapped raises SIGBUS in whoever touches it, and the owner of the mapping
 * deals with that. Mapping reads one page, the tier map and the
 * adaptor; only verification reads the rest. Any
 * thread.
 */
#include "codec.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Below this a fault's read-ahead (whole megabytes) soon has the table resident, which is what a
 * small table wants. */
#define RANDOM_ADVICE_BYTES (UINT64_C(64) << 20)

/* Read ahead of the checksum by this much, since the advice above turns the kernel's off. */
#define VERIFY_WINDOW_BYTES (UINT64_C(4) << 20)

/* 32 KiB of the tier map at a time. */
#define TIER_WINDOW_BLOCKS 512u

void codec_table_init(struct codec_table *table, const struct table_contents *contents,
                      const void *file) {
        const uint8_t *bytes = file;

        *table = (struct codec_table){
                .contents = *contents,
                .rows = bytes + contents->rows.offset,
        };
        if (contents->codebooks.length)
                table->codebooks = (const void *)(bytes + contents->codebooks.offset +
                                                  contents->layout.col_scale_bytes);
        if (contents->layout.col_scale_bytes)
                table->col_scales = (const void *)(bytes + contents->codebooks.offset);
        if (contents->adaptor.length)
                table->adaptor = (const void *)(bytes + contents->adaptor.offset);
        if (contents->tiers.length)
                table->tiers = (const void *)(bytes + contents->tiers.offset);
}

static int read_at(int fd, uint64_t offset, void *bytes, size_t wanted, size_t *ret_bytes) {
        size_t n = 0;

        while (n < wanted) {
                ssize_t r = pread(fd, (uint8_t *)bytes + n, wanted - n, (off_t)(offset + n));

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        break; /* cut since fstat: the checker sees too few bytes */
                n += (size_t)r;
        }
        *ret_bytes = n;
        return 0;
}

/* By pread(), not through a mapping: a file that is cut now must not kill who opens it. */
static int check_tiers(int fd, const struct table_contents *c, struct fault *ret_fault) {
        struct table_tier_block blocks[TIER_WINDOW_BLOCKS];
        struct table_tiers_cursor cursor = { 0 };
        uint64_t end = c->tiers.offset + c->tiers.length;

        for (uint64_t at = c->tiers.offset; at < end;) {
                size_t wanted = MIN(sizeof(blocks), end - at), n_bytes = 0;
                int r;

                r = read_at(fd, at, blocks, wanted, &n_bytes);
                if (r < 0)
                        return fault_set(ret_fault, r, "read of chunk tiers: %s", strerror(-r));
                if (n_bytes < wanted)
                        return fault_set(ret_fault, -EBADMSG,
                                         "chunk tiers: the file ends at byte %" PRIu64
                                         ", expected it to go on to byte %" PRIu64,
                                         at + n_bytes, end);
                r = table_tiers_check_next(c, blocks, wanted / sizeof(blocks[0]), &cursor,
                                           ret_fault);
                if (r < 0)
                        return r;
                at += wanted;
        }
        return 0;
}

/* A chunk's first `n` bytes; NULL for none. */
static int read_chunk(int fd, const char *name, uint64_t offset, uint64_t n, void **ret_bytes,
                      struct fault *ret_fault) {
        _cleanup_(freep) void *bytes = NULL;
        size_t n_bytes = 0;
        int r;

        *ret_bytes = NULL;
        if (!n)
                return 0;
        bytes = malloc(n);
        if (!bytes)
                return fault_set(ret_fault, -ENOMEM, "out of memory for chunk %s", name);
        r = read_at(fd, offset, bytes, n, &n_bytes);
        if (r < 0)
                return fault_set(ret_fault, r, "read of chunk %s: %s", name, strerror(-r));
        if (n_bytes < n)
                return fault_set(ret_fault, -EBADMSG,
                                 "chunk %s: the file ends at byte %" PRIu64
                                 ", expected it to go on to byte %" PRIu64,
                                 name, offset + n_bytes, offset + n);
        *ret_bytes = steal_pointer(&bytes);
        return 0;
}

/* By pread() like the tier map, and a copy, so that what the kernels run on is whole and stays. */
static int prepare(int fd, const struct table_contents *c, struct codec_prepared **ret_prepared,
                   struct fault *ret_fault) {
        uint64_t n_scale_bytes = c->header.col_scale ? c->header.n_dims * sizeof(uint16_t) : 0;
        _cleanup_(freep) void *col_scales = NULL, *adaptor = NULL;
        int r;

        r = read_chunk(fd, "codebooks", c->codebooks.offset, n_scale_bytes, &col_scales, ret_fault);
        if (r >= 0)
                r = read_chunk(fd, "adaptor", c->adaptor.offset, c->adaptor.length, &adaptor,
                               ret_fault);
        if (r < 0)
                return r;
        r = codec_prepare(&c->header, col_scales, adaptor, ret_prepared);
        return r < 0 ? fault_set(ret_fault, r, "out of memory for columns and adaptor") : 0;
}

static void preparedp_free(struct codec_prepared **prepared) {
        codec_prepared_free(*prepared);
}

int codec_file_map(int fd, struct codec_file *ret_file, struct fault *ret_fault) {
        _cleanup_(preparedp_free) struct codec_prepared *prepared = NULL;
        uint8_t head[TABLE_HEAD_BYTES_MAX];
        struct table_contents contents;
        size_t head_bytes = 0;
        struct stat st;
        void *map;
        int r;

        if (fstat(fd, &st) < 0)
                return fault_set(ret_fault, -errno, "fstat: %s", strerror(errno));
        if (!S_ISREG(st.st_mode))
                return fault_set(ret_fault, -EBADMSG, "not a regular file");

        r = read_at(fd, 0, head, MIN(sizeof(head), (uint64_t)st.st_size), &head_bytes);
        if (r < 0)
                return fault_set(ret_fault, r, "read of the header: %s", strerror(-r));
        r = table_check(head, head_bytes, (uint64_t)st.st_size, &contents, ret_fault);
        if (r >= 0)
                r = check_tiers(fd, &contents, ret_fault);
        if (r >= 0)
                r = prepare(fd, &contents, &prepared, ret_fault);
        if (r < 0)
                return r;

        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return fault_set(ret_fault, -errno, "mmap of %" PRIu64 " bytes: %s",
                                 (uint64_t)st.st_size, strerror(errno));

        /* With no advice a cold look-up reads megabytes ahead and pulls in the whole file; a
         * populated mapping would evict everybody else's pages. Advice: failure costs only time. */
        if (contents.rows.length > RANDOM_ADVICE_BYTES)
                (void)madvise((uint8_t *)map + contents.rows.offset, contents.rows.length,
                              MADV_RANDOM);

        *ret_file = (struct codec_file){ .map = map, .map_bytes = (uint64_t)st.st_size };
        codec_table_init(&ret_file->table, &contents, map);
        ret_file->table.prepared = steal_pointer(&prepared);
        return 0;
}

int codec_file_open(const char *path, struct codec_file *ret_file, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        struct fault why = { 0 };
        int r;

        /* O_NONBLOCK: opening a FIFO by mistake must not hang; it changes nothing for files. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        r = codec_file_map(fd, ret_file, &why);
        return r < 0 ? fault_set(ret_fault, r, "%s: %s", path, why.text) : 0;
}

void codec_file_unmap(struct codec_file *file) {
        if (file->map)
                munmap((void *)file->map, file->map_bytes);
        codec_prepared_free(file->table.prepared);
        *file = (struct codec_file){ 0 };
}

/* Asks for the window that starts at `offset`, to be read while the one before it is summed. */
static void read_ahead(const struct codec_file *file, uint64_t offset) {
        if (offset < file->map_bytes)
                (void)madvise((uint8_t *)file->map + offset,
                              MIN(VERIFY_WINDOW_BYTES, file->map_bytes - offset), MADV_WILLNEED);
}

/* Resident memory does not grow with the file; the page cache keeps what it likes. */
static void let_go(const struct codec_file *file, uint64_t first, uint64_t end) {
        first -= first % VERIFY_WINDOW_BYTES;
        (void)madvise((uint8_t *)file->map + first, end - first, MADV_DONTNEED);
}

static int sum_chunk(const struct codec_file *file, const struct table_chunk *chunk,
                     uint64_t *ret_checksum) {
        const uint64_t end = chunk->offset + chunk->length;
        XXH3_state_t *state = XXH3_createState();

        if (!state)
                return -ENOMEM;
        XXH3_64bits_reset(state);
        /* Windows lie on page boundaries of the file; the first and last are cut to the chunk. */
        for (uint64_t at = chunk->offset; at < end;) {
                uint64_t next = (at / VERIFY_WINDOW_BYTES + 1) * VERIFY_WINDOW_BYTES;

                read_ahead(file, next);
                next = MIN(next, end);
                XXH3_64bits_update(state, (const uint8_t *)file->map + at, next - at);
                let_go(file, at, next);
                at = next;
        }
        *ret_checksum = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return 0;
}

/* The layout is canonical, bytes between chunks included: they are zero. */
static int check_gap(const struct codec_file *file, uint64_t first, uint64_t end, const char *name,
                     struct fault *ret_fault) {
        const uint8_t *bytes = file->map;

        for (uint64_t i = first; i < end; i++)
                if (bytes[i])
                        return fault_set(ret_fault, -EBADMSG,
                                         "padding before chunk %s, byte %" PRIu64
                                         ": found 0x%02x, expected 0",
                                         name, i, bytes[i]);
        return 0;
}

/* A chunk, and the padding that ends before it and starts at `gap_first`. */
static int verify_chunk(const struct codec_file *file, const struct table_chunk *chunk,
                        uint64_t gap_first, struct fault *ret_fault) {
        const char *name = table_chunk_name(chunk->id);
        uint64_t checksum;
        int r;

        r = sum_chunk(file, chunk, &checksum);
        if (r < 0)
                return fault_set(ret_fault, r, "out of memory");
        if (checksum != chunk->checksum)
                return fault_set(ret_fault, -EBADMSG,
                                 "chunk %s is damaged, bytes %" PRIu64 " to %" PRIu64
                                 ": checksum is %016" PRIx64 ", expected %016" PRIx64,
                                 name, chunk->offset, chunk->offset + chunk->length - 1, checksum,
                                 chunk->checksum);
        if (chunk->id == TABLE_CHUNK_TIERS) {
                r = table_tiers_check(&file->table.contents, file->table.tiers, ret_fault);
                if (r < 0)
                        return r;
        }
        return check_gap(file, gap_first, chunk->offset, name, ret_fault);
}

int codec_file_verify(const struct codec_file *file, codec_verify_report report, void *userdata,
                      struct fault *ret_fault) {
        const struct table_contents *c = &file->table.contents;
        const struct table_chunk *chunks[] = { &c->codebooks, &c->adaptor, &c->tiers, &c->rows,
                                               &c->meta };
        uint64_t end = sizeof(c->header) + c->header.n_chunks * sizeof(struct table_chunk);
        int first_r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
                struct fault fault = { 0 };
                int r;

                if (!chunks[i]->length)
                        continue;
                r = verify_chunk(file, chunks[i], end, &fault);
                end = chunks[i]->offset + chunks[i]->length;
                if (report)
                        report(userdata, table_chunk_name(chunks[i]->id), r, &fault);
                if (r < 0 && first_r == 0)
                        first_r = fault_set(ret_fault, r, "%s", fault.text);
                if (r < 0 && !report)
                        break;
        }
        return first_r;
}

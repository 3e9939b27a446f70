/* SPDX-License-Identifier: Apache-2.0 */
/* See make-table.h. Fails by ending the test program: a fixture that cannot be made is no verdict.
 */
#include "guarded-table.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "lib/codec/codec.h"

#define DEFAULT_SEED UINT64_C(20251117)

uint64_t test_random(uint64_t *state) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return *state * UINT64_C(0x2545f4914f6cdd1d);
}

uint16_t test_random_half(uint64_t *state) {
        return (uint16_t)(0x2c00 | (test_random(state) >> 32 & 0x83ff));
}

uint64_t test_seed(void) {
        const char *text = getenv("CARVQ_TEST_SEED");
        uint64_t seed = text ? strtoull(text, NULL, 0) : DEFAULT_SEED;

        printf("# CARVQ_TEST_SEED=%" PRIu64 "\n", seed);
        return seed ? seed : 1;
}

static void die(const char *what) {
        fprintf(stderr, "make-table: %s\n", what);
        abort();
}

void guarded_init(struct guarded *memory, size_t n_bytes) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE), body = align_up(n_bytes, page);
        uint8_t *map =
                mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (map == MAP_FAILED || mprotect(map + body, page, PROT_NONE) < 0)
                die("no memory");
        *memory = (struct guarded){
                .bytes = map + body - n_bytes,
                .n_bytes = n_bytes,
                .map = map,
                .map_bytes = body + page,
        };
}

void guarded_deinit(struct guarded *memory) {
        munmap(memory->map, memory->map_bytes);
        *memory = (struct guarded){ 0 };
}

static void fill_halves(uint8_t *bytes, uint64_t n, uint64_t *random) {
        for (uint64_t i = 0; i < n; i++) {
                uint16_t half = test_random_half(random);
                memcpy(bytes + 2 * i, &half, sizeof(half));
        }
}

static void fill_record(const struct table_header *h, uint8_t *record, uint64_t *random) {
        float value;

        for (uint64_t i = 0; i < h->record_bytes; i++)
                record[i] = (uint8_t)(test_random(random) >> 32);
        switch (h->codec) {
        case TABLE_CODEC_F32:
                for (uint32_t i = 0; i < h->n_dims; i++) {
                        value = (float)(int32_t)(test_random(random) >> 32) * 0x1p-31f;
                        memcpy(record + 4 * (size_t)i, &value, sizeof(value));
                }
                break;
        case TABLE_CODEC_F16:
                fill_halves(record, h->n_dims, random);
                break;
        case TABLE_CODEC_INT8:
        case TABLE_CODEC_INT4:
                value = (float)(test_random(random) >> 40) * 0x1p-28f;
                memcpy(record, &value, sizeof(value));
                break;
        case TABLE_CODEC_CARVQ:
                fill_halves(record, h->row_scale + (uint64_t)h->latent_dims, random);
                break;
        }
}

void make_table(struct table_header *header, const char *meta, uint64_t *random,
                struct guarded *ret_file) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct fault fault = { 0 };
        struct guarded file;

        if (table_plan(header, meta ? strlen(meta) : 0, chunks, &fault) < 0)
                die(fault.text);

        guarded_init(&file, align_up(header->file_bytes, TABLE_CHUNK_ALIGNMENT));
        for (uint32_t i = 0; i < header->n_chunks; i++) {
                struct table_chunk *c = &chunks[i];
                uint8_t *bytes = file.bytes + c->offset;

                if (c->id == TABLE_CHUNK_ROWS)
                        for (uint64_t row = 0; row < header->n_rows; row++)
                                fill_record(header, bytes + row * header->record_bytes, random);
                else if (c->id == TABLE_CHUNK_META)
                        memcpy(bytes, meta, c->length);
                else
                        fill_halves(bytes, c->length / 2, random);
                c->checksum = XXH3_64bits(bytes, c->length);
        }
        table_seal(header, chunks);
        memcpy(file.bytes, header, sizeof(*header));
        memcpy(file.bytes + sizeof(*header), chunks, header->n_chunks * sizeof(chunks[0]));
        *ret_file = file;
}

static void guard_chunk(const struct table_chunk *chunk, const struct guarded *file,
                        struct guarded *ret_memory) {
        guarded_init(ret_memory, chunk->length);
        memcpy(ret_memory->bytes, file->bytes + chunk->offset, chunk->length);
}

void guard_table(const struct table_contents *contents, const struct guarded *file,
                 struct codec_table *ret_table, struct guarded_table *ret_memory) {
        guard_chunk(&contents->rows, file, &ret_memory->rows);
        guard_chunk(&contents->codebooks, file, &ret_memory->codebooks);
        guard_chunk(&contents->adaptor, file, &ret_memory->adaptor);
        *ret_table = (struct codec_table){
                .contents = *contents,
                .rows = ret_memory->rows.bytes,
                .codebooks = (const void *)ret_memory->codebooks.bytes,
                .adaptor = (const void *)ret_memory->adaptor.bytes,
        };
}

void guarded_table_deinit(struct guarded_table *memory) {
        guarded_deinit(&memory->rows);
        guarded_deinit(&memory->codebooks);
        guarded_deinit(&memory->adaptor);
}

size_t test_kernels(const struct codec_kernels *ret_sets[8]) {
        size_t n = 0;

        for (uint32_t mask = 0; mask < 8; mask++) {
                const struct codec_kernels *set = codec_kernels_choose(codec_cpu_features() & mask);
                bool known = false;

                for (size_t i = 0; i < n; i++)
                        known = known || ret_sets[i] == set;
                if (known)
                        continue;
                ret_sets[n++] = set;
                printf("# kernels: %s\n", set->name);
        }
        return n;
}

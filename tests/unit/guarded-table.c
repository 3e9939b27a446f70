/* SPDX-License-Identifier: Apache-2.0 */
/* See make-table.h. Fails by ending the test program: a fixture that cannot be made is no verdict.
 */
#include "guarded-table.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
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

void guarded_init_at(struct guarded *memory, size_t n_bytes, enum guard guard) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE), body = align_up(n_bytes, page);
        uint8_t *map = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (map == MAP_FAILED || (body && mprotect(map + page, body, PROT_READ | PROT_WRITE) < 0))
                die("no memory");
        *memory = (struct guarded){
                .bytes = map + page + (guard == GUARD_BEHIND ? body - n_bytes : 0),
                .n_bytes = n_bytes,
                .map = map,
                .map_bytes = body + 2 * page,
        };
}

void guarded_deinit(struct guarded *memory) {
        munmap(memory->map, memory->map_bytes);
        *memory = (struct guarded){ 0 };
}

void guarded_init(struct guarded *memory, size_t n_bytes) {
        guarded_init_at(memory, n_bytes, GUARD_BEHIND);
}

static void fill_halves(uint8_t *bytes, uint64_t n, uint64_t *random) {
        for (uint64_t i = 0; i < n; i++) {
                uint16_t half = test_random_half(random);
                memcpy(bytes + 2 * i, &half, sizeof(half));
        }
}

static void fill_bytes(uint8_t *bytes, uint64_t n, uint64_t *random) {
        for (uint64_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)(test_random(random) >> 32);
}

static void fill_record(const struct table_header *h, uint8_t *record, uint64_t n_bytes,
                        uint64_t *random) {
        float value;

        fill_bytes(record, n_bytes, random);
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
                fill_halves(record, h->row_scale + (h->latent_bits == 16 ? h->latent_dims : 0ull),
                            random);
                break;
        }
}

void test_random_tiers(const struct table_header *h, uint64_t *random, uint8_t *ret_tiers) {
        memset(ret_tiers, 0, h->n_rows);
        for (uint32_t t = 1; t < h->n_tiers; t++)
                for (uint64_t n = 0; n < h->tier_rows[t - 1];) {
                        uint64_t row = test_random(random) % h->n_rows;

                        /* Falls on the next of the rows that have one tier less. */
                        while (ret_tiers[row] != t - 1)
                                row = (row + 1) % h->n_rows;
                        ret_tiers[row] = (uint8_t)t;
                        n++;
                }
}

static void fill_rows(const struct table_header *h, const struct table_layout *l,
                      const uint8_t *tiers, uint8_t *bytes, uint64_t *random) {
        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint64_t n_bytes = tiers ? l->tier_bytes[tiers[row]] : l->record_bytes;

                fill_record(h, bytes, n_bytes, random);
                if (tiers && tiers[row] >= table_code_tiers(h))
                        fill_halves(bytes, 1, random); /* its scale */
                bytes += n_bytes;
        }
}

/* Of an int8 adaptor only the halves are halves. */
static void fill_adaptor(const struct table_header *h, uint8_t *bytes, uint64_t n_bytes,
                         uint64_t *random) {
        const size_t outs[] = { h->hidden_dims[0], h->hidden_dims[1], h->n_dims };
        size_t n_in = h->latent_dims;

        fill_halves(bytes, n_bytes / 2, random);
        for (size_t i = 0; h->adaptor_type == TABLE_ADAPTOR_INT8 && i < ARRAY_SIZE(outs); i++) {
                if (!outs[i])
                        continue;
                fill_bytes(bytes + 4 * outs[i], n_in * outs[i], random);
                bytes += 4 * outs[i] + (n_in * outs[i] + 1) / 2 * 2;
                n_in = outs[i];
        }
}

void make_table(struct table_header *header, const char *meta, uint64_t *random,
                struct guarded *ret_file) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        _cleanup_(freep) uint8_t *tiers = NULL;
        struct fault fault = { 0 };
        struct table_layout layout;
        struct guarded file;

        if (header->codec == TABLE_CODEC_CARVQ && !header->n_tiers)
                table_set_one_tier(header, header->n_stages);
        else if (header->n_tiers && !header->tier_bits[table_code_tiers(header) - 1])
                table_set_code_bits(header);
        else if (header->n_tiers)
                table_set_tier_scales(header);
        if (table_plan(header, meta ? strlen(meta) : 0, chunks, &fault) < 0)
                die(fault.text);
        table_layout_compute(header, &layout, NULL);
        if (header->n_tiers > 1) {
                tiers = malloc(header->n_rows);
                test_random_tiers(header, random, tiers);
        }

        guarded_init(&file, align_up(header->file_bytes, TABLE_CHUNK_ALIGNMENT));
        for (uint32_t i = 0; i < header->n_chunks; i++) {
                struct table_chunk *c = &chunks[i];
                uint8_t *bytes = file.bytes + c->offset;

                if (c->id == TABLE_CHUNK_ROWS)
                        fill_rows(header, &layout, tiers, bytes, random);
                else if (c->id == TABLE_CHUNK_TIERS)
                        table_tiers_fill(header, tiers, (void *)bytes);
                else if (c->id == TABLE_CHUNK_ADAPTOR)
                        fill_adaptor(header, bytes, c->length, random);
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
                        enum guard guard, struct guarded *ret_memory) {
        guarded_init_at(ret_memory, chunk->length, guard);
        memcpy(ret_memory->bytes, file->bytes + chunk->offset, chunk->length);
}

void guard_table(const struct table_contents *contents, const struct guarded *file,
                 enum guard guard, struct codec_table *ret_table,
                 struct guarded_table *ret_memory) {
        uint64_t col_scale_bytes = contents->layout.col_scale_bytes;

        guard_chunk(&contents->rows, file, guard, &ret_memory->rows);
        guard_chunk(&contents->codebooks, file, guard, &ret_memory->codebooks);
        guard_chunk(&contents->adaptor, file, guard, &ret_memory->adaptor);
        guard_chunk(&contents->tiers, file, guard, &ret_memory->tiers);
        *ret_table = (struct codec_table){
                .contents = *contents,
                .rows = ret_memory->rows.bytes,
                .codebooks = (const void *)(ret_memory->codebooks.bytes + col_scale_bytes),
                .col_scales = col_scale_bytes ? (const void *)ret_memory->codebooks.bytes : NULL,
                .adaptor = (const void *)ret_memory->adaptor.bytes,
                .tiers = (const void *)ret_memory->tiers.bytes,
        };
}

void guarded_table_deinit(struct guarded_table *memory) {
        guarded_deinit(&memory->rows);
        guarded_deinit(&memory->codebooks);
        guarded_deinit(&memory->adaptor);
        guarded_deinit(&memory->tiers);
}

size_t test_kernels(const struct codec_kernels *ret_sets[8]) {
        size_t n = 0;

        for (uint32_t mask = 0; mask < 64; mask++) {
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

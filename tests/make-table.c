/* SPDX-License-Identifier: Apache-2.0 */
#include "make-table.h"

#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t next(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static void fill_bytes(uint8_t *p, uint64_t n, uint64_t *state) {
        while (n--)
                *p++ = (uint8_t)(next(state) >> 32);
}

/* Of magnitude 2^-7 to 2, both signs. */
static void fill_halves(uint8_t *p, uint64_t n_bytes, uint64_t *state) {
        for (uint64_t i = 0; i + 1 < n_bytes; i += 2) {
                uint64_t r = next(state) >> 16;
                uint16_t half = (uint16_t)((r & 0x83ff) | ((8 + (r >> 16) % 8) << 10));

                memcpy(p + i, &half, sizeof(half));
        }
}

static void fill_record(uint8_t *p, const struct table_header *h, const struct table_layout *l,
                        uint64_t *state) {
        float scale = 0.5f + (float)(next(state) >> 40) * 0x1p-24f;

        switch (h->codec) {
        case TABLE_CODEC_F32:
                for (uint32_t i = 0; i < h->n_dims; i++, p += sizeof(float)) {
                        float value = (float)(int32_t)(next(state) >> 32) * 0x1p-31f;

                        memcpy(p, &value, sizeof(value));
                }
                return;
        case TABLE_CODEC_F16:
        case TABLE_CODEC_BF16: /* the pattern is finite as bf16, too */
                fill_halves(p, l->record_bytes, state);
                return;
        case TABLE_CODEC_INT8:
        case TABLE_CODEC_INT4:
                memcpy(p, &scale, sizeof(scale));
                fill_bytes(p + sizeof(scale), l->record_bytes - sizeof(scale), state);
                return;
        }
}

/* The first rows are of the highest tier, as in a vocabulary in order of frequency. */
static uint32_t tier_of(const struct table_header *h, uint64_t row) {
        uint32_t tier = 0;

        while (tier + 1 < h->n_tiers && row < h->tier_rows[tier])
                tier++;
        return tier;
}

static void fill_carvq(uint8_t *p, const struct table_header *h, const struct table_layout *l,
                       uint64_t *state) {
        uint64_t halves = l->codes_offset & ~UINT64_C(1);

        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint64_t n_bytes = l->tier_bytes[tier_of(h, row)];

                fill_halves(p, halves, state);
                fill_bytes(p + halves, n_bytes - halves, state);
                p += n_bytes;
        }
}

static void fill_tiers(uint8_t *p, const struct table_header *h) {
        uint8_t *tiers = malloc(h->n_rows);

        if (!tiers)
                abort();
        for (uint64_t row = 0; row < h->n_rows; row++)
                tiers[row] = (uint8_t)tier_of(h, row);
        table_tiers_fill(h, tiers, (void *)p);
        free(tiers);
}

static void require(int r, const struct fault *fault) {
        if (r >= 0)
                return;
        fprintf(stderr, "make_table: %s\n", fault->text);
        abort();
}

uint8_t *make_table(const struct table_header *parameters, uint64_t seed, uint64_t *ret_bytes) {
        static const char meta[] = "{\"packer\":\"make-table\"}";
        struct table_header h = *parameters;
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct table_layout l;
        struct fault fault = { 0 };
        uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        uint8_t *file;

        if (h.codec == TABLE_CODEC_CARVQ && !h.n_tiers)
                table_set_one_tier(&h, h.n_stages);
        else if (h.n_tiers && !h.tier_bits[table_code_tiers(&h) - 1])
                table_set_code_bits(&h);
        else if (h.n_tiers)
                table_set_tier_scales(&h);
        require(table_layout_compute(&h, &l, &fault), &fault);
        require(table_plan(&h, sizeof(meta) - 1, chunks, &fault), &fault);
        file = calloc(1, h.file_bytes);
        if (!file)
                abort();
        for (uint32_t i = 0; i < h.n_chunks; i++) {
                uint8_t *p = file + chunks[i].offset;

                if (chunks[i].id == TABLE_CHUNK_META)
                        memcpy(p, meta, chunks[i].length);
                else if (chunks[i].id == TABLE_CHUNK_TIERS)
                        fill_tiers(p, &h);
                else if (chunks[i].id == TABLE_CHUNK_ROWS && h.codec == TABLE_CODEC_CARVQ)
                        fill_carvq(p, &h, &l, &state);
                else if (chunks[i].id == TABLE_CHUNK_ROWS)
                        for (uint64_t r = 0; r < h.n_rows; r++)
                                fill_record(p + r * l.record_bytes, &h, &l, &state);
                else
                        fill_halves(p, chunks[i].length, &state);
                chunks[i].checksum = XXH3_64bits(p, chunks[i].length);
        }
        table_seal(&h, chunks);
        memcpy(file, &h, sizeof(h));
        memcpy(file + sizeof(h), chunks, h.n_chunks * sizeof(*chunks));
        *ret_bytes = h.file_bytes;
        return file;
}

void make_table_file(const char *path, const struct table_header *parameters, uint64_t seed) {
        uint64_t bytes;
        _cleanup_(freep) uint8_t *file = make_table(parameters, seed, &bytes);
        FILE *f = fopen(path, "we");

        if (!f || fwrite(file, 1, bytes, f) != bytes || fclose(f) != 0) {
                perror(path);
                abort();
        }
}

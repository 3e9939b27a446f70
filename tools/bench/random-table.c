/* SPDX-License-Identifier: Apache-2.0 */
#include "random-table.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "memory-table.h"

/* Halves of ordinary size, 2^-4 to 2^-3: what is decoded must not be slow for being strange. */
static void fill_halves(uint16_t *halves, uint64_t n, uint64_t *random) {
        for (uint64_t i = 0; i < n; i++)
                halves[i] = (uint16_t)(0x2c00 | (random_next(random) & 0x83ff));
}

static void fill_rows(const struct codec_table *table, uint8_t *rows, uint64_t *random) {
        const struct table_contents *c = &table->contents;
        const struct table_header *h = &c->header;
        uint32_t n_halves = h->row_scale + (h->latent_bits == 16 ? h->latent_dims : 0);
        float scale = 0.01f;

        if (h->codec == TABLE_CODEC_F16 || h->codec == TABLE_CODEC_BF16) {
                fill_halves((void *)rows, c->rows.length / 2, random);
                return;
        }
        for (uint64_t i = 0; i + 8 <= c->rows.length; i += 8) {
                uint64_t word = random_next(random);
                memcpy(rows + i, &word, 8);
        }
        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint8_t *record = rows + (codec_kernels_scalar.find(table, row).bytes - rows);

                if (h->codec == TABLE_CODEC_INT8 || h->codec == TABLE_CODEC_INT4)
                        memcpy(record, &scale, sizeof(scale));
                for (uint32_t i = 0; i < n_halves; i++) {
                        uint16_t half = (uint16_t)(0x2c00 | (random_next(random) & 0x83ff));
                        memcpy(record + 2 * i, &half, sizeof(half));
                }
        }
}

/* High rows lie scattered: every fourth has one tier more than the first, every 16th two ... */
static uint32_t tier_of(const struct table_header *h, uint64_t row) {
        uint32_t tier = 0;

        for (; tier + 1 < h->n_tiers && row % 4 == 0; row /= 4)
                tier++;
        return tier;
}

static void count_tiers(struct table_header *h) {
        for (uint64_t row = 0; row < h->n_rows; row++)
                for (uint32_t tier = tier_of(h, row); tier; tier--)
                        h->tier_rows[tier - 1]++;
}

static void fill_tiers(const struct table_header *h, struct table_tier_block *blocks) {
        uint8_t *tiers = allocate(h->n_rows, 1);

        for (uint64_t row = 0; row < h->n_rows; row++)
                tiers[row] = (uint8_t)tier_of(h, row);
        table_tiers_fill(h, tiers, blocks);
        free(tiers);
}

/* What its owner may leave out: groups, tiers. */
static void complete_header(struct table_header *h) {
        if (h->codec != TABLE_CODEC_CARVQ)
                return;
        h->group_rows = h->n_rows;
        if (!h->n_tiers)
                table_set_one_tier(h, h->n_stages);
        else if (!h->tier_bits[h->n_tiers - 1])
                table_set_code_bits(h);
        table_set_tier_scales(h);
        count_tiers(h);
}

void random_table_new(struct table_header header, uint64_t n_rows, uint32_t n_dims, uint64_t seed,
                      struct codec_file *ret_file) {
        const struct table_contents *contents = &ret_file->table.contents;
        struct fault fault = { 0 };
        uint64_t random = seed;
        uint8_t *file;

        header.n_rows = n_rows;
        header.n_dims = n_dims;
        complete_header(&header);
        if (memory_table_new(&header, ret_file, &fault) < 0)
                die("%s", fault.text);
        file = (uint8_t *)ret_file->map;
        fill_halves((void *)(file + contents->codebooks.offset), contents->codebooks.length / 2,
                    &random);
        fill_halves((void *)(file + contents->adaptor.offset), contents->adaptor.length / 2,
                    &random);
        fill_tiers(&header, (void *)(file + contents->tiers.offset));
        fill_rows(&ret_file->table, file + contents->rows.offset, &random);
        if (codec_prepare(&header, ret_file->table.col_scales, ret_file->table.adaptor,
                          &ret_file->table.prepared) < 0)
                die("no memory for columns and adaptor");
}

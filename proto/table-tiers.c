/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tier map: made from the rows' tiers by whoever writes a table, checked by whoever opens one.
 * Trusts a checked header, and nothing in the map. Pure functions, any thread.
 */
#include "table.h"

#include <string.h>

void table_tiers_fill(const struct table_header *h, const uint8_t *tiers,
                      struct table_tier_block *ret_blocks) {
        for (uint32_t level = 1; level < h->n_tiers; level++) {
                uint64_t n_blocks = table_level_blocks(h, level), position = 0, rank = 0;

                memset(ret_blocks, 0, n_blocks * sizeof(*ret_blocks));
                for (uint64_t row = 0; row < h->n_rows; row++) {
                        struct table_tier_block *b = ret_blocks + position / TABLE_TIER_BLOCK_ROWS;
                        uint64_t bit = position % TABLE_TIER_BLOCK_ROWS;

                        if (tiers[row] + 1u < level) /* not among this level's rows */
                                continue;
                        if (bit == 0)
                                b->rank = rank;
                        b->bits[bit / 64] |= (uint64_t)(tiers[row] >= level) << bit % 64;
                        rank += tiers[row] >= level;
                        position++;
                }
                ret_blocks += n_blocks;
        }
}

/* Ones of a block; the first set bit at or past `n_rows`, of which there must be none. */
static uint64_t count_ones(const struct table_tier_block *b, uint64_t n_rows, uint64_t *ret_past) {
        uint64_t n_ones = 0;

        *ret_past = TABLE_TIER_BLOCK_ROWS;
        for (uint64_t w = 0; w < ARRAY_SIZE(b->bits); w++) {
                uint64_t first = w * 64, n = n_rows > first ? MIN(n_rows - first, 64) : 0;
                uint64_t past = n < 64 ? b->bits[w] >> n << n : 0;

                if (past && *ret_past == TABLE_TIER_BLOCK_ROWS)
                        *ret_past = first + (uint64_t)__builtin_ctzll(past);
                n_ones += (uint64_t)__builtin_popcountll(b->bits[w]);
        }
        return n_ones;
}

static int check_block(const struct table_header *h, const struct table_tier_block *b,
                       struct table_tiers_cursor *c, struct fault *ret_fault) {
        uint64_t first = c->block * TABLE_TIER_BLOCK_ROWS, past;
        uint64_t n_rows = MIN(table_level_rows(h, c->level) - first, TABLE_TIER_BLOCK_ROWS);
        uint64_t n_ones = count_ones(b, n_rows, &past);

        if (b->rank != c->rank)
                return fault_set(ret_fault, -EBADMSG,
                                 "chunk tiers, level %" PRIu32 ", block %" PRIu64
                                 ": rank is %" PRIu64 ", expected %" PRIu64,
                                 c->level, c->block, b->rank, c->rank);
        if (past != TABLE_TIER_BLOCK_ROWS)
                return fault_set(ret_fault, -EBADMSG,
                                 "chunk tiers, level %" PRIu32 ", block %" PRIu64 ": bit %" PRIu64
                                 " is set, expected none from bit %" PRIu64 " on",
                                 c->level, c->block, past, n_rows);
        c->rank += n_ones;
        c->block++;
        if (c->block == table_level_blocks(h, c->level) && c->rank != h->tier_rows[c->level - 1])
                return fault_set(ret_fault, -EBADMSG,
                                 "chunk tiers, level %" PRIu32 ", block %" PRIu64
                                 ": the level marks %" PRIu64 " rows, expected %" PRIu64
                                 " (tier_rows[%" PRIu32 "])",
                                 c->level, c->block - 1, c->rank, h->tier_rows[c->level - 1],
                                 c->level - 1);
        return 0;
}

int table_tiers_check_next(const struct table_contents *contents,
                           const struct table_tier_block *blocks, uint64_t n_blocks,
                           struct table_tiers_cursor *cursor, struct fault *ret_fault) {
        const struct table_header *h = &contents->header;

        for (uint64_t i = 0; i < n_blocks; i++) {
                int r;

                if (cursor->level == 0 || cursor->block == table_level_blocks(h, cursor->level))
                        *cursor = (struct table_tiers_cursor){ .level = cursor->level + 1 };
                r = check_block(h, &blocks[i], cursor, ret_fault);
                if (r < 0)
                        return r;
        }
        return 0;
}

int table_tiers_check(const struct table_contents *contents, const struct table_tier_block *blocks,
                      struct fault *ret_fault) {
        struct table_tiers_cursor cursor = { 0 };

        return table_tiers_check_next(contents, blocks,
                                      contents->tiers.length / sizeof(struct table_tier_block),
                                      &cursor, ret_fault);
}

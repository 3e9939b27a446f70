/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See verify.h. Contents of a table's variants differ in every row, so a row tells which one it is
 * of. The rule: all rows of a lookup are those of one variant, to the bit (sums: but for rounding),
 * and that one is
 *   - the one that this generation of this daemon has turned out to be, for whichever client was
 *     the first to look: generations never change, and are the same for all;
 *   - else one that lay under the table's name when it was opened, or so shortly before that the
 *     daemon may not have noticed;
 *   - where the daemon died between the question and the answer, one of these two, the second with
 *     the time of the lookup for the time of opening.
 * Runs in clients, on memory of which all but the counters is theirs alone or read-only.
 */
#include "verify.h"

#include <math.h>
#include <string.h>

#include "tables.h"

/* ---- What generations are ---- */

/* SplitMix64's finalizer (Steele, Lea, Flood 2014); two keys with the same upper 56 bits are not to
 * be expected in this life. */
static uint64_t key_bits(uint32_t table, struct verify_key key) {
        uint64_t x = key.epoch + key.generation * UINT64_C(0x9e3779b97f4a7c15) + table;

        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        return (x ^ x >> 31) << 8;
}

/*
 * 1 + the variant of this generation; 0: nobody knows yet. With `variant`, not 0, that is what it
 * is from now on, unless somebody was faster.
 */
static uint32_t generation_is(const struct soak *soak, uint32_t table, struct verify_key key,
                              uint32_t variant) {
        const uint64_t bits = key_bits(table, key);

        for (uint64_t i = 0; i < SOAK_GENERATIONS_MAX; i++) {
                _Atomic uint64_t *entry =
                        &soak->shared->generations[((bits >> 8) + i) % SOAK_GENERATIONS_MAX];
                uint64_t found = atomic_load_explicit(entry, memory_order_acquire);

                if (!found && variant &&
                    atomic_compare_exchange_strong(entry, &found, bits | variant))
                        return variant;
                if (!found || (found & ~UINT64_C(255)) == bits)
                        return (uint32_t)(found & 255);
        }
        return 0;
}

/* ---- Rows ---- */

static bool row_is(const struct soak_table *t, const struct verify_claim *c, uint32_t variant,
                   size_t i, uint32_t n_cols) {
        const size_t value_bytes = soak_type_bytes(c->options.type);
        const uint8_t *expected = t->rows[variant][c->options.type] +
                                  (c->ids[i] * t->n_dims + c->options.col_first) * value_bytes;

        return !memcmp((const uint8_t *)c->rows + i * c->row_stride_bytes, expected,
                       n_cols * value_bytes);
}

/* Of f32. The bound is that of adding up in any order. */
static bool bag_is(const struct soak_table *t, const struct verify_claim *c, uint32_t variant,
                   size_t bag, uint32_t n_cols) {
        const float *all = (const float *)(const void *)t->rows[variant][CARVQ_F32];
        const float *row =
                (const float *)(const void *)((const uint8_t *)c->rows + bag * c->row_stride_bytes);
        const uint64_t first = c->options.bag_offsets[bag];
        const uint64_t end =
                bag + 1 < c->options.n_bags ? c->options.bag_offsets[bag + 1] : c->n_ids;
        const double divisor =
                c->options.pooling == CARVQ_POOLING_MEAN && end > first ? (double)(end - first) : 1;

        for (uint32_t col = 0; col < n_cols; col++) {
                double sum = 0, magnitude = 0;

                for (uint64_t k = first; k < end; k++) {
                        double value =
                                (double)all[c->ids[k] * t->n_dims + c->options.col_first + col];

                        sum += value;
                        magnitude += fabs(value);
                }
                /* Not `> bound`: a NaN is wrong, too. */
                if (!(fabs((double)row[col] - sum / divisor) <= 1e-5 * magnitude / divisor))
                        return false;
        }
        return true;
}

static size_t n_rows_wrong(const struct soak_table *t, const struct verify_claim *c,
                           uint32_t variant) {
        const uint32_t n_cols =
                c->options.n_cols ? c->options.n_cols : t->n_dims - c->options.col_first;
        const size_t n = c->options.pooling ? c->options.n_bags : c->n_ids;
        size_t n_wrong = 0;

        for (size_t i = 0; i < n; i++)
                n_wrong += c->options.pooling ? !bag_is(t, c, variant, i, n_cols)
                                              : !row_is(t, c, variant, i, n_cols);
        return n_wrong;
}

/* ---- The rule ---- */

static uint32_t may_be(const struct soak *soak, const struct verify_claim *c, bool same,
                       uint32_t known) {
        uint32_t mask = known ? 1u << (known - 1) : 0;

        if (!known || !same)
                mask |= tables_published_between(soak, c->table, c->opened_from_ns,
                                                 c->opened_until_ns);
        return mask;
}

size_t verify_rows(const struct soak *soak, const struct verify_claim *c, uint32_t *ret_variant) {
        const bool same =
                c->before.epoch == c->after.epoch && c->before.generation == c->after.generation;
        uint32_t known = c->pinned ? c->pinned : generation_is(soak, c->table, c->before, 0);
        const uint32_t mask = may_be(soak, c, same || c->pinned, known);
        const struct soak_table *t = &soak->tables[c->table];
        uint32_t n_matching = 0;
        size_t fewest = SIZE_MAX;

        for (uint32_t v = 0; v < SOAK_VARIANTS; v++) {
                size_t n_wrong;

                if (!(mask & 1u << v))
                        continue;
                n_wrong = n_rows_wrong(t, c, v);
                fewest = MIN(fewest, n_wrong);
                if (n_wrong)
                        continue;
                *ret_variant = v;
                n_matching++;
        }
        if (fewest)
                return fewest == SIZE_MAX ? c->n_ids : fewest;
        /* A few columns of a few rows may be the same in two of them. */
        if (n_matching == 1 && same && !known)
                known = generation_is(soak, c->table, c->before, 1 + *ret_variant);
        /* Somebody else has just found something else. */
        return n_matching == 1 && same && known != 1 + *ret_variant ? c->n_ids : 0;
}

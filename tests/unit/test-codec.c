/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders. A reference written from FORMAT.md alone, one value at a time, against the scalar
 * kernels; those against every other set, over lengths around each vector width, all shapes
 * of groups and adaptors, any place of the output, with inaccessible pages right behind all memory.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "decode-row.h"
#include "guarded-table.h"
#include "lib/codec/codec.h"
#include "reference-decoder.h"

static uint64_t seed;
static const struct codec_kernels *sets[8];
static size_t n_sets;
static unsigned long thin = 1; /* of all tables, one in so many is checked */

/* ---- Comparing ---- */

static void fail_at(const struct table_header *h, const char *set, uint64_t row, size_t i,
                    float found, float expected) {
        fail_msg("%s, %s: n %u, L %u, k %u, S %u, h %u, groups %" PRIu64
                 "x%u, scales %u, %u, adaptor %s %ux%ux%u, tiers %u,"
                 " row %" PRIu64 ", dimension %zu: %a, expected %a",
                 table_codec_name(h->codec), set, h->n_dims, h->n_stages, h->codebook_bits,
                 h->window_bits, h->subvector_dims, h->group_rows, h->group_cols, h->row_scale,
                 h->col_scale, table_adaptor_name(h->adaptor_type), h->latent_dims,
                 h->hidden_dims[0], h->hidden_dims[1], h->n_tiers, row, i, (double)found,
                 (double)expected);
}

/* The same bytes; any NaN for a NaN; `bound` apart where it is not 0. */
static void assert_row(const struct table_header *h, const char *set, uint64_t row,
                       const float *found, const float *expected, float bound) {
        if (!memcmp(found, expected, h->n_dims * sizeof(float)))
                return;
        for (size_t i = 0; i < h->n_dims; i++)
                if (memcmp(&found[i], &expected[i], sizeof(float)) != 0 &&
                    !(isnan(found[i]) && isnan(expected[i])) &&
                    !(bound > 0 && fabsf(found[i] - expected[i]) <= bound))
                        fail_at(h, set, row, i, found[i], expected[i]);
}

static float largest(const float *values, size_t n) {
        float max = 0;

        for (size_t i = 0; i < n; i++)
                max = fmaxf(max, fabsf(values[i]));
        return max;
}

/* Decodes to the end of memory, and to `shift` floats before it; nothing around may change. */
static void check_set(const struct codec_kernels *set, const struct codec_table *table,
                      uint64_t row, const struct guarded *out, size_t shift, const float *expected,
                      float bound) {
        const struct table_header *h = &table->contents.header;
        size_t n_floats = out->n_bytes / sizeof(float), at = n_floats - h->n_dims - shift;
        float *values = (float *)(void *)out->bytes;
        struct codec_record record;

        memset(out->bytes, 0xa5, out->n_bytes);
        record = set->find(table, row);
        decode_row(set, table, &record, values + at);
        assert_row(h, set->name, row, values + at, expected, bound);
        for (size_t i = 0; i < out->n_bytes; i++)
                if ((i < at * 4 || i >= (at + h->n_dims) * 4) && out->bytes[i] != 0xa5)
                        fail_msg("%s, %s, n %u: wrote outside the row", table_codec_name(h->codec),
                                 set->name, h->n_dims);
}

/* A linear map that is part of decode() gives what the same map gives when it runs for a batch. */
static void check_linear_map(const struct codec_kernels *set, const struct codec_table *table,
                             uint64_t row) {
        const struct table_header *h = &table->contents.header;
        size_t stride = codec_scratch_round(h->n_dims), n = codec_scratch_floats(h);
        float *memory = aligned_alloc(CODEC_SCRATCH_ALIGNMENT, (3 * stride + n) * sizeof(float));
        float *fused = memory, *batch = memory + stride, *addends = batch + stride;
        struct codec_record record = set->find(table, row);

        set->adaptor(table, &record, 1, addends + stride, stride, addends);
        set->decode[h->codec](table, &record, addends, batch);
        set->decode[h->codec](table, &record, NULL, fused);
        for (uint32_t i = 0; i < h->n_dims; i++)
                if (fused[i] != batch[i] && !(isnan(fused[i]) && isnan(batch[i])))
                        fail_msg("%s, n %u, m %u, row %" PRIu64 ", column %u: %a, by batch %a",
                                 set->name, h->n_dims, h->latent_dims, row, i, (double)fused[i],
                                 (double)batch[i]);
        free(memory);
}

/* Rows of a table whose chunks have a guard at one end: the first and the last; of tiers every one.
 */
static void check_rows(const struct table_contents *contents, const struct guarded *file,
                       enum guard guard, uint64_t *random) {
        const struct table_header *h = &contents->header;
        uint64_t step = h->n_tiers > 1 || h->n_rows == 1 ? 1 : h->n_rows - 1;
        float *exact = calloc(h->n_dims, sizeof(float));
        struct guarded out;
        struct guarded_table memory;
        struct codec_table table, unprepared;

        guard_table(contents, file, guard, &table, &memory);
        unprepared = table;
        assert_int_equal(codec_prepare(h, table.col_scales, table.adaptor, &table.prepared), 0);
        guarded_init(&out, (h->n_dims + 40) * sizeof(float));
        for (uint64_t row = 0; row < h->n_rows; row += step) {
                size_t shift = test_random(random) % 20;

                reference_row(&table, row, exact);
                for (size_t i = 0; i < n_sets; i++) {
                        float bound = 0;

                        /* Sets that differ in the adaptor alone decode alike without it. */
                        if (i > 0 && !h->latent_dims &&
                            sets[i]->decode[h->codec] == sets[i - 1]->decode[h->codec])
                                continue;
                        /* Scalar is exactly the reference; the others are exactly scalar, but for
                         * the adaptor's bound (FORMAT.md, "Decoding"). The sums of a few columns
                         * may all have cancelled, which that excepts; test-adaptor-batch has their
                         * bits. */
                        if (i > 0 && h->latent_dims)
                                bound = h->n_dims < 13 ? INFINITY
                                                       : 0x1p-10f * largest(exact, h->n_dims);
                        check_set(sets[i], &table, row, &out, 0, exact, bound);
                        check_set(sets[i], &table, row, &out, shift, exact, bound);
                        check_set(sets[i], &unprepared, row, &out, shift, exact, 0);
                        if (h->latent_dims && !codec_runs_batches(sets[i], &table))
                                check_linear_map(sets[i], &table, row);
                }
        }
        guarded_deinit(&out);
        codec_prepared_free(table.prepared);
        guarded_table_deinit(&memory);
        free(exact);
}

/* Halves where arithmetic turns: zeros, subnormals, the least and the largest numbers, infinities,
 * NaNs of both kinds; else ordinary ones. */
static uint16_t edge_half(uint64_t *random) {
        const uint16_t edges[] = { 0x0000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x7c01, 0x7e01 };
        uint64_t r = test_random(random) >> 32;

        if (r % 4)
                return test_random_half(random);
        return (uint16_t)(edges[r / 4 % ARRAY_SIZE(edges)] | (r & 0x8000));
}

enum contents {
        CONTENTS_ORDINARY,
        CONTENTS_EDGES, /* in codebooks, column scales, means, and what begins a record */
        CONTENTS_WILD,  /* any bits in records and codebooks */
        N_CONTENTS,
};

static void spoil(const struct table_contents *c, enum contents contents, uint64_t *random,
                  uint8_t *file) {
        const struct table_chunk *halves[] = { &c->codebooks, &c->adaptor };

        for (size_t i = c->rows.offset; contents == CONTENTS_WILD && i < c->header.file_bytes; i++)
                file[i] = (uint8_t)(test_random(random) >> 32);
        for (size_t i = 0; i < c->codebooks.length && contents == CONTENTS_WILD; i++)
                file[c->codebooks.offset + i] = (uint8_t)(test_random(random) >> 32);
        if (contents != CONTENTS_EDGES)
                return;
        for (size_t k = 0; k < ARRAY_SIZE(halves); k++)
                for (size_t i = 0; i + 2 <= halves[k]->length; i += 2) {
                        uint16_t half = edge_half(random);

                        memcpy(file + halves[k]->offset + i, &half, sizeof(half));
                }
        for (uint64_t row = 0; c->header.n_tiers <= 1 && row < c->header.n_rows; row++) {
                uint16_t half = edge_half(random);

                memcpy(file + c->rows.offset + row * c->layout.record_bytes, &half,
                       MIN(sizeof(half), c->layout.record_bytes));
        }
}

static void check_table(struct table_header header, uint64_t *random, enum contents contents) {
        static unsigned long n_tables;
        struct guarded file;
        struct table_contents c;
        struct fault fault = { 0 };

        if (n_tables++ % thin)
                return;
        make_table(&header, NULL, random, &file);
        if (table_check(file.bytes, MIN(file.n_bytes, TABLE_HEAD_BYTES_MAX), header.file_bytes, &c,
                        &fault) < 0)
                fail_msg("%s", fault.text);
        spoil(&c, contents, random, file.bytes);
        check_rows(&c, &file, GUARD_BEHIND, random);
        check_rows(&c, &file, GUARD_BEFORE, random);
        guarded_deinit(&file);
}

/* ---- The tests ---- */

/* Mostly ordinary, of which a wrong one shows best. */
static enum contents contents_of(size_t count) {
        return count % 11 == 0  ? CONTENTS_WILD
               : count % 3 == 1 ? CONTENTS_EDGES
                                : CONTENTS_ORDINARY;
}

static const uint32_t all_dims[] = { 1,  2,   7,   13,  31,  32,  33,   48,   63,   64,
                                     65, 100, 127, 128, 384, 640, 1000, 2048, 8960, 65536 };

static void test_plain_codecs(void **state) {
        uint64_t random = seed;

        (void)state;
        for (uint32_t codec = TABLE_CODEC_F32; codec <= TABLE_CODEC_INT4; codec++)
                for (size_t n = 0; n < ARRAY_SIZE(all_dims); n++)
                        for (int contents = 0; contents < N_CONTENTS; contents++)
                                check_table((struct table_header){ .n_rows = n % 3 ? 3 : 1,
                                                                   .n_dims = all_dims[n],
                                                                   .codec = codec },
                                            &random, contents);
}

/* k = 4, which has kernels of its own: every length, slot and stage count with every group shape.
 */
static void test_carvq_shapes(void **state) {
        const uint32_t slots[] = { 1, 3, 8, 10, 16 };
        const uint32_t groups[] = { TABLE_DIMS_MAX, 5, 1, 32, 64, 88 };
        uint64_t random = seed;
        size_t count = 0;

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(all_dims); n++)
                for (size_t h = 0; h < ARRAY_SIZE(slots); h++)
                        for (uint32_t stages = 1; stages <= 5; stages++)
                                for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
                                        struct table_header header = {
                                                .n_rows = count % 4 ? 3 : 1,
                                                .n_dims = all_dims[n],
                                                .codec = TABLE_CODEC_CARVQ,
                                                .n_stages = stages,
                                                .codebook_bits = 4,
                                                .subvector_dims = slots[h],
                                                .group_cols = groups[g],
                                                .group_rows = count % 4 ? 2 : 1,
                                                .row_scale = count % 2,
                                                .col_scale = count % 11 == 0,
                                        };

                                        /* A third of all; the widest are slow: one in eleven. */
                                        count++;
                                        if (count % (all_dims[n] > 640 ? 11 : 3) != n % 3)
                                                continue;
                                        check_table(header, &random, contents_of(count));
                                }
}

static void test_carvq_codes(void **state) {
        const uint32_t dims[] = { 1, 13, 64, 65, 100, 640, 1000 };
        uint64_t random = seed;

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(dims); n++)
                for (uint32_t bits = 1; bits <= TABLE_CODEBOOK_BITS_MAX; bits++)
                        for (uint32_t i = 0; i < 8; i++)
                                check_table((struct table_header){ .n_rows = 3,
                                                                   .n_dims = dims[n],
                                                                   .codec = TABLE_CODEC_CARVQ,
                                                                   .n_stages = 1 + i % 5,
                                                                   .codebook_bits = bits,
                                                                   .subvector_dims = i < 4 ? 1 : 10,
                                                                   .group_cols = i % 2 ? 32 - i / 2
                                                                                       : 65536,
                                                                   .group_rows = 1 + i % 3,
                                                                   .row_scale = i / 2 % 2,
                                                                   .col_scale = i / 4 },
                                            &random, CONTENTS_ORDINARY);
}

/* S > 4, another layout with kernels of its own: lengths and slots around the pieces that they work
 * in, odd ones, groups that end inside a block, and all that may follow a sum. */
static void test_large_codebooks(void **state) {
        const uint32_t slots[] = { 1, 3, 5, 8, 10, 13, 16, 17, 24, 32, 48, 64 };
        const uint32_t groups[] = { TABLE_DIMS_MAX, 1, 3, 16, 100 };
        uint64_t random = seed;
        uint32_t count = 0;

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(all_dims); n++)
                for (size_t h = 0; h < ARRAY_SIZE(slots); h++)
                        for (uint32_t bits = 5; bits <= 8; bits++) {
                                struct table_header header = {
                                        .n_rows = 3,
                                        .n_dims = all_dims[n],
                                        .codec = TABLE_CODEC_CARVQ,
                                        .n_stages = 1 + count % 9,
                                        .codebook_bits = bits,
                                        .subvector_dims = slots[h],
                                        .group_cols = groups[count % ARRAY_SIZE(groups)],
                                        .group_rows = 2,
                                        .row_scale = count / 2 % 2,
                                        .col_scale = count / 3 % 2,
                                        .adaptor_type = count % 7 < 2 ? 1 + count % 7 : 0,
                                };

                                count++;
                                /* The widest are slow, and as many codebooks as sub-vectors, too.
                                 */
                                if (all_dims[n] > 2048 && (count % 5 || header.group_cols < 100))
                                        continue;
                                check_table(header, &random, contents_of(count));
                        }
}

/* Windows of every width over codes of every length, and as many stages and slots as registers are
 * made for, where a last group of codes is whole, cut or alone in its row. */
static void test_windows(void **state) {
        const uint32_t slots[] = { 4, 2, 8, 16, 1, 3, 5, 7, 20 };
        const uint32_t subvectors[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100 };
        uint64_t random = seed;
        uint32_t count = 0;

        (void)state;
        for (uint32_t window = 5; window <= TABLE_WINDOW_BITS_MAX; window++)
                for (uint32_t bits = 1; bits <= MIN(window, TABLE_CODEBOOK_BITS_MAX); bits++)
                        for (size_t i = 0; i < 2 * ARRAY_SIZE(slots); i++, count++) {
                                uint32_t h = slots[i % ARRAY_SIZE(slots)];
                                uint32_t n =
                                        h *
                                        subvectors[test_random(&random) % ARRAY_SIZE(subvectors)];
                                struct table_header header = {
                                        .n_rows = 3,
                                        .n_dims = n - (uint32_t)(test_random(&random) % h),
                                        .codec = TABLE_CODEC_CARVQ,
                                        .n_stages = count % 3 ? 1 : 1 + count / 3 % 6,
                                        .codebook_bits = bits,
                                        .window_bits = window,
                                        .subvector_dims = h,
                                        .group_cols = count % 5 ? 65536 : 1 + count / 5 % 17,
                                        .group_rows = count % 4 ? 3 : 2,
                                        .row_scale = count / 2 % 2,
                                        .col_scale = count / 4 % 2,
                                        .adaptor_type = count % 7 == 0,
                                };

                                /* Many codebooks of many centroids are slow to fill. */
                                if (window > 10)
                                        header.group_cols = 65536;
                                if (window > 13 && i % 4)
                                        continue;
                                check_table(header, &random, contents_of(count));
                        }
}

/* The shapes that packers choose, at ordinary widths. */
static void test_wide_windows(void **state) {
        const struct {
                uint32_t stages, bits, window, slots;
        } shapes[] = { { 1, 6, 12, 4 },  { 2, 6, 12, 4 },  { 1, 3, 12, 2 },   { 1, 6, 14, 4 },
                       { 3, 8, 8, 16 },  { 1, 12, 16, 8 }, { 1, 1, 16, 1 },   { 1, 8, 12, 4 },
                       { 4, 12, 12, 8 }, { 1, 4, 12, 4 },  { 16, 5, 11, 16 }, { 1, 7, 13, 5 } };
        uint64_t random = seed;

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(all_dims); n++)
                for (size_t i = 0; i < 4 * ARRAY_SIZE(shapes); i++) {
                        if (all_dims[n] > 2048 && (i + n) % 6)
                                continue;
                        check_table((struct table_header){ .n_rows = 2,
                                                           .n_dims = all_dims[n],
                                                           .codec = TABLE_CODEC_CARVQ,
                                                           .n_stages = shapes[i / 4].stages,
                                                           .codebook_bits = shapes[i / 4].bits,
                                                           .window_bits = shapes[i / 4].window,
                                                           .subvector_dims = shapes[i / 4].slots,
                                                           .group_cols = 65536,
                                                           .group_rows = 2,
                                                           .row_scale = i / 2 % 2,
                                                           .col_scale = i % 2 },
                                    &random, contents_of(i));
                }
}

/* Rows of all tiers, of both layouts, with nothing, something or everything else in the record. */
/* Every third table, where there is room for one tier more and its records are the largest. */
static void add_int8_tier(struct table_header *h, uint32_t i, uint64_t *random) {
        struct table_header with = *h;

        if (i % 3 || with.n_tiers == TABLE_TIERS_MAX)
                return;
        with.tier_rows[with.n_tiers - 1] =
                1 + test_random(random) % with.tier_rows[with.n_tiers - 2];
        with.n_tiers++;
        with.int8_tier = 1;
        if (!with.tier_bits[with.n_tiers - 2])
                table_set_code_bits(&with);
        else
                table_set_tier_scales(&with);
        if (table_layout_compute(&with, &(struct table_layout){ 0 }, NULL) >= 0)
                *h = with;
}

static void test_tiers(void **state) {
        const uint32_t dims[] = { 1, 33, 100, 384 }, slots[] = { 1, 5, 8, 16 };
        uint64_t random = seed;

        (void)state;
        for (uint32_t i = 0; i < 600; i++) {
                struct table_header h = {
                        .n_rows = 1 + test_random(&random) % 20,
                        .n_dims = dims[i % ARRAY_SIZE(dims)],
                        .codec = TABLE_CODEC_CARVQ,
                        .n_tiers = 2 + i / 4 % 3,
                        .codebook_bits = 1 + i % 9,
                        .window_bits = i % 11 < 6 ? 9 + i % 4 : 0,
                        .subvector_dims = slots[test_random(&random) % ARRAY_SIZE(slots)],
                        .group_cols = i % 3 ? 65536 : 16,
                        .row_scale = i % 2,
                        .col_scale = i / 2 % 2,
                        .adaptor_type = i / 8 % 3,
                };
                uint64_t left = h.n_rows;

                h.group_rows = 1 + test_random(&random) % h.n_rows;
                if (h.adaptor_type && i % 5) {
                        h.latent_dims = 1 + i % 5;
                        h.latent_bits = i % 2 ? 8 : 16;
                }
                for (uint32_t t = 0; t < h.n_tiers; t++) {
                        h.n_stages = t ? h.n_stages + 1 + i % 3 : i / 3 % 3;
                        h.tier_stages[t] = (uint8_t)h.n_stages;
                        if (t)
                                left = h.tier_rows[t - 1] = 1 + test_random(&random) % left;
                }
                add_int8_tier(&h, i, &random);
                check_table(h, &random, CONTENTS_ORDINARY);
        }
}

/* Tiers that differ in the bits of their codes, and in stages too or not. */
static void test_tiers_of_bits(void **state) {
        const uint32_t dims[] = { 30, 100, 384 }, slots[] = { 1, 4, 8, 3 };
        uint64_t random = seed;

        (void)state;
        for (uint32_t i = 0; i < 300; i++) {
                struct table_header h = {
                        .n_rows = 1 + test_random(&random) % 20,
                        .n_dims = dims[i % ARRAY_SIZE(dims)],
                        .codec = TABLE_CODEC_CARVQ,
                        .n_stages = i % 4 ? 1 : 3,
                        .codebook_bits = 8 + i % 4,
                        .window_bits = 11 + i / 4 % 2,
                        .subvector_dims = slots[i / 3 % ARRAY_SIZE(slots)],
                        .group_cols = i % 3 ? 65536 : 5,
                        .group_rows = 20,
                        .row_scale = i % 2,
                        .n_tiers = 2 + i % 3,
                };
                uint64_t left = h.n_rows;

                h.group_rows = h.n_rows;
                for (uint32_t t = 0; t < h.n_tiers; t++) {
                        uint32_t below = h.n_tiers - 1 - t;

                        h.tier_stages[t] = (uint8_t)(i % 8 && below == 1 ? 1 : h.n_stages);
                        h.tier_bits[t] = (uint8_t)(h.codebook_bits - 2 * below);
                        if (i % 5 == 0 && t == 0)
                                h.tier_stages[t] = h.tier_bits[t] = 0;
                        if (i % 8 && below > 1 && h.tier_stages[t])
                                h.tier_stages[t] = 1;
                        if (t)
                                left = h.tier_rows[t - 1] = 1 + test_random(&random) % left;
                        h.tier_scale[t] = (uint16_t)(0x3800 + test_random(&random) % 0x700);
                }
                add_int8_tier(&h, i, &random);
                check_table(h, &random, CONTENTS_ORDINARY);
        }
}

static void test_adaptors(void **state) {
        const uint32_t shapes[][3] = { { 1, 0, 0 }, { 3, 0, 0 },   { 16, 0, 0 },
                                       { 5, 7, 0 }, { 16, 33, 0 }, { 8, 17, 19 },
                                       { 2, 1, 1 }, { 0, 0, 0 },   { 33, 64, 48 } };
        uint64_t random = seed;

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(all_dims); n++)
                for (uint32_t i = 0; i < 8 * ARRAY_SIZE(shapes); i++) {
                        const uint32_t *shape = shapes[i / 8];

                        if ((i + n) % 2 || (all_dims[n] > 2048 && i % 7))
                                continue;
                        check_table(
                                (struct table_header){ .n_rows = 2,
                                                       .n_dims = all_dims[n],
                                                       .codec = TABLE_CODEC_CARVQ,
                                                       .n_stages = 3,
                                                       .codebook_bits = i % 5 == 3 ? 3 + i % 6 : 4,
                                                       .subvector_dims = 8,
                                                       .group_cols = 65536,
                                                       .group_rows = 2,
                                                       .row_scale = i & 1,
                                                       .adaptor_type = i & 2 ? TABLE_ADAPTOR_INT8
                                                                             : TABLE_ADAPTOR_HALF,
                                                       .latent_bits = !shape[0] ? 0
                                                                      : i & 4   ? 8
                                                                                : 16,
                                                       .latent_dims = shape[0],
                                                       .hidden_dims = { shape[1], shape[2] } },
                                &random, CONTENTS_ORDINARY);
                }
}

/* Any bits are some value: nothing crashes, and all sets agree on which. */
static void test_wild_bytes(void **state) {
        uint64_t random = seed;

        (void)state;
        for (size_t n = 0; n < 17; n++)
                for (uint32_t i = 0; i < 20; i++)
                        check_table((struct table_header){ .n_rows = 3,
                                                           .n_dims = all_dims[n],
                                                           .codec = TABLE_CODEC_CARVQ,
                                                           .n_stages = 1 + i % 5,
                                                           .codebook_bits = i % 7 ? 4 : 6,
                                                           .subvector_dims = 1 + i % 9,
                                                           .group_cols = i % 3 ? 65536 : 64,
                                                           .group_rows = 2,
                                                           .row_scale = i % 2 },
                                    &random, CONTENTS_WILD);
}

static void test_extreme_parameters(void **state) {
        struct table_header header = {
                .n_rows = 2,
                .n_dims = 1500,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = TABLE_STAGES_MAX,
                .codebook_bits = 4,
                .subvector_dims = TABLE_SUBVECTOR_DIMS_MAX,
                .group_cols = 1,
                .group_rows = 1,
                .row_scale = 1,
        };
        uint64_t random = seed;

        (void)state;
        check_table(header, &random, CONTENTS_ORDINARY);
        header.group_cols = 16;
        check_table(header, &random, CONTENTS_ORDINARY);
        header.codebook_bits = header.window_bits = 8;
        check_table(header, &random, CONTENTS_ORDINARY);
        header.n_dims = 63; /* one sub-vector, and a slot that does not exist */
        header.codebook_bits = header.window_bits = 4;
        check_table(header, &random, CONTENTS_ORDINARY);
        header.codebook_bits = TABLE_CODEBOOK_BITS_MAX;
        header.window_bits = TABLE_WINDOW_BITS_MAX;
        header.group_rows = 2;
        check_table(header, &random, CONTENTS_ORDINARY);
}

/* Floats whose low bits lie around the points where rounding turns. */
static float edge_float(uint64_t *random) {
        const uint32_t edges[] = { 0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001 };
        uint64_t r = test_random(random);
        uint32_t bits = (uint32_t)(r >> 32);
        float value;

        if (r & 1)
                bits = (bits & 0xffff0000) | edges[(r >> 1) % ARRAY_SIZE(edges)];
        memcpy(&value, &bits, sizeof(value));
        return value;
}

static void test_conversions(void **state) {
        uint64_t random = seed;
        struct guarded in, out, expected;

        (void)state;
        for (size_t n = 1; n < 150; n++)
                for (size_t repeat = 0; repeat < MAX(200 / thin, 10u); repeat++) {
                        guarded_init(&in, n * 4);
                        guarded_init(&out, n * 2);
                        guarded_init(&expected, n * 2);
                        float *values = (float *)(void *)in.bytes;

                        for (size_t i = 0; i < n; i++)
                                values[i] = edge_float(&random);
                        for (size_t s = 1; s < n_sets; s++) {
                                sets[0]->f32_to_f16(values, n, (uint16_t *)(void *)expected.bytes);
                                sets[s]->f32_to_f16(values, n, (uint16_t *)(void *)out.bytes);
                                assert_memory_equal(out.bytes, expected.bytes, n * 2);
                                sets[0]->f32_to_bf16(values, n, (uint16_t *)(void *)expected.bytes);
                                sets[s]->f32_to_bf16(values, n, (uint16_t *)(void *)out.bytes);
                                assert_memory_equal(out.bytes, expected.bytes, n * 2);
                        }
                        guarded_deinit(&in);
                        guarded_deinit(&out);
                        guarded_deinit(&expected);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain_codecs), cmocka_unit_test(test_carvq_shapes),
                cmocka_unit_test(test_carvq_codes),  cmocka_unit_test(test_adaptors),
                cmocka_unit_test(test_wild_bytes),   cmocka_unit_test(test_extreme_parameters),
                cmocka_unit_test(test_conversions),  cmocka_unit_test(test_large_codebooks),
                cmocka_unit_test(test_tiers),        cmocka_unit_test(test_windows),
                cmocka_unit_test(test_wide_windows), cmocka_unit_test(test_tiers_of_bits),
        };

        seed = test_seed();
        if (getenv("CARVQ_TEST_THIN"))
                thin = strtoul(getenv("CARVQ_TEST_THIN"), NULL, 10);
        thin = MAX(thin, 1u);
        n_sets = test_kernels(sets);
        return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}

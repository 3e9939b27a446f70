/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tier map: every row of tables of odd sizes is found where counting the records before it says
 * it is; each defect of a map is refused with one exact sentence; and a map that is overwritten
 * after it was checked leads to no byte outside the rows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "decode-row.h"
#include "guarded-table.h"
#include "lib/codec/codec.h"

static uint64_t seed;
static const struct codec_kernels *sets[8];
static size_t n_sets;

static struct table_header tiered_header(uint64_t n_rows, uint32_t n_tiers) {
        struct table_header h = {
                .n_rows = n_rows,
                .n_dims = 16,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = 2 * n_tiers - 1,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = n_rows,
                .row_scale = 1,
                .n_tiers = n_tiers,
        };

        for (uint32_t t = 0; t < n_tiers; t++)
                h.tier_stages[t] = (uint8_t)(2 * t + 1);
        table_set_code_bits(&h);
        return h;
}

/* ---- Where rows are ---- */

static void count_tiers(struct table_header *h, const uint8_t *tiers) {
        for (uint32_t t = 1; t < h->n_tiers; t++) {
                h->tier_rows[t - 1] = 0;
                for (uint64_t row = 0; row < h->n_rows; row++)
                        h->tier_rows[t - 1] += tiers[row] >= t;
        }
}

static void contents_of(struct table_header *h, struct table_contents *ret_contents) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct fault fault = { 0 };

        *ret_contents = (struct table_contents){ 0 };
        if (table_plan(h, 0, chunks, &fault) < 0)
                fail_msg("%s", fault.text);
        ret_contents->header = *h;
        table_layout_compute(h, &ret_contents->layout, NULL);
        ret_contents->tiers = (struct table_chunk){ .id = TABLE_CHUNK_TIERS,
                                                    .length = ret_contents->layout.tiers_bytes };
}

/* `rows` is never read: only where records are is looked at. */
static void check_addresses(struct table_header h, const uint8_t *tiers) {
        static const uint8_t rows[1];
        struct codec_table table = { .rows = rows };
        struct table_tier_block *blocks;
        struct fault fault = { 0 };
        struct guarded map;
        uint64_t offset = 0;

        count_tiers(&h, tiers);
        contents_of(&h, &table.contents);
        guarded_init(&map, table.contents.layout.tiers_bytes);
        blocks = (void *)map.bytes;
        table_tiers_fill(&h, tiers, blocks);
        table.tiers = blocks;
        if (table_tiers_check(&table.contents, blocks, &fault) < 0)
                fail_msg("%s", fault.text);
        for (uint64_t row = 0; row < h.n_rows; row++) {
                uint64_t n_bytes =
                        table_record_bytes(&h, h.tier_stages[tiers[row]], h.tier_bits[tiers[row]]);

                for (size_t i = 0; i < n_sets; i++) {
                        struct codec_record r = sets[i]->find(&table, row);

                        assert_int_equal((uintptr_t)r.bytes - (uintptr_t)rows, offset);
                        assert_int_equal(r.n_bytes, n_bytes);
                        assert_int_equal(r.n_stages, h.tier_stages[tiers[row]]);
                        assert_int_equal(r.code_bits, h.tier_bits[tiers[row]]);
                        assert_int_equal(r.stage_bytes, table_stage_bytes(&h, r.code_bits));
                        assert_int_equal(r.row, row);
                }
                offset += n_bytes;
        }
        assert_int_equal(offset, table.contents.layout.rows_bytes);
        guarded_deinit(&map);
}

static void test_every_row(void **state) {
        const uint64_t sizes[] = { 1, 2, 63, 64, 447, 448, 449, 896, 897, 5000 };
        uint64_t random = seed;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                for (uint32_t n_tiers = 2; n_tiers <= TABLE_TIERS_MAX; n_tiers++) {
                        struct table_header h = tiered_header(sizes[i], n_tiers);
                        uint8_t tiers[5000], top = (uint8_t)(n_tiers - 1);

                        memset(tiers, top, sizes[i]); /* all are high */
                        check_addresses(h, tiers);
                        memset(tiers, 0, sizes[i]);
                        tiers[sizes[i] - 1] = top; /* the last one only */
                        check_addresses(h, tiers);
                        memset(tiers, 0, sizes[i]);
                        tiers[sizes[i] / 2] = top; /* one in the middle */
                        check_addresses(h, tiers);
                        memset(tiers, top, sizes[i]);
                        if (sizes[i] > 1)
                                tiers[0] = 0; /* all but the first */
                        check_addresses(h, tiers);
                        memset(tiers, top, sizes[i]);
                        if (sizes[i] > 1) /* all but the last: its rank is past a level's end */
                                tiers[sizes[i] - 1] = 0;
                        check_addresses(h, tiers);
                        for (uint64_t row = 0; row < sizes[i]; row++)
                                tiers[row] = (uint8_t)(test_random(&random) >> 40) % n_tiers;
                        tiers[sizes[i] / 3] = top; /* of each tier at random */
                        check_addresses(h, tiers);
                }
}

/* ---- What is refused ---- */

/* 900 rows: 3 blocks, of which the last has 4 rows; 500 of them: 2 blocks; 2 of these: 1 block. */
static void make_map(struct table_contents *ret_contents, struct table_tier_block blocks[6]) {
        struct table_header h = tiered_header(900, 4);
        uint8_t tiers[900] = { 0 };

        memset(tiers, 1, 500);
        tiers[0] = 2;
        tiers[499] = 3;
        count_tiers(&h, tiers);
        contents_of(&h, ret_contents);
        assert_int_equal(ret_contents->layout.tiers_bytes, 6 * 64);
        table_tiers_fill(&h, tiers, blocks);
}

static void test_defects(void **state) {
        const struct {
                size_t block, word; /* 0: the rank */
                uint64_t flip;
                const char *expected;
        } defects[] = {
                { 0, 0, 1, "chunk tiers, level 1, block 0: rank is 1, expected 0" },
                { 1, 0, 1 << 9, "chunk tiers, level 1, block 1: rank is 960, expected 448" },
                { 2, 0, UINT64_C(1) << 63,
                  "chunk tiers, level 1, block 2: rank is 9223372036854776308, expected 500" },
                { 3, 0, 4, "chunk tiers, level 2, block 0: rank is 4, expected 0" },
                { 4, 0, 3, "chunk tiers, level 2, block 1: rank is 2, expected 1" },
                { 5, 0, 2, "chunk tiers, level 3, block 0: rank is 2, expected 0" },
                { 0, 7, 1, "chunk tiers, level 1, block 1: rank is 448, expected 447" },
                { 2, 1, 16,
                  "chunk tiers, level 1, block 2: bit 4 is set, expected none from bit 4 on" },
                { 2, 7, UINT64_C(1) << 63,
                  "chunk tiers, level 1, block 2: bit 447 is set, expected none from bit 4 on" },
                { 4, 1, UINT64_C(1) << 52,
                  "chunk tiers, level 2, block 1: bit 52 is set, expected none from bit 52 on" },
                { 5, 1, 4,
                  "chunk tiers, level 3, block 0: bit 2 is set, expected none from bit 2 on" },
                { 2, 1, 8,
                  "chunk tiers, level 1, block 2: the level marks 501 rows, expected 500"
                  " (tier_rows[0])" },
                { 4, 1, UINT64_C(1) << 51,
                  "chunk tiers, level 2, block 1: the level marks 1 rows, expected 2"
                  " (tier_rows[1])" },
                { 5, 1, 1,
                  "chunk tiers, level 3, block 0: the level marks 2 rows, expected 1"
                  " (tier_rows[2])" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(defects); i++) {
                struct table_tier_block blocks[6];
                struct table_contents contents;
                struct fault fault = { 0 };

                make_map(&contents, blocks);
                assert_int_equal(table_tiers_check(&contents, blocks, &fault), 0);
                ((uint64_t *)&blocks[defects[i].block])[defects[i].word] ^= defects[i].flip;
                assert_int_equal(table_tiers_check(&contents, blocks, &fault), -EBADMSG);
                assert_string_equal(fault.text, defects[i].expected);
        }
}

/* A map read in pieces of any length is checked like one read at once. */
static void test_pieces(void **state) {
        struct table_tier_block blocks[6];
        struct table_contents contents;

        (void)state;
        make_map(&contents, blocks);
        for (uint64_t n = 1; n <= 6; n++)
                for (int damaged = 0; damaged < 2; damaged++) {
                        struct table_tiers_cursor cursor = { 0 };
                        int r = 0;

                        blocks[5].bits[6] = (uint64_t)damaged;
                        for (uint64_t i = 0; r >= 0 && i < 6; i += n)
                                r = table_tiers_check_next(&contents, &blocks[i], MIN(n, 6 - i),
                                                           &cursor, NULL);
                        assert_int_equal(r, damaged ? -EBADMSG : 0);
                }
}

/* ---- Files ---- */

static void flip(int fd, uint64_t at, uint64_t bit) {
        uint8_t byte;

        assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
        byte ^= (uint8_t)(1u << bit);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}

static int open_tiered(struct table_header *header, struct guarded *ret_memory) {
        uint64_t random = seed;
        int fd = memfd_create("tiered", MFD_CLOEXEC);

        *header = tiered_header(900, 4);
        header->tier_rows[0] = 500;
        header->tier_rows[1] = 449;
        header->tier_rows[2] = 7;
        make_table(header, NULL, &random, ret_memory);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, ret_memory->bytes, header->file_bytes), header->file_bytes);
        return fd;
}

/* No bit of header, contents table or map can be wrong and the file be opened. */
static void test_every_flip(void **state) {
        struct table_header header;
        struct guarded memory;
        struct codec_file file;
        struct fault fault = { 0 };
        int fd = open_tiered(&header, &memory);
        uint64_t head_end = sizeof(header) + header.n_chunks * sizeof(struct table_chunk);
        struct table_chunk tiers;

        (void)state;
        if (codec_file_map(fd, &file, &fault) < 0)
                fail_msg("%s", fault.text);
        tiers = file.table.contents.tiers;
        assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), 0);
        codec_file_unmap(&file);
        for (uint64_t at = 0; at < tiers.offset + tiers.length; at++) {
                if (at >= head_end && at < tiers.offset)
                        continue;
                for (uint64_t bit = 0; bit < 8; bit++) {
                        fault.text[0] = '\0';
                        flip(fd, at, bit);
                        if (codec_file_map(fd, &file, &fault) >= 0 || !fault.text[0])
                                fail_msg("byte %" PRIu64 ", bit %" PRIu64 ": opened", at, bit);
                        if (at >= tiers.offset)
                                assert_memory_equal(fault.text, "chunk tiers, level ", 19);
                        flip(fd, at, bit);
                }
        }
        close(fd);
        guarded_deinit(&memory);
}

/* An honest checksum over a dishonest map, which verify finds by itself. */
static void test_verify(void **state) {
        struct table_header header;
        struct guarded memory;
        struct codec_file file;
        struct fault fault = { 0 };
        int fd = open_tiered(&header, &memory);
        uint64_t at;

        (void)state;
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);
        at = file.table.contents.tiers.offset;
        flip(fd, at + 64, 0); /* after it was opened */
        assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), -EBADMSG);
        assert_memory_equal(fault.text, "chunk tiers is damaged", 22);
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

/* ---- An overwritten map ---- */

/* Rows end at a guard page: a record one byte outside is a crash, and found without one, too. */
static void check_hostile(const struct codec_table *table, const struct guarded_table *memory) {
        float values[16];

        for (uint64_t row = 0; row < table->contents.header.n_rows; row++)
                for (size_t i = 0; i < n_sets; i++) {
                        struct codec_record r = sets[i]->find(table, row);
                        uint64_t offset = (uint64_t)(r.bytes - memory->rows.bytes);

                        assert_true(range_inside(offset, r.n_bytes, memory->rows.n_bytes));
                        decode_row(sets[i], table, &r, values);
                }
}

static void test_overwritten(void **state) {
        uint64_t random = seed;

        (void)state;
        for (uint32_t n_tiers = 2; n_tiers <= TABLE_TIERS_MAX; n_tiers++) {
                struct table_header header = tiered_header(900, n_tiers);
                struct guarded_table memory;
                struct table_contents contents;
                struct codec_table table;
                struct guarded file;

                for (uint32_t t = 1; t < n_tiers; t++)
                        header.tier_rows[t - 1] = 900 - 400 * t / (n_tiers - 1);
                make_table(&header, NULL, &random, &file);
                assert_int_equal(table_check(file.bytes, TABLE_HEAD_BYTES_MAX, header.file_bytes,
                                             &contents, NULL),
                                 0);
                guard_table(&contents, &file, GUARD_BEHIND, &table, &memory);
                for (int round = 0; round < 40; round++) {
                        uint64_t *words = (uint64_t *)(void *)memory.tiers.bytes;

                        for (size_t i = 0; i < memory.tiers.n_bytes / 8; i++) {
                                uint64_t word = test_random(&random);

                                /* Ones; random; small numbers, near the right ones. */
                                words[i] = round == 0 ? UINT64_MAX : word >> round % 8 * 8;
                        }
                        check_hostile(&table, &memory);
                }
                guarded_table_deinit(&memory);
                guarded_deinit(&file);
        }
}

/* ---- Requests ---- */

/* Through codec_decode(): the records that are found ahead are those of their ids, and what they
 * cost is counted by their own lengths. */
static void test_requests(void **state) {
        struct table_header header = tiered_header(900, 4);
        struct table_contents contents;
        struct codec_context context;
        uint64_t random = seed, ids[100], n_bytes = 0, n_lines = 0, n_read = 0;
        struct codec_table table;
        struct guarded file;
        float rows[100][16];

        (void)state;
        header.tier_rows[0] = 600;
        header.tier_rows[1] = 300;
        header.tier_rows[2] = 100;
        make_table(&header, NULL, &random, &file);
        assert_int_equal(
                table_check(file.bytes, TABLE_HEAD_BYTES_MAX, header.file_bytes, &contents, NULL),
                0);
        codec_table_init(&table, &contents, file.bytes);
        codec_context_init(&context, sets[n_sets - 1]);
        assert_int_equal(codec_context_reserve(&context, &table), 0);
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ids[i] = test_random(&random) % 1000; /* one in ten is no row */

        const struct codec_request request = {
                .ids = ids,
                .n_ids = ARRAY_SIZE(ids),
                .n_cols = 16,
                .scale = 1,
                .row_stride_bytes = sizeof(rows[0]),
                .out_of_range = CODEC_OUT_OF_RANGE_ZERO,
                .out = rows,
        };
        struct codec_piece piece = { .request = &request, .n_ids_max = 37 };

        codec_decode(&context, &table, &piece, 1);
        piece.n_ids_max = UINT64_MAX;
        codec_decode(&context, &table, &piece, 1);
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
                float expected[16] = { 0 };

                if (ids[i] < header.n_rows) {
                        struct codec_record r = codec_kernels_scalar.find(&table, ids[i]);

                        decode_row(&codec_kernels_scalar, &table, &r, expected);
                        n_bytes += r.n_bytes;
                        n_read++;
                        for (const uint8_t *p = r.bytes; p < r.bytes + r.n_bytes; p++)
                                n_lines += p == r.bytes || (uintptr_t)p % 64 == 0;
                }
                assert_memory_equal(rows[i], expected, sizeof(expected));
        }
        assert_int_equal(piece.cost.bytes_read, n_bytes);
        assert_int_equal(piece.cost.lines_read, n_lines);
        assert_int_equal(piece.cost.n_rows_read, n_read);
        codec_context_deinit(&context);
        guarded_deinit(&file);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_row), cmocka_unit_test(test_defects),
                cmocka_unit_test(test_pieces),    cmocka_unit_test(test_every_flip),
                cmocka_unit_test(test_verify),    cmocka_unit_test(test_overwritten),
                cmocka_unit_test(test_requests),
        };

        seed = test_seed();
        n_sets = test_kernels(sets);
        return cmocka_run_group_tests_name("table-tiers", tests, NULL, NULL);
}

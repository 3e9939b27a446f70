/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file layout and its checker: what the packer plans, the checker accepts, over many shapes and
 * at the limits; every flipped byte, every wrong length and each single defect is refused, the
 * latter with one exact sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guarded-table.h"

static struct table_header carvq_header(void) {
        return (struct table_header){
                .n_rows = 5,
                .n_dims = 100,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 4,
                .group_rows = 2,
                .row_scale = 1,
                .latent_dims = 3,
                .hidden_dims = { 6, 5 },
                .adaptor_type = TABLE_ADAPTOR_HALF,
                .latent_bits = 16,
                .n_tiers = 2,
                .tier_stages = { 1, 3 },
                .tier_rows = { 2 },
                .window_bits = 4,
                .tier_bits = { 4, 4 },
                .tier_scale = { TABLE_HALF_ONE, 0x3800 },
        };
}

static struct table_header windows_header(void) {
        struct table_header h = carvq_header();

        h.codebook_bits = 6;
        h.window_bits = 12;
        h.n_stages = 2;
        h.tier_stages[0] = h.tier_stages[1] = 2;
        h.tier_bits[0] = 4;
        h.tier_bits[1] = 6;
        h.col_scale = 1;
        return h;
}

/* A header and contents table as they stand at the start of a file. */
struct head {
        struct table_header header;
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
};

static void plan_head(struct head *head, uint64_t meta_bytes) {
        struct fault fault = { 0 };

        memset(head->chunks, 0, sizeof(head->chunks));
        if (table_plan(&head->header, meta_bytes, head->chunks, &fault) < 0)
                fail_msg("%s", fault.text);
        table_seal(&head->header, head->chunks);
}

static int check_head(const struct head *head, struct table_contents *ret_contents,
                      struct fault *ret_fault) {
        return table_check(head, MIN(sizeof(*head), head->header.file_bytes),
                           head->header.file_bytes, ret_contents, ret_fault);
}

static void assert_accepted(const struct head *head) {
        struct table_contents contents;
        struct fault fault = { 0 };

        if (check_head(head, &contents, &fault) < 0)
                fail_msg("refused: %s", fault.text);
        assert_memory_equal(&contents.header, &head->header, sizeof(head->header));
        assert_int_equal(contents.rows.length, contents.layout.rows_bytes);
        if (head->header.n_tiers <= 1)
                assert_int_equal(contents.rows.length,
                                 head->header.n_rows * head->header.record_bytes);
        assert_int_equal(contents.rows.offset % 4096, 0);
        assert_int_equal(contents.codebooks.length, contents.layout.codebook_bytes);
        assert_int_equal(contents.adaptor.length, contents.layout.adaptor_bytes);
        assert_int_equal(contents.tiers.length, contents.layout.tiers_bytes);
        assert_int_equal(contents.tiers.offset % 64, 0);
}

/* As many tiers as there may be, from 0 stages on: half of all rows, half of these ... */
static void set_tiers(struct table_header *h, uint32_t n_stages, uint32_t n_tiers) {
        h->n_stages = n_stages;
        h->n_tiers = MIN(n_tiers, n_stages + 1);
        for (uint32_t t = 0; t < TABLE_TIERS_MAX; t++)
                h->tier_stages[t] = (uint8_t)(t < h->n_tiers ? n_stages - (h->n_tiers - 1 - t) : 0);
        for (uint32_t t = 1; t < TABLE_TIERS_MAX; t++)
                h->tier_rows[t - 1] = t < h->n_tiers ? (h->n_rows >> t) + 1 : 0;
        if (h->n_rows < 4) /* rounded up past the tier below: all rows are high */
                for (uint32_t t = 1; t < h->n_tiers; t++)
                        h->tier_rows[t - 1] = h->n_rows;
        table_set_code_bits(h);
}

static void test_round_trips(void **state) {
        const uint64_t rows[] = { 1, 2, 1000, 262144, UINT64_C(384000000), TABLE_ROWS_MAX };
        const uint32_t dims[] = { 1, 7, 100, 384, 640, 8960, TABLE_DIMS_MAX };
        const uint32_t bits[] = { 1, 4, 5, 12 }, windows[] = { 1, 4, 12, 16 };
        const uint32_t slots[] = { 1, 8, 10, 64 }, stages[] = { 1, 3, 16 };

        (void)state;
        for (size_t r = 0; r < ARRAY_SIZE(rows); r++)
                for (size_t n = 0; n < ARRAY_SIZE(dims); n++) {
                        struct head head = { .header = { .n_rows = rows[r], .n_dims = dims[n] } };

                        for (uint32_t c = TABLE_CODEC_F32; c <= TABLE_CODEC_INT4; c++) {
                                head.header.codec = c;
                                plan_head(&head, c * 10);
                                assert_accepted(&head);
                        }
                        head.header.codec = TABLE_CODEC_CARVQ;
                        for (size_t i = 0; i < 4 * 4 * 3 * 3; i++) {
                                head.header.codebook_bits = bits[i % 4];
                                head.header.window_bits = windows[i % 4];
                                head.header.col_scale = i / 4 % 2;
                                head.header.subvector_dims = slots[i / 4 % 4];
                                set_tiers(&head.header, stages[i / 16 % 3], 1 + i % 4);
                                head.header.group_cols = i / 48 == 0 ? TABLE_DIMS_MAX : 3;
                                head.header.group_rows = i / 48 == 2 ? rows[r] / 2 + 1 : rows[r];
                                head.header.row_scale = i % 2;
                                head.header.adaptor_type = i / 2 % 3;
                                head.header.latent_dims = i / 2 % 3 ? i % 3 * 7 : 0;
                                head.header.latent_bits =
                                        head.header.latent_dims ? 8 + i % 2 * 8 : 0;
                                head.header.hidden_dims[0] = head.header.latent_dims == 14 ? 33 : 0;
                                head.header.hidden_dims[1] =
                                        head.header.hidden_dims[0] && i % 2 ? 9 : 0;
                                plan_head(&head, i % 5 * 100);
                                assert_accepted(&head);
                        }
                }
}

/* The largest of everything: no sum or product may wrap. */
static void test_limits(void **state) {
        struct head head = { .header = {
                                     .n_rows = TABLE_ROWS_MAX,
                                     .n_dims = TABLE_DIMS_MAX,
                                     .codec = TABLE_CODEC_CARVQ,
                                     .n_stages = TABLE_STAGES_MAX,
                                     .codebook_bits = 8,
                                     .window_bits = 8,
                                     .subvector_dims = 1,
                                     .group_cols = 1,
                                     .group_rows = TABLE_ROWS_MAX,
                                     .row_scale = 1,
                                     .latent_dims = TABLE_LATENT_DIMS_MAX,
                                     .hidden_dims = { 200, 200 },
                                     .adaptor_type = TABLE_ADAPTOR_HALF,
                                     .latent_bits = 16,
                                     .n_tiers = 1,
                                     .tier_stages = { TABLE_STAGES_MAX },
                                     .tier_bits = { 8 },
                                     .tier_scale = { TABLE_HALF_ONE },
                             } };
        struct table_layout layout;
        struct fault fault = { 0 };

        (void)state;
        plan_head(&head, 1000);
        assert_accepted(&head);
        assert_int_equal(table_layout_compute(&head.header, &layout, NULL), 0);
        assert_int_equal(layout.n_subvectors, 65536);
        assert_int_equal(layout.record_bytes, 2 + 2 * 1024 + 16 * 65536);
        assert_int_equal(layout.codebook_bytes, 65536ull * 16 * 256 * 2);
        assert_int_equal(layout.adaptor_bytes, 2 * (1025ull * 200 + 201ull * 200 + 201ull * 65536));
        assert_int_equal(layout.rows_bytes, layout.record_bytes << 40);

        head.header.hidden_dims[1] = 256;
        assert_int_equal(table_layout_compute(&head.header, &layout, &fault), -EINVAL);
        assert_string_equal(fault.text, "adaptor weights is 17099208, expected 0 to 16777216");
        head.header.hidden_dims[0] = head.header.hidden_dims[1] = TABLE_HIDDEN_DIMS_MAX;
        assert_int_equal(table_layout_compute(&head.header, &layout, &fault), -EINVAL);
        head.header.hidden_dims[0] = head.header.hidden_dims[1] = 200;

        head.header.group_rows = 1;
        assert_int_equal(table_layout_compute(&head.header, &layout, &fault), -EINVAL);
        assert_string_equal(fault.text, "group_rows 1 and group_cols 1 make codebooks of more than"
                                        " 2^64 bytes");
        head.header.group_rows = 1 << 7; /* 2^62 bytes of codebooks, and 2^60 of rows: fits */
        head.header.latent_dims = head.header.hidden_dims[0] = head.header.hidden_dims[1] = 0;
        head.header.adaptor_type = head.header.latent_bits = 0;
        head.header.row_scale = 0;
        assert_int_equal(table_plan(&head.header, 0, head.chunks, &fault), 0);
        head.header.group_rows = 1 << 6;
        assert_int_equal(table_plan(&head.header, 0, head.chunks, &fault), -EINVAL);
        assert_string_equal(fault.text, "chunk codebooks of 9223372036854775808 bytes does not fit"
                                        " into a file");

        head.header.group_rows = 1 << 7;
        head.header.window_bits = TABLE_WINDOW_BITS_MAX;
        assert_int_equal(table_layout_compute(&head.header, &layout, &fault), -EINVAL);
        assert_string_equal(fault.text, "group_rows 128 and group_cols 1 make codebooks of more"
                                        " than 2^64 bytes");
        head.header.codebook_bits = head.header.tier_bits[0] = TABLE_CODEBOOK_BITS_MAX;
        head.header.group_rows = TABLE_ROWS_MAX;
        head.header.row_scale = head.header.col_scale = 1;
        plan_head(&head, 1000);
        assert_accepted(&head);
        assert_int_equal(table_layout_compute(&head.header, &layout, NULL), 0);
        assert_int_equal(layout.stage_bytes[0], 12 * 65536 / 8);
        assert_int_equal(layout.record_bytes, 2 + 16 * layout.stage_bytes[0]);
        assert_int_equal(layout.codebook_bytes, 65536ull * 16 * 65536 * 2 + 2 * 65536);
}

/* Bits are counted one by one; column scales are padded to a cache line. */
static void test_windows(void **state) {
        (void)state;
        for (uint32_t window = 5; window <= TABLE_WINDOW_BITS_MAX; window++)
                for (uint32_t bits = 1; bits <= MIN(window, TABLE_CODEBOOK_BITS_MAX); bits++)
                        for (uint32_t n = 1; n < 150; n++) {
                                struct table_header h = {
                                        .n_rows = 3,
                                        .n_dims = n,
                                        .codec = TABLE_CODEC_CARVQ,
                                        .codebook_bits = bits,
                                        .window_bits = window,
                                        .subvector_dims = 3,
                                        .group_cols = 5,
                                        .group_rows = 3,
                                        .col_scale = 1,
                                };
                                uint64_t n_subvectors = 0, n_bits = 0, n_bytes = 0;
                                struct table_layout l;

                                for (uint32_t i = 0; i < n; i += 3)
                                        n_bits += bits, n_subvectors++;
                                for (uint64_t i = 0; i < n_bits; i += 8)
                                        n_bytes++;
                                table_set_one_tier(&h, 2);
                                assert_int_equal(table_layout_compute(&h, &l, NULL), 0);
                                assert_int_equal(l.stage_bytes[0], n_bytes);
                                assert_int_equal(l.record_bytes, 2 * n_bytes);
                                assert_int_equal(l.col_scale_bytes, (2 * n + 63) / 64 * 64);
                                assert_int_equal(l.codebook_bytes,
                                                 l.col_scale_bytes +
                                                         (n_subvectors + 4) / 5 *
                                                                 ((2ull * 3 * 2) << window));
                        }
}

static void test_every_flip(void **state) {
        struct head head = { .header = carvq_header() };
        struct table_contents contents;
        uint8_t bytes[sizeof(head)];

        (void)state;
        plan_head(&head, 20);
        assert_accepted(&head);
        for (size_t bit = 0; bit < 8 * (sizeof(head.header) + 5 * sizeof(head.chunks[0])); bit++) {
                struct fault fault = { 0 };

                memcpy(bytes, &head, sizeof(head));
                bytes[bit / 8] ^= 1 << bit % 8;
                if (table_check(bytes, sizeof(bytes), head.header.file_bytes, &contents, &fault) >=
                    0)
                        fail_msg("byte %zu, bit %zu: accepted", bit / 8, bit % 8);
                assert_true(strlen(fault.text) > 10);
        }
}

static void test_truncation(void **state) {
        struct head head = { .header = carvq_header() };
        struct table_contents contents;
        struct fault fault = { 0 };
        uint64_t around[7] = { sizeof(head.header), sizeof(head.header) + 5 * 32 };
        char expected[320];

        (void)state;
        plan_head(&head, 20);
        for (size_t i = 0; i < 5; i++)
                around[2 + i] = head.chunks[i].offset + head.chunks[i].length;
        assert_int_equal(around[6], head.header.file_bytes);

        for (size_t i = 0; i < ARRAY_SIZE(around); i++)
                for (uint64_t n = around[i] - 70; n <= around[i] + 70; n++) {
                        int r = table_check(&head, MIN(sizeof(head), n), n, &contents, &fault);

                        if (n == head.header.file_bytes) {
                                assert_int_equal(r, 0);
                                continue;
                        }
                        assert_int_equal(r, -EBADMSG);
                        if (n < sizeof(head.header))
                                snprintf(expected, sizeof(expected),
                                         "the file has %" PRIu64
                                         " bytes, expected at least 256 (header)",
                                         n);
                        else
                                snprintf(expected, sizeof(expected),
                                         "file_bytes at byte 32: the header says %" PRIu64
                                         ", the file has %" PRIu64 " (%s)",
                                         head.header.file_bytes, n,
                                         n < head.header.file_bytes ? "truncated"
                                                                    : "trailing bytes");
                        assert_string_equal(fault.text, expected);
                }
        assert_int_equal(table_check(&head, 0, 0, &contents, &fault), -EBADMSG);
        assert_string_equal(fault.text, "the file has 0 bytes, expected at least 256 (header)");
}

/* Each case sets one field of a sound file to a wrong value and, but for the checksums' own cases,
 * seals it again. */
#define FIELD(f) offsetof(struct head, f), sizeof(((struct head *)NULL)->f)

static const struct defect {
        size_t at, n_bytes;
        uint64_t value;
        bool sealed;
        int r;
        const char *expected;
} defects[] = {
        { FIELD(header.magic[0]), 'x', true, -EBADMSG,
          "magic at byte 0: not a .carvq file, expected 89 43 41 52 56 51 0d 0a" },
        { FIELD(header.magic[7]), '\r', true, -EBADMSG,
          "magic at byte 0: not a .carvq file, expected 89 43 41 52 56 51 0d 0a" },
        { FIELD(header.version_major), 2, true, -EPROTONOSUPPORT,
          "version at byte 8: found 2.0, this program reads 1.x" },
        { FIELD(header.version_major), 0, true, -EPROTONOSUPPORT,
          "version at byte 8: found 0.0, this program reads 1.x" },
        { FIELD(header.header_bytes), 512, true, -EBADMSG,
          "header_bytes at byte 12: found 512, expected 256" },
        { FIELD(header.header_checksum), 1, false, -EBADMSG,
          "header_checksum at byte 248: does not match, the header is damaged" },
        { FIELD(header.features_required), 0x8000000000000001, true, -EPROTONOSUPPORT,
          "features_required at byte 16: bits 0x8000000000000001 are unknown, a newer program is"
          " needed" },
        { FIELD(header.reserved0), 1, true, -EBADMSG, "reserved0 at byte 68: expected 0" },
        { FIELD(header.reserved1[0]), 1, true, -EBADMSG, "reserved1 at byte 176: expected 0" },
        { FIELD(header.reserved1[63]), 1, true, -EBADMSG, "reserved1 at byte 239: expected 0" },
        { FIELD(header.n_rows), 0, true, -EBADMSG, "n_rows is 0, expected 1 to 1099511627776" },
        { FIELD(header.n_rows), TABLE_ROWS_MAX + 1, true, -EBADMSG,
          "n_rows is 1099511627777, expected 1 to 1099511627776" },
        { FIELD(header.n_rows), 6, true, -EBADMSG,
          "chunk rows, length at byte 368: found 103, expected 118" },
        { FIELD(header.n_dims), 0, true, -EBADMSG, "n_dims is 0, expected 1 to 65536" },
        { FIELD(header.n_dims), 65537, true, -EBADMSG, "n_dims is 65537, expected 1 to 65536" },
        { FIELD(header.codec), 0, true, -EBADMSG, "codec is 0, expected 1 to 6" },
        { FIELD(header.codec), 7, true, -EBADMSG, "codec is 7, expected 1 to 6" },
        { FIELD(header.codec), TABLE_CODEC_F16, true, -EBADMSG,
          "carvq parameters are set for codec f16, expected all zero" },
        { FIELD(header.record_bytes), 30, true, -EBADMSG,
          "record_bytes at byte 56: found 30, expected 29" },
        { FIELD(header.n_chunks), 0, true, -EBADMSG,
          "n_chunks at byte 64: found 0, expected 1 to 16" },
        { FIELD(header.n_chunks), 17, false, -EBADMSG,
          "header_checksum at byte 248: does not match, the header is damaged" },
        { FIELD(header.n_chunks), 6, true, -EBADMSG, "n_chunks at byte 64: found 6, expected 4" },
        { FIELD(header.n_chunks), 4, true, -EBADMSG,
          "chunk codebooks, offset at byte 264: found 448, expected 384" },
        { FIELD(header.n_stages), 0, true, -EBADMSG, "n_stages is 0, expected 1 to 16" },
        { FIELD(header.n_stages), 17, true, -EBADMSG, "n_stages is 17, expected 1 to 16" },
        { FIELD(header.codebook_bits), 0, true, -EBADMSG, "codebook_bits is 0, expected 1 to 12" },
        { FIELD(header.codebook_bits), 13, true, -EBADMSG,
          "codebook_bits is 13, expected 1 to 12" },
        { FIELD(header.codebook_bits), 5, true, -EBADMSG, "window_bits is 4, expected 5 to 16" },
        { FIELD(header.codebook_bits), 3, true, -EBADMSG,
          "window_bits is 4, expected 3 (codebook_bits) or 5 to 16" },
        { FIELD(header.window_bits), 0, true, -EBADMSG,
          "window_bits is 0, expected 4 (codebook_bits) or 5 to 16" },
        { FIELD(header.window_bits), 3, true, -EBADMSG,
          "window_bits is 3, expected 4 (codebook_bits) or 5 to 16" },
        { FIELD(header.window_bits), 17, true, -EBADMSG,
          "window_bits is 17, expected 4 (codebook_bits) or 5 to 16" },
        { FIELD(header.window_bits), 12, true, -EBADMSG,
          "chunk codebooks, length at byte 272: found 9216, expected 2359296" },
        { FIELD(header.tier_bits[0]), 0, true, -EBADMSG, "tier_bits[0] is 0, expected 4" },
        { FIELD(header.tier_bits[0]), 3, true, -EBADMSG, "tier_bits[0] is 3, expected 4" },
        { FIELD(header.tier_bits[1]), 5, true, -EBADMSG, "tier_bits[1] is 5, expected 4" },
        { FIELD(header.tier_bits[2]), 1, true, -EBADMSG, "tier_bits[2] is 1, expected 0" },
        { FIELD(header.tier_scale[0]), 0, true, -EBADMSG,
          "tier_scale[0] is 0, expected 1 to 31743" },
        { FIELD(header.tier_scale[1]), 0x7c00, true, -EBADMSG,
          "tier_scale[1] is 31744, expected 1 to 31743" },
        { FIELD(header.tier_scale[2]), 1, true, -EBADMSG, "tier_scale[2] is 1, expected 0" },
        { FIELD(header.int8_tier), 2, true, -EBADMSG, "int8_tier is 2, expected 0 to 1" },
        { FIELD(header.col_scale), 2, true, -EBADMSG, "col_scale is 2, expected 0 to 1" },
        { FIELD(header.col_scale), 1, true, -EBADMSG,
          "chunk codebooks, length at byte 272: found 9216, expected 9472" },
        { FIELD(header.subvector_dims), 0, true, -EBADMSG,
          "subvector_dims is 0, expected 1 to 64" },
        { FIELD(header.subvector_dims), 65, true, -EBADMSG,
          "subvector_dims is 65, expected 1 to 64" },
        { FIELD(header.group_cols), 0, true, -EBADMSG, "group_cols is 0, expected 1 to 65536" },
        { FIELD(header.group_cols), 65537, true, -EBADMSG,
          "group_cols is 65537, expected 1 to 65536" },
        { FIELD(header.group_rows), 0, true, -EBADMSG, "group_rows is 0, expected 1 to 5" },
        { FIELD(header.group_rows), 6, true, -EBADMSG, "group_rows is 6, expected 1 to 5" },
        { FIELD(header.row_scale), 2, true, -EBADMSG, "row_scale is 2, expected 0 to 1" },
        { FIELD(header.latent_dims), 1025, true, -EBADMSG,
          "latent_dims is 1025, expected 0 to 1024" },
        { FIELD(header.latent_dims), 0, true, -EBADMSG, "hidden_dims[0] is 6, expected 0" },
        { FIELD(header.hidden_dims[0]), 0, true, -EBADMSG, "hidden_dims[1] is 5, expected 0" },
        { FIELD(header.hidden_dims[1]), 65537, true, -EBADMSG,
          "hidden_dims[1] is 65537, expected 0 to 65536" },
        { FIELD(header.adaptor_type), 0, true, -EBADMSG, "latent_dims is 3, expected 0" },
        { FIELD(header.adaptor_type), 3, true, -EBADMSG, "adaptor_type is 3, expected 0 to 2" },
        { FIELD(header.latent_bits), 0, true, -EBADMSG, "latent_bits is 0, expected 8 or 16" },
        { FIELD(header.latent_bits), 4, true, -EBADMSG, "latent_bits is 4, expected 8 or 16" },
        { FIELD(header.n_tiers), 0, true, -EBADMSG, "n_tiers is 0, expected 1 to 4" },
        { FIELD(header.n_tiers), 5, true, -EBADMSG, "n_tiers is 5, expected 1 to 4" },
        { FIELD(header.n_tiers), 1, true, -EBADMSG, "tier_stages[0] is 1, expected 3" },
        { FIELD(header.n_tiers), 3, true, -EBADMSG, "tier_stages[2] is 0, expected 3" },
        { FIELD(header.n_tiers), 4, true, -EBADMSG, "tier_stages[2] is 0, expected 1 to 3" },
        { FIELD(header.tier_stages[0]), 3, true, -EBADMSG,
          "a record of tier 1 has 29 bytes, expected more than the 29 of tier 0" },
        { FIELD(header.tier_stages[0]), 4, true, -EBADMSG, "tier_stages[0] is 4, expected 0 to 3" },
        { FIELD(header.tier_stages[0]), 0, true, -EBADMSG, "tier_bits[0] is 4, expected 0" },
        { FIELD(header.tier_stages[1]), 2, true, -EBADMSG, "tier_stages[1] is 2, expected 3" },
        { FIELD(header.tier_stages[1]), 4, true, -EBADMSG, "tier_stages[1] is 4, expected 3" },
        { FIELD(header.tier_stages[2]), 1, true, -EBADMSG, "tier_stages[2] is 1, expected 0" },
        { FIELD(header.tier_stages[3]), 4, true, -EBADMSG, "tier_stages[3] is 4, expected 0" },
        { FIELD(header.tier_rows[0]), 0, true, -EBADMSG, "tier_rows[0] is 0, expected 1 to 5" },
        { FIELD(header.tier_rows[0]), 6, true, -EBADMSG, "tier_rows[0] is 6, expected 1 to 5" },
        { FIELD(header.tier_rows[0]), 3, true, -EBADMSG,
          "chunk rows, length at byte 368: found 103, expected 117" },
        { FIELD(header.tier_rows[1]), 1, true, -EBADMSG, "tier_rows[1] is 1, expected 0" },
        { FIELD(header.tier_rows[2]), UINT64_MAX, true, -EBADMSG,
          "tier_rows[2] is 18446744073709551615, expected 0" },
        { FIELD(header.contents_checksum), 1, false, -EBADMSG,
          "header_checksum at byte 248: does not match, the header is damaged" },
        { FIELD(chunks[0].id), TABLE_CHUNK_ROWS, true, -EBADMSG,
          "chunk codebooks, id at byte 256: found 1398230866, expected 1262634051" },
        { FIELD(chunks[1].id), TABLE_CHUNK_CODEBOOKS, true, -EBADMSG,
          "chunk adaptor, id at byte 288: found 1262634051, expected 1414546497" },
        { FIELD(chunks[2].length), 128, true, -EBADMSG,
          "chunk tiers, length at byte 336: found 128, expected 64" },
        { FIELD(chunks[2].offset), 11072, true, -EBADMSG,
          "chunk tiers, offset at byte 328: found 11072, expected 11008" },
        { FIELD(chunks[1].reserved), 1, true, -EBADMSG,
          "chunk adaptor, reserved at byte 292: found 1, expected 0" },
        { FIELD(chunks[3].offset), 8192 + 64, true, -EBADMSG,
          "chunk rows, offset at byte 360: found 8256, expected 12288" },
        { FIELD(chunks[3].offset), UINT64_MAX, true, -EBADMSG,
          "chunk rows, offset at byte 360: found 18446744073709551615, expected 12288" },
        { FIELD(chunks[3].length), UINT64_MAX, true, -EBADMSG,
          "chunk rows, length at byte 368: found 18446744073709551615, expected 103" },
        { FIELD(chunks[4].length), UINT64_MAX, true, -EBADMSG,
          "chunk meta of 18446744073709551615 bytes does not fit into a file" },
        { FIELD(chunks[4].length), 21, true, -EBADMSG,
          "file_bytes at byte 32: found 12436, expected 12437 (end of the last chunk)" },
        { FIELD(chunks[4].length), 0, true, -EBADMSG, "n_chunks at byte 64: found 5, expected 4" },
        { FIELD(chunks[0].checksum), 7, false, -EBADMSG,
          "contents_checksum at byte 240: does not match, the contents table is damaged" },
};

/* Of a table whose tiers differ in bits alone. */
static const struct defect window_defects[] = {
        { FIELD(header.window_bits), 5, true, -EBADMSG, "window_bits is 5, expected 6 to 16" },
        { FIELD(header.window_bits), 17, true, -EBADMSG, "window_bits is 17, expected 6 to 16" },
        { FIELD(header.window_bits), 11, true, -EBADMSG,
          "chunk codebooks, length at byte 272: found 1573120, expected 786688" },
        { FIELD(header.codebook_bits), 5, true, -EBADMSG, "tier_bits[1] is 6, expected 5" },
        { FIELD(header.tier_bits[0]), 0, true, -EBADMSG, "tier_bits[0] is 0, expected 1 to 6" },
        { FIELD(header.tier_bits[0]), 7, true, -EBADMSG, "tier_bits[0] is 7, expected 1 to 6" },
        { FIELD(header.tier_bits[1]), 5, true, -EBADMSG, "tier_bits[1] is 5, expected 6" },
        { FIELD(header.tier_bits[3]), 6, true, -EBADMSG, "tier_bits[3] is 6, expected 0" },
        { FIELD(header.tier_bits[0]), 6, true, -EBADMSG,
          "a record of tier 1 has 28 bytes, expected more than the 28 of tier 0" },
        { FIELD(header.tier_stages[0]), 0, true, -EBADMSG, "tier_bits[0] is 4, expected 0" },
        { FIELD(header.tier_stages[1]), 1, true, -EBADMSG, "tier_stages[1] is 1, expected 2" },
        { FIELD(header.col_scale), 0, true, -EBADMSG,
          "chunk codebooks, length at byte 272: found 1573120, expected 1572864" },
};

static void check_defects(const struct table_header *header, const struct defect *list,
                          size_t n_defects) {
        for (size_t i = 0; i < n_defects; i++) {
                const struct defect *d = &list[i];
                struct head head = { .header = *header };
                struct table_contents contents;
                struct fault fault = { 0 };

                plan_head(&head, 20);
                memcpy((uint8_t *)&head + d->at, &d->value, d->n_bytes);
                if (d->sealed)
                        table_seal(&head.header, head.chunks);
                assert_int_equal(check_head(&head, &contents, &fault), d->r);
                if (strcmp(fault.text, d->expected) != 0)
                        fail_msg("defect %zu: \"%s\", expected \"%s\"", i, fault.text, d->expected);
        }
}

static void test_defects(void **state) {
        const struct table_header plain = carvq_header(), windows = windows_header();

        (void)state;
        check_defects(&plain, defects, ARRAY_SIZE(defects));
        check_defects(&windows, window_defects, ARRAY_SIZE(window_defects));
}

/* What a later minor version may do: reserved bytes and optional features, and nothing else. */
static void test_minor_version(void **state) {
        struct head head = { .header = carvq_header() };

        (void)state;
        plan_head(&head, 20);
        head.header.version_minor = 1;
        head.header.reserved1[5] = 1;
        head.header.features_optional = 1;
        table_seal(&head.header, head.chunks);
        assert_accepted(&head);
        head.header.version_minor = 0;
        head.header.reserved1[5] = 0;
        table_seal(&head.header, head.chunks);
        assert_accepted(&head);
}

/* One piece of 4, 2 or 1 bits for each binary digit of k, in blocks of 64, each a run of bytes:
 * counted code by code. */
static uint64_t naive_packed_bytes(uint64_t n_codes, uint32_t bits) {
        uint64_t n_bytes = 0;

        for (uint32_t width = 4; width; width /= 2) {
                uint64_t n_bits = 0;

                if (!(bits & width))
                        continue;
                for (uint64_t i = 0; i < n_codes; i++) {
                        n_bits += width;
                        if (i % 64 == 63 || i + 1 == n_codes) {
                                n_bytes += (n_bits + 7) / 8;
                                n_bits = 0;
                        }
                }
        }
        return n_bytes;
}

static void test_packed_bytes(void **state) {
        (void)state;
        for (uint32_t bits = 1; bits <= TABLE_SMALL_BITS_MAX; bits++) {
                for (uint64_t n = 0; n < 700; n++)
                        assert_int_equal(table_packed_bytes(n, bits), naive_packed_bytes(n, bits));
                assert_int_equal(table_packed_bytes(65536, bits), 8192 * bits);
        }
}

static void test_names(void **state) {
        uint32_t codec;

        (void)state;
        for (uint32_t c = TABLE_CODEC_F32; c <= TABLE_CODEC_CARVQ; c++) {
                assert_int_equal(table_codec_parse(table_codec_name(c), &codec), 0);
                assert_int_equal(codec, c);
        }
        assert_int_equal(table_codec_parse("unknown", &codec), -EINVAL);
        assert_string_equal(table_codec_name(7), "unknown");
        assert_string_equal(table_chunk_name(TABLE_CHUNK_ROWS), "rows");
        assert_string_equal(table_chunk_name(TABLE_CHUNK_TIERS), "tiers");
        assert_string_equal(table_chunk_name(0), "unknown");
        assert_string_equal(table_adaptor_name(TABLE_ADAPTOR_INT8), "int8");
        assert_string_equal(table_adaptor_name(3), "unknown");
        assert_memory_equal(&(uint32_t){ TABLE_CHUNK_TIERS }, "TIER", 4);
        assert_memory_equal(&(uint32_t){ TABLE_CHUNK_CODEBOOKS }, "CDBK", 4);
        assert_memory_equal(&(uint32_t){ TABLE_CHUNK_META }, "META", 4);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trips),  cmocka_unit_test(test_limits),
                cmocka_unit_test(test_every_flip),   cmocka_unit_test(test_truncation),
                cmocka_unit_test(test_defects),      cmocka_unit_test(test_minor_version),
                cmocka_unit_test(test_packed_bytes), cmocka_unit_test(test_names),
                cmocka_unit_test(test_windows),
        };

        return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on disk: what is mapped, what is refused, and that verification finds any damaged byte and
 * names its chunk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "guarded-table.h"
#include "lib/codec/codec.h"

static uint64_t seed;

static struct table_header carvq_header(void) {
        return (struct table_header){
                .n_rows = 40,
                .n_dims = 100,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = 40,
                .latent_dims = 4,
                .adaptor_type = TABLE_ADAPTOR_INT8,
                .latent_bits = 8,
                .n_tiers = 3,
                .tier_stages = { 1, 2, 3 },
                .tier_rows = { 20, 3 },
        };
}

static int new_file(const void *bytes, size_t n_bytes) {
        int fd = memfd_create("table", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
        return fd;
}

static void assert_refused(int fd, int r, const char *expected) {
        struct codec_file file;
        struct fault fault = { 0 };

        assert_int_equal(codec_file_map(fd, &file, &fault), r);
        assert_string_equal(fault.text, expected);
        close(fd);
}

static void test_map(void **state) {
        struct table_header header = carvq_header();
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        struct fault fault = { 0 };
        int fd;

        (void)state;
        make_table(&header, "{\"packer\":\"test\"}", &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        if (codec_file_map(fd, &file, &fault) < 0)
                fail_msg("%s", fault.text);
        close(fd); /* the mapping stays */
        assert_int_equal(file.map_bytes, header.file_bytes);
        assert_memory_equal(file.map, memory.bytes, header.file_bytes);
        assert_memory_equal(&file.table.contents.header, &header, sizeof(header));
        assert_ptr_equal(file.table.rows,
                         (const uint8_t *)file.map + file.table.contents.rows.offset);
        assert_non_null(file.table.codebooks);
        assert_non_null(file.table.adaptor);
        assert_ptr_equal(file.table.tiers,
                         (const uint8_t *)file.map + file.table.contents.tiers.offset);
        if (codec_file_verify(&file, NULL, NULL, &fault) < 0)
                fail_msg("%s", fault.text);
        codec_file_unmap(&file);
        codec_file_unmap(&file); /* harmless */
        guarded_deinit(&memory);
}

static void test_plain_has_no_codebooks(void **state) {
        struct table_header header = { .n_rows = 3, .n_dims = 5, .codec = TABLE_CODEC_F16 };
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        int fd;

        (void)state;
        make_table(&header, NULL, &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);
        assert_null(file.table.codebooks);
        assert_null(file.table.adaptor);
        assert_null(file.table.tiers);
        assert_int_equal(codec_file_verify(&file, NULL, NULL, NULL), 0);
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

static void test_refusals(void **state) {
        struct table_header header = carvq_header();
        uint64_t random = seed;
        struct guarded memory;
        char expected[320];
        int fds[2];

        (void)state;
        make_table(&header, NULL, &random, &memory);
        snprintf(expected, sizeof(expected),
                 "file_bytes at byte 32: the header says %" PRIu64 ", the file has %" PRIu64
                 " (truncated)",
                 header.file_bytes, header.file_bytes - 1);
        assert_refused(new_file(memory.bytes, header.file_bytes - 1), -EBADMSG, expected);
        assert_refused(new_file("", 0), -EBADMSG,
                       "the file has 0 bytes, expected at least 256 (header)");
        memory.bytes[0] = 'x';
        assert_refused(new_file(memory.bytes, header.file_bytes), -EBADMSG,
                       "magic at byte 0: not a .carvq file, expected 89 43 41 52 56 51 0d 0a");

        assert_int_equal(pipe(fds), 0);
        assert_refused(fds[0], -EBADMSG, "not a regular file");
        close(fds[1]);
        assert_refused(-1, -EBADF, "fstat: Bad file descriptor");
        guarded_deinit(&memory);
}

/* Every byte behind the header belongs to a chunk or is padding: damage to it must be found. */
static void test_every_damaged_byte(void **state) {
        struct table_header header = carvq_header();
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        uint8_t *map;
        int fd;

        (void)state;
        make_table(&header, "{}", &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);
        map = mmap(NULL, header.file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(map != MAP_FAILED);

        for (uint64_t i = sizeof(header) + 5 * sizeof(struct table_chunk); i < header.file_bytes;
             i++) {
                struct fault fault = { 0 };

                map[i] ^= 1 << i % 8;
                if (codec_file_verify(&file, NULL, NULL, &fault) != -EBADMSG || !fault.text[0])
                        fail_msg("byte %" PRIu64 ": not found", i);
                map[i] ^= 1 << i % 8;
        }
        assert_int_equal(codec_file_verify(&file, NULL, NULL, NULL), 0);
        munmap(map, header.file_bytes);
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

static void test_first_damage_is_named(void **state) {
        struct table_header header = carvq_header();
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        const struct table_contents *c = &file.table.contents;
        int fd;

        (void)state;
        make_table(&header, "{}", &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);

        const struct {
                uint64_t at;
                const struct table_chunk *chunk;
                const char *name;
        } damages[] = {
                /* From the last to the first, each left in place: the first must be named. */
                { c->meta.offset, &c->meta, "meta" },
                { c->rows.offset + 99, &c->rows, "rows" },
                { c->tiers.offset + 64, &c->tiers, "tiers" },
                { c->adaptor.offset + c->adaptor.length - 1, &c->adaptor, "adaptor" },
                { c->codebooks.offset, &c->codebooks, "codebooks" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
                uint8_t byte = memory.bytes[damages[i].at] ^ 0x10;
                struct fault fault = { 0 };
                char start[128], end[64];

                assert_int_equal(pwrite(fd, &byte, 1, (off_t)damages[i].at), 1);
                assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), -EBADMSG);
                snprintf(start, sizeof(start),
                         "chunk %s is damaged, bytes %" PRIu64 " to %" PRIu64 ": checksum is ",
                         damages[i].name, damages[i].chunk->offset,
                         damages[i].chunk->offset + damages[i].chunk->length - 1);
                snprintf(end, sizeof(end), ", expected %016" PRIx64, damages[i].chunk->checksum);
                assert_memory_equal(fault.text, start, strlen(start));
                assert_string_equal(fault.text + strlen(start) + 16, end);
        }
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

static void test_padding(void **state) {
        struct table_header header = carvq_header();
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        struct fault fault = { 0 };
        int fd;

        (void)state;
        make_table(&header, NULL, &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);
        assert_int_equal(pwrite(fd, "\x07", 1, (off_t)file.table.contents.rows.offset - 1), 1);
        assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), -EBADMSG);
        assert_string_equal(fault.text,
                            "padding before chunk rows, byte 4095: found 0x07, expected 0");
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

/* More than one window of the verifier, and more than the size from which access is random. */
static void test_large(void **state) {
        struct table_header header = { .n_rows = 70001, .n_dims = 250, .codec = TABLE_CODEC_F32 };
        struct table_contents contents;
        uint64_t random = seed;
        struct guarded memory;
        struct codec_file file;
        struct fault fault = { 0 };
        int fd;

        (void)state;
        make_table(&header, NULL, &random, &memory);
        fd = new_file(memory.bytes, header.file_bytes);
        assert_int_equal(codec_file_map(fd, &file, NULL), 0);
        contents = file.table.contents;
        assert_true(contents.rows.length > 64 << 20);
        assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), 0);
        /* On both sides of a window's end. */
        for (off_t at = (4 << 20) - 1; at <= 4 << 20; at++) {
                uint8_t byte = memory.bytes[at];

                assert_int_equal(pwrite(fd, &(uint8_t){ byte ^ 1 }, 1, at), 1);
                assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), -EBADMSG);
                assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        }
        assert_int_equal(codec_file_verify(&file, NULL, NULL, &fault), 0);
        codec_file_unmap(&file);
        close(fd);
        guarded_deinit(&memory);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_map),
                cmocka_unit_test(test_plain_has_no_codebooks),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_every_damaged_byte),
                cmocka_unit_test(test_first_damage_is_named),
                cmocka_unit_test(test_padding),
                cmocka_unit_test(test_large),
        };

        seed = test_seed();
        return cmocka_run_group_tests_name("table-file", tests, NULL, NULL);
}

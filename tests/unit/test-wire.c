/* SPDX-License-Identifier: Apache-2.0 */
/* wire_check(): each type as it should be, and each with each defect that it can have. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "proto/wire.h"

static const struct {
        const char *name;
        size_t bytes, n_fds, text_offset, text_bytes, reserved_offset;
} kinds[] = {
        [WIRE_HELLO] = { "HELLO", 168, 0, 40, 128, 20 },
        [WIRE_WELCOME] = { "WELCOME", 184, 0, 56, 128, 0 },
        [WIRE_RING] = { "RING", 32, 1, 0, 0, 0 },
        [WIRE_READY] = { "READY", 8, 1, 0, 0, 0 },
        [WIRE_OPEN_TABLE] = { "OPEN_TABLE", 144, 0, 16, 128, 0 },
        [WIRE_TABLE] = { "TABLE", 328, 0, 72, 256, 44 },
        [WIRE_CLOSE_TABLE] = { "CLOSE_TABLE", 16, 0, 0, 0, 0 },
        [WIRE_WAKE] = { "WAKE", 8, 0, 0, 0, 0 },
        [WIRE_ERROR] = { "ERROR", 272, 0, 16, 256, 12 },
        [WIRE_GET_FILE] = { "GET_FILE", 24, 0, 0, 0, 0 },
        [WIRE_FILE] = { "FILE", 280, 1, 24, 256, 20 },
        [WIRE_GET_CACHE] = { "GET_CACHE", 24, 0, 0, 0, 0 },
        [WIRE_CACHE] = { "CACHE", 280, 1, 24, 256, 0 },
};

static void make(uint8_t buffer[WIRE_MESSAGE_BYTES], uint32_t type) {
        struct wire_header header = { type, (uint32_t)kinds[type].bytes };

        memset(buffer, 0, WIRE_MESSAGE_BYTES);
        memcpy(buffer, &header, sizeof(header));
        if (kinds[type].text_offset)
                buffer[kinds[type].text_offset] = 'x';
}

static void refuse(const uint8_t *buffer, size_t bytes, size_t n_fds, const char *text) {
        struct fault fault = { "" };

        assert_int_equal(wire_check(buffer, bytes, n_fds, &fault), -EPROTO);
        if (!strstr(fault.text, text))
                fail_msg("found \"%s\", expected \"%s\" in it", fault.text, text);
}

static void test_good(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        for (uint32_t type = WIRE_HELLO; type <= WIRE_TYPE_LAST; type++) {
                make(buffer, type);
                assert_int_equal(wire_check(buffer, kinds[type].bytes, kinds[type].n_fds, NULL),
                                 type);
        }
}

static void test_sizes(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        for (uint32_t type = WIRE_HELLO; type <= WIRE_TYPE_LAST; type++)
                for (size_t bytes = 0; bytes <= WIRE_MESSAGE_BYTES; bytes++) {
                        if (bytes == kinds[type].bytes)
                                continue;
                        make(buffer, type);
                        refuse(buffer, bytes, kinds[type].n_fds,
                               bytes < 8 ? "expected at least 8" : kinds[type].name);
                        /* The claim alone, either way round. */
                        if (bytes < 8)
                                continue;
                        memcpy(buffer + 4, &(uint32_t){ (uint32_t)bytes }, 4);
                        refuse(buffer, bytes, kinds[type].n_fds, kinds[type].name);
                        refuse(buffer, kinds[type].bytes, kinds[type].n_fds, "that claims");
                }
}

static void test_types(void **state) {
        const uint32_t types[] = { 0, WIRE_TYPE_LAST + 1, 1000, UINT32_MAX };
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        make(buffer, WIRE_WAKE);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                memcpy(buffer, &types[i], sizeof(types[i]));
                refuse(buffer, 8, 0, "is unknown");
        }
}

static void test_descriptors(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        for (uint32_t type = WIRE_HELLO; type <= WIRE_TYPE_LAST; type++)
                for (size_t n = 0; n < 4; n++) {
                        if (n == kinds[type].n_fds)
                                continue;
                        make(buffer, type);
                        refuse(buffer, kinds[type].bytes, n, "descriptors, expected");
                }
}

/* A refusal brings no descriptor. */
static void test_refusals(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        make(buffer, WIRE_FILE);
        memcpy(buffer + 16, &(uint32_t){ WIRE_NO_TABLE }, 4);
        assert_int_equal(wire_check(buffer, 280, 0, NULL), WIRE_FILE);
        refuse(buffer, 280, 1, "FILE with 1 descriptors, expected 0");
}

static void test_reserved(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        for (uint32_t type = WIRE_HELLO; type <= WIRE_TYPE_LAST; type++)
                for (size_t i = 0; kinds[type].reserved_offset && i < 4; i++) {
                        make(buffer, type);
                        buffer[kinds[type].reserved_offset + i] = 1;
                        refuse(buffer, kinds[type].bytes, kinds[type].n_fds, "reserved field");
                }
}

static void test_texts(void **state) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];

        (void)state;
        for (uint32_t type = WIRE_HELLO; type <= WIRE_TYPE_LAST; type++) {
                uint8_t *text = buffer + kinds[type].text_offset;

                if (!kinds[type].text_offset)
                        continue;
                make(buffer, type);
                memset(text, 'a', kinds[type].text_bytes); /* not terminated */
                refuse(buffer, kinds[type].bytes, kinds[type].n_fds, "not padded");
                text[kinds[type].text_bytes - 1] = '\0'; /* as long as can be */
                assert_int_equal(wire_check(buffer, kinds[type].bytes, kinds[type].n_fds, NULL),
                                 type);
                text[3] = '\0'; /* stray bytes behind the end */
                refuse(buffer, kinds[type].bytes, kinds[type].n_fds, "not padded");
        }
}

static void test_version(void **state) {
        struct wire_hello hello = { .header = { WIRE_HELLO, sizeof(hello) },
                                    .magic = WIRE_MAGIC,
                                    .version_major = WIRE_VERSION_MAJOR,
                                    .version_minor = 9 };
        struct fault fault;

        (void)state;
        assert_int_equal(wire_check_version(&hello, sizeof(hello), &fault), 0);
        hello.version_major++;
        assert_int_equal(wire_check_version(&hello, sizeof(hello), &fault), -EPROTONOSUPPORT);
        assert_non_null(strstr(fault.text, "protocol version 2.9, expected 1.x"));
        /* Whatever else has changed in that version. */
        hello.header.bytes = 20;
        assert_int_equal(wire_check_version(&hello, 20, &fault), -EPROTONOSUPPORT);
        assert_int_equal(wire_check_version(&hello, 19, &fault), 0); /* wire_check()'s matter */
        hello.magic ^= 1;
        assert_int_equal(wire_check_version(&hello, sizeof(hello), &fault), -EPROTO);
        hello.header.type = WIRE_WELCOME;
        assert_int_equal(wire_check_version(&hello, sizeof(hello), &fault), -EPROTO);
        hello.header.type = WIRE_TABLE;
        assert_int_equal(wire_check_version(&hello, sizeof(hello), &fault), 0);
}

static void test_names(void **state) {
        char name[WIRE_NAME_BYTES + 1];

        (void)state;
        assert_true(wire_table_name_valid("a"));
        assert_true(wire_table_name_valid("Gemma-3_270m.q8"));
        assert_false(wire_table_name_valid(""));
        assert_false(wire_table_name_valid(".hidden"));
        assert_false(wire_table_name_valid("a/b"));
        assert_false(wire_table_name_valid("a b"));
        assert_false(wire_table_name_valid("\xc3\xa4"));
        memset(name, 'a', sizeof(name));
        name[WIRE_NAME_BYTES - 1] = '\0';
        assert_true(wire_table_name_valid(name));
        name[WIRE_NAME_BYTES - 1] = 'a';
        name[WIRE_NAME_BYTES] = '\0';
        assert_false(wire_table_name_valid(name));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),     cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_types),    cmocka_unit_test(test_descriptors),
                cmocka_unit_test(test_refusals), cmocka_unit_test(test_reserved),
                cmocka_unit_test(test_texts),    cmocka_unit_test(test_version),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}

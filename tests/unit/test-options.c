/* SPDX-License-Identifier: Apache-2.0 */
/* Structs of every size: older, equal, newer, not initialized; and carvq_strerror's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "carvq.h"
#include "options.h"

struct small {
        size_t size;
        uint32_t a, b;
};

struct large {
        struct small small;
        uint64_t c[4];
};

static void test_none(void **state) {
        struct small known = { 1, 2, 3 };

        (void)state;
        assert_int_equal(options_copy(NULL, sizeof(known), &known, NULL), 0);
        assert_int_equal(known.a, 0);
        assert_int_equal(known.b, 0);
}

static void test_equal_and_smaller(void **state) {
        struct small given = { sizeof(given), 7, 8 }, known;

        (void)state;
        assert_int_equal(options_copy(&given, sizeof(known), &known, NULL), 0);
        assert_memory_equal(&given, &known, sizeof(known));

        given.size = offsetof(struct small, b); /* older than `b` */
        memset(&known, 0xff, sizeof(known));
        assert_int_equal(options_copy(&given, sizeof(known), &known, NULL), 0);
        assert_int_equal(known.a, 7);
        assert_int_equal(known.b, 0);
}

static void test_larger(void **state) {
        struct large given = { .small = { sizeof(given), 7, 8 } };
        struct small known;
        struct fault fault;

        (void)state;
        assert_int_equal(options_copy(&given, sizeof(known), &known, &fault), 0);
        assert_int_equal(known.b, 8);
        for (size_t byte = sizeof(known); byte < sizeof(given); byte++) {
                ((uint8_t *)&given)[byte] = 1;
                assert_int_equal(options_copy(&given, sizeof(known), &known, &fault), -E2BIG);
                assert_non_null(strstr(fault.text, "a newer one is needed"));
                ((uint8_t *)&given)[byte] = 0;
        }
}

static void test_nonsense(void **state) {
        const size_t sizes[] = { 0, 1, sizeof(size_t) - 1 };
        struct small given = { 0, 7, 8 }, known = { 0 };
        struct fault fault;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                given.size = sizes[i];
                assert_int_equal(options_copy(&given, sizeof(known), &known, &fault), -EINVAL);
                assert_non_null(strstr(fault.text, "options.size is"));
        }
        given.size = SIZE_MAX;
        assert_int_equal(options_copy(&given, sizeof(known), &known, &fault), -E2BIG);
        assert_int_equal(known.a, 0); /* written only on success */
}

static void test_words(void **state) {
        (void)state;
        assert_string_equal(carvq_version(), CARVQ_VERSION);
        assert_string_equal(carvq_strerror(0), "no error");
        assert_string_equal(carvq_strerror(-ECONNRESET), "the daemon is gone");
        assert_string_equal(carvq_strerror(-EISDIR), "Is a directory");
        assert_string_equal(carvq_strerror(-100000), "unknown error");
        assert_string_equal(carvq_strerror(INT32_MIN), "unknown error");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_none),   cmocka_unit_test(test_equal_and_smaller),
                cmocka_unit_test(test_larger), cmocka_unit_test(test_nonsense),
                cmocka_unit_test(test_words),
        };

        return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}

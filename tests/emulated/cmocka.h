/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of cmocka as the tests of lib/codec use, for machines that Debian's cross compilers make
 * programs for and its archive has no cmocka for. A test that fails ends the program.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
        const char *name;
        void (*run)(void **state);
};

#define cmocka_unit_test(f) ((struct CMUnitTest){ #f, f })

#define fail_msg(...)                                                                              \
        do {                                                                                       \
                printf("# %s:%d: ", __FILE__, __LINE__);                                           \
                printf(__VA_ARGS__);                                                               \
                printf("\nnot ok - %s\n", __func__);                                               \
                exit(1);                                                                           \
        } while (0)
#define assert_true(c)                                                                             \
        do {                                                                                       \
                if (!(c))                                                                          \
                        fail_msg("%s", #c);                                                        \
        } while (0)
#define assert_null(p)               assert_true((p) == NULL)
#define assert_non_null(p)           assert_true((p) != NULL)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_ptr_equal(a, b)       assert_true((a) == (b))
#define assert_string_equal(a, b)    assert_true(!strcmp(a, b))
#define assert_memory_equal(a, b, n) assert_true(!memcmp(a, b, n))

#define cmocka_run_group_tests_name(name, tests, set_up, tear_down)                                \
        run_tests(tests, sizeof(tests) / sizeof((tests)[0]))

static inline int run_tests(const struct CMUnitTest *tests, size_t n) {
        printf("1..%zu\n", n);
        for (size_t i = 0; i < n; i++) {
                void *state = NULL;

                fflush(stdout);
                tests[i].run(&state);
                printf("ok %zu - %s\n", i + 1, tests[i].name);
        }
        return 0;
}

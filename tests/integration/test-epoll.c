/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real carvqd where a seccomp filter of this test forbids io_uring, as containers do: it serves
 * all the same, with epoll, and tells everybody why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "tests/make-table.h"

#define WHY "io_uring is forbidden by a seccomp profile"

static void check_rows(const struct harness *h, const char *path) {
        carvq_client *client = harness_connect(h);
        float rows[8 * 16], expected[8 * 16];
        carvq_table *table, *direct;
        uint64_t ids[8];

        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(carvq_file_open(path, NULL, &direct, NULL), 0);
        for (uint64_t turn = 0; turn < 50; turn++) {
                for (uint64_t i = 0; i < 8; i++)
                        ids[i] = (turn * 13 + i * 7) % 100;
                assert_int_equal(carvq_lookup(table, ids, 8, NULL, rows, sizeof(rows)), 0);
                assert_int_equal(carvq_lookup(direct, ids, 8, NULL, expected, sizeof(expected)), 0);
                assert_memory_equal(rows, expected, sizeof(rows));
        }
        carvq_table_close(direct);
        carvq_client_free(client);
}

static void test_forbidden(void **state) {
        static const struct table_header parameters = { .codec = TABLE_CODEC_F16,
                                                        .n_rows = 100,
                                                        .n_dims = 16 };
        static const int errors[] = { EPERM, ENOSYS };
        char spec[256], said[4096];

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                struct harness h;
                const char *path;

                harness_init(&h);
                h.io_uring_error = errors[i];
                path = harness_path(&h, "t.carvq");
                make_table_file(path, &parameters, 1);
                snprintf(spec, sizeof(spec), "t=%s", path);
                harness_start(&h, (const char *[]){ "--table", spec, NULL });
                assert_true(harness_logged(&h, WHY ": the event loop is epoll"));
                check_rows(&h, path);
                assert_int_equal(harness_ctl(&h, "status", said, sizeof(said)), 0);
                assert_non_null(strstr(said, "loop      epoll (" WHY ")\n"));
                assert_int_equal(harness_ctl(&h, "status --json", said, sizeof(said)), 0);
                assert_non_null(strstr(said, "\"event_loop\": \"epoll\""));
                assert_non_null(strstr(said, "\"event_loop_reason\": \"" WHY "\""));
                assert_int_equal(harness_stop(&h), 0);
                harness_deinit(&h);
        }
}

/* Who insists on io_uring gets no other. */
static void test_insisting(void **state) {
        struct harness h;

        (void)state;
        harness_init(&h);
        h.io_uring_error = EPERM;
        assert_int_equal(
                harness_start_fails(&h, (const char *[]){ "--event-loop", "io_uring", NULL }), 1);
        assert_true(harness_logged(&h, WHY "; containers' default ones do so"));
        harness_deinit(&h);
}

/* Asked for, it needs no excuse. */
static void test_chosen(void **state) {
        char said[4096];
        struct harness h;

        (void)state;
        harness_init(&h);
        harness_start(&h, (const char *[]){ "--event-loop", "epoll", NULL });
        assert_int_equal(harness_ctl(&h, "status", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "loop      epoll\n"));
        assert_int_equal(harness_stop(&h), 0);
        harness_start(&h, (const char *[]){ "--event-loop", "io_uring", NULL });
        assert_int_equal(harness_ctl(&h, "status", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "loop      io_uring\n"));
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_forbidden),
                cmocka_unit_test(test_insisting),
                cmocka_unit_test(test_chosen),
        };

        return cmocka_run_group_tests_name("epoll", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

#define TABLES_MAX 300

static struct store_table tables[TABLES_MAX];
static struct loop *loop;

static struct daemon daemon_with(uint32_t n_sessions) {
        static const struct codec_kernels kernels = { .name = "scalar" };

        return (struct daemon){
                .loop = loop, .kernels = &kernels, .n_sessions = n_sessions, .ready = true
        };
}

static void assert_status(struct daemon *daemon, uint32_t n_tables, const char *expected) {
        char status[NOTIFY_STATUS_BYTES];

        TAILQ_INIT(&daemon->store.tables);
        for (uint32_t i = 0; i < n_tables; i++)
                TAILQ_INSERT_TAIL(&daemon->store.tables, &tables[i], link);
        memset(status, '?', sizeof(status));
        notify_describe(daemon, status);
        assert_string_equal(status, expected);
}

static void name_tables(const char *format) {
        for (uint32_t i = 0; i < TABLES_MAX; i++) {
                tables[i].published = true;
                snprintf(tables[i].name, sizeof(tables[i].name), format, i);
        }
}

static void test_counts_and_names(void **state) {
        struct daemon daemon = daemon_with(1);

        (void)state;
        name_tables("t%u");
        assert_status(&daemon, 0, "Serving 0 tables to 1 client, kernels scalar, event loop epoll");
        assert_status(&daemon, 1,
                      "Serving 1 table (t0) to 1 client, kernels scalar, event loop epoll");
        daemon.n_sessions = 2;
        assert_status(
                &daemon, 3,
                "Serving 3 tables (t0, t1, t2) to 2 clients, kernels scalar, event loop epoll");
}

/* One that was replaced or withdrawn is nobody's news, though its last clients still read it. */
static void test_names_what_is_published(void **state) {
        struct daemon daemon = daemon_with(0);

        (void)state;
        name_tables("t%u");
        tables[0].published = tables[2].published = false;
        assert_status(&daemon, 3,
                      "Serving 1 table (t1) to 0 clients, kernels scalar, event loop epoll");
        tables[1].published = false;
        assert_status(&daemon, 3,
                      "Serving 0 tables to 0 clients, kernels scalar, event loop epoll");
}

static void test_long_lists_are_cut_between_names(void **state) {
        struct daemon daemon = daemon_with(1000000);
        char expected[NOTIFY_STATUS_BYTES];

        (void)state;
        name_tables("table-with-a-long-name-%08u");
        assert_status(&daemon, TABLES_MAX,
                      "Serving 300 tables (table-with-a-long-name-00000000, "
                      "table-with-a-long-name-00000001, table-with-a-long-name-00000002, 297 more) "
                      "to 1000000 clients, kernels scalar, event loop epoll");

        memset(tables[0].name, 'x', sizeof(tables[0].name) - 1);
        snprintf(expected, sizeof(expected),
                 "Serving 2 tables (2 more) to 1000000 clients, kernels scalar, event loop epoll");
        assert_status(&daemon, 2, expected);
}

static void test_before_and_after(void **state) {
        struct daemon daemon = daemon_with(1);

        (void)state;
        name_tables("t%u");
        daemon.stopping = true;
        assert_status(&daemon, 2, "Stopping, 1 client to drain");
        daemon = daemon_with(0);
        daemon.ready = false;
        daemon.n_loading = 2;
        assert_status(&daemon, 0, "Loading 2 tables");
}

static int setup(void **state) {
        (void)state;
        return loop_new(LOOP_EPOLL, &loop, NULL);
}

static int teardown(void **state) {
        (void)state;
        loop = loop_free(loop);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_counts_and_names),
                cmocka_unit_test(test_names_what_is_published),
                cmocka_unit_test(test_long_lists_are_cut_between_names),
                cmocka_unit_test(test_before_and_after),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

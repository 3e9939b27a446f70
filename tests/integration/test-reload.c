/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real carvqd whose configuration changes: what a reload loads, unloads, refuses, and leaves
 * alone; tables for a group, by every door to their rows; tables that are kept in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"
#include "raw-client.h"
#include "tests/make-table.h"

#define GROUP      4242
#define USER       54321
#define SAID_BYTES 65536

static struct harness h;
static char said[SAID_BYTES];

static void make(const char *name, uint64_t seed) {
        const struct table_header header = { .codec = TABLE_CODEC_F32, .n_rows = 100, .n_dims = 8 };

        make_table_file(harness_path(&h, name), &header, seed);
}

/* `text` with "@" for the folder. */
static void configure(const char *text) {
        FILE *f = fopen(harness_path(&h, "conf"), "we");

        assert_non_null(f);
        for (; *text; text++)
                if (*text == '@')
                        fputs(h.folder, f);
                else
                        fputc(*text, f);
        fclose(f);
}

static void start(void) {
        harness_start(&h, (const char *[]){ "--config", harness_path(&h, "conf"), NULL });
        /* Tests are root; those that they become may come in, too. */
        assert_int_equal(chmod(h.folder, 0711), 0);
        assert_int_equal(chmod(h.socket_path, 0666), 0);
}

static int prepare(void **state) {
        (void)state;
        harness_init(&h);
        make("a", 1);
        make("b", 2);
        configure("[table a]\npath = @/a\n");
        return 0;
}

static int setup(void **state) {
        prepare(state);
        start();
        return 0;
}

static int teardown(void **state) {
        int status = h.pid ? harness_stop(&h) : 0;

        (void)state;
        harness_deinit(&h);
        return status;
}

/* Runs `carvqctl reload`, and expects just this of it. */
static void expect_reload(int status, const char *expected) {
        int r = harness_ctl(&h, "reload", said, sizeof(said));

        if (r != status || strcmp(said, expected) != 0)
                fail_msg("exit %d: %s", r, said);
}

static uint64_t generation_of(const char *name) {
        carvq_client *client = harness_connect(&h);
        struct carvq_table_info info = { .size = sizeof(info) };
        carvq_table *table;

        if (carvq_table_open(client, name, &table) == 0)
                carvq_table_info(table, &info);
        carvq_client_free(client);
        return info.generation;
}

/* ---- Reload ---- */

static void test_tables(void **state) {
        (void)state;
        assert_int_equal(generation_of("a"), 1);
        expect_reload(0, "All tables are as they were.\n");
        assert_int_equal(generation_of("a"), 1);

        configure("[table a]\npath = @/a\n[table b]\npath = @/b\n");
        expect_reload(0, "loaded         b\n");
        assert_int_equal(generation_of("a"), 1);

        /* Another file, the same file written again, other options: each is another generation. */
        configure("[table a]\npath = @/b\n[table b]\npath = @/b\n");
        expect_reload(0, "loaded         a\n");
        make("new", 3);
        assert_int_equal(rename(harness_path(&h, "new"), harness_path(&h, "b")), 0);
        expect_reload(0, "loaded         a\nloaded         b\n");
        configure("[carvqd]\ncache-bytes = 64K\n[table a]\npath = @/b\ncache-bytes = auto\n"
                  "[table b]\npath = @/b\n");
        expect_reload(0, "loaded         b\n");
        configure("[carvqd]\ncache-bytes = 64K\n[table b]\npath = @/b\n");
        expect_reload(0, "unloaded       a\n");
        assert_int_equal(generation_of("a"), 0);
        assert_int_equal(generation_of("b"), 6);
}

/* By hand is by hand, unless the configuration wants the name. */
static void test_loaded_by_hand(void **state) {
        char command[200];

        (void)state;
        snprintf(command, sizeof(command), "load b %s", harness_path(&h, "b"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        snprintf(command, sizeof(command), "load a %s", harness_path(&h, "b"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        expect_reload(0, "loaded         a\n");
        configure("");
        expect_reload(0, "unloaded       a\n");
        assert_int_equal(generation_of("b"), 2);
        assert_int_equal(harness_ctl(&h, "--json tables", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\"origin\": \"loaded\""));

        /* A file that the configuration comes to name is its own, without loading it again. */
        snprintf(command, sizeof(command), "load a %s", harness_path(&h, "a"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        configure("[table a]\npath = @/a\n");
        expect_reload(0, "All tables are as they were.\n");
        configure("");
        expect_reload(0, "unloaded       a\n");
}

static void test_refusals(void **state) {
        char expected[400];

        (void)state;
        configure("[table a]\npath = @/none\n");
        snprintf(expected, sizeof(expected),
                 "refused        a: %s/none: No such file or directory\n", h.folder);
        expect_reload(1, expected);
        assert_int_equal(generation_of("a"), 1);
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "a is refused, for "));
        expect_reload(1, expected); /* as long as it is so */
        configure("[table a]\npath = @/a\n");
        expect_reload(0, "All tables are as they were.\n");
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        assert_null(strstr(said, "refused"));
        configure("[table a]\npath = @/a\n[table c]\npath = @/none\n");
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 1);
        configure("[table a]\npath = @/a\n");
        expect_reload(0, "All tables are as they were.\n");
}

static void test_settings(void **state) {
        char expected[300];

        (void)state;
        configure("[carvqd]\nlog-level = debug\nworkers = 7\nspin-us = 3\nmax-sessions = 1\n"
                  "odd = 1\n[table a]\npath = @/a\n");
        snprintf(expected, sizeof(expected),
                 "warning        %s/conf:6: unknown key 'odd' is ignored\n"
                 "needs restart  spin-us\n"
                 "needs restart  workers\n"
                 "All tables are as they were.\n",
                 h.folder);
        if (getenv("CARVQD_WORKERS"))
                skip(); /* the command line decides */
        expect_reload(0, expected);
        assert_true(harness_logged(&h, "warning workers has changed: that takes a restart"));
        generation_of("a");
        assert_true(harness_logged(&h, "debug client is ready"));
        assert_int_equal(harness_ctl(&h, "--json status", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\"max_sessions\": 1,"));
        assert_non_null(strstr(said, "\"n_workers\": 1,"));
}

static void test_bad_configuration(void **state) {
        (void)state;
        configure("[carvqd]\nlog-level = loud\n[table a]\nlock = maybe\npath = @/b\n");
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 1);
        assert_non_null(strstr(said, "the configuration has errors, and nothing was changed: "));
        assert_non_null(strstr(said, "conf:2: log-level is 'loud', expected error, warning"));
        assert_non_null(strstr(said, "; more are in carvqd's log\n"));
        assert_true(harness_logged(&h, "conf:4: lock is 'maybe', expected yes or no"));
        assert_true(harness_logged(&h, "error the configuration has errors: nothing is changed"));
        assert_int_equal(generation_of("a"), 1);
        unlink(harness_path(&h, "conf"));
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 1);
        assert_non_null(strstr(said, "conf: No such file or directory\n"));
        assert_int_equal(generation_of("a"), 1);
}

/* Signals and calls at once: each is answered, in order, and none is too many. */
static void test_many_at_once(void **state) {
        char command[400];

        (void)state;
        snprintf(command, sizeof(command),
                 "status >/dev/null; for i in 1 2 3 4 5 6 7 8; do kill -HUP %d; %s --control %s "
                 "reload & done; wait",
                 h.pid, getenv("CARVQCTL"), h.control_path);
        configure("[table a]\npath = @/a\n[table b]\npath = @/b\n");
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        assert_null(strstr(said, "carvqctl: "));
        assert_int_equal(generation_of("b"), 2);
        /* And it can end in the middle of one. */
        for (int i = 0; i < 50; i++)
                kill(h.pid, SIGHUP);
}

/* ---- Groups ---- */

/* In a process of that user: each way to the table's rows. 0, or which one was wrong. */
static int try_as(uid_t uid, gid_t gid, gid_t supplementary, int expected) {
        struct carvq_table_options direct = { .size = sizeof(direct), .mode = CARVQ_MODE_DIRECT };
        const uint64_t ids[1] = { 5 };
        carvq_client *client;
        carvq_table *table;
        float row[8];

        if (setgroups(1, &supplementary) < 0 || setgid(gid) < 0 || setuid(uid) < 0)
                return 1;
        client = harness_connect(&h);
        if (!client)
                return 2;
        if (carvq_table_open(client, "a", &table) != expected)
                return 3;
        if (expected && !strstr(carvq_client_error(client), "is for group 4242, of which user"))
                return 4;
        if (!expected && carvq_lookup(table, ids, 1, NULL, row, sizeof(row)) < 0)
                return 5;
        if (carvq_table_open_with(client, "a", &direct, &table) != expected)
                return 6;
        if (carvq_table_open(client, "b", &table) < 0)
                return 7; /* which is for everybody; and the session goes on */
        carvq_client_free(client);
        return 0;
}

static int result_as(uid_t uid, gid_t gid, gid_t supplementary, int expected) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(try_as(uid, gid, supplementary, expected));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void skip_unless_root(void) {
        if (geteuid() == 0)
                return;
        print_message("# left out: only root can become others\n");
        skip();
}

static void test_groups(void **state) {
        (void)state;
        skip_unless_root();
        configure("[table a]\npath = @/a\ngroup = 4242\n[table b]\npath = @/b\n");
        expect_reload(0, "loaded         b\n");
        assert_int_equal(generation_of("a"), 1); /* root; and not loaded again for that */
        assert_int_equal(result_as(USER, USER, USER, -EACCES), 0);
        assert_int_equal(result_as(USER, GROUP, USER, 0), 0);
        assert_int_equal(result_as(USER, USER, GROUP, 0), 0);
        assert_int_equal(result_as(USER, USER, GROUP + 1, -EACCES), 0);
        assert_true(harness_logged(&h, "client is refused a table: table a is for group 4242"));
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "a: for members of group 4242\n"));

        configure("[table a]\npath = @/a\n[table b]\npath = @/b\n");
        expect_reload(0, "All tables are as they were.\n");
        assert_int_equal(result_as(USER, USER, USER, 0), 0);
}

/* Also of a table that the folder has, or somebody loaded. */
static void test_group_of_others(void **state) {
        char command[200];

        (void)state;
        skip_unless_root();
        configure("[table a]\ngroup = 4242\n");
        expect_reload(0, "unloaded       a\n");
        snprintf(command, sizeof(command), "load a %s", harness_path(&h, "a"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        snprintf(command, sizeof(command), "load b %s", harness_path(&h, "b"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        assert_int_equal(result_as(USER, USER, USER, -EACCES), 0);
        assert_int_equal(result_as(USER, USER, GROUP, 0), 0);
}

/* In a process of another user: the table was open before its group was set. */
static int keep_open(const char *go_path) {
        struct wire_get_file get_file = { .header = { WIRE_GET_FILE, sizeof(get_file) },
                                          .request = 9 };
        struct wire_get_cache get_cache = { .header = { WIRE_GET_CACHE, sizeof(get_cache) },
                                            .request = 10 };
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_file file;
        struct wire_cache cache;
        struct wire_table table;
        struct raw_client c;
        gid_t gid = USER;
        FILE *go;

        if (setgroups(1, &gid) < 0 || setgid(USER) < 0 || setuid(USER) < 0)
                return 1;
        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        get_file.table = get_cache.table = raw_open_table(&c, "a", &table);
        go = fopen(go_path, "re"); /* a FIFO: until the test has it reloaded */
        if (!go || fgetc(go) != 'x')
                return 2;
        raw_send(&c, &get_file, sizeof(get_file), NULL, 0);
        if (raw_receive(&c, message) != WIRE_FILE)
                return 3;
        memcpy(&file, message, sizeof(file));
        raw_send(&c, &get_cache, sizeof(get_cache), NULL, 0);
        if (raw_receive(&c, message) != WIRE_CACHE)
                return 4;
        memcpy(&cache, message, sizeof(cache));
        if (file.status != WIRE_DENIED || !strstr(file.text, "is for group 4242"))
                return 5;
        if (cache.status != WIRE_DENIED || cache.n_sets || !strstr(cache.text, "is for group"))
                return 6;
        return 0;
}

static void test_group_at_every_door(void **state) {
        const char *go_path = harness_path(&h, "go");
        FILE *go;
        int status;
        pid_t pid;

        (void)state;
        skip_unless_root();
        configure("[table a]\npath = @/a\ncache-bytes = 64K\n");
        expect_reload(0, "loaded         a\n");
        assert_int_equal(mkfifo(go_path, 0644), 0);
        pid = fork();
        if (pid == 0)
                _exit(keep_open(go_path));
        go = fopen(go_path, "we"); /* the child has it open */
        assert_non_null(go);
        configure("[table a]\npath = @/a\ncache-bytes = 64K\ngroup = 4242\n");
        expect_reload(0, "All tables are as they were.\n");
        fputc('x', go);
        fclose(go);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* A daemon that is not root lets its own user in, whatever the group. */
static void test_own_user(void **state) {
        (void)state;
        skip_unless_root();
        h.user = USER;
        configure("[table a]\npath = @/a\ngroup = 4242\n[table b]\npath = @/b\n");
        start();
        assert_int_equal(result_as(USER, USER, USER, 0), 0);
        assert_int_equal(result_as(USER + 1, USER, USER, -EACCES), 0);
        assert_int_equal(result_as(USER + 1, USER, GROUP, 0), 0);
}

/* ---- In memory ---- */

static void make_large(void) {
        const struct table_header header = { .codec = TABLE_CODEC_F16,
                                             .n_rows = 100000,
                                             .n_dims = 700 };

        make_table_file(harness_path(&h, "large"), &header, 1);
}

static void test_populate(void **state) {
        struct stat st;
        char expected[64];

        (void)state;
        make_large();
        assert_int_equal(stat(harness_path(&h, "large"), &st), 0);
        configure("[carvqd]\nlog-level = debug\n[table large]\npath = @/large\npopulate = yes\n");
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        snprintf(expected, sizeof(expected), "large: 67108864 of %lld bytes",
                 (long long)st.st_size);
        harness_wait_logged(&h, expected);
        snprintf(expected, sizeof(expected), "large: %lld of %lld bytes populated",
                 (long long)st.st_size, (long long)st.st_size);
        harness_wait_logged(&h, expected);
        assert_int_equal(harness_ctl(&h, "--json tables", said, sizeof(said)), 0);
        snprintf(expected, sizeof(expected), "\"rss_bytes\": %lld",
                 (long long)align_up((uint64_t)st.st_size, 4096));
        assert_non_null(strstr(said, expected)); /* measured */
        snprintf(expected, sizeof(expected), "\"populated_bytes\": %lld", (long long)st.st_size);
        assert_non_null(strstr(said, expected));
        assert_non_null(strstr(said, "\"is_populating\": false"));
}

static void test_lock_without_room(void **state) {
        (void)state;
        skip_unless_root();
        make_large();
        h.user = USER; /* whom the limit binds */
        configure("[table large]\npath = @/large\nlock = yes\nhuge-pages = yes\n");
        start();
        if (!harness_logged(&h, "table large is not locked: Cannot allocate memory"))
                fail();
        assert_true(harness_logged(&h, "(LimitMEMLOCK= in the unit)"));
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\nlarge is not locked: Cannot allocate memory; it has 14"));
        assert_int_not_equal(generation_of("large"), 0);
}

static void test_lock(void **state) {
        FILE *f;
        char path[64], line[128];
        unsigned long long locked_kib = 0;
        struct stat st;

        (void)state;
        skip_unless_root();
        make_large();
        assert_int_equal(stat(harness_path(&h, "large"), &st), 0);
        configure("[table large]\npath = @/large\nlock = yes\n");
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        snprintf(path, sizeof(path), "/proc/%d/status", h.pid);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f))
                sscanf(line, "VmLck: %llu", &locked_kib);
        fclose(f);
        assert_int_equal(locked_kib, align_up((uint64_t)st.st_size, 4096) / 1024);
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\nlarge: locked, "));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
                cmocka_unit_test_setup_teardown(test_loaded_by_hand, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_settings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_configuration, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
                cmocka_unit_test_setup_teardown(test_group_of_others, setup, teardown),
                cmocka_unit_test_setup_teardown(test_group_at_every_door, setup, teardown),
                cmocka_unit_test_setup_teardown(test_own_user, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_populate, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lock_without_room, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
        };

        return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locking a table, with room for it and without, each in a child whose rights and limits change;
 * and populating one, also after its file was cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "daemon/daemon.h"
#include "tests/make-table.h"

static char path[64];

static uint64_t locked_kib(void) {
        FILE *f = fopen("/proc/self/status", "re");
        unsigned long long kib = 0;
        char line[256];

        while (f && fgets(line, sizeof(line), f))
                sscanf(line, "VmLck: %llu", &kib);
        if (f)
                fclose(f);
        return kib;
}

/* An ordinary user, whose limit counts. The exit status says what was wrong. */
static int lock_with_limit(uint64_t limit_bytes, bool expected) {
        struct rlimit limit = { limit_bytes, limit_bytes };
        struct store_table *table;
        char numbers[64];

        if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (geteuid() == 0 && setuid(65534) < 0))
                return 1;
        if (store_table_new("t", path, &table, NULL) < 0)
                return 2;
        table->options.lock = true;
        resident_prepare(table);
        if (table->resident.is_locked != expected)
                return 3;
        if (expected &&
            (table->resident.problem.text[0] || locked_kib() < table->file.map_bytes / 1024))
                return 4;
        snprintf(numbers, sizeof(numbers), "may have %llu (LimitMEMLOCK= in the unit)",
                 (unsigned long long)limit_bytes);
        if (!expected && (!strstr(table->resident.problem.text, numbers) || locked_kib()))
                return 5;
        store_table_unref(table);
        return locked_kib() ? 6 : 0;
}

static void check_in_child(uint64_t limit_bytes, bool expected) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(lock_with_limit(limit_bytes, expected));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_lock(void **state) {
        struct rlimit limit;

        (void)state;
        getrlimit(RLIMIT_MEMLOCK, &limit);
        check_in_child(65536, false);
        check_in_child(0, false);
        if (limit.rlim_max >= (4 << 20))
                check_in_child(4 << 20, true);
}

static void test_nothing_asked_for(void **state) {
        struct store_table *table;

        (void)state;
        assert_int_equal(store_table_new("t", path, &table, NULL), 0);
        resident_prepare(table);
        assert_false(table->resident.is_locked);
        assert_string_equal(table->resident.problem.text, "");
        store_table_unref(table);
}

/* Runs a loop until it is done. */
static void populate(uint64_t file_bytes, bool expected) {
        struct daemon daemon = { .stopping = true };
        struct store_table *table;
        uint64_t map_bytes;

        assert_int_equal(loop_new(LOOP_AUTO, &daemon.loop, NULL), 0);
        assert_int_equal(chores_new(loop_mailbox(daemon.loop), &daemon.chores), 0);
        store_init(&daemon.store, daemon.chores, loop_mailbox(daemon.loop));
        assert_int_equal(store_table_new("t", path, &table, NULL), 0);
        map_bytes = table->file.map_bytes;
        table->options.populate = true;
        store_publish(&daemon.store, table);
        store_use(table);
        assert_int_equal(truncate(path, (off_t)MIN(file_bytes, map_bytes)), 0);

        resident_start(&daemon, table);
        assert_true(table->resident.is_populating);
        assert_int_equal(loop_run(daemon.loop), 0);
        assert_false(table->resident.is_populating);
        assert_int_equal(table->resident.populated_bytes, expected ? map_bytes : 0);
        assert_int_equal(atomic_load(&table->failed), !expected);
        assert_int_equal(table->published, expected);

        store_unuse(&daemon.store, table);
        store_deinit(&daemon.store);
        chores_free(daemon.chores);
        loop_free(daemon.loop);
}

/* A file that was cut after it was mapped takes its table along. */
static void test_populate(void **state) {
        (void)state;
        populate(UINT64_MAX, true);
        populate(8192, false);
}

static int make_file(void **state) {
        const struct table_header h = { .codec = TABLE_CODEC_F32, .n_rows = 10000, .n_dims = 64 };
        int fd;

        (void)state;
        strcpy(path, "/tmp/test-resident-XXXXXX");
        fd = mkstemp(path);
        fchmod(fd, 0644);
        close(fd);
        make_table_file(path, &h, 1);
        return 0;
}

static int remove_file(void **state) {
        (void)state;
        return unlink(path);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lock), cmocka_unit_test(test_nothing_asked_for),
                cmocka_unit_test(test_populate), /* last: cuts the file */
        };

        return cmocka_run_group_tests(tests, make_file, remove_file);
}

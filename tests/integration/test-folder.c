/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real carvqd with a watched folder: files that come, are replaced, are bad, go, and more of it
 * at once than the kernel keeps events. Every row that a client gets is compared with direct
 * decoding of the file that it should be from.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"
#include "tests/make-table.h"

#define N_ROWS     1000u
#define N_DIMS     48u
#define USER       65534
#define SAID_BYTES 65536

static struct harness h;
static char said[SAID_BYTES];

/* In the watched folder. */
static const char *in(const char *name) {
        char relative[128];

        snprintf(relative, sizeof(relative), "t/%s", name);
        return harness_path(&h, relative);
}

static void make(const char *path, uint64_t seed) {
        const struct table_header header = { .codec = TABLE_CODEC_F32,
                                             .n_rows = N_ROWS,
                                             .n_dims = N_DIMS };

        make_table_file(path, &header, seed);
}

/* A new file of its own, as everybody should do it. */
static void publish(const char *name, uint64_t seed) {
        make(in(".new"), seed);
        assert_int_equal(rename(in(".new"), in(name)), 0);
}

static bool read_rows(carvq_table *table, float *rows) {
        uint64_t ids[N_ROWS];

        for (uint64_t i = 0; i < N_ROWS; i++)
                ids[i] = i;
        return carvq_lookup(table, ids, N_ROWS, NULL, rows, N_ROWS * N_DIMS * sizeof(float)) == 0;
}

/* What a file of this seed holds. */
static float *rows_of(uint64_t seed) {
        float *rows = malloc(N_ROWS * N_DIMS * sizeof(float));
        carvq_table *table;

        make(harness_path(&h, "expected"), seed);
        assert_int_equal(carvq_file_open(harness_path(&h, "expected"), NULL, &table, NULL), 0);
        assert_true(read_rows(table, rows));
        carvq_table_close(table);
        unlink(harness_path(&h, "expected"));
        return rows;
}

static bool serves(carvq_table *table, uint64_t seed) {
        _cleanup_(freep) float *expected = rows_of(seed), *rows = calloc(N_ROWS * N_DIMS, 4);

        return read_rows(table, rows) && !memcmp(rows, expected, N_ROWS * N_DIMS * sizeof(float));
}

static void expect_served(const char *name, uint64_t seed) {
        carvq_client *client = harness_connect(&h);
        carvq_table *table;

        assert_int_equal(carvq_table_open(client, name, &table), 0);
        assert_true(serves(table, seed));
        carvq_client_free(client);
}

static void expect_missing(const char *name) {
        carvq_client *client = harness_connect(&h);
        carvq_table *table;

        assert_int_equal(carvq_table_open(client, name, &table), -ENOENT);
        carvq_client_free(client);
}

static const char *tables(void) {
        assert_int_equal(harness_ctl(&h, "tables", said, sizeof(said)), 0);
        return said;
}

static void start(const char *option, const char *value) {
        harness_start(&h, (const char *[]){ "--tables-dir", harness_path(&h, "t"), "--log-level",
                                            "debug", option, value, NULL });
}

static int prepare(void **state) {
        (void)state;
        harness_init(&h);
        return mkdir(harness_path(&h, "t"), 0755);
}

static int setup(void **state) {
        prepare(state);
        start(NULL, NULL);
        return 0;
}

static int teardown(void **state) {
        char command[200];
        int status = h.pid ? harness_stop(&h) : 0;

        (void)state;
        snprintf(command, sizeof(command), "rm -rf %s/t %s/u", h.folder, h.folder);
        if (system(command) != 0)
                return -1;
        harness_deinit(&h);
        return status;
}

/* ---- Coming ---- */

static void test_at_start(void **state) {
        (void)state;
        publish("a.carvq", 1);
        publish("b.c.carvq", 2);
        publish(".hidden.carvq", 3);
        publish("other.txt", 4);
        publish("white space.carvq", 5);
        start(NULL, NULL);
        expect_served("a", 1);
        expect_served("b.c", 2);
        assert_true(harness_logged(&h, "table white space is not loaded: table name"));
        assert_non_null(strstr(tables(), "white space is refused"));
        assert_int_equal(harness_ctl(&h, "--json status", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\"n_tables\": 2"));
}

static void test_rename(void **state) {
        (void)state;
        publish("w.carvq", 7);
        harness_wait_logged(&h, "table w: 1000 x 48, f32, generation 1");
        expect_served("w", 7);
}

/* Nobody looks at a file that is being written, also when there is something else to look at. */
static void test_close_after_write(void **state) {
        _cleanup_(freep) char *bytes = NULL;
        struct stat st;
        int fd, source;

        (void)state;
        make(harness_path(&h, "source"), 8);
        source = open(harness_path(&h, "source"), O_RDONLY | O_CLOEXEC);
        assert_int_equal(fstat(source, &st), 0);
        bytes = malloc((size_t)st.st_size);
        assert_int_equal(read(source, bytes, (size_t)st.st_size), st.st_size);
        close(source);

        fd = open(in("slow.carvq"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_int_equal(write(fd, bytes, 10000), 10000);
        publish("quick.carvq", 9);
        harness_wait_logged(&h, "table quick: ");
        assert_int_equal(write(fd, bytes + 10000, (size_t)st.st_size - 10000), st.st_size - 10000);
        publish("again.carvq", 9);
        harness_wait_logged(&h, "table again: ");
        expect_missing("slow");
        assert_null(strstr(tables(), "slow"));
        close(fd);
        harness_wait_logged(&h, "table slow: ");
        expect_served("slow", 8);
}

/* Nor if the name was another's a moment before: that one stays until the new one is complete. */
static void test_removed_and_written_anew(void **state) {
        char byte;
        int fd, source;

        (void)state;
        make(harness_path(&h, "source"), 2);
        publish("w.carvq", 1);
        harness_wait_logged(&h, "table w: ");
        kill(h.pid, SIGSTOP);
        unlink(in("w.carvq"));
        fd = open(in("w.carvq"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        source = open(harness_path(&h, "source"), O_RDONLY | O_CLOEXEC);
        while (read(source, &byte, 1) == 1 && lseek(fd, 0, SEEK_CUR) < 20000)
                assert_int_equal(write(fd, &byte, 1), 1);
        publish("x.carvq", 3);
        kill(h.pid, SIGCONT);
        harness_wait_logged(&h, "table x: ");
        expect_served("w", 1);
        assert_null(strstr(tables(), "refused"));
        assert_int_equal(lseek(source, 0, SEEK_SET), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        while (read(source, &byte, 1) == 1)
                assert_int_equal(write(fd, &byte, 1), 1);
        close(source);
        close(fd);
        harness_wait_logged(&h, "generation 3,");
        expect_served("w", 2);
}

static void test_links(void **state) {
        (void)state;
        make(harness_path(&h, "elsewhere"), 3);
        assert_int_equal(symlink(harness_path(&h, "elsewhere"), in("soft.carvq")), 0);
        harness_wait_logged(&h, "table soft: ");
        expect_served("soft", 3);
        assert_int_equal(link(harness_path(&h, "elsewhere"), in("hard.carvq")), 0);
        harness_wait_logged(&h, "table hard: ");
        expect_served("hard", 3);
}

/* ---- Replacing ---- */

/* Reads whole tables until the pipe ends: each is all of one seed, and stays so while it is open.
 */
static int read_until_told(int pipe_fd, const float *const expected[2]) {
        carvq_client *client = harness_connect(&h);
        float *rows = malloc(N_ROWS * N_DIMS * sizeof(float));
        carvq_table *old = NULL, *table;
        unsigned seen = 0;
        size_t of_old = 0;

        while (poll(&(struct pollfd){ .fd = pipe_fd, .events = POLLIN }, 1, 0) == 0) {
                size_t is;

                if (carvq_table_open(client, "w", &table) < 0 || !read_rows(table, rows))
                        return 1;
                for (is = 0; is < 2; is++)
                        if (!memcmp(rows, expected[is], N_ROWS * N_DIMS * sizeof(float)))
                                break;
                if (is == 2)
                        return 2;
                seen |= 1u << is;
                if (old && (!read_rows(old, rows) ||
                            memcmp(rows, expected[of_old], N_ROWS * N_DIMS * sizeof(float)) != 0))
                        return 3;
                if (old)
                        carvq_table_close(old);
                old = table;
                of_old = is;
        }
        carvq_client_free(client);
        free(rows);
        return seen == 3 ? 0 : 4;
}

static void test_replace_under_a_reader(void **state) {
        float *const expected[2] = { rows_of(1), rows_of(2) };
        int pipe_fds[2], status;
        char text[64];
        pid_t pid;

        (void)state;
        publish("w.carvq", 1);
        harness_wait_logged(&h, "generation 1,");
        assert_int_equal(pipe(pipe_fds), 0);
        pid = fork();
        if (pid == 0) {
                close(pipe_fds[1]);
                _exit(read_until_told(pipe_fds[0], (const float *const *)expected));
        }
        close(pipe_fds[0]);
        for (unsigned i = 2; i < 22; i++) {
                publish("w.carvq", 1 + (i + 1) % 2);
                snprintf(text, sizeof(text), "generation %u,", i);
                harness_wait_logged(&h, text);
        }
        close(pipe_fds[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        free(expected[0]);
        free(expected[1]);
}

/* The last one counts, however many there were before somebody looked. */
static void test_burst(void **state) {
        char name[32];

        (void)state;
        kill(h.pid, SIGSTOP);
        for (uint64_t i = 0; i < 100; i++)
                publish("w.carvq", i);
        for (int i = 0; i < 300; i++) {
                snprintf(name, sizeof(name), "n%d.carvq", i);
                publish(name, 5);
        }
        publish("z.carvq", 6);
        kill(h.pid, SIGCONT);
        harness_wait_logged(&h, "table z: ");
        expect_served("w", 99);
        for (int i = 0; i < 300; i += 37) {
                snprintf(name, sizeof(name), "n%d", i);
                harness_wait_logged(&h, name);
        }
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        assert_string_equal(said, "All tables are as they were.\n");
        assert_int_equal(harness_ctl(&h, "--json status", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\"n_tables\": 302"));
        assert_false(strstr(tables(), "w (old)") != NULL);
}

static void write_text(const char *path, const char *text) {
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        fputs(text, f);
        fclose(f);
}

/* Whatever is wrong with it, the older generation stays, and it is told why. */
static void test_bad_replacements(void **state) {
        carvq_client *client;
        carvq_table *table;
        char long_text[2000];

        (void)state;
        memset(long_text, 'x', sizeof(long_text) - 1);
        long_text[sizeof(long_text) - 1] = '\0';
        publish("w.carvq", 1);
        harness_wait_logged(&h, "table w: ");
        client = harness_connect(&h);
        assert_int_equal(carvq_table_open(client, "w", &table), 0);

        write_text(in(".new"), long_text);
        assert_int_equal(rename(in(".new"), in("w.carvq")), 0);
        harness_wait_logged(&h, "w.carvq: magic at byte 0: not a .carvq file");
        assert_true(harness_logged(&h, "; the older generation stays"));
        assert_non_null(strstr(tables(), "w is refused, for "));
        assert_non_null(strstr(said, "w.carvq: magic at byte 0: not a .carvq file"));
        expect_served("w", 1);
        assert_true(serves(table, 1));

        make(in(".new"), 2);
        assert_int_equal(truncate(in(".new"), 20000), 0);
        assert_int_equal(rename(in(".new"), in("w.carvq")), 0);
        harness_wait_logged(&h, "file_bytes at byte 32");
        assert_non_null(strstr(tables(), "file_bytes at byte 32"));
        assert_null(strstr(said, "not a .carvq file"));
        expect_served("w", 1);

        unlink(in("w.carvq"));
        harness_wait_logged(&h, "table w: its file is gone from the folder");
        assert_null(strstr(tables(), "refused"));
        expect_missing("w");
        assert_true(serves(table, 1));
        carvq_client_free(client);

        assert_int_equal(mkdir(in("d.carvq"), 0755), 0);
        assert_int_equal(rename(in("d.carvq"), in("w.carvq")), 0);
        harness_wait_logged(&h, "table w is not loaded: ");
        assert_int_equal(rmdir(in("w.carvq")), 0);
        publish("w.carvq", 3);
        harness_wait_logged(&h, "generation 2,");
        assert_null(strstr(tables(), "refused"));
        expect_served("w", 3);
}

/* A file that the daemon may not read is refused until it may. */
static void test_unreadable(void **state) {
        (void)state;
        if (geteuid() != 0) {
                print_message("# left out: only root can start it as somebody else\n");
                skip();
        }
        h.user = USER;
        start(NULL, NULL);
        make(in(".new"), 4);
        assert_int_equal(chmod(in(".new"), 0600), 0);
        assert_int_equal(rename(in(".new"), in("w.carvq")), 0);
        harness_wait_logged(&h, "w.carvq: Permission denied");
        assert_non_null(strstr(tables(), "Permission denied"));
        assert_int_equal(chmod(in("w.carvq"), 0644), 0);
        harness_wait_logged(&h, "table w: ");
        assert_null(strstr(tables(), "refused"));
}

/* ---- Going ---- */

static void test_removal(void **state) {
        carvq_client *client;
        carvq_table *table, *again;

        (void)state;
        publish("w.carvq", 1);
        publish("moved.carvq", 2);
        harness_wait_logged(&h, "table moved: ");
        client = harness_connect(&h);
        assert_int_equal(carvq_table_open(client, "w", &table), 0);
        unlink(in("w.carvq"));
        harness_wait_logged(&h, "table w: its file is gone");
        assert_int_equal(carvq_table_open(client, "w", &again), -ENOENT);
        assert_true(serves(table, 1));
        assert_int_equal(rename(in("moved.carvq"), in("to.carvq")), 0);
        harness_wait_logged(&h, "table moved: its file is gone");
        harness_wait_logged(&h, "table to: ");
        expect_missing("moved");
        expect_served("to", 2);
        carvq_client_free(client);
}

/* The folder itself: what is served of it stays, and a reload finds the new one. */
static void test_folder_goes_and_comes(void **state) {
        (void)state;
        publish("w.carvq", 1);
        harness_wait_logged(&h, "table w: ");
        assert_int_equal(rename(harness_path(&h, "t"), harness_path(&h, "u")), 0);
        harness_wait_logged(&h, "the folder of tables was removed or renamed");
        expect_served("w", 1);
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        assert_true(harness_logged(&h, "/t: No such file"));
        expect_served("w", 1);

        assert_int_equal(mkdir(harness_path(&h, "t"), 0755), 0);
        publish("x.carvq", 2);
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "loaded         x\n"));
        assert_non_null(strstr(said, "unloaded       w\n"));
        publish("y.carvq", 3);
        harness_wait_logged(&h, "table y: ");
        expect_served("y", 3);
        expect_missing("w");
}

/* ---- More than the kernel keeps ---- */

static void test_overflow(void **state) {
        unsigned n_events = 0;
        FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "re");

        (void)state;
        if (!f || fscanf(f, "%u", &n_events) != 1 || n_events > 1000000) {
                print_message("# left out: the kernel keeps %u events\n", n_events);
                skip();
        }
        fclose(f);
        publish("goes.carvq", 1);
        publish("stays.carvq", 2);
        publish("changes.carvq", 3);
        harness_wait_logged(&h, "table changes: ");

        kill(h.pid, SIGSTOP);
        write_text(in("one.carvq"), "");
        for (unsigned i = 0; i <= n_events / 2; i++)
                assert_int_equal(rename(in(i % 2 ? "two.carvq" : "one.carvq"),
                                        in(i % 2 ? "one.carvq" : "two.carvq")),
                                 0);
        unlink(in("one.carvq"));
        unlink(in("two.carvq"));
        unlink(in("goes.carvq"));
        publish("changes.carvq", 4);
        publish("comes.carvq", 5);
        kill(h.pid, SIGCONT);
        harness_wait_logged(&h, "more happened in the folder of tables");
        harness_wait_logged(&h, "table comes: ");
        expect_served("comes", 5);
        harness_wait_logged(&h, "generation 5,");
        expect_served("changes", 4);
        expect_served("stays", 2);
        expect_missing("goes");

        /* And it is watched as before. */
        publish("later.carvq", 6);
        harness_wait_logged(&h, "table later: ");
        expect_served("later", 6);
}

/* ---- Others that want the name ---- */

static void test_configuration_wins(void **state) {
        char spec[160];

        (void)state;
        make(harness_path(&h, "configured"), 1);
        publish("w.carvq", 2);
        snprintf(spec, sizeof(spec), "w=%s", harness_path(&h, "configured"));
        start("--table", spec);
        expect_served("w", 1);
        publish("w.carvq", 3);
        publish("x.carvq", 4);
        harness_wait_logged(&h, "table x: ");
        expect_served("w", 1);
        unlink(in("w.carvq"));
        unlink(in("x.carvq"));
        harness_wait_logged(&h, "table x: its file is gone");
        expect_served("w", 1);
}

/* By hand is until the folder has something new to say. */
static void test_loaded_by_hand(void **state) {
        char command[200];

        (void)state;
        publish("w.carvq", 1);
        harness_wait_logged(&h, "table w: ");
        make(harness_path(&h, "other"), 2);
        snprintf(command, sizeof(command), "load w %s", harness_path(&h, "other"));
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        expect_served("w", 2);
        publish("w.carvq", 3);
        harness_wait_logged(&h, "generation 3,");
        expect_served("w", 3);
        assert_int_equal(harness_ctl(&h, "unload w", said, sizeof(said)), 0);
        expect_missing("w");
        assert_int_equal(harness_ctl(&h, "reload", said, sizeof(said)), 0);
        assert_string_equal(said, "loaded         w\n");
        expect_served("w", 3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_at_start, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_rename, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_after_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_removed_and_written_anew, setup, teardown),
                cmocka_unit_test_setup_teardown(test_links, setup, teardown),
                cmocka_unit_test_setup_teardown(test_replace_under_a_reader, setup, teardown),
                cmocka_unit_test_setup_teardown(test_burst, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_replacements, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unreadable, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_removal, setup, teardown),
                cmocka_unit_test_setup_teardown(test_folder_goes_and_comes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_overflow, setup, teardown),
                cmocka_unit_test_setup_teardown(test_configuration_wins, prepare, teardown),
                cmocka_unit_test_setup_teardown(test_loaded_by_hand, setup, teardown),
        };

        return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}

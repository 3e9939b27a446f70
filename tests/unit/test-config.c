/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include <sys/stat.h>

#include "capture.h"
#include "daemon/config.h"

#define ARGUMENTS_MAX 24

/* Runs config_init(); `*ret_said` is what it wrote to stderr. */
static int init(struct config *config, char **ret_said, const char *const *arguments) {
        char *argv[ARGUMENTS_MAX + 2] = { (char *)"carvqd" };
        struct capture c = capture_begin(STDERR_FILENO);
        int argc = 1, r;

        for (; arguments[argc - 1]; argc++)
                argv[argc] = (char *)arguments[argc - 1];
        r = config_init(config, argc, argv);
        *ret_said = capture_end(&c);
        return r;
}

#define ARGUMENTS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* /dev/null: whatever this machine has in /etc is none of the test's business. */
#define NO_FILE "--config", "/dev/null"

static char *write_file(const char *text) {
        static char path[] = "/tmp/test-config-XXXXXX";
        int fd;

        strcpy(path, "/tmp/test-config-XXXXXX");
        fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
        return path;
}

static int init_with_file(struct config *config, char **ret_said, const char *text) {
        const char *path = write_file(text);
        int r = init(config, ret_said, ARGUMENTS("--config", path));

        unlink(path);
        return r;
}

static void test_defaults(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(freep) char *said = NULL;
        uint64_t user_max[QUOTA_KINDS_N];

        (void)state;
        assert_int_equal(init(&config, &said, ARGUMENTS(NO_FILE)), 0);
        assert_string_equal(said, "");
        assert_int_equal(config.log_level, LOG_LEVEL_INFO);
        assert_int_equal(config.spin_ns_max, 50000);
        assert_int_equal(config.n_workers, 1);
        assert_int_equal(config.cache_bytes, CONFIG_CACHE_AUTO);
        assert_int_equal(config.max_sessions, 1024);
        assert_int_equal(config.max_ring_bytes, UINT64_C(4) << 30);
        config_user_limits(&config, user_max);
        assert_int_equal(user_max[QUOTA_SESSIONS], 768);
        assert_int_equal(user_max[QUOTA_RING_BYTES], UINT64_C(64) << 30);
        assert_int_equal(user_max[QUOTA_TABLES], 65536);
        assert_int_equal(user_max[QUOTA_IDS], 16 << 20);
        assert_int_equal(user_max[QUOTA_HANDSHAKES], 2000);
        config.max_sessions = 1;
        config_user_limits(&config, user_max);
        assert_int_equal(user_max[QUOTA_SESSIONS], 1);
        if (geteuid() == 0)
                assert_string_equal(config.tables_dir, "/var/lib/carvq");
        else
                assert_null(config.tables_dir);
        assert_int_equal(config.cpu_mask, UINT32_MAX);
        assert_true(SLIST_EMPTY(&config.tables));
}

static void check_sockets(const char *expected_dir) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(freep) char *said = NULL;
        char path[128];

        assert_int_equal(init(&config, &said, ARGUMENTS(NO_FILE)), 0);
        snprintf(path, sizeof(path), "%s/carvqd.sock", expected_dir);
        assert_string_equal(config.socket_path, path);
        snprintf(path, sizeof(path), "%s/control.sock", expected_dir);
        assert_string_equal(config.control_path, path);
}

static void test_default_sockets(void **state) {
        (void)state;
        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
        setenv("RUNTIME_DIRECTORY", "/run/a:/run/b", 1);
        check_sockets("/run/a");
        unsetenv("RUNTIME_DIRECTORY");
        check_sockets(geteuid() == 0 ? "/run/carvq" : "/run/user/7/carvq");
}

static void test_no_place_for_sockets(void **state) {
        struct config config;
        _cleanup_(freep) char *said = NULL;

        (void)state;
        if (geteuid() == 0 && seteuid(65534) < 0) {
                print_message("# left out: cannot become an ordinary user\n");
                return;
        }
        unsetenv("XDG_RUNTIME_DIR");
        assert_int_equal(init(&config, &said, ARGUMENTS(NO_FILE)), -EINVAL);
        if (getuid() == 0)
                assert_int_equal(seteuid(0), 0);
        assert_string_equal(said, "carvqd: socket has no default: XDG_RUNTIME_DIR is not set; give "
                                  "--socket and --control\n");
        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
}

static const struct config_table *table_named(const struct config *config, const char *name) {
        const struct config_table *t;

        SLIST_FOREACH(t, &config->tables, link) {
                if (!strcmp(t->name, name))
                        return t;
        }
        fail_msg("no table %s", name);
        return NULL;
}

static const char file_text[] = "# comment\n"
                                "[carvqd]\n"
                                "socket = /a/data.sock\n"
                                "control=/a/control.sock ; behind a value\n"
                                "log-level = warning\n"
                                "tables-dir = /a/tables\n"
                                "cpu-mask = scalar\n"
                                "spin-us = 0\n"
                                "workers = 2\n"
                                "max-sessions = 3\n"
                                "max-ring-bytes = 64M\n"
                                "cache-bytes = 3M\n"
                                "\n"
                                "[table one]\n"
                                "path = /a/one.carvq\n"
                                "cache-bytes = 0\n"
                                "cache-bytes = 5K\n"
                                "group = root\n"
                                "populate = yes\n"
                                "\n"
                                "  [table two.x]\n"
                                "  path = /a/with space=and sign.carvq\n"
                                "lock = yes\n"
                                "huge-pages = yes\n"
                                "huge-pages = no\n"
                                "[table four]\n"
                                "group = 4242\n";

static void test_file(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        struct table_options options;
        _cleanup_(freep) char *said = NULL;

        (void)state;
        assert_int_equal(init_with_file(&config, &said, file_text), 0);
        assert_string_equal(said, "");
        assert_string_equal(config.socket_path, "/a/data.sock");
        assert_string_equal(config.control_path, "/a/control.sock");
        assert_string_equal(config.tables_dir, "/a/tables");
        assert_int_equal(config.cpu_mask, 0);
        assert_int_equal(config.log_level, LOG_LEVEL_WARNING);
        assert_int_equal(config.spin_ns_max, 0);
        assert_int_equal(config.n_workers, 2);
        assert_int_equal(config.max_sessions, 3);
        assert_int_equal(config.max_ring_bytes, 64 << 20);
        options = config_table_options(&config, "one");
        assert_int_equal(options.cache_bytes, 5 << 10); /* the later one */
        assert_string_equal(options.group, "root");
        assert_int_equal(options.gid, 0);
        assert_true(options.populate && !options.lock && !options.huge_pages);
        options = config_table_options(&config, "two.x");
        assert_int_equal(options.cache_bytes, 3 << 20);
        assert_true(!options.populate && options.lock && !options.huge_pages);
        assert_string_equal(options.group, "");
        assert_int_equal(config_table_options(&config, "three").cache_bytes, 3 << 20);
        assert_int_equal(config_table_options(&config, "four").gid, 4242);
        assert_null(table_named(&config, "four")->path);
        assert_string_equal(table_named(&config, "one")->path, "/a/one.carvq");
        assert_string_equal(table_named(&config, "two.x")->path, "/a/with space=and sign.carvq");
}

/* Wherever --config stands. */
static void test_command_line_overrides(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(freep) char *said = NULL;
        const char *path = write_file(file_text);
        int r;

        (void)state;
        r = init(&config, &said,
                 ARGUMENTS("--socket", "/b/data.sock", "--table", "one=/b/one=1.carvq", "--config",
                           path, "--log-level=debug", "--table=three=/b/three",
                           "--table=one:cache-bytes=7K", "--table", "three:path=/b/three:x",
                           "--max-sessions", "5", "--max-sessions-per-user=2",
                           "--max-ring-bytes-per-user=3M", "--max-tables-per-user=4",
                           "--max-ids-in-flight-per-user=5K",
                           "--max-handshakes-per-second-per-user", "6"));
        unlink(path);
        assert_int_equal(r, 0);
        assert_string_equal(said, "");
        assert_string_equal(config.socket_path, "/b/data.sock");
        assert_string_equal(config.control_path, "/a/control.sock");
        assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
        assert_int_equal(config.max_sessions, 5);
        assert_memory_equal(config.user_max, ((uint64_t[]){ 2, 3 << 20, 4, 5 << 10, 6 }),
                            sizeof(config.user_max));
        assert_string_equal(table_named(&config, "one")->path, "/b/one=1.carvq");
        assert_string_equal(table_named(&config, "two.x")->path, "/a/with space=and sign.carvq");
        assert_string_equal(table_named(&config, "three")->path, "/b/three:x");
        assert_int_equal(config_table_options(&config, "one").cache_bytes, 7 << 10);
        assert_true(config_table_options(&config, "one").populate);
}

static void test_bad_command_lines(void **state) {
        static const char long_path[] =
                "/0123456789012345678901234567890123456789012345678901234567890123456789012345678"
                "9012345678901234567890123456";
        static const struct {
                const char *option, *value, *said;
        } bad[] = {
                { "--table", "name", "carvqd: --table is 'name', expected NAME=PATH or NAME:KEY" },
                { "--table", "a:b=c", "carvqd: --table has the key 'b', expected path, cache-" },
                { "--table", "a:=c", "carvqd: --table has the key '', expected path, cache-" },
                { "--table", "a:lock=maybe", "carvqd: --table is 'maybe', expected yes or no" },
                { "--table", ":path=/x", "carvqd: --table names a table ''" },
                { "--table", "a/b=/x", "carvqd: --table names a table 'a/b', expected 1 to 127" },
                { "--table", "=/x", "carvqd: --table names a table ''" },
                { "--table", "a=", "carvqd: --table is '', expected a path" },
                { "--socket", "", "carvqd: --socket is '', expected a path of 1 to 107 bytes" },
                { "--socket", long_path, "expected a path of 1 to 107 bytes" },
                { "--log-level", "loud", "carvqd: --log-level is 'loud', expected error, warning" },
                { "--cpu-mask", "mmx", "carvqd: --cpu-mask is 'mmx', expected kernels" },
                { "--event-loop", "poll",
                  "carvqd: --event-loop is 'poll', expected auto, io_uring or epoll" },
                { "--spin-us", "1000001",
                  "carvqd: --spin-us is '1000001', expected a number from 0 to 1000000" },
                { "--spin-us", "1K", "--spin-us is '1K'" },
                { "--spin-us", "-1", "--spin-us is '-1'" },
                { "--spin-us", " 1", "--spin-us is ' 1'" },
                { "--spin-us", "0x10", "--spin-us is '0x10'" },
                { "--spin-us", "", "--spin-us is ''" },
                { "--max-sessions", "0", "expected a number from 1 to 65536" },
                { "--max-sessions", "18446744073709551617", "--max-sessions is '1844" },
                { "--max-ring-bytes", "32767", "expected a number from 32768 to 1099511627776" },
                { "--max-ring-bytes", "2T", "--max-ring-bytes is '2T'" },
                { "--max-ring-bytes", "18014398509481984K", "--max-ring-bytes is '18014" },
                { "--max-ring-bytes", "1GB", "--max-ring-bytes is '1GB'" },
                { "--max-ring-bytes", "1g", "--max-ring-bytes is '1g'" },
                { "--max-sessions-per-user", "0",
                  "--max-sessions-per-user is '0', expected auto or a number from 1 to 65536" },
                { "--max-tables-per-user", "1K", "expected a number from 1 to 16777216" },
                { "--config", "/nonexistent/x", "error /nonexistent/x: No such file" },
                { "--frobnicate", "1", "Try 'carvqd --help'." },
                { "behind", "nothing", "unexpected argument 'behind'" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                _cleanup_(freep) char *said = NULL;
                struct config config;
                const char *config_path =
                        strcmp(bad[i].option, "--config") ? "--config=/dev/null" : "--spin-us=1";
                int r = init(&config, &said, ARGUMENTS(config_path, bad[i].option, bad[i].value));

                if (r != -EINVAL || !strstr(said, bad[i].said))
                        fail_msg("%s %s: %d, %s", bad[i].option, bad[i].value, r, said);
        }
}

/* Every error of a file is told, with its line. */
static void test_bad_files(void **state) {
        static const struct {
                const char *text, *said;
        } bad[] = {
                { "[carvqd]\ncache-bytes = much\n", ":2: cache-bytes is 'much', expected auto or" },
                { "[table a]\ncache-bytes = -1\n",
                  ":2: cache-bytes is '-1', expected auto or a number from 0 to" },
                { "[table a/b]\nlock = yes\n", ":1: the section names a table 'a/b', expected" },
                { "[table ]\n", ":1: the section names a table '', expected" },
                { "[table a]\nlock = 1\n", ":2: lock is '1', expected yes or no" },
                { "[table a]\npopulate =\n", ":2: populate is '', expected yes or no" },
                { "[table a]\nhuge-pages = Yes\n", ":2: huge-pages is 'Yes', expected yes or" },
                { "[table a]\ngroup = no-such-group-here\n",
                  ":2: group is 'no-such-group-here', expected a group of this system" },
                { "[table a]\ngroup = 4294967295\n", ":2: group is '4294967295', expected a gr" },
                { "[table a]\ngroup =\n", ":2: group is '', expected a group of 1 to 63 bytes" },
                { "[carvqd]\nworkers = 0\n",
                  ":2: workers is '0', expected a number from 1 to 256" },
                { "[carvqd]\n\nspin-us = x\n", ":3: spin-us is 'x', expected a number" },
                { "[carvqd]\nspin-us = x\nlog-level = y\n", ":3: log-level is 'y', expected" },
                { "[table a]\npath =\n", ":2: path is '', expected a path" },
                { "[carvqd]\nno equals sign\n", ":2: expected [SECTION], KEY = VALUE" },
                { "[carvqd\nspin-us = 1\n", ":1: expected [SECTION], KEY = VALUE" },
                { "[table a]\npath = /"
                  "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
                  "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
                  "01234567890123456789012345678901234567890123456789\n",
                  ":2: the line has more than 198 bytes" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                _cleanup_(freep) char *said = NULL;
                struct config config;
                int r = init_with_file(&config, &said, bad[i].text);

                if (r != -EINVAL || !strstr(said, bad[i].said))
                        fail_msg("%s: %d, %s", bad[i].text, r, said);
        }
}

static void test_unknown_keys_warn(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(freep) char *said = NULL;

        (void)state;
        assert_int_equal(init_with_file(&config, &said,
                                        "lonely = 1\n[carvqd]\ntable = a=/x\nspin-us = 7\n"
                                        "[other]\nspin-us = 8\n[tables]\na = /x\n"
                                        "[table a]\ncache = 1\npath = /y\n"),
                         0);
        assert_non_null(strstr(said, ":1: key 'lonely' in front of all sections is ignored\n"));
        assert_non_null(strstr(said, ":3: unknown key 'table' is ignored\n"));
        assert_non_null(strstr(said, ":5: unknown section [other] is ignored\n"));
        assert_non_null(strstr(said, ":7: unknown section [tables] is ignored\n"));
        assert_non_null(strstr(said, ":10: unknown key 'cache' is ignored\n"));
        assert_null(strstr(said, "spin-us"));
        assert_memory_equal(said, "warning ", 8);
        assert_int_equal(config.spin_ns_max, 7000);
        assert_string_equal(table_named(&config, "a")->path, "/y");
}

/* A name of any length that tables may have, which is more than inih keeps of a section's. */
static void test_long_table_names(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(freep) char *said = NULL;
        char name[128], text[512];

        (void)state;
        memset(name, 'n', 127);
        name[127] = '\0';
        snprintf(text, sizeof(text), "[table %s]\npath = /a\n[table %.126s]\npath = /b\n", name,
                 name);
        assert_int_equal(init_with_file(&config, &said, text), 0);
        assert_string_equal(said, "");
        assert_string_equal(table_named(&config, name)->path, "/a");
        name[126] = '\0';
        assert_string_equal(table_named(&config, name)->path, "/b");
}

/* ---- Drop-ins ---- */

struct files {
        char folder[64], main_file[80], drop_ins[80];
};

static void write_at(const char *folder, const char *name, const char *text) {
        char path[512];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", folder, name);
        f = fopen(path, "we");
        assert_non_null(f);
        fputs(text, f);
        fclose(f);
}

static void files_init(struct files *files) {
        strcpy(files->folder, "/tmp/test-config-XXXXXX");
        assert_non_null(mkdtemp(files->folder));
        snprintf(files->main_file, sizeof(files->main_file), "%s/c", files->folder);
        snprintf(files->drop_ins, sizeof(files->drop_ins), "%s/c.d", files->folder);
        assert_int_equal(mkdir(files->drop_ins, 0700), 0);
}

static void files_deinit(struct files *files) {
        char command[128];

        snprintf(command, sizeof(command), "rm -r %s", files->folder);
        assert_int_equal(system(command), 0);
}

static void test_drop_ins_in_order(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
        _cleanup_(files_deinit) struct files files;
        _cleanup_(freep) char *said = NULL;

        (void)state;
        files_init(&files);
        write_at(files.folder, "c",
                 "[carvqd]\nspin-us = 1\nworkers = 2\nmax-sessions = 3\n"
                 "[table a]\npath = /main\nlock = yes\n");
        write_at(files.drop_ins, "20-b.conf", "[carvqd]\nspin-us = 20\n[table a]\npath = /20\n");
        write_at(files.drop_ins, "9-z.conf", "[carvqd]\nspin-us = 9\nworkers = 9\n");
        write_at(files.drop_ins, "10-a.conf", "[carvqd]\nspin-us = 10\nworkers = 10\n");
        write_at(files.drop_ins, ".hidden.conf", "[carvqd]\nspin-us = 77\n");
        write_at(files.drop_ins, "README", "[carvqd]\nspin-us = 78\n");
        write_at(files.drop_ins, "zz.conf~", "[carvqd]\nspin-us = 79\n");
        assert_int_equal(init(&config, &said,
                              ARGUMENTS("--config", files.main_file, "--table", "a:lock=no")),
                         0);
        assert_string_equal(said, "");
        assert_int_equal(config.spin_ns_max, 9000); /* names are compared byte by byte */
        assert_int_equal(config.n_workers, 9);
        assert_int_equal(config.max_sessions, 3);
        assert_string_equal(table_named(&config, "a")->path, "/20");
        assert_false(table_named(&config, "a")->options.lock);
}

/* The errors of all files, each with its own name. */
static void test_bad_drop_ins(void **state) {
        _cleanup_(files_deinit) struct files files;
        _cleanup_(freep) char *said = NULL;
        struct config config;

        (void)state;
        files_init(&files);
        write_at(files.folder, "c", "[carvqd]\nspin-us = x\n");
        write_at(files.drop_ins, "1.conf", "spin-us = 2\n");
        write_at(files.drop_ins, "2.conf", "\n[carvqd]\nworkers = y\n");
        assert_int_equal(symlink("nowhere", "/tmp/test-config-link"), 0);
        assert_int_equal(rename("/tmp/test-config-link", strcat(files.drop_ins, "/3.conf")), 0);
        assert_int_equal(init(&config, &said, ARGUMENTS("--config", files.main_file)), -EINVAL);
        assert_non_null(strstr(said, "/c:2: spin-us is 'x'"));
        assert_non_null(strstr(said, "/c.d/1.conf:1: key 'spin-us' in front of all"));
        assert_non_null(strstr(said, "/c.d/2.conf:3: workers is 'y'"));
        assert_non_null(strstr(said, "/c.d/3.conf: No such file"));
}

/* ---- Reading it again ---- */

static void collect(void *userdata, enum log_level level, const char *sentence) {
        char *said = userdata;

        snprintf(said + strlen(said), 2048 - strlen(said), "%d %s\n", (int)level, sentence);
}

static void test_reload(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 }, reloaded = { 0 };
        _cleanup_(files_deinit) struct files files;
        _cleanup_(freep) char *said = NULL;
        const char *keys[CONFIG_RESTART_KEYS_MAX];
        char sentences[2048] = "";

        (void)state;
        files_init(&files);
        write_at(files.folder, "c", "[carvqd]\nworkers = 2\n[table a]\npath = /a\n");
        assert_int_equal(
                init(&config, &said, ARGUMENTS("--config", files.main_file, "--spin-us", "5")), 0);

        write_at(files.folder, "c", "[carvqd]\nworkers = x\nodd = 1\n");
        assert_int_equal(config_reload(&config, collect, sentences, &reloaded), -EINVAL);
        assert_non_null(strstr(sentences, ":2: workers is 'x'"));
        assert_non_null(strstr(sentences, "4 "));
        assert_null(reloaded.socket_path);

        write_at(files.folder, "c",
                 "[carvqd]\nworkers = 3\nspin-us = 6\nlog-level = debug\nmax-sessions = 7\n"
                 "socket = /x\ntables-dir = /y\n[table b]\npath = /b\n");
        sentences[0] = '\0';
        assert_int_equal(config_reload(&config, collect, sentences, &reloaded), 0);
        assert_string_equal(sentences, "");
        /* The command line still wins, and sockets that were passed are no change. */
        free(config.control_path);
        config.control_path = strdup("/adopted");
        assert_int_equal(config_restart_keys(&config, &reloaded, keys), 2);
        assert_string_equal(keys[0], "socket");
        assert_string_equal(keys[1], "workers");
        config_swap_live(&config, &reloaded);
        assert_int_equal(config.n_workers, 2);
        assert_int_equal(config.spin_ns_max, 5000);
        assert_string_equal(config.socket_path, geteuid() == 0 ? "/run/carvq/carvqd.sock"
                                                               : "/run/user/7/carvq/carvqd.sock");
        assert_int_equal(config.max_sessions, 7);
        assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
        assert_string_equal(config.tables_dir, "/y");
        assert_string_equal(table_named(&config, "b")->path, "/b");
        assert_null(config_find_table(&config, "a"));
        assert_string_equal(table_named(&reloaded, "a")->path, "/a");
}

/* ---- Garbage ---- */

static uint32_t next_random(uint32_t *random) {
        *random = *random * 1664525 + 1013904223;
        return *random >> 8;
}

/* Whatever is in a file, it is read or refused with a sentence. */
static void test_garbage(void **state) {
        static const char *const words[] = {
                "[",   "]",  "[carvqd]", "[table a]",    "[table ", "=",    ":",     ";",       "#",
                "\n",  " ",  "\t",       "\r",           "spin-us", "path", "group", "workers", "1",
                "yes", "/x", "\xff",     "\xef\xbb\xbf", "a",       "lock", "\n["
        };
        uint32_t random = 12345;
        char text[2048];
        int n_good = 0;

        (void)state;
        print_message("# seed %u\n", random);
        for (int i = 0; i < 2000; i++) {
                _cleanup_(freep) char *said = NULL;
                struct config config;
                size_t n = 0;
                int r;

                for (uint32_t k = next_random(&random) % 60; k; k--) {
                        const char *word = words[next_random(&random) % ARRAY_SIZE(words)];

                        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", word);
                }
                text[n] = '\0';
                r = init_with_file(&config, &said, text);
                if (r == 0)
                        config_deinit(&config);
                else if (r != -EINVAL || !strstr(said, "error "))
                        fail_msg("%s: %d, %s", text, r, said);
                n_good += r == 0;
        }
        assert_in_range(n_good, 10, 1990);
}

static void test_help_and_version(void **state) {
        struct config config;

        (void)state;
        for (int i = 0; i < 2; i++) {
                _cleanup_(freep) char *said = NULL, *shown = NULL;
                struct capture c = capture_begin(STDOUT_FILENO);
                int r = init(&config, &said,
                             ARGUMENTS("--spin-us", "x", i ? "--version" : "--help"));

                shown = capture_end(&c);
                assert_int_equal(r, 1);
                assert_string_equal(said, "");
                if (i)
                        assert_string_equal(shown, "carvqd " CARVQ_VERSION "\n");
                else
                        assert_non_null(strstr(shown, "Usage: carvqd "));
        }
}

/* The sample's lines "#KEY = VALUE" of [carvqd], without the sign. */
static char *uncomment_sample(void) {
        char path[4096], line[512], *text = NULL;
        size_t size;
        FILE *f, *out = open_memstream(&text, &size);

        snprintf(path, sizeof(path), "%s/../../systemd/carvqd.conf", getenv("CARVQ_TEST_DATA"));
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f) && strncmp(line, "#[table", 7) != 0)
                fputs(line[0] == '#' && line[1] >= 'a' && line[1] <= 'z' ? line + 1 : line, out);
        fclose(f);
        fclose(out);
        return text;
}

static void test_sample_shows_the_defaults(void **state) {
        _cleanup_(config_deinit) struct config sample = { 0 }, defaults = { 0 };
        _cleanup_(freep) char *said = NULL, *said_too = NULL, *text = uncomment_sample();
        static const char *const keys[] = { "socket",       "control",        "tables-dir",
                                            "log-level",    "cpu-mask",       "spin-us",
                                            "max-sessions", "max-ring-bytes", "event-loop" };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
                char start[64];

                snprintf(start, sizeof(start), "\n%s = ", keys[i]);
                if (!strstr(text, start))
                        fail_msg("the sample does not show %s", keys[i]);
        }
        setenv("RUNTIME_DIRECTORY", "/run/carvq", 1);
        setenv("STATE_DIRECTORY", "/var/lib/carvq:/var/lib/other", 1);
        assert_int_equal(init_with_file(&sample, &said, text), 0);
        assert_string_equal(said, "");
        assert_int_equal(init(&defaults, &said_too, ARGUMENTS(NO_FILE)), 0);
        unsetenv("RUNTIME_DIRECTORY");
        unsetenv("STATE_DIRECTORY");
        assert_string_equal(sample.tables_dir, defaults.tables_dir);
        assert_true(defaults.tables_dir_is_default && !sample.tables_dir_is_default);
        assert_string_equal(sample.socket_path, defaults.socket_path);
        assert_string_equal(sample.control_path, defaults.control_path);
        assert_int_equal(sample.cpu_mask, defaults.cpu_mask);
        assert_int_equal(sample.log_level, defaults.log_level);
        assert_int_equal(sample.spin_ns_max, defaults.spin_ns_max);
        assert_int_equal(sample.n_workers, defaults.n_workers);
        assert_int_equal(sample.cache_bytes, defaults.cache_bytes);
        assert_int_equal(sample.max_sessions, defaults.max_sessions);
        assert_int_equal(sample.max_ring_bytes, defaults.max_ring_bytes);
        assert_memory_equal(sample.user_max, defaults.user_max, sizeof(sample.user_max));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_default_sockets),
                cmocka_unit_test(test_no_place_for_sockets),
                cmocka_unit_test(test_file),
                cmocka_unit_test(test_command_line_overrides),
                cmocka_unit_test(test_bad_command_lines),
                cmocka_unit_test(test_bad_files),
                cmocka_unit_test(test_unknown_keys_warn),
                cmocka_unit_test(test_long_table_names),
                cmocka_unit_test(test_drop_ins_in_order),
                cmocka_unit_test(test_bad_drop_ins),
                cmocka_unit_test(test_reload),
                cmocka_unit_test(test_garbage),
                cmocka_unit_test(test_help_and_version),
                cmocka_unit_test(test_sample_shows_the_defaults),
        };

        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
        unsetenv("RUNTIME_DIRECTORY");
        unsetenv("STATE_DIRECTORY");
        return cmocka_run_group_tests(tests, NULL, NULL);
}

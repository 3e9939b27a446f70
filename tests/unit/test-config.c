/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include "capture.h"
#include "daemon/config.h"

#define ARGUMENTS_MAX 16

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

        (void)state;
        assert_int_equal(init(&config, &said, ARGUMENTS(NO_FILE)), 0);
        assert_string_equal(said, "");
        assert_int_equal(config.log_level, LOG_LEVEL_INFO);
        assert_int_equal(config.spin_ns_max, 50000);
        assert_int_equal(config.n_workers, 1);
        assert_int_equal(config.cache_bytes, CONFIG_CACHE_AUTO);
        assert_int_equal(config.max_sessions, 1024);
        assert_int_equal(config.max_ring_bytes, UINT64_C(4) << 30);
        assert_null(config.tables_dir);
        assert_int_equal(config.cpu_mask, UINT32_MAX);
        assert_true(STAILQ_EMPTY(&config.tables));
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

        STAILQ_FOREACH(t, &config->tables, link) {
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
                                "[caches]\n"
                                "one = 0\n"
                                "two.x = auto\n"
                                "one = 5K\n"
                                "\n"
                                "[tables]\n"
                                "one = /a/one.carvq\n"
                                "two.x = /a/with space=and sign.carvq\n";

static void test_file(void **state) {
        _cleanup_(config_deinit) struct config config = { 0 };
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
        assert_int_equal(config_cache_bytes(&config, "one"), 5 << 10); /* the later one */
        assert_int_equal(config_cache_bytes(&config, "two.x"), CONFIG_CACHE_AUTO);
        assert_int_equal(config_cache_bytes(&config, "three"), 3 << 20);
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
                           path, "--log-level=debug", "--table=three=/b/three", "--max-sessions",
                           "4", "--max-sessions", "5"));
        unlink(path);
        assert_int_equal(r, 0);
        assert_string_equal(said, "");
        assert_string_equal(config.socket_path, "/b/data.sock");
        assert_string_equal(config.control_path, "/a/control.sock");
        assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
        assert_int_equal(config.max_sessions, 5);
        assert_string_equal(table_named(&config, "one")->path, "/b/one=1.carvq");
        assert_string_equal(table_named(&config, "two.x")->path, "/a/with space=and sign.carvq");
        assert_string_equal(table_named(&config, "three")->path, "/b/three");
}

static void test_bad_command_lines(void **state) {
        static const char long_path[] =
                "/0123456789012345678901234567890123456789012345678901234567890123456789012345678"
                "9012345678901234567890123456";
        static const struct {
                const char *option, *value, *said;
        } bad[] = {
                { "--table", "name", "carvqd: --table is 'name', expected NAME=PATH" },
                { "--table", "a/b=/x", "carvqd: --table names a table 'a/b', expected 1 to 127" },
                { "--table", "=/x", "carvqd: --table names a table ''" },
                { "--table", "a=", "carvqd: --table is '', expected a path" },
                { "--socket", "", "carvqd: --socket is '', expected a path of 1 to 107 bytes" },
                { "--socket", long_path, "expected a path of 1 to 107 bytes" },
                { "--log-level", "loud", "carvqd: --log-level is 'loud', expected error, warning" },
                { "--cpu-mask", "mmx", "carvqd: --cpu-mask is 'mmx', expected kernels" },
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
                { "--config", "/nonexistent/x", "carvqd: /nonexistent/x: No such file" },
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
                { "[caches]\na = -1\n", ":2: a is '-1', expected auto or a number from 0 to" },
                { "[caches]\na/b = 1\n", ":2: a/b names a table 'a/b', expected" },
                { "[carvqd]\nworkers = 0\n",
                  ":2: workers is '0', expected a number from 1 to 256" },
                { "[carvqd]\n\nspin-us = x\n", ":3: spin-us is 'x', expected a number" },
                { "[carvqd]\nspin-us = x\nlog-level = y\n", ":3: log-level is 'y', expected" },
                { "[tables]\na/b = /x\n", ":2: a/b names a table 'a/b', expected" },
                { "[tables]\na =\n", ":2: a is '', expected a path" },
                { "[carvqd]\nno equals sign\n", ":2: expected [SECTION], KEY = VALUE" },
                { "[carvqd\nspin-us = 1\n", ":1: expected [SECTION], KEY = VALUE" },
                { "[tables]\na = /"
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
                                        "[carvqd]\nfrobnicate = 1\ntable = a=/x\nspin-us = 7\n"
                                        "[other]\nspin-us = 8\n[tables]\na = /x\na = /y\n"),
                         0);
        assert_non_null(strstr(said, ":2: warning: unknown key 'frobnicate' is ignored\n"));
        assert_non_null(strstr(said, ":3: warning: unknown key 'table' is ignored\n"));
        assert_non_null(
                strstr(said, ":6: warning: key 'spin-us' in unknown section [other] is ignored\n"));
        assert_non_null(strstr(said, ":9: warning: table a was given before; this path is used\n"));
        assert_int_equal(config.spin_ns_max, 7000);
        assert_string_equal(table_named(&config, "a")->path, "/y");
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
        while (fgets(line, sizeof(line), f) && strcmp(line, "[tables]\n"))
                fputs(line[0] == '#' && line[1] >= 'a' && line[1] <= 'z' ? line + 1 : line, out);
        fclose(f);
        fclose(out);
        return text;
}

static void test_sample_shows_the_defaults(void **state) {
        _cleanup_(config_deinit) struct config sample = { 0 }, defaults = { 0 };
        _cleanup_(freep) char *said = NULL, *said_too = NULL, *text = uncomment_sample();
        static const char *const keys[] = {
                "socket",   "control", "tables-dir",   "log-level",
                "cpu-mask", "spin-us", "max-sessions", "max-ring-bytes"
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
                char start[64];

                snprintf(start, sizeof(start), "\n%s = ", keys[i]);
                if (!strstr(text, start))
                        fail_msg("the sample does not show %s", keys[i]);
        }
        setenv("RUNTIME_DIRECTORY", "/run/carvq", 1);
        assert_int_equal(init_with_file(&sample, &said, text), 0);
        assert_string_equal(said, "");
        assert_int_equal(init(&defaults, &said_too, ARGUMENTS(NO_FILE)), 0);
        unsetenv("RUNTIME_DIRECTORY");
        assert_string_equal(sample.socket_path, defaults.socket_path);
        assert_string_equal(sample.control_path, defaults.control_path);
        assert_int_equal(sample.cpu_mask, defaults.cpu_mask);
        assert_int_equal(sample.log_level, defaults.log_level);
        assert_int_equal(sample.spin_ns_max, defaults.spin_ns_max);
        assert_int_equal(sample.n_workers, defaults.n_workers);
        assert_int_equal(sample.cache_bytes, defaults.cache_bytes);
        assert_int_equal(sample.max_sessions, defaults.max_sessions);
        assert_int_equal(sample.max_ring_bytes, defaults.max_ring_bytes);
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
                cmocka_unit_test(test_help_and_version),
                cmocka_unit_test(test_sample_shows_the_defaults),
        };

        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
        unsetenv("RUNTIME_DIRECTORY");
        return cmocka_run_group_tests(tests, NULL, NULL);
}

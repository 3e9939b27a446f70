/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "capture.h"
#include "daemon/log.h"

static void test_levels_by_name(void **state) {
        enum log_level level;

        (void)state;
        assert_int_equal(log_level_parse("error", &level), 0);
        assert_int_equal(level, 3);
        assert_int_equal(log_level_parse("debug", &level), 0);
        assert_int_equal(level, 7);
        assert_int_equal(log_level_parse("Debug", &level), -EINVAL);
        assert_int_equal(log_level_parse("", &level), -EINVAL);
        assert_int_equal(level, 7);
}

static void test_one_line_with_fields(void **state) {
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;

        (void)state;
        log_fields(LOG_LEVEL_INFO, (const char *[]){ "TABLE", "gemma", "CLIENT_PID", "12", NULL },
                   "Loaded %d rows", 7);
        log_warning("Bare");
        text = capture_end(&c);
        assert_string_equal(text, "info Loaded 7 rows TABLE=gemma CLIENT_PID=12\nwarning Bare\n");
}

static void test_filter(void **state) {
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;

        (void)state;
        log_debug("hidden");
        log_set_level(LOG_LEVEL_WARNING);
        log_info("hidden too");
        log_warning("shown");
        log_set_level(LOG_LEVEL_DEBUG);
        log_debug("shown too");
        log_set_level(LOG_LEVEL_INFO);
        text = capture_end(&c);
        assert_string_equal(text, "warning shown\ndebug shown too\n");
}

/* A client's name must not be able to forge a line or steer a terminal. */
static void test_values_cannot_break_lines(void **state) {
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;

        (void)state;
        log_fields(LOG_LEVEL_INFO, (const char *[]){ "NAME", "a\nerror b\033[2J", NULL }, "x\ry");
        text = capture_end(&c);
        assert_string_equal(text, "info x?y NAME=a?error b?[2J\n");
}

static void test_long_lines_are_cut(void **state) {
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;
        char message[9000], value[9000];

        (void)state;
        memset(message, 'm', sizeof(message) - 1);
        memset(value, 'v', sizeof(value) - 1);
        message[sizeof(message) - 1] = value[sizeof(value) - 1] = '\0';
        log_fields(LOG_LEVEL_INFO, (const char *[]){ "V", value, NULL }, "%s", message);
        text = capture_end(&c);
        assert_int_equal(strlen(text), 4096);
        assert_int_equal(text[4095], '\n');
        assert_ptr_equal(strchr(text, '\n'), text + 4095);
}

static void test_errno_survives(void **state) {
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;

        (void)state;
        close(STDERR_FILENO);
        errno = ENOENT;
        log_info("to nobody");
        assert_int_equal(errno, ENOENT);
        text = capture_end(&c);
        assert_string_equal(text, "");
}

/* In a process of its own, because the choice is made once. Returns what reached stderr. */
static char *log_with_stream(unsigned long inode_offset) {
        struct capture c = capture_begin(STDERR_FILENO);
        char stream[64];
        struct stat st;
        pid_t child;
        int status;

        assert_int_equal(fstat(STDERR_FILENO, &st), 0);
        snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
                 (uintmax_t)st.st_ino + inode_offset);
        child = fork();
        if (child == 0) {
                setenv("JOURNAL_STREAM", stream, 1);
                log_info("where to");
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        return capture_end(&c);
}

static void test_journal_takes_what_is_its_own(void **state) {
        _cleanup_(freep) char *ours = NULL, *other = NULL;

        (void)state;
        other = log_with_stream(1);
        assert_string_equal(other, "info where to\n");
        ours = log_with_stream(0); /* to the journal's socket, or to nobody where there is none */
        assert_string_equal(ours, "");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_journal_takes_what_is_its_own), /* first: before the choice */
                cmocka_unit_test(test_levels_by_name),
                cmocka_unit_test(test_one_line_with_fields),
                cmocka_unit_test(test_filter),
                cmocka_unit_test(test_values_cannot_break_lines),
                cmocka_unit_test(test_long_lines_are_cut),
                cmocka_unit_test(test_errno_survives),
        };

        unsetenv("JOURNAL_STREAM");
        return cmocka_run_group_tests(tests, NULL, NULL);
}

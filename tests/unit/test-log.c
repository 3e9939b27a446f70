/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

static void say_often(int n) {
        static struct log_limit limit;

        for (int i = 0; i < n; i++)
                log_limited(&limit, LOG_LEVEL_WARNING, (const char *[]){ "N", "1", NULL },
                            "client %d leaves", i);
        /* As if a minute had passed. */
        limit.next_ns -= UINT64_C(60000000000);
        limit.first_ns -= UINT64_C(60000000000);
}

/* Each place in the code by itself; the next line counts those that were left out. */
static void test_once_a_second(void **state) {
        static struct log_limit other, debug;
        struct capture c = capture_begin(STDERR_FILENO);
        _cleanup_(freep) char *text = NULL;

        (void)state;
        say_often(1235);
        log_limited(&other, LOG_LEVEL_INFO, NULL, "another kind");
        say_often(1);
        say_often(1);
        log_set_level(LOG_LEVEL_DEBUG);
        for (int i = 0; i < 3; i++)
                log_limited(&debug, LOG_LEVEL_DEBUG, NULL, "all of it");
        log_set_level(LOG_LEVEL_INFO);
        log_limited(&debug, LOG_LEVEL_DEBUG, NULL, "hidden");
        text = capture_end(&c);
        assert_string_equal(text,
                            "warning client 0 leaves N=1\n"
                            "info another kind\n"
                            "warning client 0 leaves, and 1234 more like this in the last 61 s "
                            "N=1\n"
                            "warning client 0 leaves N=1\n"
                            "debug all of it\ndebug all of it\ndebug all of it\n");
}

/* A pipe that nobody empties: lines are lost and counted, and nothing waits. */
static void test_full_pipe(void **state) {
        int pipe_fds[2], saved = dup(STDERR_FILENO);
        char *said = calloc(1, 1 << 20);
        ssize_t n;

        (void)state;
        assert_int_equal(pipe(pipe_fds), 0);
        dup2(pipe_fds[1], STDERR_FILENO);
        for (int i = 0; i < 10000; i++) /* more than any pipe holds */
                log_info("line %d of a log that is not read by anybody at all for now", i);
        n = read(pipe_fds[0], said, (1 << 20) - 1);
        assert_true(n > 0 && n < 600000);
        log_info("again");
        dup2(saved, STDERR_FILENO);
        n = read(pipe_fds[0], said, (1 << 20) - 1);
        assert_true(n > 0);
        said[n] = '\0';
        assert_ptr_equal(strstr(said, "info again\nwarning "), said);
        assert_non_null(strstr(said, " lines of this log were lost"));
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        close(saved);
        free(said);
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

/* A journal of our own, where only we see it. -1: only root may do this. */
static int bind_journal(void) {
        const struct sockaddr_un a = { .sun_family = AF_UNIX,
                                       .sun_path = "/run/systemd/journal/socket" };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("carvq-test", "/run", "tmpfs", 0, NULL) < 0 || mkdir("/run/systemd", 0755) < 0 ||
            mkdir("/run/systemd/journal", 0755) < 0 ||
            bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -1;
        return fd;
}

/* The journal is sent fields, and one that takes nothing holds nobody up. An exit status. */
static int log_to_own_journal(void) {
        static const char expected[] = "MESSAGE\n\x0b\0\0\0\0\0\0\0two\nlines 7\n"
                                       "PRIORITY=4\nSYSLOG_IDENTIFIER=carvqd\nTABLE=gemma\n";
        char datagram[65536], stream[64];
        int fd = bind_journal(), n_lost = 0;
        struct stat st;

        if (fd < 0)
                return 77;
        fstat(STDERR_FILENO, &st);
        snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
        setenv("JOURNAL_STREAM", stream, 1);
        log_fields(LOG_LEVEL_WARNING, (const char *[]){ "TABLE", "gemma", NULL }, "two\nlines %d",
                   7);
        if (recv(fd, datagram, sizeof(datagram), 0) != sizeof(expected) - 1 ||
            memcmp(datagram, expected, sizeof(expected) - 1) != 0)
                return 1;
        for (int i = 0; i < 5000; i++) /* more than a socket queues */
                log_info("nobody reads this");
        while (recv(fd, datagram, sizeof(datagram), 0) > 0)
                ;
        log_info("again");
        while (recv(fd, datagram, sizeof(datagram), 0) > 0)
                n_lost += strstr(datagram, " lines of this log were lost") != NULL;
        return n_lost == 1 ? 0 : 2;
}

static void test_journal_does_not_block(void **state) {
        pid_t child = fork();
        int status;

        (void)state;
        if (child == 0)
                _exit(log_to_own_journal());
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
                print_message("# only root can have a journal of its own\n");
        else
                assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_journal_takes_what_is_its_own), /* first: before the choice */
                cmocka_unit_test(test_journal_does_not_block),
                cmocka_unit_test(test_levels_by_name),
                cmocka_unit_test(test_one_line_with_fields),
                cmocka_unit_test(test_filter),
                cmocka_unit_test(test_once_a_second),
                cmocka_unit_test(test_full_pipe),
                cmocka_unit_test(test_values_cannot_break_lines),
                cmocka_unit_test(test_long_lines_are_cut),
                cmocka_unit_test(test_errno_survives),
        };

        unsetenv("JOURNAL_STREAM");
        return cmocka_run_group_tests(tests, NULL, NULL);
}

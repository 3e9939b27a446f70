/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of carvqctl's live screens, byte for byte. Standard output is one end of a socket that
 * keeps packets apart, so that what is received at once was written at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tools/carvqctl/format.h"
#include "tools/carvqctl/screen.h"

/* What screen_show() writes, and that it does so once. */
static void assert_frame(int n_rows, int n_cols, const char *text, const char *expected) {
        const struct screen screen = { .n_rows = n_rows, .n_cols = n_cols };
        int ends[2], out = dup(STDOUT_FILENO);
        char frame[4096];
        ssize_t n;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        fflush(stdout);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[1]);
        screen_show(&screen, text);
        dup2(out, STDOUT_FILENO);
        close(out);
        n = recv(ends[0], frame, sizeof(frame) - 1, 0);
        assert_true(n >= 0);
        frame[n] = '\0';
        assert_string_equal(frame, expected);
        assert_int_equal(recv(ends[0], frame, sizeof(frame), 0), 0);
        close(ends[0]);
}

static void test_lines(void **state) {
        (void)state;
        assert_frame(4, 8, "one\ntwo\n", "\033[Hone\033[m\033[K\r\ntwo\033[m\033[K\r\n\033[J");
        assert_frame(4, 8, "", "\033[H\033[J");
        assert_frame(2, 8, "\nlast", "\033[H\033[m\033[K\r\nlast\033[m\033[K");
}

/* Erasing behind a full line would take its last character with it. */
static void test_full_lines(void **state) {
        (void)state;
        assert_frame(1, 3, "abc\n", "\033[Habc\033[m");
        assert_frame(1, 3, "abcd\n", "\033[Habc\033[m");
        assert_frame(1, 4, "abc\n", "\033[Habc\033[m\033[K");
}

static void test_too_many_lines(void **state) {
        (void)state;
        assert_frame(2, 9, "a\nb\nc\nd\n", "\033[Ha\033[m\033[K\r\nb\033[m\033[K");
}

static void test_characters_not_bytes(void **state) {
        (void)state;
        assert_frame(1, 2, "\xc3\xa4\xe2\x82\xac\xc3\xa4", "\033[H\xc3\xa4\xe2\x82\xac\033[m");
        assert_frame(1, 3, "\xc3\xa4\xe2\x82\xac", "\033[H\xc3\xa4\xe2\x82\xac\033[m\033[K");
}

/* Neither counted nor cut in two, and never left on behind the line. */
static void test_styles(void **state) {
        (void)state;
        assert_frame(1, 2, "\033[1;31mab\033[mcd", "\033[H\033[1;31mab\033[m\033[m");
        assert_frame(1, 3, "\033[1mab\n", "\033[H\033[1mab\033[m\033[K");
        assert_frame(1, 9, "ab\033[1", "\033[Hab\033[1\033[m\033[K");
}

static void test_rates(void **state) {
        static const struct {
                double per_second;
                const char *text;
        } cases[] = {
                { 0, "0" },          { -1, "0" },         { 0.004, "0.00" },   { 0.25, "0.25" },
                { 9.994, "9.99" },   { 9.996, "10.0" },   { 99.94, "99.9" },   { 99.96, "100" },
                { 9999.4, "9,999" }, { 9999.6, "10.0k" }, { 1234567, "1.2M" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                assert_string_equal(format_rate(cases[i].per_second).text, cases[i].text);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),          cmocka_unit_test(test_full_lines),
                cmocka_unit_test(test_too_many_lines), cmocka_unit_test(test_characters_not_bytes),
                cmocka_unit_test(test_styles),         cmocka_unit_test(test_rates),
        };

        return cmocka_run_group_tests_name("screen", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See screen.h. One thread; the terminal's answers are single keys and are not trusted further. */
#include "screen.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>

/* The other screen, no cursor, no wrapping: a glyph that is wider than we think spoils one line. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

/* For exit() from elsewhere, as when memory runs out. */
static struct screen *current;

static void write_all(const char *text, size_t n_bytes) {
        while (n_bytes) {
                ssize_t n = write(STDOUT_FILENO, text, n_bytes);

                if (n < 0 && errno != EINTR)
                        return; /* a terminal that is gone says so in poll(), too */
                text += MAX(n, 0);
                n_bytes -= (size_t)MAX(n, 0);
        }
}

static void measure(struct screen *screen) {
        struct winsize size = { 0 };

        ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        screen->n_rows = size.ws_row ? size.ws_row : 24;
        screen->n_cols = size.ws_col ? size.ws_col : 80;
}

static void enter(struct screen *screen) {
        struct termios raw = screen->saved;

        if (screen->has_keys) {
                raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* Ctrl-C stays a signal */
                raw.c_cc[VMIN] = 1;
                raw.c_cc[VTIME] = 0;
                tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        }
        write_all(ENTER, strlen(ENTER));
        measure(screen);
}

static void leave(const struct screen *screen) {
        write_all(LEAVE, strlen(LEAVE));
        if (screen->has_keys)
                tcsetattr(STDIN_FILENO, TCSAFLUSH, &screen->saved);
}

static void leave_current(void) {
        if (current)
                leave(current);
        current = NULL;
}

static void signals_of(sigset_t *ret_set) {
        static const int signals[] = {
                SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGCONT, SIGWINCH
        };

        sigemptyset(ret_set);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                sigaddset(ret_set, signals[i]);
}

bool screen_possible(void) {
        const char *terminal = getenv("TERM");

        return isatty(STDOUT_FILENO) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

int screen_open(struct screen *screen, struct fault *ret_fault) {
        sigset_t set;

        if (!screen_possible())
                return fault_set(ret_fault, -ENOTTY,
                                 "standard output is no terminal that can move its cursor");
        *screen = (struct screen){ .has_keys = !tcgetattr(STDIN_FILENO, &screen->saved),
                                   .saved = screen->saved };
        signals_of(&set);
        screen->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (screen->signal_fd < 0)
                return fault_set(ret_fault, -errno, "signalfd: %s", strerror(errno));
        sigprocmask(SIG_BLOCK, &set, NULL);
        if (!current)
                atexit(leave_current);
        current = screen;
        enter(screen);
        return 0;
}

void screen_close(struct screen *screen) {
        sigset_t set;

        leave_current();
        close(screen->signal_fd);
        signals_of(&set);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Ctrl-Z: the shell gets its terminal as it was, and we ours when we go on. */
static void stop(struct screen *screen) {
        leave(screen);
        raise(SIGSTOP);
        enter(screen);
}

static int take_signal(struct screen *screen) {
        struct signalfd_siginfo info;

        if (read(screen->signal_fd, &info, sizeof(info)) != sizeof(info))
                return SCREEN_TIMEOUT;
        switch (info.ssi_signo) {
        case SIGTSTP:
                stop(screen);
                return SCREEN_REDRAW;
        case SIGCONT: /* stopped without being asked: the shell has changed the terminal */
                enter(screen);
                return SCREEN_REDRAW;
        case SIGWINCH:
                measure(screen);
                return SCREEN_REDRAW;
        default:
                return SCREEN_END;
        }
}

/* What has been typed already, or -1. */
static int next_byte(void) {
        struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };
        uint8_t byte;

        if (poll(&fd, 1, 0) <= 0 || read(STDIN_FILENO, &byte, 1) != 1)
                return -1;
        return byte;
}

/* Keys such as arrows send ESC [ ... LETTER or ESC O LETTER, with Alt ESC KEY: none is ours. */
static void skip_sequence(void) {
        int byte = next_byte();

        if (byte == 'O')
                next_byte();
        else if (byte == '[')
                do
                        byte = next_byte();
                while (byte >= 0 && (byte < 0x40 || byte > 0x7e));
}

static int take_key(void) {
        uint8_t key;

        if (read(STDIN_FILENO, &key, 1) != 1)
                return SCREEN_END;
        if (key != '\033')
                return key;
        skip_sequence();
        return SCREEN_TIMEOUT;
}

/* Rounded up: who wakes early would look twice. */
static int milliseconds_until(double until_s) {
        struct timespec now;
        double left;

        clock_gettime(CLOCK_MONOTONIC, &now);
        left = until_s - ((double)now.tv_sec + (double)now.tv_nsec / 1e9);
        return left > 0 ? (int)(left * 1000) + 1 : 0;
}

int screen_wait(struct screen *screen, double until_s) {
        for (;;) {
                struct pollfd fds[] = {
                        { .fd = screen->signal_fd, .events = POLLIN },
                        { .fd = screen->has_keys ? STDIN_FILENO : -1, .events = POLLIN },
                };
                int timeout_ms = milliseconds_until(until_s), r = SCREEN_TIMEOUT;

                if (poll(fds, ARRAY_SIZE(fds), timeout_ms) < 0 && errno != EINTR)
                        return SCREEN_END;
                if (fds[0].revents)
                        r = take_signal(screen);
                else if (fds[1].revents)
                        r = take_key();
                if (r != SCREEN_TIMEOUT || timeout_ms == 0)
                        return r;
        }
}

/*
 * How much of a line fits into `n_cols`: a character is one wide, a style sequence nothing.
 * `*ret_width` is what it takes.
 */
static size_t length_that_fits(const char *line, size_t length, int n_cols, int *ret_width) {
        size_t i = 0;
        int width = 0;

        while (i < length) {
                if (line[i] == '\033') {
                        i += strcspn(line + i, "m") + 1;
                        continue;
                }
                if (width == n_cols)
                        break;
                width++;
                for (i++; i < length && ((uint8_t)line[i] & 0xc0) == 0x80;)
                        i++;
        }
        *ret_width = width;
        return MIN(i, length);
}

/*
 * Lines are overwritten and their ends erased: nothing is ever blank that is not meant to be.
 * Behind a full line there is no end to erase, the cursor still stands on its last character.
 */
void screen_show(const struct screen *screen, const char *text) {
        _cleanup_(freep) char *frame = NULL;
        size_t n_bytes = 0;
        FILE *out = open_memstream(&frame, &n_bytes);
        int row, width;

        if (!out)
                return;
        fputs("\033[H", out);
        for (row = 0; row < screen->n_rows && *text; row++) {
                size_t length = strcspn(text, "\n");
                size_t shown = length_that_fits(text, length, screen->n_cols, &width);

                fprintf(out, "%s%.*s\033[m%s", row ? "\r\n" : "", (int)shown, text,
                        width < screen->n_cols ? "\033[K" : "");
                text += length + (text[length] == '\n');
        }
        if (row < screen->n_rows)
                fprintf(out, "%s\033[J", row ? "\r\n" : "");
        if (!fclose(out))
                write_all(frame, n_bytes);
}

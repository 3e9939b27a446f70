/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A live screen on the terminal behind standard output: frames, keys, resizing, and the terminal as
 * it was whenever it is left. VT sequences that every terminal of today obeys, and no more of them
 * than are below: a library would hide the one thing that matters here, that a frame is one write.
 */
#pragma once

#include <termios.h>

#include "proto/base.h"

/* What screen_wait() gives besides a key. */
enum {
        SCREEN_TIMEOUT = -1,
        SCREEN_REDRAW = -2, /* resized, or in the foreground again */
        SCREEN_END = -3,    /* a signal that ends programs, or the terminal is gone */
};

struct screen {
        int n_rows, n_cols;
        int signal_fd;
        bool has_keys; /* standard input is a terminal, too, and `saved` how it was */
        struct termios saved;
};

/* Standard output is a terminal that can move its cursor. */
bool screen_possible(void);

/* Refuses where it is not possible. From here on signals wait for screen_wait(). */
int screen_open(struct screen *screen, struct fault *ret_fault);
void screen_close(struct screen *screen);

/* Until the monotonic clock shows `until_s`. */
int screen_wait(struct screen *screen, double until_s);

/*
 * Shows lines that end in '\n', from the top; what is too wide or too long is cut. Style sequences
 * (ESC [ ... m) take no room. The rest of the screen is empty.
 */
void screen_show(const struct screen *screen, const char *text);

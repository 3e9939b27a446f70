/* SPDX-License-Identifier: Apache-2.0 */
/* See live.h. */
#include "live.h"

/* While an answer is awaited no key is. The memory of large tables takes its time to measure. */
#define TIMEOUT_S 4

static void show(const struct live *live, const struct screen *screen) {
        _cleanup_(freep) char *text = NULL;
        size_t n_bytes = 0;
        FILE *out = open_memstream(&text, &n_bytes);

        if (!out)
                return;
        live->write(live, screen, out);
        if (!fclose(out))
                screen_show(screen, text);
}

/* The interval counts from the end of a look: a daemon that is slow is not asked all the time. */
static void run(struct live *live, struct screen *screen) {
        double next_s = monotonic_seconds() + live->ctl->interval_seconds;

        for (;;) {
                int key;

                show(live, screen);
                key = screen_wait(screen, next_s);
                if (key == 'q' || key == SCREEN_END)
                        return;
                if (key == SCREEN_TIMEOUT) {
                        live->fault = (struct fault){ 0 };
                        sample_take(live->ctl, TIMEOUT_S, &live->sample, &live->fault);
                        next_s = monotonic_seconds() + live->ctl->interval_seconds;
                } else if (key >= 0 && live->press) {
                        live->press(live, screen, key);
                }
        }
}

int live_run(struct live *live) {
        struct screen screen;
        int r;

        r = sample_take(live->ctl, TIMEOUT_S, &live->sample, &live->fault);
        if (r == EXIT_OK && screen_open(&screen, &live->fault) < 0)
                r = EXIT_USAGE;
        if (r == EXIT_OK) {
                run(live, &screen);
                screen_close(&screen);
        } else {
                complain("%s", live->fault.text);
        }
        sample_deinit(&live->sample);
        return r;
}

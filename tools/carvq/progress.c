/* SPDX-License-Identifier: Apache-2.0 */
/* Draws at most ten times a second, so that it costs nothing beside the work. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define BAR_WIDTH  24
#define DRAW_S     0.1
#define LINE_S     10.0 /* between plain lines of one phase */
#define CLEAR_LINE "\r\033[K"

double clock_seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void progress_init(struct progress *p, bool quiet) {
        const char *term = getenv("TERM");

        *p = (struct progress){
                .quiet = quiet,
                .terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0,
        };
}

void progress_begin(struct progress *p, const char *phase, const char *unit, uint64_t n_total) {
        p->phase = phase;
        p->unit = unit;
        p->n_total = n_total;
        p->started_s = p->shown_s = clock_seconds();
        /* Some phases only know how far they are when they are done. */
        if (p->terminal && !p->quiet) {
                fprintf(stderr, CLEAR_LINE "%-8s %" PRIu64 " %s ...", phase, n_total, unit);
                fflush(stderr);
        }
}

/* Rows come by the thousand a second, trials one in several. */
static int decimals(double rate) {
        return rate < 10 ? 1 : 0;
}

static void draw_bar(const struct progress *p, double share, double rate, double left_s) {
        char bar[BAR_WIDTH + 1];

        memset(bar, '.', BAR_WIDTH);
        memset(bar, '#', (size_t)(share * BAR_WIDTH));
        bar[BAR_WIDTH] = '\0';
        fprintf(stderr, CLEAR_LINE "%-8s [%s] %3.0f %%  %.*f %s/s  %.0f s left", p->phase, bar,
                share * 100, decimals(rate), rate, p->unit, left_s);
        fflush(stderr);
}

void progress_update(struct progress *p, uint64_t n_done) {
        double now = clock_seconds(), elapsed = now - p->started_s, share, rate;

        if (p->quiet || n_done == 0 || now - p->shown_s < (p->terminal ? DRAW_S : LINE_S))
                return;
        p->shown_s = now;
        share = (double)MIN(n_done, p->n_total) / (double)MAX(p->n_total, 1u);
        rate = (double)n_done / elapsed;
        if (p->terminal)
                draw_bar(p, share, rate, (double)(p->n_total - n_done) / rate);
        else
                fprintf(stderr, "%-8s %3.0f %%, %.*f %s/s\n", p->phase, share * 100, decimals(rate),
                        rate, p->unit);
}

void progress_end(struct progress *p) {
        double elapsed = clock_seconds() - p->started_s, rate = (double)p->n_total / elapsed;

        if (p->quiet || !p->phase)
                return;
        fprintf(stderr, "%s%-8s %" PRIu64 " %s in %.1f s", p->terminal ? CLEAR_LINE : "", p->phase,
                p->n_total, p->unit, elapsed);
        if (elapsed >= 0.1)
                fprintf(stderr, ", %.*f %s/s", decimals(rate), rate, p->unit);
        fputc('\n', stderr);
        p->phase = NULL;
}

void progress_abort(struct progress *p) {
        if (p->phase && p->terminal && !p->quiet)
                fputs(CLEAR_LINE, stderr);
        p->phase = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl stats --watch: totals and rates, again and again. On a terminal in place and through
 * the daemon's absence, as `top` does; elsewhere one block, or one line of JSON, after the other
 * until the daemon is gone.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "format.h"
#include "live.h"

static struct text format_bytes_rate(double per_second) {
        return format_bytes((uint64_t)(MAX(per_second, 0) + 0.5));
}

static const char *label_of(const char *path) {
        return strstr(path, "modelled")  ? "modelled"
               : strstr(path, "claimed") ? "claimed"
                                         : "counted";
}

/* A counter: by second where there is a rate, in all, and what kind of figure that is. */
static void add_counter(struct grid *grid, const json_t *item, const char *title, const char *path,
                        struct text (*rate)(double), struct text (*total)(uint64_t)) {
        char rate_path[80];
        const json_t *value;

        snprintf(rate_path, sizeof(rate_path), "rates.%s", path);
        value = field(item, rate_path);
        grid_add(grid, "%s", title);
        grid_add(grid, "%s", value ? rate(json_number_value(value)).text : "-");
        grid_add(grid, "%s", total(field_number(item, path)).text);
        grid_add(grid, "%s", label_of(path));
}

static void add_count(struct grid *grid, const json_t *item, const char *title, const char *path) {
        add_counter(grid, item, title, path, format_rate, format_count);
}

static void add_bytes(struct grid *grid, const json_t *item, const char *title, const char *path) {
        add_counter(grid, item, title, path, format_bytes_rate, format_bytes);
}

static void add_fraction(struct grid *grid, const char *title, double now, double total,
                         const char *label) {
        if (isnan(total))
                return;
        grid_add(grid, "%s", title);
        if (isnan(now))
                grid_add(grid, "-");
        else
                grid_add(grid, "%.1f %%", 100 * now);
        grid_add(grid, "%.1f %%", 100 * total);
        grid_add(grid, "%s", label);
}

static double saved_in_all(const json_t *item) {
        const json_t *saved = field(item, "stats.modelled.full_f16.table_read_saved");

        return json_is_number(saved) ? json_number_value(saved) : NAN;
}

static void add_cache(struct grid *grid, const json_t *item) {
        double hits = field_real(item, "cache.claimed.n_hits");
        double all = hits + field_real(item, "cache.counted.n_misses");

        if (!json_is_object(field(item, "cache")))
                return;
        add_count(grid, item, "cache hits", "cache.claimed.n_hits");
        add_count(grid, item, "cache misses", "cache.counted.n_misses");
        add_fraction(grid, "hit ratio", sample_hit_fraction(item), all > 0 ? hits / all : NAN,
                     "claimed");
}

static void add_claims(struct grid *grid, const json_t *item) {
        if (!field_number(item, "claimed.n_lookups"))
                return;
        add_count(grid, item, "direct lookups", "claimed.n_lookups");
        add_count(grid, item, "direct rows", "claimed.n_rows");
}

static void write_item(const json_t *item, FILE *out) {
        static const char *const titles[] = { "<", "a second", "in all", "<" };
        struct grid grid;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        add_count(&grid, item, "lookups", "stats.counted.n_lookups");
        add_count(&grid, item, "errors", "stats.counted.n_errors");
        add_count(&grid, item, "rows", "stats.counted.n_rows");
        add_claims(&grid, item);
        add_cache(&grid, item);
        add_bytes(&grid, item, "table read", "stats.counted.table_read_bytes");
        add_bytes(&grid, item, "were it f16", "stats.modelled.full_f16.table_read_bytes");
        add_fraction(&grid, "saved on that", sample_saved_fraction(item), saved_in_all(item),
                     "modelled");
        add_bytes(&grid, item, "rows written", "stats.counted.arena_write_bytes");
        grid_write(&grid, 2, out);
        grid_deinit(&grid);
        if (json_is_integer(field(item, "stats.measured.p50_ns")))
                fprintf(out, "  latency in all: p50 %s, p99 %s, max %s (measured)\n",
                        format_ns(field_number(item, "stats.measured.p50_ns")).text,
                        format_ns(field_number(item, "stats.measured.p99_ns")).text,
                        format_ns(field_number(item, "stats.measured.max_ns")).text);
}

static void write_items(const struct sample *sample, FILE *out) {
        const json_t *item;
        size_t i;

        json_array_foreach(field(sample->stats, "tables"), i, item) {
                fprintf(out, "\n%stable %s%s%s, generation %" PRIu64 "\n", style(STYLE_BOLD),
                        field_text(item, "table.name"), style(STYLE_PLAIN),
                        field_true(item, "table.is_published") ? "" : " (old)",
                        field_number(item, "table.generation"));
                write_item(item, out);
        }
        json_array_foreach(field(sample->stats, "clients"), i, item) {
                const char *name = field_text(item, "client.name");

                fprintf(out, "\n%sclient %s%s, pid %" PRIu64 "\n", style(STYLE_BOLD),
                        *name ? name : "unnamed", style(STYLE_PLAIN),
                        field_number(item, "client.pid"));
                write_item(item, out);
        }
}

static void write_block(const struct sample *sample, FILE *out) {
        char clock[32];
        time_t now = time(NULL);
        struct tm tm;

        strftime(clock, sizeof(clock), "%F %T", localtime_r(&now, &tm));
        fprintf(out, "%s  carvqd %s, up %s", clock, field_text(sample->status, "version"),
                format_seconds(field_number(sample->status, "uptime_seconds")).text);
        if (sample->seconds > 0)
                fprintf(out, ", over %.1f s\n", sample->seconds);
        else
                fputs(", rates from the next look on\n", out);
        write_items(sample, out);
}

/* One line, so that a reader needs no parser for streams. */
static void print_line(const struct sample *sample) {
        _cleanup_(json_decrefp) json_t *line = json_copy(sample->stats);
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        json_object_set_new(line, "time",
                            json_real((double)now.tv_sec + (double)now.tv_nsec / 1e9));
        json_object_set_new(line, "interval_seconds",
                            sample->seconds > 0 ? json_real(sample->seconds) : json_null());
        json_object_set(line, "epoch", json_object_get(sample->status, "epoch"));
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
}

static void sleep_until(double until_s) {
        const struct timespec until = { .tv_sec = (time_t)until_s,
                                        .tv_nsec = (long)((until_s - floor(until_s)) * 1e9) };

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                ;
}

/* Ends by a signal, with the daemon, or when nobody reads on. */
static int watch_pipe(const struct carvqctl *ctl) {
        struct sample sample = { 0 };
        struct fault fault = { 0 };
        int r;

        for (bool first = true;; first = false) {
                r = sample_take(ctl, CONTROL_TIMEOUT_S, &sample, &fault);
                if (r != EXIT_OK)
                        break;
                if (ctl->json) {
                        print_line(&sample);
                } else {
                        if (!first)
                                putchar('\n');
                        write_block(&sample, stdout);
                }
                if (fflush(stdout) || ferror(stdout))
                        break; /* main() says so */
                sleep_until(sample.time_s + ctl->interval_seconds);
        }
        if (r != EXIT_OK)
                complain("%s", fault.text);
        sample_deinit(&sample);
        return r;
}

/* At most `n_rows` lines, and if there are more, the last one says so. */
static void write_lines(const char *text, int n_rows, FILE *out) {
        const char *end = text;

        for (int row = 0; row < n_rows; row++) {
                const char *line = end;

                end += strcspn(end, "\n") + 1;
                if (!*end || row + 1 < n_rows)
                        fprintf(out, "%.*s", (int)(end - line), line);
                else
                        fputs("... more than fits: stats TABLE --watch is of one, top of all", out);
                if (!*end)
                        return;
        }
}

static void write_frame(const struct live *live, const struct screen *screen, FILE *out) {
        _cleanup_(freep) char *block = NULL;
        size_t n_bytes = 0;
        FILE *memory = open_memstream(&block, &n_bytes);

        if (!memory)
                return;
        if (*live->fault.text)
                fprintf(memory, "%sTrying again: %s%s\n", style(STYLE_ALARM), live->fault.text,
                        style(STYLE_PLAIN));
        write_block(&live->sample, memory);
        if (!fclose(memory))
                write_lines(block, screen->n_rows, out);
}

int watch_stats(const struct carvqctl *ctl) {
        struct live live = { .ctl = ctl, .write = write_frame };

        return !ctl->json && screen_possible() ? live_run(&live) : watch_pipe(ctl);
}

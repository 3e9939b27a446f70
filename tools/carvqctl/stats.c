/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl stats [TABLE]: what was served, what it moved, and what the same would have moved from a
 * table in full precision. Each figure's label stands beside it or above its column. Latency is
 * from request to completion.
 */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"
#include "residency.h"

#define COLUMNS_N  5
#define BOTH(name) "modelled.full_f32." name, "modelled.full_f16." name

static struct text bytes_at(const json_t *json, const char *path) {
        return format_bytes(field_number(json, path));
}

/* ---- What tables and clients have in common ---- */

static void print_served(const json_t *s) {
        uint64_t lookups = field_number(s, "counted.n_lookups");
        uint64_t rows = field_number(s, "counted.n_rows");
        uint64_t errors = field_number(s, "counted.n_errors");

        printf("  served    %s lookup%s, %s row%s, %s error%s (counted)\n",
               format_count(lookups).text, plural(lookups), format_count(rows).text, plural(rows),
               format_count(errors).text, plural(errors));
}

static void print_errors(const json_t *errors) {
        const char *name;
        json_t *n;
        bool any = false;

        json_object_foreach((json_t *)errors, name, n) if (json_integer_value(n) > 0) {
                if (!any)
                        printf("  %serrors%s    ", style(STYLE_ALARM), style(STYLE_PLAIN));
                printf("%s%s %s", any ? ", " : "", name,
                       format_count((uint64_t)json_integer_value(n)).text);
                any = true;
        }
        if (any)
                puts(" (counted)");
}

static void print_latency(const json_t *s) {
        if (!json_is_integer(field(s, "measured.p50_ns")))
                return;
        printf("  latency   p50 %s, p99 %s, max %s (measured)\n",
               format_ns(field_number(s, "measured.p50_ns")).text,
               format_ns(field_number(s, "measured.p99_ns")).text,
               format_ns(field_number(s, "measured.max_ns")).text);
}

/* One line of the comparison: ours with its label, and the two we compare with. */
static void add_bytes(struct grid *grid, const json_t *json, const char *title, const char *label,
                      const char *actual, const char *full_f32, const char *full_f16) {
        grid_add(grid, "%s", title);
        grid_add(grid, "%s", label);
        grid_add(grid, "%s", bytes_at(json, actual).text);
        grid_add(grid, "%s", bytes_at(json, full_f32).text);
        grid_add(grid, "%s", bytes_at(json, full_f16).text);
}

static void add_saved(struct grid *grid, const json_t *s, const char *title, const char *full_f32,
                      const char *full_f16) {
        grid_add(grid, "%s", title);
        grid_add(grid, "modelled");
        grid_add(grid, "%s", "");
        grid_add(grid, "%s", format_saved(field_real(s, full_f32)).text);
        grid_add(grid, "%s", format_saved(field_real(s, full_f16)).text);
}

static void add_words(struct grid *grid, const char *const words[COLUMNS_N]) {
        for (size_t i = 0; i < COLUMNS_N; i++)
                grid_add(grid, "%s", words[i]);
}

static struct text bytes_or_unknown(const json_t *json, const char *path) {
        return json_is_integer(field(json, path)) ? bytes_at(json, path)
                                                  : (struct text){ "unknown" };
}

static void add_measured(struct grid *grid, const json_t *t, const char *title, const char *path) {
        add_words(grid,
                  (const char *[]){ title, "measured", bytes_or_unknown(t, path).text, "", "" });
}

/* What clients would take that each have the table for themselves. */
static void add_copies(struct grid *grid, const json_t *t) {
        uint64_t n = field_number(t, "n_clients");
        char title[80];

        if (n < 2)
                return;
        snprintf(title, sizeof(title), "copies of %s clients", format_count(n).text);
        grid_add(grid, "%s", title);
        grid_add(grid, "modelled");
        grid_add(grid, "%s", "");
        grid_add(grid, "%s", format_bytes(n * field_number(t, "modelled.f32_bytes")).text);
        grid_add(grid, "%s", format_bytes(n * field_number(t, "modelled.f16_bytes")).text);
}

/* What a table takes, whatever was asked of it. */
static void add_sizes(struct grid *grid, const json_t *t) {
        add_bytes(grid, t, "file size", "counted", "counted.file_bytes", "modelled.f32_bytes",
                  "modelled.f16_bytes");
        add_copies(grid, t);
        add_measured(grid, t, "memory (PSS)", "measured.pss_bytes");
        add_measured(grid, t, "in the page cache", "page_cache.cached_bytes");
        if (field_number(t, "page_cache.evicted_bytes"))
                add_measured(grid, t, "evicted of late", "page_cache.evicted_bytes");
}

/* What memory moves for the records, where no cache has them. */
static void add_lines(struct grid *grid, const json_t *s) {
        uint64_t line_bytes = 64 * field_number(s, "counted.table_read_lines");

        add_words(grid, (const char *[]){ "  whole cache lines", "counted",
                                          format_bytes(line_bytes).text, "", "" });
}

static void add_traffic(struct grid *grid, const json_t *s) {
        add_bytes(grid, s, "table read", "counted", "counted.table_read_bytes",
                  BOTH("table_read_bytes"));
        add_lines(grid, s);
        add_bytes(grid, s, "rows written", "counted", "counted.arena_write_bytes",
                  BOTH("arena_write_bytes"));
        add_bytes(grid, s, "rows read by client", "modelled", "modelled.client_read_bytes",
                  BOTH("client_read_bytes"));
        add_bytes(grid, s, "all three", "modelled", "modelled.total_bytes", BOTH("total_bytes"));
        add_saved(grid, s, "saved on table read", BOTH("table_read_saved"));
        add_saved(grid, s, "saved on all three", BOTH("total_saved"));
}

/* `table` is NULL for a client. */
static void print_stats(const json_t *s, const json_t *table) {
        static const char *const titles[COLUMNS_N] = { "<", "<", "as served", "were it f32",
                                                       "were it f16" };
        bool any_rows = field_number(s, "counted.n_rows_read") > 0;
        struct grid grid;

        print_served(s);
        print_errors(field(s, "counted.errors"));
        print_latency(s);
        if (!table && !any_rows)
                return;
        grid_init(&grid, titles, COLUMNS_N);
        add_words(&grid, (const char *[]){ "", "", "", "modelled", "modelled" });
        if (table)
                add_sizes(&grid, table);
        if (any_rows)
                add_traffic(&grid, s);
        grid_print(&grid, 2);
        grid_deinit(&grid);
}

static void print_cache(const json_t *cache) {
        if (!json_is_object(cache))
                return;
        printf("  cache     %s rows in %s; %s hits (claimed), %s misses, %s put in,\n"
               "            %s thrown out (counted)\n",
               format_count(field_number(cache, "n_slots")).text,
               bytes_at(cache, "cache_bytes").text,
               format_count(field_number(cache, "claimed.n_hits")).text,
               format_count(field_number(cache, "counted.n_misses")).text,
               format_count(field_number(cache, "counted.n_insertions")).text,
               format_count(field_number(cache, "counted.n_evictions")).text);
}

static void print_reason(const char *what, const json_t *json, const char *path) {
        const char *reason = field_text(json, path);

        if (*reason)
                printf("  %s unknown: %s\n", what, reason);
}

static void print_table(const json_t *item) {
        const json_t *t = field(item, "table");

        printf("table %s: %s rows x %s, %s, %.2f bits a parameter, generation %" PRIu64 "%s\n",
               field_text(t, "name"), format_count(field_number(t, "n_rows")).text,
               format_count(field_number(t, "n_dims")).text, field_text(t, "codec"),
               field_real(t, "counted.bits_per_parameter"), field_number(t, "generation"),
               field_true(t, "is_published") ? "" : " (old)");
        print_stats(field(item, "stats"), t);
        print_cache(field(item, "cache"));
        print_reason("memory is", t, "measured.unavailable");
        print_reason("what is in the page cache is", t, "page_cache.unavailable");
}

static void print_claims(const json_t *claimed) {
        uint64_t lookups = field_number(claimed, "n_lookups");
        uint64_t rows = field_number(claimed, "n_rows");

        if (lookups)
                printf("  direct    %s lookup%s, %s row%s, %s of table read (claimed)\n",
                       format_count(lookups).text, plural(lookups), format_count(rows).text,
                       plural(rows), bytes_at(claimed, "table_read_bytes").text);
}

static void print_client(const json_t *item) {
        const json_t *c = field(item, "client");
        const char *name = field_text(c, "name");

        printf("client %" PRIu64 ": %s, pid %" PRIu64 ", connected for %s\n",
               field_number(c, "session"), *name ? name : "unnamed", field_number(c, "pid"),
               format_seconds(field_number(c, "connected_seconds")).text);
        print_stats(field(item, "stats"), NULL);
        print_claims(field(item, "claimed"));
        printf("  ring      %s, of which %s in memory (RSS, measured)\n",
               bytes_at(c, "ring_bytes").text, bytes_or_unknown(item, "measured.rss_bytes").text);
}

static void print_daemon(const json_t *d) {
        const char *no_refaults = field_text(d, "unavailable");

        printf("\ncarvqd: %s (PSS, measured), %s page faults that waited for storage",
               bytes_or_unknown(d, "memory.pss_bytes").text,
               format_count(field_number(d, "n_major_faults")).text);
        if (json_is_integer(field(d, "n_refaults")))
                printf(",\n  %s pages read again after they had been evicted (measured)\n",
                       format_count(field_number(d, "n_refaults")).text);
        else
                printf("\n  pages read again after they had been evicted: unknown\n  (%s)\n",
                       no_refaults);
}

static void print_all(const json_t *list, void (*print)(const json_t *item), bool *any) {
        const json_t *item;
        size_t i;

        json_array_foreach(list, i, item) {
                if (*any)
                        putchar('\n');
                print(item);
                *any = true;
        }
}

static int print_now(const struct carvqctl *ctl, json_t *parameters) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        bool any = false;
        int r;

        r = control_call(ctl, "GetStats", parameters, &reply);
        if (r != EXIT_OK)
                return r;
        residency_complete(reply);
        if (ctl->json)
                return print_json(reply);
        print_all(field(reply, "tables"), print_table, &any);
        print_all(field(reply, "clients"), print_client, &any);
        if (any && json_is_object(field(reply, "daemon")))
                print_daemon(field(reply, "daemon"));
        if (!any)
                puts("No tables are served and no clients are connected.");
        return EXIT_OK;
}

int verb_stats(const struct carvqctl *ctl) {
        json_t *parameters = NULL;

        if (ctl->openmetrics + ctl->prometheus + (ctl->json || ctl->watch) > 1 ||
            ctl->traffic + ctl->openmetrics + ctl->prometheus + ctl->watch > 1) {
                complain("stats: --openmetrics, --prometheus, --watch and --traffic exclude each "
                         "other, and the first two --json");
                return EXIT_USAGE;
        }
        if (ctl->seconds > 0 && !ctl->traffic) {
                complain("stats: --seconds is for --traffic; see --watch");
                return EXIT_USAGE;
        }
        if (ctl->traffic)
                return stats_traffic(ctl);
        if (ctl->openmetrics || ctl->prometheus)
                return print_metrics(ctl);
        if (ctl->watch)
                return watch_stats(ctl);
        if (ctl->n_arguments) {
                parameters = json_pack("{ss}", "table", ctl->arguments[0]);
                if (!parameters) {
                        complain("the table's name must be UTF-8");
                        return EXIT_USAGE;
                }
        }
        return print_now(ctl, parameters);
}

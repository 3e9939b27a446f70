/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl stats --openmetrics and --prometheus: the daemon and its tables for a monitor. Clients
 * come and go, and each would be a series of its own: only their number is told.
 *
 * The two formats differ in what frames a sample. OpenMetrics 1.0 names a family without its
 * sample's suffix, has a type and a suffix for facts, units, and an end; the text format 0.0.4 of
 * Prometheus, which node_exporter reads from files, has none of that.
 */
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "residency.h"
#include "sample.h"

enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_INFO, TYPE_SUMMARY };

#define SERIES_MAX 5

struct family {
        const char *name;
        enum type type;
        const char *help;
        struct series {
                const char *path;  /* of a number: one in _ns is told in seconds. NULL: a fact */
                const char *label; /* besides those of the table */
        } series[SERIES_MAX];
};

static const struct family daemon_families[] = {
        { "carvqd", TYPE_INFO, "The daemon.", { { 0 } } },
        { "carvqd_uptime_seconds",
          TYPE_GAUGE,
          "Time since the daemon started (measured).",
          { { "uptime_seconds", "" } } },
        { "carvqd_tables",
          TYPE_GAUGE,
          "Tables that are served, old generations included (counted).",
          { { "n_tables", "" } } },
        { "carvqd_clients",
          TYPE_GAUGE,
          "Clients that are connected (counted).",
          { { "n_clients", "" } } },
        { "carvqd_workers", TYPE_GAUGE, "Threads that decode.", { { "n_workers", "" } } },
};

static const struct family table_families[] = {
        { "carvq_table", TYPE_INFO, "A generation of a table.", { { 0 } } },
        { "carvq_table_published",
          TYPE_GAUGE,
          "1: clients get this generation, 0: an older one that some still have open.",
          { { "table.is_published", "" } } },
        { "carvq_table_rows", TYPE_GAUGE, "Rows of the table.", { { "table.n_rows", "" } } },
        { "carvq_table_dimensions", TYPE_GAUGE, "Values of a row.", { { "table.n_dims", "" } } },
        { "carvq_table_clients",
          TYPE_GAUGE,
          "Clients that have the table open (counted).",
          { { "table.n_clients", "" } } },
        { "carvq_table_file_bytes",
          TYPE_GAUGE,
          "Size of the file (counted).",
          { { "table.counted.file_bytes", "" } } },
        { "carvq_table_full_bytes",
          TYPE_GAUGE,
          "Size of the same table in full precision (modelled).",
          { { "table.modelled.f32_bytes", "type=\"f32\"" },
            { "table.modelled.f16_bytes", "type=\"f16\"" } } },
        { "carvq_table_pss_bytes",
          TYPE_GAUGE,
          "Memory that the file takes in the daemon, proportional (measured).",
          { { "table.measured.pss_bytes", "" } } },
        { "carvq_table_rss_bytes",
          TYPE_GAUGE,
          "Memory that the file takes in the daemon, resident (measured).",
          { { "table.measured.rss_bytes", "" } } },
        { "carvq_table_page_cache_bytes",
          TYPE_GAUGE,
          "Bytes of the file that are in the page cache, whoever read them (measured).",
          { { "table.page_cache.cached_bytes", "" } } },
        { "carvq_lookups",
          TYPE_COUNTER,
          "Lookups that were served (counted).",
          { { "stats.counted.n_lookups", "" } } },
        { "carvq_lookup_errors",
          TYPE_COUNTER,
          "Lookups that failed (counted).",
          { { "stats.counted.errors.invalid", "reason=\"invalid\"" },
            { "stats.counted.errors.out_of_range", "reason=\"out_of_range\"" },
            { "stats.counted.errors.no_table", "reason=\"no_table\"" },
            { "stats.counted.errors.retired", "reason=\"retired\"" },
            { "stats.counted.errors.no_memory", "reason=\"no_memory\"" } } },
        { "carvq_rows",
          TYPE_COUNTER,
          "Rows that were delivered through rings (counted).",
          { { "stats.counted.n_rows", "" } } },
        { "carvq_rows_read",
          TYPE_COUNTER,
          "Rows that were decoded for them (counted).",
          { { "stats.counted.n_rows_read", "" } } },
        { "carvq_table_read_bytes",
          TYPE_COUNTER,
          "Bytes that were read from the table (counted).",
          { { "stats.counted.table_read_bytes", "" } } },
        { "carvq_table_read_lines",
          TYPE_COUNTER,
          "Lines of 64 bytes in which these lie (counted).",
          { { "stats.counted.table_read_lines", "" } } },
        { "carvq_table_read_full_bytes",
          TYPE_COUNTER,
          "What a table in full precision would have read (modelled).",
          { { "stats.modelled.full_f32.table_read_bytes", "type=\"f32\"" },
            { "stats.modelled.full_f16.table_read_bytes", "type=\"f16\"" } } },
        { "carvq_rows_written_bytes",
          TYPE_COUNTER,
          "Bytes of rows that were written to clients' memory (counted).",
          { { "stats.counted.arena_write_bytes", "" } } },
        { "carvq_rows_received_bytes",
          TYPE_COUNTER,
          "Bytes of rows that clients read there, if each does once (modelled).",
          { { "stats.modelled.client_read_bytes", "" } } },
        { "carvq_lookup_latency_seconds",
          TYPE_SUMMARY,
          "From submission to completion, since the table was loaded (measured).",
          { { "stats.measured.p50_ns", "quantile=\"0.5\"" },
            { "stats.measured.p99_ns", "quantile=\"0.99\"" },
            { "stats.measured.max_ns", "quantile=\"1\"" } } },
        { "carvq_cache_bytes",
          TYPE_GAUGE,
          "Memory that decoded rows may take.",
          { { "cache.cache_bytes", "" } } },
        { "carvq_cache_slots",
          TYPE_GAUGE,
          "Decoded rows that fit into it.",
          { { "cache.n_slots", "" } } },
        { "carvq_cache_hits",
          TYPE_COUNTER,
          "Rows that clients say they found there (claimed).",
          { { "cache.claimed.n_hits", "" } } },
        { "carvq_cache_misses",
          TYPE_COUNTER,
          "Rows of cached tables that were asked for (counted).",
          { { "cache.counted.n_misses", "" } } },
        { "carvq_cache_insertions",
          TYPE_COUNTER,
          "Rows that were put in (counted).",
          { { "cache.counted.n_insertions", "" } } },
        { "carvq_cache_evictions",
          TYPE_COUNTER,
          "Rows that were thrown out (counted).",
          { { "cache.counted.n_evictions", "" } } },
};

static bool ends_with(const char *text, const char *end) {
        size_t length = strlen(text), end_length = strlen(end);

        return length >= end_length && !strcmp(text + length - end_length, end);
}

static const char *suffix_of(enum type type) {
        return type == TYPE_COUNTER ? "_total" : type == TYPE_INFO ? "_info" : "";
}

static void print_head(const struct family *f, bool openmetrics) {
        static const char *const types[] = { "counter", "gauge", "info", "summary" };
        const char *suffix = openmetrics ? "" : suffix_of(f->type);
        const char *type = f->type == TYPE_INFO && !openmetrics ? "gauge" : types[f->type];

        printf("# HELP %s%s %s\n# TYPE %s%s %s\n", f->name, suffix, f->help, f->name, suffix, type);
        if (openmetrics && ends_with(f->name, "_bytes"))
                printf("# UNIT %s bytes\n", f->name);
        if (openmetrics && ends_with(f->name, "_seconds"))
                printf("# UNIT %s seconds\n", f->name);
}

/* NAME="VALUE", and a comma unless it is the first. */
static void print_label(const char *name, const char *value, bool first) {
        printf("%s%s=\"", first ? "" : ",", name);
        for (; *value; value++) {
                if (*value == '\\' || *value == '"')
                        putchar('\\');
                putchar(*value);
        }
        putchar('"');
}

static void print_table_labels(const json_t *item, bool info) {
        char generation[24];

        snprintf(generation, sizeof(generation), "%" PRIu64,
                 field_number(item, "table.generation"));
        print_label("table", field_text(item, "table.name"), true);
        print_label("generation", generation, false);
        if (!info)
                return;
        print_label("codec", field_text(item, "table.codec"), false);
        print_label("path", field_text(item, "table.path"), false);
}

static void print_value(const char *path, const json_t *value) {
        uint64_t n = json_is_true(value) ? 1 : (uint64_t)MAX(json_integer_value(value), 0);

        if (ends_with(path, "_ns"))
                printf(" %.9g\n", (double)n / 1e9);
        else
                printf(" %" PRIu64 "\n", n);
}

static void print_table_samples(const struct family *f, const json_t *item) {
        if (f->type == TYPE_INFO) {
                printf("%s_info{", f->name);
                print_table_labels(item, true);
                puts("} 1");
        }
        for (size_t i = 0; i < SERIES_MAX && f->series[i].path; i++) {
                const json_t *value = field(item, f->series[i].path);

                if (!json_is_integer(value) && !json_is_boolean(value))
                        continue; /* a table without a cache, a kernel that does not tell */
                printf("%s%s{", f->name, suffix_of(f->type));
                print_table_labels(item, false);
                printf("%s%s}", *f->series[i].label ? "," : "", f->series[i].label);
                print_value(f->series[i].path, value);
        }
}

static void print_daemon(const json_t *status, bool openmetrics) {
        for (size_t i = 0; i < ARRAY_SIZE(daemon_families); i++) {
                const struct family *f = &daemon_families[i];

                print_head(f, openmetrics);
                printf("%s%s", f->name, suffix_of(f->type));
                if (f->type == TYPE_INFO) {
                        putchar('{');
                        print_label("version", field_text(status, "version"), true);
                        print_label("kernel", field_text(status, "kernel"), false);
                        print_label("epoch", field_text(status, "epoch"), false);
                        puts("} 1");
                } else {
                        print_value(f->series[0].path, field(status, f->series[0].path));
                }
        }
}

static void print_tables(const json_t *tables, bool openmetrics) {
        for (size_t i = 0; i < ARRAY_SIZE(table_families); i++) {
                const json_t *item;
                size_t k;

                print_head(&table_families[i], openmetrics);
                json_array_foreach(tables, k, item) print_table_samples(&table_families[i], item);
        }
}

int print_metrics(const struct carvqctl *ctl) {
        struct sample sample = { 0 };
        struct fault fault = { 0 };
        int r;

        r = sample_take(ctl, CONTROL_TIMEOUT_S, &sample, &fault);
        if (r != EXIT_OK) {
                complain("%s", fault.text);
                return r;
        }
        residency_complete(sample.stats);
        print_daemon(sample.status, ctl->openmetrics);
        print_tables(field(sample.stats, "tables"), ctl->openmetrics);
        if (ctl->openmetrics)
                puts("# EOF");
        sample_deinit(&sample);
        return EXIT_OK;
}

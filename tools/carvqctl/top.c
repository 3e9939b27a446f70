/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl top: tables and clients by what they do now. Columns have fixed widths, so that nothing
 * jumps from one frame to the next; wider screens have more of them. What is shown as a rate is of
 * the last interval, latency is since the table was loaded or the client came.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "format.h"
#include "live.h"

enum kind {
        KIND_TEXT,
        KIND_NUMBER,
        KIND_COUNT,
        KIND_RATE,
        KIND_BYTES,
        KIND_NS,
        KIND_SECONDS,
        KIND_REAL,
        KIND_HITS,
        KIND_SAVED
};

struct column {
        const char *title;
        int width; /* 0: what the others leave */
        enum kind kind;
        const char *path;
        int screen_cols; /* shown from this width on */
        bool sorts;
};

#define RATE(name) "rates.stats.counted." name

static const struct column table_columns[] = {
        { "TABLE", 0, KIND_TEXT, "table.name", 0, false },
        { "ROWS/S", 7, KIND_RATE, RATE("n_rows"), 0, true },
        { "LOOKUPS/S", 9, KIND_RATE, RATE("n_lookups"), 0, true },
        { "HITS", 6, KIND_HITS, NULL, 0, true },
        { "P50", 8, KIND_NS, "stats.measured.p50_ns", 0, false },
        { "P99", 8, KIND_NS, "stats.measured.p99_ns", 0, true },
        { "SAVED", 7, KIND_SAVED, NULL, 0, true },
        { "READ/S", 10, KIND_BYTES, RATE("table_read_bytes"), 96, true },
        { "WRITTEN/S", 10, KIND_BYTES, RATE("arena_write_bytes"), 108, true },
        { "CACHED/S", 8, KIND_RATE, "rates.cache.claimed.n_hits", 120, true },
        { "ERRORS/S", 8, KIND_RATE, RATE("n_errors"), 132, true },
        { "CLIENTS", 7, KIND_COUNT, "table.n_clients", 142, false },
        { "MEMORY", 10, KIND_BYTES, "table.measured.pss_bytes", 154, true },
        { "AS F16", 10, KIND_BYTES, "table.modelled.f16_bytes", 166, false },
        { "BITS", 5, KIND_REAL, "table.counted.bits_per_parameter", 174, false },
        { "CODEC", 5, KIND_TEXT, "table.codec", 182, false },
};

static const struct column client_columns[] = {
        { "CLIENT", 0, KIND_TEXT, "client.name", 0, false },
        { "PID", 7, KIND_NUMBER, "client.pid", 0, false },
        { "ROWS/S", 7, KIND_RATE, RATE("n_rows"), 0, true },
        { "LOOKUPS/S", 9, KIND_RATE, RATE("n_lookups"), 0, true },
        { "P50", 8, KIND_NS, "stats.measured.p50_ns", 0, false },
        { "P99", 8, KIND_NS, "stats.measured.p99_ns", 0, true },
        { "SAVED", 7, KIND_SAVED, NULL, 0, true },
        { "READ/S", 10, KIND_BYTES, RATE("table_read_bytes"), 96, true },
        { "WRITTEN/S", 10, KIND_BYTES, RATE("arena_write_bytes"), 108, true },
        { "DIRECT/S", 8, KIND_RATE, "rates.claimed.n_rows", 120, true },
        { "ERRORS/S", 8, KIND_RATE, RATE("n_errors"), 132, true },
        { "TABLES", 6, KIND_COUNT, "client.n_tables", 142, false },
        { "MEMORY", 10, KIND_BYTES, "client.ring_bytes", 154, true },
        { "UID", 6, KIND_NUMBER, "client.uid", 162, false },
        { "SINCE", 7, KIND_SECONDS, "client.connected_seconds", 172, false },
};

static const struct view {
        const char *list, *name;
        const struct column *columns;
        size_t n_columns;
        const char *nothing;
} views[] = {
        { "tables", "table.name", table_columns, ARRAY_SIZE(table_columns),
          "No tables are served. Load one: carvqctl load NAME PATH" },
        { "clients", "client.name", client_columns, ARRAY_SIZE(client_columns),
          "No clients are connected." },
};

struct top {
        struct live live;
        size_t view;
        size_t sort[ARRAY_SIZE(views)]; /* a column of each */
};

/* ---- Cells ---- */

/* NAN where there is nothing to show. */
static double value_of(const struct column *c, const json_t *item) {
        const json_t *value;

        if (c->kind == KIND_HITS)
                return sample_hit_fraction(item);
        if (c->kind == KIND_SAVED)
                return sample_saved_fraction(item);
        value = field(item, c->path);
        return json_is_number(value) ? json_number_value(value) : NAN;
}

static struct text format_cell(const struct column *c, const json_t *item) {
        double value = value_of(c, item);
        uint64_t whole = value > 0 ? (uint64_t)(value + 0.5) : 0;
        struct text t = { "-" };

        if (isnan(value))
                return t;
        switch (c->kind) {
        case KIND_COUNT:
                return format_short_count(whole);
        case KIND_RATE:
                return format_rate(value);
        case KIND_BYTES:
                return format_bytes(whole);
        case KIND_NS:
                return format_ns(whole);
        case KIND_SECONDS:
                return format_seconds(whole);
        case KIND_HITS:
        case KIND_SAVED:
                snprintf(t.text, sizeof(t.text), "%.1f%%", 100 * value);
                return t;
        case KIND_REAL:
                snprintf(t.text, sizeof(t.text), "%.2f", value);
                return t;
        default:
                snprintf(t.text, sizeof(t.text), "%" PRIu64, whole);
                return t;
        }
}

/* Padded, or cut with a sign in the last place. */
static void write_text(const char *text, int width, FILE *out) {
        int length = 0, bytes = 0;

        if (!*text)
                text = "unnamed";
        for (; text[bytes]; bytes++)
                if (((uint8_t)text[bytes] & 0xc0) != 0x80 && length++ == width)
                        break;
        if (text[bytes])
                for (bytes--; ((uint8_t)text[bytes] & 0xc0) == 0x80;)
                        bytes--;
        fprintf(out, "%.*s%s%*s", bytes, text, text[bytes] ? "~" : "",
                text[bytes] ? 0 : width - length, "");
}

/* ---- The list ---- */

static bool is_shown(const struct column *c, int screen_cols) {
        return screen_cols >= c->screen_cols;
}

/* What the first column gets. */
static int width_of_name(const struct view *view, int screen_cols) {
        int left = screen_cols;

        for (size_t i = 1; i < view->n_columns; i++)
                if (is_shown(&view->columns[i], screen_cols))
                        left -= view->columns[i].width + 2;
        return MIN(MAX(left, 8), 40);
}

/* The one that is sorted by is underlined, its letters only. */
static void write_titles(const struct top *top, int screen_cols, FILE *out) {
        const struct view *view = &views[top->view];

        fprintf(out, "%s%-*s", style(STYLE_BOLD), width_of_name(view, screen_cols),
                view->columns[0].title);
        for (size_t i = 1; i < view->n_columns; i++) {
                const struct column *c = &view->columns[i];
                bool chosen = i == top->sort[top->view];

                if (is_shown(c, screen_cols))
                        fprintf(out, "  %*s%s%s%s%s", c->width - (int)strlen(c->title), "",
                                chosen ? style(STYLE_CHOSEN) : "", c->title,
                                chosen ? style(STYLE_PLAIN) : "", chosen ? style(STYLE_BOLD) : "");
        }
        fprintf(out, "%s\n", style(STYLE_PLAIN));
}

static void write_item(const struct view *view, const json_t *item, int screen_cols, FILE *out) {
        char name[160];

        snprintf(name, sizeof(name), "%s%s",
                 json_is_false(field(item, "table.is_published")) ? "(old) " : "",
                 field_text(item, view->name));
        write_text(name, width_of_name(view, screen_cols), out);
        for (size_t i = 1; i < view->n_columns; i++) {
                const struct column *c = &view->columns[i];

                if (is_shown(c, screen_cols))
                        fprintf(out, "  %*s", c->width,
                                c->kind == KIND_TEXT ? field_text(item, c->path)
                                                     : format_cell(c, item).text);
        }
        fputc('\n', out);
}

/* The order of items: by the chosen column, largest first, then by name; nothing comes last. */
static int compare_items(const void *a, const void *b, void *userdata) {
        const struct top *top = userdata;
        const struct view *view = &views[top->view];
        const struct column *c = &view->columns[top->sort[top->view]];
        const json_t *left = *(json_t *const *)a, *right = *(json_t *const *)b;
        double x = value_of(c, left), y = value_of(c, right);

        x = isnan(x) ? -INFINITY : x;
        y = isnan(y) ? -INFINITY : y;
        if (x != y)
                return x < y ? 1 : -1;
        return strcmp(field_text(left, view->name), field_text(right, view->name));
}

/* `n_rows` lines, of which the last says how many items have none. */
static void write_items(const struct top *top, int n_rows, int screen_cols, FILE *out) {
        const struct view *view = &views[top->view];
        const json_t *list = field(top->live.sample.stats, view->list);
        size_t n = json_array_size(list), n_shown = (size_t)MAX(n_rows, 1);
        _cleanup_(freep) json_t **items = calloc(n + 1, sizeof(json_t *));

        if (!items)
                return;
        for (size_t i = 0; i < n; i++)
                items[i] = json_array_get(list, i);
        qsort_r(items, n, sizeof(json_t *), compare_items, (void *)top);
        n_shown = n <= n_shown ? n : n_shown - 1;
        for (size_t i = 0; i < n_shown; i++)
                write_item(view, items[i], screen_cols, out);
        if (n_shown < n)
                fprintf(out, "... and %s more\n", format_count(n - n_shown).text);
        if (!n)
                fprintf(out, "%s\n", view->nothing);
        for (size_t i = MAX(n_shown + (n_shown < n), 1); i < (size_t)MAX(n_rows, 1); i++)
                fputc('\n', out);
}

/* ---- What stands above and below ---- */

static double sum_of(const struct top *top, const char *path) {
        const json_t *item;
        double sum = 0;
        size_t i;

        json_array_foreach(field(top->live.sample.stats, "tables"), i, item) sum +=
                MAX(field_real(item, path), 0);
        return sum;
}

static struct text bytes_of_all(const struct top *top, const char *path) {
        return format_bytes((uint64_t)(sum_of(top, path) + 0.5));
}

static void write_daemon(const struct top *top, FILE *out) {
        const json_t *s = top->live.sample.status;
        uint64_t n_tables = field_number(s, "n_tables"), n_clients = field_number(s, "n_clients");
        uint64_t n_workers = field_number(s, "n_workers");

        if (*top->live.fault.text) {
                fprintf(out, "%sTrying again: %s%s\n", style(STYLE_ALARM), top->live.fault.text,
                        style(STYLE_PLAIN));
                return;
        }
        fprintf(out, "carvqd %s, up %s: %s table%s, %s client%s, %s worker%s, kernel %s%s\n",
                field_text(s, "version"), format_seconds(field_number(s, "uptime_seconds")).text,
                format_count(n_tables).text, plural(n_tables), format_count(n_clients).text,
                plural(n_clients), format_count(n_workers).text, plural(n_workers),
                field_text(s, "kernel"), field_true(s, "stopping") ? ", shutting down" : "");
}

static void write_sums(const struct top *top, FILE *out) {
        double full = sum_of(top, "rates.stats.modelled.full_f16.table_read_bytes");
        double rows = sum_of(top, RATE("n_rows")), lookups = sum_of(top, RATE("n_lookups"));

        if (top->live.sample.seconds > 0)
                fprintf(out, "serves    %s rows/s in %s lookups/s, %s/s written\n",
                        format_rate(rows).text, format_rate(lookups).text,
                        bytes_of_all(top, RATE("arena_write_bytes")).text);
        else
                fputs("serves    rates appear after the first interval\n", out);
        fprintf(out, "reads     %s/s, were it f16 %s/s\n",
                bytes_of_all(top, RATE("table_read_bytes")).text,
                format_bytes((uint64_t)(full + 0.5)).text);
        fprintf(out, "memory    %s of tables (PSS), were they f16 %s\n",
                bytes_of_all(top, "table.measured.pss_bytes").text,
                bytes_of_all(top, "table.modelled.f16_bytes").text);
}

static void write_state(const struct top *top, FILE *out) {
        const struct view *view = &views[top->view];

        fprintf(out, "\n%s%s%s by %s, every %.3g s\n", style(STYLE_BOLD),
                top->view ? "Clients" : "Tables", style(STYLE_PLAIN),
                view->columns[top->sort[top->view]].title, top->live.ctl->interval_seconds);
}

/* What each figure is, and the keys. */
static void write_legend(const struct top *top, FILE *out) {
        fprintf(out, "Rates are counted, P50, P99 (in all) %s;\n",
                top->view ? "measured, CLIENT and DIRECT claimed"
                          : "and PSS measured, HITS and CACHED claimed");
        fputs("f16 and SAVED (of bytes read) are modelled.   Keys: t c Tab  s sort  q quit", out);
}

#define LINES_AROUND 9 /* the list: above it six and its titles, below it two */

static void write_frame(const struct live *live, const struct screen *screen, FILE *out) {
        const struct top *top = container_of(live, struct top, live);

        write_daemon(top, out);
        write_sums(top, out);
        write_state(top, out);
        write_titles(top, screen->n_cols, out);
        write_items(top, screen->n_rows - LINES_AROUND, screen->n_cols, out);
        write_legend(top, out);
}

/* ---- Keys ---- */

/* What is not on the screen is no order that anyone could see. */
static void sort_by_next(struct top *top, int screen_cols) {
        const struct view *view = &views[top->view];
        size_t *sort = &top->sort[top->view];

        do
                *sort = (*sort + 1) % view->n_columns;
        while (!view->columns[*sort].sorts || !is_shown(&view->columns[*sort], screen_cols));
}

static void press(struct live *live, const struct screen *screen, int key) {
        struct top *top = container_of(live, struct top, live);

        if (key == 't')
                top->view = 0;
        else if (key == 'c')
                top->view = 1;
        else if (key == '\t')
                top->view = !top->view;
        else if (key == 's')
                sort_by_next(top, screen->n_cols);
}

int verb_top(const struct carvqctl *ctl) {
        /* Both by ROWS/S. */
        struct top top = { .live = { .ctl = ctl, .write = write_frame, .press = press },
                           .sort = { 1, 2 } };

        return live_run(&top.live);
}

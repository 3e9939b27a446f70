/* SPDX-License-Identifier: Apache-2.0 */
/* See format.h. */
#include "format.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text format_count(uint64_t n) {
        struct text t;
        char digits[24];
        int n_digits = snprintf(digits, sizeof(digits), "%" PRIu64, n), length = 0;

        for (int i = 0; i < n_digits; i++) {
                if (i && (n_digits - i) % 3 == 0)
                        t.text[length++] = ',';
                t.text[length++] = digits[i];
        }
        t.text[length] = '\0';
        return t;
}

struct text format_short_count(uint64_t n) {
        static const char units[] = "kMGTPE";
        double value = (double)n / 1000;
        struct text t = format_count(n);
        size_t unit = 0;

        if (n < 10000)
                return t;
        for (; value >= 999.95; unit++)
                value /= 1000;
        snprintf(t.text, sizeof(t.text), "%.1f%c", value, units[unit]);
        return t;
}

struct text format_bytes(uint64_t bytes) {
        static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double value = (double)bytes / 1024;
        struct text t;
        size_t unit = 0;

        if (bytes < 1024) {
                snprintf(t.text, sizeof(t.text), "%" PRIu64 " B", bytes);
                return t;
        }
        /* What would be shown as 1024.0 goes up a unit. */
        for (; value >= 1023.95 && unit + 1 < ARRAY_SIZE(units); unit++)
                value /= 1024;
        snprintf(t.text, sizeof(t.text), "%.1f %s", value, units[unit]);
        return t;
}

struct text format_ns(uint64_t ns) {
        struct text t;

        if (ns < 1000)
                snprintf(t.text, sizeof(t.text), "%" PRIu64 " ns", ns);
        else if (ns < 1000 * 1000)
                snprintf(t.text, sizeof(t.text), "%.1f us", (double)ns / 1e3);
        else if (ns < 1000 * 1000 * 1000)
                snprintf(t.text, sizeof(t.text), "%.1f ms", (double)ns / 1e6);
        else
                snprintf(t.text, sizeof(t.text), "%.1f s", (double)ns / 1e9);
        return t;
}

struct text format_seconds(uint64_t s) {
        uint64_t minutes = s / 60, hours = minutes / 60, days = hours / 24;
        struct text t;

        if (s < 60)
                snprintf(t.text, sizeof(t.text), "%" PRIu64 "s", s);
        else if (hours == 0)
                snprintf(t.text, sizeof(t.text), "%" PRIu64 "m", minutes);
        else if (days == 0)
                snprintf(t.text, sizeof(t.text), "%" PRIu64 "h%02" PRIu64 "m", hours, minutes % 60);
        else
                snprintf(t.text, sizeof(t.text), "%" PRIu64 "d%02" PRIu64 "h", days, hours % 24);
        return t;
}

struct text format_saved(double fraction) {
        struct text t;

        if (fraction >= 0)
                snprintf(t.text, sizeof(t.text), "%.1f %% less", 100 * fraction);
        else
                snprintf(t.text, sizeof(t.text), "%.1f %% more", -100 * fraction);
        return t;
}

struct text format_rate(double per_second) {
        struct text t;

        if (per_second >= 99.95 || per_second <= 0)
                return format_short_count((uint64_t)(MAX(per_second, 0) + 0.5));
        snprintf(t.text, sizeof(t.text), "%.*f", per_second < 9.995 ? 2 : 1, per_second);
        return t;
}

const char *plural(uint64_t n) {
        return n == 1 ? "" : "s";
}

const json_t *field(const json_t *json, const char *path) {
        while (json) {
                size_t length = strcspn(path, ".");
                char name[64];

                snprintf(name, sizeof(name), "%.*s", (int)length, path);
                json = json_object_get(json, name);
                if (!path[length])
                        return json;
                path += length + 1;
        }
        return NULL;
}

uint64_t field_number(const json_t *json, const char *path) {
        return (uint64_t)MAX(json_integer_value(field(json, path)), 0);
}

double field_real(const json_t *json, const char *path) {
        return json_number_value(field(json, path));
}

const char *field_text(const json_t *json, const char *path) {
        const char *text = json_string_value(field(json, path));

        return text ? text : "";
}

bool field_true(const json_t *json, const char *path) {
        return json_is_true(field(json, path));
}

static void out_of_memory(void) {
        fputs("carvqctl: out of memory\n", stderr);
        exit(EXIT_FAILURE);
}

static void add_cell(struct grid *grid, char *cell) {
        void *cells = reallocarray(grid->cells, grid->n_cells + 1, sizeof(*grid->cells));

        if (!cell || !cells)
                out_of_memory();
        grid->cells = cells;
        grid->cells[grid->n_cells++] = cell;
}

void grid_init(struct grid *grid, const char *const *titles, size_t n_columns) {
        *grid = (struct grid){ .n_columns = n_columns };
        for (size_t i = 0; i < n_columns; i++)
                add_cell(grid, strdup(titles[i]));
}

void grid_deinit(struct grid *grid) {
        for (size_t i = 0; i < grid->n_cells; i++)
                free(grid->cells[i]);
        free(grid->cells);
}

void grid_add(struct grid *grid, const char *format, ...) {
        va_list arguments;
        char *cell;
        int r;

        va_start(arguments, format);
        r = vasprintf(&cell, format, arguments);
        va_end(arguments);
        add_cell(grid, r < 0 ? NULL : cell);
}

/* Columns that a terminal uses: one for each character of UTF-8, which is right for most. */
static int width_of(const char *text) {
        int width = 0;

        for (; *text; text++)
                width += ((unsigned char)*text & 0xc0) != 0x80;
        return width;
}

const char *style(enum style style) {
        static const char *const sequences[] = {
                [STYLE_PLAIN] = "\033[m",
                [STYLE_BOLD] = "\033[1m",
                [STYLE_CHOSEN] = "\033[1;4m",
                [STYLE_ALARM] = "\033[1;31m",
        };
        const char *terminal = getenv("TERM"), *forbidden = getenv("NO_COLOR");

        if (!isatty(STDOUT_FILENO) || !terminal || !strcmp(terminal, "dumb") ||
            (forbidden && *forbidden))
                return "";
        return sequences[style];
}

static void write_cell(const char *cell, int width, bool left, bool last, FILE *out) {
        int padding = width - width_of(cell);

        if (!left)
                fprintf(out, "%*s", padding, "");
        fputs(cell, out);
        if (left && !last)
                fprintf(out, "%*s", padding, "");
        if (!last)
                fputs("  ", out);
}

/* A cell's text; a title's without the sign of its alignment. */
static const char *shown_of(const struct grid *grid, size_t i) {
        const char *cell = grid->cells[i];

        return cell + (i < grid->n_columns && *cell == '<');
}

/* Empty cells at a line's end are left out, so that no line ends in spaces. */
static void write_line(const struct grid *grid, size_t first, const int *widths, int indent,
                       FILE *out) {
        size_t n_shown = grid->n_columns;

        while (n_shown && !*shown_of(grid, first + n_shown - 1))
                n_shown--;
        fprintf(out, "%*s%s", indent, "", first ? "" : style(STYLE_BOLD));
        for (size_t i = 0; i < n_shown; i++) {
                bool left = grid->cells[i][0] == '<';

                write_cell(shown_of(grid, first + i), widths[i], left, i + 1 == n_shown, out);
        }
        fprintf(out, "%s\n", first ? "" : style(STYLE_PLAIN));
}

void grid_write(const struct grid *grid, int indent, FILE *out) {
        int widths[GRID_COLUMNS_MAX] = { 0 };
        size_t n = grid->n_columns;

        for (size_t i = 0; i < grid->n_cells; i++) {
                int width = width_of(shown_of(grid, i));

                widths[i % n] = MAX(widths[i % n], width);
        }
        for (size_t first = 0; first + n <= grid->n_cells; first += n)
                write_line(grid, first, widths, indent, out);
}

void grid_print(const struct grid *grid, int indent) {
        grid_write(grid, indent, stdout);
}

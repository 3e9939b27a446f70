/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for people, and tables of them. Exact numbers are what --json is for. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "proto/base.h"

#define FORMAT_BYTES 48

/* A formatted number as a value, so that several fit into one printf(). */
struct text {
        char text[FORMAT_BYTES];
};

struct text format_count(uint64_t n);       /* 1,234,567 */
struct text format_short_count(uint64_t n); /* 9,999, 12.3k, 4.5M */
struct text format_bytes(uint64_t bytes);   /* 0 B, 1.5 KiB, 12.3 MiB */
struct text format_ns(uint64_t ns);         /* 850 ns, 12.3 us, 1.2 ms, 3.4 s */
struct text format_seconds(uint64_t s);     /* 45s, 2m, 3h20m, 4d03h */
struct text format_saved(double fraction);  /* "95.0 % less", "2.0 % more" */
struct text format_rate(double per_second); /* 0.25, 12.5, 9,999, 12.3k */
const char *plural(uint64_t n);             /* "s", or nothing for 1 */

/*
 * A member by path: "counted.errors.retired". NULL where a part of it is missing. The others give
 * 0,
 * "" or false for what is missing or of another type: an older daemon may not know a field.
 */
const json_t *field(const json_t *json, const char *path);
uint64_t field_number(const json_t *json, const char *path);
double field_real(const json_t *json, const char *path);
const char *field_text(const json_t *json, const char *path);
bool field_true(const json_t *json, const char *path);

/*
 * A grid of cells, each column as wide as its widest cell, two spaces between them. A title that
 * starts with '<' makes its column left-aligned; the sign is not shown.
 */
#define GRID_COLUMNS_MAX 12

struct grid {
        size_t n_columns, n_cells;
        char **cells; /* owned, row by row; the titles come first */
};

void grid_init(struct grid *grid, const char *const *titles, size_t n_columns);
void grid_deinit(struct grid *grid);
/* The next cell. Ends the process without memory, as all of this may: a tool. */
void grid_add(struct grid *grid, const char *format, ...) _printf_(2, 3);
/* `indent` spaces before each line. */
void grid_write(const struct grid *grid, int indent, FILE *out);
void grid_print(const struct grid *grid, int indent); /* to standard output */

/*
 * How text is set off, on a terminal that can and where NO_COLOR does not forbid it; else "". Ends
 * with STYLE_PLAIN.
 */
enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_CHOSEN, STYLE_ALARM };
const char *style(enum style style);

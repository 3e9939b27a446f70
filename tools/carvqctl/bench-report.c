/* SPDX-License-Identifier: Apache-2.0 */
/* What `carvqctl bench` found: as a table, as JSON, as a picture. No figure without its label. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "format.h"

#define COLUMNS_N 7 /* the last one where something is known for it */

const char *const bench_type_names[] = { "f32", "f16", "bf16" };

static const char *const ids_names[BENCH_IDS] = { "uniform", "text-like", "uniform, cold" };
static const char *const ids_keys[BENCH_IDS] = { "uniform", "text_like", "cold" };
static const char *const way_keys[BENCH_WAYS] = { "full", "direct", "ring" };

static const char *way_name(const struct bench *b, enum bench_way way) {
        static const char *const full[] = { "f32 in process", "f16 in process", "bf16 in process" };

        return way == BENCH_FULL     ? full[b->type]
               : way == BENCH_DIRECT ? "carvq direct"
                                     : "carvq ring";
}

static double all_legs(const struct bench_cell *cell) {
        return cell->table_bytes + 2 * cell->written_bytes;
}

/* ---- Text ---- */

static struct text bytes_or(double bytes) {
        struct text none = { "" };

        return isnan(bytes) ? none : format_bytes((uint64_t)(bytes + 0.5));
}

static struct text ns_of(double ns) {
        struct text t;

        if (ns >= 10000)
                return format_ns((uint64_t)(ns + 0.5));
        snprintf(t.text, sizeof(t.text), "%.0f ns", ns);
        return t;
}

static bool knows_moved(const struct bench *b) {
        return b->imc.n || b->ctl->cold;
}

static void add_ids(struct grid *grid, size_t n_columns, enum bench_ids ids) {
        grid_add(grid, "%s ids", ids_names[ids]);
        for (size_t i = 1; i < n_columns; i++)
                grid_add(grid, "%s", "");
}

static void add_cell(struct grid *grid, const struct bench *b, enum bench_ids ids,
                     enum bench_way way) {
        const struct bench_cell *cell = &b->cells[ids][way];
        bool known = !*cell->unavailable.text;

        grid_add(grid, "  %s", way_name(b, way));
        grid_add(grid, "%s", known ? ns_of(cell->ns).text : "unavailable");
        grid_add(grid, "%s", known ? bytes_or(cell->table_bytes).text : "");
        grid_add(grid, "%s", known ? bytes_or(64 * cell->table_lines).text : "");
        grid_add(grid, "%s", known ? bytes_or(cell->written_bytes).text : "");
        grid_add(grid, "%s", known ? bytes_or(all_legs(cell)).text : "");
        if (knows_moved(b))
                grid_add(grid, "%s",
                         known ? bytes_or(ids == BENCH_COLD ? cell->storage_bytes : cell->imc_bytes)
                                         .text
                               : "");
}

static void add_saved(struct grid *grid, const struct bench *b, enum bench_ids ids,
                      enum bench_way way) {
        const struct bench_cell *cell = &b->cells[ids][way], *full = &b->cells[ids][BENCH_FULL];

        if (*cell->unavailable.text || *full->unavailable.text)
                return;
        grid_add(grid, "%s", way == BENCH_DIRECT ? "  saved by direct" : "  saved by ring");
        grid_add(grid, "%s", format_saved(1 - cell->ns / full->ns).text);
        grid_add(grid, "%s", format_saved(1 - cell->table_bytes / full->table_bytes).text);
        grid_add(grid, "%s", format_saved(1 - cell->table_lines / full->table_lines).text);
        grid_add(grid, "%s", "");
        grid_add(grid, "%s", format_saved(1 - all_legs(cell) / all_legs(full)).text);
        if (knows_moved(b))
                grid_add(grid, "%s", "");
}

static void print_reasons(const struct bench *b) {
        for (enum bench_ids ids = 0; ids < BENCH_IDS; ids++)
                for (enum bench_way way = 0; way < BENCH_WAYS; way++)
                        if (*b->cells[ids][way].unavailable.text)
                                printf("%s, %s: unavailable (%s)\n", ids_names[ids],
                                       way_name(b, way), b->cells[ids][way].unavailable.text);
        if (!b->mbm.group)
                printf("Memory traffic of this process and carvqd: unavailable\n  (%s)\n",
                       b->no_mbm.text);
        if (!b->imc.n)
                printf("Memory traffic of the machine: unavailable\n  (%s)\n", b->no_imc.text);
}

/* Both of them, where there are both, against each other. */
static void print_traffic(const struct bench *b) {
        for (enum bench_ids ids = 0; ids < BENCH_COLD; ids++)
                for (enum bench_way way = 0; way < BENCH_WAYS; way++) {
                        const struct bench_cell *cell = &b->cells[ids][way];

                        if (isnan(cell->mbm_bytes) || *cell->unavailable.text)
                                continue;
                        printf("%s, %s: memory moved %s a row for this process and carvqd"
                               " (measured by resctrl)",
                               ids_names[ids], way_name(b, way), bytes_or(cell->mbm_bytes).text);
                        if (!isnan(cell->imc_bytes))
                                printf(", %.0f %% of what it moved for all",
                                       100 * cell->mbm_bytes / cell->imc_bytes);
                        putchar('\n');
                }
}

static void print_head(const struct bench *b) {
        uint64_t full_bytes = b->n_rows * b->n_dims * codec_type_bytes(b->type);

        printf("table %s: %s rows x %s at %.2f bits a parameter, against %s\n", b->name,
               format_count(b->n_rows).text, format_count(b->n_dims).text, b->bits_per_parameter,
               bench_type_names[b->type]);
        printf("batches of %s rows to f32, every value read, one thread; kernel %s\n",
               format_count(b->batch).text, b->kernel);
        if (b->n_used < b->n_rows)
                printf("of the first %s rows alone: more do not fit into half of the free memory\n",
                       format_count(b->n_used).text);
        if (b->machine_bytes_per_s > 0)
                printf("one thread reads memory in order at %.1f GB/s (measured)\n",
                       b->machine_bytes_per_s / 1e9);
        printf("memory: %s in each process (modelled); or %s of table (PSS, %s) for all,\n"
               "        and %s of ring in each (counted)\n\n",
               format_bytes(full_bytes).text,
               isnan(b->pss_bytes) ? format_bytes(b->file_bytes).text : bytes_or(b->pss_bytes).text,
               isnan(b->pss_bytes) ? "as large as its file" : "measured",
               format_bytes(b->ring_bytes).text);
}

void bench_print(const struct bench *b) {
        static const char *const titles[COLUMNS_N] = { "<A ROW",      "TIME",    "TABLE READ",
                                                       "CACHE LINES", "WRITTEN", "ALL THREE",
                                                       "MOVED" };
        static const char *const labels[COLUMNS_N] = { "",        "measured", "counted", "counted",
                                                       "counted", "modelled", "measured" };
        const size_t n_columns = COLUMNS_N - !knows_moved(b);
        struct grid grid;

        print_head(b);
        grid_init(&grid, titles, n_columns);
        for (size_t i = 0; i < n_columns; i++)
                grid_add(&grid, "%s", labels[i]);
        for (enum bench_ids ids = 0; ids < (b->ctl->cold ? BENCH_IDS : BENCH_COLD); ids++) {
                add_ids(&grid, n_columns, ids);
                for (enum bench_way way = 0; way < BENCH_WAYS; way++)
                        add_cell(&grid, b, ids, way);
                add_saved(&grid, b, ids, BENCH_DIRECT);
                add_saved(&grid, b, ids, BENCH_RING);
        }
        grid_print(&grid, 0);
        grid_deinit(&grid);
        puts("\nAll three: read from the table, written as rows, and read again.");
        if (knows_moved(b))
                printf("Moved: by the memory controllers, for all of the machine%s.\n",
                       b->ctl->cold ? "; cold, from storage" : "");
        print_traffic(b);
        print_reasons(b);
}

/* ---- JSON ---- */

static json_t *real_or_null(double value) {
        return isfinite(value) ? json_real(value) : json_null();
}

static json_t *cell_to_json(const struct bench_cell *cell, const struct bench_cell *full) {
        bool known = !*cell->unavailable.text, compares = known && !*full->unavailable.text;
        json_t *o;

        if (!known)
                return json_pack("{ss}", "unavailable", cell->unavailable.text);
        o = json_pack("{sn, s{so, so, so, so}, s{sf, sf, sf}, s{sf, sf}}", "unavailable",
                      "measured", "ns_per_row", real_or_null(cell->ns), "storage_bytes_per_row",
                      real_or_null(cell->storage_bytes), "imc_bytes_per_row",
                      real_or_null(cell->imc_bytes), "mbm_bytes_per_row",
                      real_or_null(cell->mbm_bytes), "counted", "table_read_bytes_per_row",
                      cell->table_bytes, "table_read_lines_per_row", cell->table_lines,
                      "row_write_bytes_per_row", cell->written_bytes, "modelled",
                      "client_read_bytes_per_row", cell->written_bytes, "total_bytes_per_row",
                      all_legs(cell));
        if (compares)
                json_object_set_new(o, "saved",
                                    json_pack("{sf, sf, sf}", "time", 1 - cell->ns / full->ns,
                                              "table_read",
                                              1 - cell->table_bytes / full->table_bytes, "total",
                                              1 - all_legs(cell) / all_legs(full)));
        return o;
}

static json_t *reason_or_null(const struct fault *fault, bool available) {
        return available ? json_null() : json_string(fault->text);
}

json_t *bench_to_json(const struct bench *b) {
        json_t *ids_object = json_object();

        for (enum bench_ids ids = 0; ids < (b->ctl->cold ? BENCH_IDS : BENCH_COLD); ids++) {
                json_t *ways = json_object();

                for (enum bench_way way = 0; way < BENCH_WAYS; way++)
                        json_object_set_new(
                                ways, way_keys[way],
                                cell_to_json(&b->cells[ids][way], &b->cells[ids][BENCH_FULL]));
                json_object_set_new(ids_object, ids_keys[ids], ways);
        }
        return json_pack(
                "{ss, ss, ss, sI, sI, sI, sI, sf, so, s{so, so}, s{sI, sI, sI}, s{so, so}}",
                "table", b->name, "against", bench_type_names[b->type], "kernel", b->kernel,
                "n_rows", (json_int_t)b->n_rows, "n_rows_used", (json_int_t)b->n_used, "n_dims",
                (json_int_t)b->n_dims, "batch", (json_int_t)b->batch, "bits_per_parameter",
                b->bits_per_parameter, "ids", ids_object, "measured", "memory_read_bytes_per_s",
                real_or_null(b->machine_bytes_per_s > 0 ? b->machine_bytes_per_s : NAN),
                "pss_bytes", real_or_null(b->pss_bytes), "counted", "file_bytes",
                (json_int_t)b->file_bytes, "ring_bytes", (json_int_t)b->ring_bytes, "full_bytes",
                (json_int_t)(b->n_rows * b->n_dims * codec_type_bytes(b->type)), "unavailable",
                "mbm", reason_or_null(&b->no_mbm, b->mbm.group), "imc",
                reason_or_null(&b->no_imc, b->imc.n > 0));
}

/* ---- SVG ---- */

#define BAR_HEIGHT 22
#define LABEL_COLS 240
#define BAR_COLS   300
#define VALUE_COLS 90
#define CHART_COLS (LABEL_COLS + BAR_COLS + VALUE_COLS)

static const char *const colours[BENCH_WAYS] = { "#8a8a8a", "#1f77b4", "#2ca02c" };

/* Names of tables and types need no escapes: A-Z a-z 0-9 . _ - */
static int draw_chart(const struct bench *b, FILE *f, int y, const char *title, bool time) {
        double most = 0;

        fprintf(f, "<text x=\"10\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y + 16, title);
        y += 28;
        for (enum bench_ids ids = 0; ids < BENCH_COLD; ids++)
                for (enum bench_way way = 0; way < BENCH_WAYS; way++) {
                        const struct bench_cell *cell = &b->cells[ids][way];

                        most = fmax(most, time ? cell->ns : all_legs(cell));
                }
        for (enum bench_ids ids = 0; ids < BENCH_COLD; ids++) {
                for (enum bench_way way = 0; way < BENCH_WAYS; way++, y += BAR_HEIGHT) {
                        const struct bench_cell *cell = &b->cells[ids][way];
                        double value = time ? cell->ns : all_legs(cell);
                        double width = most > 0 ? BAR_COLS * value / most : 0;

                        fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s, %s</text>\n",
                                LABEL_COLS - 8, y + 15, ids_names[ids], way_name(b, way));
                        if (*cell->unavailable.text) {
                                fprintf(f, "<text x=\"%d\" y=\"%d\">unavailable</text>\n",
                                        LABEL_COLS, y + 15);
                                continue;
                        }
                        fprintf(f,
                                "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\""
                                " fill=\"%s\"/>\n",
                                LABEL_COLS, y + 2, width, BAR_HEIGHT - 4, colours[way]);
                        fprintf(f, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", LABEL_COLS + width + 6,
                                y + 15, time ? ns_of(value).text : bytes_or(value).text);
                }
                y += 8;
        }
        return y;
}

int bench_write_svg(const struct bench *b, const char *path) {
        const int charts_y = 40, chart_rows = 28 + 2 * (BENCH_WAYS * BAR_HEIGHT + 8);
        FILE *f = fopen(path, "we");
        int y, r = 0;

        if (!f)
                return -errno;
        fprintf(f,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\""
                " font-family=\"sans-serif\" font-size=\"13\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
                "<text x=\"10\" y=\"24\">%s: %s rows x %s at %.2f bits a parameter, batches of %s"
                "</text>\n",
                CHART_COLS, charts_y + 2 * chart_rows + 10, b->name, format_count(b->n_rows).text,
                format_count(b->n_dims).text, b->bits_per_parameter, format_count(b->batch).text);
        y = draw_chart(b, f, charts_y, "Time of a row (measured)", true);
        draw_chart(b, f, y, "Bytes of a row: table read, written, read again (modelled)", false);
        fputs("</svg>\n", f);
        if (ferror(f))
                r = -EIO;
        if (fclose(f) && r >= 0)
                r = -errno;
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl tables */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

static void add_table(struct grid *grid, const json_t *t) {
        const json_t *pss = field(t, "measured.pss_bytes");

        grid_add(grid, "%s%s", field_text(t, "name"),
                 field_true(t, "is_published") ? "" : " (old)");
        grid_add(grid, "%s", format_count(field_number(t, "n_rows")).text);
        grid_add(grid, "%s", format_count(field_number(t, "n_dims")).text);
        grid_add(grid, "%s", field_text(t, "codec"));
        grid_add(grid, "%.2f", field_real(t, "counted.bits_per_parameter"));
        grid_add(grid, "%s", format_bytes(field_number(t, "counted.file_bytes")).text);
        grid_add(grid, "%s", format_bytes(field_number(t, "modelled.f16_bytes")).text);
        grid_add(grid, "%s",
                 json_is_integer(pss) ? format_bytes((uint64_t)json_integer_value(pss)).text : "-");
        grid_add(grid, "%s", format_count(field_number(t, "n_clients")).text);
}

/* What is unusual about a table, a line each; most have none. */
static void print_notes(const json_t *t) {
        const char *name = field_text(t, "name"), *group = field_text(t, "options.group");
        uint64_t populated = field_number(t, "resident.populated_bytes");
        bool locked = field_true(t, "resident.is_locked");

        if (*group)
                printf("%s: for members of group %s\n", name, group);
        if (locked || populated || field_true(t, "resident.is_populating"))
                printf("%s: %s%s of %s populated%s\n", name, locked ? "locked, " : "",
                       format_bytes(populated).text,
                       format_bytes(field_number(t, "counted.file_bytes")).text,
                       field_true(t, "options.huge_pages") ? ", huge pages advised" : "");
        else if (field_true(t, "options.huge_pages"))
                printf("%s: huge pages advised\n", name);
        if (*field_text(t, "resident.problem"))
                printf("%s %s\n", name, field_text(t, "resident.problem"));
}

static void print_refusals(const json_t *refusals) {
        const json_t *refusal;
        size_t i;

        json_array_foreach(refusals, i, refusal)
                printf("\n%s is refused, for %s now: %s\n", field_text(refusal, "name"),
                       format_seconds(field_number(refusal, "refused_seconds")).text,
                       field_text(refusal, "reason"));
}

static void print_tables(const json_t *tables) {
        static const char *const titles[] = { "<TABLE", "ROWS", "DIMS", "<CODEC", "BITS",
                                              "FILE",   "F16",  "PSS",  "CLIENTS" };
        struct grid grid;
        const json_t *table;
        size_t i;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        json_array_foreach(tables, i, table) add_table(&grid, table);
        grid_print(&grid, 0);
        grid_deinit(&grid);
        puts("\nBITS a parameter and FILE are counted, F16 is the same table in 16 bits "
             "(modelled),\nPSS is the memory that the file takes in carvqd (measured).");
        json_array_foreach(tables, i, table) print_notes(table);
}

int verb_tables(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        int r;

        r = control_call(ctl, "ListTables", NULL, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                return print_json(reply);
        if (json_array_size(field(reply, "tables")))
                print_tables(field(reply, "tables"));
        else
                puts("No tables are served. Load one: carvqctl load NAME PATH");
        print_refusals(field(reply, "refusals"));
        return EXIT_OK;
}

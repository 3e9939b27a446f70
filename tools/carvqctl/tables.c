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
        return EXIT_OK;
}

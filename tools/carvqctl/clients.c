/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl clients */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

static void add_client(struct grid *grid, const json_t *c) {
        grid_add(grid, "%" PRIu64, field_number(c, "session"));
        grid_add(grid, "%s", field_text(c, "name"));
        grid_add(grid, "%" PRIu64, field_number(c, "pid"));
        grid_add(grid, "%" PRIu64, field_number(c, "uid"));
        grid_add(grid, "%s", field_text(c, "state"));
        grid_add(grid, "%s", format_seconds(field_number(c, "connected_seconds")).text);
        grid_add(grid, "%s", format_bytes(field_number(c, "ring_bytes")).text);
        grid_add(grid, "%s", format_count(field_number(c, "n_tables")).text);
        grid_add(grid, "%s", format_short_count(field_number(c, "n_lookups")).text);
        grid_add(grid, "%s", format_short_count(field_number(c, "n_rows")).text);
}

static void print_clients(const json_t *clients) {
        static const char *const titles[] = { "ID",    "<CLIENT", "PID",    "UID",     "<STATE",
                                              "SINCE", "MEMORY",  "TABLES", "LOOKUPS", "ROWS" };
        struct grid grid;
        const json_t *client;
        size_t i;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        json_array_foreach(clients, i, client) add_client(&grid, client);
        grid_print(&grid, 0);
        grid_deinit(&grid);
}

static void print_users(const json_t *users) {
        static const char *const titles[] = { "USER", "CLIENTS", "MEMORY", "TABLES", "IN FLIGHT" };
        struct grid grid;
        const json_t *user;
        size_t i;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        json_array_foreach(users, i, user) {
                grid_add(&grid, "%" PRIu64, field_number(user, "uid"));
                grid_add(&grid, "%s", format_count(field_number(user, "n_clients")).text);
                grid_add(&grid, "%s", format_bytes(field_number(user, "ring_bytes")).text);
                grid_add(&grid, "%s", format_count(field_number(user, "n_tables")).text);
                grid_add(&grid, "%s", format_count(field_number(user, "n_ids_in_flight")).text);
        }
        putchar('\n');
        grid_print(&grid, 0);
        grid_deinit(&grid);
}

int verb_clients(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        int r;

        r = control_call(ctl, "ListClients", NULL, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                return print_json(reply);
        if (!json_array_size(field(reply, "clients"))) {
                puts("No clients are connected.");
                return EXIT_OK;
        }
        print_clients(field(reply, "clients"));
        if (json_array_size(field(reply, "users"))) /* not of an older daemon */
                print_users(field(reply, "users"));
        return EXIT_OK;
}

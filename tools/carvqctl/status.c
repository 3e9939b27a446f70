/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl status */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

static void print_features(const json_t *features) {
        const json_t *feature;
        size_t i;

        if (!json_array_size(features)) {
                puts(", nothing faster on this CPU");
                return;
        }
        fputs(", of what this CPU has: ", stdout);
        json_array_foreach(features, i, feature) printf(
                "%s%s", i ? ", " : "", json_is_string(feature) ? json_string_value(feature) : "?");
        putchar('\n');
}

/* A daemon of before does not tell. */
static void print_event_loop(const json_t *s) {
        const char *why = json_string_value(field(s, "event_loop_reason"));

        if (!json_is_string(field(s, "event_loop")))
                return;
        printf("  loop      %s%s%s%s\n", field_text(s, "event_loop"), why ? " (" : "",
               why ? why : "", why ? ")" : "");
}

static void print_user_limits(const json_t *l) {
        if (!json_is_object(l)) /* an older daemon */
                return;
        printf("  per user  %s clients, %s of shared memory, %s open tables\n",
               format_count(field_number(l, "max_sessions")).text,
               format_bytes(field_number(l, "max_ring_bytes")).text,
               format_count(field_number(l, "max_tables")).text);
        printf("            %s ids in flight, %s handshakes a second\n",
               format_count(field_number(l, "max_ids_in_flight")).text,
               format_count(field_number(l, "max_handshakes_per_second")).text);
}

static void print_status(const json_t *s) {
        uint64_t n_tables = field_number(s, "n_tables"), n_clients = field_number(s, "n_clients");

        printf("carvqd %s, pid %" PRIu64 ", up %s%s\n", field_text(s, "version"),
               field_number(s, "pid"), format_seconds(field_number(s, "uptime_seconds")).text,
               field_true(s, "stopping") ? ", shutting down" : "");
        printf("  serves    %s table%s to %s client%s\n", format_count(n_tables).text,
               plural(n_tables), format_count(n_clients).text, plural(n_clients));
        printf("  kernel    %s", field_text(s, "kernel"));
        print_features(field(s, "cpu_features"));
        print_event_loop(s);
        printf("  socket    %s\n", field_text(s, "socket_path"));
        printf("  control   %s\n", field_text(s, "control_path"));
        printf("  limits    %s clients, %s of shared memory each\n",
               format_count(field_number(s, "max_sessions")).text,
               format_bytes(field_number(s, "max_ring_bytes")).text);
        print_user_limits(field(s, "per_user"));
        printf("  workers   %s\n", format_count(field_number(s, "n_workers")).text);
        printf("  spins     up to %s before it sleeps\n",
               format_ns(field_number(s, "spin_ns_max")).text);
        printf("  epoch     %s\n", field_text(s, "epoch"));
}

int verb_status(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        int r;

        r = control_call(ctl, "GetStatus", NULL, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                return print_json(reply);
        print_status(reply);
        return EXIT_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl reload: waits until the daemon is done, and says what has changed. */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

static void print_names(const char *what, const json_t *names) {
        const json_t *name;
        size_t i;

        json_array_foreach(names, i, name) printf("%-14s %s\n", what, json_string_value(name));
}

static void print_report(const json_t *reply) {
        const json_t *refusals = field(reply, "refusals"), *refusal;
        size_t i;

        print_names("loaded", field(reply, "loaded"));
        print_names("unloaded", field(reply, "unloaded"));
        json_array_foreach(refusals, i, refusal)
                printf("%-14s %s: %s\n", "refused", field_text(refusal, "name"),
                       field_text(refusal, "reason"));
        print_names("warning", field(reply, "warnings"));
        print_names("needs restart", field(reply, "needs_restart"));
        if (!json_array_size(field(reply, "loaded")) &&
            !json_array_size(field(reply, "unloaded")) && !json_array_size(refusals))
                puts("All tables are as they were.");
}

/* 1 with a table that is refused: a script should notice. */
int verb_reload(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        int r;

        r = control_call(ctl, "Reload", NULL, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                print_json(reply);
        else
                print_report(reply);
        return json_array_size(field(reply, "refusals")) ? EXIT_REFUSED : EXIT_OK;
}

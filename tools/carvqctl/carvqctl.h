/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl: one function for each verb, and what they share. Verbs return the process's exit status
 * and have said on stderr why it is not 0. One thread.
 */
#pragma once

#include <jansson.h>

#include "proto/base.h"

enum {
        EXIT_OK = 0,
        EXIT_REFUSED = 1,     /* the daemon said no, or nobody takes our output */
        EXIT_USAGE = 2,       /* the command line is wrong */
        EXIT_UNREACHABLE = 3, /* nobody answers, or not in our protocol */
};

struct carvqctl {
        const char *socket_path; /* NULL: libcarvq's default */
        const char *control_path;
        bool json;
        int n_arguments; /* behind the verb; their number is checked */
        char **arguments;
};

int verb_status(const struct carvqctl *ctl);
int verb_tables(const struct carvqctl *ctl);
int verb_clients(const struct carvqctl *ctl);
int verb_stats(const struct carvqctl *ctl);
int verb_lookup(const struct carvqctl *ctl);
int verb_load(const struct carvqctl *ctl);
int verb_unload(const struct carvqctl *ctl);
int verb_version(const struct carvqctl *ctl);

/*
 * Calls io.carvq.Control.METHOD with `parameters`, which it takes over; NULL: none. Returns an exit
 * status; on EXIT_OK `*ret_reply` holds the reply's parameters.
 */
int control_call(const struct carvqctl *ctl, const char *method, json_t *parameters,
                 json_t **ret_reply);

/* As it came, indented. */
int print_json(const json_t *json);

/* "carvqctl: " and the sentence, on stderr. */
void complain(const char *format, ...) _printf_(1, 2);

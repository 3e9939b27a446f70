/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl: one function for each verb, and what they share. Verbs return the process's exit status
 * and have said on stderr why it is not 0. One thread.
 */
#pragma once

#include <getopt.h>
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
        const char *format;             /* of lookup; NULL: not given */
        const char *output_path;        /* NULL: standard output */
        const char *against, *svg_path; /* of bench; NULL: not given */
        uint64_t batch;                 /* of bench; 0: not given */
        double seconds;                 /* of bench and stats --traffic; 0: not given */
        bool json, openmetrics, prometheus, watch, cold, traffic;
        double interval_seconds;
        int n_arguments; /* behind the verb; their number is checked */
        char **arguments;
};

/* What the command line knows of a verb. */
struct verb {
        const char *name;
        int n_arguments_min, n_arguments_max; /* -1: any number */
        const char *options;                  /* keys of the options that it takes */
        int (*run)(const struct carvqctl *ctl);
        const char *help;
};

extern const struct verb verbs[]; /* the last one has no name */
extern const struct option long_options[];
extern const char general_help[];

/* A table on a slow disk takes its time to load. */
#define CONTROL_TIMEOUT_S 60

/* Options of every verb, by key. */
#define COMMON_OPTIONS "cshv"

int verb_status(const struct carvqctl *ctl);
int verb_tables(const struct carvqctl *ctl);
int verb_clients(const struct carvqctl *ctl);
int verb_stats(const struct carvqctl *ctl);
int watch_stats(const struct carvqctl *ctl);   /* its --watch */
int stats_traffic(const struct carvqctl *ctl); /* its --traffic */
int print_metrics(const struct carvqctl *ctl); /* its --openmetrics and --prometheus */
int verb_top(const struct carvqctl *ctl);
int verb_lookup(const struct carvqctl *ctl);
int verb_bench(const struct carvqctl *ctl);
int verb_load(const struct carvqctl *ctl);
int verb_unload(const struct carvqctl *ctl);
int verb_reload(const struct carvqctl *ctl);
int verb_completion(const struct carvqctl *ctl);
int verb_trace(const struct carvqctl *ctl);
int verb_version(const struct carvqctl *ctl);

/*
 * Calls io.carvq.Control.METHOD with `parameters`, which it takes over; NULL: none. Returns an exit
 * status; on EXIT_OK `*ret_reply` holds the reply's parameters, on EXIT_REFUSED those of the error,
 * which may tell more than the sentence that was printed. Without --json its texts are safe to
 * print: clients choose their names, and a terminal obeys what it is told.
 */
int control_call(const struct carvqctl *ctl, const char *method, json_t *parameters,
                 json_t **ret_reply);

/* The same, silent and within `timeout_s`: the caller has the sentence. */
int control_try(const struct carvqctl *ctl, const char *method, json_t *parameters, int timeout_s,
                json_t **ret_reply, struct fault *ret_fault);

/* As it came, indented. */
int print_json(const json_t *json);

/* "carvqctl: " and the sentence, on stderr. */
void complain(const char *format, ...) _printf_(1, 2);

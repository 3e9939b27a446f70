/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl: the command line, and the one place that talks to the control socket. */
#include "carvqctl.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "varlink-client.h"

#define CONTROL_PATH "/run/carvq/control.sock"

static const struct verb {
        const char *name;
        int n_arguments_min, n_arguments_max; /* -1: any number */
        int (*run)(const struct carvqctl *ctl);
} verbs[] = {
        { "status", 0, 0, verb_status },   { "tables", 0, 0, verb_tables },
        { "clients", 0, 0, verb_clients }, { "stats", 0, 1, verb_stats },
        { "lookup", 2, -1, verb_lookup },  { "load", 2, 2, verb_load },
        { "unload", 1, 1, verb_unload },   { "version", 0, 0, verb_version },
};

static const char help[] =
        "Usage: carvqctl [OPTION]... VERB [ARGUMENT]...\n"
        "Inspect and steer carvqd, the server of compressed embedding tables.\n"
        "\n"
        "  status             the daemon as a whole\n"
        "  tables             what is served, and the memory it takes\n"
        "  clients            who is connected\n"
        "  stats [TABLE]      what was served, what it cost and what that saved\n"
        "  lookup TABLE ID... rows by id, through shared memory like any client\n"
        "  load NAME PATH     serve the .carvq file PATH as NAME, replacing an older one\n"
        "  unload NAME        serve NAME no longer; who has it open keeps it\n"
        "  version            of carvqctl, and of carvqd where it runs\n"
        "\n"
        "  --json             print JSON with exact numbers; values of a row that are not\n"
        "                     finite are null\n"
        "  --socket PATH      carvqd's data socket, for lookup (default: $CARVQ_SOCKET,\n"
        "                     else carvqd.sock beside the control socket's default)\n"
        "  --control PATH     carvqd's control socket (default: $CARVQ_CONTROL, else\n"
        "                     /run/carvq/control.sock where it exists, else\n"
        "                     $XDG_RUNTIME_DIR/carvq/control.sock)\n"
        "  --help             print this and exit\n"
        "  --version          print carvqctl's version and exit\n"
        "\n"
        "Figures are counted by the daemon, measured, or modelled from counted ones, and\n"
        "say which. Bytes moved have three legs: read from the table, written as rows,\n"
        "read by the client.\n"
        "\n"
        "Exit status: 0 done, 1 the daemon said no or the output cannot be written, 2\n"
        "wrong usage, 3 the daemon cannot be reached.\n";

void complain(const char *format, ...) {
        va_list arguments;

        fputs("carvqctl: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
}

int print_json(const json_t *json) {
        json_dumpf(json, stdout, JSON_INDENT(2));
        putchar('\n');
        return EXIT_OK;
}

/* The daemon's refusal as a sentence. */
static void explain(const char *error, const json_t *parameters) {
        const char *name = field_text(parameters, "name");
        const char *reason = field_text(parameters, "reason");

        if (!strcmp(error, "io.carvq.Control.NoSuchTable"))
                complain("carvqd has no table '%s'", name);
        else if (!strcmp(error, "io.carvq.Control.LoadFailed"))
                complain("carvqd cannot load '%s': %s", name, reason);
        else if (!strcmp(error, "io.carvq.Control.InvalidName"))
                complain("'%s' cannot name a table: expected 1 to 127 of A-Z a-z 0-9 . _ -, not "
                         "starting with a dot",
                         name);
        else if (!strcmp(error, "io.carvq.Control.Unavailable"))
                complain("carvqd refuses: %s", reason);
        else {
                _cleanup_(freep) char *details = json_dumps(parameters, JSON_COMPACT);

                complain("carvqd answers %s %s", error, details ? details : "");
        }
}

int control_call(const struct carvqctl *ctl, const char *method, json_t *parameters,
                 json_t **ret_reply) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        _cleanup_(freep) char *error = NULL;
        struct fault fault;
        char name[64];
        int r;

        snprintf(name, sizeof(name), "io.carvq.Control.%s", method);
        r = varlink_client_call(ctl->control_path, name, parameters, &error, &reply, &fault);
        json_decref(parameters);
        if (r < 0) {
                complain("%s", fault.text);
                return EXIT_UNREACHABLE;
        }
        if (error) {
                explain(error, reply);
                return EXIT_REFUSED;
        }
        *ret_reply = steal_pointer(&reply);
        return EXIT_OK;
}

/* Environment, then the system's daemon where there is one, then the user's. */
static const char *default_control_path(char **buffer) {
        const char *variable = getenv("CARVQ_CONTROL"), *user = getenv("XDG_RUNTIME_DIR");

        if (variable && *variable)
                return variable;
        if (!user || !*user || !access(CONTROL_PATH, F_OK))
                return CONTROL_PATH;
        if (asprintf(buffer, "%s/carvq/control.sock", user) < 0)
                return CONTROL_PATH;
        return *buffer;
}

static int usage(void) {
        fputs("Try 'carvqctl --help'.\n", stderr);
        return EXIT_USAGE;
}

static int run_verb(const struct carvqctl *ctl, const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
                const struct verb *v = &verbs[i];

                if (strcmp(v->name, name))
                        continue;
                if (ctl->n_arguments < v->n_arguments_min) {
                        complain("%s: an argument is missing", name);
                        return usage();
                }
                if (v->n_arguments_max >= 0 && ctl->n_arguments > v->n_arguments_max) {
                        complain("%s: unexpected argument '%s'", name,
                                 ctl->arguments[v->n_arguments_max]);
                        return usage();
                }
                return v->run(ctl);
        }
        complain("unknown verb '%s'", name);
        return usage();
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "socket", required_argument, NULL, 's' },
                { "control", required_argument, NULL, 'c' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { 0 },
        };
        _cleanup_(freep) char *buffer = NULL;
        struct carvqctl ctl = { 0 };
        int option, r;

        claim_standard_descriptors();
        while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (option) {
                case 'j':
                        ctl.json = true;
                        break;
                case 's':
                        ctl.socket_path = optarg;
                        break;
                case 'c':
                        ctl.control_path = optarg;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return EXIT_OK;
                case 'v':
                        puts("carvqctl " CARVQ_VERSION);
                        return EXIT_OK;
                default:
                        return usage();
                }
        if (optind == argc) {
                complain("a verb is missing");
                return usage();
        }
        if (!ctl.control_path)
                ctl.control_path = default_control_path(&buffer);
        ctl.n_arguments = argc - optind - 1;
        ctl.arguments = argv + optind + 1;
        r = run_verb(&ctl, argv[optind]);
        if (fflush(stdout) || ferror(stdout)) {
                complain("standard output: %s", strerror(errno));
                return EXIT_REFUSED;
        }
        return r;
}

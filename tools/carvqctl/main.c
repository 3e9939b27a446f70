/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl: the command line, and the one place that talks to the control socket. */
#include "carvqctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "varlink-client.h"

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
static void explain(const char *error, const json_t *parameters, struct fault *ret_fault) {
        const char *name = field_text(parameters, "name");
        const char *reason = field_text(parameters, "reason");

        if (!strcmp(error, "io.carvq.Control.NoSuchTable"))
                fault_write(ret_fault, "carvqd has no table '%s'", name);
        else if (!strcmp(error, "io.carvq.Control.LoadFailed"))
                fault_write(ret_fault, "carvqd cannot load '%s': %s", name, reason);
        else if (!strcmp(error, "io.carvq.Control.InvalidName"))
                fault_write(ret_fault,
                            "'%s' cannot name a table: expected 1 to 127 of A-Z a-z 0-9 . _ -, not "
                            "starting with a dot",
                            name);
        else if (!strcmp(error, "io.carvq.Control.Unavailable"))
                fault_write(ret_fault, "carvqd refuses: %s", reason);
        else if (!strcmp(error, "io.carvq.Control.ConfigurationInvalid")) {
                const json_t *problems = field(parameters, "problems");
                const char *first = json_string_value(json_array_get(problems, 0));

                fault_write(ret_fault,
                            "the configuration has errors, and nothing was changed: %s%s",
                            first ? first : "",
                            json_array_size(problems) > 1 ? "; more are in carvqd's log" : "");
        } else {
                _cleanup_(freep) char *details = json_dumps(parameters, JSON_COMPACT);

                fault_write(ret_fault, "carvqd answers %s %s", error, details ? details : "");
        }
}

/* Bytes of control characters become '?': C0, DEL, and C1 as UTF-8 has them. */
static void make_text_printable(json_t *json) {
        _cleanup_(freep) char *text = strdup(json_string_value(json));
        uint8_t *t = (uint8_t *)text;

        for (; t && *t; t++)
                if (*t < 0x20 || *t == 0x7f)
                        *t = '?';
                else if (t[0] == 0xc2 && t[1] < 0xa0)
                        t[0] = t[1] = '?';
        json_string_set(json, text ? text : "");
}

static void make_printable(json_t *json) {
        const char *key;
        json_t *member;
        size_t i;

        if (json_is_string(json))
                make_text_printable(json);
        json_array_foreach(json, i, member) make_printable(member);
        json_object_foreach(json, key, member) make_printable(member);
}

int control_try(const struct carvqctl *ctl, const char *method, json_t *parameters, int timeout_s,
                json_t **ret_reply, struct fault *ret_fault) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        _cleanup_(freep) char *error = NULL;
        char name[64];
        int r;

        snprintf(name, sizeof(name), "io.carvq.Control.%s", method);
        r = varlink_client_call(ctl->control_path, name, parameters, timeout_s, &error, &reply,
                                ret_fault);
        json_decref(parameters);
        if (r < 0)
                return EXIT_UNREACHABLE;
        if (error || !ctl->json)
                make_printable(reply);
        if (error)
                explain(error, reply, ret_fault);
        *ret_reply = steal_pointer(&reply);
        return error ? EXIT_REFUSED : EXIT_OK;
}

int control_call(const struct carvqctl *ctl, const char *method, json_t *parameters,
                 json_t **ret_reply) {
        struct fault fault = { 0 };
        int r = control_try(ctl, method, parameters, CONTROL_TIMEOUT_S, ret_reply, &fault);

        if (r != EXIT_OK)
                complain("%s", fault.text);
        return r;
}

static int usage(void) {
        fputs("Try 'carvqctl --help'.\n", stderr);
        return EXIT_USAGE;
}

static const struct verb *find_verb(const char *name) {
        for (const struct verb *v = verbs; v->name; v++)
                if (!strcmp(v->name, name))
                        return v;
        return NULL;
}

static const char *name_of_option(int key) {
        const struct option *o = long_options;

        while (o->val != key)
                o++;
        return o->name;
}

/* What the verb does not take would be ignored, which nobody wants who wrote it. */
static int check_usage(const struct carvqctl *ctl, const struct verb *v, const char *given) {
        for (; *given; given++)
                if (!strchr(v->options, *given) && !strchr(COMMON_OPTIONS, *given)) {
                        complain("%s: takes no --%s", v->name, name_of_option(*given));
                        return -EINVAL;
                }
        if (ctl->n_arguments < v->n_arguments_min) {
                complain("%s: an argument is missing", v->name);
                return -EINVAL;
        }
        if (v->n_arguments_max >= 0 && ctl->n_arguments > v->n_arguments_max) {
                complain("%s: unexpected argument '%s'", v->name,
                         ctl->arguments[v->n_arguments_max]);
                return -EINVAL;
        }
        return 0;
}

static bool read_seconds(const char *text, double *ret_seconds) {
        char *end;
        double seconds = strtod(text, &end);

        if (end == text || *end || !(seconds >= 0.1 && seconds <= 3600))
                return false;
        *ret_seconds = seconds;
        return true;
}

/* `--watch 5` is meant as --watch=5. A table may be called 5: then it is --watch=1 5. */
static const char *argument_of_watch(int argc, char **argv) {
        double seconds;

        if (!optarg && optind < argc && read_seconds(argv[optind], &seconds))
                return argv[optind++];
        return optarg ? optarg : "1";
}

/*
 * Returns 0 and adds the keys of what was given, each once, to zeros; or -EINVAL, and has said why.
 */
static int parse_options(int argc, char **argv, struct carvqctl *ctl, char given[static 32]) {
        int key;

        while ((key = getopt_long(argc, argv, "o:", long_options, NULL)) >= 0) {
                const char *seconds = NULL;

                if (key == '?')
                        return -EINVAL;
                if (!strchr(given, key))
                        given[strlen(given)] = (char)key;
                if (key == 'a')
                        ctl->against = optarg;
                else if (key == 'b')
                        ctl->batch = strtoull(optarg, NULL, 10);
                else if (key == 'c')
                        ctl->control_path = optarg;
                else if (key == 'g')
                        ctl->svg_path = optarg;
                else if (key == 'f')
                        ctl->format = optarg;
                else if (key == 'i')
                        seconds = optarg;
                else if (key == 'o')
                        ctl->output_path = optarg;
                else if (key == 's')
                        ctl->socket_path = optarg;
                else if (key == 'w')
                        seconds = argument_of_watch(argc, argv);
                if (key == 'S' && !read_seconds(optarg, &ctl->seconds)) {
                        complain("--seconds: '%s' is no time, expected 0.1 to 3600", optarg);
                        return -EINVAL;
                }
                if (key == 'b' && (ctl->batch < 1 || ctl->batch > 65536)) {
                        complain("--batch: '%s' is no batch, expected 1 to 65536 rows", optarg);
                        return -EINVAL;
                }
                if (seconds && !read_seconds(seconds, &ctl->interval_seconds)) {
                        complain("--%s: '%s' is no interval, expected 0.1 to 3600 seconds",
                                 name_of_option(key), seconds);
                        return -EINVAL;
                }
        }
        ctl->json = strchr(given, 'j');
        ctl->cold = strchr(given, 'C');
        ctl->openmetrics = strchr(given, 'm');
        ctl->prometheus = strchr(given, 'p');
        ctl->watch = strchr(given, 'w');
        ctl->traffic = strchr(given, 'T');
        return 0;
}

static int run(int argc, char **argv) {
        _cleanup_(freep) char *buffer = NULL;
        struct carvqctl ctl = { .interval_seconds = 1 };
        const struct verb *verb = NULL;
        char given[32] = "";

        /* Another program's options are none of ours. */
        if (argc > 1 && !strcmp(argv[1], "trace") && (argc == 2 || strcmp(argv[2], "--help"))) {
                ctl.n_arguments = argc - 2;
                ctl.arguments = argv + 2;
                return verb_trace(&ctl);
        }
        if (parse_options(argc, argv, &ctl, given) < 0)
                return usage();
        if (strchr(given, 'v')) {
                puts("carvqctl " CARVQ_VERSION);
                return EXIT_OK;
        }
        if (optind < argc) {
                verb = find_verb(argv[optind]);
                if (!verb) {
                        complain("unknown verb '%s'", argv[optind]);
                        return usage();
                }
        }
        if (strchr(given, 'h')) {
                fputs(verb ? verb->help : general_help, stdout);
                return EXIT_OK;
        }
        if (!verb) {
                complain("a verb is missing");
                return usage();
        }
        if (!ctl.control_path)
                ctl.control_path = varlink_client_default_path(&buffer);
        ctl.n_arguments = argc - optind - 1;
        ctl.arguments = argv + optind + 1;
        if (check_usage(&ctl, verb, given) < 0)
                return usage();
        return verb->run(&ctl);
}

int main(int argc, char **argv) {
        int r;

        claim_standard_descriptors();
        r = run(argc, argv);
        if (fflush(stdout) || ferror(stdout)) {
                complain("standard output: %s", strerror(errno));
                return EXIT_REFUSED;
        }
        return r;
}

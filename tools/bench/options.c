/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stdio.h>
#include <string.h>

#include "bench.h"

static void print_help(const char *about, const struct bench_option *options) {
        printf("Usage: %s [OPTION]...\n%s\n\n", program_invocation_short_name, about);
        for (const struct bench_option *o = options; o->name; o++) {
                int n = printf("  --%s %s", o->name, o->argument);

                printf("%*s%s", MAX(18 - n, 1), "", o->help);
                if (o->count && *o->count)
                        printf(" (default %" PRIu64 ")", *o->count);
                putchar('\n');
        }
        printf("  --help\n");
}

static const struct bench_option *find_option(const struct bench_option *options,
                                              const char *argument) {
        for (; options->name; options++)
                if (!strncmp(argument, "--", 2) && !strcmp(argument + 2, options->name))
                        return options;
        return NULL;
}

void bench_options(int argc, char **argv, const char *about, const struct bench_option *options) {
        for (int i = 1; i < argc; i++) {
                const struct bench_option *o = find_option(options, argv[i]);

                if (!strcmp(argv[i], "--help")) {
                        print_help(about, options);
                        exit(0);
                }
                if (!o || ++i == argc) {
                        fprintf(stderr, "%s: %s %s; see --help\n", program_invocation_short_name,
                                argv[o ? i - 1 : i], o ? "wants an argument" : "is not understood");
                        exit(2);
                }
                if (o->text)
                        *o->text = argv[i];
                else
                        *o->count = parse_count(argv[i - 1], argv[i], o->min, o->max);
        }
}

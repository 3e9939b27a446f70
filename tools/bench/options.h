/* SPDX-License-Identifier: Apache-2.0 */
/* The command lines of benches: long options alone, and --help made of the same table. */
#pragma once

#include <stdint.h>

struct bench_option {
        const char *name;     /* NULL: the end */
        const char *argument; /* in the help */
        const char *help;     /* a default that is not 0 is put behind it */
        uint64_t *count;      /* one of these two */
        const char **text;
        uint64_t min, max;
};

/* Sets what is given; exits for --help, and with status 2 for what it does not understand.
 * `about`: sentences behind the usage line. */
void bench_options(int argc, char **argv, const char *about, const struct bench_option *options);

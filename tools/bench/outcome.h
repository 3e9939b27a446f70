/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bench found, for programs: a JSON object with machine, kernels and page cache, the bench's
 * own keys, and "targets", which tools/bench/report collects from all benches. The caller's thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* `cache`: "warm" or "cold". The caller owns the object. */
json_t *outcome_new(const char *bench, const char *kernels, const char *cache);

struct outcome_target {
        const char *measure; /* what, in words */
        const char *target;  /* its limit, in words */
        double value;
        const char *unit; /* "x" for a ratio */
        double limit;
        bool at_least; /* else at most */
        struct {
                const char *name;
                double value;
                const char *unit;
        } sides[2]; /* of a ratio: carvq's first; a NULL name: none */
};

/* Adds to "targets", and prints a line. */
void outcome_target(json_t *outcome, const struct outcome_target *target);

/* Dies if it cannot. A NULL path: writes nothing. */
void outcome_write(const json_t *outcome, const char *path);

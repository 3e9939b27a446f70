/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table's pages in memory, as its options ask: huge pages advised, the mapping locked, its pages
 * read in before anybody needs them. Populating goes in steps on the chore thread, so that it holds
 * up other chores by a step at most and ends soon after the table is retired.
 */
#pragma once

#include "chore.h"
#include "proto/base.h"

struct daemon;
struct store_table;

struct resident {
        bool is_locked;
        bool is_populating;
        uint64_t populated_bytes; /* the loop's; grows by steps */
        struct fault problem;     /* the last; empty: all that was asked for was done, or will be */

        struct chore step;
        struct daemon *daemon;
        uint64_t step_bytes;
        int step_error;
};

/* Before the table is published: chore thread. What fails is a warning in the log and `problem`. */
void resident_prepare(struct store_table *table);

/* After it: the loop thread. Holds a reference while there are steps to go. */
void resident_start(struct daemon *daemon, struct store_table *table);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests, benches and soaks: a client that means harm. It keeps a stream of good requests going,
 * and beside it does one kind of mischief, from a seed, until its time is over. When the daemon
 * throws it out it connects again. Blocks, uses no thread of its own and no libcarvq, and writes
 * nowhere but into its own shared memory and sockets: fit for a thread or for a child that is
 * killed.
 */
#pragma once

#include "proto/base.h"

enum scribbler_kind {
        SCRIBBLER_ENTRIES,  /* submissions and ids change while the daemon takes them */
        SCRIBBLER_WORDS,    /* every other word of the header's page, the daemon's own included */
        SCRIBBLER_INDICES,  /* sq_tail and cq_head jump back, ahead, and wrap */
        SCRIBBLER_EDGES,    /* counts, offsets and strides at every edge of overflow */
        SCRIBBLER_OVERLAPS, /* valid, and all rows of all requests in one place */
        SCRIBBLER_HOLES,    /* pages taken away from under the daemon; tries to truncate */
        SCRIBBLER_FAULTS,   /* the same of the arena, and each row on a page of its own */
        SCRIBBLER_FAILURES, /* as many ids as can be, the last one bad */
        SCRIBBLER_WAKES,    /* asks to be woken all the time, reads no wake-up, rings without end */
        SCRIBBLER_MUTE,     /* never reaps */
        SCRIBBLER_TABLES,   /* opens and closes tables */
        SCRIBBLER_DESCRIPTORS, /* sends as many descriptors as a message can carry, in a queue of
                                  such messages */
        SCRIBBLER_HANDSHAKES,  /* leaves after CONNECT, HELLO, RING, or in the middle of them */
        SCRIBBLER_N
};

struct scribbler_options {
        const char *socket_path, *table; /* a table of at least 1,000 rows */
        enum scribbler_kind kind;
        uint64_t seed;
        uint64_t until_ns;    /* CLOCK_MONOTONIC */
        uint64_t min_acts;    /* it goes on until then in any case: a busy machine has no time */
        uint64_t arena_bytes; /* 0: 1 MiB */
};

struct scribbler_report {
        uint64_t n_connections; /* that became READY, or as far as the kind wants them to */
        uint64_t n_refused;     /* that the daemon ended, or did not accept */
        uint64_t n_submissions, n_completions;
        uint64_t n_acts; /* of mischief */
};

/* "entries", "words" ... */
const char *scribbler_kind_name(enum scribbler_kind kind);

/*
 * Runs until its time is over: 0. -errno: no connection could be made at all, the daemon does not
 * know the table, or it let the memory be truncated (-ENOTRECOVERABLE). The report is written in
 * any case, and while it runs.
 */
int scribbler_run(const struct scribbler_options *options, struct scribbler_report *ret_report);

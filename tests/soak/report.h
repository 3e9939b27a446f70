/* SPDX-License-Identifier: Apache-2.0 */
/* What the soak found: a line for each minute, a verdict as TAP, the same as JSON. */
#pragma once

#include <jansson.h>

#include "daemon-process.h"

struct report {
        const struct soak *soak;
        uint64_t start_ns, minute_start_ns, log_lines;
        uint64_t counts[SOAK_COUNTS];
        uint64_t latencies[SOAK_LATENCIES][SOAK_BUCKETS];
        json_t *minutes;
        /* Calms. */
        bool has_first, has_life;         /* the latter is reset when a daemon starts */
        struct daemon_sample first, life; /* ever, and of this daemon */
        struct daemon_sample last, worst; /* the second: what was more than there */
        bool judges_memory;
        uint64_t tolerance_bytes;
};

void report_init(struct report *report, const struct soak *soak, uint64_t n_workers);
void report_deinit(struct report *report);

/* The machine, the seed, and the head of the table. */
void report_head(const struct report *report);

/* All clients are gone. What a daemon takes is held against its first calm. */
void report_calm(struct report *report, const struct daemon_sample *sample);

/* Since the last one. */
void report_minute(struct report *report, const struct daemon_process *daemon);

/* True: all is well. `json_path` may be NULL. */
bool report_verdict(struct report *report, const struct daemon_process *daemon,
                    const char *json_path);

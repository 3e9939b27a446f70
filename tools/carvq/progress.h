/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a long command tells while it works, on stderr: a bar on a terminal, plain lines elsewhere,
 * nothing with --quiet. Used by the main thread only.
 */
#pragma once

#include "proto/base.h"

struct progress {
        bool quiet;
        bool terminal;
        const char *phase;
        const char *unit; /* "rows" */
        uint64_t n_total;
        double started_s, shown_s;
};

void progress_init(struct progress *progress, bool quiet);
void progress_begin(struct progress *progress, const char *phase, const char *unit,
                    uint64_t n_total);
void progress_update(struct progress *progress, uint64_t n_done);
void progress_end(struct progress *progress);

/* Clears a half-drawn bar, so that an error message starts on a line of its own. */
void progress_abort(struct progress *progress);

double clock_seconds(void);

/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon says of itself at one moment, and how fast its counters have moved since the
 * last. */
#pragma once

#include "carvqctl.h"

struct sample {
        json_t *status, *stats; /* replies of GetStatus and GetStats; owned; NULL: none yet */
        double time_s;          /* of the monotonic clock */
        double seconds;         /* that the rates are of; 0: there are none yet */
};

/*
 * Replaces `sample` by the state now. Each table and client in `stats` gets a member "rates": of
 * "stats", "cache" and "claimed" the counters, by second since the sample before; null when that
 * was none, or of another start of the daemon. Each answer may take `timeout_s`. Returns an exit
 * status; on failure the old sample stays.
 */
int sample_take(const struct carvqctl *ctl, int timeout_s, struct sample *sample,
                struct fault *ret_fault);
void sample_deinit(struct sample *sample);

/* The parts of a rate that are of interest by themselves; NAN where there was nothing. */
double sample_hit_fraction(const json_t *item);   /* of the rows asked for: found decoded */
double sample_saved_fraction(const json_t *item); /* of the bytes that an f16 table would read */

/* CLOCK_MONOTONIC. */
double monotonic_seconds(void);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a wait should spin or sleep at once, and for how long: whichever has been shorter of
 * late. Where CPUs are wanted by more threads than there are, spinning keeps the daemon from the
 * very work that is waited for, and its waits say so, in containers and on machines of which
 * nothing else can be learned; so do waits for large batches. Pure: no clock, no system call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* All zeros: nothing known, so spin. */
struct wait_history {
        uint64_t spun_ns;  /* what waits that began by spinning took of late; 0: none yet */
        uint64_t slept_ns; /* those that slept at once */
        uint32_t n_waits;  /* since the other way was last tried */
        uint32_t n_same;   /* how often in a row that changed nothing */
};

/* How long the next wait may spin; 0: not at all. */
uint64_t wait_budget_ns(const struct wait_history *history);

/* A wait has ended: had it begun by spinning, and what it took, its own wake-up included. */
void wait_learn(struct wait_history *history, bool spun, uint64_t waited_ns);

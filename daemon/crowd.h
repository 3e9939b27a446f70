/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether more threads want the CPUs than there are. A worker that spins then takes them from its
 * own clients, and from everybody else; one that sleeps is run at once when there is work, as
 * threads that have slept are. The sign is that the kernel takes the CPU away from a thread that
 * has not finished with it. It is there for any thread, in containers too, and for nothing: no file
 * is read and nothing is asked while there is work. The worker's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct crowd {
        uint64_t n_preempted; /* at the last look */
        uint64_t ran_ns;
        uint32_t n_looks_left; /* for which it still counts as crowded */
};

static inline bool crowd_is(const struct crowd *crowd) {
        return crowd->n_looks_left > 0;
}

/* About twice a second: what the kernel has counted for this thread. */
void crowd_look(struct crowd *crowd);

/* Pure: the judgement. Preemptions and time on a CPU since the thread began. */
void crowd_judge(struct crowd *crowd, uint64_t n_preempted, uint64_t ran_ns);

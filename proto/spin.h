/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides of a ring need to wait for each other: the clock that the rings' times are in,
 * the pause between two looks at a word, and whether looking makes sense at all.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC: comparable between the processes of a host. */
static inline uint64_t clock_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Saturates: a time-out of UINT64_MAX never comes. */
static inline uint64_t deadline_after(uint64_t timeout_ns) {
        uint64_t deadline_ns;

        return __builtin_add_overflow(clock_ns(), timeout_ns, &deadline_ns) ? UINT64_MAX
                                                                            : deadline_ns;
}

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb"); /* `yield` does nothing on most cores */
#endif
}

/* CPUs that this thread may run on; plenty where the kernel does not tell. */
static inline unsigned cpu_count(void) {
        cpu_set_t cpus;

        return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus)
                                                              : CPU_SETSIZE;
}

/* With one CPU, spinning keeps the other side from what is being waited for. */
static inline bool single_cpu(void) {
        return cpu_count() == 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Time as the library counts it: CLOCK_MONOTONIC nanoseconds, as in the rings. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Saturates: a time-out of UINT64_MAX never comes. */
static inline uint64_t deadline_after(uint64_t timeout_ns) {
        uint64_t deadline_ns;

        return __builtin_add_overflow(now_ns(), timeout_ns, &deadline_ns) ? UINT64_MAX
                                                                          : deadline_ns;
}

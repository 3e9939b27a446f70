/* SPDX-License-Identifier: Apache-2.0 */
#include "crowd.h"

#include <sys/resource.h>

#include "proto/base.h"

/*
 * A thread that shares its CPU loses it every few milliseconds that it runs, one that shares it
 * with those it wakes thousands of times a second; on a CPU of its own the kernel's threads take it
 * away some ten times a second.
 */
#define NS_PER_PREEMPTION UINT64_C(10000000)
#define PREEMPTIONS_MIN   5u

/* Not to change one's mind each time: a thread that sleeps is preempted less. */
#define LOOKS 6u

void crowd_judge(struct crowd *c, uint64_t n_preempted, uint64_t ran_ns) {
        const uint64_t n = n_preempted - c->n_preempted, ns = ran_ns - c->ran_ns;

        if (n >= MAX(ns / NS_PER_PREEMPTION, PREEMPTIONS_MIN))
                c->n_looks_left = LOOKS;
        else if (c->n_looks_left)
                c->n_looks_left--;
        c->n_preempted = n_preempted;
        c->ran_ns = ran_ns;
}

static uint64_t timeval_ns(const struct timeval *t) {
        return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_usec * 1000u;
}

void crowd_look(struct crowd *c) {
        struct rusage usage;

        if (getrusage(RUSAGE_THREAD, &usage) < 0)
                return;
        crowd_judge(c, (uint64_t)usage.ru_nivcsw,
                    timeval_ns(&usage.ru_utime) + timeval_ns(&usage.ru_stime));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says about the memory behind a mapping. Walks page tables, so not for the loop
 * thread.
 */
#pragma once

#include <stdio.h>

#include "proto/base.h"

struct smaps_range {
        uintptr_t start;
        uint64_t length_bytes;
        /* Filled in. Pages shared by k processes count 1/k in PSS. */
        bool found;
        uint64_t pss_bytes;
        uint64_t rss_bytes;
};

/* Adds up /proc/self/smaps for each range; they may overlap. 0, or the negative errno of opening or
 * reading it. */
int smaps_measure(struct smaps_range *const *ranges, size_t n_ranges);

/* The same from an open file. */
int smaps_read(FILE *smaps, struct smaps_range *const *ranges, size_t n_ranges);

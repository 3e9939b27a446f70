/* SPDX-License-Identifier: Apache-2.0 */
/* Whether rows are right: all of them of one variant of the table, and of one that it may be. */
#pragma once

#include "soak.h"

/* Who answers, as the client knows it: a daemon, and a generation of a table in it. */
struct verify_key {
        uint64_t epoch, generation;
};

struct verify_claim {
        uint32_t table;
        const uint64_t *ids;
        size_t n_ids;
        struct carvq_lookup_options options; /* no scale; size set */
        const void *rows;
        size_t row_stride_bytes;
        /* Asked before and after: the same, unless the daemon died meanwhile. */
        struct verify_key before, after;
        /* The table was opened between these times, by whoever answered. */
        uint64_t opened_from_ns, opened_until_ns;
        uint32_t pinned; /* 1 + the variant that it must be; 0: not known */
};

/* 0: right, and the variant is written; else how many rows are wrong. */
size_t verify_rows(const struct soak *soak, const struct verify_claim *claim,
                   uint32_t *ret_variant);

/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of row ids, the same for everybody who is compared. Pure but for memory; any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum ids_kind {
        IDS_UNIFORM,
        IDS_ZIPF, /* rank r has a share of 1 / r; the ranks lie scattered over the table */
};

/* `n` ids below `n_rows`; free() them. */
uint64_t *ids_draw(enum ids_kind kind, uint64_t n_rows, size_t n, uint64_t seed);

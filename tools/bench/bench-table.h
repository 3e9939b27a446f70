/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large tables without large sources. A few hundred random rows go through `carvq pack`, so
 * parameters, codebooks and layout are the packer's own; then the file is written again with as
 * many rows as wanted and random codes. What a code is does not change what it costs to decode.
 * Dies where it cannot go on.
 */
#pragma once

#include "proto/base.h"

struct bench_table {
        uint64_t n_rows;
        uint32_t n_dims;
        uint64_t seed;
        const char *const *arguments; /* of `carvq pack`, and a NULL; no --counts */
};

extern const char *const bench_table_rvq[];     /* h = 8, k = 4, L = 3 */
extern const char *const bench_table_trellis[]; /* h = 4, k = 6 of 12, a row scale: as by default */
extern const char *const bench_table_adaptor[]; /* the same with a network of 16 -> 256 -> n */

/* Makes the file `name` in the work folder. */
void bench_table_make(const struct bench_table *table, const char *name, char *ret_path,
                      size_t path_bytes);

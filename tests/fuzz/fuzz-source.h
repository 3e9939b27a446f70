/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets of the model formats share: a checker as source.c calls it, and the whole way of
 * a file from source_open() to its rows. */
#pragma once

#include "fuzz.h"
#include "tools/carvq/source-impl.h"

/*
 * The first `n_bytes` of a file of `file_bytes`, which the checker sees in longer and longer
 * pieces; where it asks for more than there is the file ends early. What it lists is as it
 * promised.
 */
void fuzz_check(source_check_fn *check, const uint8_t *bytes, size_t n_bytes, uint64_t file_bytes);

/* A file of these bytes: open, list, select, read the first and the last rows of each tensor. */
void fuzz_open(const uint8_t *bytes, size_t n_bytes);

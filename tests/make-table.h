/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: whole .carvq files in memory, of any shape, filled from a seed; no packer needed. */
#pragma once

#include "proto/table.h"

/*
 * The header's parameters (codec, n_rows, n_dims, and the carvq ones) say what is wanted.
 * With n_tiers 0 every row has n_stages stages; with more, the first rows are of the highest tier.
 * Without tier_bits all codes have codebook_bits bits; without window_bits windows have no more.
 * Codebooks, scales and latents are halves of moderate size, so that every value is finite.
 * malloc'd; aborts on bad parameters.
 */
uint8_t *make_table(const struct table_header *parameters, uint64_t seed, uint64_t *ret_bytes);

/* The same, written to a file. */
void make_table_file(const char *path, const struct table_header *parameters, uint64_t seed);

/* SPDX-License-Identifier: Apache-2.0 */
/* A decoder written from FORMAT.md alone, one value at a time, that shares no line with lib/codec.
 */
#pragma once

#include "lib/codec/codec.h"

/* Counts the map's bits one by one: *ret_n_bytes from `return` on are the row's record. */
const uint8_t *reference_record(const struct codec_table *table, uint64_t row, uint32_t *ret_tier,
                                uint64_t *ret_n_bytes);

void reference_row(const struct codec_table *table, uint64_t row, float *ret_values);

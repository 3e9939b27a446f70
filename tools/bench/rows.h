/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a table in memory, decoded to a buffer, without the public interface in between. */
#pragma once

#include "lib/codec/codec.h"

/* `n_ids` whole rows of ids below n_rows, one after another, as `type` (enum codec_type). */
void rows_decode(struct codec_context *context, const struct codec_table *table,
                 const uint64_t *ids, size_t n_ids, uint8_t type, void *ret_rows);

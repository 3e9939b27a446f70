/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a packed table in order, decoded as every reader decodes them. For eval, unpack, and
 * packed tables as sources. Resident memory does not grow with the file.
 */
#pragma once

#include "lib/codec/codec.h"

/*
 * Rows [row_first, row_first + n_rows) as f32, row-major. Thread-safe. -ENOMEM, or -EDOM where a
 * value is not finite (a damaged or hostile file); the fault names row and column.
 */
int rows_decode(const struct codec_file *file, uint64_t row_first, size_t n_rows, float *ret_values,
                struct fault *ret_fault);

/* The pages under these rows, at least one, are not needed again soon. */
void rows_release(const struct codec_file *file, uint64_t row_first, size_t n_rows);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of random codes, in memory: what decoding costs does not depend on what the rows mean, so
 * nothing is trained and nothing is read. Dies where memory ends, or a shape is none.
 */
#pragma once

#include "lib/codec/codec.h"

/*
 * `header` has the codec and its parameters; rows and dimensions are filled in, and tiers to which
 * it gives stages or bits. A file as codec_file_map() makes it, prepared, in huge
 * pages where there are any; codec_file_unmap() ends it.
 */
void random_table_new(struct table_header header, uint64_t n_rows, uint32_t n_dims, uint64_t seed,
                      struct codec_file *ret_file);

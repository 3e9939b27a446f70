/* SPDX-License-Identifier: Apache-2.0 */
/* Tables in memory of this process: a file of zeros, whose owner fills its chunks. */
#pragma once

#include "lib/codec/codec.h"

/*
 * Plans and seals `header`, and maps anonymous memory, huge pages where there are any.
 * codec_file_unmap() ends it. A shape that is none: as table_plan(); -ENOMEM.
 */
int memory_table_new(struct table_header *header, struct codec_file *ret_file,
                     struct fault *ret_fault);

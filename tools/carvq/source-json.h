/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from a hostile file, parsed by jansson within bounds that are checked first. */
#pragma once

#include <jansson.h>

#include "proto/base.h"

/*
 * An object, nested at most `depth_max` deep and of at most two million values, so that a
 * small file cannot ask for much memory. -EBADMSG: not such an object, or a
 * name twice.
 */
int json_load_bounded(const char *text, size_t n_bytes, uint32_t depth_max, json_t **ret_root,
                      struct fault *ret_fault);

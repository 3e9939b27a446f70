/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel tells about tables' files to their owners alone, and the daemon is none. */
#pragma once

#include <jansson.h>

/*
 * In a reply of GetStats: where the daemon may not know what of a table is in the page cache, this
 * process asks, if it may. Blocks for a walk over these pages.
 */
void residency_complete(json_t *stats);

/* SPDX-License-Identifier: Apache-2.0 */
/* Reads every value of some rows, as quickly as this CPU can: what a client does with rows that
 * costs it the least. One thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* `n` values of a codec_type, at any alignment; in an order of its own. */
double sum_values(const void *values, size_t n, uint8_t type);

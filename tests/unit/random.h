/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: xorshift, the same numbers on every machine. `*state` must not be 0. */
#pragma once

#include <stdint.h>

static inline uint32_t test_random(uint32_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        return *state;
}

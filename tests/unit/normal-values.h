/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: N(0,1) deviates, the same on every machine. */
#pragma once

#include "tools/carvq/rng.h"

/* `n` of them, the caller's to free. */
static inline float *normal_values(uint64_t seed, uint64_t stream, size_t n) {
        struct rng rng = rng_stream(seed, stream);
        float *values = malloc(n * sizeof(float));

        assert_non_null(values);
        for (size_t i = 0; i < n; i++)
                values[i] = rng_normal(&rng);
        return values;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of sixteen lanes for the searches, lowered to whatever the target has, and functions
 * compiled once for each of them: lanes are independent and nothing is fused, so all give the same
 * bits. Comparisons are made by arithmetic on sign bits, because compilers take vectors of them
 * apart.
 */
#pragma once

#include <stdint.h>

#define LANES 16u

typedef float lanes_f32 __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t lanes_i32 __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#if defined(__x86_64__)
#define _simd_clones_ __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define _simd_clones_
#endif

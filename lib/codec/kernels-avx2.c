/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sets of kernels for AVX2 with FMA and F16C. Byte-equal to decode-scalar.c.
 * Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "simd-avx2.h"

#include "simd-decode.h"

const struct codec_kernels codec_kernels_avx2 = KERNELS("avx2", codec_avx2_adaptor);

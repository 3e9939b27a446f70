/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sets of kernels for AVX-512 F, BW, DQ, VL with AVX2, FMA and F16C. Byte-equal to
 * decode-scalar.c. Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "simd-avx512.h"

#include "simd-decode.h"

const struct codec_kernels codec_kernels_avx512 = KERNELS("avx512", codec_avx2_adaptor);
const struct codec_kernels codec_kernels_avx512_vnni = KERNELS("avx512+vnni", codec_vnni_adaptor);
const struct codec_kernels codec_kernels_avx512_amx = KERNELS("avx512+amx", codec_amx_adaptor);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sets of kernels for NEON, as every aarch64 has it. Byte-equal to decode-scalar.c.
 * Trusts a checked table's layout and nothing in its chunks. Any thread.
 */
#include "simd-neon.h"

#include "simd-decode.h"

const struct codec_kernels codec_kernels_neon = KERNELS("neon", codec_neon_adaptor);
const struct codec_kernels codec_kernels_neon_dotprod =
        KERNELS("neon+dotprod", codec_dotprod_adaptor);

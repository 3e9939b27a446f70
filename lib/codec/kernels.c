/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chooses one instruction set's functions. The choice is made once by whoever makes a context, and
 * its name is shown wherever a status is.
 */
#include "kernels.h"

const struct codec_kernels *codec_kernels_choose(uint32_t features) {
#if defined(__x86_64__)
        if (features & CODEC_CPU_AVX512)
                return &codec_kernels_avx512;
        if (features & CODEC_CPU_AVX2)
                return &codec_kernels_avx2;
#elif defined(__aarch64__)
        if (features & CODEC_CPU_NEON)
                return &codec_kernels_neon;
#endif
        (void)features;
        return &codec_kernels_scalar;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chooses one instruction set's functions. The choice is made once by whoever makes a context, and
 * its name is shown wherever a status is.
 */
#include "kernels.h"

#if defined(__x86_64__)
#include <sys/syscall.h>

/*
 * Linux gives tiles to a process that asks: from then on alternate signal stacks of all its threads
 * must have room for them, which sigaltstack() checks. So nobody is asked who does not choose these
 * kernels. Refused where a thread's stack is too small already, by older systems, and by filters of
 * system calls.
 */
static bool tiles_permitted(void) {
        const int arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;

        return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

static const struct codec_kernels *choose_avx512(uint32_t features) {
        if (!(features & CODEC_CPU_VNNI))
                return &codec_kernels_avx512;
        if ((features & CODEC_CPU_AMX) && tiles_permitted())
                return &codec_kernels_avx512_amx;
        return &codec_kernels_avx512_vnni;
}
#endif

const struct codec_kernels *codec_kernels_choose(uint32_t features) {
#if defined(__x86_64__)
        if (features & CODEC_CPU_AVX512)
                return choose_avx512(features);
        if (features & CODEC_CPU_AVX2)
                return &codec_kernels_avx2;
#elif defined(__aarch64__)
        if (features & CODEC_CPU_DOTPROD)
                return &codec_kernels_neon_dotprod;
        if (features & CODEC_CPU_NEON)
                return &codec_kernels_neon;
#endif
        (void)features;
        return &codec_kernels_scalar;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this CPU can run. A CPUID bit says that the core has the instructions; only XGETBV says that
 * the system saves the registers they use, and both are asked. No state; any thread.
 */
#include "codec.h"

#include <ctype.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0: which register files the system saves (Intel SDM volume 1, 13.3). */
#define XCR0_AVX    0x06u    /* xmm, upper halves of ymm */
#define XCR0_AVX512 0xe0u    /* opmask, upper halves of zmm 0-15, zmm 16-31 */
#define XCR0_AMX    0x60000u /* tile configuration, tiles */

/* CPUID leaf 7; names differ between compilers, or lack. */
#define ECX_AVX512_VNNI (1u << 11)
#define EDX_AMX         (3u << 24) /* tiles, int8 */

static uint64_t read_xcr0(void) {
        uint32_t low, high;

        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return (uint64_t)high << 32 | low;
}

/* What is only used with AVX-512. */
static uint32_t detect_matrices(uint32_t leaf7_ecx, uint32_t leaf7_edx, uint64_t xcr0) {
        if (!(leaf7_ecx & ECX_AVX512_VNNI))
                return 0;
        if ((leaf7_edx & EDX_AMX) != EDX_AMX || (xcr0 & XCR0_AMX) != XCR0_AMX)
                return CODEC_CPU_VNNI;
        return CODEC_CPU_VNNI | CODEC_CPU_AMX;
}

static uint32_t detect(void) {
        const uint32_t wanted_1c = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
        const uint32_t wanted_avx512 =
                bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_BMI2;
        uint32_t a, b, c, d;
        uint64_t xcr0;

        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & wanted_1c) != wanted_1c)
                return 0;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
                return 0;

        xcr0 = read_xcr0(); /* OSXSAVE is set: the instruction exists */
        if ((xcr0 & XCR0_AVX) != XCR0_AVX)
                return 0;
        if ((b & wanted_avx512) != wanted_avx512 || (xcr0 & XCR0_AVX512) != XCR0_AVX512)
                return CODEC_CPU_AVX2;
        return CODEC_CPU_AVX2 | CODEC_CPU_AVX512 | detect_matrices(c, d, xcr0);
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

#define HWCAP_DOT_PRODUCTS (1ul << 20) /* the kernel's HWCAP_ASIMDDP */

static uint32_t detect(void) {
        bool dotprod = getauxval(AT_HWCAP) & HWCAP_DOT_PRODUCTS;

        /* NEON is part of the base architecture. */
        return CODEC_CPU_NEON | (dotprod ? CODEC_CPU_DOTPROD : 0);
}
#else
static uint32_t detect(void) {
        return 0;
}
#endif

static int parse_number(const char *text, uint32_t *ret_mask) {
        unsigned long value;
        char *end;

        errno = 0;
        value = strtoul(text, &end, 0);
        if (errno || *end || value > UINT32_MAX)
                return -EINVAL;
        *ret_mask = (uint32_t)value;
        return 0;
}

static int parse_name(const char *name, size_t length, uint32_t *mask) {
        static const struct {
                const char *name;
                uint32_t bits;
        } names[] = {
                { "scalar", 0 },
                { "avx2", CODEC_CPU_AVX2 },
                { "avx512", CODEC_CPU_AVX512 },
                { "neon", CODEC_CPU_NEON },
                { "vnni", CODEC_CPU_VNNI },
                { "amx", CODEC_CPU_AMX },
                { "dotprod", CODEC_CPU_DOTPROD },
                { "all", UINT32_MAX },
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strlen(names[i].name) == length && !memcmp(names[i].name, name, length)) {
                        *mask |= names[i].bits;
                        return 0;
                }
        return -EINVAL;
}

int codec_cpu_mask_parse(const char *text, uint32_t *ret_mask) {
        uint32_t mask = 0;

        /* strtoul() alone would take blanks, signs and the empty word. */
        if (isdigit((unsigned char)*text))
                return parse_number(text, ret_mask);

        for (;;) {
                size_t length = strcspn(text, ",");
                int r = parse_name(text, length, &mask);

                if (r < 0)
                        return r;
                if (!text[length])
                        break;
                text += length + 1;
        }
        *ret_mask = mask;
        return 0;
}

uint32_t codec_cpu_features(void) {
        const char *text = getenv("CARVQ_CPU_MASK");
        uint32_t mask = UINT32_MAX;

        /* Whoever sets a mask wants less than all: a misspelt one falls back to what always works,
         * and the kernels' name in every status shows it. */
        if (text && codec_cpu_mask_parse(text, &mask) < 0)
                mask = 0;
        return detect() & mask;
}

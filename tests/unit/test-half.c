/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions of 16-bit floats against values made by ldexp() and against the hardware's, where it
 * has them: all halves one way, and the other way every float near a point where rounding turns.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/codec/half.h"
#include "proto/base.h"

/* IEEE 754 binary16, written from its definition. */
static double half_value(uint16_t half) {
        int exponent = half >> 10 & 31, mantissa = half & 0x3ff;
        double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

        return half & 0x8000 ? -magnitude : magnitude;
}

static void test_every_half(void **state) {
        (void)state;
        for (uint32_t i = 0; i <= UINT16_MAX; i++) {
                uint16_t half = (uint16_t)i;
                float value = half_to_float(half);

                assert_int_equal(float_bits(value) >> 31, half >> 15);
                if ((half & 0x7fff) > 0x7c00) { /* a NaN, and quiet from then on */
                        assert_true(isnan(value));
                        assert_int_equal(float_to_half(value), half | 0x0200);
                } else {
                        if ((half & 0x7fff) == 0x7c00)
                                assert_true(isinf(value));
                        else
                                assert_true((double)value == half_value(half));
                        assert_int_equal(float_to_half(value), half);
                }
        }
}

/* Around each half, and around the points half way to the next one, rounding must turn. */
static void test_half_ties(void **state) {
        (void)state;
        for (uint16_t half = 0; half < 0x7c00; half++) {
                double here = half_value(half);
                double next = half == 0x7bff ? 65536 : half_value(half + 1);
                float middle = (float)((here + next) / 2); /* exact: 12 bits */
                uint16_t even = half & 1 ? half + 1 : half;

                assert_int_equal(float_to_half(middle), even);
                assert_int_equal(float_to_half(nextafterf(middle, 0)), half);
                assert_int_equal(float_to_half(nextafterf(middle, INFINITY)), half + 1);
                assert_int_equal(float_to_half(-middle), 0x8000 | even);
        }
        assert_int_equal(float_to_half(65519.996f), 0x7bff);
        assert_int_equal(float_to_half(65520), 0x7c00);
        assert_int_equal(float_to_half(INFINITY), 0x7c00);
        assert_int_equal(float_to_half(-INFINITY), 0xfc00);
        assert_int_equal(float_to_half(0x1p-25f), 0);
        assert_int_equal(float_to_half(0x1.000002p-25f), 1);
        assert_int_equal(float_to_half(-0.0f), 0x8000);
        assert_int_equal(float_to_half(float_from_bits(1)), 0);
        assert_int_equal(float_to_half(float_from_bits(0x7f800001)), 0x7e00);
        assert_int_equal(float_to_half(float_from_bits(0xffc02000)), 0xfe01);
}

static void test_bf16(void **state) {
        (void)state;
        for (uint32_t i = 0; i <= UINT16_MAX; i++) {
                uint16_t bf16 = (uint16_t)i;
                bool nan = (bf16 & 0x7fff) > 0x7f80;

                assert_int_equal(float_bits(bf16_to_float(bf16)), i << 16);
                assert_int_equal(float_to_bf16(bf16_to_float(bf16)), nan ? bf16 | 0x0040 : bf16);
                if ((bf16 & 0x7fff) >= 0x7f80)
                        continue;
                /* Half way to the next: to even; a bit less or more: down or up. */
                assert_int_equal(float_to_bf16(float_from_bits(i << 16 | 0x7fff)), bf16);
                assert_int_equal(float_to_bf16(float_from_bits(i << 16 | 0x8000)),
                                 bf16 + (bf16 & 1));
                assert_int_equal(float_to_bf16(float_from_bits(i << 16 | 0x8001)), bf16 + 1);
        }
        assert_int_equal(float_to_bf16(float_from_bits(0x7f7fffff)), 0x7f80);
        assert_int_equal(float_to_bf16(float_from_bits(0x7f800001)), 0x7fc0);
        assert_int_equal(float_to_bf16(float_from_bits(0xff80ffff)), 0xffc0);
}

/* Not skip(): cmocka 1.1.5 prints that as "not ok", which meson counts as a failure. */
static void no_hardware(void) {
        print_message("# no conversions in hardware to compare with\n");
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("f16c"))) static uint32_t hardware_to_float(uint16_t half) {
        return float_bits(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))));
}

__attribute__((target("f16c"))) static uint16_t hardware_to_half(float value) {
        return (uint16_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), 0));
}

static void test_hardware(void **state) {
        uint32_t bits = 0;

        (void)state;
        if (!__builtin_cpu_supports("avx2")) {
                no_hardware();
                return;
        }
        for (uint32_t i = 0; i <= UINT16_MAX; i++)
                assert_int_equal(float_bits(half_to_float((uint16_t)i)),
                                 hardware_to_float((uint16_t)i));
        /* A step prime to 2^32 visits exponents and mantissas alike. */
        for (uint32_t i = 0; i < 10000000; i++, bits += 2654435769u) {
                float value = float_from_bits(bits);

                if (float_to_half(value) != hardware_to_half(value))
                        fail_msg("float 0x%08x gives half 0x%04x, the hardware's is 0x%04x", bits,
                                 float_to_half(value), hardware_to_half(value));
        }
        for (uint32_t high = 0; high <= UINT16_MAX; high++)
                for (uint32_t low = 0; low < 16; low++) {
                        const uint32_t edges[] = { 0,      1,      0x0fff, 0x1000, 0x1001, 0x1fff,
                                                   0x2000, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000,
                                                   0x8001, 0xefff, 0xf000, 0xffff };
                        float value = float_from_bits(high << 16 | edges[low]);

                        if (float_to_half(value) != hardware_to_half(value))
                                fail_msg("float 0x%08x", high << 16 | edges[low]);
                }
}
#else
static void test_hardware(void **state) {
        (void)state;
        no_hardware();
}
#endif

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_half),
                cmocka_unit_test(test_half_ties),
                cmocka_unit_test(test_bf16),
                cmocka_unit_test(test_hardware),
        };

        return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}

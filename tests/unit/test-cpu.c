/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of CPU features, as a person writes them, and what they choose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/codec/codec.h"

static void test_good_masks(void **state) {
        const struct {
                const char *text;
                uint32_t mask;
        } masks[] = {
                { "scalar", 0 },
                { "avx2", CODEC_CPU_AVX2 },
                { "avx512", CODEC_CPU_AVX512 },
                { "neon", CODEC_CPU_NEON },
                { "avx2,avx512", CODEC_CPU_AVX2 | CODEC_CPU_AVX512 },
                { "avx512,avx2,scalar", CODEC_CPU_AVX2 | CODEC_CPU_AVX512 },
                { "all", UINT32_MAX },
                { "0", 0 },
                { "3", 3 },
                { "0x2", 2 },
                { "010", 8 },
                { "4294967295", UINT32_MAX },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(masks); i++) {
                uint32_t mask = 12345;

                assert_int_equal(codec_cpu_mask_parse(masks[i].text, &mask), 0);
                assert_int_equal(mask, masks[i].mask);
        }
}

static void test_bad_masks(void **state) {
        const char *texts[] = {
                "",       ",",          "avx",   "avx5120", "AVX2",       "avx2,",
                ",avx2",  "avx2,,neon", "avx2 ", " avx2",   "-1",         "+1",
                " 1",     "1 ",         "3x",    "0x",      "4294967296", "99999999999999999999",
                "avx2,1", "1,avx2",
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                uint32_t mask = 12345;

                assert_int_equal(codec_cpu_mask_parse(texts[i], &mask), -EINVAL);
                assert_int_equal(mask, 12345); /* outputs are written only on success */
        }
}

static void test_environment(void **state) {
        uint32_t all;

        (void)state;
        unsetenv("CARVQ_CPU_MASK");
        all = codec_cpu_features();
        setenv("CARVQ_CPU_MASK", "all", 1);
        assert_int_equal(codec_cpu_features(), all);
        setenv("CARVQ_CPU_MASK", "scalar", 1);
        assert_int_equal(codec_cpu_features(), 0);
        setenv("CARVQ_CPU_MASK", "avx2", 1);
        assert_int_equal(codec_cpu_features(), all & CODEC_CPU_AVX2);
        setenv("CARVQ_CPU_MASK", "avx1024", 1);
        assert_int_equal(codec_cpu_features(), 0);
        unsetenv("CARVQ_CPU_MASK");

        /* AVX-512 alone would promise nothing of what its kernels also use. */
        if (all & CODEC_CPU_AVX512)
                assert_true(all & CODEC_CPU_AVX2);
        if (all & CODEC_CPU_VNNI)
                assert_true(all & CODEC_CPU_AVX512);
        if (all & CODEC_CPU_AMX)
                assert_true(all & CODEC_CPU_VNNI);
}

static void test_choice(void **state) {
        (void)state;
        assert_string_equal(codec_kernels_choose(0)->name, "scalar");
        assert_ptr_equal(codec_kernels_choose(0), &codec_kernels_scalar);
#if defined(__x86_64__)
        assert_string_equal(codec_kernels_choose(CODEC_CPU_AVX2)->name, "avx2");
        assert_string_equal(codec_kernels_choose(CODEC_CPU_AVX2 | CODEC_CPU_AVX512)->name,
                            "avx512");
        assert_string_equal(codec_kernels_choose(CODEC_CPU_AVX512 | CODEC_CPU_VNNI)->name,
                            "avx512+vnni");
        /* AMX is chosen where the system lets it; see test-adaptor-batch. */
        assert_ptr_equal(codec_kernels_choose(CODEC_CPU_AVX512 | CODEC_CPU_AMX),
                         codec_kernels_choose(CODEC_CPU_AVX512));
#elif defined(__aarch64__)
        assert_string_equal(codec_kernels_choose(CODEC_CPU_NEON)->name, "neon");
        assert_string_equal(codec_kernels_choose(CODEC_CPU_NEON | CODEC_CPU_DOTPROD)->name,
                            "neon+dotprod");
#endif
        for (uint32_t codec = TABLE_CODEC_F32; codec <= TABLE_CODEC_CARVQ; codec++)
                assert_non_null(codec_kernels_choose(UINT32_MAX)->decode[codec]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good_masks),
                cmocka_unit_test(test_bad_masks),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_choice),
        };

        return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}

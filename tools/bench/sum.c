/* SPDX-License-Identifier: Apache-2.0 */
#include "sum.h"

#include "lib/codec/codec.h"
#include "lib/codec/half.h"

/* Sums that do not wait for each other; the compiler makes vectors of whatever width of them. */
#define SUMS 64u

static float value_at(const void *values, size_t i, uint8_t type) {
        const uint16_t *halves = values;

        switch (type) {
        case CODEC_TYPE_F32:
                return ((const float *)values)[i];
        case CODEC_TYPE_F16:
                return half_to_float(halves[i]);
        default:
                return bf16_to_float(halves[i]);
        }
}

static inline __attribute__((always_inline)) double sum_loop(const void *values, size_t n,
                                                             uint8_t type) {
        float sums[SUMS] = { 0 };
        double sum = 0;
        size_t i = 0;

        for (; i + SUMS <= n; i += SUMS)
                for (size_t j = 0; j < SUMS; j++)
                        sums[j] += value_at(values, i + j, type);
        for (; i < n; i++)
                sums[0] += value_at(values, i, type);
        for (size_t j = 0; j < SUMS; j++)
                sum += (double)sums[j];
        return sum;
}

static double sum_baseline(const void *values, size_t n, uint8_t type) {
        switch (type) {
        case CODEC_TYPE_F32:
                return sum_loop(values, n, CODEC_TYPE_F32);
        case CODEC_TYPE_F16:
                return sum_loop(values, n, CODEC_TYPE_F16);
        default:
                return sum_loop(values, n, CODEC_TYPE_BF16);
        }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES    16u
#define _avx512_ __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

_avx512_ static inline __m512 load(const void *values, size_t i, uint8_t type) {
        const uint16_t *halves = (const uint16_t *)values + i;

        switch (type) {
        case CODEC_TYPE_F32:
                return _mm512_loadu_ps((const float *)values + i);
        case CODEC_TYPE_F16:
                return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)halves));
        default:
                return _mm512_castsi512_ps(_mm512_slli_epi32(
                        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)halves)), 16));
        }
}

_avx512_ static inline __attribute__((always_inline)) double sum_lanes(const void *values, size_t n,
                                                                       uint8_t type) {
        __m512 sums[SUMS / LANES];
        size_t i = 0;
        double sum;

        for (size_t j = 0; j < SUMS / LANES; j++)
                sums[j] = _mm512_setzero_ps();
        for (; i + SUMS <= n; i += SUMS)
                for (size_t j = 0; j < SUMS / LANES; j++)
                        sums[j] = _mm512_add_ps(sums[j], load(values, i + j * LANES, type));
        sum = (double)_mm512_reduce_add_ps(
                _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
        for (; i < n; i++)
                sum += (double)value_at(values, i, type);
        return sum;
}

_avx512_ static double sum_avx512(const void *values, size_t n, uint8_t type) {
        switch (type) {
        case CODEC_TYPE_F32:
                return sum_lanes(values, n, CODEC_TYPE_F32);
        case CODEC_TYPE_F16:
                return sum_lanes(values, n, CODEC_TYPE_F16);
        default:
                return sum_lanes(values, n, CODEC_TYPE_BF16);
        }
}

double sum_values(const void *values, size_t n, uint8_t type) {
        static double (*sum)(const void *values, size_t n, uint8_t type);

        if (!sum) /* asking the CPU costs microseconds under a hypervisor */
                sum = codec_cpu_features() & CODEC_CPU_AVX512 ? sum_avx512 : sum_baseline;
        return sum(values, n, type);
}
#else
double sum_values(const void *values, size_t n, uint8_t type) {
        return sum_baseline(values, n, type);
}
#endif

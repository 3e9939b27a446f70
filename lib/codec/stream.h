/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that go around the caches, for rows that another CPU reads: else each line is first
 * fetched from that CPU's cache, where it was read the last time, and later fetched back. Whole
 * lines only; what is left is stored as ever. Where an instruction set has no such stores all of
 * them are.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define STREAM_LINE 64u

static inline void stream_copy(void *to, const void *from, size_t n_bytes) {
        const uint8_t *in = from;
        uint8_t *out = to;
        size_t at = -(uintptr_t)to % STREAM_LINE;

        if (at > n_bytes)
                at = n_bytes;
        memcpy(out, in, at);
        for (; n_bytes - at >= STREAM_LINE; at += STREAM_LINE)
                for (size_t i = 0; i < STREAM_LINE; i += sizeof(__m128i))
                        _mm_stream_si128((__m128i *)(void *)(out + at + i),
                                         _mm_loadu_si128((const void *)(in + at + i)));
        memcpy(out + at, in + at, n_bytes - at);
}

/* Such stores are ordered with no others but by this: before anybody is told of the rows. */
static inline void stream_fence(void) {
        _mm_sfence();
}
#else
static inline void stream_copy(void *to, const void *from, size_t n_bytes) {
        memcpy(to, from, n_bytes);
}

static inline void stream_fence(void) {
}
#endif

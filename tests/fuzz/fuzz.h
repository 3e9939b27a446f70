/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all fuzz targets share: the two functions that libFuzzer, AFL++'s driver and replay.c call,
 * an input that is taken apart from its front, and a promise whose breach is a find.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "proto/base.h"

/* Once, before the first input. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* Also where asserts are compiled out: what is promised in a header, or the target's own set-up. */
#define require(condition, what)                                                                   \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, what, #condition);  \
                        abort();                                                                   \
                }                                                                                  \
        } while (0)

struct input {
        const uint8_t *bytes;
        size_t n_bytes;
};

/* As many bytes as there still are; the rest is 0. Returns how many there were. */
static inline size_t input_take(struct input *input, void *ret_bytes, size_t n_bytes) {
        size_t n = MIN(n_bytes, input->n_bytes);

        memset(ret_bytes, 0, n_bytes);
        if (n)
                memcpy(ret_bytes, input->bytes, n);
        input->bytes += n;
        input->n_bytes -= n;
        return n;
}

static inline uint8_t input_u8(struct input *input) {
        uint8_t value;

        input_take(input, &value, sizeof(value));
        return value;
}

static inline uint16_t input_u16(struct input *input) {
        uint16_t value;

        input_take(input, &value, sizeof(value));
        return value;
}

static inline uint32_t input_u32(struct input *input) {
        uint32_t value;

        input_take(input, &value, sizeof(value));
        return value;
}

/* An exact copy, so that a read past its end is seen. The caller frees it. */
static inline void *copy_exactly(const void *bytes, size_t n_bytes) {
        void *copy = malloc(n_bytes ? n_bytes : 1);

        require(copy, "malloc");
        if (n_bytes)
                memcpy(copy, bytes, n_bytes);
        return copy;
}

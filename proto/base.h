/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few words every module shares: cleanup attributes, checked arithmetic, and `struct fault`,
 * the one line that tells a person what was wrong, where, and what was expected. No I/O, no
 * allocation.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "carvq files and rings are little-endian and are used in place"
#endif

#define _cleanup_(f)        __attribute__((cleanup(f)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _public_            __attribute__((visibility("default")))

#define ARRAY_SIZE(a)       (sizeof(a) / sizeof((a)[0]))

/* From a pointer to a member to the struct around it. */
#define container_of(ptr, type, member) ((type *)((uint8_t *)(ptr)-offsetof(type, member)))

#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))

/* One frees, the other closes, and both are harmless on an empty value: for _cleanup_. */
static inline void freep(void *p) {
        free(*(void **)p);
}

static inline void closep(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

/*
 * For the start of main(): a program that is started with 0, 1 or 2 closed would open its files
 * there, and its messages would end up in them.
 */
static inline void claim_standard_descriptors(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        closep(&fd);
}

/* Hand an owned value on and leave an empty one behind, so that its cleanup does nothing. */
static inline void *steal_pointer(void *pp) {
        void *p = *(void **)pp;
        *(void **)pp = NULL;
        return p;
}

static inline int steal_fd(int *fd) {
        int r = *fd;
        *fd = -1;
        return r;
}

/* For powers of two; the caller has made sure that the sum does not overflow. */
static inline uint64_t align_up(uint64_t value, uint64_t alignment) {
        return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t div_round_up(uint64_t value, uint64_t divisor) {
        return value / divisor + (value % divisor != 0);
}

/* True when [offset, offset + length) lies inside [0, size): forms no sum, so nothing can wrap. */
static inline bool range_inside(uint64_t offset, uint64_t length, uint64_t size) {
        return offset <= size && length <= size - offset;
}

/* A sentence without a final stop, cut to fit. Empty when nothing went wrong. */
struct fault {
        char text[320];
};

void fault_write(struct fault *fault, const char *format, ...) _printf_(2, 3);

/*
 * Writes the sentence and yields `r`, so that a refusal is one statement. `fault` may be NULL. A
 * macro, because a compiler that sees the value come back knows which outputs stay unset.
 */
#define fault_set(fault, r, ...)                                                                   \
        __extension__({                                                                            \
                int fault_r = (r);                                                                 \
                fault_write(fault, __VA_ARGS__);                                                   \
                fault_r;                                                                           \
        })

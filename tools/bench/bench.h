/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benches of this folder share: random numbers, percentiles, a folder of their own, the
 * machine's name. Trusts its caller; a bench that cannot go on says why and exits. One thread.
 */
#pragma once

#include "proto/base.h"
#include "proto/spin.h"

/* One line on standard error, after the program's name; exit status 3. */
_Noreturn void die(const char *format, ...) _printf_(1, 2);

/* As calloc() and aligned_alloc(4096), but they never return NULL, and the second's pages are
 * there, filled with zeros. */
void *allocate(size_t n, size_t item_bytes);
void *allocate_pages(size_t bytes);
/* The same on huge pages, where the kernel has them to give; free() it, too. */
void *allocate_huge(size_t bytes);

/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003); the state is not 0. */
static inline uint64_t random_next(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

/* In [0, 1). */
static inline double random_fraction(uint64_t *state) {
        return (double)(random_next(state) >> 11) * 0x1p-53;
}

/* Sorts `ns`; the value below which a share of them lies. */
uint64_t percentile(uint64_t *ns, size_t n, double share);

/* A count on the command line: k, M and G are powers of 1024. Dies unless it is in [min, max]. */
uint64_t parse_count(const char *option, const char *text, uint64_t min, uint64_t max);

/* The path of another program of the same build: `relative` to this one's folder. */
void program_beside(const char *relative, char *ret_path, size_t path_bytes);

/* Runs a program to its end with standard output thrown away; dies unless its exit status is 0. */
void run_program(char *const *argv);

/* A folder in `parent` (NULL: $TMPDIR, else /tmp) that goes away with the program, in whatever way
 * it ends short of SIGKILL. Absolute; short enough that socket names fit behind it. */
const char *work_folder(const char *parent);
void work_path(const char *name, char *ret_path, size_t path_bytes);

/* Programs still running, which work_folder()'s end kills first. */
void keep_child(pid_t pid);
void forget_child(pid_t pid);

/* "Intel(R) Xeon(R) Processor, 2 CPUs, Linux 6.18.5" */
void machine_name(char *ret_text, size_t text_bytes);

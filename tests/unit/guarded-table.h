/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables for tests: any header's parameters, random but ordinary contents, in memory that ends at a
 * page nobody may touch, so that one byte read too far is a crash.
 */
#pragma once

#include "proto/table.h"

/* xorshift64*: the state must not be 0. */
uint64_t test_random(uint64_t *state);

/* A half between 2^-4 and 2^-3 in size, of either sign. */
uint16_t test_random_half(uint64_t *state);

/* CARVQ_TEST_SEED, or the same seed every time; printed as a TAP comment. */
uint64_t test_seed(void);

/* Memory between inaccessible pages: its last byte is followed by one, or its first byte has one
 * before it. */
enum guard {
        GUARD_BEHIND,
        GUARD_BEFORE,
};

struct guarded {
        uint8_t *bytes;
        size_t n_bytes;
        void *map;
        size_t map_bytes;
};

void guarded_init_at(struct guarded *memory, size_t n_bytes, enum guard guard);
void guarded_init(struct guarded *memory, size_t n_bytes); /* behind */
void guarded_deinit(struct guarded *memory);

/*
 * A whole sealed file for the header's parameters, chunk checksums included; ends the program when
 * they are not sound. `header` is completed; without tiers every row has n_stages stages, else the
 * rows' tiers are random; without tier_bits all codes have codebook_bits bits, without window_bits
 * windows no more. The file starts at a multiple of 64 bytes, so the guard may follow up to 63
 * bytes behind it.
 */
void make_table(struct table_header *header, const char *meta, uint64_t *random,
                struct guarded *ret_file);

/* Random tiers for all rows, as many of each as the header says. */
void test_random_tiers(const struct table_header *header, uint64_t *random, uint8_t *ret_tiers);

/* A file's chunks, each in memory of its own with a guard at one end. */
struct guarded_table {
        struct guarded rows, codebooks, adaptor, tiers;
};

struct codec_table;
void guard_table(const struct table_contents *contents, const struct guarded *file,
                 enum guard guard, struct codec_table *ret_table, struct guarded_table *ret_memory);
void guarded_table_deinit(struct guarded_table *memory);

/* All kernel sets that this CPU and `CARVQ_CPU_MASK` allow, scalar first. */
struct codec_kernels;
size_t test_kernels(const struct codec_kernels *ret_sets[8]);

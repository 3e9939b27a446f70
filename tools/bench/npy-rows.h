/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The full-precision yardstick: a table of f32 or f16 in a .npy file, mapped, its rows gathered and
 * converted by the codec's own kernels, which are as good here as what they are compared with.
 * One thread for each table; dies where it cannot go on.
 */
#pragma once

#include <stdio.h>

#include "lib/codec/codec.h"

enum npy_type {
        NPY_F32,
        NPY_F16,
};

/* The file with its header written: the caller writes the values and closes it. */
FILE *npy_create(const char *path, enum npy_type type, uint64_t n_rows, uint32_t n_dims);

struct npy_rows {
        struct codec_table table; /* its rows are the mapping's */
        struct codec_context context;
        void *map;
        size_t map_bytes;
        uint8_t *copy; /* instead of the mapping; NULL: none */
};

/* A file that npy_create() began. */
void npy_open(struct npy_rows *npy, const char *path, enum npy_type type, uint64_t n_rows,
              uint32_t n_dims);
/* From now on from private memory: few misses of the TLB, a copy for each process. What full
 * precision can do at best. */
void npy_copy_to_huge_pages(struct npy_rows *npy);
void npy_close(struct npy_rows *npy);

/* Rows to a buffer, one after another, as `type` (enum codec_type). */
void npy_gather(struct npy_rows *npy, const uint64_t *ids, size_t n_ids, uint8_t type,
                void *ret_rows);

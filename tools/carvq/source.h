/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model file (safetensors, GGUF, .npy or .carvq) as a list of two-dimensional tensors, one of
 * which is read as rows of f32. Every byte of the file is hostile: headers pass a checker before
 * they are used, and memory stays bounded whatever a header claims. Rows are read with pread(), so
 * resident memory does not grow with the file and several threads may read at once.
 */
#pragma once

#include "proto/base.h"

struct source; /* an open model file */

struct source_tensor {
        const char *name;  /* owned by the source; "" for .npy, which has one nameless tensor */
        const char *dtype; /* as the format calls it: "F32", "BF16", "Q4_K", "f8" ... */
        uint64_t n_rows;
        uint32_t n_dims;
};

/*
 * Opens a model by its content, not by its name: .safetensors, .safetensors.index.json (shards
 * beside it), .gguf, .npy, .carvq. -EBADMSG (damaged or foreign; the fault names file, field and
 * what was expected), -EOPNOTSUPP (a dtype or layout we do not read), or the errno of open and
 * read.
 */
int source_open(const char *path, struct source **ret_source, struct fault *ret_fault);
void source_free(struct source *source);
static inline void source_freep(struct source **source) {
        source_free(*source);
}

/* "safetensors", "gguf", "npy" or "carvq". */
const char *source_format(const struct source *source);

/* fstat() of the model's files, from 0 on; -ENOENT past the last. */
struct stat;
int source_stat(const struct source *source, size_t index, struct stat *ret_stat);

/* The 2-D tensors of a dtype that can be read, in file order. */
size_t source_n_tensors(const struct source *source);
const struct source_tensor *source_tensor(const struct source *source, size_t index);

/*
 * Picks the tensor to read. With a name: that one (-ENOENT lists the near misses in the fault).
 * Without: the one whose name models use for embeddings, or the only one there is; -ENOENT where
 * none fits; -ENOTUNIQ where several do, and then the indices of the first 16 candidates are in
 * `ret_candidates` so that the caller can ask (both outputs may be NULL with a name). -EOPNOTSUPP:
 * the tensor is there, but not 2-D or of a dtype that we do not read.
 */
int source_select(struct source *source, const char *name, size_t ret_candidates[16],
                  size_t *ret_n_candidates, struct fault *ret_fault);
const struct source_tensor *source_selected(const struct source *source);

/*
 * Rows [row_first, row_first + n_rows) of the selected tensor, dequantized, row-major, n_dims
 * floats each. Thread-safe. NaN and infinity are refused: -EDOM, the fault names row and column.
 */
int source_read(struct source *source, uint64_t row_first, size_t n_rows, float *ret_values,
                struct fault *ret_fault);

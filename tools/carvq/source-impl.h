/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between source.c and the file formats. A format turns a header into a list of tensors, each a
 * byte range of a file with a dtype; reading rows is then the same for all of them. The *_check()
 * functions are pure and see hostile bytes: they are the fuzz targets.
 */
#pragma once

#include "source.h"

#define SOURCE_DIMS_MAX    65536u /* as in proto/table.h: wider tensors are not rows of a table */
#define SOURCE_TENSORS_MAX (1u << 20)
#define SOURCE_PROBE_BYTES 16u

/* ---- Dtypes (source-dtype.c, gguf-dequant.c) ---- */

struct source_dtype {
        const char *name;
        uint32_t block_values; /* 0: size unknown */
        uint32_t block_bytes;
        /* Any alignment. NULL: the dtype is known but not read. */
        void (*decode)(const uint8_t *blocks, size_t n_blocks, float *ret_values);
};

/* By the format's own name or number; an unknown one gives a nameless dtype of unknown size. */
const struct source_dtype *safetensors_dtype(const char *name);
const struct source_dtype *npy_dtype(const char *descr); /* "<f4"; NULL when it is not read */
const struct source_dtype *gguf_dtype(uint32_t type);

void dtype_decode_f16(const uint8_t *blocks, size_t n_blocks, float *ret_values);
void dtype_decode_bf16(const uint8_t *blocks, size_t n_blocks, float *ret_values);
void dtype_decode_f32(const uint8_t *blocks, size_t n_blocks, float *ret_values);
void dtype_decode_f64(const uint8_t *blocks, size_t n_blocks, float *ret_values);

/* ---- Lists of tensors (source-tensors.c) ---- */

struct tensor {
        struct source_tensor
                info; /* the name is ours; n_rows and n_dims are 0 unless n_axes is 2 */
        const struct source_dtype *dtype;
        uint32_t n_axes;
        uint32_t file;   /* index into source.files */
        uint64_t offset; /* of the data in its file */
        uint64_t n_bytes;
};

struct tensor_list {
        struct tensor *tensors;
        size_t n_tensors;
        size_t n_allocated;
};

void tensor_list_deinit(struct tensor_list *list);

/*
 * Appends a tensor without data range; `axes` are in row-major order, the last one is contiguous.
 * Computes n_bytes, which is 0 if the dtype's size is unknown. -EBADMSG: more bytes than a file can
 * have, a row that is no whole number of blocks, a name with control characters, too many tensors.
 */
int tensor_list_add(struct tensor_list *list, const char *name, size_t name_bytes,
                    const struct source_dtype *dtype, const uint64_t *axes, uint32_t n_axes,
                    struct tensor **ret_tensor, struct fault *ret_fault);

/* Sorts by offset. -EBADMSG when two tensors share bytes or a name. */
int tensor_list_settle(struct tensor_list *list, struct fault *ret_fault);

/* Moves the tensors of `from` to the end of `list`. */
int tensor_list_append(struct tensor_list *list, struct tensor_list *from);

/* True for those that source_tensor() lists. */
bool tensor_is_readable(const struct tensor *tensor);

/* ---- Checkers ---- */

/*
 * `bytes` holds the first `n_bytes` of a file of `file_bytes`. 0: every listed range lies inside
 * the file and fits its shape, and nothing else needs to be trusted. -EAGAIN: *ret_need_bytes (more
 * than n_bytes, at most file_bytes) are needed to go on. -EBADMSG, -EOPNOTSUPP: the fault says why,
 * without the file's name. Time and memory are bounded by n_bytes.
 */
typedef int source_check_fn(const void *bytes, size_t n_bytes, uint64_t file_bytes,
                            struct tensor_list *ret_list, uint64_t *ret_need_bytes,
                            struct fault *ret_fault);

source_check_fn safetensors_check;
source_check_fn gguf_check;
source_check_fn npy_check;

/* An .npy file's header, before anyone asks whether the array is a table. */
struct npy_header {
        char descr[16];
        bool fortran_order;
        uint64_t axes[2]; /* the first two */
        uint32_t n_axes;
        uint64_t data_offset; /* at most the file's bytes */
};

#define NPY_HEADER_BYTES_MAX (65536u + 12) /* numpy itself refuses more than 10,000 */

bool npy_probe(const uint8_t *head, size_t head_bytes);

/* Arguments and errors as those of a checker. Whether the array fits the file is not looked at. */
int npy_read_header(const void *bytes, size_t n_bytes, uint64_t file_bytes,
                    struct npy_header *ret_header, uint64_t *ret_need_bytes,
                    struct fault *ret_fault);

/* ---- Formats ---- */

struct source_file {
        char *path;
        int fd;
        uint64_t n_bytes;
};

struct source {
        const struct source_format *format;
        struct source_file *files; /* files[0] is what the caller named */
        size_t n_files;
        struct tensor_list list; /* readable tensors first */
        size_t n_readable;
        const struct tensor *selected;
        void *private; /* the format's own */
};

/*
 * The hook for a format. The first whose probe() accepts the file's first bytes (at most
 * SOURCE_PROBE_BYTES, fewer in a shorter file) opens it: open() finds files[0] open, fills `list`
 * and prefixes its faults with the path (source_fault). One that has rows to offer which are no
 * byte range of a file (a packed table) sets read(); it is called for a few rows at a time, from
 * any thread, within the selected tensor's bounds, and need not look for NaN. free() undoes what
 * open() left in `private`, also when open() failed half-way.
 */
struct source_format {
        const char *name;
        bool (*probe)(const uint8_t *head, size_t head_bytes);
        int (*open)(struct source *source, struct fault *ret_fault);
        int (*read)(struct source *source, uint64_t row_first, size_t n_rows, float *ret_values,
                    struct fault *ret_fault);
        void (*free)(struct source *source);
};

extern const struct source_format source_format_safetensors;
extern const struct source_format source_format_safetensors_index;
extern const struct source_format source_format_gguf;
extern const struct source_format source_format_npy;
extern const struct source_format source_format_carvq;

/* Opens a regular file and appends it to `files`. The fault has the path. */
int source_add_file(struct source *source, const char *path, struct fault *ret_fault);

/*
 * Runs `check` over a growing prefix of files[file], which stops at `header_bytes_max`, and sets
 * `file` in the tensors it lists. The fault has the path.
 */
int source_scan(const struct source *source, size_t file, source_check_fn *check,
                uint64_t header_bytes_max, struct tensor_list *ret_list, struct fault *ret_fault);

/* All of [offset, offset + n_bytes), or -EBADMSG when the file has become shorter, or an errno. */
int source_pread(const struct source_file *file, void *ret_bytes, size_t n_bytes, uint64_t offset,
                 struct fault *ret_fault);

/* "PATH: SENTENCE", safe to print on a terminal. Returns `r`. */
int source_fault(struct fault *fault, int r, const char *path, const char *format, ...)
        _printf_(4, 5);

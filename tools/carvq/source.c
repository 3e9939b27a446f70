/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a model file by its first bytes, and reads rows of the selected tensor. Owns descriptors
 * and the list of tensors. Headers are judged by the formats' checkers; a file that changes under
 * us afterwards gives errors, never a bad access. Opening and selecting belong to one thread,
 * reading to any number.
 */
#include "source-impl.h"

#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/codec/half.h"

#define PREFIX_BYTES_FIRST UINT64_C(65536)
#define BATCH_BYTES        (256u << 10) /* of f32: rows that stay in L2 between decoding and checking */
#define PATH_BYTES_SHOWN   120u

/* In the order they are asked. */
static const struct source_format *const formats[] = {
        &source_format_gguf,        &source_format_npy,
        &source_format_safetensors, &source_format_safetensors_index,
        &source_format_carvq,
};

int source_fault(struct fault *fault, int r, const char *path, const char *format, ...) {
        size_t path_bytes = strlen(path);
        bool cut = path_bytes > PATH_BYTES_SHOWN;
        struct fault why;
        va_list args;

        if (!fault)
                return r;
        va_start(args, format);
        vsnprintf(why.text, sizeof(why.text), format, args);
        va_end(args);
        /* A long path loses its beginning, so that the sentence keeps its end. */
        fault_set(fault, r, "%s%s: %s", cut ? "..." : "",
                  cut ? path + path_bytes - PATH_BYTES_SHOWN : path, why.text);
        /* Sentences quote what a file holds. */
        for (char *c = fault->text; *c; c++)
                if ((uint8_t)*c < 0x20 || *c == 0x7f)
                        *c = '?';
        return r;
}

int source_pread(const struct source_file *file, void *ret_bytes, size_t n_bytes, uint64_t offset,
                 struct fault *ret_fault) {
        uint8_t *bytes = ret_bytes;

        while (n_bytes) {
                ssize_t n = pread(file->fd, bytes, n_bytes, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return source_fault(ret_fault, -errno, file->path,
                                            "cannot read at byte %" PRIu64 ": %s", offset,
                                            strerror(errno));
                if (n == 0)
                        return source_fault(ret_fault, -EBADMSG, file->path,
                                            "ends at byte %" PRIu64 ", had %" PRIu64
                                            " when it was opened",
                                            offset, file->n_bytes);
                bytes += n;
                n_bytes -= (size_t)n;
                offset += (uint64_t)n;
        }
        return 0;
}

int source_add_file(struct source *source, const char *path, struct fault *ret_fault) {
        /* Not to hang on a fifo; of no effect on regular files. */
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        _cleanup_(freep) char *owned_path = NULL;
        struct source_file *files;
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return source_fault(ret_fault, -errno, path, "cannot open: %s", strerror(errno));
        if (!S_ISREG(st.st_mode))
                return source_fault(ret_fault, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, path,
                                    "%s, expected a regular file",
                                    S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
        owned_path = strdup(path);
        files = reallocarray(source->files, source->n_files + 1, sizeof(*files));
        if (files)
                source->files = files;
        if (!files || !owned_path)
                return -ENOMEM;
        files[source->n_files++] = (struct source_file){
                .path = steal_pointer(&owned_path),
                .fd = steal_fd(&fd),
                .n_bytes = (uint64_t)st.st_size,
        };
        return 0;
}

int source_scan(const struct source *source, size_t file, source_check_fn *check,
                uint64_t header_bytes_max, struct tensor_list *ret_list, struct fault *ret_fault) {
        const struct source_file *f = &source->files[file];
        _cleanup_(freep) uint8_t *prefix = NULL;
        uint64_t n_bytes = 0, need_bytes = 1;
        struct fault why = { 0 };
        int r;

        do {
                uint64_t had_bytes = n_bytes;
                uint8_t *grown;

                if (need_bytes > header_bytes_max)
                        return source_fault(ret_fault, -EBADMSG, f->path,
                                            "a header of more than %" PRIu64 " bytes",
                                            header_bytes_max);
                /* At least doubled, so that parsing again and again stays linear in all. */
                n_bytes = MAX(need_bytes, MAX(had_bytes * 2, PREFIX_BYTES_FIRST));
                n_bytes = MIN(MIN(n_bytes, header_bytes_max), f->n_bytes);
                assert(n_bytes > had_bytes || !had_bytes);
                grown = realloc(prefix, (size_t)n_bytes + 1); /* the file may be empty */
                if (!grown)
                        return -ENOMEM;
                prefix = grown;
                r = source_pread(f, prefix + had_bytes, (size_t)(n_bytes - had_bytes), had_bytes,
                                 ret_fault);
                if (r < 0)
                        return r;
                r = check(prefix, (size_t)n_bytes, f->n_bytes, ret_list, &need_bytes, &why);
        } while (r == -EAGAIN);
        if (r < 0)
                return source_fault(ret_fault, r, f->path, "%s",
                                    *why.text ? why.text : strerror(-r));
        for (size_t i = 0; i < ret_list->n_tensors; i++)
                ret_list->tensors[i].file = (uint32_t)file;
        return 0;
}

static int find_format(const struct source_file *file, const struct source_format **ret_format,
                       struct fault *ret_fault) {
        uint8_t head[SOURCE_PROBE_BYTES];
        size_t head_bytes = (size_t)MIN(file->n_bytes, sizeof(head));
        int r;

        r = source_pread(file, head, head_bytes, 0, ret_fault);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
                if (formats[i]->probe(head, head_bytes)) {
                        *ret_format = formats[i];
                        return 0;
                }
        return source_fault(ret_fault, -EBADMSG, file->path,
                            "%s, expected safetensors, a safetensors index, GGUF, .npy or .carvq",
                            file->n_bytes ? "begins like no model file we know"
                                          : "the file is empty");
}

/* Stable: readable tensors first, the others behind them, each in file order. */
static int partition(struct source *source) {
        struct tensor_list *list = &source->list;
        _cleanup_(freep) struct tensor *rest = calloc(list->n_tensors + 1, sizeof(*rest));
        size_t n_rest = 0;

        if (!rest)
                return -ENOMEM;
        for (size_t i = 0; i < list->n_tensors; i++)
                if (tensor_is_readable(&list->tensors[i]))
                        list->tensors[source->n_readable++] = list->tensors[i];
                else
                        rest[n_rest++] = list->tensors[i];
        if (n_rest)
                memcpy(list->tensors + source->n_readable, rest, n_rest * sizeof(*rest));
        return 0;
}

int source_open(const char *path, struct source **ret_source, struct fault *ret_fault) {
        _cleanup_(source_freep) struct source *source = calloc(1, sizeof(*source));
        int r;

        if (ret_fault)
                ret_fault->text[0] = '\0';
        r = source ? source_add_file(source, path, ret_fault) : -ENOMEM;
        if (r >= 0)
                r = find_format(&source->files[0], &source->format, ret_fault);
        if (r >= 0)
                r = source->format->open(source, ret_fault);
        if (r >= 0)
                r = partition(source);
        if (r == -ENOMEM)
                source_fault(ret_fault, r, path, "out of memory");
        if (r < 0)
                return r;
        *ret_source = steal_pointer(&source);
        return 0;
}

void source_free(struct source *source) {
        if (!source)
                return;
        if (source->format && source->format->free)
                source->format->free(source);
        for (size_t i = 0; i < source->n_files; i++) {
                close(source->files[i].fd);
                free(source->files[i].path);
        }
        free(source->files);
        tensor_list_deinit(&source->list);
        free(source);
}

const char *source_format(const struct source *source) {
        return source->format->name;
}

int source_stat(const struct source *source, size_t index, struct stat *ret_stat) {
        if (index >= source->n_files)
                return -ENOENT;
        return fstat(source->files[index].fd, ret_stat) < 0 ? -errno : 0;
}

size_t source_n_tensors(const struct source *source) {
        return source->n_readable;
}

const struct source_tensor *source_tensor(const struct source *source, size_t index) {
        return index < source->n_readable ? &source->list.tensors[index].info : NULL;
}

const struct source_tensor *source_selected(const struct source *source) {
        return source->selected ? &source->selected->info : NULL;
}

/* The usual case: rows are bytes of a file. */
static int read_range(struct source *source, uint64_t row_first, size_t n_rows, float *ret_values,
                      struct fault *ret_fault) {
        const struct tensor *t = source->selected;
        size_t n_blocks = n_rows * (t->info.n_dims / t->dtype->block_values);
        size_t n_bytes = n_blocks * t->dtype->block_bytes;
        _cleanup_(freep) uint8_t *blocks = malloc(n_bytes);
        int r;

        if (!blocks)
                return -ENOMEM;
        r = source_pread(&source->files[t->file], blocks, n_bytes,
                         t->offset + row_first * (t->n_bytes / t->info.n_rows), ret_fault);
        if (r < 0)
                return r;
        t->dtype->decode(blocks, n_blocks, ret_values);
        return 0;
}

static bool bits_are_finite(uint32_t bits) {
        return (bits & 0x7f800000) != 0x7f800000;
}

static int check_finite(const struct source *source, uint64_t row_first, size_t n_rows,
                        const float *values, struct fault *ret_fault) {
        const struct source_tensor *t = &source->selected->info;
        size_t n_values = n_rows * t->n_dims, i;
        uint32_t n_bad = 0;

        /* Nearly always nothing is found: count without a branch first. */
        for (i = 0; i < n_values; i++)
                n_bad |= !bits_are_finite(float_bits(values[i]));
        if (!n_bad)
                return 0;
        for (i = 0; bits_are_finite(float_bits(values[i])); i++)
                ;
        return source_fault(ret_fault, -EDOM, source->files[source->selected->file].path,
                            "tensor '%.80s', row %" PRIu64
                            ", column %zu: found %s, expected a finite f32",
                            t->name, row_first + i / t->n_dims, i % t->n_dims,
                            values[i] != values[i] ? "NaN" : "infinity");
}

int source_read(struct source *source, uint64_t row_first, size_t n_rows, float *ret_values,
                struct fault *ret_fault) {
        const struct source_tensor *t;
        size_t batch_rows, n;

        assert(source->selected);
        t = &source->selected->info;
        if (!range_inside(row_first, n_rows, t->n_rows))
                return source_fault(ret_fault, -ERANGE, source->files[0].path,
                                    "tensor '%.80s': rows %" PRIu64 " + %zu, it has %" PRIu64,
                                    t->name, row_first, n_rows, t->n_rows);
        batch_rows = MAX(BATCH_BYTES / (t->n_dims * sizeof(float)), 1u);
        for (; n_rows; n_rows -= n, row_first += n, ret_values += n * t->n_dims) {
                int r;

                n = MIN(n_rows, batch_rows);
                r = (source->format->read ? source->format->read : read_range)(
                        source, row_first, n, ret_values, ret_fault);
                if (r == -ENOMEM)
                        source_fault(ret_fault, r, source->files[0].path, "out of memory");
                if (r >= 0)
                        r = check_finite(source, row_first, n, ret_values, ret_fault);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz-source.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define ROWS_READ 3u

static void check_list(const struct tensor_list *list, uint64_t file_bytes) {
        uint64_t end = 0;

        for (size_t i = 0; i < list->n_tensors; i++) {
                const struct tensor *t = &list->tensors[i];

                require(range_inside(t->offset, t->n_bytes, file_bytes), "inside the file");
                require(t->offset >= end, "in order, without overlap");
                end = t->offset + t->n_bytes;
                for (const char *c = t->info.name; *c; c++)
                        require((uint8_t)*c >= 0x20 && *c != 0x7f, "harmless names");
                if (!tensor_is_readable(t))
                        continue;
                require(t->info.n_dims <= SOURCE_DIMS_MAX, "no wider than a table");
                require(t->info.n_dims % t->dtype->block_values == 0, "whole blocks");
                require(t->n_bytes / t->info.n_rows == (uint64_t)t->info.n_dims /
                                                               t->dtype->block_values *
                                                               t->dtype->block_bytes,
                        "bytes for every row");
        }
}

void fuzz_check(source_check_fn *check, const uint8_t *bytes, size_t n_bytes, uint64_t file_bytes) {
        uint64_t need_bytes = MIN(n_bytes, 16u);

        for (;;) {
                _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
                _cleanup_(freep) uint8_t *piece = copy_exactly(bytes, (size_t)need_bytes);
                uint64_t had_bytes = need_bytes;
                struct fault fault = { 0 };
                int r = check(piece, (size_t)had_bytes, file_bytes, &list, &need_bytes, &fault);

                if (r == -EAGAIN) {
                        require(need_bytes > had_bytes && need_bytes <= file_bytes,
                                "asks for more");
                        if (need_bytes > n_bytes)
                                return;
                        need_bytes = MIN(MAX(need_bytes, had_bytes * 2), n_bytes);
                        continue;
                }
                require(r == 0 || r == -EBADMSG || r == -EOPNOTSUPP, "as documented");
                require(r == 0 || *fault.text, "a refusal has a reason");
                require(r == 0 || !list.tensors, "written only on success");
                check_list(&list, file_bytes);
                return;
        }
}

static void read_tensor(struct source *source, const struct source_tensor *t) {
        size_t n_rows = (size_t)MIN(t->n_rows, ROWS_READ);
        _cleanup_(freep) float *rows = malloc(n_rows * t->n_dims * sizeof(float));
        struct fault fault = { 0 };
        int r;

        require(rows, "malloc");
        require(!source_select(source, t->name, NULL, NULL, &fault), "what is listed can be had");
        require(source_selected(source) == t, "by its name");
        for (int last = 0; last < 2; last++) {
                r = source_read(source, last ? t->n_rows - n_rows : 0, n_rows, rows, &fault);
                require(r == 0 || r == -EDOM, "listed rows can be read");
        }
        require(source_read(source, t->n_rows, 1, rows, &fault) == -ERANGE, "and no others");
}

void fuzz_open(const uint8_t *bytes, size_t n_bytes) {
        static int fd = -1;
        static char path[32];
        _cleanup_(source_freep) struct source *source = NULL;
        struct fault fault = { 0 };
        size_t candidates[16], n_candidates;
        int r;

        if (fd < 0) {
                fd = memfd_create("fuzz", MFD_CLOEXEC);
                snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        }
        require(ftruncate(fd, (off_t)n_bytes) >= 0 &&
                        pwrite(fd, bytes, n_bytes, 0) == (ssize_t)n_bytes,
                "memfd");
        r = source_open(path, &source, &fault);
        require(r == 0 || *fault.text, "a refusal has a reason");
        if (r < 0)
                return;
        r = source_select(source, NULL, candidates, &n_candidates, &fault);
        require(r == 0 || r == -ENOENT || r == -ENOTUNIQ || r == -EOPNOTSUPP, "as documented");
        for (size_t i = 0; i < source_n_tensors(source) && i < 64; i++)
                read_tensor(source, source_tensor(source, i));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed table as a source: one nameless tensor whose rows are decoded. Makes it possible to pack
 * a packed table again, and to compare two of them. The file passes table_check() before anything
 * is read.
 */
#include "source-impl.h"

#include <string.h>

#include "mapped.h"
#include "rows.h"

static bool carvq_probe(const uint8_t *head, size_t head_bytes) {
        return head_bytes >= strlen(TABLE_MAGIC) &&
               memcmp(head, TABLE_MAGIC, strlen(TABLE_MAGIC)) == 0;
}

static int carvq_open(struct source *source, struct fault *ret_fault) {
        struct codec_file *file = calloc(1, sizeof(*file));
        struct fault why = { 0 };
        struct tensor *tensor;
        int r;

        if (!file)
                return -ENOMEM;
        source->private = file;
        r = codec_file_map(source->files[0].fd, file, &why);
        if (r < 0)
                return source_fault(ret_fault, r, source->files[0].path, "%s",
                                    *why.text ? why.text : strerror(-r));

        mapped_watch(source->files[0].path, file);

        const struct table_header *h = &file->table.contents.header;
        /* The tensor's dtype is what its rows are read as; its codec is nobody's business here. */
        return tensor_list_add(&source->list, "", 0, safetensors_dtype("F32"),
                               (const uint64_t[]){ h->n_rows, h->n_dims }, 2, &tensor, ret_fault);
}

static int carvq_read(struct source *source, uint64_t row_first, size_t n_rows, float *ret_values,
                      struct fault *ret_fault) {
        const struct codec_file *file = source->private;
        struct fault why = { 0 };
        int r = rows_decode(file, row_first, n_rows, ret_values, &why);

        rows_release(file, row_first, n_rows);
        if (r < 0)
                return source_fault(ret_fault, r, source->files[0].path, "%s",
                                    *why.text ? why.text : strerror(-r));
        return 0;
}

static void carvq_free(struct source *source) {
        if (source->private) {
                mapped_forget(source->private);
                codec_file_unmap(source->private);
        }
        free(source->private);
}

const struct source_format source_format_carvq = {
        .name = "carvq",
        .probe = carvq_probe,
        .open = carvq_open,
        .read = carvq_read,
        .free = carvq_free,
};

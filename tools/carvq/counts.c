/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts from a file or from rank, and what they are worth. A pass over the file at opening checks
 * all of it and estimates what rows that were never seen are worth.
 */
#include "counts.h"

#include <assert.h>
#include <string.h>

#include "counts-text.h"
#include "counts-unseen.h"

#define BLOCK_ROWS 8192u

struct counts {
        uint64_t n_rows;
        struct unseen unseen;
        struct source *source; /* NULL: by rank */
        bool is_text;
        struct counts_text text;
};

/* ---- .npy ---- */

#define DEFINE_DECODE(name, type)                                                                  \
        static void decode_##name(const uint8_t *blocks, size_t n_blocks, float *ret_values) {     \
                for (size_t i = 0; i < n_blocks; i++) {                                            \
                        type value;                                                                \
                                                                                                   \
                        memcpy(&value, blocks + i * sizeof(value), sizeof(value));                 \
                        ret_values[i] = (float)value;                                              \
                }                                                                                  \
        }

DEFINE_DECODE(i1, int8_t)
DEFINE_DECODE(i2, int16_t)
DEFINE_DECODE(i4, int32_t)
DEFINE_DECODE(i8, int64_t)
DEFINE_DECODE(u1, uint8_t)
DEFINE_DECODE(u2, uint16_t)
DEFINE_DECODE(u4, uint32_t)
DEFINE_DECODE(u8, uint64_t)

static const struct source_dtype dtypes[] = {
        { "|i1", 1, 1, decode_i1 },        { "<i2", 1, 2, decode_i2 },
        { "<i4", 1, 4, decode_i4 },        { "<i8", 1, 8, decode_i8 },
        { "|u1", 1, 1, decode_u1 },        { "<u2", 1, 2, decode_u2 },
        { "<u4", 1, 4, decode_u4 },        { "<u8", 1, 8, decode_u8 },
        { "<f2", 1, 2, dtype_decode_f16 }, { "<f4", 1, 4, dtype_decode_f32 },
        { "<f8", 1, 8, dtype_decode_f64 },
};

static const struct source_dtype *find_dtype(const char *descr) {
        for (size_t i = 0; i < ARRAY_SIZE(dtypes); i++)
                if (!strcmp(dtypes[i].name, descr))
                        return &dtypes[i];
        return NULL;
}

/* A list of one tensor with a column. */
static int check_npy(const void *bytes, size_t n_bytes, uint64_t file_bytes,
                     struct tensor_list *ret_list, uint64_t *ret_need_bytes,
                     struct fault *ret_fault) {
        const struct source_dtype *dtype;
        struct npy_header h;
        struct tensor *tensor;
        int r;

        r = npy_read_header(bytes, n_bytes, file_bytes, &h, ret_need_bytes, ret_fault);
        if (r < 0)
                return r;
        dtype = find_dtype(h.descr);
        if (!dtype)
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "descr: '%s', expected little-endian integers or floats", h.descr);
        /* One column is the same in either order. */
        if (h.n_axes != 1 && (h.n_axes != 2 || h.axes[1] != 1))
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "shape: %" PRIu32 " axes, expected 1 (a count for each row)",
                                 h.n_axes);
        h.axes[1] = 1;
        r = tensor_list_add(ret_list, "", 0, dtype, h.axes, 2, &tensor, ret_fault);
        if (r < 0)
                return r;
        if (tensor->n_bytes != file_bytes - h.data_offset)
                return fault_set(
                        ret_fault, -EBADMSG,
                        "%" PRIu64 " bytes of data, expected %" PRIu64 " (%" PRIu64 " x %s)",
                        file_bytes - h.data_offset, tensor->n_bytes, h.axes[0], dtype->name);
        tensor->offset = h.data_offset;
        return 0;
}

static int read_npy(struct counts *counts, uint64_t row_first, size_t n_rows, float *ret_counts,
                    struct fault *ret_fault) {
        const struct source_file *file = &counts->source->files[0];
        const struct tensor *tensor = &counts->source->list.tensors[0];
        uint8_t blocks[BLOCK_ROWS * sizeof(uint64_t)];
        size_t value_bytes = tensor->dtype->block_bytes, n;

        for (; n_rows; n_rows -= n, row_first += n, ret_counts += n) {
                int r;

                n = MIN(n_rows, BLOCK_ROWS);
                r = source_pread(file, blocks, n * value_bytes,
                                 tensor->offset + row_first * value_bytes, ret_fault);
                if (r < 0)
                        return r;
                tensor->dtype->decode(blocks, n, ret_counts);
                for (size_t i = 0; i < n; i++)
                        if (!count_is_sound(ret_counts[i]))
                                return source_fault(ret_fault, -EDOM, file->path,
                                                    "row %" PRIu64 ": found %g, expected a number"
                                                    " from 0 to 1e38",
                                                    row_first + i, (double)ret_counts[i]);
        }
        return 0;
}

/* ---- Text ---- */

static int read_text(struct counts *counts, uint64_t row_first, size_t n_rows, float *ret_counts,
                     struct fault *ret_fault) {
        struct counts_text *text = &counts->text;
        uint64_t end = row_first + n_rows;

        if (row_first < text->row)
                counts_text_init(text, text->file);
        while (text->row < end) {
                uint64_t row = text->row;
                float count;
                int r;

                r = counts_text_next(text, &count, ret_fault);
                if (r < 0)
                        return r;
                if (r == 0)
                        return source_fault(ret_fault, -EBADMSG, text->file->path,
                                            "%" PRIu64 " counts, expected %" PRIu64
                                            " (one for each row)",
                                            row, counts->n_rows);
                if (row >= row_first)
                        ret_counts[row - row_first] = count;
        }
        return 0;
}

/* After the last row's count. */
static int check_text_end(struct counts *counts, struct fault *ret_fault) {
        float count;
        int r = counts_text_next(&counts->text, &count, ret_fault);

        if (r > 0)
                return source_fault(ret_fault, -EBADMSG, counts->text.file->path,
                                    "line %" PRIu64 ": one count more than %" PRIu64
                                    ", expected one for each row",
                                    counts->text.line, counts->n_rows);
        return r;
}

/* ---- Weights ---- */

static int read_counts(struct counts *counts, uint64_t row_first, size_t n_rows, float *ret_counts,
                       struct fault *ret_fault) {
        return (counts->is_text ? read_text : read_npy)(counts, row_first, n_rows, ret_counts,
                                                        ret_fault);
}

static int survey(struct counts *counts, struct fault *ret_fault) {
        float block[BLOCK_ROWS];
        size_t n;
        int r = unseen_init(&counts->unseen, counts->n_rows);

        if (r < 0)
                return r;
        for (uint64_t row = 0; row < counts->n_rows; row += n) {
                n = MIN(counts->n_rows - row, BLOCK_ROWS);
                r = read_counts(counts, row, n, block, ret_fault);
                if (r < 0)
                        return r;
                unseen_add(&counts->unseen, row, block, n);
        }
        unseen_estimate(&counts->unseen);
        return counts->is_text ? check_text_end(counts, ret_fault) : 0;
}

static int open_file(struct counts *counts, const char *path, struct fault *ret_fault) {
        struct source *source = counts->source = calloc(1, sizeof(*source));
        uint8_t head[SOURCE_PROBE_BYTES];
        size_t head_bytes;
        int r;

        r = source ? source_add_file(source, path, ret_fault) : -ENOMEM;
        if (r < 0)
                return r;
        head_bytes = (size_t)MIN(source->files[0].n_bytes, sizeof(head));
        r = source_pread(&source->files[0], head, head_bytes, 0, ret_fault);
        if (r < 0)
                return r;
        if (!npy_probe(head, head_bytes)) {
                counts->is_text = true;
                counts_text_init(&counts->text, &source->files[0]);
                return 0;
        }
        r = source_scan(source, 0, check_npy, NPY_HEADER_BYTES_MAX, &source->list, ret_fault);
        if (r >= 0 && source->list.tensors[0].info.n_rows != counts->n_rows)
                r = source_fault(ret_fault, -EBADMSG, path,
                                 "%" PRIu64 " counts, expected %" PRIu64 " (one for each row)",
                                 source->list.tensors[0].info.n_rows, counts->n_rows);
        return r;
}

int counts_open(const char *path, uint64_t n_rows, struct counts **ret_counts,
                struct fault *ret_fault) {
        _cleanup_(counts_freep) struct counts *counts = calloc(1, sizeof(*counts));
        int r = counts ? 0 : -ENOMEM;

        if (r >= 0)
                counts->n_rows = n_rows;
        if (r >= 0 && strcmp(path, "rank") != 0) {
                r = open_file(counts, path, ret_fault);
                if (r >= 0)
                        r = survey(counts, ret_fault);
        }
        if (r == -ENOMEM)
                source_fault(ret_fault, r, path, "out of memory");
        if (r < 0)
                return r;
        *ret_counts = steal_pointer(&counts);
        return 0;
}

void counts_free(struct counts *counts) {
        if (!counts)
                return;
        unseen_deinit(&counts->unseen);
        source_free(counts->source);
        free(counts);
}

int counts_read(struct counts *counts, uint64_t row_first, size_t n_rows, float *ret_weights,
                struct fault *ret_fault) {
        int r;

        assert(range_inside(row_first, n_rows, counts->n_rows));
        if (!counts->source) {
                /* Zipf's law with Mandelbrot's offset: what frequencies of words follow. */
                for (size_t i = 0; i < n_rows; i++)
                        ret_weights[i] = (float)(1 / ((double)(row_first + i) + 2.7));
                return 0;
        }
        r = read_counts(counts, row_first, n_rows, ret_weights, ret_fault);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_rows; i++)
                if (ret_weights[i] == 0)
                        ret_weights[i] = (float)unseen_share(&counts->unseen, row_first + i);
        return 0;
}

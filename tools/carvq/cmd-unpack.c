/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq unpack: a packed table back to .npy or .safetensors, block by block. Main thread decodes
 * and writes: the disk is slower than one core.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "lib/codec/half.h"
#include "progress.h"
#include "rows.h"
#include "writer.h"

#define BLOCK_BYTES      (4u << 20)
#define HEADER_BYTES_MAX 4096u

static const char help[] =
        "Usage: carvq unpack FILE -o OUT.npy|OUT.safetensors [OPTION]...\n"
        "\n"
        "Decodes all rows of a .carvq file. OUT appears whole or not at all.\n"
        "\n"
        "  -o, --output OUT        the file to write; its ending chooses the format\n"
        "      --dtype TYPE        f32 (default), f16, or bf16 (safetensors only)\n"
        "      --quiet             no progress\n"
        "      --help\n"
        "\n"
        "In .safetensors the tensor keeps the name that it was packed from, else \"embedding\".\n"
        "\n"
        "Exit status: 0 done; 2 wrong usage; 3 failure.\n";

static const struct {
        const char *name, *npy, *safetensors;
} dtypes[] = {
        [CODEC_TYPE_F32] = { "f32", "<f4", "F32" },
        [CODEC_TYPE_F16] = { "f16", "<f2", "F16" },
        [CODEC_TYPE_BF16] = { "bf16", NULL, "BF16" },
};

struct options {
        const char *file_path, *out_path;
        uint32_t dtype;
        bool npy, quiet;
};

/* ---- Headers ---- */

/* NumPy's format 1.0: magic, u16 length, a Python literal, padded so that data starts at 64 k. */
static size_t npy_header(const struct table_header *h, uint32_t dtype, char *ret_bytes) {
        char *text = ret_bytes + 10;
        size_t n = (size_t)snprintf(text, HEADER_BYTES_MAX - 10,
                                    "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64
                                    ", %" PRIu32 "), }",
                                    dtypes[dtype].npy, h->n_rows, h->n_dims);
        size_t total = align_up(10 + n + 1, 64);

        memset(text + n, ' ', total - 10 - n);
        ret_bytes[total - 1] = '\n';
        memcpy(ret_bytes, "\x93NUMPY\x01\x00", 8);
        ret_bytes[8] = (char)((total - 10) & 0xff);
        ret_bytes[9] = (char)((total - 10) >> 8);
        return total;
}

/* u64 length, JSON, padded with spaces so that the tensor is aligned. 0: does not fit. */
static size_t safetensors_header(const struct codec_file *file, uint32_t dtype, char *ret_bytes) {
        const struct table_header *h = &file->table.contents.header;
        uint64_t n_bytes = h->n_rows * h->n_dims * codec_type_bytes(dtype), header_bytes;
        json_t *meta = cli_table_meta(file), *root;
        const char *name = json_string_value(json_object_get(meta, "source_tensor"));
        size_t n, total;

        root = json_pack("{s:{s:s, s:[I, I], s:[I, I]}}", name && *name ? name : "embedding",
                         "dtype", dtypes[dtype].safetensors, "shape", (json_int_t)h->n_rows,
                         (json_int_t)h->n_dims, "data_offsets", (json_int_t)0, (json_int_t)n_bytes);
        n = json_dumpb(root, ret_bytes + 8, HEADER_BYTES_MAX - 64, JSON_COMPACT);
        json_decref(root);
        json_decref(meta);
        if (n == 0 || n > HEADER_BYTES_MAX - 64)
                return 0;
        total = align_up(8 + n, 64);
        memset(ret_bytes + 8 + n, ' ', total - 8 - n);
        header_bytes = total - 8;
        memcpy(ret_bytes, &header_bytes, sizeof(header_bytes));
        return total;
}

/* ---- Rows ---- */

/* In place: each value is read before its half as wide place is written. */
static int convert(float *values, size_t n, uint32_t dtype, size_t *ret_bad) {
        uint16_t *narrow = (uint16_t *)values;

        for (size_t i = 0; dtype != CODEC_TYPE_F32 && i < n; i++) {
                float value;
                uint16_t bits;

                memcpy(&value, (char *)values + i * sizeof(value), sizeof(value));
                bits = dtype == CODEC_TYPE_F16 ? float_to_half(value) : float_to_bf16(value);
                if ((dtype == CODEC_TYPE_F16 && (bits & 0x7c00) == 0x7c00) ||
                    (dtype == CODEC_TYPE_BF16 && (bits & 0x7f80) == 0x7f80)) {
                        *ret_bad = i;
                        return -ERANGE;
                }
                memcpy(&narrow[i], &bits, sizeof(bits));
        }
        return 0;
}

static int unpack_rows(const struct options *o, const struct codec_file *file,
                       struct writer *writer, uint64_t *offset, struct progress *progress,
                       struct fault *ret_fault) {
        const struct table_header *h = &file->table.contents.header;
        size_t n_dims = h->n_dims, n_block = MAX(BLOCK_BYTES / sizeof(float) / n_dims, 1u), bad;
        _cleanup_(freep) float *values = malloc(n_block * n_dims * sizeof(float));

        if (!values)
                return -ENOMEM;
        progress_begin(progress, "unpack", "rows", h->n_rows);
        for (uint64_t row = 0; row < h->n_rows; row += n_block) {
                size_t n = (size_t)MIN(n_block, h->n_rows - row);
                size_t n_bytes = n * n_dims * codec_type_bytes(o->dtype);
                int r = rows_decode(file, row, n, values, ret_fault);

                if (r < 0)
                        return r;
                rows_release(file, row, n);
                if (convert(values, n * n_dims, o->dtype, &bad) < 0)
                        return fault_set(ret_fault, -ERANGE,
                                         "row %" PRIu64 ", column %zu: the value is outside the "
                                         "range of %s; use --dtype f32",
                                         row + bad / n_dims, bad % n_dims, dtypes[o->dtype].name);
                r = writer_write(writer, *offset, values, n_bytes, ret_fault);
                if (r < 0)
                        return r;
                *offset += n_bytes;
                progress_update(progress, row + n);
        }
        return 0;
}

static int unpack(const struct options *o, const struct codec_file *file, struct progress *progress,
                  struct fault *ret_fault) {
        _cleanup_(writer_deinit) struct writer writer = WRITER_INIT;
        char header[HEADER_BYTES_MAX];
        struct stat st;
        uint64_t offset;
        int r;

        offset = o->npy ? npy_header(&file->table.contents.header, o->dtype, header)
                        : safetensors_header(file, o->dtype, header);
        if (offset == 0)
                return fault_set(ret_fault, -EINVAL, "the tensor's name is too long");
        r = writer_open(&writer, o->out_path, ret_fault);
        if (r >= 0 && stat(o->file_path, &st) == 0)
                r = writer_check_source(&writer, &st, ret_fault);
        if (r >= 0)
                r = writer_write(&writer, 0, header, offset, ret_fault);
        if (r >= 0)
                r = unpack_rows(o, file, &writer, &offset, progress, ret_fault);
        if (r < 0)
                return r;
        progress_end(progress);
        return writer_commit(&writer, offset, ret_fault);
}

/* ---- Options ---- */

static bool ends_with(const char *text, const char *end) {
        size_t n = strlen(text), n_end = strlen(end);

        return n > n_end && strcmp(text + n - n_end, end) == 0;
}

static int parse_dtype(const char *text, uint32_t *ret_dtype) {
        for (uint32_t i = 0; i < ARRAY_SIZE(dtypes); i++)
                if (!strcmp(text, dtypes[i].name)) {
                        *ret_dtype = i;
                        return 0;
                }
        return -EINVAL;
}

static int check_format(struct options *o) {
        o->npy = ends_with(o->out_path, ".npy");
        if (!o->npy && !ends_with(o->out_path, ".safetensors"))
                return cli_usage("unpack", "%s: expected a name ending in .npy or .safetensors",
                                 o->out_path);
        if (o->npy && !dtypes[o->dtype].npy)
                return cli_usage("unpack", ".npy has no bf16: use a .safetensors name or --dtype "
                                           "f32");
        return CLI_OK;
}

int cmd_unpack(int argc, char **argv) {
        static const struct option long_options[] = {
                { "output", required_argument, NULL, 'o' },
                { "dtype", required_argument, NULL, 'd' },
                { "quiet", no_argument, NULL, 'q' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct options o = { .dtype = CODEC_TYPE_F32 };
        struct codec_file file = { 0 };
        struct fault fault = { 0 };
        struct progress progress;
        int option, r;

        opterr = 0;
        while ((option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1)
                switch (option) {
                case 'o':
                        o.out_path = optarg;
                        break;
                case 'd':
                        if (parse_dtype(optarg, &o.dtype) < 0)
                                return cli_usage("unpack", "--dtype: bad value \"%s\"", optarg);
                        break;
                case 'q':
                        o.quiet = true;
                        break;
                case 'h':
                        return cli_print_help(help);
                default:
                        return cli_bad_option("unpack", option, argv);
                }
        if (optind + 1 != argc || !o.out_path)
                return cli_usage("unpack", "expected one FILE and -o OUT");
        o.file_path = argv[optind];
        r = check_format(&o);
        if (r != CLI_OK)
                return r;

        progress_init(&progress, o.quiet);
        r = cli_map_table(o.file_path, &file, &fault);
        if (r >= 0)
                r = unpack(&o, &file, &progress, &fault);
        codec_file_unmap(&file);
        progress_abort(&progress);
        if (r < 0)
                return cli_fail(strstr(fault.text, o.out_path) == fault.text ? o.out_path
                                                                             : o.file_path,
                                r, &fault);
        return cli_finish(CLI_OK);
}

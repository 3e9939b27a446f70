/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq eval: decodes a packed table as a reader would and compares every row with its source.
 * Fixed blocks on several threads, sums in block order.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "closeness.h"
#include "parallel.h"
#include "progress.h"
#include "rows.h"
#include "source.h"

#define BLOCK_BYTES       (1u << 20)
#define BLOCKS_PER_THREAD 4u

static const char help[] =
        "Usage: carvq eval FILE SRC [OPTION]...\n"
        "\n"
        "Compares all rows of a .carvq file with the table they were packed from.\n"
        "\n"
        "      --tensor NAME       the tensor of SRC; default: the one that FILE was packed from\n"
        "      --json              one object: rel_mse, cosine_mean, cosine_min, max_abs_err,\n"
        "                          bits_per_param, n_rows, n_dims\n"
        "      --threads N         default: all CPUs; the result does not depend on it\n"
        "      --quiet             no progress\n"
        "      --help\n"
        "\n"
        "rel_mse is the sum of squared differences over the sum of squares of the source.\n"
        "\n"
        "Exit status: 0 done; 2 wrong usage; 3 failure.\n";

struct evaluation {
        const struct codec_file *file;
        struct source *source;
        uint64_t row_first; /* of the wave */
        size_t n_block_rows;
        struct closeness *blocks;
};

static int eval_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct evaluation *e = userdata;
        const struct table_header *h = &e->file->table.contents.header;
        uint64_t first = e->row_first + item * e->n_block_rows;
        size_t n = (size_t)MIN(e->n_block_rows, h->n_rows - first), n_dims = h->n_dims;
        _cleanup_(freep) float *rows = malloc(n * n_dims * sizeof(float));
        _cleanup_(freep) float *decoded = malloc(n * n_dims * sizeof(float));
        int r;

        (void)thread;
        r = rows && decoded ? source_read(e->source, first, n, rows, ret_fault) : -ENOMEM;
        if (r >= 0)
                r = rows_decode(e->file, first, n, decoded, ret_fault);
        if (r < 0)
                return r;
        rows_release(e->file, first, n);
        closeness_init(&e->blocks[item]);
        for (size_t i = 0; i < n; i++)
                closeness_add_row(&e->blocks[item], rows + i * n_dims, decoded + i * n_dims,
                                  h->n_dims);
        return 0;
}

static int evaluate(const struct codec_file *file, struct source *source, unsigned n_threads,
                    struct progress *progress, struct closeness *ret_closeness,
                    struct fault *ret_fault) {
        const struct table_header *h = &file->table.contents.header;
        size_t n_blocks = (size_t)n_threads * BLOCKS_PER_THREAD;
        struct closeness blocks[PARALLEL_THREADS_MAX * BLOCKS_PER_THREAD];
        struct evaluation e = { file, source, 0, MAX(BLOCK_BYTES / 4 / h->n_dims, 1u), blocks };

        closeness_init(ret_closeness);
        progress_begin(progress, "eval", "rows", h->n_rows);
        for (; e.row_first < h->n_rows; e.row_first += n_blocks * e.n_block_rows) {
                size_t n = (size_t)MIN(n_blocks,
                                       div_round_up(h->n_rows - e.row_first, e.n_block_rows));
                int r = parallel_for(n_threads, n, eval_block, &e, ret_fault);

                if (r < 0)
                        return r;
                for (size_t i = 0; i < n; i++)
                        closeness_add(ret_closeness, &blocks[i]);
                progress_update(progress, MIN(h->n_rows, e.row_first + n_blocks * e.n_block_rows));
        }
        progress_end(progress);
        return 0;
}

static void report(const struct table_header *h, const struct closeness *c, bool json) {
        const struct {
                const char *name;
                double value;
        } figures[] = {
                { "rel_mse", closeness_rel_mse(c) },
                { "cosine_mean", closeness_cosine_mean(c) },
                { "cosine_min", c->cosine_min },
                { "max_abs_err", c->max_abs_error },
                { "bits_per_param", table_bits_per_param(h) },
        };

        if (json)
                printf("{\"n_rows\": %" PRIu64 ", \"n_dims\": %" PRIu32, h->n_rows, h->n_dims);
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (json)
                        printf(", \"%s\": %.9g", figures[i].name, figures[i].value);
                else
                        printf("%-15s %.9g\n", figures[i].name, figures[i].value);
        if (json)
                printf("}\n");
}

/* The tensor the file says it came from, if it says and nobody asked for another. */
static int select_tensor(struct source *source, const struct codec_file *file, const char *name,
                         struct fault *ret_fault) {
        json_t *meta = name ? NULL : cli_table_meta(file);
        const char *packed = json_string_value(json_object_get(meta, "source_tensor"));
        size_t candidates[16], n = 0;
        int r = -ENOENT;

        if (packed && *packed)
                r = source_select(source, packed, candidates, &n, ret_fault);
        json_decref(meta);
        if (r == -ENOENT)
                r = source_select(source, name, candidates, &n, ret_fault);
        return r;
}

struct options {
        const char *file_path, *source_path, *tensor;
        uint64_t n_threads;
        bool json, quiet;
};

static int check_shapes(const struct options *o, const struct codec_file *file,
                        const struct source *source, struct fault *ret_fault) {
        const struct table_header *h = &file->table.contents.header;
        const struct source_tensor *t = source_selected(source);

        if (t->n_rows == h->n_rows && t->n_dims == h->n_dims)
                return 0;
        return fault_set(ret_fault, -EINVAL,
                         "%s: the tensor has %" PRIu64 " x %" PRIu32 " values, %s has %" PRIu64
                         " x %" PRIu32,
                         o->source_path, t->n_rows, t->n_dims, o->file_path, h->n_rows, h->n_dims);
}

static int run(const struct options *o, struct codec_file *file, struct source **ret_source) {
        struct progress progress;
        struct closeness closeness;
        struct fault fault = { 0 };
        const char *subject = o->file_path;
        int r;

        progress_init(&progress, o->quiet);
        r = cli_map_table(o->file_path, file, &fault);
        if (r >= 0) {
                subject = o->source_path;
                r = source_open(o->source_path, ret_source, &fault);
        }
        if (r >= 0)
                r = select_tensor(*ret_source, file, o->tensor, &fault);
        if (r >= 0)
                r = check_shapes(o, file, *ret_source, &fault);
        if (r >= 0)
                r = evaluate(file, *ret_source, (unsigned)o->n_threads, &progress, &closeness,
                             &fault);
        progress_abort(&progress);
        if (r < 0)
                /* What starts with a row number comes from decoding the packed file. */
                return cli_fail(strncmp(fault.text, "row ", 4) == 0 ? o->file_path : subject, r,
                                &fault);
        report(&file->table.contents.header, &closeness, o->json);
        return cli_finish(CLI_OK);
}

int cmd_eval(int argc, char **argv) {
        static const struct option long_options[] = {
                { "tensor", required_argument, NULL, 't' },  { "json", no_argument, NULL, 'j' },
                { "threads", required_argument, NULL, 'n' }, { "quiet", no_argument, NULL, 'q' },
                { "help", no_argument, NULL, 'h' },          { NULL, 0, NULL, 0 },
        };
        struct options o = { .n_threads = parallel_default_threads() };
        struct codec_file file = { 0 };
        struct source *source = NULL;
        int option, status;

        opterr = 0;
        while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
                switch (option) {
                case 't':
                        o.tensor = optarg;
                        break;
                case 'j':
                        o.json = true;
                        break;
                case 'n':
                        if (cli_parse_u64(optarg, 1, PARALLEL_THREADS_MAX, &o.n_threads) < 0)
                                return cli_usage("eval", "--threads: bad value \"%s\"", optarg);
                        break;
                case 'q':
                        o.quiet = true;
                        break;
                case 'h':
                        return cli_print_help(help);
                default:
                        return cli_bad_option("eval", option, argv);
                }
        if (optind + 2 != argc)
                return cli_usage("eval", "expected FILE and SRC");
        o.file_path = argv[optind];
        o.source_path = argv[optind + 1];
        status = run(&o, &file, &source);
        source_free(source);
        codec_file_unmap(&file);
        return status;
}

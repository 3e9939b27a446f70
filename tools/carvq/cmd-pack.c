/* SPDX-License-Identifier: Apache-2.0 */
/* carvq pack: options, the choice of a tensor, the report. Main thread. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cli.h"
#include "pack.h"
#include "parallel.h"

static const char help[] =
        "Usage: carvq pack SRC -o OUT.carvq [OPTION]...\n"
        "\n"
        "Compresses one embedding table of SRC (.safetensors, .safetensors.index.json, .gguf,\n"
        ".npy, .carvq). OUT appears whole or not at all.\n"
        "\n"
        "  -o, --output OUT        the file to write\n"
        "      --tensor NAME       the tensor; default: the one whose name models use for\n"
        "                          embeddings\n"
        "      --codec CODEC       carvq (default), f32, f16, bf16, int8, int4\n"
        "      --threads N         1 to 256, default: all CPUs; the result does not depend on it\n"
        "      --seed S            default 1; same input, options and seed: same bytes (with a\n"
        "                          trained adaptor: on CPUs for which OpenBLAS has the same\n"
        "                          kernels)\n"
        "      --quiet             errors only\n"
        "      --help\n"
        "\n"
        "Of the carvq codec:\n"
        "      --bits B            of the file, for each parameter, at most, all included:\n"
        "                          1.0 to 8.0, default 1.6; 2.4 is nearly lossless\n"
        "      --counts FILE       how often each row is used (.npy, or a number on each line):\n"
        "                          rows that are used more get more of the bits. rank: as if\n"
        "                          the first row were used most, as in BPE vocabularies\n"
        "      --preset PRESET     fast, default, or best: time for closeness\n"
        "      --row-scale WHEN    a scale for each row: auto (default, by measurement), on, off\n"
        "      --col-scale WHEN    a scale for each column: auto (default), on, off\n"
        "      --adaptor SHAPE     auto (default): what pays; none; M: means and M principal\n"
        "                          components, 0: means alone; MxH1[xH2]: latent and hidden\n"
        "                          dimensions of a network, trained. A given shape is kept only\n"
        "                          if it lowers the error at equal bytes\n"
        "      --adaptor-order O   auto (default): what pays; before: codes stand for what the\n"
        "                          adaptor leaves of a row; after: the adaptor for what the\n"
        "                          codes leave; alternate: in turn, each for what the other\n"
        "                          leaves, which takes longer\n"
        "      --adaptor-weights W of a given network: auto (default), half, int8\n"
        "      --adaptor-force     keeps a given shape anyway\n"
        "\n"
        "The codes themselves, instead of --bits:\n"
        "      --stages L          stages of the residual quantization, 1 to 16, default 3\n"
        "      --codebook-bits K   bits of a code, 1 to 8, default 4\n"
        "      --window S          bits that choose a centroid, K (default: 2^K centroids), or\n"
        "                          up to 16: with those of the codes before; one stage only\n"
        "      --subvector H       dimensions of a sub-vector, 1 to 64, default 8\n"
        "      --group ROWSxCOLS   rows and sub-vectors that share codebooks, 0 or all: all of\n"
        "                          them; or global, the same as allxall; default allx64\n"
        "      --beam W            prefixes that the search keeps between stages, 1 (greedy) to\n"
        "                          1024, default 16; up to 12 bits of stages all are tried,\n"
        "                          unless W is given\n"
        "\n"
        "Exit status: 0 done; 2 wrong usage; 3 failure.\n";

struct options {
        const char *source_path, *out_path, *tensor;
        struct plan_request request;
        bool quiet;
        uint64_t group_rows, group_cols;
        const char *counts;       /* NULL: none */
        const char *bits_option;  /* one that only --bits has use for; NULL: none was given */
        const char *shape_option; /* one of the codes themselves; NULL: none was given */
        const char *carvq_option; /* one that only the carvq codec has; NULL: none was given */
};

/* ---- Options ---- */

static int parse_share(const char *text, uint64_t max, uint64_t *ret_value) {
        if (!strcmp(text, "all")) {
                *ret_value = 0;
                return 0;
        }
        return cli_parse_u64(text, 0, max, ret_value);
}

static int parse_group(const char *text, uint64_t *ret_rows, uint64_t *ret_cols) {
        _cleanup_(freep) char *rows = strdup(text);
        char *cols;

        if (!rows)
                return -ENOMEM;
        if (!strcmp(rows, "global")) {
                *ret_rows = *ret_cols = 0;
                return 0;
        }
        cols = strchr(rows, 'x');
        if (!cols)
                return -EINVAL;
        *cols++ = '\0';
        if (parse_share(rows, TABLE_ROWS_MAX, ret_rows) < 0)
                return -EINVAL;
        return parse_share(cols, TABLE_DIMS_MAX, ret_cols);
}

/* M, or MxH1, or MxH1xH2. */
static int parse_adaptor(const char *text, struct plan_request *request) {
        struct adaptor_shape *s = &request->adaptor_shape;
        char rest;
        int n;

        if (!strcmp(text, "none") || !strcmp(text, "auto")) {
                request->adaptor = *text == 'n' ? PLAN_OFF : PLAN_AUTO;
                return 0;
        }
        if (*text < '0' || *text > '9') /* sscanf takes blanks and signs */
                return -EINVAL;
        memset(s->hidden_dims, 0, sizeof(s->hidden_dims));
        n = sscanf(text, "%5" SCNu32 "x%5" SCNu32 "x%5" SCNu32 "%c", &s->latent_dims,
                   &s->hidden_dims[0], &s->hidden_dims[1], &rest);
        request->adaptor = PLAN_ON;
        if (n > 3 || s->latent_dims > ADAPTOR_LATENT_MAX || (n > 1 && s->latent_dims < 1))
                return -EINVAL;
        for (int i = 0; i < n - 1; i++)
                if (s->hidden_dims[i] < 1 || s->hidden_dims[i] > ADAPTOR_HIDDEN_MAX)
                        return -EINVAL;
        /* sscanf takes "2x8x" for two numbers, and "2y" for one. */
        return text[strspn(text, "0123456789x")] || text[strlen(text) - 1] == 'x' ? -EINVAL : 0;
}

/* The index of `text` among names, of which NULL is the end. */
static int parse_name(const char *text, const char *const *names, uint32_t *ret_index) {
        for (uint32_t i = 0; names[i]; i++)
                if (!strcmp(text, names[i])) {
                        *ret_index = i;
                        return 0;
                }
        return -EINVAL;
}

static int parse_choice(const char *text, enum plan_choice *ret_choice) {
        return parse_name(text, (const char *const[]){ "auto", "off", "on", NULL }, ret_choice);
}

static int parse_order(const char *text, struct plan_request *request) {
        static const char *const names[] = { "before", "after", "alternate", NULL };

        request->order_given = strcmp(text, "auto") != 0;
        return request->order_given ? parse_name(text, names, &request->order) : 0;
}

static int parse_weights(const char *text, enum table_adaptor *ret_type) {
        return parse_name(text, (const char *const[]){ "auto", "half", "int8", NULL }, ret_type);
}

static int parse_preset(const char *text, enum plan_preset *ret_preset) {
        return parse_name(text, (const char *const[]){ "fast", "default", "best", NULL },
                          ret_preset);
}

static int parse_bits(const char *text, double *ret_bits) {
        char *end;
        double bits = strtod(text, &end);

        if (*text < '0' || *text > '9' || *end || !(bits >= 1) || bits > 8)
                return -EINVAL;
        *ret_bits = bits;
        return 0;
}

enum pack_option {
        OPTION_TENSOR = 256,
        OPTION_CODEC,
        OPTION_BITS, /* the carvq codec's from here ... */
        OPTION_COUNTS,
        OPTION_STAGES, /* ... of these, the codes themselves from here ... */
        OPTION_CODEBOOK_BITS,
        OPTION_WINDOW,
        OPTION_SUBVECTOR,
        OPTION_GROUP,
        OPTION_BEAM, /* ... to here ... */
        OPTION_PRESET,
        OPTION_ROW_SCALE,
        OPTION_COL_SCALE,
        OPTION_ADAPTOR,
        OPTION_ADAPTOR_ORDER,
        OPTION_ADAPTOR_WEIGHTS,
        OPTION_ADAPTOR_FORCE, /* ... to here */
        OPTION_THREADS,
        OPTION_SEED,
        OPTION_QUIET,
        OPTION_HELP,
};

static const struct option long_options[] = {
        { "output", required_argument, NULL, 'o' },
        { "tensor", required_argument, NULL, OPTION_TENSOR },
        { "codec", required_argument, NULL, OPTION_CODEC },
        { "bits", required_argument, NULL, OPTION_BITS },
        { "counts", required_argument, NULL, OPTION_COUNTS },
        { "preset", required_argument, NULL, OPTION_PRESET },
        { "stages", required_argument, NULL, OPTION_STAGES },
        { "codebook-bits", required_argument, NULL, OPTION_CODEBOOK_BITS },
        { "window", required_argument, NULL, OPTION_WINDOW },
        { "beam", required_argument, NULL, OPTION_BEAM },
        { "subvector", required_argument, NULL, OPTION_SUBVECTOR },
        { "group", required_argument, NULL, OPTION_GROUP },
        { "row-scale", required_argument, NULL, OPTION_ROW_SCALE },
        { "col-scale", required_argument, NULL, OPTION_COL_SCALE },
        { "adaptor", required_argument, NULL, OPTION_ADAPTOR },
        { "adaptor-order", required_argument, NULL, OPTION_ADAPTOR_ORDER },
        { "adaptor-weights", required_argument, NULL, OPTION_ADAPTOR_WEIGHTS },
        { "adaptor-force", no_argument, NULL, OPTION_ADAPTOR_FORCE },
        { "threads", required_argument, NULL, OPTION_THREADS },
        { "seed", required_argument, NULL, OPTION_SEED },
        { "quiet", no_argument, NULL, OPTION_QUIET },
        { "help", no_argument, NULL, OPTION_HELP },
        { NULL, 0, NULL, 0 },
};

static int parse_u32(const char *text, uint32_t max, uint32_t *ret_value) {
        uint64_t value;
        int r = cli_parse_u64(text, 1, max, &value);

        if (r >= 0)
                *ret_value = (uint32_t)value;
        return r;
}

/* One option's value: 0, or -EINVAL where it has none of the values that --help lists. */
static int parse_value(struct options *o, int option, const char *text) {
        struct plan_request *request = &o->request;

        switch (option) {
        case 'o':
                o->out_path = text;
                return *text ? 0 : -EINVAL;
        case OPTION_TENSOR:
                o->tensor = text;
                return 0;
        case OPTION_CODEC:
                return table_codec_parse(text, &request->header.codec);
        case OPTION_BITS:
                request->bits_given = true;
                return parse_bits(text, &request->bits);
        case OPTION_COUNTS:
                o->counts = text;
                return *text ? 0 : -EINVAL;
        case OPTION_PRESET:
                return parse_preset(text, &request->preset);
        case OPTION_STAGES:
                return parse_u32(text, TABLE_STAGES_MAX, &request->header.n_stages);
        case OPTION_CODEBOOK_BITS:
                return parse_u32(text, 8, &request->header.codebook_bits);
        case OPTION_WINDOW:
                return parse_u32(text, TABLE_WINDOW_BITS_MAX, &request->header.window_bits);
        case OPTION_BEAM:
                return parse_u32(text, RVQ_WIDTH_MAX, &request->width);
        case OPTION_SUBVECTOR:
                return parse_u32(text, TABLE_SUBVECTOR_DIMS_MAX, &request->header.subvector_dims);
        case OPTION_GROUP:
                return parse_group(text, &o->group_rows, &o->group_cols);
        case OPTION_ROW_SCALE:
                return parse_choice(text, &request->row_scale);
        case OPTION_COL_SCALE:
                return parse_choice(text, &request->col_scale);
        case OPTION_ADAPTOR:
                return parse_adaptor(text, request);
        case OPTION_ADAPTOR_ORDER:
                return parse_order(text, request);
        case OPTION_ADAPTOR_WEIGHTS:
                return parse_weights(text, &request->adaptor_shape.type);
        case OPTION_ADAPTOR_FORCE:
                request->adaptor_force = true;
                return 0;
        case OPTION_THREADS:
                return parse_u32(text, PARALLEL_THREADS_MAX, &request->n_threads);
        case OPTION_SEED:
                return cli_parse_u64(text, 0, INT64_MAX, &request->seed);
        default:
                o->quiet = true;
                return 0;
        }
}

/* Options of an adaptor that there will not be. */
static int check_adaptor(const struct plan_request *request) {
        if (request->adaptor_force && request->adaptor != PLAN_ON)
                return cli_usage("pack", "--adaptor-force needs --adaptor M or MxH1[xH2]");
        if (request->adaptor_shape.type && !request->adaptor_shape.hidden_dims[0])
                return cli_usage("pack", "--adaptor-weights needs --adaptor MxH1[xH2]");
        if (request->order_given && request->adaptor == PLAN_OFF)
                return cli_usage("pack", "--adaptor-order needs an adaptor, not --adaptor none");
        return CLI_OK;
}

/* CLI_OK, with *ret_help set when there is nothing more to do. */
static int parse_options(struct options *o, int argc, char **argv, bool *ret_help) {
        int option, index = 0, r;

        opterr = 0;
        *ret_help = false;
        while ((option = getopt_long(argc, argv, ":o:h", long_options, &index)) != -1) {
                if (option == 'h' || option == OPTION_HELP) {
                        *ret_help = true;
                        return cli_print_help(help);
                }
                if (option == ':' || option == '?')
                        return cli_bad_option("pack", option, argv);
                if (option >= OPTION_BITS && option <= OPTION_ADAPTOR_FORCE)
                        o->carvq_option = long_options[index].name;
                if (option == OPTION_BITS || option == OPTION_COUNTS)
                        o->bits_option = long_options[index].name;
                if (option >= OPTION_STAGES && option <= OPTION_BEAM)
                        o->shape_option = long_options[index].name;
                if (parse_value(o, option, optarg) < 0)
                        return cli_usage("pack", "%s%s: bad value \"%s\"",
                                         option == 'o' ? "-" : "--",
                                         option == 'o' ? "o" : long_options[index].name, optarg);
        }
        if (optind + 1 != argc || !o->out_path)
                return cli_usage("pack", "expected one SRC and -o OUT.carvq");
        if (o->carvq_option && o->request.header.codec != TABLE_CODEC_CARVQ)
                return cli_usage("pack", "--%s is of the carvq codec, not of %s", o->carvq_option,
                                 table_codec_name(o->request.header.codec));
        if (o->bits_option && o->shape_option)
                return cli_usage("pack", "--%s and --%s exclude each other", o->bits_option,
                                 o->shape_option);
        if (o->request.header.window_bits &&
            (o->request.header.window_bits < o->request.header.codebook_bits ||
             (o->request.header.window_bits > o->request.header.codebook_bits &&
              o->request.header.n_stages > 1)))
                return cli_usage("pack", "--window needs --stages 1 and at least --codebook-bits");
        r = check_adaptor(&o->request);
        if (r != CLI_OK)
                return r;
        o->source_path = argv[optind];
        return CLI_OK;
}

/* Parameters that depend on the table's shape. */
static void complete_header(struct options *o, const struct source_tensor *tensor) {
        struct table_header *h = &o->request.header;

        h->n_rows = tensor->n_rows;
        h->n_dims = tensor->n_dims;
        o->request.adaptor_shape.n_dims = tensor->n_dims;
        o->request.shape_given = o->shape_option != NULL;
        if (h->codec != TABLE_CODEC_CARVQ || !o->shape_option) {
                h->n_stages = h->codebook_bits = h->window_bits = h->subvector_dims = 0;
                return;
        }
        h->window_bits = h->window_bits ? h->window_bits : h->codebook_bits;
        table_set_one_tier(h, h->n_stages);
        h->subvector_dims = MIN(h->subvector_dims, h->n_dims);
        h->group_rows = o->group_rows ? MIN(o->group_rows, h->n_rows) : h->n_rows;
        h->group_cols = (uint32_t)(o->group_cols ? o->group_cols
                                                 : div_round_up(h->n_dims, h->subvector_dims));
}

/* ---- The tensor ---- */

static void list_candidates(const struct source *source, const size_t *candidates, size_t n) {
        for (size_t i = 0; i < n; i++) {
                const struct source_tensor *t = source_tensor(source, candidates[i]);

                fprintf(stderr, "  %2zu  %s  %" PRIu64 " x %" PRIu32 " %s\n", i + 1, t->name,
                        t->n_rows, t->n_dims, t->dtype);
        }
}

static int ask(size_t n, size_t *ret_choice) {
        char line[32];
        uint64_t choice;

        fprintf(stderr, "Which one? [1-%zu] ", n);
        if (!fgets(line, sizeof(line), stdin))
                return -ECANCELED;
        line[strcspn(line, "\n")] = '\0';
        if (cli_parse_u64(line, 1, n, &choice) < 0)
                return -EINVAL;
        *ret_choice = choice - 1;
        return 0;
}

static int select_tensor(struct source *source, const struct options *o, struct fault *ret_fault) {
        size_t candidates[16], n = 0, choice;
        int r;

        r = source_select(source, o->tensor, candidates, &n, ret_fault);
        if (r != -ENOTUNIQ)
                return r;
        fprintf(stderr, "carvq: %s: several tensors may be the embedding\n", o->source_path);
        list_candidates(source, candidates, n);
        if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
                return fault_set(ret_fault, r, "%s: choose one with --tensor NAME", o->source_path);
        r = ask(n, &choice);
        if (r < 0)
                return fault_set(ret_fault, r, "%s: no tensor chosen", o->source_path);
        return source_select(source, source_tensor(source, candidates[choice])->name, candidates,
                             &n, ret_fault);
}

/* ---- The report ---- */

static void report_tier(const struct table_header *h, uint32_t t, uint64_t n_bytes) {
        uint64_t n_rows = t ? h->tier_rows[t - 1] : h->n_rows;

        if (t + 1 < h->n_tiers)
                n_rows -= h->tier_rows[t];
        printf("  %-10s %" PRIu64 " row%s of %" PRIu64 " bytes: ", t ? "" : "tiers", n_rows,
               n_rows == 1 ? "" : "s", n_bytes);
        if (t >= table_code_tiers(h))
                puts("8-bit integers");
        else if (h->tier_stages[t] == 0)
                puts("no codes");
        else
                printf("codes of %u bits\n", h->tier_bits[t]);
}

static void report_codec(const struct table_header *h, const char *note) {
        struct table_layout layout = { 0 };
        uint64_t n_groups;

        table_layout_compute(h, &layout, NULL); /* has been right since before the first byte */
        n_groups = layout.n_row_groups * layout.n_col_groups;
        if (h->window_bits > h->codebook_bits)
                printf("  codec      trellis codes of %" PRIu32 " bits in windows of %" PRIu32
                       ", sub-vectors of %" PRIu32,
                       h->codebook_bits, h->window_bits, h->subvector_dims);
        else
                printf("  codec      %" PRIu32 " stages of %" PRIu32
                       " bits, sub-vectors of %" PRIu32,
                       h->n_stages, h->codebook_bits, h->subvector_dims);
        printf(", %" PRIu64 " codebook group%s%s%s\n", n_groups, n_groups == 1 ? "" : "s",
               h->row_scale ? ", row scale" : "", h->col_scale ? ", column scale" : "");
        for (uint32_t t = 0; h->n_tiers > 1 && t < h->n_tiers; t++)
                report_tier(h, t, layout.tier_bytes[t]);
        printf("  adaptor    %s\n", *note ? note : "none");
}

static void report(const struct options *o, const struct pack_result *result, double seconds) {
        const struct table_header *h = &result->header;
        struct rusage usage;

        if (o->quiet)
                return;
        getrusage(RUSAGE_SELF, &usage);
        printf("%s: %" PRIu64 " x %" PRIu32 ", %s, %.4f bits a parameter, %" PRIu64 " bytes\n",
               o->out_path, h->n_rows, h->n_dims, table_codec_name(h->codec),
               table_bits_per_param(h), h->file_bytes);
        if (h->codec == TABLE_CODEC_CARVQ)
                report_codec(h, result->note);
        printf("  closeness  relative squared error %.6f, mean cosine %.6f\n",
               closeness_rel_mse(&result->closeness), closeness_cosine_mean(&result->closeness));
        printf("  cost       %.1f s, %.0f MiB peak memory\n", seconds,
               (double)usage.ru_maxrss / 1024);
}

int cmd_pack(int argc, char **argv) {
        struct options o = {
                .request = {
                        .header = { .codec = TABLE_CODEC_CARVQ, .n_stages = 3,
                                    .codebook_bits = 4, .subvector_dims = 8 },
                        .bits = 1.6,
                        .preset = PLAN_DEFAULT,
                        .seed = 1,
                        .n_threads = parallel_default_threads(),
                },
                .group_cols = 64,
        };
        _cleanup_(source_freep) struct source *source = NULL;
        _cleanup_(counts_freep) struct counts *counts = NULL;
        double started_s = clock_seconds();
        struct pack_result result;
        struct fault fault = { 0 };
        struct progress progress;
        bool done;
        int r;

        r = parse_options(&o, argc, argv, &done);
        if (r != CLI_OK || done)
                return r;
        progress_init(&progress, o.quiet);
        r = source_open(o.source_path, &source, &fault);
        if (r >= 0)
                r = select_tensor(source, &o, &fault);
        if (r >= 0) {
                complete_header(&o, source_selected(source));
                if (o.counts)
                        r = counts_open(o.counts, o.request.header.n_rows, &counts, &fault);
                o.request.counts = counts;
        }
        if (r >= 0)
                r = pack_table(source, o.out_path, &o.request, &progress, &result, &fault);
        progress_abort(&progress);
        if (r < 0)
                return cli_fail(strstr(fault.text, o.out_path) == fault.text ? o.out_path
                                                                             : o.source_path,
                                r, &fault);
        report(&o, &result, clock_seconds() - started_s);
        if (closeness_rel_mse(&result.closeness) >= 1)
                fprintf(stderr,
                        "carvq: %s: nothing of the source is left in it (relative squared error "
                        "%.3g): its "
                        "values are too small for this codec, use --codec bf16 or f32\n",
                        o.out_path, closeness_rel_mse(&result.closeness));
        return cli_finish(CLI_OK);
}

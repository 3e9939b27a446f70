/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-decode: what a row costs, compressed and not, in one run. Tables of random codes are made
 * in memory, so nothing is trained and nothing read; random rows are decoded by codec_decode()
 * into one f32 buffer, best of many batches, caches as warm as the tables' sizes allow. One thread.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "lib/codec/codec.h"
#include "lib/codec/half.h"

struct options {
        struct table_header carvq;
        uint64_t n_rows;
        uint32_t n_dims;
        uint64_t batch;
        uint64_t n_batches;
        uint64_t seed;
};

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static double now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Halves of ordinary size, 2^-4 to 2^-3: what is decoded must not be slow for being strange. */
static void fill_halves(uint16_t *halves, uint64_t n, uint64_t *random) {
        for (uint64_t i = 0; i < n; i++)
                halves[i] = (uint16_t)(0x2c00 | (next_random(random) & 0x83ff));
}

static void fill_rows(const struct codec_table *table, uint8_t *rows, uint64_t *random) {
        const struct table_contents *c = &table->contents;
        const struct table_header *h = &c->header;
        uint32_t n_halves = h->row_scale + (h->latent_bits == 16 ? h->latent_dims : 0);
        float scale = 0.01f;

        if (h->codec == TABLE_CODEC_F16 || h->codec == TABLE_CODEC_BF16) {
                fill_halves((void *)rows, c->rows.length / 2, random);
                return;
        }
        for (uint64_t i = 0; i + 8 <= c->rows.length; i += 8) {
                uint64_t word = next_random(random);
                memcpy(rows + i, &word, 8);
        }
        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint8_t *record = rows + (codec_kernels_scalar.find(table, row).bytes - rows);

                if (h->codec == TABLE_CODEC_INT8 || h->codec == TABLE_CODEC_INT4)
                        memcpy(record, &scale, sizeof(scale));
                for (uint32_t i = 0; i < n_halves; i++) {
                        uint16_t half = (uint16_t)(0x2c00 | (next_random(random) & 0x83ff));
                        memcpy(record + 2 * i, &half, sizeof(half));
                }
        }
}

/* High rows lie scattered: every fourth has one tier more than the first, every 16th two ... */
static uint32_t tier_of(const struct table_header *h, uint64_t row) {
        uint32_t tier = 0;

        for (; tier + 1 < h->n_tiers && row % 4 == 0; row /= 4)
                tier++;
        return tier;
}

static void count_tiers(struct table_header *h) {
        for (uint64_t row = 0; row < h->n_rows; row++)
                for (uint32_t tier = tier_of(h, row); tier; tier--)
                        h->tier_rows[tier - 1]++;
}

static void fill_tiers(const struct table_header *h, struct table_tier_block *blocks) {
        uint8_t *tiers = malloc(h->n_rows);

        if (!tiers) {
                fprintf(stderr, "bench-decode: out of memory\n");
                exit(1);
        }
        for (uint64_t row = 0; row < h->n_rows; row++)
                tiers[row] = (uint8_t)tier_of(h, row);
        table_tiers_fill(h, tiers, blocks);
        free(tiers);
}

/* Only memory can fail here, and the parameters: both end the program with a sentence. */
static void *make_table(struct table_header header, const struct options *options,
                        struct codec_table *ret_table) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct table_contents contents;
        uint64_t random = options->seed;
        struct fault fault = { 0 };
        uint8_t *file;

        header.n_rows = options->n_rows;
        header.n_dims = options->n_dims;
        if (header.codec == TABLE_CODEC_CARVQ) {
                header.group_rows = options->n_rows;
                if (!header.n_tiers)
                        table_set_one_tier(&header, header.n_stages);
                else if (!header.tier_bits[header.n_tiers - 1])
                        table_set_code_bits(&header);
                table_set_tier_scales(&header);
                count_tiers(&header);
        }
        if (table_plan(&header, 0, chunks, &fault) < 0) {
                fprintf(stderr, "bench-decode: %s\n", fault.text);
                exit(1);
        }
        file = mmap(NULL, header.file_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (file == MAP_FAILED) {
                fprintf(stderr, "bench-decode: no memory for %" PRIu64 " bytes\n",
                        header.file_bytes);
                exit(1);
        }
        madvise(file, header.file_bytes, MADV_HUGEPAGE);

        table_seal(&header, chunks);
        memcpy(file, &header, sizeof(header));
        memcpy(file + sizeof(header), chunks, header.n_chunks * sizeof(chunks[0]));
        if (table_check(file, MIN(header.file_bytes, TABLE_HEAD_BYTES_MAX), header.file_bytes,
                        &contents, &fault) < 0) {
                fprintf(stderr, "bench-decode: %s\n", fault.text);
                exit(1);
        }
        fill_halves((void *)(file + contents.codebooks.offset), contents.codebooks.length / 2,
                    &random);
        fill_halves((void *)(file + contents.adaptor.offset), contents.adaptor.length / 2, &random);
        fill_tiers(&header, (void *)(file + contents.tiers.offset));
        codec_table_init(ret_table, &contents, file);
        fill_rows(ret_table, file + contents.rows.offset, &random);
        return file;
}

static double measure(const struct codec_table *table, const struct codec_kernels *kernels,
                      const struct options *options, uint64_t *ids, float *out) {
        const struct codec_request request = {
                .ids = ids,
                .n_ids = options->batch,
                .n_cols = options->n_dims,
                .scale = 1,
                .row_stride_bytes = options->n_dims * sizeof(float),
                .out = out,
        };
        struct codec_cost cost = { 0 };
        struct codec_context context;
        uint64_t random = options->seed;
        double best = INFINITY, deadline = now_us() + 1e6;

        codec_context_init(&context, kernels);
        if (codec_context_reserve(&context, table) < 0)
                return NAN;
        for (uint64_t b = 0; b < options->n_batches && now_us() < deadline; b++) {
                double start;

                for (uint64_t i = 0; i < options->batch; i++)
                        ids[i] = next_random(&random) % options->n_rows;
                start = now_us();
                codec_decode_all(&context, table, &request, &cost);
                best = fmin(best, now_us() - start);
        }
        codec_context_deinit(&context);
        return best / (double)options->batch;
}

static void print_machine(void) {
        FILE *f = fopen("/proc/cpuinfo", "re");
        char line[256];

        while (f && fgets(line, sizeof(line), f))
                if (!strncmp(line, "model name", 10)) {
                        printf("machine: %s", strchr(line, ':') ? strchr(line, ':') + 2 : line);
                        break;
                }
        if (f)
                fclose(f);
}

#define LARGE_CODEBOOKS .codec = TABLE_CODEC_CARVQ, .codebook_bits = 8, .subvector_dims = 16
#define WINDOWS(k, s, h)                                                                           \
        .codec = TABLE_CODEC_CARVQ, .n_stages = 1, .codebook_bits = k, .window_bits = s,           \
        .subvector_dims = h, .group_cols = TABLE_DIMS_MAX

static void run(const struct options *options) {
        const struct {
                const char *name;
                struct table_header header;
        } lines[] = {
                { "f16", { .codec = TABLE_CODEC_F16 } }, /* first: the others are compared to it */
                { "f32", { .codec = TABLE_CODEC_F32 } },
                { "bf16", { .codec = TABLE_CODEC_BF16 } },
                { "int8", { .codec = TABLE_CODEC_INT8 } },
                { "int4", { .codec = TABLE_CODEC_INT4 } },
                { "h16 k8 L3", { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = TABLE_DIMS_MAX } },
                { "h16 k8 L3, by sub-vector", { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = 1 } },
                { "h16 k8 L3, mean row",
                  { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = TABLE_DIMS_MAX,
                    .adaptor_type = TABLE_ADAPTOR_HALF } },
                /* Three stages in the mean, so that the difference is what tiers cost. */
                { "h16 k8 L2, 5 or 9",
                  { LARGE_CODEBOOKS, .n_stages = 9, .group_cols = TABLE_DIMS_MAX, .n_tiers = 3,
                    .tier_stages = { 2, 5, 9 } } },
                { "h4 k6 of 12", { WINDOWS(6, 12, 4) } },
                { "h4 k6 of 12, column scale", { WINDOWS(6, 12, 4), .col_scale = 1 } },
                { "h4 k6 of 14", { WINDOWS(6, 14, 4) } },
                { "h2 k3 of 12", { WINDOWS(3, 12, 2) } },
                { "h8 k12 of 12", { WINDOWS(12, 12, 8) } },
                { "h4 k5 or 8 of 12",
                  { WINDOWS(8, 12, 4), .n_tiers = 2, .tier_stages = { 1, 1 },
                    .tier_bits = { 5, 8 } } },
                { "as the options say", options->carvq },
        };
        const struct codec_kernels *sets[] = {
                codec_kernels_choose(codec_cpu_features()),
                &codec_kernels_scalar,
        };
        size_t n_sets = sets[0] == sets[1] ? 1 : 2;
        uint64_t *ids = calloc(options->batch, sizeof(*ids));
        float *out = aligned_alloc(
                4096, align_up(options->batch * options->n_dims * sizeof(float), 4096));
        double f16_us[2] = { 0 };

        if (!ids || !out) {
                fprintf(stderr, "bench-decode: out of memory\n");
                exit(1);
        }
        memset(out, 0, options->batch * options->n_dims * sizeof(float));

        print_machine();
        printf("%" PRIu64 " rows x %" PRIu32 ", batches of %" PRIu64
               " random rows to one f32 buffer, best of %" PRIu64 ", warm, seed %" PRIu64 "\n",
               options->n_rows, options->n_dims, options->batch, options->n_batches, options->seed);
        printf("%-24s %-8s %10s %10s %10s %12s\n", "table", "kernels", "bytes/row", "us/row",
               "GB/s out", "f16 / this");
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
                struct codec_table table;
                void *file = make_table(lines[i].header, options, &table);

                for (size_t k = 0; k < n_sets; k++) {
                        double us = measure(&table, sets[k], options, ids, out);

                        if (i == 0)
                                f16_us[k] = us;
                        printf("%-24s %-8s %10" PRIu64 " %10.3f %10.1f %12.2f\n", lines[i].name,
                               sets[k]->name, table.contents.layout.rows_bytes / options->n_rows,
                               us, options->n_dims * 4e-3 / us, f16_us[k] / us);
                }
                munmap(file, table.contents.header.file_bytes);
        }
        free(ids);
        free(out);
}

static void print_help(void) {
        printf("Usage: bench-decode [OPTION]...\n"
               "Time the decoding of rows, compressed and not, for each set of kernels.\n\n"
               "  --rows N          rows of each table (128256)\n"
               "  --dims N          dimensions (2048)\n"
               "  --batch N         rows decoded in one call (256)\n"
               "  --batches N       calls, of which the best counts, for a second at most (500)\n"
               "  --stages L        carvq: stages (3)\n"
               "  --bits K          carvq: bits of a code (4)\n"
               "  --window S        carvq: bits that choose a centroid (as --bits)\n"
               "  --subvector H     carvq: dimensions of a sub-vector (8)\n"
               "  --group-cols N    carvq: neighbouring sub-vectors that share codebooks (65536)\n"
               "  --row-scale       carvq: with a scale for each row\n"
               "  --latent M        carvq: with an adaptor of M latent dimensions; 0: a mean row\n"
               "  --int8            carvq: its weights and latents are int8, not half\n"
               "  --hidden N        carvq: its hidden layer (0: none)\n"
               "  --seed N          of all random numbers (1)\n"
               "  --help\n");
}

int main(int argc, char **argv) {
        struct options options = {
                .carvq = {
                        .codec = TABLE_CODEC_CARVQ,
                        .n_stages = 3,
                        .codebook_bits = 4,
                        .subvector_dims = 8,
                        .group_cols = TABLE_DIMS_MAX,
                },
                .n_rows = 128256,
                .n_dims = 2048,
                .batch = 256,
                .n_batches = 500,
                .seed = 1,
        };
        const struct option longs[] = {
                { "rows", required_argument, NULL, 'r' },
                { "dims", required_argument, NULL, 'n' },
                { "batch", required_argument, NULL, 'b' },
                { "batches", required_argument, NULL, 'B' },
                { "stages", required_argument, NULL, 'L' },
                { "bits", required_argument, NULL, 'k' },
                { "window", required_argument, NULL, 'w' },
                { "subvector", required_argument, NULL, 'v' },
                { "group-cols", required_argument, NULL, 'g' },
                { "row-scale", no_argument, NULL, 'c' },
                { "latent", required_argument, NULL, 'm' },
                { "int8", no_argument, NULL, 'i' },
                { "hidden", required_argument, NULL, 'H' },
                { "seed", required_argument, NULL, 's' },
                { "help", no_argument, NULL, 'h' },
                { 0 },
        };
        bool adaptor = false, int8 = false;
        int c;

        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 1;

                switch (c) {
                case 'r':
                        options.n_rows = value;
                        break;
                case 'n':
                        options.n_dims = (uint32_t)value;
                        break;
                case 'b':
                        options.batch = value;
                        break;
                case 'B':
                        options.n_batches = value;
                        break;
                case 'L':
                        options.carvq.n_stages = (uint32_t)value;
                        break;
                case 'k':
                        options.carvq.codebook_bits = (uint32_t)value;
                        break;
                case 'w':
                        options.carvq.window_bits = (uint32_t)value;
                        break;
                case 'v':
                        options.carvq.subvector_dims = (uint32_t)value;
                        break;
                case 'g':
                        options.carvq.group_cols = (uint32_t)value;
                        break;
                case 'c':
                        options.carvq.row_scale = 1;
                        break;
                case 'm':
                        options.carvq.latent_dims = (uint32_t)value;
                        adaptor = true;
                        break;
                case 'i':
                        int8 = true;
                        break;
                case 'H':
                        options.carvq.hidden_dims[0] = (uint32_t)value;
                        break;
                case 's':
                        options.seed = value;
                        break;
                case 'h':
                        print_help();
                        return 0;
                default:
                        return 2;
                }
        }
        if (adaptor) {
                options.carvq.adaptor_type = int8 ? TABLE_ADAPTOR_INT8 : TABLE_ADAPTOR_HALF;
                options.carvq.latent_bits = !options.carvq.latent_dims ? 0 : int8 ? 8 : 16;
        }
        if (optind < argc || !options.batch || !options.seed) {
                fprintf(stderr, "bench-decode: --batch and --seed are at least 1, and no other"
                                " arguments are taken; see --help\n");
                return 2;
        }
        run(&options);
        return 0;
}

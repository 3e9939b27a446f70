/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-decode: what a row costs, compressed and not, in one run. Tables of random codes are made
 * in memory, so nothing is trained and nothing read; random rows are decoded by codec_decode()
 * into one buffer, best of many batches, caches as warm as the tables' sizes allow. One thread.
 * A table takes turns with a table of halves, to which it is compared: so both meet the same
 * neighbours on the machine.
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
        const char *only; /* tables whose names have this in them; NULL: all */
        const char *json; /* where the results go, too; NULL: nowhere */
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

/* One table under test: what batches of it cost, with a set of kernels and an output type. */
struct contender {
        const struct codec_table *table;
        struct codec_context context;
        double best_us;
};

static void time_batch(struct contender *c, const struct codec_request *request) {
        struct codec_cost cost = { 0 };
        double start = now_us();

        codec_decode_all(&c->context, c->table, request, &cost);
        c->best_us = fmin(c->best_us, now_us() - start);
}

/* Batches of a turn: enough for each to find the caches as its own batches leave them. */
#define TURN_BATCHES 16u

/* us a row of both, by turns. */
static void measure(struct contender pair[2], const struct codec_kernels *kernels, uint8_t type,
                    const struct options *options, uint64_t *ids, void *out) {
        const struct codec_request request = {
                .ids = ids,
                .n_ids = options->batch,
                .n_cols = options->n_dims,
                .scale = 1,
                .type = type,
                .row_stride_bytes = options->n_dims * codec_type_bytes(type),
                .out = out,
        };
        uint64_t random = options->seed;
        double deadline = now_us() + 1e6;

        for (size_t i = 0; i < 2; i++) {
                codec_context_init(&pair[i].context, kernels);
                pair[i].best_us = INFINITY;
                if (codec_context_reserve(&pair[i].context, pair[i].table) < 0) {
                        fprintf(stderr, "bench-decode: out of memory\n");
                        exit(1);
                }
        }
        for (uint64_t b = 0; b < 2 * options->n_batches && now_us() < deadline; b++) {
                for (uint64_t i = 0; i < options->batch; i++)
                        ids[i] = next_random(&random) % options->n_rows;
                time_batch(&pair[b / TURN_BATCHES % 2], &request);
        }
        for (size_t i = 0; i < 2; i++) {
                codec_context_deinit(&pair[i].context);
                pair[i].best_us /= (double)options->batch;
        }
}

static void machine_name(size_t n, char *ret_name) {
        FILE *f = fopen("/proc/cpuinfo", "re");
        char line[256];

        snprintf(ret_name, n, "unknown");
        while (f && fgets(line, sizeof(line), f))
                if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
                        line[strcspn(line, "\"\\\n")] = 0;
                        snprintf(ret_name, n, "%s", strchr(line, ':') + 2);
                        break;
                }
        if (f)
                fclose(f);
}

#define LARGE_CODEBOOKS .codec = TABLE_CODEC_CARVQ, .codebook_bits = 8, .subvector_dims = 16
#define WINDOWS(k, s, h)                                                                           \
        .codec = TABLE_CODEC_CARVQ, .n_stages = 1, .codebook_bits = k, .window_bits = s,           \
        .subvector_dims = h, .group_cols = TABLE_DIMS_MAX
#define SMALL(k, g)                                                                                \
        .codec = TABLE_CODEC_CARVQ, .n_stages = 3, .codebook_bits = k, .subvector_dims = 8,        \
        .group_cols = g

/* The default codec with an adaptor. */
#define TRELLIS_LATENTS(m, hidden, type)                                                           \
        WINDOWS(6, 12, 4), .latent_dims = m, .latent_bits = TABLE_ADAPTOR_##type == 2 ? 8 : 16,    \
                           .hidden_dims = { hidden }, .adaptor_type = TABLE_ADAPTOR_##type

/* A table to decode, and what the time of a row may be, in parts of an f16 row's with the same
 * kernels; 0: no target. */
struct line {
        const char *name;
        struct table_header header;
        double limit_avx512, limit_avx2, limit_amx;
        uint64_t batch; /* 0: as the options say */
};

static const struct line lines[] = {
        { .name = "f16", .header = { .codec = TABLE_CODEC_F16 } },
        { .name = "f32", .header = { .codec = TABLE_CODEC_F32 } },
        { .name = "bf16", .header = { .codec = TABLE_CODEC_BF16 } },
        { .name = "int8", .header = { .codec = TABLE_CODEC_INT8 } },
        { .name = "int4", .header = { .codec = TABLE_CODEC_INT4 } },
        { .name = "h8 k4 L3",
          .header = { SMALL(4, TABLE_DIMS_MAX) },
          .limit_avx512 = 0.5,
          .limit_avx2 = 1 },
        { .name = "h8 k3 L3", .header = { SMALL(3, TABLE_DIMS_MAX) } },
        { .name = "h8 k2 L3", .header = { SMALL(2, TABLE_DIMS_MAX) } },
        { .name = "h8 k1 L3", .header = { SMALL(1, TABLE_DIMS_MAX) } },
        { .name = "h8 k4 L3, groups of 5", .header = { SMALL(4, 5) } },
        { .name = "h8 k4 L3, by sub-vector", .header = { SMALL(4, 1) } },
        { .name = "h16 k8 L3",
          .header = { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = TABLE_DIMS_MAX } },
        { .name = "h16 k8 L3, by sub-vector",
          .header = { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = 1 } },
        { .name = "h16 k8 L3, mean row",
          .header = { LARGE_CODEBOOKS, .n_stages = 3, .group_cols = TABLE_DIMS_MAX,
                      .adaptor_type = TABLE_ADAPTOR_HALF } },
        /* Three stages in the mean, so that the difference is what tiers cost. */
        { .name = "h16 k8 L2, 5 or 9",
          .header = { LARGE_CODEBOOKS, .n_stages = 9, .group_cols = TABLE_DIMS_MAX, .n_tiers = 3,
                      .tier_stages = { 2, 5, 9 } } },
        { .name = "h4 k6 of 12",
          .header = { WINDOWS(6, 12, 4) },
          .limit_avx512 = 0.5,
          .limit_avx2 = 1 },
        { .name = "h4 k6 of 12, column scale", .header = { WINDOWS(6, 12, 4), .col_scale = 1 } },
        { .name = "h4 k6 of 12, scales, mean",
          .header = { WINDOWS(6, 12, 4), .col_scale = 1, .row_scale = 1,
                      .adaptor_type = TABLE_ADAPTOR_HALF },
          .limit_avx512 = 0.5,
          .limit_avx2 = 1 },
        { .name = "h4 k6 of 14", .header = { WINDOWS(6, 14, 4) } },
        { .name = "h2 k3 of 12", .header = { WINDOWS(3, 12, 2) } },
        { .name = "h8 k12 of 12", .header = { WINDOWS(12, 12, 8) } },
        { .name = "h1 k6 of 12", .header = { WINDOWS(6, 12, 1) } },
        { .name = "h3 k6 of 12", .header = { WINDOWS(6, 12, 3) } },
        { .name = "h5 k6 of 12", .header = { WINDOWS(6, 12, 5) } },
        { .name = "h6 k6 of 12", .header = { WINDOWS(6, 12, 6) } },
        { .name = "h7 k6 of 12", .header = { WINDOWS(6, 12, 7) } },
        { .name = "h12 k6 of 12", .header = { WINDOWS(6, 12, 12) } },
        { .name = "h24 k6 of 12", .header = { WINDOWS(6, 12, 24) } },
        { .name = "h32 k6 of 12", .header = { WINDOWS(6, 12, 32) } },
        { .name = "h4 k5 or 8 of 12",
          .header = { WINDOWS(8, 12, 4), .n_tiers = 2, .tier_stages = { 1, 1 },
                      .tier_bits = { 5, 8 } } },
        { .name = "h4 k6 of 12, 3 components",
          .header = { TRELLIS_LATENTS(3, 0, INT8) },
          .limit_amx = 2 },
        { .name = "adaptor int8 by 1", .header = { TRELLIS_LATENTS(16, 512, INT8) }, .batch = 1 },
        { .name = "adaptor int8 by 8", .header = { TRELLIS_LATENTS(16, 512, INT8) }, .batch = 8 },
        { .name = "adaptor int8 by 32",
          .header = { TRELLIS_LATENTS(16, 512, INT8) },
          .limit_amx = 2,
          .batch = CODEC_BATCH_ROWS },
        { .name = "adaptor int8", .header = { TRELLIS_LATENTS(16, 512, INT8) }, .limit_amx = 2 },
        { .name = "adaptor half by 1", .header = { TRELLIS_LATENTS(16, 512, HALF) }, .batch = 1 },
        { .name = "adaptor half by 32",
          .header = { TRELLIS_LATENTS(16, 512, HALF) },
          .batch = CODEC_BATCH_ROWS },
        { .name = "adaptor half", .header = { TRELLIS_LATENTS(16, 512, HALF) } },
        { .name = "as the options say" },
};

/* ---- Results ---- */

static const char *const type_names[] = { "f32", "f16", "bf16" };

struct result {
        const struct line *line;
        const char *kernels;
        uint8_t type;
        uint64_t row_bytes;
        double us, f16_us, limit;
};

#define SETS_MAX 5u

/* What this run has measured, and the memory that it uses for that. */
struct run {
        const struct options *options;
        const struct codec_kernels *sets[SETS_MAX];
        size_t n_sets;
        struct codec_table f16;
        uint64_t *ids;
        void *out;
        struct result results[ARRAY_SIZE(lines) * SETS_MAX + 2];
        size_t n_results;
};

static void add_result(struct run *run, const struct line *line, const struct codec_table *table,
                       const struct codec_kernels *kernels, uint8_t type) {
        struct contender pair[2] = { { .table = &run->f16 }, { .table = table } };
        struct result *result = &run->results[run->n_results++];
        struct options options = *run->options;

        if (line->batch)
                options.batch = MIN(line->batch, options.batch);
        measure(pair, kernels, type, &options, run->ids, run->out);
        *result = (struct result){
                .line = line,
                .kernels = kernels->name,
                .type = type,
                .row_bytes = table->contents.layout.rows_bytes / options.n_rows,
                .us = pair[1].best_us,
                .f16_us = pair[0].best_us,
        };
        if (type == CODEC_TYPE_F32 && !strcmp(kernels->name, "avx512"))
                result->limit = line->limit_avx512;
        if (type == CODEC_TYPE_F32 && !strcmp(kernels->name, "avx2"))
                result->limit = line->limit_avx2;
        if (type == CODEC_TYPE_F32 && !strcmp(kernels->name, "avx512+amx"))
                result->limit = line->limit_amx;
        printf("%-26s %-11s %-5s %10" PRIu64 " %9.3f %9.3f %11.2f\n", line->name, kernels->name,
               type_names[type], result->row_bytes, result->us, result->f16_us,
               result->f16_us / result->us);
}

static void run_line(struct run *run, const struct line *line) {
        const struct options *options = run->options;
        bool own = !line->header.codec;
        struct codec_table table;
        void *file;

        if (options->only && !strstr(line->name, options->only))
                return;
        file = make_table(own ? options->carvq : line->header, options, &table);
        for (size_t k = 0; k < run->n_sets; k++)
                if (table.contents.header.latent_dims || !strchr(run->sets[k]->name, '+'))
                        add_result(run, line, &table, run->sets[k], CODEC_TYPE_F32);
        for (uint8_t type = CODEC_TYPE_F16; own && type <= CODEC_TYPE_BF16; type++)
                add_result(run, line, &table, run->sets[0], type);
        codec_weights_free(table.weights);
        munmap(file, table.contents.header.file_bytes);
}

static void print_targets(const struct run *run) {
        bool any = false;

        for (size_t i = 0; i < run->n_results; i++) {
                const struct result *r = &run->results[i];

                if (r->limit == 0)
                        continue;
                if (!any)
                        printf("\n%-34s %8s %8s\n", "time of a row / of an f16 row", "limit",
                               "value");
                any = true;
                printf("%-26s %-11s %8.3f %8.3f  %s\n", r->line->name, r->kernels, r->limit,
                       r->us / r->f16_us, r->us / r->f16_us <= r->limit ? "pass" : "short");
        }
}

static void write_json(const struct run *run, const char *machine) {
        const struct options *o = run->options;
        const char *comma = "";
        FILE *f = fopen(o->json, "we");

        if (!f) {
                fprintf(stderr, "bench-decode: %s: %s\n", o->json, strerror(errno));
                exit(1);
        }
        fprintf(f,
                "{\n\"bench\": \"decode\",\n\"machine\": \"%s\",\n\"n_rows\": %" PRIu64
                ",\n\"n_dims\": %" PRIu32 ",\n\"batch\": %" PRIu64 ",\n\"seed\": %" PRIu64
                ",\n\"results\": [",
                machine, o->n_rows, o->n_dims, o->batch, o->seed);
        for (size_t i = 0; i < run->n_results; i++) {
                const struct result *r = &run->results[i];

                fprintf(f,
                        "%s\n  {\"table\": \"%s\", \"kernels\": \"%s\", \"output\": \"%s\","
                        " \"row_bytes\": %" PRIu64 ", \"us\": %.4f, \"f16_us\": %.4f}",
                        i ? "," : "", r->line->name, r->kernels, type_names[r->type], r->row_bytes,
                        r->us, r->f16_us);
        }
        fprintf(f, "\n],\n\"targets\": [");
        for (size_t i = 0; i < run->n_results; i++) {
                const struct result *r = &run->results[i];

                if (r->limit == 0)
                        continue;
                fprintf(f,
                        "%s\n  {\"measure\": \"decode %s, %s\", \"target\":"
                        " \"at most %g x the time of an f16 row\", \"value\": %.4f,"
                        " \"unit\": \"x\", \"limit\": %g, \"pass\": %s}",
                        comma, r->line->name, r->kernels, r->limit, r->us / r->f16_us, r->limit,
                        r->us / r->f16_us <= r->limit ? "true" : "false");
                comma = ",";
        }
        fprintf(f, "\n]\n}\n");
        if (fclose(f) < 0) {
                fprintf(stderr, "bench-decode: %s: %s\n", o->json, strerror(errno));
                exit(1);
        }
}

/* All sets that this machine and `CARVQ_CPU_MASK` allow, the best first. Those with a plus in their
 * names differ from another one in the adaptor alone. */
static size_t choose_sets(const struct codec_kernels *ret_sets[SETS_MAX]) {
        const uint32_t without[] = {
                0,
                CODEC_CPU_AMX | CODEC_CPU_DOTPROD,
                CODEC_CPU_AMX | CODEC_CPU_VNNI | CODEC_CPU_DOTPROD,
                CODEC_CPU_AMX | CODEC_CPU_VNNI | CODEC_CPU_DOTPROD | CODEC_CPU_AVX512,
                UINT32_MAX,
        };
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
                const struct codec_kernels *set =
                        codec_kernels_choose(codec_cpu_features() & ~without[i]);

                if (!n || ret_sets[n - 1] != set)
                        ret_sets[n++] = set;
        }
        return n;
}

static void run_all(const struct options *options) {
        size_t out_bytes = options->batch * options->n_dims * sizeof(float);
        struct run run = { .options = options };
        char machine[128];
        void *file;

        run.n_sets = choose_sets(run.sets);
        run.ids = calloc(options->batch, sizeof(*run.ids));
        run.out = aligned_alloc(4096, align_up(out_bytes, 4096));
        if (!run.ids || !run.out) {
                fprintf(stderr, "bench-decode: out of memory\n");
                exit(1);
        }
        memset(run.out, 0, out_bytes);
        machine_name(sizeof(machine), machine);
        file = make_table((struct table_header){ .codec = TABLE_CODEC_F16 }, options, &run.f16);

        printf("machine: %s\n", machine);
        printf("%" PRIu64 " rows x %" PRIu32 ", batches of %" PRIu64
               " random rows to one buffer, best of %" PRIu64 ", warm, seed %" PRIu64 "\n",
               options->n_rows, options->n_dims, options->batch, options->n_batches, options->seed);
        printf("%-26s %-11s %-5s %10s %9s %9s %11s\n", "table", "kernels", "to", "bytes/row",
               "us/row", "f16 us", "f16 / this");
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                run_line(&run, &lines[i]);
        print_targets(&run);
        if (options->json)
                write_json(&run, machine);
        munmap(file, run.f16.contents.header.file_bytes);
        free(run.ids);
        free(run.out);
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
               "  --only TEXT       tables whose names have it in them\n"
               "  --json FILE       write the results there, too\n"
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
                { "only", required_argument, NULL, 'o' },
                { "json", required_argument, NULL, 'j' },
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
                case 'o':
                        options.only = optarg;
                        break;
                case 'j':
                        options.json = optarg;
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
        run_all(&options);
        return 0;
}

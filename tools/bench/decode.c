/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-decode: what a row costs, compressed and not, in one run. Random rows of random tables are
 * decoded by codec_decode() into one buffer, best of many batches, caches as warm as the tables'
 * sizes allow. One thread. A table takes turns with a table of halves, to which it is compared: so
 * both meet the same neighbours on the machine.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "lib/codec/prepared.h"
#include "options.h"
#include "outcome.h"
#include "random-table.h"

struct options {
        struct table_header carvq;
        uint64_t n_rows, n_dims;
        uint64_t batch;
        uint64_t n_batches;
        uint64_t seed;
        const char *only; /* tables whose names have this in them; NULL: all */
};

/* One table under test: what batches of it cost, with a set of kernels and an output type. */
struct contender {
        const struct codec_table *table;
        struct codec_context context;
        double best_us;
};

static void time_batch(struct contender *c, const struct codec_request *request) {
        struct codec_cost cost = { 0 };
        uint64_t start = clock_ns();

        codec_decode_all(&c->context, c->table, request, &cost);
        c->best_us = fmin(c->best_us, (double)(clock_ns() - start) * 1e-3);
}

/* Batches of a turn: enough for each to find the caches as its own batches leave them. */
#define TURN_BATCHES 16u

#define NS_MAX       UINT64_C(1000000000)

/* us a row of both, by turns. */
static void measure(struct contender pair[2], const struct codec_kernels *kernels, uint8_t type,
                    const struct options *options, uint64_t batch, uint64_t *ids, void *out) {
        const struct codec_request request = {
                .ids = ids,
                .n_ids = batch,
                .n_cols = (uint32_t)options->n_dims,
                .scale = 1,
                .type = type,
                .row_stride_bytes = options->n_dims * codec_type_bytes(type),
                .out = out,
        };
        uint64_t random = options->seed, deadline = clock_ns() + NS_MAX;
        uint64_t turn = MIN(TURN_BATCHES, options->n_batches);

        for (size_t i = 0; i < 2; i++) {
                codec_context_init(&pair[i].context, kernels);
                pair[i].best_us = INFINITY;
                if (codec_context_reserve(&pair[i].context, pair[i].table) < 0)
                        die("out of memory");
        }
        for (uint64_t b = 0; b < 2 * options->n_batches && clock_ns() < deadline; b++) {
                for (uint64_t i = 0; i < batch; i++)
                        ids[i] = random_next(&random) % options->n_rows;
                time_batch(&pair[b / turn % 2], &request);
        }
        for (size_t i = 0; i < 2; i++) {
                codec_context_deinit(&pair[i].context);
                pair[i].best_us /= (double)batch;
        }
}

#define LARGE_CODEBOOKS .codec = TABLE_CODEC_CARVQ, .codebook_bits = 8, .subvector_dims = 16
#define WINDOWS(k, s, h)                                                                           \
        .codec = TABLE_CODEC_CARVQ, .n_stages = 1, .codebook_bits = k, .window_bits = s,           \
        .subvector_dims = h, .group_cols = TABLE_DIMS_MAX
#define SMALL(k, g)                                                                                \
        .codec = TABLE_CODEC_CARVQ, .n_stages = 3, .codebook_bits = k, .subvector_dims = 8,        \
        .group_cols = g

/* What the packer makes of a wide table by itself. */
#define DEFAULT_COMPONENTS                                                                         \
        WINDOWS(6, 12, 4), .col_scale = 1, .row_scale = 1, .adaptor_type = TABLE_ADAPTOR_HALF,     \
                           .latent_dims = 3, .latent_bits = 8

/* The same codes with a network of a million weights, which it makes only when it is told to. */
#define TRELLIS_LATENTS(m, hidden, type)                                                           \
        WINDOWS(6, 12, 4), .latent_dims = m, .latent_bits = TABLE_ADAPTOR_##type == 2 ? 8 : 16,    \
                           .hidden_dims = { hidden }, .adaptor_type = TABLE_ADAPTOR_##type

/* A table to decode, and what the time of a row may be, in parts of an f16 row's with the same
 * kernels; 0: no target. */
struct line {
        const char *name;
        struct table_header header;
        double limit_avx512, limit_avx2;
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
        { .name = "h4 k6 of 12", .header = { WINDOWS(6, 12, 4) } },
        { .name = "h4 k6 of 12, column scale", .header = { WINDOWS(6, 12, 4), .col_scale = 1 } },
        /* As the packer's defaults make them: sooner there than from the larger table. */
        { .name = "default, mean",
          .header = { WINDOWS(6, 12, 4), .col_scale = 1, .row_scale = 1,
                      .adaptor_type = TABLE_ADAPTOR_HALF },
          .limit_avx512 = 1,
          .limit_avx2 = 1 },
        { .name = "default, 3 components",
          .header = { DEFAULT_COMPONENTS },
          .limit_avx512 = 2,
          .limit_avx2 = 2 },
        { .name = "default, 3 components by 32",
          .header = { DEFAULT_COMPONENTS },
          .limit_avx512 = 2,
          .limit_avx2 = 2,
          .batch = 32 },
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
        { .name = "network int8 by 1", .header = { TRELLIS_LATENTS(16, 512, INT8) }, .batch = 1 },
        { .name = "network int8 by 8", .header = { TRELLIS_LATENTS(16, 512, INT8) }, .batch = 8 },
        { .name = "network int8 by 32",
          .header = { TRELLIS_LATENTS(16, 512, INT8) },
          .batch = CODEC_BATCH_ROWS },
        { .name = "network int8", .header = { TRELLIS_LATENTS(16, 512, INT8) } },
        { .name = "network half by 1", .header = { TRELLIS_LATENTS(16, 512, HALF) }, .batch = 1 },
        { .name = "network half by 32",
          .header = { TRELLIS_LATENTS(16, 512, HALF) },
          .batch = CODEC_BATCH_ROWS },
        { .name = "network half", .header = { TRELLIS_LATENTS(16, 512, HALF) } },
        { .name = "as the options say" },
};

/* ---- Results ---- */

static const char *const type_names[] = { "f32", "f16", "bf16" };

#define SETS_MAX 5u

struct result {
        const struct line *line;
        const char *kernels;
        uint8_t type;
        uint64_t row_bytes;
        double us, f16_us;
};

/* What this run measures, and the memory that it uses for that. */
struct run {
        const struct options *options;
        const struct codec_kernels *sets[SETS_MAX];
        size_t n_sets;
        struct codec_file f16;
        uint64_t *ids;
        void *out;
        struct result results[ARRAY_SIZE(lines) * SETS_MAX + 2];
        size_t n_results;
};

static void add_result(struct run *run, const struct line *line, const struct codec_table *table,
                       const struct codec_kernels *kernels, uint8_t type) {
        struct contender pair[2] = { { .table = &run->f16.table }, { .table = table } };
        const struct options *o = run->options;
        struct result *r = &run->results[run->n_results++];

        measure(pair, kernels, type, o, line->batch ? MIN(line->batch, o->batch) : o->batch,
                run->ids, run->out);
        *r = (struct result){
                .line = line,
                .kernels = kernels->name,
                .type = type,
                .row_bytes = table->contents.layout.rows_bytes / o->n_rows,
                .us = pair[1].best_us,
                .f16_us = pair[0].best_us,
        };
        printf("%-27s %-11s %-5s %10" PRIu64 " %9.3f %9.3f %11.2f\n", line->name, r->kernels,
               type_names[type], r->row_bytes, r->us, r->f16_us, r->f16_us / r->us);
}

static void run_line(struct run *run, const struct line *line) {
        const struct options *o = run->options;
        bool own = !line->header.codec;
        struct codec_file file;

        if (o->only && !strstr(line->name, o->only))
                return;
        random_table_new(own ? o->carvq : line->header, o->n_rows, (uint32_t)o->n_dims, o->seed,
                         &file);
        for (size_t k = 0; k < run->n_sets; k++)
                if (codec_runs_batches(run->sets[k], &file.table) ||
                    !strchr(run->sets[k]->name, '+'))
                        add_result(run, line, &file.table, run->sets[k], CODEC_TYPE_F32);
        for (uint8_t type = CODEC_TYPE_F16; own && type <= CODEC_TYPE_BF16; type++)
                add_result(run, line, &file.table, run->sets[0], type);
        codec_file_unmap(&file);
}

/* What a result may be in parts of an f16 row; 0: anything. */
static double limit_of(const struct result *r) {
        if (r->type != CODEC_TYPE_F32)
                return 0;
        if (!strcmp(r->kernels, "avx512"))
                return r->line->limit_avx512;
        return !strcmp(r->kernels, "avx2") ? r->line->limit_avx2 : 0;
}

static void judge(const struct run *run, json_t *outcome) {
        for (size_t i = 0; i < run->n_results; i++) {
                const struct result *r = &run->results[i];
                double limit = limit_of(r);
                char measure[128], target[64];

                if (limit == 0)
                        continue;
                snprintf(measure, sizeof(measure), "decode %s, %s", r->line->name, r->kernels);
                snprintf(target, sizeof(target), "at most %g x the time of an f16 row", limit);
                outcome_target(outcome, &(struct outcome_target){
                                                .measure = measure,
                                                .target = target,
                                                .value = r->us / r->f16_us,
                                                .unit = "x",
                                                .limit = limit,
                                                .sides = { { r->line->name, r->us, "us/row" },
                                                           { "f16", r->f16_us, "us/row" } },
                                        });
        }
}

static json_t *results_to_json(const struct run *run) {
        json_t *results = json_array();

        for (size_t i = 0; i < run->n_results; i++) {
                const struct result *r = &run->results[i];

                json_array_append_new(results, json_pack("{ss, ss, ss, sI, sf, sf}", "table",
                                                         r->line->name, "kernels", r->kernels,
                                                         "output", type_names[r->type], "row_bytes",
                                                         (json_int_t)r->row_bytes, "us", r->us,
                                                         "f16_us", r->f16_us));
        }
        return results;
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

static void run_all(const struct options *o, const char *json_path) {
        struct run run = {
                .options = o,
                .ids = allocate(o->batch, sizeof(*run.ids)),
                .out = allocate_pages(o->batch * o->n_dims * sizeof(float)),
        };
        char machine[256];
        json_t *outcome;

        run.n_sets = choose_sets(run.sets);
        random_table_new((struct table_header){ .codec = TABLE_CODEC_F16 }, o->n_rows,
                         (uint32_t)o->n_dims, o->seed, &run.f16);
        outcome = outcome_new("decode", run.sets[0]->name, "warm");
        machine_name(machine, sizeof(machine));
        printf("%s; kernels %s; warm\n", machine, run.sets[0]->name);
        printf("%" PRIu64 " rows x %" PRIu64 ", batches of %" PRIu64
               " random rows to one buffer, best of %" PRIu64 "; seed %" PRIu64 "\n",
               o->n_rows, o->n_dims, o->batch, o->n_batches, o->seed);
        printf("%-27s %-11s %-5s %10s %9s %9s %11s\n", "table", "kernels", "to", "bytes/row",
               "us/row", "f16 us", "f16 / this");
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                run_line(&run, &lines[i]);
        judge(&run, outcome);
        json_object_set_new(outcome, "results", results_to_json(&run));
        outcome_write(outcome, json_path);
        json_decref(outcome);
        codec_file_unmap(&run.f16);
        free(run.ids);
        free(run.out);
}

/* The parameters of the table "as the options say". */
struct own {
        uint64_t n_stages, codebook_bits, window_bits, subvector_dims, group_cols;
        uint64_t row_scale, latent_dims, hidden_dims;
        const char *adaptor;
};

static struct table_header own_header(const struct own *own) {
        struct table_header h = {
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = (uint32_t)own->n_stages,
                .codebook_bits = (uint32_t)own->codebook_bits,
                .window_bits = (uint32_t)own->window_bits,
                .subvector_dims = (uint32_t)own->subvector_dims,
                .group_cols = (uint32_t)own->group_cols,
                .row_scale = (uint32_t)own->row_scale,
        };
        bool int8 = own->adaptor && !strcmp(own->adaptor, "int8");

        if (!own->adaptor)
                return h;
        if (!int8 && strcmp(own->adaptor, "half"))
                die("--adaptor is \"%s\", expected half or int8", own->adaptor);
        h.adaptor_type = int8 ? TABLE_ADAPTOR_INT8 : TABLE_ADAPTOR_HALF;
        h.latent_dims = (uint32_t)own->latent_dims;
        h.latent_bits = !own->latent_dims ? 0 : int8 ? 8 : 16;
        h.hidden_dims[0] = (uint32_t)own->hidden_dims;
        return h;
}

int main(int argc, char **argv) {
        struct own own = {
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = TABLE_DIMS_MAX,
        };
        struct options o = {
                .n_rows = 128256,
                .n_dims = 2048,
                .batch = 256,
                .n_batches = 500,
                .seed = 1,
        };
        const char *json_path = NULL;
        const struct bench_option options[] = {
                { "rows", "N", "rows of each table", .count = &o.n_rows, .min = 1,
                  .max = UINT32_MAX },
                { "dims", "N", "dimensions", .count = &o.n_dims, .min = 1, .max = TABLE_DIMS_MAX },
                { "batch", "N", "rows decoded in one call", .count = &o.batch, .min = 1,
                  .max = 65536 },
                { "batches", "N", "calls, of which the best counts, for a second at most",
                  .count = &o.n_batches, .min = 1, .max = 1000000 },
                { "only", "TEXT", "tables whose names have it in them", .text = &o.only },
                { "seed", "N", "of codes and ids", .count = &o.seed, .min = 1, .max = UINT32_MAX },
                { "json", "FILE", "write the figures there, too", .text = &json_path },
                { "stages", "L", "a table of your own: stages", .count = &own.n_stages,
                  .max = UINT8_MAX },
                { "bits", "K", "its bits of a code", .count = &own.codebook_bits,
                  .max = UINT8_MAX },
                { "window", "S", "its bits that choose a centroid; 0: as --bits",
                  .count = &own.window_bits, .max = UINT8_MAX },
                { "subvector", "H", "its dimensions of a sub-vector", .count = &own.subvector_dims,
                  .max = TABLE_DIMS_MAX },
                { "group-cols", "N", "its neighbouring sub-vectors that share codebooks",
                  .count = &own.group_cols, .max = TABLE_DIMS_MAX },
                { "row-scale", "0|1", "whether rows have a scale", .count = &own.row_scale,
                  .max = 1 },
                { "adaptor", "TYPE", "its adaptor's weights: half or int8; default: no adaptor",
                  .text = &own.adaptor },
                { "latent", "M", "the adaptor's latent dimensions; 0: a mean row",
                  .count = &own.latent_dims, .max = TABLE_DIMS_MAX },
                { "hidden", "N", "the adaptor's hidden layer; 0: none", .count = &own.hidden_dims,
                  .max = TABLE_DIMS_MAX },
                { 0 },
        };

        bench_options(argc, argv,
                      "Times the decoding of rows, compressed and not, for each set of kernels.",
                      options);
        o.carvq = own_header(&own);
        run_all(&o, json_path);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-faiss-decode: rows of residual quantization decoded by Faiss and by our kernels, the same
 * shape (sub-vectors of 8 dimensions, 3 stages of 4 bits), random rows of tables of one size, all
 * on huge pages, one thread. They take turns of some batches, so that each finds its own caches and
 * the clock that its instructions run at. Faiss is timed row by row where the codes lie, and with
 * the batch's codes copied together before; the better one counts.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "faiss-rq.h"
#include "ids.h"
#include "lib/codec/codec.h"
#include "options.h"
#include "outcome.h"
#include "random-table.h"
#include "rows.h"

#define SUBVECTOR_DIMS 8u
#define TRAIN_VECTORS  20000u
#define TURN_BATCHES   16u

struct options {
        uint64_t n_rows, n_dims, batch, n_batches, seed;
        const char *json_path;
};

enum decoder {
        DECODER_CARVQ,
        DECODER_FAISS,
        DECODER_FAISS_TOGETHER,
        N_DECODERS,
};

static const char *const names[N_DECODERS] = { "carvq", "Faiss, row by row",
                                               "Faiss, codes together" };

struct bench {
        const struct options *options;
        struct codec_file file;
        struct codec_context context;
        struct faiss_rq *rq;
        uint8_t *codes, *together; /* Faiss's */
        size_t row_bytes;          /* of codes */
        float *rows;
};

static void decode(struct bench *b, enum decoder decoder, const uint64_t *ids) {
        const struct options *o = b->options;
        size_t n_vectors = o->n_dims / SUBVECTOR_DIMS;

        switch (decoder) {
        case DECODER_CARVQ:
                rows_decode(&b->context, &b->file.table, ids, o->batch, CODEC_TYPE_F32, b->rows);
                return;
        case DECODER_FAISS:
                for (size_t i = 0; i < o->batch; i++)
                        faiss_rq_decode(b->rq, b->codes + ids[i] * b->row_bytes, n_vectors,
                                        b->rows + i * o->n_dims);
                return;
        default:
                for (size_t i = 0; i < o->batch; i++)
                        memcpy(b->together + i * b->row_bytes, b->codes + ids[i] * b->row_bytes,
                               b->row_bytes);
                faiss_rq_decode(b->rq, b->together, o->batch * n_vectors, b->rows);
        }
}

static void measure(struct bench *b, double ret_us[N_DECODERS]) {
        const struct options *o = b->options;

        for (enum decoder d = 0; d < N_DECODERS; d++)
                ret_us[d] = INFINITY;
        for (uint64_t turn = 0; turn < div_round_up(o->n_batches, TURN_BATCHES); turn++) {
                _cleanup_(freep) uint64_t *ids =
                        ids_draw(IDS_UNIFORM, o->n_rows, TURN_BATCHES * o->batch, o->seed + turn);

                for (enum decoder d = 0; d < N_DECODERS; d++)
                        for (size_t i = 0; i < TURN_BATCHES; i++) {
                                uint64_t start_ns = clock_ns();

                                decode(b, d, ids + i * o->batch);
                                ret_us[d] = fmin(ret_us[d], (double)(clock_ns() - start_ns) / 1e3 /
                                                                    (double)o->batch);
                        }
        }
}

static void report(const struct options *o, const char *kernels, const double us[N_DECODERS]) {
        json_t *outcome = outcome_new("faiss-decode", kernels, "warm");
        double faiss_us = fmin(us[DECODER_FAISS], us[DECODER_FAISS_TOGETHER]);

        json_object_set_new(outcome, "faiss", json_string(faiss_rq_version()));
        printf("%-24s %10s %12s\n", "decoder", "us/row", "this / carvq");
        for (enum decoder d = 0; d < N_DECODERS; d++)
                printf("%-24s %10.3f %12.1f\n", names[d], us[d], us[d] / us[DECODER_CARVQ]);
        outcome_target(outcome,
                       &(struct outcome_target){
                               .measure =
                                       "decoding h=8 k=4 L=3 to f32, in-process, against libfaiss "
                                       "ResidualQuantizer::decode",
                               .target = "at least 8 x faster",
                               .value = faiss_us / us[DECODER_CARVQ],
                               .unit = "x",
                               .limit = 8,
                               .at_least = true,
                               .sides = { { "carvq", us[DECODER_CARVQ], "us/row" },
                                          { "Faiss", faiss_us, "us/row" } },
                       });
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

/* Random codes for both: what a code is makes no difference. */
static void set_up(struct bench *b) {
        const struct options *o = b->options;
        uint64_t random = o->seed, word;

        random_table_new((struct table_header){ .codec = TABLE_CODEC_CARVQ,
                                                .n_stages = 3,
                                                .codebook_bits = 4,
                                                .subvector_dims = SUBVECTOR_DIMS,
                                                .group_cols = TABLE_DIMS_MAX },
                         o->n_rows, (uint32_t)o->n_dims, o->seed, &b->file);
        codec_context_init(&b->context, codec_kernels_choose(codec_cpu_features()));
        if (codec_context_reserve(&b->context, &b->file.table) < 0)
                die("out of memory");
        b->rq = faiss_rq_new(SUBVECTOR_DIMS, 3, 4, TRAIN_VECTORS);
        if (!b->rq)
                die("Faiss cannot be trained");
        b->row_bytes = o->n_dims / SUBVECTOR_DIMS * faiss_rq_code_bytes(b->rq);
        b->codes = allocate_huge(align_up(o->n_rows * b->row_bytes, sizeof(word)));
        for (uint64_t i = 0; i < o->n_rows * b->row_bytes; i += sizeof(word)) {
                word = random_next(&random);
                memcpy(b->codes + i, &word, sizeof(word));
        }
        b->together = allocate_huge(o->batch * b->row_bytes);
        b->rows = allocate_huge(o->batch * o->n_dims * sizeof(float));
}

static void run(const struct options *o) {
        struct bench b = { .options = o };
        double us[N_DECODERS];
        char machine[256];

        set_up(&b);
        machine_name(machine, sizeof(machine));
        printf("%s; kernels %s; Faiss %s as this system has it; one thread; warm\n", machine,
               b.context.kernels->name, faiss_rq_version());
        printf("%" PRIu64 " rows x %" PRIu64 ", batches of %" PRIu64
               " random rows to one f32 buffer, best of %" PRIu64 ", seed %" PRIu64 "\n",
               o->n_rows, o->n_dims, o->batch, o->n_batches, o->seed);
        measure(&b, us);
        report(o, b.context.kernels->name, us);
        faiss_rq_free(b.rq);
        codec_context_deinit(&b.context);
        codec_file_unmap(&b.file);
        free(b.codes);
        free(b.together);
        free(b.rows);
}

int main(int argc, char **argv) {
        struct options o = {
                .n_rows = 128256,
                .n_dims = 2048,
                .batch = 256,
                .n_batches = 200,
                .seed = 1,
        };
        const struct bench_option options[] = {
                { "rows", "N", "rows of each table", .count = &o.n_rows, .min = 1,
                  .max = UINT32_MAX },
                { "dims", "N", "dimensions, a multiple of 8", .count = &o.n_dims, .min = 8,
                  .max = TABLE_DIMS_MAX },
                { "batch", "N", "random rows of a batch", .count = &o.batch, .min = 1,
                  .max = 65536 },
                { "batches", "N", "batches of each, rounded up to 16; the best counts",
                  .count = &o.n_batches, .min = 1, .max = 1000000 },
                { "seed", "N", "of codes and ids", .count = &o.seed, .min = 1, .max = UINT32_MAX },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { 0 },
        };

        bench_options(
                argc, argv,
                "Times the decoding of rows against Faiss's ResidualQuantizer, d=8 M=3 nbits=4.",
                options);
        if (o.n_dims % SUBVECTOR_DIMS)
                die("--dims is %" PRIu64 ", expected a multiple of %u", o.n_dims, SUBVECTOR_DIMS);
        run(&o);
        return 0;
}

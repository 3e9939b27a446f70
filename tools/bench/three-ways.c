/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-three-ways: the same work done three ways in one run. Batches of random rows, every element
 * of which the client reads: from an f16 table that it maps, from a carvq table that it decodes
 * itself, and through a carvqd of the bench's own with two batches in flight. The three take turns,
 * so what else the machine does hits all alike. A private copy of the f16 table on huge pages is
 * shown beside them: what full precision can do at best, in one process.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench-table.h"
#include "bench.h"
#include "ids.h"
#include "lib/carvq.h"
#include "npy-rows.h"
#include "options.h"
#include "outcome.h"
#include "private-daemon.h"
#include "sum.h"

/* Of one turn: few, so that some turns meet a quiet machine, enough that the first batch, which
 * nothing overlaps, costs the ring little. */
#define PASS_BATCHES 16u
#define BLOCK_ROWS   1024u
#define TABLE_NAME   "rows"

/* Of median to best. */
#define BUSY_RATIO 1.5

/* Of an element; the f16 table has rounded rows. */
#define SUM_TOLERANCE 1e-3

struct options {
        uint64_t n_rows, n_dims, batch, n_rounds, seed;
        const char *json_path, *work_path;
};

enum way {
        WAY_F16,
        WAY_F16_HUGE,
        WAY_DIRECT,
        WAY_RING,
        N_WAYS,
};

static const char *const way_names[N_WAYS] = { "f16 table, mmap", "f16 copy, huge", "carvq direct",
                                               "carvq ring" };

struct bench {
        const struct options *options;
        struct npy_rows f16, f16_huge;
        carvq_table *direct, *ring;
        carvq_client *client;
        const uint64_t *ids; /* PASS_BATCHES batches */
        void *rows;
};

/* ---- The ways ---- */

static double sum_rows(const struct bench *b, const void *rows, size_t stride_bytes, uint8_t type) {
        size_t row_bytes = b->options->n_dims * codec_type_bytes(type);
        double sum = 0;

        if (stride_bytes == row_bytes)
                return sum_values(rows, b->options->batch * b->options->n_dims, type);
        for (size_t i = 0; i < b->options->batch; i++)
                sum += sum_values((const uint8_t *)rows + i * stride_bytes, b->options->n_dims,
                                  type);
        return sum;
}

static void submit(struct bench *b, size_t batch, uint8_t type, carvq_ticket *ret_ticket) {
        struct carvq_lookup_options o = { .size = sizeof(o), .type = type };

        if (carvq_submit(b->ring, b->ids + batch * b->options->batch, b->options->batch, &o,
                         ret_ticket) < 0)
                die("%s", carvq_client_error(b->client));
}

/* The daemon decodes one batch while the other is read. */
static double pass_ring(struct bench *b, uint8_t type) {
        carvq_ticket tickets[2];
        double sum = 0;

        submit(b, 0, type, &tickets[0]);
        for (size_t i = 0; i < PASS_BATCHES; i++) {
                struct carvq_rows rows;

                if (i + 1 < PASS_BATCHES)
                        submit(b, i + 1, type, &tickets[(i + 1) % 2]);
                if (carvq_wait(b->client, tickets[i % 2], 0, &rows) < 0)
                        die("%s", carvq_client_error(b->client));
                sum += sum_rows(b, rows.rows, rows.row_stride_bytes, type);
                carvq_release(b->client, tickets[i % 2]);
        }
        return sum;
}

static double pass_here(struct bench *b, enum way way, uint8_t type) {
        size_t row_bytes = b->options->n_dims * codec_type_bytes(type), n = b->options->batch;
        struct carvq_lookup_options o = { .size = sizeof(o), .type = type };
        double sum = 0;

        for (size_t i = 0; i < PASS_BATCHES; i++) {
                if (way == WAY_F16 || way == WAY_F16_HUGE)
                        npy_gather(way == WAY_F16 ? &b->f16 : &b->f16_huge, b->ids + i * n, n, type,
                                   b->rows);
                else if (carvq_lookup(b->direct, b->ids + i * n, n, &o, b->rows, n * row_bytes) < 0)
                        die("%s", carvq_table_error(b->direct));
                sum += sum_rows(b, b->rows, row_bytes, type);
        }
        return sum;
}

static double pass(struct bench *b, enum way way, uint8_t type) {
        return way == WAY_RING ? pass_ring(b, type) : pass_here(b, way, type);
}

/* ---- Times ---- */

struct times {
        double best_us, median_us; /* a row */
};

static void measure(struct bench *b, uint8_t type, struct times *ret_times) {
        const struct options *o = b->options;
        _cleanup_(freep) uint64_t *ns = allocate(N_WAYS * o->n_rounds, sizeof(*ns));
        double n_rows = (double)(PASS_BATCHES * o->batch), sums[N_WAYS];

        for (uint64_t round = 0; round < o->n_rounds; round++) {
                b->ids = ids_draw(IDS_UNIFORM, o->n_rows, PASS_BATCHES * o->batch,
                                  o->seed + round + 1);
                for (enum way way = 0; way < N_WAYS; way++) {
                        uint64_t start_ns = clock_ns();

                        sums[way] = pass(b, way, type);
                        ns[way * o->n_rounds + round] = clock_ns() - start_ns;
                        if (!(fabs(sums[way] - sums[WAY_F16]) <=
                              SUM_TOLERANCE * n_rows * o->n_dims))
                                die("%s gives other rows: their sum is %g, expected %g",
                                    way_names[way], sums[way], sums[WAY_F16]);
                }
                free((void *)b->ids);
        }
        for (enum way way = 0; way < N_WAYS; way++) {
                uint64_t *first = ns + way * o->n_rounds;

                ret_times[way].median_us = (double)percentile(first, o->n_rounds, 0.5) / 1e3;
                ret_times[way].best_us = (double)first[0] / 1e3; /* sorted by now */
                ret_times[way].median_us /= n_rows;
                ret_times[way].best_us /= n_rows;
        }
}

static void add_target(json_t *outcome, const char *table, enum way way, const struct times *times,
                       double limit) {
        char measure[128], target[64];

        snprintf(measure, sizeof(measure), "same work, f32, %s: %s against an f16 table by mmap",
                 table, way_names[way]);
        snprintf(target, sizeof(target), "at most %.1f x", limit);
        outcome_target(outcome, &(struct outcome_target){
                                        .measure = measure,
                                        .target = target,
                                        .value = times[way].best_us / times[WAY_F16].best_us,
                                        .unit = "x",
                                        .limit = limit,
                                        .sides = { { way_names[way], times[way].best_us, "us/row" },
                                                   { way_names[WAY_F16], times[WAY_F16].best_us,
                                                     "us/row" } },
                                });
}

/* The best of a turn that nothing disturbed is what the machine can do; where all were disturbed it
 * is luck, and who reads the ratio should know. */
static bool was_busy(const struct times *times) {
        for (enum way way = 0; way < N_WAYS; way++)
                if (times[way].median_us > BUSY_RATIO * times[way].best_us)
                        return true;
        return false;
}

static void report(json_t *outcome, const char *table, uint8_t type, const struct times *times) {
        static const char *const types[] = { "f32", "f16", "bf16" };

        for (enum way way = 0; way < N_WAYS; way++) {
                printf("%-12s %-5s %-16s %9.3f %9.3f %8.2f\n", table, types[type], way_names[way],
                       times[way].best_us, times[way].median_us,
                       times[way].best_us / times[WAY_F16].best_us);
                json_array_append_new(
                        json_object_get(outcome, "lines"),
                        json_pack("{ss, ss, ss, sf, sf, sf}", "table", table, "type", types[type],
                                  "way", way_names[way], "best_us_per_row", times[way].best_us,
                                  "median_us_per_row", times[way].median_us, "ratio_to_f16",
                                  times[way].best_us / times[WAY_F16].best_us));
        }
        if (was_busy(times)) {
                printf("%-18s the machine was busy meanwhile: the medians are far from the best\n",
                       "");
                json_object_set_new(outcome, "busy", json_true());
        }
}

/* ---- The tables ---- */

/* The rows that carvq decodes, so that all three serve the same. */
static void write_f16(struct bench *b, const char *path) {
        const struct options *o = b->options;
        size_t row_bytes = o->n_dims * sizeof(uint16_t);
        struct carvq_lookup_options lo = { .size = sizeof(lo), .type = CARVQ_F16 };
        _cleanup_(freep) void *rows = allocate(BLOCK_ROWS, row_bytes);
        uint64_t ids[BLOCK_ROWS];
        FILE *f = npy_create(path, NPY_F16, o->n_rows, (uint32_t)o->n_dims);

        for (uint64_t first = 0; first < o->n_rows; first += BLOCK_ROWS) {
                size_t n = MIN(o->n_rows - first, BLOCK_ROWS);

                for (size_t i = 0; i < n; i++)
                        ids[i] = first + i;
                if (carvq_lookup(b->direct, ids, n, &lo, rows, n * row_bytes) < 0)
                        die("%s", carvq_table_error(b->direct));
                if (fwrite(rows, row_bytes, n, f) != n)
                        die("%s: %s", path, strerror(errno));
        }
        if (fclose(f))
                die("%s: %s", path, strerror(errno));
}

/* Every page of each table has been touched once before anything is timed. */
static void warm(struct bench *b) {
        const struct options *o = b->options;
        uint64_t *ids = allocate(PASS_BATCHES * o->batch, sizeof(*ids)), id = 0;

        b->ids = ids;
        while (id < o->n_rows) {
                for (size_t i = 0; i < PASS_BATCHES * o->batch; i++, id++)
                        ids[i] = id % o->n_rows;
                for (enum way way = 0; way < N_WAYS; way++)
                        pass(b, way, CODEC_TYPE_F32);
        }
        free(ids);
}

static void open_ring(struct bench *b, const struct private_daemon *daemon) {
        struct carvq_connect_options co = { .size = sizeof(co),
                                            .socket_path = daemon->socket_path,
                                            .no_reconnect = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";

        if (carvq_connect(&co, &b->client, message) < 0)
                die("%s", message);
        if (carvq_table_open(b->client, TABLE_NAME, &b->ring) < 0)
                die("%s", carvq_client_error(b->client));
}

static void run_table(const struct options *o, const char *name, const char *const *arguments,
                      json_t *outcome) {
        const struct bench_table table = { o->n_rows, (uint32_t)o->n_dims, o->seed, arguments };
        struct bench b = { .options = o };
        struct times times[CODEC_TYPE_BF16 + 1][N_WAYS];
        char carvq_path[PATH_MAX], f16_path[PATH_MAX], message[CARVQ_MESSAGE_BYTES];
        struct private_daemon daemon;

        bench_table_make(&table, "rows.carvq", carvq_path, sizeof(carvq_path));
        if (carvq_file_open(carvq_path, NULL, &b.direct, message) < 0)
                die("%s", message);
        work_path("f16.npy", f16_path, sizeof(f16_path));
        write_f16(&b, f16_path);
        npy_open(&b.f16, f16_path, NPY_F16, o->n_rows, (uint32_t)o->n_dims);
        npy_open(&b.f16_huge, f16_path, NPY_F16, o->n_rows, (uint32_t)o->n_dims);
        npy_copy_to_huge_pages(&b.f16_huge);
        private_daemon_start(&daemon, TABLE_NAME, carvq_path);
        open_ring(&b, &daemon);
        b.rows = allocate_pages(o->batch * o->n_dims * sizeof(float));

        warm(&b);
        for (uint8_t type = 0; type <= CODEC_TYPE_BF16; type++) {
                measure(&b, type, times[type]);
                report(outcome, name, type, times[type]);
        }
        add_target(outcome, name, WAY_DIRECT, times[CODEC_TYPE_F32], 0.6);
        add_target(outcome, name, WAY_RING, times[CODEC_TYPE_F32], 1.1);

        carvq_client_free(b.client);
        private_daemon_stop(&daemon);
        carvq_table_close(b.direct);
        npy_close(&b.f16);
        npy_close(&b.f16_huge);
        free(b.rows);
        unlink(f16_path);
        unlink(carvq_path);
}

static void run(const struct options *o) {
        const char *kernels = codec_kernels_choose(codec_cpu_features())->name;
        char machine[256];
        json_t *outcome = outcome_new("three-ways", kernels, "warm");

        json_object_set_new(outcome, "lines", json_array());
        machine_name(machine, sizeof(machine));
        printf("%s; kernels %s; warm\n", machine, kernels);
        printf("%" PRIu64 " rows x %" PRIu64 ", batches of %" PRIu64
               " random rows, every element summed; best and median of %" PRIu64
               ", us a row; seed %" PRIu64 "\n",
               o->n_rows, o->n_dims, o->batch, o->n_rounds, o->seed);
        printf("%-12s %-5s %-16s %9s %9s %8s\n", "table", "to", "way", "best", "median", "/ f16");
        run_table(o, "h8 k4 L3", bench_table_rvq, outcome);
        run_table(o, "h4 k6 of 12", bench_table_trellis, outcome);
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

int main(int argc, char **argv) {
        struct options o = {
                .n_rows = 128256,
                .n_dims = 2048,
                .batch = 256,
                .n_rounds = 120,
                .seed = 1,
        };
        const struct bench_option options[] = {
                { "rows", "N", "rows of each table", .count = &o.n_rows, .min = 1,
                  .max = UINT32_MAX },
                { "dims", "N", "dimensions", .count = &o.n_dims, .min = 1, .max = TABLE_DIMS_MAX },
                { "batch", "N", "random rows of a batch", .count = &o.batch, .min = 1,
                  .max = 65536 },
                { "rounds", "N", "turns of each way", .count = &o.n_rounds, .min = 1,
                  .max = 1000000 },
                { "work", "DIR", "where the tables go; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { "seed", "N", "of codes and ids", .count = &o.seed, .min = 1, .max = UINT32_MAX },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { 0 },
        };

        bench_options(argc, argv,
                      "Times the same rows from an f16 table, decoded here, and through a ring.",
                      options);
        work_folder(o.work_path);
        run(&o);
        return 0;
}

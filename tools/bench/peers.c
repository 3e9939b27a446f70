/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-peers: the same rows by id from everybody who could serve them on one host, into the
 * caller's buffer: .npy files by mmap, LMDB, Redis, carvq in-process and through its daemon.
 * Latency and rows a second by batch, of uniform and of skewed ids, and what each takes in memory.
 * Every peer's store is made of the rows that carvq decodes, and a sample of what it gives back is
 * compared before anything is timed.
 */
#include "peers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench-table.h"
#include "bench.h"
#include "options.h"
#include "outcome.h"

/* A multiple of the largest batch; longer than the last caches remember. */
#define N_IDS        (256u * 1024u)
#define SAMPLE_ROWS  1024u
#define HALF_EPSILON 0x1p-11 /* relative error of a rounding to f16 */
#define HALF_TINY    0x1p-25

static const char *const ids_names[PEERS_IDS] = {
        [IDS_UNIFORM] = "uniform", [IDS_ZIPF] = "Zipf(1.0)"
};
static const char *const type_names[] = { "f32", "f16" };

struct options {
        uint64_t n_rows, n_dims, seed, cell_ms;
        const char *table_path, *type, *json_path, *plot_path, *work_path;
};

static const struct peer *const all[] = {
        &peer_npy_f32, &peer_npy_f16, &peer_lmdb,          &peer_redis,
        &peer_direct,  &peer_ring,    &peer_ring_in_place,
};

static_assert(ARRAY_SIZE(all) <= PEERS_MAX, "");

/* ---- Setting up ---- */

static float value_of(const struct peer_world *world, const void *rows, size_t i) {
        float value;

        if (world->type == CODEC_TYPE_F32) {
                memcpy(&value, (const uint8_t *)rows + i * sizeof(value), sizeof(value));
                return value;
        }
        /* A half is compared as what it stands for. */
        world->context.kernels->decode[TABLE_CODEC_F16](
                &(struct codec_table){ .contents.header.n_dims = 1 },
                &(struct codec_record){ .bytes = (const uint8_t *)rows + i * sizeof(uint16_t) },
                NULL, &value);
        return value;
}

/* A bench that serves wrong rows is none. */
static void check_rows(struct peer_world *world, const struct peer *peer, const uint64_t *ids,
                       const void *expected) {
        _cleanup_(freep) void *buffer = allocate_pages(SAMPLE_ROWS * world->row_bytes);
        void *handle = peer->open(world);
        struct peer_rows rows;

        peer->get(handle, ids, SAMPLE_ROWS, buffer, &rows);
        for (size_t i = 0; i < SAMPLE_ROWS; i++)
                for (size_t d = 0; d < world->n_dims; d++) {
                        const void *row = (const uint8_t *)rows.rows + i * rows.stride_bytes;
                        float is = value_of(world, row, d);
                        float wanted = value_of(world, expected, i * world->n_dims + d);

                        if (!(fabsf(is - wanted) <= HALF_EPSILON * fabsf(wanted) + HALF_TINY))
                                die("%s: row %" PRIu64 " is wrong: dimension %zu is %g, expected "
                                    "%g",
                                    peer->name, ids[i], d, (double)is, (double)wanted);
                }
        peer->close(handle);
}

static void expect_rows(struct peer_world *world, const uint64_t *ids, void *ret_rows) {
        void *handle = peer_direct.open(world);
        struct peer_rows rows;

        peer_direct.get(handle, ids, SAMPLE_ROWS, ret_rows, &rows);
        peer_direct.close(handle);
}

/* Those that can be had, checked; the others with the reason in `skipped`. */
static size_t set_up(struct peer_world *world, const uint64_t *ids, struct peers_result *results,
                     json_t *skipped) {
        _cleanup_(freep) void *expected = allocate_pages(SAMPLE_ROWS * world->row_bytes);
        size_t n = 0;

        expect_rows(world, ids, expected);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                struct fault why = { "" };

                if (all[i]->missing || !all[i]->set_up(world, &why)) {
                        const char *reason = all[i]->missing ? all[i]->missing : why.text;

                        printf("skipped: %s: %s\n", all[i]->name, reason);
                        json_object_set_new(skipped, all[i]->name, json_string(reason));
                        continue;
                }
                check_rows(world, all[i], ids, expected);
                results[n++] = (struct peers_result){ .peer = all[i] };
        }
        return n;
}

/* ---- Printing ---- */

static void print_times(const struct peers_result *results, size_t n_results, size_t kind) {
        printf("\n%-21s", ids_names[kind]);
        for (size_t b = 0; b < PEERS_BATCHES; b++)
                printf(" | %*zu id%s", b ? 20 : 21, peers_batches[b], b ? "s" : "");
        printf("\n%-21s", "");
        for (size_t b = 0; b < PEERS_BATCHES; b++)
                printf(" | %8s %7s %6s", "p50", "p99", "Mrow/s");
        printf("\n");
        for (size_t i = 0; i < n_results; i++) {
                printf("%-21s", results[i].peer->name);
                for (size_t b = 0; b < PEERS_BATCHES; b++) {
                        const struct peers_cell *c = &results[i].cells[kind][b];
                        int digits = c->p99_us < 1000 ? 2 : 0;

                        printf(" | %8.*f %7.*f %6.3f", digits, c->p50_us, digits, c->p99_us,
                               c->rows_per_s / 1e6);
                }
                printf("\n");
        }
}

static void print_memory(const struct peers_result *results, size_t n_results) {
        printf("\n%-21s |", "PSS, MiB");
        for (size_t c = 0; c < PEERS_CLIENTS; c++)
                printf(" %4u client%s", peers_clients[c], peers_clients[c] > 1 ? "s" : " ");
        printf("\n");
        for (size_t i = 0; i < n_results; i++) {
                printf("%-21s |", results[i].peer->name);
                for (size_t c = 0; c < PEERS_CLIENTS; c++)
                        printf(" %12.1f", (double)results[i].pss_bytes[c] / (1 << 20));
                printf("\n");
        }
}

static json_t *result_json(const struct peers_result *r) {
        json_t *cells = json_array(), *memory = json_array();

        for (size_t kind = 0; kind < PEERS_IDS; kind++)
                for (size_t b = 0; b < PEERS_BATCHES; b++) {
                        const struct peers_cell *c = &r->cells[kind][b];

                        json_array_append_new(
                                cells,
                                json_pack("{ss, sI, sf, sf, sf}", "ids", ids_names[kind], "batch",
                                          (json_int_t)peers_batches[b], "p50_us", c->p50_us,
                                          "p99_us", c->p99_us, "rows_per_s", c->rows_per_s));
                }
        for (size_t c = 0; c < PEERS_CLIENTS; c++)
                json_array_append_new(memory,
                                      json_pack("{sI, sI}", "clients", (json_int_t)peers_clients[c],
                                                "pss_bytes", (json_int_t)r->pss_bytes[c]));
        return json_pack("{ss, so, so}", "peer", r->peer->name, "cells", cells, "memory", memory);
}

/* ---- The run ---- */

static void plot(const struct options *o, const struct peers_result *results, size_t n_results,
                 const char *title) {
        struct fault why = { "" };

        if (!o->plot_path)
                return;
        if (peers_plot(results, n_results, title, o->plot_path, &why))
                printf("\nplot: %s\n", o->plot_path);
        else
                printf("\nno plot: %s\n", why.text);
}

static void run(const struct options *o, struct peer_world *world) {
        json_t *outcome = outcome_new("peers", world->context.kernels->name, "warm");
        json_t *skipped = json_object(), *peers = json_array();
        struct peers_result results[PEERS_MAX];
        char machine[200], title[320];
        uint64_t *ids[PEERS_IDS];
        size_t n;

        machine_name(machine, sizeof(machine));
        snprintf(title, sizeof(title), "%" PRIu64 " rows x %u to %s, %s, kernels %s, warm",
                 world->n_rows, world->n_dims, type_names[world->type], machine,
                 world->context.kernels->name);
        printf("%s; seed %" PRIu64 "\nus a batch, rows delivered to a buffer of the caller's\n",
               title, o->seed);
        for (size_t kind = 0; kind < PEERS_IDS; kind++)
                ids[kind] = ids_draw((enum ids_kind)kind, world->n_rows, N_IDS, o->seed);

        n = set_up(world, ids[IDS_UNIFORM], results, skipped);
        peers_time(world, results, n, ids, N_IDS, o->cell_ms * 1000000);
        for (size_t kind = 0; kind < PEERS_IDS; kind++) {
                print_times(results, n, kind);
                free(ids[kind]);
        }
        for (size_t i = 0; i < n; i++)
                for (size_t c = 0; c < PEERS_CLIENTS; c++)
                        results[i].pss_bytes[c] =
                                peers_memory(world, results[i].peer, peers_clients[c]);
        print_memory(results, n);
        plot(o, results, n, title);

        for (size_t i = 0; i < n; i++) {
                json_array_append_new(peers, result_json(&results[i]));
                results[i].peer->tear_down();
        }
        json_object_update_new(
                outcome, json_pack("{sI, sI, ss, so, so}", "n_rows", (json_int_t)world->n_rows,
                                   "n_dims", (json_int_t)world->n_dims, "type",
                                   type_names[world->type], "peers", peers, "skipped", skipped));
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

int main(int argc, char **argv) {
        struct options o = { .n_rows = 65536, .n_dims = 1024, .seed = 1, .cell_ms = 200 };
        const struct bench_option options[] = {
                { "rows", "N", "rows of the table", .count = &o.n_rows, .min = 1,
                  .max = UINT32_MAX },
                { "dims", "N", "dimensions", .count = &o.n_dims, .min = 1, .max = TABLE_DIMS_MAX },
                { "table", "FILE", "a .carvq file instead of random rows", .text = &o.table_path },
                { "type", "TYPE", "of the rows delivered: f32 or f16; default f32",
                  .text = &o.type },
                { "ms", "N", "milliseconds for each figure", .count = &o.cell_ms, .min = 1,
                  .max = 60000 },
                { "work", "DIR", "where the stores go; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { "seed", "N", "of rows and ids", .count = &o.seed, .min = 1, .max = UINT32_MAX },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { "plot", "FILE", "draw them there, as SVG, by gnuplot", .text = &o.plot_path },
                { 0 },
        };
        struct peer_world world;
        char path[PATH_MAX];
        uint8_t type;

        bench_options(argc, argv, "Times rows by id from carvq and from others on this host.",
                      options);
        type = o.type && !strcmp(o.type, "f16") ? CODEC_TYPE_F16 : CODEC_TYPE_F32;
        if (o.type && strcmp(o.type, type_names[type]))
                die("--type is \"%s\", expected f32 or f16", o.type);
        work_folder(o.work_path);
        if (!o.table_path) {
                const struct bench_table table = { o.n_rows, (uint32_t)o.n_dims, o.seed,
                                                   bench_table_trellis };

                bench_table_make(&table, "rows.carvq", path, sizeof(path));
        }
        peer_world_init(&world, o.table_path ? o.table_path : path, type);
        run(&o, &world);
        peer_world_deinit(&world);
        return 0;
}

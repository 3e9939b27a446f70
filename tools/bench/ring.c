/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-ring: what it costs to ask carvqd instead of decoding in-process. The latency of one
 * client, and the rows a second of many, by the size of their batches, with both sides awake and
 * asleep; beside each the same ids in-process, and as the price of sleeping an eventfd there and
 * back between two processes. Starts a carvqd of its own on a table of random codes.
 */
#include <limits.h>
#include <stdio.h>

#include "bench-table.h"
#include "lib/codec/codec.h"
#include "options.h"
#include "private-daemon.h"
#include "ring-bench.h"

const uint32_t ring_batches[RING_BATCHES] = { 1, 16, 256, RING_BATCH_MAX };

void ring_connect(const struct ring_bench *bench, uint64_t spin_ns, carvq_client **ret_client,
                  carvq_table **ret_table) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = bench->socket_path,
                                           .spin_ns = spin_ns,
                                           .no_reconnect = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";

        o.arena_bytes = MAX(RING_BATCH_MAX * bench->n_dims * sizeof(float), 4096);
        if (carvq_connect(&o, ret_client, message) < 0)
                die("%s", message);
        if (carvq_table_open(*ret_client, RING_TABLE, ret_table) < 0)
                die("%s", carvq_client_error(*ret_client));
}

carvq_table *ring_open_direct(const struct ring_bench *bench) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table;

        if (carvq_file_open(bench->table_path, NULL, &table, message) < 0)
                die("%s", message);
        return table;
}

void ring_lookup(carvq_client *client, carvq_table *table, const uint64_t *ids, uint32_t n_ids) {
        struct carvq_rows rows;
        carvq_ticket ticket;

        if (carvq_submit(table, ids, n_ids, NULL, &ticket) < 0 ||
            carvq_wait(client, ticket, 0, &rows) < 0)
                die("%s", carvq_client_error(client));
        carvq_release(client, ticket);
}

static void run(struct ring_bench *b, const char *json_path) {
        const struct bench_table table = { b->n_rows, (uint32_t)b->n_dims, b->seed,
                                           bench_table_rvq };
        const char *kernels = codec_kernels_choose(codec_cpu_features())->name;
        json_t *outcome = outcome_new("ring", kernels, "warm");
        char path[PATH_MAX], machine[256];
        struct private_daemon daemon;

        machine_name(machine, sizeof(machine));
        printf("%s; kernels %s; warm\n%" PRIu64 " rows x %" PRIu64 ", h8 k4 L3; seed %" PRIu64 "\n",
               machine, kernels, b->n_rows, b->n_dims, b->seed);
        json_object_set_new(outcome, "throughput", json_array());
        bench_table_make(&table, "rows.carvq", path, sizeof(path));
        b->table_path = path;
        b->socket_path = daemon.socket_path;

        if (b->n_lookups) {
                private_daemon_start(&daemon, RING_TABLE, path);
                b->daemon_pid = daemon.pid;
                ring_latency(b, outcome);
                private_daemon_stop(&daemon);
        }
        /* Another one: a daemon that was held on one CPU for latencies serves 64 clients a quarter
         * slower for a while, with its CPUs back. */
        private_daemon_start(&daemon, RING_TABLE, path);
        ring_throughput(b, "awake", 0, outcome);
        private_daemon_stop(&daemon);

        private_daemon_start_with(&daemon, RING_TABLE, path,
                                  (const char *const[]){ "--spin-us", "0", NULL });
        ring_throughput(b, "asleep", UINT64_MAX, outcome);
        private_daemon_stop(&daemon);
        outcome_write(outcome, json_path);
        json_decref(outcome);
}

int main(int argc, char **argv) {
        const char *json_path = NULL, *parent = NULL;
        struct ring_bench b = {
                .n_rows = 128256,
                .n_dims = 2048,
                .n_lookups = 20000,
                .cell_ms = 200,
                .n_rounds = 2,
                .seed = 1,
        };
        const struct bench_option options[] = {
                { "rows", "N", "rows of the table", .count = &b.n_rows, .min = 1,
                  .max = UINT32_MAX },
                { "dims", "N", "dimensions", .count = &b.n_dims, .min = 1, .max = TABLE_DIMS_MAX },
                { "lookups", "N", "of one row, for latencies; 0: none", .count = &b.n_lookups,
                  .min = 0, .max = 100000000 },
                { "ms", "N", "of each throughput; 0: none", .count = &b.cell_ms, .min = 0,
                  .max = 60000 },
                { "rounds", "N", "of which the best throughput counts", .count = &b.n_rounds,
                  .min = 1, .max = 1000 },
                { "batch", "N", "throughput of this batch size alone", .count = &b.only_batch,
                  .min = 1, .max = RING_BATCH_MAX },
                { "clients", "N", "throughput of so many clients alone", .count = &b.only_clients,
                  .min = 1, .max = RING_CLIENTS_MAX },
                { "work", "DIR", "where the table goes; default $TMPDIR, /tmp", .text = &parent },
                { "seed", "N", "of codes and ids", .count = &b.seed, .min = 1, .max = UINT32_MAX },
                { "json", "FILE", "write the figures there, too", .text = &json_path },
                { 0 },
        };

        bench_options(argc, argv, "Times lookups through carvqd against decoding in-process.",
                      options);
        work_folder(parent);
        run(&b, json_path);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl bench TABLE: what a table saves on this machine, against itself in full precision. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "format.h"
#include "proto/spin.h"
#include "tools/bench/sum.h"

/* Read in order to see how fast memory is: beyond what caches hold. */
#define MEMORY_BYTES (UINT64_C(1) << 30)

#define CLIENT_NAME  "carvqctl bench"

/* ---- The machine ---- */

static void measure_machine(struct bench *b) {
        uint64_t n = MEMORY_BYTES / sizeof(float), start_ns, best_ns = UINT64_MAX;
        float *memory = calloc(n, sizeof(*memory));
        volatile double sum = 0; /* so that it is made */

        if (!memory)
                return;
        memset(memory, 1, MEMORY_BYTES); /* pages of their own, not the one of zeros */
        for (int i = 0; i < 3; i++) {
                start_ns = clock_ns();
                sum = sum + sum_values(memory, n, CODEC_TYPE_F32);
                best_ns = MIN(best_ns, clock_ns() - start_ns);
        }
        free(memory);
        b->machine_bytes_per_s = (double)MEMORY_BYTES / ((double)best_ns / 1e9);
}

/* ---- What the daemon counts ---- */

/* Our session's item of GetStats; an exit status. */
static int find_client(const struct bench *b, json_t **ret_item) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        json_t *item;
        size_t i;
        int r = control_call(b->ctl, "GetStats", NULL, &reply);

        if (r != EXIT_OK)
                return r;
        json_array_foreach(json_object_get(reply, "clients"), i, item) {
                if (field_number(item, "client.pid") == (uint64_t)getpid() &&
                    !strcmp(field_text(item, "client.name"), CLIENT_NAME)) {
                        *ret_item = json_incref(item);
                        return EXIT_OK;
                }
        }
        complain("bench: carvqd does not list this process among its clients");
        return EXIT_REFUSED;
}

static double risen(const json_t *before, const json_t *after, const char *path) {
        return (double)(field_number(after, path) - field_number(before, path));
}

/* From what our own lookups added to the counters; nobody else's are in them. */
static void count_legs(struct bench *b, const json_t *before, const json_t *after,
                       struct bench_cell cells[BENCH_WAYS]) {
        double direct = risen(before, after, "claimed.n_rows_read");
        double ring = risen(before, after, "stats.counted.n_rows_read");
        double full_bytes = (double)(b->n_dims * codec_type_bytes(b->type));

        cells[BENCH_FULL].table_bytes = full_bytes;
        cells[BENCH_FULL].table_lines = ceil(full_bytes / 64);
        cells[BENCH_DIRECT].table_bytes = risen(before, after, "claimed.table_read_bytes") / direct;
        cells[BENCH_DIRECT].table_lines = risen(before, after, "claimed.table_read_lines") / direct;
        cells[BENCH_RING].table_bytes =
                risen(before, after, "stats.counted.table_read_bytes") / ring;
        cells[BENCH_RING].table_lines =
                risen(before, after, "stats.counted.table_read_lines") / ring;
        for (enum bench_way way = 0; way < BENCH_WAYS; way++)
                cells[way].written_bytes = (double)b->n_dims * sizeof(float);
}

static int measure(struct bench *b, enum bench_ids ids) {
        _cleanup_(json_decrefp) json_t *before = NULL, *after = NULL;
        struct fault fault = { 0 };
        int r = find_client(b, &before);

        if (r != EXIT_OK)
                return r;
        if (bench_warm(b, ids, &fault) < 0) {
                complain("bench: %s", fault.text);
                return EXIT_REFUSED;
        }
        r = find_client(b, &after);
        if (r == EXIT_OK)
                count_legs(b, before, after, b->cells[ids]);
        return r;
}

/* ---- The table ---- */

/* Takes from `status` and `stats` what the report wants of them; they must live as long. */
static int describe(struct bench *b, const json_t *status, const json_t *stats) {
        const json_t *table = field(json_array_get(json_object_get(stats, "tables"), 0), "table");

        b->path = field_text(table, "path");
        b->n_rows = field_number(table, "n_rows");
        b->n_dims = (uint32_t)field_number(table, "n_dims");
        b->file_bytes = field_number(table, "counted.file_bytes");
        b->bits_per_parameter = field_real(table, "counted.bits_per_parameter");
        b->kernel = field_text(status, "kernel");
        b->daemon_pid = (pid_t)field_number(status, "pid");
        if (b->n_rows && b->n_dims)
                return EXIT_OK;
        complain("bench: carvqd does not say how large table '%s' is", b->name);
        return EXIT_REFUSED;
}

static int open_table(struct bench *b) {
        struct carvq_connect_options co = { .size = sizeof(co),
                                            .socket_path = b->ctl->socket_path,
                                            .name = CLIENT_NAME,
                                            .no_reconnect = 1 }; /* it measures this daemon */
        struct carvq_table_options to = { .size = sizeof(to), .mode = CARVQ_MODE_DIRECT };
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        r = carvq_connect(&co, &b->client, message);
        if (r < 0) {
                complain("bench: %s", message);
                return EXIT_UNREACHABLE;
        }
        r = carvq_table_open(b->client, b->name, &b->ring);
        if (r < 0) {
                complain("bench: %s", carvq_client_error(b->client));
                return EXIT_REFUSED;
        }
        r = carvq_table_open_with(b->client, b->name, &to, &b->direct);
        if (r < 0)
                fault_set(&b->no_direct, r, "%s", carvq_client_error(b->client));
        b->rows = calloc(b->batch * b->n_dims, sizeof(float));
        b->ids = calloc(b->batch * BENCH_TURN_BATCHES, sizeof(uint64_t));
        if (b->rows && b->ids)
                return EXIT_OK;
        complain("bench: no memory for a batch of %" PRIu64 " rows", b->batch);
        return EXIT_REFUSED;
}

static void open_traffic(struct bench *b) {
        int r = traffic_mbm_open(&b->mbm, "/sys", &b->no_mbm);

        if (r >= 0)
                r = traffic_mbm_add(&b->mbm, getpid(), &b->no_mbm);
        if (r >= 0)
                r = traffic_mbm_add(&b->mbm, b->daemon_pid, &b->no_mbm);
        if (r < 0)
                traffic_mbm_close(&b->mbm);
        traffic_imc_open(&b->imc, "/sys", &b->no_imc);
}

/* What the table and this client take by now. */
static int measure_memory(struct bench *b) {
        _cleanup_(json_decrefp) json_t *reply = NULL, *client = NULL;
        const json_t *pss;
        int r;

        r = control_call(b->ctl, "GetStats", json_pack("{ss}", "table", b->name), &reply);
        if (r == EXIT_OK)
                r = find_client(b, &client);
        if (r != EXIT_OK)
                return r;
        pss = field(json_array_get(json_object_get(reply, "tables"), 0),
                    "table.measured.pss_bytes");
        b->pss_bytes = json_is_integer(pss) ? (double)json_integer_value(pss) : NAN;
        b->ring_bytes = field_number(client, "client.ring_bytes");
        return EXIT_OK;
}

static int run(struct bench *b) {
        int r = open_table(b);

        if (r == EXIT_OK)
                r = bench_full_make(b);
        if (r != EXIT_OK)
                return r;
        open_traffic(b);
        measure_machine(b);
        for (enum bench_ids ids = 0; ids < BENCH_COLD && r == EXIT_OK; ids++)
                r = measure(b, ids);
        if (r == EXIT_OK)
                r = measure_memory(b);
        if (r == EXIT_OK && b->ctl->cold)
                r = bench_cold(b);
        return r;
}

static void bench_deinit(struct bench *b) {
        traffic_mbm_close(&b->mbm);
        traffic_imc_close(&b->imc);
        bench_full_free(b);
        carvq_table_close(b->direct);
        carvq_table_close(b->ring);
        carvq_client_free(b->client);
        free(b->rows);
        free(b->ids);
}

static int print(const struct bench *b) {
        _cleanup_(json_decrefp) json_t *json = NULL;
        int r;

        if (b->ctl->svg_path) {
                r = bench_write_svg(b, b->ctl->svg_path);
                if (r < 0) {
                        complain("bench: %s: %s", b->ctl->svg_path, strerror(-r));
                        return EXIT_REFUSED;
                }
        }
        if (!b->ctl->json) {
                bench_print(b);
                return EXIT_OK;
        }
        json = bench_to_json(b);
        return print_json(json);
}

static bool find_type(const char *name, uint8_t *ret_type) {
        for (uint8_t type = CODEC_TYPE_F32; type <= CODEC_TYPE_BF16; type++)
                if (!strcmp(bench_type_names[type], name)) {
                        *ret_type = type;
                        return true;
                }
        return false;
}

int verb_bench(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *status = NULL, *stats = NULL;
        struct bench b = {
                .ctl = ctl,
                .name = ctl->arguments[0],
                .type = CODEC_TYPE_F16,
                .batch = ctl->batch ? ctl->batch : 256,
                .seconds = ctl->seconds > 0 ? ctl->seconds : 1,
                .random = 0x9e3779b97f4a7c15,
        };
        int r;

        if (ctl->against && !find_type(ctl->against, &b.type)) {
                complain("bench: --against: '%s' is no full precision, expected f32, f16 or bf16",
                         ctl->against);
                return EXIT_USAGE;
        }
        r = control_call(ctl, "GetStatus", NULL, &status);
        if (r == EXIT_OK)
                r = control_call(ctl, "GetStats", json_pack("{ss}", "table", b.name), &stats);
        if (r == EXIT_OK)
                r = describe(&b, status, stats);
        if (r != EXIT_OK)
                return r;
        r = run(&b);
        if (r == EXIT_OK)
                r = print(&b);
        bench_deinit(&b);
        return r;
}

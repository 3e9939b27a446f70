/* SPDX-License-Identifier: Apache-2.0 */
/* The ways of `carvqctl bench`, which take turns, so that what else the machine does meets them
 * all. */
#include <math.h>
#include <string.h>

#include "bench.h"
#include "proto/spin.h"
#include "tools/bench/sum.h"

#define TURNS_MAX 100000u

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

/*
 * Text-like: row r is drawn with a probability proportional to 1 / r, as vocabularies are in about
 * the order of frequency (Zipf's law with exponent 1). N^u for u in [0, 1) is such a number.
 */
void bench_draw(struct bench *b, enum bench_ids ids) {
        double log_n = log((double)b->n_used);

        for (size_t i = 0; i < BENCH_TURN_BATCHES * b->batch; i++) {
                uint64_t word = next_random(&b->random);
                double u = (double)(word >> 11) * 0x1p-53;

                b->ids[i] = ids != BENCH_TEXT ? word % b->n_used
                                              : MIN((uint64_t)exp(u * log_n) - 1, b->n_used - 1);
        }
}

/* ---- The ways ---- */

static volatile double sink; /* so that sums are made */

static void read_values(const struct bench *b, const void *rows) {
        sink = sink + sum_values(rows, b->batch * b->n_dims, CODEC_TYPE_F32);
}

static int turn_full(struct bench *b, const struct codec_table *full) {
        struct codec_request q = {
                .n_ids = b->batch,
                .n_cols = b->n_dims,
                .scale = 1,
                .type = CODEC_TYPE_F32,
                .row_stride_bytes = b->n_dims * sizeof(float),
                .out = b->rows,
        };

        for (size_t i = 0; i < BENCH_TURN_BATCHES; i++) {
                struct codec_cost cost = { 0 };

                q.ids = b->ids + i * b->batch;
                codec_decode_all(&b->context, full, &q, &cost);
                read_values(b, b->rows);
        }
        return 0;
}

static int turn_direct(struct bench *b, carvq_table *table, struct fault *ret_fault) {
        size_t n_bytes = b->batch * b->n_dims * sizeof(float);

        for (size_t i = 0; i < BENCH_TURN_BATCHES; i++) {
                int r = carvq_lookup(table, b->ids + i * b->batch, b->batch, NULL, b->rows,
                                     n_bytes);

                if (r < 0)
                        return fault_set(ret_fault, r, "%s", carvq_table_error(table));
                read_values(b, b->rows);
        }
        return 0;
}

/* Two batches in flight: the daemon decodes one while the other is read. */
static int turn_ring(struct bench *b, carvq_table *table, struct fault *ret_fault) {
        carvq_ticket tickets[2];
        int r = carvq_submit(table, b->ids, b->batch, NULL, &tickets[0]);

        for (size_t i = 0; r >= 0 && i < BENCH_TURN_BATCHES; i++) {
                struct carvq_rows rows;

                if (i + 1 < BENCH_TURN_BATCHES)
                        r = carvq_submit(table, b->ids + (i + 1) * b->batch, b->batch, NULL,
                                         &tickets[(i + 1) % 2]);
                if (r >= 0)
                        r = carvq_wait(b->client, tickets[i % 2], 0, &rows);
                for (size_t k = 0; r >= 0 && k < rows.n_rows; k++)
                        sink = sink +
                               sum_values((const uint8_t *)rows.rows + k * rows.row_stride_bytes,
                                          b->n_dims, CODEC_TYPE_F32);
                if (r >= 0)
                        carvq_release(b->client, tickets[i % 2]);
        }
        return r < 0 ? fault_set(ret_fault, r, "%s", carvq_client_error(b->client)) : 0;
}

int bench_turn(struct bench *b, enum bench_way way, const struct codec_table *full,
               carvq_table *direct, carvq_table *ring, struct fault *ret_fault) {
        switch (way) {
        case BENCH_FULL:
                return turn_full(b, full);
        case BENCH_DIRECT:
                return turn_direct(b, direct, ret_fault);
        default:
                return turn_ring(b, ring, ret_fault);
        }
}

/* ---- Warm ---- */

static int by_value(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

/* What memory has moved so far, for `way`. */
static void look(const struct bench *b, double sign, struct bench_cell *cell) {
        uint64_t bytes = 0, read_bytes = 0, written_bytes = 0;

        if (b->mbm.group && traffic_mbm_read(&b->mbm, &bytes, NULL) >= 0)
                cell->mbm_bytes += sign * (double)bytes;
        if (b->imc.n && traffic_imc_read(&b->imc, &read_bytes, &written_bytes, NULL) >= 0)
                cell->imc_bytes += sign * (double)(read_bytes + written_bytes);
}

static void finish_cell(const struct bench *b, double *ns, uint64_t n, struct bench_cell *cell) {
        double turn_rows = (double)(BENCH_TURN_BATCHES * b->batch), n_rows = turn_rows * (double)n;

        qsort(ns, n, sizeof(*ns), by_value);
        cell->ns = ns[n / 2] / turn_rows;
        cell->mbm_bytes = b->mbm.group ? cell->mbm_bytes / n_rows : NAN;
        cell->imc_bytes = b->imc.n ? cell->imc_bytes / n_rows : NAN;
        cell->storage_bytes = NAN;
}

int bench_warm(struct bench *b, enum bench_ids ids, struct fault *ret_fault) {
        double *ns[BENCH_WAYS] = { 0 };
        uint64_t n = 0, deadline_ns = 0;
        int r = 0;

        for (enum bench_way way = 0; way < BENCH_WAYS; way++) {
                ns[way] = calloc(TURNS_MAX, sizeof(double));
                if (!ns[way])
                        r = fault_set(ret_fault, -ENOMEM, "out of memory");
        }
        for (; r >= 0 && n < TURNS_MAX && (n < 4 || clock_ns() < deadline_ns); n++) {
                bench_draw(b, ids);
                for (enum bench_way way = 0; way < BENCH_WAYS; way++) {
                        struct bench_cell *cell = &b->cells[ids][way];
                        uint64_t start_ns;

                        if (way == BENCH_DIRECT && !b->direct) {
                                cell->unavailable = b->no_direct;
                                continue;
                        }
                        look(b, -1, cell);
                        start_ns = clock_ns();
                        r = bench_turn(b, way, &b->full.table, b->direct, b->ring, ret_fault);
                        ns[way][n] = (double)(clock_ns() - start_ns);
                        look(b, 1, cell);
                        if (r < 0)
                                break;
                }
                if (!deadline_ns) /* the first turn only warms */
                        deadline_ns = deadline_after((uint64_t)(b->seconds * BENCH_WAYS * 1e9));
        }
        for (enum bench_way way = 0; way < BENCH_WAYS; way++) {
                if (r >= 0)
                        finish_cell(b, ns[way], n, &b->cells[ids][way]);
                free(ns[way]);
        }
        return r;
}

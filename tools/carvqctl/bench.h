/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `carvqctl bench` share: the same rows read from a table in full precision that
 * this process holds, from the carvq table that it decodes itself, and through the daemon's rings.
 * In each way a batch of f32 rows is made, and every value of it read. One thread.
 */
#pragma once

#include "carvqctl.h"
#include "lib/carvq.h"
#include "lib/codec/codec.h"
#include "traffic.h"

enum bench_way { BENCH_FULL, BENCH_DIRECT, BENCH_RING, BENCH_WAYS };
enum bench_ids { BENCH_UNIFORM, BENCH_TEXT, BENCH_COLD, BENCH_IDS };

/* Of one way with one kind of ids; all but the first by row. */
struct bench_cell {
        struct fault unavailable; /* no text: it was measured */
        double ns;                /* the median of turns; cold, the mean */
        double table_bytes, table_lines, written_bytes;
        double mbm_bytes;     /* that memory moved for this process and the daemon; NAN: unknown */
        double imc_bytes;     /* that the whole machine's memory moved meanwhile; NAN: unknown */
        double storage_bytes; /* that this process read from storage; NAN: unknown */
};

struct bench {
        const struct carvqctl *ctl;
        const char *name; /* the table's */
        const char *path; /* of its file, as the daemon says */
        uint8_t type;     /* of full precision: a codec_type */
        uint32_t n_dims;
        uint64_t n_rows, n_used; /* of the table; of them in use, from the first on */
        uint64_t batch;
        double seconds; /* for each kind of ids and way */
        pid_t daemon_pid;

        struct codec_file full; /* the rows in full precision: a table like any other, in memory */
        struct codec_context context;
        carvq_client *client;
        carvq_table *direct, *ring;
        struct fault no_direct; /* why `direct` is NULL */
        float *rows;            /* a batch */
        uint64_t *ids;          /* of a turn */
        uint64_t random;

        struct traffic_mbm mbm;
        struct traffic_imc imc;
        struct fault no_mbm, no_imc; /* why there are none */

        double machine_bytes_per_s; /* read in order by one thread */
        double pss_bytes;           /* of the table in the daemon; NAN: unknown */
        uint64_t file_bytes, ring_bytes;
        double bits_per_parameter;
        const char *kernel;
        struct bench_cell cells[BENCH_IDS][BENCH_WAYS];
};

/* Rows of batches between two looks at the clock. */
#define BENCH_TURN_BATCHES 16u

/* ---- bench-full.c ---- */

/* The first rows of the table in full precision, as many as half of the free memory takes, to
 * anonymous memory. An exit status. */
int bench_full_make(struct bench *bench);
void bench_full_free(struct bench *bench);

/* ---- bench-cold.c ---- */

/* With files in a folder of their own: BENCH_COLD's cells. An exit status; what cannot be had says
 * so in its cell. */
int bench_cold(struct bench *bench);

/* ---- bench-ways.c ---- */

/* A kind of ids, with everything in memory: times, and what memory moved, to its cells. -errno. */
int bench_warm(struct bench *bench, enum bench_ids ids, struct fault *ret_fault);
/* One turn of a way. -errno with the reason. */
int bench_turn(struct bench *bench, enum bench_way way, const struct codec_table *full,
               carvq_table *direct, carvq_table *ring, struct fault *ret_fault);
/* Ids of a turn. */
void bench_draw(struct bench *bench, enum bench_ids ids);

/* ---- bench-report.c ---- */

extern const char *const bench_type_names[]; /* by codec_type */

void bench_print(const struct bench *bench);
json_t *bench_to_json(const struct bench *bench);
/* 0 or -errno. */
int bench_write_svg(const struct bench *bench, const char *path);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-decode-file: what a row of a packed file costs. Random rows, other ones for each batch, are
 * decoded by codec_decode() into one f32 buffer; the best batch counts, so the page cache is warm
 * and the CPU's caches are as warm as the table's size allows. One thread. The file is checked as
 * the daemon checks it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/codec/codec.h"

#define BATCH_ROWS 256
#define SECONDS    1.0

static double now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* A linear congruential generator (Knuth, MMIX): its upper bits are random enough to miss caches.
 */
static uint64_t next_row(uint64_t *state, uint64_t n_rows) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return (*state >> 20) % n_rows;
}

/* us a row, or -ENOMEM. */
static int measure(const struct codec_table *table, double *ret_us) {
        const struct table_header *h = &table->contents.header;
        size_t row_bytes = h->n_dims * sizeof(float);
        _cleanup_(codec_context_deinit) struct codec_context context;
        _cleanup_(freep) void *out = NULL;
        uint64_t ids[BATCH_ROWS], state = 1;
        struct codec_cost cost = { 0 };
        double best = INFINITY, end;

        codec_context_init(&context, codec_kernels_choose(codec_cpu_features()));
        out = aligned_alloc(4096, align_up(BATCH_ROWS * row_bytes, 4096));
        if (!out || codec_context_reserve(&context, table) < 0)
                return -ENOMEM;
        /* Its pages are there before the clock runs. */
        memset(out, 0, BATCH_ROWS * row_bytes);
        end = now_us() + SECONDS * 1e6;
        while (now_us() < end) {
                const struct codec_request request = {
                        .ids = ids,
                        .n_ids = BATCH_ROWS,
                        .n_cols = h->n_dims,
                        .scale = 1,
                        .row_stride_bytes = row_bytes,
                        .out = out,
                };
                double start;

                for (size_t i = 0; i < BATCH_ROWS; i++)
                        ids[i] = next_row(&state, h->n_rows);
                start = now_us();
                codec_decode_all(&context, table, &request, &cost);
                best = fmin(best, now_us() - start);
        }
        *ret_us = best / BATCH_ROWS;
        return 0;
}

int main(int argc, char **argv) {
        struct codec_file file;
        struct fault fault = { 0 };
        double us;
        int r;

        if (argc != 2 || argv[1][0] == '-') {
                fprintf(stderr, "Usage: bench-decode-file FILE.carvq\n"
                                "Prints the microseconds that decoding a random row takes.\n");
                return 2;
        }
        if (codec_file_open(argv[1], &file, &fault) < 0) {
                fprintf(stderr, "bench-decode-file: %s\n", fault.text);
                return 3;
        }
        r = measure(&file.table, &us);
        codec_file_unmap(&file);
        if (r < 0) {
                fprintf(stderr, "bench-decode-file: out of memory\n");
                return 3;
        }
        printf("%.4f\n", us);
        return 0;
}

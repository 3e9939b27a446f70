/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the sample's rows in parallel: the place of each follows from its index alone. */
#include "sample.h"

#include "parallel.h"
#include "rng.h"

#define BLOCK_ROWS 256u

struct reading {
        struct source *source;
        uint64_t row_first, n_rows;
        uint64_t seed;
        uint32_t n_dims;
        struct sample *sample;
};

static uint64_t sample_row(const struct reading *g, size_t i) {
        uint64_t n = g->sample->n_rows, stretch = g->n_rows / n, rest = g->n_rows % n;
        /* The first `rest` stretches are one row longer. */
        uint64_t first = i * stretch + MIN(i, rest);
        struct rng rng = rng_stream(g->seed, i);

        return g->row_first + first + rng_below(&rng, stretch + (i < rest));
}

static int read_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct reading *g = userdata;
        size_t first = item * BLOCK_ROWS, n = MIN(BLOCK_ROWS, g->sample->n_rows - first);
        int r = 0;

        (void)thread;
        for (size_t i = first; i < first + n; i++)
                g->sample->indices[i] =
                        g->sample->n_rows == g->n_rows ? g->row_first + i : sample_row(g, i);
        if (g->sample->n_rows == g->n_rows)
                return source_read(g->source, g->row_first + first, n,
                                   g->sample->rows + first * g->n_dims, ret_fault);
        for (size_t i = first; r >= 0 && i < first + n; i++)
                r = source_read(g->source, g->sample->indices[i], 1,
                                g->sample->rows + i * g->n_dims, ret_fault);
        return r;
}

int sample_read(struct source *source, uint64_t row_first, uint64_t n_rows, size_t max_bytes,
                uint64_t seed, unsigned n_threads, struct sample *ret_sample,
                struct fault *ret_fault) {
        uint32_t n_dims = source_selected(source)->n_dims;
        uint64_t n_max = MAX(max_bytes / sizeof(float) / n_dims, 1u);
        struct sample sample = { .n_rows = MIN(n_rows, n_max) };
        struct reading reading = { source, row_first, n_rows, seed, n_dims, &sample };
        int r;

        sample.rows = malloc(sample.n_rows * n_dims * sizeof(float));
        sample.indices = malloc(sample.n_rows * sizeof(uint64_t));
        r = sample.rows && sample.indices
                    ? parallel_for(n_threads, div_round_up(sample.n_rows, BLOCK_ROWS), read_block,
                                   &reading, ret_fault)
                    : -ENOMEM;
        if (r < 0) {
                sample_deinit(&sample);
                return r;
        }
        *ret_sample = sample;
        return 0;
}

void sample_deinit(struct sample *sample) {
        free(sample->rows);
        free(sample->indices);
        *sample = (struct sample){ 0 };
}

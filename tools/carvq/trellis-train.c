/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training of the trellis's centroids. Rows are coded by several threads; everything that adds
 * floats up runs in row order on one.
 */
#include <float.h>
#include <string.h>

#include "parallel.h"
#include "rng.h"
#include "trellis.h"

#define BLOCK_ROWS 8u

/* The first passes look at every EARLY_SHARE-th row only: they are far from settled anyway. */
#define EARLY_SHARE 4u

struct coding {
        const struct trellis_shape *shape;
        const struct trellis_samples *samples;
        const float *centroids;
        struct trellis_scratch *scratch; /* one for each thread */
        uint16_t *states;                /* [rows of this pass][sub-vectors] */
        size_t first, step, n;           /* rows of this pass */
};

struct sums {
        double *values;  /* [groups][2^S][h], weighted */
        double *weights; /* the same */
};

static int code_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct coding *c = userdata;
        size_t end = MIN((item + 1) * BLOCK_ROWS, c->n);

        (void)ret_fault;
        for (size_t i = item * BLOCK_ROWS; i < end; i++) {
                size_t row = c->first + i * c->step;

                trellis_encode(c->shape, c->centroids, &c->scratch[thread],
                               c->samples->rows + row * c->shape->n_dims, c->samples->weights,
                               c->samples->code_bits[row],
                               c->states + i * trellis_n_subvectors(c->shape));
        }
        return 0;
}

static void accumulate(const struct coding *c, struct sums *sums) {
        uint32_t h = c->shape->subvector_dims, n_subvectors = trellis_n_subvectors(c->shape);
        size_t n_group = trellis_group_floats(c->shape);

        memset(sums->values, 0, trellis_n_groups(c->shape) * n_group * sizeof(double));
        memset(sums->weights, 0, trellis_n_groups(c->shape) * n_group * sizeof(double));
        for (size_t i = 0; i < c->n; i++) {
                size_t row = c->first + i * c->step;
                const float *x = c->samples->rows + row * c->shape->n_dims;
                double of_row = c->samples->row_weights ? (double)c->samples->row_weights[row] : 1;

                for (uint32_t dim = 0; dim < c->shape->n_dims; dim++) {
                        uint32_t j = dim / h;
                        size_t at = j / c->shape->group_cols * n_group +
                                    (size_t)c->states[i * n_subvectors + j] * h + dim % h;
                        double weight = c->samples->weights
                                                ? of_row * (double)c->samples->weights[dim]
                                                : of_row;

                        sums->values[at] += weight * (double)x[dim];
                        sums->weights[at] += weight;
                }
        }
}

/* Centroids that stood for nothing stay where they are. */
static void move_centroids(const struct trellis_shape *shape, const struct sums *sums,
                           float *centroids) {
        uint32_t h = shape->subvector_dims;
        size_t n_group = trellis_group_floats(shape);

        for (size_t g = 0; g < trellis_n_groups(shape); g++)
                for (size_t i = 0; i < n_group; i++)
                        if (sums->weights[g * n_group + i] > 0)
                                centroids[g * n_group + (i % h << shape->window_bits) + i / h] =
                                        (float)(sums->values[g * n_group + i] /
                                                sums->weights[g * n_group + i]);
}

/* Centroids start as sub-vectors of the samples, anywhere in their group's columns. */
static void seed_centroids(const struct trellis_shape *shape, const struct trellis_samples *samples,
                           uint64_t seed, float *ret_centroids) {
        uint32_t h = shape->subvector_dims, n_subvectors = trellis_n_subvectors(shape);
        struct rng rng = rng_stream(seed, 0);

        for (uint32_t g = 0; g < trellis_n_groups(shape); g++) {
                float *group = ret_centroids + g * trellis_group_floats(shape);
                uint32_t first = g * shape->group_cols;
                uint32_t n = MIN(shape->group_cols, n_subvectors - first);

                for (uint32_t s = 0; s < 1u << shape->window_bits; s++) {
                        const float *row =
                                samples->rows + rng_below(&rng, samples->n_rows) * shape->n_dims;
                        uint32_t dim = (first + (uint32_t)rng_below(&rng, n)) * h;

                        for (uint32_t d = 0; d < h; d++)
                                group[((size_t)d << shape->window_bits) + s] =
                                        dim + d < shape->n_dims ? row[dim + d] : 0;
                }
        }
}

static int run_passes(struct coding *c, struct sums *sums, const struct trellis_effort *effort,
                      unsigned n_threads, float *centroids) {
        for (uint32_t i = 0; i < effort->n_passes; i++) {
                bool early = !effort->warm && 2 * i < effort->n_passes &&
                             c->samples->n_rows >= 2 * EARLY_SHARE;
                int r;

                c->step = early ? EARLY_SHARE : 1;
                c->first = early ? i % EARLY_SHARE : 0;
                c->n = div_round_up(c->samples->n_rows - c->first, c->step);
                r = parallel_for(n_threads, div_round_up(c->n, BLOCK_ROWS), code_block, c, NULL);
                if (r < 0)
                        return r;
                accumulate(c, sums);
                move_centroids(c->shape, sums, centroids);
                if (effort->passed)
                        effort->passed(effort->userdata, 1);
        }
        return 0;
}

int trellis_train(const struct trellis_shape *shape, const struct trellis_samples *samples,
                  const struct trellis_effort *effort, uint64_t seed, unsigned n_threads,
                  float *ret_centroids) {
        size_t n = trellis_n_groups(shape) * trellis_group_floats(shape);
        _cleanup_(freep) uint16_t *states =
                malloc(samples->n_rows * trellis_n_subvectors(shape) * sizeof(uint16_t));
        _cleanup_(freep) double *memory = malloc(2 * n * sizeof(double));
        struct sums sums = { memory, memory + n };
        struct coding coding = { .shape = shape,
                                 .samples = samples,
                                 .centroids = ret_centroids,
                                 .scratch = calloc(n_threads, sizeof(*coding.scratch)),
                                 .states = states };
        uint32_t bits_min = shape->window_bits;
        int r = states && memory && coding.scratch ? 0 : -ENOMEM;

        for (size_t i = 0; i < samples->n_rows; i++)
                bits_min = MIN(bits_min, samples->code_bits[i]);
        for (unsigned i = 0; r >= 0 && i < n_threads; i++)
                r = trellis_scratch_init(&coding.scratch[i], shape, bits_min);
        if (r >= 0) {
                if (!effort->warm)
                        seed_centroids(shape, samples, seed, ret_centroids);
                r = run_passes(&coding, &sums, effort, n_threads, ret_centroids);
        }
        for (unsigned i = 0; coding.scratch && i < n_threads; i++)
                trellis_scratch_deinit(&coding.scratch[i]);
        free(coding.scratch);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Rows are read in fixed blocks by several threads; each row is judged by itself. */
#include "survey.h"

#include <math.h>
#include <string.h>

#include "parallel.h"

#define BLOCK_BYTES  (512u << 10)
#define WAVE_BLOCKS  16u  /* for each thread, between reports */
#define REACH        5.   /* standard deviations that codes represent */
#define EXCESS_SHARE 0.03 /* of a row's energy that may lie beyond */
#define SIZE_PASSES  5

struct surveying {
        struct source *source;
        const struct adaptor_solver *solver;
        uint32_t n_dims, n_latents;
        uint64_t n_rows, first, end; /* of the wave */
        size_t n_block_rows;
        bool row_scale;
        float *deviations; /* [n_dims], of what the adaptor leaves of the sample */
        double *inverse;   /* [n_dims]: 1 / deviation, or 0 */
        double energy;     /* of a row: the mean */
        uint8_t *rows;
};

/* What the adaptor leaves of rows, in place. */
static int subtract_adaptor(const struct surveying *s, float *rows, size_t n_rows) {
        size_t n = n_rows * s->n_dims;
        _cleanup_(freep) float *latents = malloc(n_rows * (s->n_latents + 1) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(n * sizeof(float));
        int r;

        if (!s->solver)
                return 0;
        if (!latents || !outputs)
                return -ENOMEM;
        r = adaptor_solve(s->solver, rows, n_rows, latents, outputs);
        for (size_t i = 0; r >= 0 && i < n; i++)
                rows[i] -= outputs[i];
        return r;
}

/*
 * The size of a row in deviations, as it would be without what lies beyond reach: values beyond
 * are pulled in until they hardly count. Without row scales all rows have the same.
 */
static double row_size(const struct surveying *s, const float *residual) {
        double size = INFINITY;

        for (int i = 0; s->row_scale && i < SIZE_PASSES; i++) {
                double sum = 0;

                for (uint32_t d = 0; d < s->n_dims; d++) {
                        double z = (double)residual[d] * s->inverse[d];

                        sum += MIN(z * z, REACH * REACH * size * size);
                }
                size = sqrt(sum / s->n_dims);
        }
        return s->row_scale ? size : 1;
}

/* Quarters of an octave. */
#define CLASS_OF_MEAN 128

static uint8_t class_of(const struct surveying *s, double energy) {
        double octaves = energy > 0 ? log2(energy / s->energy) : -INFINITY;

        return (uint8_t)MIN(MAX(rint(4 * octaves) + CLASS_OF_MEAN, 0.), SURVEY_OUTLIER - 1.);
}

float survey_energy(const struct survey *survey, uint64_t row) {
        return exp2f((float)(survey->rows[row] - CLASS_OF_MEAN) / 4);
}

static uint8_t judge_row(const struct surveying *s, const float *residual) {
        double energy = 0, excess = 0, reach = REACH * row_size(s, residual);

        for (uint32_t i = 0; i < s->n_dims; i++) {
                double over = fabs((double)residual[i]) - reach * (double)s->deviations[i];

                energy += (double)residual[i] * (double)residual[i];
                if (over > 0)
                        excess += over * over;
        }
        return excess > EXCESS_SHARE * energy ? SURVEY_OUTLIER : class_of(s, energy);
}

static int survey_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct surveying *s = userdata;
        uint64_t first = s->first + item * s->n_block_rows;
        size_t n = (size_t)MIN(s->n_block_rows, s->end - first);
        _cleanup_(freep) float *rows = malloc(n * s->n_dims * sizeof(float));
        int r;

        (void)thread;
        if (!rows)
                return -ENOMEM;
        r = source_read(s->source, first, n, rows, ret_fault);
        if (r >= 0)
                r = subtract_adaptor(s, rows, n);
        for (size_t i = 0; r >= 0 && i < n; i++)
                s->rows[first + i] = judge_row(s, rows + i * s->n_dims);
        return r;
}

/* Root mean squares of the columns of the sample's residual. */
static int measure_columns(struct surveying *s, const struct sample *sample) {
        _cleanup_(freep) double *sums = calloc(s->n_dims, sizeof(double));
        _cleanup_(freep) float *rows = malloc(s->n_block_rows * s->n_dims * sizeof(float));

        if (!sums || !rows)
                return -ENOMEM;
        for (size_t first = 0; first < sample->n_rows; first += s->n_block_rows) {
                size_t n = MIN(s->n_block_rows, sample->n_rows - first);
                int r;

                memcpy(rows, sample->rows + first * s->n_dims, n * s->n_dims * sizeof(float));
                r = subtract_adaptor(s, rows, n);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < n * s->n_dims; i++)
                        sums[i % s->n_dims] += (double)rows[i] * (double)rows[i];
        }
        for (uint32_t i = 0; i < s->n_dims; i++) {
                s->deviations[i] = (float)sqrt(sums[i] / (double)sample->n_rows);
                s->inverse[i] = s->deviations[i] > 0 ? 1 / (double)s->deviations[i] : 0;
                s->energy += sums[i] / (double)sample->n_rows;
        }
        return 0;
}

static int run(struct surveying *s, unsigned n_threads, struct progress *progress,
               struct fault *ret_fault) {
        int r = 0;

        for (s->first = 0; r >= 0 && s->first < s->n_rows; s->first = s->end) {
                s->end = MIN(s->n_rows,
                             s->first + (uint64_t)n_threads * WAVE_BLOCKS * s->n_block_rows);
                r = parallel_for(n_threads,
                                 (size_t)div_round_up(s->end - s->first, s->n_block_rows),
                                 survey_block, s, ret_fault);
                progress_update(progress, s->end);
        }
        return r;
}

/* They are many, and count as large. */
static void forgive_outliers(struct survey *survey, uint64_t n_rows) {
        for (uint64_t i = 0; i < n_rows; i++)
                if (survey_is_outlier(survey, i))
                        survey->rows[i] = SURVEY_OUTLIER - 1;
        survey->n_outliers = 0;
}

int survey_rows(struct source *source, const struct sample *sample,
                const struct adaptor_solver *solver, bool row_scale, unsigned n_threads,
                struct progress *progress, struct survey *ret_survey, struct fault *ret_fault) {
        const struct source_tensor *tensor = source_selected(source);
        size_t row_bytes = tensor->n_dims * sizeof(float);
        _cleanup_(freep) float *deviations = malloc(row_bytes);
        _cleanup_(freep) double *inverse = malloc(tensor->n_dims * sizeof(double));
        _cleanup_(survey_deinit) struct survey survey = { .rows = malloc(tensor->n_rows) };
        struct surveying s = {
                .source = source,
                .solver = solver,
                .n_dims = tensor->n_dims,
                .n_latents = solver ? solver->adaptor->dims[0] : 0,
                .n_rows = tensor->n_rows,
                .n_block_rows = MAX(BLOCK_BYTES / row_bytes, 1u),
                .row_scale = row_scale,
                .deviations = deviations,
                .inverse = inverse,
                .rows = survey.rows,
        };
        int r;

        if (!deviations || !inverse || !survey.rows)
                return -ENOMEM;
        progress_begin(progress, "survey", "rows", s.n_rows);
        r = measure_columns(&s, sample);
        if (r >= 0)
                r = run(&s, n_threads, progress, ret_fault);
        if (r < 0)
                return r;
        progress_end(progress);
        for (uint64_t i = 0; i < s.n_rows; i++)
                survey.n_outliers += survey_is_outlier(&survey, i);
        if (survey.n_outliers > s.n_rows / SURVEY_SHARE + 1)
                forgive_outliers(&survey, s.n_rows);
        *ret_survey = survey;
        survey = (struct survey){ 0 };
        return 0;
}

void survey_deinit(struct survey *survey) {
        free(survey->rows);
        *survey = (struct survey){ 0 };
}

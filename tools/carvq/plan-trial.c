/* SPDX-License-Identifier: Apache-2.0 */
/* Seven rows of eight are trained on, as many as a trial needs; of the others some are coded. */
#include "plan-trial.h"

#include <math.h>
#include <string.h>

#include "plan-codes.h"
#include "rng.h"

#define TRIAL_SUBVECTORS (64u << 10)
#define TRIAL_ROWS_BYTES (4u << 20)

static const struct coder_effort trial_effort = {
        .rvq = { .lloyd_passes = 6, .joint_passes = 6 },
        .trellis = { .n_passes = 8 },
        .n_subvectors = TRIAL_SUBVECTORS,
};

void trial_deinit(struct trial *t) {
        sample_deinit(&t->train);
        sample_deinit(&t->held);
        quantizer_deinit(&t->quantizer);
}

int trial_init(struct trial *t, const struct plan_request *request, const struct sample *sample,
               struct progress *progress) {
        size_t n_dims = request->header.n_dims;
        size_t n_held = sample->n_rows / ADAPTOR_HOLDOUT, n_train = sample->n_rows - n_held;
        size_t n_max = MAX(TRIAL_ROWS_BYTES / sizeof(float) / n_dims, 64u);
        size_t at[2] = { 0 }, n[2] = { n_train, n_held };

        t->request = request;
        t->progress = progress;
        t->train.rows = malloc(MIN(n_train, 4 * n_max) * n_dims * sizeof(float));
        t->held.rows = malloc(MIN(n_held, n_max) * n_dims * sizeof(float));
        if (!t->train.rows || !t->held.rows)
                return -ENOMEM;
        for (size_t i = 0; i < sample->n_rows; i++) {
                bool held = i % ADAPTOR_HOLDOUT == ADAPTOR_HOLDOUT - 1;
                struct sample *to = held ? &t->held : &t->train;
                size_t n_to = MIN(n[held], held ? n_max : 4 * n_max);

                /* Evenly: of n[held] rows, n_to. */
                if (at[held]++ * n_to / n[held] < to->n_rows)
                        continue;
                if (to->n_rows < n_to)
                        memcpy(to->rows + to->n_rows++ * n_dims, sample->rows + i * n_dims,
                               n_dims * sizeof(float));
        }
        return 0;
}

int trial_run(struct trial *t, const struct table_header *header, struct adaptor_fit *fit,
              enum adaptor_order order, double *ret_error, struct fault *ret_fault) {
        struct quantizer_rows train = { .rows = t->train.rows, .n_rows = t->train.n_rows };
        struct quantizer_rows held = { .rows = t->held.rows, .n_rows = t->held.n_rows };
        struct closeness closeness;
        int r;

        quantizer_deinit(&t->quantizer);
        r = quantizer_init(&t->quantizer, header, fit ? &fit->solver : NULL, order,
                           t->request->width, ret_fault);
        if (r < 0)
                return r;
        t->quantizer.row_rounds = plan_presets[t->request->preset].row_rounds;
        r = quantizer_train(&t->quantizer, &train, order == ADAPTOR_BEFORE ? NULL : fit,
                            &trial_effort, rng_mix(t->request->seed + PLAN_STREAM_TRIAL),
                            t->request->n_threads, ret_fault);
        if (r >= 0)
                r = quantizer_leftovers(&t->quantizer, &held, t->request->n_threads, NULL,
                                        &closeness, ret_fault);
        progress_update(t->progress, ++t->n_done);
        if (r == -ERANGE) {
                *ret_error = INFINITY;
                return 0;
        }
        if (r < 0)
                return r;
        *ret_error = closeness_rel_mse(&closeness);
        return 0;
}

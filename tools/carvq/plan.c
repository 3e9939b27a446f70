/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of decisions: adaptor, row scale, and then codes and tiers (plan-codes.c). A trial
 * trains codebooks quickly on seven rows of eight and codes some of the others; a trained adaptor's
 * own held-out rows are the same ones, so nothing is judged on what it was trained on.
 */
#include "plan-codes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "parallel.h"
#include "rng.h"

#define TRIAL_SUBVECTORS (64u << 10)
#define TRIAL_ROWS_BYTES (4u << 20)
#define BLOCK_BYTES      (256u << 10)
#define ROWS_MIN         64u /* in the sample: with fewer nothing can be held out */
#define TRIAL_WINDOW     8u  /* codebooks of 256 centroids are trained in a moment */

/* A scale gives small rows the same relative error as large ones, which the squared error does not
 * count: in a near tie it wins. */
#define ROW_SCALE_TIE 1.01

static const struct coder_effort trial_effort = {
        .rvq = { .lloyd_passes = 6, .joint_passes = 6 },
        .trellis = { .n_passes = 6 },
        .n_subvectors = TRIAL_SUBVECTORS,
};
static const struct adaptor_effort adaptor_effort = { .n_epochs = 24, .patience = 4 };

/* ---- Trials ---- */

struct trial {
        const struct plan_request *request;
        struct progress *progress;
        uint64_t n_done; /* trials */
        struct sample train, held;
        struct quantizer quantizer;
        struct closeness *blocks;
        size_t n_block_rows;
};

static void trial_deinit(struct trial *t) {
        sample_deinit(&t->train);
        sample_deinit(&t->held);
        quantizer_deinit(&t->quantizer);
        free(t->blocks);
}

/* Row 7, 15, 23 ... are held out, as in adaptor_train(). */
static int trial_init(struct trial *t, const struct plan_request *request,
                      const struct sample *sample, struct progress *progress) {
        size_t n_dims = request->header.n_dims;
        size_t n_held = sample->n_rows / ADAPTOR_HOLDOUT, n_train = sample->n_rows - n_held;
        size_t n_max = MAX(TRIAL_ROWS_BYTES / sizeof(float) / n_dims, 64u);
        size_t at[2] = { 0 }, n[2] = { n_train, n_held };

        t->request = request;
        t->progress = progress;
        t->n_block_rows = MAX(BLOCK_BYTES / sizeof(float) / n_dims, 1u);
        t->train.rows = malloc(MIN(n_train, 4 * n_max) * n_dims * sizeof(float));
        t->held.rows = malloc(MIN(n_held, n_max) * n_dims * sizeof(float));
        t->blocks = calloc(div_round_up(n_held, t->n_block_rows), sizeof(*t->blocks));
        if (!t->train.rows || !t->held.rows || !t->blocks)
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

static int trial_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct trial *t = userdata;
        size_t first = item * t->n_block_rows, n_bytes;
        struct quantizer_rows rows = {
                .rows = t->held.rows + first * t->request->header.n_dims,
                .n_rows = MIN(t->n_block_rows, t->held.n_rows - first),
                .row_first = first,
        };
        _cleanup_(freep) uint8_t *records =
                malloc(rows.n_rows * t->quantizer.coder.layout.record_bytes);

        (void)thread;
        if (!records)
                return -ENOMEM;
        closeness_init(&t->blocks[item]);
        return quantizer_encode(&t->quantizer, &rows, records, &n_bytes, &t->blocks[item],
                                ret_fault);
}

/*
 * Relative error of the held-out rows under these parameters, infinite where they cannot represent
 * the table at all.
 */
static int trial_run(struct trial *t, const struct table_header *header,
                     const struct adaptor_solver *solver, double *ret_error,
                     struct fault *ret_fault) {
        size_t n_blocks = div_round_up(t->held.n_rows, t->n_block_rows);
        struct closeness sum;
        int r;

        quantizer_deinit(&t->quantizer);
        r = quantizer_init(&t->quantizer, header, solver, t->request->width, ret_fault);
        if (r >= 0)
                r = quantizer_train(&t->quantizer, t->train.rows, t->train.n_rows, NULL, NULL,
                                    &trial_effort, rng_mix(t->request->seed + PLAN_STREAM_TRIAL),
                                    t->request->n_threads, ret_fault);
        if (r >= 0)
                r = parallel_for(t->request->n_threads, n_blocks, trial_block, t, ret_fault);
        progress_update(t->progress, ++t->n_done);
        if (r == -ERANGE) {
                *ret_error = INFINITY;
                return 0;
        }
        if (r < 0)
                return r;
        closeness_init(&sum);
        for (size_t i = 0; i < n_blocks; i++)
                closeness_add(&sum, &t->blocks[i]);
        *ret_error = closeness_rel_mse(&sum);
        return 0;
}

/* ---- Bytes ---- */

static double bits_per_parameter(const struct table_header *header) {
        double n = (double)header->n_rows * (double)header->n_dims;
        struct table_layout l = { 0 };

        table_layout_compute(header, &l, NULL);
        return 8 / n * ((double)l.rows_bytes + (double)l.codebook_bytes + (double)l.adaptor_bytes);
}

/* ---- Decisions ---- */

struct decision {
        const struct plan_request *request;
        const struct sample *sample;
        struct trial trial;
        struct plan *plan;
        double error; /* of the row scale that won last */
};

static void decision_deinit(struct decision *d) {
        trial_deinit(&d->trial);
}

/* The header that trials judge adaptor and scales by: codes of about the right rate. */
static struct table_header trial_header(const struct plan_request *request) {
        struct table_header h = request->header;

        if (!request->shape_given)
                plan_set_codes(
                        &h, request->bits > 2 ? 2 : 4,
                        (uint32_t)MIN(MAX(request->bits * (request->bits > 2 ? 2 : 4), 1.), 8.),
                        TRIAL_WINDOW);
        return h;
}

/* Codes and adaptor of `from` around everything else of `header`. */
static void copy_adaptor(struct table_header *header, const struct table_header *from) {
        header->row_scale = from->row_scale;
        header->col_scale = from->col_scale;
        header->adaptor_type = from->adaptor_type;
        header->latent_dims = from->latent_dims;
        header->latent_bits = from->latent_bits;
        memcpy(header->hidden_dims, from->hidden_dims, sizeof(header->hidden_dims));
}

static void set_adaptor(struct table_header *h, const struct adaptor *a) {
        h->adaptor_type = a->type;
        h->latent_dims = a->dims[0];
        h->latent_bits = a->dims[0] ? a->latent_bits : 0;
        h->hidden_dims[0] = a->n_layers > 1 ? a->dims[1] : 0;
        h->hidden_dims[1] = a->n_layers > 2 ? a->dims[2] : 0;
}

/*
 * Means, and as many components as are worth their latents: no trial can tell such differences, the
 * spectrum does.
 */
static int decide_affine(struct decision *d, struct table_header *h) {
        _cleanup_(adaptor_spectrum_deinit) struct adaptor_spectrum spectrum = { 0 };
        const struct plan_request *request = d->request;
        double best, n = h->n_dims, weights = 16. / (double)h->n_rows;
        int n_latents = -1, r;

        r = adaptor_spectrum_fit(d->sample->rows, d->sample->n_rows, h->n_dims,
                                 plan_presets[request->preset].n_components,
                                 rng_mix(request->seed + PLAN_STREAM_ADAPTOR), request->n_threads,
                                 &spectrum);
        if (r < 0)
                return r;
        best = spectrum.energy_raw;
        for (uint32_t m = 0; m <= spectrum.n_components; m++) {
                double cost = spectrum.energy[m] * plan_worth(8. * m / n + weights * (m + 1));

                if (cost < best * 0.999) {
                        best = cost;
                        n_latents = (int)m;
                }
        }
        if (n_latents < 0 || !(spectrum.energy_raw > 0)) {
                snprintf(d->plan->note, sizeof(d->plan->note), "none: nothing in common");
                return 0;
        }
        r = adaptor_make_linear(&spectrum, (uint32_t)n_latents, 8, &d->plan->adaptor,
                                &d->plan->solver);
        if (r == -ERANGE) {
                snprintf(d->plan->note, sizeof(d->plan->note), "none: out of the range of half");
                return 0;
        }
        if (r < 0)
                return r;
        set_adaptor(h, &d->plan->adaptor);
        if (n_latents == 0)
                snprintf(d->plan->note, sizeof(d->plan->note),
                         "means: they leave %.4f of the energy",
                         spectrum.energy[0] / spectrum.energy_raw);
        else
                snprintf(d->plan->note, sizeof(d->plan->note),
                         "means and %d component%s of 8 bits a row: they leave %.4f of the energy",
                         n_latents, n_latents == 1 ? "" : "s",
                         spectrum.energy[n_latents] / spectrum.energy_raw);
        return 0;
}

static int decide_row_scale(struct decision *d, struct table_header *h, struct fault *ret_fault) {
        struct table_header off = *h, on = *h;
        double error_off = INFINITY, error_on = INFINITY, extra;
        const struct adaptor_solver *solver = h->adaptor_type ? &d->plan->solver : NULL;
        int r = 0;

        off.row_scale = 0;
        on.row_scale = 1;
        if (d->request->row_scale != PLAN_ON)
                r = trial_run(&d->trial, &off, solver, &error_off, ret_fault);
        if (r >= 0 && d->request->row_scale != PLAN_OFF)
                r = trial_run(&d->trial, &on, solver, &error_on, ret_fault);
        if (r < 0)
                return r;
        extra = bits_per_parameter(&on) - bits_per_parameter(&off);
        h->row_scale = d->request->row_scale == PLAN_ON ||
                       error_on * plan_worth(extra) < error_off * ROW_SCALE_TIE;
        d->error = h->row_scale ? error_on : error_off;
        return 0;
}

/* A given shape, trained, against what there is, at equal bytes. */
static int decide_mlp(struct decision *d, struct table_header *h, struct fault *ret_fault) {
        const struct plan_request *request = d->request;
        const struct adaptor_shape *shape = &request->adaptor_shape;
        struct table_header with = *h;
        double plain = d->error, bits = bits_per_parameter(h), error;
        bool pays;
        int r;

        r = adaptor_train(d->sample->rows, d->sample->n_rows, shape, &adaptor_effort,
                          rng_mix(request->seed + PLAN_STREAM_ADAPTOR), request->n_threads,
                          &d->plan->adaptor, &d->plan->solver);
        if (r < 0)
                return r;
        set_adaptor(&with, &d->plan->adaptor);
        r = decide_row_scale(d, &with, ret_fault);
        if (r < 0)
                return r;
        error = d->error;
        plain /= plan_worth(bits_per_parameter(&with) - bits);
        pays = error < plain;
        snprintf(d->plan->note, sizeof(d->plan->note),
                 "%" PRIu32 "x%" PRIu32 "%s%.0" PRIu32
                 " %s: held-out error at %.3f bits %.4f with it, %.4f with longer codes",
                 shape->latent_dims, shape->hidden_dims[0], shape->hidden_dims[1] ? "x" : "",
                 shape->hidden_dims[1],
                 pays                     ? "kept"
                 : request->adaptor_force ? "kept by force"
                                          : "dropped",
                 bits_per_parameter(&with), error, plain);
        if (pays || request->adaptor_force)
                *h = with;
        return 0;
}

/* The format's own limits: of training, too, which holds some nine copies of an adaptor. */
static int check_size(const struct plan_request *request, struct table_header header,
                      struct fault *ret_fault) {
        const struct adaptor_shape *shape = &request->adaptor_shape;

        header.adaptor_type = TABLE_ADAPTOR_HALF;
        header.latent_dims = shape->latent_dims;
        header.latent_bits = 16;
        memcpy(header.hidden_dims, shape->hidden_dims, sizeof(header.hidden_dims));
        return table_layout_compute(&header, &(struct table_layout){ 0 }, ret_fault);
}

/* Too few rows to hold any out: what usually wins for such a width. */
static int decide_blindly(const struct plan_request *request, struct plan *plan,
                          struct table_header *h, struct fault *ret_fault) {
        h->row_scale = request->row_scale == PLAN_ON ||
                       (request->row_scale == PLAN_AUTO && h->n_dims > 256);
        if (request->adaptor == PLAN_ON && request->adaptor_force)
                return fault_set(ret_fault, -EINVAL,
                                 "an adaptor needs at least %u rows to be trained on", ROWS_MIN);
        if (request->adaptor != PLAN_OFF)
                snprintf(plan->note, sizeof(plan->note),
                         "none: at least %u rows are needed to train one", ROWS_MIN);
        return 0;
}

static uint64_t count_trials(const struct plan_request *request) {
        uint64_t n_scales = request->row_scale == PLAN_AUTO ? 2 : 1;

        return n_scales * (request->adaptor == PLAN_ON ? 2 : 1);
}

static int decide(struct decision *d, struct table_header *h, struct progress *progress,
                  struct fault *ret_fault) {
        const struct plan_request *request = d->request;
        int r = 0;

        if (request->adaptor == PLAN_ON)
                r = check_size(request, *h, ret_fault);
        if (r < 0)
                return r;
        if (d->sample->n_rows < ROWS_MIN)
                return decide_blindly(request, d->plan, h, ret_fault);
        progress_begin(progress, "plan", "trials", count_trials(request));
        if (request->adaptor == PLAN_AUTO)
                r = decide_affine(d, h);
        if (r >= 0)
                r = trial_init(&d->trial, request, d->sample, progress);
        if (r >= 0)
                r = decide_row_scale(d, h, ret_fault);
        if (r >= 0 && request->adaptor == PLAN_ON)
                r = decide_mlp(d, h, ret_fault);
        if (r >= 0)
                progress_end(progress);
        return r;
}

/* ---- The plan ---- */

static void set_effort(const struct plan_request *request, struct plan *plan) {
        plan->effort = (struct coder_effort){
                .rvq = { .lloyd_passes = plan_presets[request->preset].lloyd_passes,
                         .joint_passes = plan_presets[request->preset].joint_passes,
                         .width = request->width },
                .trellis = { .n_passes = plan_presets[request->preset].n_passes },
        };
}

int plan_make(const struct plan_request *request, const struct sample *sample,
              struct progress *progress, struct plan *ret_plan, struct fault *ret_fault) {
        _cleanup_(decision_deinit) struct decision d = { .request = request,
                                                         .sample = sample,
                                                         .plan = ret_plan };
        struct table_header h = trial_header(request);
        int r;

        *ret_plan = (struct plan){ 0 };
        set_effort(request, ret_plan);
        h.col_scale = plan_wants_columns(request, &h);
        r = decide(&d, &h, progress, ret_fault);
        if (r >= 0 && request->shape_given) {
                ret_plan->header = h;
                return 0;
        }
        if (r >= 0) {
                ret_plan->header = request->header;
                copy_adaptor(&ret_plan->header, &h);
                r = survey_rows(request->source, sample, plan_solver(ret_plan), h.row_scale,
                                request->n_threads, progress, &ret_plan->survey, ret_fault);
        }
        if (r >= 0)
                r = plan_decide_codes(request, ret_plan, ret_fault);
        if (r < 0)
                plan_deinit(ret_plan);
        return r;
}

void plan_deinit(struct plan *plan) {
        free(plan->histogram);
        survey_deinit(&plan->survey);
        adaptor_solver_deinit(&plan->solver);
        adaptor_deinit(&plan->adaptor);
        *plan = (struct plan){ 0 };
}

const struct adaptor_solver *plan_solver(const struct plan *plan) {
        return plan->header.adaptor_type ? &plan->solver : NULL;
}

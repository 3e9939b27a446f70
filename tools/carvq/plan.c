/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trial trains codebooks quickly on seven rows of eight and codes some of the others; the
 * adaptor's own held-out rows are the same ones, so nothing is judged on what it was trained on.
 */
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "parallel.h"
#include "rng.h"

#define TRIAL_SUBVECTORS (64u << 10)
#define TRIAL_HELD_BYTES (8u << 20)
#define BLOCK_BYTES      (1u << 20)
#define ROWS_MIN         64u   /* in the sample: with fewer nothing can be held out */
#define ADAPTOR_ROWS_MIN 1024u /* in the sample, for --adaptor auto */
#define ADAPTOR_DIMS_MIN 257u  /* narrower rows cannot pay for latents */
/* A scale gives small rows the same relative error as large ones, which the squared error does not
 * count: in a near tie it wins. */
#define ROW_SCALE_TIE 1.01

#define ADAPTOR_BITS  0.1 /* a parameter: what 1.6 leaves beside three stages of 0.5 */

static const struct rvq_effort trial_effort = { .lloyd_passes = 6, .joint_passes = 6 };
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
        size_t n_dims = request->header.n_dims, n_held = sample->n_rows / ADAPTOR_HOLDOUT;
        size_t n_max = MAX(TRIAL_HELD_BYTES / sizeof(float) / n_dims, 8u), every;

        t->request = request;
        t->progress = progress;
        t->n_block_rows = MAX(BLOCK_BYTES / sizeof(float) / n_dims, 1u);
        every = div_round_up(n_held, n_max);
        t->train.rows = malloc((sample->n_rows - n_held) * n_dims * sizeof(float));
        t->held.rows = malloc(n_held * n_dims * sizeof(float));
        t->blocks = calloc(div_round_up(n_held, t->n_block_rows), sizeof(*t->blocks));
        if (!t->train.rows || !t->held.rows || !t->blocks)
                return -ENOMEM;
        for (size_t i = 0; i < sample->n_rows; i++) {
                bool held = i % ADAPTOR_HOLDOUT == ADAPTOR_HOLDOUT - 1;
                struct sample *to = held ? &t->held : &t->train;

                if (held && i / ADAPTOR_HOLDOUT % every != 0)
                        continue;
                memcpy(to->rows + to->n_rows++ * n_dims, sample->rows + i * n_dims,
                       n_dims * sizeof(float));
        }
        return 0;
}

static int trial_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct trial *t = userdata;
        size_t first = item * t->n_block_rows, n = MIN(t->n_block_rows, t->held.n_rows - first);
        _cleanup_(freep) uint8_t *records = malloc(n * t->quantizer.layout.record_bytes);

        (void)thread;
        if (!records)
                return -ENOMEM;
        closeness_init(&t->blocks[item]);
        return quantizer_encode(&t->quantizer, t->held.rows + first * t->request->header.n_dims,
                                first, n, records, &t->blocks[item], ret_fault);
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
        r = quantizer_init(&t->quantizer, header, solver, ret_fault);
        if (r >= 0)
                r = quantizer_train(&t->quantizer, t->train.rows, t->train.n_rows, &trial_effort,
                                    TRIAL_SUBVECTORS, rng_mix(t->request->seed + PLAN_STREAM_TRIAL),
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
        struct table_layout layout = { 0 };

        table_layout_compute(header, &layout, NULL);
        return 8 / n *
               ((double)layout.rows_bytes + (double)layout.codebook_bytes +
                (double)layout.adaptor_bytes);
}

static struct table_header with_row_scale(struct table_header header, bool row_scale) {
        header.row_scale = row_scale;
        return header;
}

static struct table_header with_adaptor(struct table_header header,
                                        const struct adaptor_shape *shape) {
        header.adaptor_type = TABLE_ADAPTOR_HALF;
        header.latent_bits = 16;
        header.latent_dims = shape->latent_dims;
        header.hidden_dims[0] = shape->hidden_dims[0];
        header.hidden_dims[1] = shape->hidden_dims[1];
        return header;
}

/* The shape that about ADAPTOR_BITS buy: latents first, an MLP of at most a fifth of it. */
static struct adaptor_shape auto_shape(const struct table_header *header) {
        double latents = ADAPTOR_BITS * header->n_dims / 16 - 1; /* one goes to the row scale */
        double hidden = ADAPTOR_BITS / 5 * (double)header->n_rows / 16;
        struct adaptor_shape shape = { .n_dims = header->n_dims };

        shape.latent_dims = (uint32_t)MIN(MAX(latents, 1.), 64.);
        shape.hidden_dims[0] = (uint32_t)MIN(hidden, 64.) / 8 * 8;
        shape.hidden_dims[0] = MAX(shape.hidden_dims[0], 2 * shape.latent_dims);
        return shape;
}

/* ---- Decisions ---- */

struct decision {
        struct trial trial;
        double stage_bits;  /* of the last stage */
        double stage_ratio; /* what it multiplies the error by */
        struct table_header header;
        double error;
};

static void decision_deinit(struct decision *d) {
        trial_deinit(&d->trial);
}

/* What the plain RVQ would reach if `error` at `from` bits were given as many as `to`. */
static double error_at(const struct decision *d, double error, double from, double to) {
        return error * pow(d->stage_ratio, (to - from) / d->stage_bits);
}

static int measure_slope(struct decision *d, const struct table_header *header,
                         struct fault *ret_fault) {
        struct table_header shorter = *header;
        double error = 1;
        int r = 0;

        table_set_one_tier(&shorter, header->n_stages - 1);
        if (shorter.n_stages)
                r = trial_run(&d->trial, &shorter, NULL, &error, ret_fault);
        d->stage_bits = (double)header->codebook_bits / header->subvector_dims;
        d->stage_ratio = error > 0 && d->error < error ? MAX(d->error / error, 1e-6) : 1;
        return r;
}

/* The better of both, at equal bytes, for an adaptor or none. */
static int decide_row_scale(struct decision *d, const struct plan_request *request,
                            const struct table_header *header, const struct adaptor_solver *solver,
                            struct table_header *ret_header, double *ret_error,
                            struct fault *ret_fault) {
        struct table_header off = with_row_scale(*header, false),
                            on = with_row_scale(*header, true);
        double error_off = INFINITY, error_on = INFINITY, plain;
        bool wins;
        int r = 0;

        if (request->row_scale != PLAN_ON)
                r = trial_run(&d->trial, &off, solver, &error_off, ret_fault);
        if (r >= 0 && request->row_scale != PLAN_OFF)
                r = trial_run(&d->trial, &on, solver, &error_on, ret_fault);
        if (r < 0)
                return r;
        if (d->stage_bits == 0) {
                /* First of all: the slope is not known yet, and measured without a scale. */
                d->error = isfinite(error_off) ? error_off : error_on;
                r = measure_slope(d, isfinite(error_off) ? &off : &on, ret_fault);
                if (r < 0)
                        return r;
        }
        plain = error_at(d, error_off, bits_per_parameter(&off), bits_per_parameter(&on));
        wins = request->row_scale == PLAN_ON || error_on < plain * ROW_SCALE_TIE;
        *ret_header = wins ? on : off;
        *ret_error = wins ? error_on : error_off;
        return 0;
}

static int decide_adaptor(struct decision *d, const struct plan_request *request,
                          const struct sample *sample, const struct adaptor_shape *shape,
                          struct plan *plan, struct fault *ret_fault) {
        struct table_header header = with_adaptor(request->header, shape);
        double error, bits, plain_bits = bits_per_parameter(&d->header), plain;
        bool pays;
        int r;

        r = adaptor_train(sample->rows, sample->n_rows, shape, &adaptor_effort,
                          rng_mix(request->seed + PLAN_STREAM_ADAPTOR), request->n_threads,
                          &plan->adaptor, &plan->solver);
        if (r >= 0)
                r = decide_row_scale(d, request, &header, &plan->solver, &header, &error,
                                     ret_fault);
        if (r < 0)
                return r;
        bits = bits_per_parameter(&header);
        plain = error_at(d, d->error, plain_bits, bits);
        pays = error < plain;
        snprintf(plan->note, sizeof(plan->note),
                 "%" PRIu32 "x%" PRIu32 "%s%.0" PRIu32
                 " %s: held-out error at %.3f bits %.4f with it, %.4f with more RVQ",
                 shape->latent_dims, shape->hidden_dims[0], shape->hidden_dims[1] ? "x" : "",
                 shape->hidden_dims[1],
                 pays                     ? "kept"
                 : request->adaptor_force ? "kept by force"
                                          : "dropped",
                 bits, error, plain);
        if (pays || request->adaptor_force) {
                d->header = header;
                d->error = error;
        }
        return 0;
}

/* The format's own limits: of training, too, which holds some nine copies of an adaptor. */
static int check_size(const struct table_header *header, const struct adaptor_shape *shape,
                      struct fault *ret_fault) {
        struct table_header with = with_adaptor(*header, shape);

        return table_layout_compute(&with, &(struct table_layout){ 0 }, ret_fault);
}

/* Too few rows to hold any out: what usually wins for such a width. */
static int decide_blindly(const struct plan_request *request, struct plan *plan,
                          struct fault *ret_fault) {
        plan->header = with_row_scale(request->header,
                                      request->row_scale == PLAN_ON ||
                                              (request->row_scale == PLAN_AUTO &&
                                               request->header.n_dims >= ADAPTOR_DIMS_MIN));
        if (request->adaptor == PLAN_ON && request->adaptor_force)
                return fault_set(ret_fault, -EINVAL,
                                 "an adaptor needs at least %u rows to be trained on", ROWS_MIN);
        if (request->adaptor == PLAN_ON)
                snprintf(plan->note, sizeof(plan->note),
                         "none: at least %u rows are needed to train one", ROWS_MIN);
        return 0;
}

/* With and without a row scale, for the slope, and again with an adaptor. */
static uint64_t count_trials(const struct plan_request *request, bool adaptor) {
        uint64_t n_scales = request->row_scale == PLAN_AUTO ? 2 : 1;

        return n_scales * (adaptor ? 2 : 1) + (request->header.n_stages > 1);
}

int plan_make(const struct plan_request *request, const struct sample *sample,
              struct progress *progress, struct plan *ret_plan, struct fault *ret_fault) {
        _cleanup_(decision_deinit) struct decision d = { 0 };
        bool wanted = request->adaptor == PLAN_ON || (request->adaptor == PLAN_AUTO &&
                                                      request->header.n_dims >= ADAPTOR_DIMS_MIN &&
                                                      sample->n_rows >= ADAPTOR_ROWS_MIN);
        struct adaptor_shape shape =
                request->adaptor == PLAN_ON ? request->adaptor_shape : auto_shape(&request->header);
        int r;

        *ret_plan = (struct plan){ 0 };
        r = wanted ? check_size(&request->header, &shape, ret_fault) : 0;
        if (r < 0)
                return r;
        if (sample->n_rows < ROWS_MIN)
                return decide_blindly(request, ret_plan, ret_fault);
        if (!wanted && request->row_scale != PLAN_AUTO) {
                ret_plan->header = with_row_scale(request->header, request->row_scale == PLAN_ON);
                return 0;
        }
        progress_begin(progress, "plan", "trials", count_trials(request, wanted));
        r = trial_init(&d.trial, request, sample, progress);
        if (r >= 0)
                r = decide_row_scale(&d, request, &request->header, NULL, &d.header, &d.error,
                                     ret_fault);
        if (r >= 0 && wanted)
                r = decide_adaptor(&d, request, sample, &shape, ret_plan, ret_fault);
        ret_plan->header = d.header;
        if (r < 0) {
                plan_deinit(ret_plan);
                return r;
        }
        progress_end(progress);
        return 0;
}

void plan_deinit(struct plan *plan) {
        adaptor_solver_deinit(&plan->solver);
        adaptor_deinit(&plan->adaptor);
        *plan = (struct plan){ 0 };
}

const struct adaptor_solver *plan_solver(const struct plan *plan) {
        return plan->header.latent_dims ? &plan->solver : NULL;
}

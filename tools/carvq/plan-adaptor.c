/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A contest of a few candidates, each tried on the same rows. Errors are compared at equal bytes: a
 * bit a parameter divides what codes leave by four.
 */
#include "plan-adaptor.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "plan-codes.h"
#include "plan-trial.h"
#include "rng.h"

#define LATENT_BITS 8u

/* What is tried where nobody asks for a shape. A wider layer has never paid for its decoding. */
#define MLP_HIDDEN  32u
#define MLP_LATENTS 4u /* where the affine adaptor has none */

/* An order other than before codes rows twice over, or keeps a spectrum that is nearly flat: not
 * for what may be noise. An MLP makes rows several times slower to decode, for good. */
#define ORDER_GAIN 1.005
#define MLP_GAIN   1.05

/* A scale gives small rows the same relative error as large ones, which the squared error does not
 * count: in a near tie it wins. */
#define ROW_SCALE_TIE 1.02

/* A component that does not gain this is noise of the sample. */
#define COMPONENT_GAIN 0.999

static const struct adaptor_effort asked_effort = { .n_epochs = 24, .patience = 4 };
static const struct adaptor_effort auto_effort = { .n_epochs = 12, .patience = 2 };

static const char *const order_names[] = {
        [ADAPTOR_BEFORE] = "before",
        [ADAPTOR_AFTER] = "after",
        [ADAPTOR_ALTERNATE] = "alternate",
};

#define CANDIDATES_MAX 6u

struct candidate {
        struct adaptor_fit fit; /* `shape.n_dims` is 0: no adaptor */
        enum adaptor_order order;
        struct table_header header;
        double error; /* of held-out rows, at the bytes of no adaptor; infinite: impossible */
};

struct contest {
        const struct plan_request *request;
        const struct sample *sample;
        struct trial trial;
        struct table_header header; /* without an adaptor */
        bool scale_decided;         /* in `header` */
        struct candidate candidates[CANDIDATES_MAX];
        uint32_t n;
};

static void contest_deinit(struct contest *c) {
        for (uint32_t i = 0; i < c->n; i++)
                adaptor_fit_deinit(&c->candidates[i].fit);
        trial_deinit(&c->trial);
}

static bool is_none(const struct candidate *c) {
        return c->fit.shape.n_dims == 0;
}

static bool is_mlp(const struct candidate *c) {
        return c->fit.shape.hidden_dims[0] != 0;
}

/* ---- Bytes ---- */

static double bits_per_parameter(const struct table_header *header) {
        double n = (double)header->n_rows * (double)header->n_dims;
        struct table_layout l = { 0 };

        table_layout_compute(header, &l, NULL);
        return 8 / n * ((double)l.rows_bytes + (double)l.codebook_bytes + (double)l.adaptor_bytes);
}

static void set_shape(struct table_header *h, const struct adaptor_shape *shape) {
        h->adaptor_type = shape->type;
        h->latent_dims = shape->latent_dims;
        h->latent_bits = shape->latent_dims ? shape->latent_bits : 0;
        memcpy(h->hidden_dims, shape->hidden_dims, sizeof(h->hidden_dims));
}

/* ---- Trying ---- */

static int try_scale(struct contest *c, struct candidate *candidate, uint32_t row_scale,
                     double *ret_error, struct fault *ret_fault) {
        struct table_header without = candidate->header;
        int r;

        candidate->header.row_scale = without.row_scale = row_scale;
        set_shape(&without, &(struct adaptor_shape){ 0 });
        r = trial_run(&c->trial, &candidate->header, is_none(candidate) ? NULL : &candidate->fit,
                      candidate->order, ret_error, ret_fault);
        if (r >= 0)
                *ret_error *= plan_worth(bits_per_parameter(&candidate->header) -
                                         bits_per_parameter(&without));
        return r;
}

/* The row scale is decided with the first candidate, and again if none at all wins against it. */
static int decide_row_scale(struct contest *c, struct candidate *candidate,
                            struct fault *ret_fault) {
        double errors[2] = { INFINITY, INFINITY }, bits[2];
        enum plan_choice choice = c->request->row_scale;
        int r = 0;

        for (uint32_t on = 0; r >= 0 && on < 2; on++) {
                if (choice != (on ? PLAN_OFF : PLAN_ON))
                        r = try_scale(c, candidate, on, &errors[on], ret_fault);
                candidate->header.row_scale = on;
                bits[on] = bits_per_parameter(&candidate->header);
        }
        if (r < 0)
                return r;
        c->header.row_scale = choice == PLAN_ON ||
                              errors[1] * plan_worth(bits[1] - bits[0]) < errors[0] * ROW_SCALE_TIE;
        c->scale_decided = true;
        candidate->header.row_scale = c->header.row_scale;
        candidate->error = errors[c->header.row_scale];
        return 0;
}

static int try_candidate(struct contest *c, struct candidate *candidate, struct fault *ret_fault) {
        candidate->header = c->header;
        set_shape(&candidate->header, &candidate->fit.shape);
        if (!c->scale_decided)
                return decide_row_scale(c, candidate, ret_fault);
        return try_scale(c, candidate, c->header.row_scale, &candidate->error, ret_fault);
}

static struct candidate *add_candidate(struct contest *c) {
        struct candidate *candidate = &c->candidates[c->n++];

        *candidate = (struct candidate){ .error = INFINITY };
        return candidate;
}

/* Hidden layers hold rows out by themselves; others must not see them. */
static int enter(struct contest *c, const struct adaptor_shape *shape, enum adaptor_order order,
                 struct fault *ret_fault) {
        const struct plan_request *request = c->request;
        struct candidate *candidate = add_candidate(c);
        const struct sample *rows = shape->hidden_dims[0] ? c->sample : &c->trial.train;
        int r = 0;

        candidate->order = order;
        candidate->fit = (struct adaptor_fit){
                .shape = *shape,
                .effort = request->adaptor == PLAN_ON ? asked_effort : auto_effort,
                .seed = rng_mix(request->seed + PLAN_STREAM_ADAPTOR),
        };
        if (order != ADAPTOR_AFTER)
                r = adaptor_fit_make(&candidate->fit, rows->rows, rows->n_rows, request->n_threads);
        if (r == -ERANGE)
                return 0; /* its error stays infinite */
        return r >= 0 ? try_candidate(c, candidate, ret_fault) : r;
}

static int enter_none(struct contest *c, struct fault *ret_fault) {
        return try_candidate(c, add_candidate(c), ret_fault);
}

/* Takes the place of the last candidate if it is better. */
static int enter_int8(struct contest *c, struct fault *ret_fault) {
        struct candidate *half = &c->candidates[c->n - 1], *candidate;
        int r;

        if (!isfinite(half->error))
                return 0;
        candidate = add_candidate(c);
        candidate->order = half->order;
        r = adaptor_fit_to_int8(&half->fit, c->sample->rows, c->sample->n_rows, &candidate->fit);
        if (r >= 0)
                r = try_candidate(c, candidate, ret_fault);
        if (r < 0 && r != -ERANGE)
                return r;
        c->n--;
        if (r >= 0 && candidate->error < half->error) {
                adaptor_fit_move(&half->fit, &candidate->fit);
                half->header = candidate->header;
                half->error = candidate->error;
        }
        adaptor_fit_deinit(&candidate->fit);
        return 0;
}

/* ---- Shapes ---- */

/*
 * Means, and as many components as are worth their latents: no trial can tell such differences, the
 * spectrum does. Negative: not even the means.
 */
static int count_components(const struct contest *c, const float *rows, size_t n_rows,
                            int *ret_latents) {
        _cleanup_(adaptor_spectrum_deinit) struct adaptor_spectrum spectrum = { 0 };
        const struct plan_request *request = c->request;
        double best, n = c->header.n_dims, weights = 16. / (double)c->header.n_rows;
        int n_latents = -1, r;

        r = adaptor_spectrum_fit(
                rows, n_rows, c->header.n_dims, plan_presets[request->preset].n_components,
                rng_mix(request->seed + PLAN_STREAM_ADAPTOR), request->n_threads, &spectrum);
        if (r < 0)
                return r;
        best = spectrum.energy_raw;
        for (uint32_t m = 0; m <= spectrum.n_components; m++) {
                double cost =
                        spectrum.energy[m] * plan_worth(LATENT_BITS * m / n + weights * (m + 1));

                if (cost < best * COMPONENT_GAIN) {
                        best = cost;
                        n_latents = (int)m;
                }
        }
        *ret_latents = n_latents;
        return 0;
}

static struct adaptor_shape make_shape(const struct contest *c, int n_latents, uint32_t hidden) {
        return (struct adaptor_shape){
                .latent_dims = (uint32_t)n_latents,
                .hidden_dims = { hidden },
                .n_dims = c->header.n_dims,
                .latent_bits = LATENT_BITS,
                .type = TABLE_ADAPTOR_HALF,
        };
}

/* Of what the last trial's codes leave: the spectrum is another, and nearly flat. */
static int enter_after(struct contest *c, struct fault *ret_fault) {
        const struct sample *train = &c->trial.train;
        struct quantizer_rows rows = { .rows = train->rows, .n_rows = train->n_rows };
        _cleanup_(freep) float *left = malloc(train->n_rows * c->header.n_dims * sizeof(float));
        struct adaptor_shape shape;
        struct closeness closeness;
        int n_latents, r;

        r = left ? quantizer_leftovers(&c->trial.quantizer, &rows, c->request->n_threads, left,
                                       &closeness, ret_fault)
                 : -ENOMEM;
        if (r >= 0)
                r = count_components(c, left, train->n_rows, &n_latents);
        if (r < 0 || n_latents < 0)
                return r;
        shape = make_shape(c, n_latents, 0);
        return enter(c, &shape, ADAPTOR_AFTER, ret_fault);
}

/* ---- Who takes part ---- */

/* Packing fast tries no other order than the first, unless it is told to. */
static bool allows(const struct plan_request *request, enum adaptor_order order) {
        if (request->order_given)
                return request->order == order;
        return order == ADAPTOR_BEFORE || request->preset != PLAN_FAST;
}

static int enter_mlp(struct contest *c, const struct adaptor_shape *shape, bool any_weights,
                     enum adaptor_order order, struct fault *ret_fault) {
        int r = enter(c, shape, order, ret_fault);

        /* Fitted to what codes leave, its weights would be rounded only now. */
        if (r >= 0 && any_weights && order == ADAPTOR_BEFORE)
                r = enter_int8(c, ret_fault);
        return r;
}

/* A given shape against none. */
static int enter_asked(struct contest *c, struct fault *ret_fault) {
        struct adaptor_shape shape = c->request->adaptor_shape;
        bool any_weights = shape.hidden_dims[0] && !shape.type;
        int r = 0;

        shape.latent_bits = LATENT_BITS;
        shape.type = shape.type ? shape.type : TABLE_ADAPTOR_HALF;
        for (uint32_t order = 0; r >= 0 && order < ARRAY_SIZE(order_names); order++)
                if (allows(c->request, order))
                        r = enter_mlp(c, &shape, any_weights, order, ret_fault);
        return r >= 0 ? enter_none(c, ret_fault) : r;
}

static int enter_auto(struct contest *c, struct fault *ret_fault) {
        const struct plan_request *request = c->request;
        struct adaptor_shape affine, mlp;
        int n_latents, r;

        r = count_components(c, c->sample->rows, c->sample->n_rows, &n_latents);
        affine = make_shape(c, MAX(n_latents, 0), 0);
        mlp = make_shape(c, n_latents > 0 ? n_latents : (int)MLP_LATENTS, MLP_HIDDEN);
        if (r >= 0 && n_latents >= 0 && allows(request, ADAPTOR_BEFORE))
                r = enter(c, &affine, ADAPTOR_BEFORE, ret_fault);
        if (r >= 0)
                r = enter_none(c, ret_fault);
        if (r >= 0 && allows(request, ADAPTOR_AFTER))
                r = enter_after(c, ret_fault);
        /* Means leave nothing to alternate with. */
        if (r >= 0 && n_latents > 0 && allows(request, ADAPTOR_ALTERNATE))
                r = enter(c, &affine, ADAPTOR_ALTERNATE, ret_fault);
        if (r >= 0 && request->preset != PLAN_FAST && allows(request, ADAPTOR_BEFORE))
                r = enter_mlp(c, &mlp, true, ADAPTOR_BEFORE, ret_fault);
        return r;
}

/* ---- Who wins ---- */

static double handicap(const struct contest *c, const struct candidate *candidate) {
        double gain = 1;

        if (c->request->adaptor == PLAN_AUTO && is_mlp(candidate))
                gain *= MLP_GAIN;
        if (!c->request->order_given && candidate->order != ADAPTOR_BEFORE)
                gain *= ORDER_GAIN;
        return gain;
}

static struct candidate *choose(struct contest *c) {
        struct candidate *best = NULL;

        for (uint32_t i = 0; i < c->n; i++) {
                struct candidate *candidate = &c->candidates[i];

                if (is_none(candidate) && c->request->adaptor_force)
                        continue;
                if (!best ||
                    candidate->error * handicap(c, candidate) < best->error * handicap(c, best))
                        best = candidate;
        }
        return best;
}

/* "means and 3 components, before" */
static void print_candidate(FILE *f, const struct candidate *c) {
        const struct adaptor_shape *s = &c->fit.shape;

        if (is_none(c)) {
                fputs("none", f);
                return;
        }
        if (is_mlp(c)) {
                fprintf(f, "%" PRIu32 "x%" PRIu32, s->latent_dims, s->hidden_dims[0]);
                if (s->hidden_dims[1])
                        fprintf(f, "x%" PRIu32, s->hidden_dims[1]);
                fputs(s->type == TABLE_ADAPTOR_INT8 ? " int8" : " half", f);
        } else {
                fputs("means", f);
                if (s->latent_dims)
                        fprintf(f, " and %" PRIu32 " component%s", s->latent_dims,
                                s->latent_dims == 1 ? "" : "s");
        }
        fprintf(f, " %s", order_names[c->order]);
}

/* The winner first. */
static void print_note(const struct contest *c, const struct candidate *winner,
                       char note[PLAN_NOTE_BYTES]) {
        FILE *f = fmemopen(note, PLAN_NOTE_BYTES, "w");
        const char *between = "; against ";

        if (!f)
                return; /* the note stays empty */
        print_candidate(f, winner);
        if (c->n > 1)
                fprintf(f, "%s: held-out error at equal bytes %.4g",
                        c->request->adaptor_force ? ", by force" : "", winner->error);
        else
                fputs(": nothing in common", f);
        for (uint32_t i = 0; i < c->n; i++)
                if (&c->candidates[i] != winner) {
                        fputs(between, f);
                        print_candidate(f, &c->candidates[i]);
                        fprintf(f, " %.4g", c->candidates[i].error);
                        between = ", ";
                }
        fclose(f);
}

/* From the rows it is to serve: all of the sample now, no longer those of the trials. */
static int take(struct contest *c, struct candidate *winner, struct table_header *header,
                struct plan *plan) {
        const struct sample *sample = c->sample;
        int r = 0;

        if (!is_none(winner) && !is_mlp(winner) && winner->order != ADAPTOR_AFTER)
                r = adaptor_fit_make(&winner->fit, sample->rows, sample->n_rows,
                                     c->request->n_threads);
        if (r < 0)
                return r;
        *header = winner->header;
        plan->order = winner->order;
        adaptor_fit_move(&plan->adaptor, &winner->fit);
        return 0;
}

int plan_decide_adaptor(const struct plan_request *request, const struct sample *sample,
                        struct progress *progress, struct table_header *header, struct plan *plan,
                        struct fault *ret_fault) {
        _cleanup_(contest_deinit) struct contest c = {
                .request = request,
                .sample = sample,
                .header = *header,
        };
        struct candidate *winner;
        int r;

        r = trial_init(&c.trial, request, sample, progress);
        if (r < 0)
                return r;
        if (request->adaptor == PLAN_OFF)
                r = enter_none(&c, ret_fault);
        else
                r = request->adaptor == PLAN_ON ? enter_asked(&c, ret_fault)
                                                : enter_auto(&c, ret_fault);
        if (r < 0)
                return r;
        winner = choose(&c);
        if (!is_none(winner) && !isfinite(winner->error))
                return fault_set(ret_fault, -ERANGE,
                                 "an adaptor of this shape does not fit half-float weights");
        if (request->adaptor != PLAN_OFF)
                print_note(&c, winner, plan->note);
        if (is_none(winner) && winner != &c.candidates[0])
                r = decide_row_scale(&c, winner, ret_fault);
        progress->n_total = c.trial.n_done;
        return r >= 0 ? take(&c, winner, header, plan) : r;
}

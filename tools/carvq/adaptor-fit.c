/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adaptors of either kind by their shape alone, so that whoever fits one again need not know how it
 * was made. Any thread.
 */
#include <string.h>

#include "adaptor.h"

/* What the linear first guess of the latents is learnt from. */
#define START_ROWS 4096u

void adaptor_fit_deinit(struct adaptor_fit *fit) {
        adaptor_solver_deinit(&fit->solver);
        adaptor_deinit(&fit->adaptor);
}

void adaptor_fit_move(struct adaptor_fit *to, struct adaptor_fit *from) {
        adaptor_fit_deinit(to);
        *to = *from;
        to->solver.adaptor = &to->adaptor;
        from->adaptor = (struct adaptor){ 0 };
        from->solver = (struct adaptor_solver){ 0 };
}

static int make_affine(struct adaptor_fit *fit, const float *targets, size_t n_rows,
                       unsigned n_threads) {
        _cleanup_(adaptor_spectrum_deinit) struct adaptor_spectrum spectrum = { 0 };
        int r;

        r = adaptor_spectrum_fit(targets, n_rows, fit->shape.n_dims, fit->shape.latent_dims,
                                 fit->seed, n_threads, &spectrum);
        if (r < 0)
                return r;
        return adaptor_make_linear(&spectrum, fit->shape.latent_dims, fit->shape.latent_bits,
                                   &fit->adaptor, &fit->solver);
}

int adaptor_fit_make(struct adaptor_fit *fit, const float *targets, size_t n_rows,
                     unsigned n_threads) {
        struct adaptor_fit made = { .shape = fit->shape, .effort = fit->effort, .seed = fit->seed };
        int r;

        if (fit->shape.hidden_dims[0] == 0)
                r = make_affine(&made, targets, n_rows, n_threads);
        else
                r = adaptor_train(targets, n_rows, &made.shape, &made.effort, made.seed, n_threads,
                                  &made.adaptor, &made.solver);
        if (r >= 0)
                adaptor_fit_move(fit, &made);
        return r;
}

int adaptor_fit_to_int8(const struct adaptor_fit *fit, const float *targets, size_t n_rows,
                        struct adaptor_fit *ret_fit) {
        const struct adaptor *a = &fit->adaptor;
        size_t n = MIN(n_rows, START_ROWS), n_dims = fit->shape.n_dims;
        _cleanup_(freep) float *latents = malloc(n * fit->shape.latent_dims * sizeof(float) + 1);
        _cleanup_(freep) float *outputs = malloc(n * n_dims * sizeof(float));
        struct adaptor_fit made = { .shape = fit->shape, .effort = fit->effort, .seed = fit->seed };
        int r;

        made.shape.type = TABLE_ADAPTOR_INT8;
        r = latents && outputs ? adaptor_init(&made.adaptor, &made.shape) : -ENOMEM;
        if (r < 0)
                return r;
        memcpy(made.adaptor.parameters, a->parameters, a->n_parameters * sizeof(float));
        r = adaptor_round(&made.adaptor, TABLE_ADAPTOR_INT8);
        if (r >= 0)
                r = adaptor_solve(&fit->solver, targets, n, latents, outputs);
        if (r >= 0)
                r = adaptor_solver_init(&made.solver, &made.adaptor, targets, latents, n);
        if (r < 0)
                adaptor_fit_deinit(&made);
        else
                adaptor_fit_move(ret_fit, &made);
        return r;
}

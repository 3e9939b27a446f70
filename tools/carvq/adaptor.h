/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corrective adaptor: a small multilayer perceptron with ReLU, shared by all rows, that expands
 * a row's latent into n_dims values (CARVQ, arXiv 2510.12721). Training fits weights and the
 * latents of a sample; solving finds the latent of any row with the weights frozen. Matrices are
 * row-major floats; weights are float[in][out] as in the file.
 */
#pragma once

#include "proto/table.h"

/* Bounds what the packer will try, well inside the format's limits: the solver holds [hidden]^2. */
#define ADAPTOR_LATENT_MAX 256u
#define ADAPTOR_HIDDEN_MAX 4096u

struct adaptor_shape {
        uint32_t latent_dims;
        uint32_t hidden_dims[2]; /* 0: the layer is absent */
        uint32_t n_dims;
};

#define ADAPTOR_LAYERS_MAX 3u

struct adaptor {
        uint32_t n_layers;
        uint32_t dims[ADAPTOR_LAYERS_MAX + 1]; /* latent, hidden ..., n_dims */
        float *parameters;                     /* layer by layer: weights, then bias */
        size_t n_parameters;
        float *weights[ADAPTOR_LAYERS_MAX]; /* into `parameters` */
        float *biases[ADAPTOR_LAYERS_MAX];
};

/* All zero. */
int adaptor_init(struct adaptor *adaptor, const struct adaptor_shape *shape);
void adaptor_deinit(struct adaptor *adaptor);

/* Rounds to half. -ERANGE when a weight does not fit: then the adaptor is of no use. */
int adaptor_round(struct adaptor *adaptor);

/* Inputs of the last layer: what the latents become after all hidden layers. */
static inline uint32_t adaptor_n_features(const struct adaptor *adaptor) {
        return adaptor->dims[adaptor->n_layers - 1];
}

/* ---- Latents (adaptor.c) ---- */

struct adaptor_solver {
        const struct adaptor *adaptor;
        float *gram;       /* [features][features]: products of the last layer's rows */
        float *bias_image; /* [features]: the last bias, times the last layer transposed */
        float *start;      /* [features + 1][latent]: the linear first guess, constant last */
};

/*
 * `targets` and `latents` are rows whose latents are known, from which the linear first guess is
 * fitted; with n_rows 0 the search starts from zero.
 */
int adaptor_solver_init(struct adaptor_solver *solver, const struct adaptor *adaptor,
                        const float *targets, const float *latents, size_t n_rows);
void adaptor_solver_deinit(struct adaptor_solver *solver);

/*
 * Latents for `n_rows` targets ([n_rows][n_dims]), rounded to half, and the adaptor's outputs for
 * them. One thread; memory grows with n_rows * features.
 */
int adaptor_solve(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                  float *ret_latents, float *ret_outputs);

/* ---- Training (adaptor-train.c) ---- */

struct adaptor_effort {
        uint32_t n_epochs; /* at most */
        uint32_t patience; /* epochs without gain on the held-out rows before it stops */
};

/*
 * Fits weights to `targets`. Every ADAPTOR_HOLDOUT-th row is held out: the weights returned are the
 * ones with the least error there, rounded to half. The solver's first guess is fitted as well.
 */
#define ADAPTOR_HOLDOUT 8u

int adaptor_train(const float *targets, size_t n_rows, const struct adaptor_shape *shape,
                  const struct adaptor_effort *effort, uint64_t seed, unsigned n_threads,
                  struct adaptor *ret_adaptor, struct adaptor_solver *ret_solver);

/*
 * Sum of squared errors of a block of rows, and its gradients, which are added to `gradients`
 * (laid out as adaptor->parameters) and written to `latent_gradients`. For training and its test.
 */
int adaptor_gradient(const struct adaptor *adaptor, const float *targets, const float *latents,
                     size_t n_rows, float *gradients, float *latent_gradients, double *ret_error);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corrective adaptor: a small multilayer perceptron with ReLU, shared by all rows, that expands
 * a row's latent into n_dims values (CARVQ, arXiv 2510.12721). Without a hidden layer it is affine,
 * a mean row and principal components; without latents too, the mean row alone. Fitting or training
 * finds its weights on a sample; solving finds the latent of any row with the weights frozen.
 * Matrices are row-major floats; weights are float[in][out] as in the file.
 */
#pragma once

#include "proto/table.h"

/* Bounds what the packer will try, well inside the format's limits: the solver holds [hidden]^2. */
#define ADAPTOR_LATENT_MAX 256u
#define ADAPTOR_HIDDEN_MAX 4096u

struct adaptor_shape {
        uint32_t latent_dims;    /* 0: needs no hidden layer */
        uint32_t hidden_dims[2]; /* 0: the layer is absent */
        uint32_t n_dims;
        uint32_t latent_bits;    /* 8, or 16 (also 0) */
        enum table_adaptor type; /* of the weights: INT8, or HALF (also NONE) */
};

#define ADAPTOR_LAYERS_MAX 3u

struct adaptor {
        uint32_t n_layers;
        uint32_t dims[ADAPTOR_LAYERS_MAX + 1]; /* latent, hidden ..., n_dims */
        uint32_t latent_bits;
        enum table_adaptor type;
        float *parameters; /* layer by layer: weights, then bias; behind them the scales */
        size_t n_parameters;
        float *weights[ADAPTOR_LAYERS_MAX]; /* into `parameters` */
        float *biases[ADAPTOR_LAYERS_MAX];
        float *scales[ADAPTOR_LAYERS_MAX]; /* of int8 weights, set by rounding to them */
};

/* ---- Parameters (adaptor.c) ---- */

/* All zero. */
int adaptor_init(struct adaptor *adaptor, const struct adaptor_shape *shape);
void adaptor_deinit(struct adaptor *adaptor);

/*
 * Rounds to what a reader of weights of this type will see, which becomes the adaptor's type. Made
 * before, a solver is stale. -ERANGE when a parameter does not fit: then the adaptor is of no use.
 */
int adaptor_round(struct adaptor *adaptor, enum table_adaptor type);

/* The chunk of a rounded adaptor (FORMAT.md, "Adaptor"), of adaptor_stored_bytes() bytes. */
size_t adaptor_stored_bytes(const struct adaptor *adaptor);
void adaptor_store(const struct adaptor *adaptor, uint8_t *ret_bytes);

/* Inputs of the last layer: what the latents become after all hidden layers. */
static inline uint32_t adaptor_n_features(const struct adaptor *adaptor) {
        return adaptor->dims[adaptor->n_layers - 1];
}

/* ---- Latents (adaptor-solve.c, adaptor-linear.c) ---- */

struct adaptor_solver {
        const struct adaptor *adaptor;

        /* With hidden layers: */
        float *gram;       /* [features][features]: products of the last layer's rows */
        float *bias_image; /* [features]: the last bias, times the last layer transposed */
        float *start;      /* [features + 1][latent]: the linear first guess, constant last */

        /* Affine: */
        float *projector; /* [latent][n_dims]: least squares, from (target - bias) to the latent */
};

/*
 * `targets` and `latents` are rows whose latents are known, from which the linear first guess is
 * fitted; with n_rows 0 the search starts from zero. An affine adaptor needs neither.
 */
int adaptor_solver_init(struct adaptor_solver *solver, const struct adaptor *adaptor,
                        const float *targets, const float *latents, size_t n_rows);
void adaptor_solver_deinit(struct adaptor_solver *solver);

/*
 * Latents for `n_rows` targets ([n_rows][n_dims]) as they will be stored, rounded to half or to
 * integers from -127 to 127, and the adaptor's outputs for them. Thread-safe, each call in one
 * thread; memory grows with n_rows * features, but not for an affine adaptor.
 */
int adaptor_solve(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                  float *ret_latents, float *ret_outputs);

/* ---- Principal components (adaptor-spectrum.c, adaptor-linear.c) ---- */

/* What a mean row and a few components would catch of a sample. */
struct adaptor_spectrum {
        uint32_t n_dims, n_components;
        float *means;      /* [n_dims] */
        float *basis;      /* [component][n_dims]: orthonormal, the largest first; where the
                            * sample varies in fewer directions, zero or of no energy */
        double energy_raw; /* mean square of the sample's values */
        double *energy;    /* [components + 1]: the same after removal of means and so many
                            * components */
        float *reach;      /* [component]: largest absolute projection in the sample */
};

/*
 * At most min(n_components, n_dims, ADAPTOR_LATENT_MAX) components of at least one row. The
 * same bits on every CPU and for every number of threads.
 */
int adaptor_spectrum_fit(const float *rows, size_t n_rows, uint32_t n_dims, uint32_t n_components,
                         uint64_t seed, unsigned n_threads, struct adaptor_spectrum *ret_spectrum);
void adaptor_spectrum_deinit(struct adaptor_spectrum *spectrum);

/*
 * The affine adaptor of the first `n_latents` (0: the means alone) components, with weights in
 * half, and its solver, which points to it. With 8 latent bits the weights carry the step.
 */
int adaptor_make_linear(const struct adaptor_spectrum *spectrum, uint32_t n_latents,
                        uint32_t latent_bits, struct adaptor *ret_adaptor,
                        struct adaptor_solver *ret_solver);

/* ---- Training (adaptor-train.c) ---- */

struct adaptor_effort {
        uint32_t n_epochs; /* at most */
        uint32_t patience; /* epochs without gain on the held-out rows before it stops */
};

/*
 * Fits weights to `targets`. Every ADAPTOR_HOLDOUT-th row is held out: the weights returned are the
 * ones with the least error there, rounded. The solver's first guess is fitted as well. The shape
 * has latents.
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

/* ---- An adaptor, and how it was made (adaptor-fit.c) ---- */

struct adaptor_fit {
        struct adaptor_shape shape;
        struct adaptor_effort effort; /* with hidden layers */
        uint64_t seed;
        struct adaptor adaptor; /* what is fitted: empty before the first time */
        struct adaptor_solver solver;
};

/*
 * Fits it, or fits it again, to `targets`. Without hidden layers as many components as the shape
 * has latents, of which rows must have enough dimensions. -ERANGE: it does not fit half. A failure
 * leaves the last fit as it was.
 */
int adaptor_fit_make(struct adaptor_fit *fit, const float *targets, size_t n_rows,
                     unsigned n_threads);
/* The same adaptor with its weights rounded to int8, and latents as they are for `targets`. */
int adaptor_fit_to_int8(const struct adaptor_fit *fit, const float *targets, size_t n_rows,
                        struct adaptor_fit *ret_fit);
/* *to takes over what *from has, which is left empty. */
void adaptor_fit_move(struct adaptor_fit *to, struct adaptor_fit *from);
void adaptor_fit_deinit(struct adaptor_fit *fit);

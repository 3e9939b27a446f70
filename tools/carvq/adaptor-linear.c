/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The affine adaptor: no hidden layer, so the best latents are a linear map of the target, and its
 * error is what rounding leaves. No search and no BLAS: the same bits on every CPU. Any thread.
 */
#include <math.h>
#include <string.h>

#include "adaptor-impl.h"

/* ---- Least squares ---- */

/* Lower Cholesky factor of a positive definite matrix, in place. */
static void cholesky(double *a, size_t m) {
        for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j <= i; j++) {
                        double sum = a[i * m + j];

                        for (size_t k = 0; k < j; k++)
                                sum -= a[i * m + k] * a[j * m + k];
                        a[i * m + j] = i == j ? sqrt(sum) : sum / a[j * m + j];
                }
}

/* x = (L L')^-1 x */
static void cholesky_solve(const double *factor, size_t m, double *x) {
        for (size_t i = 0; i < m; i++) {
                for (size_t k = 0; k < i; k++)
                        x[i] -= factor[i * m + k] * x[k];
                x[i] /= factor[i * m + i];
        }
        for (size_t i = m; i-- > 0;) {
                for (size_t k = i + 1; k < m; k++)
                        x[i] -= factor[k * m + i] * x[k];
                x[i] /= factor[i * m + i];
        }
}

/*
 * Products of the weights' rows. The ridge, below what a float can tell, keeps the factor real
 * where rows depend on each other, and a row of zeros without a latent.
 */
static void fill_gram(const float *weights, size_t m, size_t n, double *ret_gram) {
        for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j <= i; j++) {
                        double sum = 0;

                        for (size_t d = 0; d < n; d++)
                                sum += (double)weights[i * n + d] * (double)weights[j * n + d];
                        ret_gram[i * m + j] = i == j ? sum * (1 + 1e-9) + 1e-30 : sum;
                }
}

int adaptor_affine_init(struct adaptor_solver *solver, const struct adaptor *a) {
        size_t m = a->dims[0], n = a->dims[1];
        _cleanup_(freep) double *gram = malloc((m * m + m + 1) * sizeof(double));
        float *projector = malloc((m * n + 1) * sizeof(float));
        double *x = gram + m * m;

        if (!gram || !projector) {
                free(projector);
                return -ENOMEM;
        }
        fill_gram(a->weights[0], m, n, gram);
        cholesky(gram, m);
        for (size_t d = 0; d < n; d++) {
                for (size_t i = 0; i < m; i++)
                        x[i] = a->weights[0][i * n + d];
                cholesky_solve(gram, m, x);
                for (size_t i = 0; i < m; i++)
                        projector[i * n + d] = (float)x[i];
        }
        *solver = (struct adaptor_solver){ .adaptor = a, .projector = projector };
        return 0;
}

void adaptor_affine_solve(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                          float *ret_latents, float *ret_outputs) {
        const struct adaptor *a = solver->adaptor;
        size_t m = a->dims[0], n = a->dims[1];

        for (size_t r = 0; r < n_rows; r++) {
                const float *target = targets + r * n;
                float *latent = ret_latents + r * m, *output = ret_outputs + r * n;

                for (size_t d = 0; m && d < n; d++)
                        output[d] = target[d] - a->biases[0][d];
                for (size_t i = 0; i < m; i++)
                        latent[i] = adaptor_round_latent(a->latent_bits,
                                                         dot(output, solver->projector + i * n, n));
                memcpy(output, a->biases[0], n * sizeof(float));
                for (size_t i = 0; i < m; i++)
                        add_scaled(output, latent[i], a->weights[0] + i * n, n);
        }
}

/* ---- From a spectrum ---- */

int adaptor_make_linear(const struct adaptor_spectrum *spectrum, uint32_t n_latents,
                        uint32_t latent_bits, struct adaptor *ret_adaptor,
                        struct adaptor_solver *ret_solver) {
        const struct adaptor_shape shape = {
                .latent_dims = n_latents,
                .n_dims = spectrum->n_dims,
                .latent_bits = latent_bits,
        };
        _cleanup_(adaptor_deinit) struct adaptor a = { 0 };
        size_t n = spectrum->n_dims;
        int r;

        r = adaptor_init(&a, &shape);
        if (r < 0)
                return r;
        memcpy(a.biases[0], spectrum->means, n * sizeof(float));
        for (size_t i = 0; i < n_latents; i++) {
                float reach = spectrum->reach[i];
                float step = latent_bits == 8 ? latent_step(reach) : reach;

                for (size_t d = 0; d < n; d++)
                        a.weights[0][i * n + d] = step * spectrum->basis[i * n + d];
        }
        r = adaptor_round(&a, TABLE_ADAPTOR_HALF);
        if (r >= 0)
                r = adaptor_affine_init(ret_solver, &a);
        if (r < 0)
                return r;
        *ret_adaptor = a;
        ret_solver->adaptor = ret_adaptor;
        a = (struct adaptor){ 0 };
        return 0;
}

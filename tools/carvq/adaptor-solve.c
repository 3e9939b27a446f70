/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for latents through hidden layers. With the weights frozen, |t - f(z) W|^2 depends
 * on a target t only through its products with the rows of W; so after one matrix product for a
 * block of rows, each row's search (Levenberg 1944, Marquardt 1963) runs in the small space of
 * features, whatever n_dims is. A fixed number of steps, so a row's latent depends on the row only.
 */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "adaptor-impl.h"

#define STEPS 6u

void dposv_(const char *uplo, const int *n, const int *n_rhs, double *a, const int *lda, double *b,
            const int *ldb, int *info);

/* ---- Features of one latent ---- */

/* Working memory of one row's search. */
struct search {
        float *features, *trial;    /* [features] */
        float *image, *trial_image; /* [features]: gram times features */
        float *hidden;              /* [hidden 0] */
        float *jacobian, *inner;    /* [latent][features], [latent][hidden 0] */
        float *jacobian_image;      /* [latent][features] */
        double *normal, *step;      /* [latent]^2, [latent] */
        float *latent;              /* [latent] */
        void *memory;
};

static int search_init(struct search *s, const struct adaptor *a) {
        size_t m = a->dims[0], n = adaptor_n_features(a), h = a->dims[1];
        size_t n_floats = 4 * n + h + m * (2 * n + h) + m;
        double *p = calloc(m * m + m + n_floats / 2 + 1, sizeof(double));
        float *f;

        if (!p)
                return -ENOMEM;
        s->memory = p;
        s->normal = p;
        s->step = p + m * m;
        f = (float *)(s->step + m);
        s->features = f;
        s->trial = f += n;
        s->image = f += n;
        s->trial_image = f += n;
        s->hidden = f += n;
        s->jacobian = f += h;
        s->jacobian_image = f += m * n;
        s->inner = f += m * n;
        s->latent = f += m * h;
        return 0;
}

static void search_deinit(struct search *s) {
        free(s->memory);
}

/* out = max(0, bias + in W) */
static void hidden_layer(const struct adaptor *a, uint32_t l, const float *in, float *out) {
        uint32_t n_out = a->dims[l + 1];

        memcpy(out, a->biases[l], n_out * sizeof(float));
        for (uint32_t i = 0; i < a->dims[l]; i++)
                if (in[i] != 0)
                        add_scaled(out, in[i], a->weights[l] + (size_t)i * n_out, n_out);
        for (uint32_t o = 0; o < n_out; o++)
                out[o] = MAX(out[o], 0.f);
}

static void eval_features(const struct adaptor *a, struct search *s, const float *latent,
                          float *ret_features) {
        hidden_layer(a, 0, latent, a->n_layers == 2 ? ret_features : s->hidden);
        if (a->n_layers == 3)
                hidden_layer(a, 1, s->hidden, ret_features);
}

static void mask_rows(float *rows, const float *active, size_t n_rows, size_t n) {
        for (size_t i = 0; i < n_rows; i++)
                for (size_t k = 0; k < n; k++)
                        rows[i * n + k] = active[k] > 0 ? rows[i * n + k] : 0;
}

/* d features / d latent at the point of the last eval_features() into s->features. */
static void eval_jacobian(const struct adaptor *a, struct search *s) {
        size_t m = a->dims[0], n = adaptor_n_features(a);
        float *first = a->n_layers == 3 ? s->inner : s->jacobian;

        memcpy(first, a->weights[0], m * a->dims[1] * sizeof(float));
        mask_rows(first, a->n_layers == 3 ? s->hidden : s->features, m, a->dims[1]);
        if (a->n_layers == 2)
                return;
        memset(s->jacobian, 0, m * n * sizeof(float));
        for (size_t i = 0; i < m; i++)
                for (size_t k = 0; k < a->dims[1]; k++)
                        if (s->inner[i * a->dims[1] + k] != 0)
                                add_scaled(s->jacobian + i * n, s->inner[i * a->dims[1] + k],
                                           a->weights[1] + k * n, n);
        mask_rows(s->jacobian, s->features, m, n);
}

static void gram_image(const struct adaptor_solver *solver, const float *features,
                       float *ret_image) {
        size_t n = adaptor_n_features(solver->adaptor);

        memset(ret_image, 0, n * sizeof(float));
        for (size_t k = 0; k < n; k++)
                if (features[k] != 0)
                        add_scaled(ret_image, features[k], solver->gram + k * n, n);
}

/* |t - f W|^2 but for |t|^2, given f, f G and the products of t with the rows of W. */
static double feature_error(const float *features, const float *image, const float *products,
                            size_t n) {
        double error = 0;

        for (size_t k = 0; k < n; k++)
                error += (double)features[k] * ((double)image[k] - 2 * (double)products[k]);
        return error;
}

/* ---- The search ---- */

static bool gauss_newton_step(const struct adaptor_solver *solver, struct search *s,
                              const float *products, double damping) {
        size_t n = adaptor_n_features(solver->adaptor);
        int m = (int)solver->adaptor->dims[0], one = 1, info;

        for (int i = 0; i < m; i++) {
                const float *row = s->jacobian + (size_t)i * n;
                double slope = 0;

                gram_image(solver, row, s->jacobian_image + (size_t)i * n);
                for (size_t k = 0; k < n; k++)
                        slope += (double)row[k] * ((double)products[k] - (double)s->image[k]);
                s->step[i] = slope;
                for (int j = 0; j <= i; j++)
                        s->normal[i * m + j] = (double)dot(s->jacobian_image + (size_t)i * n,
                                                           s->jacobian + (size_t)j * n, n);
                s->normal[i * m + i] += damping * s->normal[i * m + i] + 1e-12;
        }
        dposv_("U", &m, &one, s->normal, &m, s->step, &m, &info);
        return info == 0;
}

static void solve_row(const struct adaptor_solver *solver, struct search *s,
                      const float *products) {
        const struct adaptor *a = solver->adaptor;
        size_t m = a->dims[0], n = adaptor_n_features(a);
        double damping = 1e-2, error;
        float trial_latent[ADAPTOR_LATENT_MAX];

        eval_features(a, s, s->latent, s->features);
        gram_image(solver, s->features, s->image);
        error = feature_error(s->features, s->image, products, n);
        for (unsigned step = 0; step < STEPS; step++) {
                eval_jacobian(a, s);
                if (!gauss_newton_step(solver, s, products, damping))
                        return;
                for (size_t i = 0; i < m; i++)
                        trial_latent[i] = s->latent[i] + (float)s->step[i];
                eval_features(a, s, trial_latent, s->trial);
                gram_image(solver, s->trial, s->trial_image);

                double trial_error = feature_error(s->trial, s->trial_image, products, n);
                if (!(trial_error < error)) {
                        damping = damping * 16 + 1e-3;
                        /* `hidden` belongs to the refused point. */
                        eval_features(a, s, s->latent, s->features);
                        continue;
                }
                damping /= 8;
                error = trial_error;
                memcpy(s->latent, trial_latent, m * sizeof(float));
                memcpy(s->features, s->trial, n * sizeof(float));
                memcpy(s->image, s->trial_image, n * sizeof(float));
        }
}

/* [n_rows][features]: products of (target - last bias) with the rows of the last layer. */
static void target_products(const struct adaptor *a, const float *bias_image, const float *targets,
                            size_t n_rows, float *ret_products) {
        uint32_t n = adaptor_n_features(a), n_dims = a->dims[a->n_layers];

        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n_rows, (int)n, (int)n_dims, 1,
                    targets, (int)n_dims, a->weights[a->n_layers - 1], (int)n_dims, 0, ret_products,
                    (int)n);
        for (size_t r = 0; r < n_rows; r++)
                add_scaled(ret_products + r * n, -1, bias_image, n);
}

/* Linear regression of known latents on [products, 1]. */
static int fit_start(struct adaptor_solver *solver, const float *targets, const float *latents,
                     size_t n_rows) {
        const struct adaptor *a = solver->adaptor;
        size_t n = adaptor_n_features(a);
        int n_in = (int)n + 1, n_out = (int)a->dims[0], info;
        _cleanup_(freep) float *products = malloc(n_rows * n * sizeof(float));
        _cleanup_(freep) double *normal = calloc((size_t)n_in * (size_t)n_in, sizeof(double));
        _cleanup_(freep) double *sums = calloc((size_t)n_in * a->dims[0], sizeof(double));
        _cleanup_(freep) double *row = malloc((size_t)n_in * sizeof(double));
        double trace = 0;

        if (!products || !normal || !sums || !row)
                return -ENOMEM;
        target_products(a, solver->bias_image, targets, n_rows, products);
        row[n] = 1;
        for (size_t r = 0; r < n_rows; r++) {
                for (size_t k = 0; k < n; k++)
                        row[k] = products[r * n + k];
                for (size_t i = 0; i <= n; i++) {
                        for (size_t j = 0; j <= i; j++)
                                normal[i * (n + 1) + j] += row[i] * row[j];
                        for (int o = 0; o < n_out; o++)
                                sums[(size_t)o * (n + 1) + i] +=
                                        row[i] * (double)latents[r * (size_t)n_out + (size_t)o];
                }
        }
        for (size_t i = 0; i <= n; i++)
                trace += normal[i * (n + 1) + i];
        for (size_t i = 0; i <= n; i++)
                normal[i * (n + 1) + i] += 1e-9 * trace / (double)n_in + 1e-30;
        dposv_("U", &n_in, &n_out, normal, &n_in, sums, &n_in, &info);
        for (size_t i = 0; info == 0 && i <= n; i++)
                for (int o = 0; o < n_out; o++)
                        solver->start[i * (size_t)n_out + (size_t)o] =
                                (float)sums[(size_t)o * (n + 1) + i];
        return 0;
}

static int solver_init_hidden(struct adaptor_solver *solver, const struct adaptor *adaptor,
                              const float *targets, const float *latents, size_t n_rows) {
        uint32_t n = adaptor_n_features(adaptor), n_dims = adaptor->dims[adaptor->n_layers];
        const float *weights = adaptor->weights[adaptor->n_layers - 1];
        struct adaptor_solver s = {
                .adaptor = adaptor,
                .gram = malloc((size_t)n * n * sizeof(float)),
                .bias_image = malloc(n * sizeof(float)),
                .start = calloc(((size_t)n + 1) * adaptor->dims[0], sizeof(float)),
        };
        int r;

        if (!s.gram || !s.bias_image || !s.start) {
                adaptor_solver_deinit(&s);
                return -ENOMEM;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n, (int)n_dims, 1,
                    weights, (int)n_dims, weights, (int)n_dims, 0, s.gram, (int)n);
        for (uint32_t k = 0; k < n; k++)
                s.bias_image[k] = dot(adaptor->biases[adaptor->n_layers - 1],
                                      weights + (size_t)k * n_dims, n_dims);
        r = n_rows ? fit_start(&s, targets, latents, n_rows) : 0;
        if (r < 0) {
                adaptor_solver_deinit(&s);
                return r;
        }
        *solver = s;
        return 0;
}

int adaptor_solver_init(struct adaptor_solver *solver, const struct adaptor *adaptor,
                        const float *targets, const float *latents, size_t n_rows) {
        if (adaptor->n_layers == 1)
                return adaptor_affine_init(solver, adaptor);
        return solver_init_hidden(solver, adaptor, targets, latents, n_rows);
}

void adaptor_solver_deinit(struct adaptor_solver *solver) {
        free(solver->gram);
        free(solver->bias_image);
        free(solver->start);
        free(solver->projector);
        *solver = (struct adaptor_solver){ 0 };
}

static int solve_hidden(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                        float *ret_latents, float *ret_outputs) {
        const struct adaptor *a = solver->adaptor;
        size_t m = a->dims[0], n = adaptor_n_features(a), n_dims = a->dims[a->n_layers];
        _cleanup_(freep) float *products = malloc(n_rows * n * sizeof(float));
        _cleanup_(search_deinit) struct search s = { 0 };

        if (!products || search_init(&s, a) < 0)
                return -ENOMEM;
        target_products(a, solver->bias_image, targets, n_rows, products);
        for (size_t r = 0; r < n_rows; r++) {
                float *row = products + r * n;

                memcpy(s.latent, solver->start + n * m, m * sizeof(float));
                for (size_t k = 0; k < n; k++)
                        add_scaled(s.latent, row[k], solver->start + k * m, m);
                solve_row(solver, &s, row);
                for (size_t i = 0; i < m; i++)
                        ret_latents[r * m + i] = adaptor_round_latent(a->latent_bits, s.latent[i]);
                /* The products are done with: their place takes the features. */
                eval_features(a, &s, ret_latents + r * m, row);
        }
        for (size_t r = 0; r < n_rows; r++)
                memcpy(ret_outputs + r * n_dims, a->biases[a->n_layers - 1],
                       n_dims * sizeof(float));
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows, (int)n_dims, (int)n, 1,
                    products, (int)n, a->weights[a->n_layers - 1], (int)n_dims, 1, ret_outputs,
                    (int)n_dims);
        return 0;
}

int adaptor_solve(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                  float *ret_latents, float *ret_outputs) {
        if (solver->adaptor->n_layers > 1)
                return solve_hidden(solver, targets, n_rows, ret_latents, ret_outputs);
        adaptor_affine_solve(solver, targets, n_rows, ret_latents, ret_outputs);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training of the adaptor. It starts at the best affine map (principal components), written as
 * pairs of ReLU units z and -z, so that Adam (Kingma, Ba 2015) can only improve on it: the weights
 * with the least held-out error are kept, the start among them. Mini-batches are cut into fixed
 * blocks; gradients are added up in block order, so the result does not depend on the number of
 * threads. OpenBLAS must be set to one thread of its own.
 */
#include <cblas.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "adaptor-impl.h"
#include "parallel.h"
#include "rng.h"

#define BATCH_ROWS  1024u
#define BLOCK_ROWS  256u
#define START_ROWS  4096u
#define WEIGHT_RATE 2e-3
#define LATENT_RATE 2e-2

/* ---- Gradient ---- */

static void layer_forward(const struct adaptor *a, uint32_t l, const float *in, size_t n_rows,
                          float *out) {
        uint32_t n_in = a->dims[l], n_out = a->dims[l + 1];

        for (size_t r = 0; r < n_rows; r++)
                memcpy(out + r * n_out, a->biases[l], n_out * sizeof(float));
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows, (int)n_out, (int)n_in,
                    1, in, (int)n_in, a->weights[l], (int)n_out, 1, out, (int)n_out);
        if (l + 1 < a->n_layers)
                for (size_t i = 0; i < n_rows * n_out; i++)
                        out[i] = MAX(out[i], 0.f);
}

/* From the error's derivative by a layer's outputs to those by its parameters and its inputs. */
static void layer_backward(const struct adaptor *a, uint32_t l, const float *in, const float *d_out,
                           size_t n_rows, float *gradients, float *d_in) {
        uint32_t n_in = a->dims[l], n_out = a->dims[l + 1];
        float *d_weights = gradients + (a->weights[l] - a->parameters);
        float *d_bias = gradients + (a->biases[l] - a->parameters);

        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_in, (int)n_out, (int)n_rows, 1,
                    in, (int)n_in, d_out, (int)n_out, 1, d_weights, (int)n_out);
        for (size_t r = 0; r < n_rows; r++)
                for (uint32_t o = 0; o < n_out; o++)
                        d_bias[o] += d_out[r * n_out + o];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n_rows, (int)n_in, (int)n_out, 1,
                    d_out, (int)n_out, a->weights[l], (int)n_out, 0, d_in, (int)n_in);
        if (l > 0)
                for (size_t i = 0; i < n_rows * n_in; i++)
                        d_in[i] = in[i] > 0 ? d_in[i] : 0;
}

int adaptor_gradient(const struct adaptor *a, const float *targets, const float *latents,
                     size_t n_rows, float *gradients, float *latent_gradients, double *ret_error) {
        const float *inputs[ADAPTOR_LAYERS_MAX + 1] = { latents };
        float *d_inputs[ADAPTOR_LAYERS_MAX + 1] = { latent_gradients };
        size_t n_width = 0, n_outputs = n_rows * a->dims[a->n_layers];
        _cleanup_(freep) float *memory = NULL;
        double error = 0;
        float *p;

        for (uint32_t l = 1; l <= a->n_layers; l++)
                n_width += a->dims[l];
        memory = p = malloc(2 * n_rows * n_width * sizeof(float));
        if (!memory)
                return -ENOMEM;
        for (uint32_t l = 0; l < a->n_layers; l++) {
                d_inputs[l + 1] = p + n_rows * n_width;
                layer_forward(a, l, inputs[l], n_rows, p);
                inputs[l + 1] = p;
                p += n_rows * a->dims[l + 1];
        }
        for (size_t i = 0; i < n_outputs; i++) {
                float difference = inputs[a->n_layers][i] - targets[i];

                error += (double)difference * (double)difference;
                d_inputs[a->n_layers][i] = 2 * difference;
        }
        for (uint32_t l = a->n_layers; l-- > 0;)
                layer_backward(a, l, inputs[l], d_inputs[l + 1], n_rows, gradients, d_inputs[l]);
        *ret_error = error;
        return 0;
}

/* ---- Adam ---- */

struct moments {
        float *first, *second; /* one pair for each parameter */
};

static int moments_init(struct moments *m, size_t n) {
        m->first = calloc(n, sizeof(float));
        m->second = calloc(n, sizeof(float));
        return m->first && m->second ? 0 : -ENOMEM;
}

static void moments_deinit(struct moments *m) {
        free(m->first);
        free(m->second);
}

/* Algorithm 1 of the paper with its constants, for the step-th update of these parameters. */
static void adam_update(struct moments *m, size_t offset, float *parameters, const float *gradients,
                        size_t n, uint32_t step, double rate) {
        float scale = (float)(rate * sqrt(1 - pow(0.999, step)) / (1 - pow(0.9, step)));
        float *first = m->first + offset, *second = m->second + offset;

        for (size_t i = 0; i < n; i++) {
                first[i] = 0.9f * first[i] + 0.1f * gradients[i];
                second[i] = 0.999f * second[i] + 0.001f * gradients[i] * gradients[i];
                parameters[i] -= scale * first[i] / (sqrtf(second[i]) + 1e-8f);
        }
}

/* ---- The state of one training ---- */

struct training {
        struct adaptor adaptor; /* being trained */
        struct adaptor rounded; /* what a reader would see of it */
        float *best;            /* parameters with the least held-out error, and their latents */
        float *best_latents;
        float *start_latents; /* [START_ROWS]: in the units of `rounded` or of the result */
        double best_error;

        float *targets; /* rows to train on first, held-out rows behind; scaled to unit energy */
        float *latents; /* of the rows to train on */
        size_t n_train, n_held;
        float scale;

        struct moments moments, latent_moments;
        float *gradients;        /* one set for each block of a batch */
        float *latent_gradients; /* [BATCH_ROWS][latent] */
        uint32_t n_batches, batch, step, epoch;
        double rate; /* of the first epoch's rate */
        unsigned n_threads;
};

static void training_deinit(struct training *t) {
        adaptor_deinit(&t->adaptor);
        adaptor_deinit(&t->rounded);
        moments_deinit(&t->moments);
        moments_deinit(&t->latent_moments);
        free(t->best);
        free(t->best_latents);
        free(t->start_latents);
        free(t->targets);
        free(t->latents);
        free(t->gradients);
        free(t->latent_gradients);
}

static int training_init(struct training *t, const float *targets, size_t n_rows,
                         const struct adaptor_shape *shape) {
        size_t n_dims = shape->n_dims, at[2] = { 0 };
        double energy = 0;
        int r;

        t->n_held = n_rows / ADAPTOR_HOLDOUT;
        t->n_train = n_rows - t->n_held;
        t->n_batches = (uint32_t)div_round_up(t->n_train, BATCH_ROWS);
        t->best_error = DBL_MAX;
        at[1] = t->n_train;
        r = adaptor_init(&t->adaptor, shape);
        if (r >= 0)
                r = adaptor_init(&t->rounded, shape);
        if (r >= 0)
                r = moments_init(&t->moments, t->adaptor.n_parameters);
        if (r >= 0)
                r = moments_init(&t->latent_moments, t->n_train * shape->latent_dims);
        if (r < 0)
                return r;
        t->best = calloc(t->adaptor.n_parameters, sizeof(float));
        t->best_latents = calloc(t->n_train * shape->latent_dims, sizeof(float));
        t->start_latents = malloc((size_t)START_ROWS * shape->latent_dims * sizeof(float));
        t->targets = malloc(n_rows * n_dims * sizeof(float));
        t->latents = calloc(t->n_train * shape->latent_dims, sizeof(float));
        t->gradients = malloc(BATCH_ROWS / BLOCK_ROWS * t->adaptor.n_parameters * sizeof(float));
        t->latent_gradients = malloc((size_t)BATCH_ROWS * shape->latent_dims * sizeof(float));
        if (!t->best || !t->best_latents || !t->start_latents || !t->targets || !t->latents ||
            !t->gradients || !t->latent_gradients)
                return -ENOMEM;

        for (size_t i = 0; i < n_rows * n_dims; i++)
                energy += (double)targets[i] * (double)targets[i];
        t->scale = energy > 0 ? (float)sqrt(energy / ((double)n_rows * (double)n_dims)) : 1;
        for (size_t i = 0; i < n_rows; i++) {
                bool held = i % ADAPTOR_HOLDOUT == ADAPTOR_HOLDOUT - 1;
                float *to = t->targets + at[held]++ * n_dims;

                for (size_t d = 0; d < n_dims; d++)
                        to[d] = targets[i * n_dims + d] / t->scale;
        }
        return 0;
}

/* ---- The start: principal components ---- */

/* Leaves latents of unit variance and a basis scaled to match; zero where the rows vary less. */
static int principal_components(struct training *t, uint64_t seed, float *means, float *basis) {
        size_t m = t->adaptor.dims[0], n = t->adaptor.dims[t->adaptor.n_layers];
        _cleanup_(adaptor_spectrum_deinit) struct adaptor_spectrum s = { 0 };
        int r;

        r = adaptor_spectrum_fit(t->targets, t->n_train, (uint32_t)n, (uint32_t)m, seed,
                                 t->n_threads, &s);
        if (r < 0)
                return r;
        memcpy(means, s.means, n * sizeof(float));
        memset(basis, 0, m * n * sizeof(float));
        for (size_t i = 0; i < s.n_components; i++) {
                const float *component = s.basis + i * n;
                float deviation = (float)sqrt((s.energy[i] - s.energy[i + 1]) * (double)n);
                float shift = dot(means, component, n);

                for (size_t j = 0; deviation > 0 && j < t->n_train; j++)
                        t->latents[j * m + i] =
                                (dot(t->targets + j * n, component, n) - shift) / deviation;
                for (size_t d = 0; d < n; d++)
                        basis[i * n + d] = deviation * component[d];
        }
        return 0;
}

/* Random small weights where nothing better is known (He et al. 2015). */
static void randomize_hidden(struct adaptor *a, struct rng *rng) {
        for (uint32_t l = 0; l + 1 < a->n_layers; l++) {
                float deviation = sqrtf(2.f / (float)a->dims[l]);

                for (size_t i = 0; i < (size_t)a->dims[l] * a->dims[l + 1]; i++)
                        a->weights[l][i] = deviation * rng_normal(rng);
                for (uint32_t o = 0; o < a->dims[l + 1]; o++)
                        a->biases[l][o] = 0.5f * rng_normal(rng);
        }
}

/* Unit o of layer l copies input `in` times `sign` and nothing else. */
static void pass_through(struct adaptor *a, uint32_t l, uint32_t in, uint32_t o, float sign) {
        for (uint32_t i = 0; i < a->dims[l]; i++)
                a->weights[l][(size_t)i * a->dims[l + 1] + o] = i == in ? sign : 0;
        a->biases[l][o] = 0;
}

/* relu(z) - relu(-z) = z: a pair of units carries one principal component through ReLU layers. */
static int start_affine(struct training *t, uint64_t seed) {
        struct adaptor *a = &t->adaptor;
        uint32_t m = a->dims[0], n_pairs = m, last = a->n_layers - 1;
        size_t n = a->dims[a->n_layers];
        _cleanup_(freep) float *basis = malloc(m * n * sizeof(float));
        struct rng rng = rng_stream(seed, 0);
        int r;

        r = basis ? principal_components(t, seed, a->biases[last], basis) : -ENOMEM;
        if (r < 0)
                return r;
        if (last == 0) {
                memcpy(a->weights[0], basis, m * n * sizeof(float));
                return 0;
        }
        randomize_hidden(a, &rng);
        for (uint32_t l = 1; l < a->n_layers; l++)
                n_pairs = MIN(n_pairs, a->dims[l] / 2);
        for (uint32_t u = 0; u < 2 * n_pairs; u++) {
                pass_through(a, 0, u / 2, u, u % 2 ? -1 : 1);
                if (last == 2)
                        pass_through(a, 1, u, u, 1);
                for (size_t d = 0; d < n; d++)
                        a->weights[last][u * n + d] = (u % 2 ? -1 : 1) * basis[u / 2 * n + d];
        }
        return 0;
}

/* ---- Epochs ---- */

/* Row `i` of batch `b`: rows far apart in the table, which is often sorted by frequency. */
static size_t batch_row(const struct training *t, size_t i) {
        return i * t->n_batches + t->batch;
}

static int batch_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct training *t = userdata;
        size_t n_dims = t->adaptor.dims[t->adaptor.n_layers], m = t->adaptor.dims[0], n = 0;
        _cleanup_(freep) float *targets = malloc(BLOCK_ROWS * n_dims * sizeof(float));
        _cleanup_(freep) float *latents = malloc(BLOCK_ROWS * m * sizeof(float));
        float *gradients = t->gradients + item * t->adaptor.n_parameters;
        double error;

        (void)thread;
        (void)ret_fault;
        if (!targets || !latents)
                return -ENOMEM;
        memset(gradients, 0, t->adaptor.n_parameters * sizeof(float));
        for (; n < BLOCK_ROWS; n++) {
                size_t row = batch_row(t, item * BLOCK_ROWS + n);

                if (row >= t->n_train)
                        break;
                memcpy(targets + n * n_dims, t->targets + row * n_dims, n_dims * sizeof(float));
                memcpy(latents + n * m, t->latents + row * m, m * sizeof(float));
        }
        if (n == 0)
                return 0;
        return adaptor_gradient(&t->adaptor, targets, latents, n, gradients,
                                t->latent_gradients + item * BLOCK_ROWS * m, &error);
}

static int train_batch(struct training *t) {
        size_t n_blocks = BATCH_ROWS / BLOCK_ROWS, n = t->adaptor.n_parameters;
        size_t m = t->adaptor.dims[0];
        int r;

        r = parallel_for(t->n_threads, n_blocks, batch_block, t, NULL);
        if (r < 0)
                return r;
        for (size_t b = 1; b < n_blocks; b++)
                for (size_t i = 0; i < n; i++)
                        t->gradients[i] += t->gradients[b * n + i];
        adam_update(&t->moments, 0, t->adaptor.parameters, t->gradients, n, ++t->step,
                    WEIGHT_RATE * t->rate);
        for (size_t i = 0; i < BATCH_ROWS && batch_row(t, i) < t->n_train; i++)
                adam_update(&t->latent_moments, batch_row(t, i) * m,
                            t->latents + batch_row(t, i) * m, t->latent_gradients + i * m, m,
                            t->epoch + 1, LATENT_RATE * t->rate);
        return 0;
}

struct held_out {
        const struct training *t;
        const struct adaptor_solver *solver;
        double *errors; /* one for each block */
};

static int held_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct held_out *h = userdata;
        const struct adaptor *a = h->solver->adaptor;
        size_t n_dims = a->dims[a->n_layers], first = item * BLOCK_ROWS;
        size_t n = MIN(BLOCK_ROWS, h->t->n_held - first);
        const float *targets = h->t->targets + (h->t->n_train + first) * n_dims;
        _cleanup_(freep) float *latents = malloc(n * a->dims[0] * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(n * n_dims * sizeof(float));
        int r;

        (void)thread;
        (void)ret_fault;
        if (!latents || !outputs)
                return -ENOMEM;
        r = adaptor_solve(h->solver, targets, n, latents, outputs);
        for (size_t i = 0; r >= 0 && i < n * n_dims; i++)
                h->errors[item] +=
                        (double)(targets[i] - outputs[i]) * (double)(targets[i] - outputs[i]);
        return r;
}

/*
 * Rounds an adaptor and fits its solver to the first rows' latents. Where latents are integers, the
 * first layer carries their steps.
 */
static int finish(struct training *t, struct adaptor *a, const float *latents,
                  struct adaptor_solver *ret_solver) {
        size_t m = a->dims[0], n_start = MIN(t->n_train, START_ROWS);
        int r;

        for (size_t i = 0; i < m; i++) {
                float reach = 0, step = 1;

                for (size_t j = 0; j < t->n_train; j++)
                        reach = MAX(reach, fabsf(latents[j * m + i]));
                if (a->latent_bits == 8 && reach > 0)
                        step = latent_step(reach);
                for (size_t o = 0; o < a->dims[1]; o++)
                        a->weights[0][i * a->dims[1] + o] *= step;
                for (size_t j = 0; j < n_start; j++)
                        t->start_latents[j * m + i] = latents[j * m + i] / step;
        }
        r = adaptor_round(a, a->type);
        return r < 0 ? r
                     : adaptor_solver_init(ret_solver, a, t->targets, t->start_latents, n_start);
}

/* Keeps the present weights if they are the best so far. Returns 1 if they are, else 0. */
static int keep_if_better(struct training *t) {
        _cleanup_(adaptor_solver_deinit) struct adaptor_solver solver = { 0 };
        size_t n_blocks = div_round_up(t->n_held, BLOCK_ROWS);
        _cleanup_(freep) double *errors = calloc(n_blocks + 1, sizeof(double));
        struct held_out held = { t, &solver, errors };
        double error = 0;
        int r;

        if (!errors)
                return -ENOMEM;
        memcpy(t->rounded.parameters, t->adaptor.parameters,
               t->adaptor.n_parameters * sizeof(float));
        r = finish(t, &t->rounded, t->latents, &solver);
        if (r == -ERANGE)
                return 0;
        if (r >= 0)
                r = parallel_for(t->n_threads, n_blocks, held_block, &held, NULL);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_blocks; i++)
                error += errors[i];
        if (!(error < t->best_error))
                return 0;
        t->best_error = error;
        memcpy(t->best, t->adaptor.parameters, t->adaptor.n_parameters * sizeof(float));
        memcpy(t->best_latents, t->latents, t->n_train * t->adaptor.dims[0] * sizeof(float));
        return 1;
}

static int run_epochs(struct training *t, const struct adaptor_effort *effort) {
        uint32_t n_without_gain = 0;
        int r;

        r = keep_if_better(t);
        for (; r >= 0 && t->epoch < effort->n_epochs && n_without_gain < effort->patience;
             t->epoch++) {
                /* Half a cosine: large steps first, settled weights at the end. */
                t->rate = 0.5 + 0.5 * cos(M_PI * t->epoch / effort->n_epochs);
                for (t->batch = 0; t->batch < t->n_batches; t->batch++) {
                        r = train_batch(t);
                        if (r < 0)
                                return r;
                }
                r = keep_if_better(t);
                n_without_gain = r > 0 ? 0 : n_without_gain + 1;
        }
        return r;
}

int adaptor_train(const float *targets, size_t n_rows, const struct adaptor_shape *shape,
                  const struct adaptor_effort *effort, uint64_t seed, unsigned n_threads,
                  struct adaptor *ret_adaptor, struct adaptor_solver *ret_solver) {
        _cleanup_(training_deinit) struct training t = { .n_threads = n_threads };
        const struct adaptor *a = &t.adaptor;
        uint32_t last;
        int r;

        r = training_init(&t, targets, n_rows, shape);
        if (r >= 0)
                r = start_affine(&t, seed);
        if (r >= 0)
                r = run_epochs(&t, effort);
        if (r < 0)
                return r;

        /* Back to the targets' scale: the last layer alone has to know it. */
        last = a->n_layers - 1;
        memcpy(a->parameters, t.best, a->n_parameters * sizeof(float));
        for (float *p = a->weights[last]; p < a->parameters + a->n_parameters; p++)
                *p *= t.scale;
        for (size_t i = 0; i < t.n_train * shape->n_dims; i++)
                t.targets[i] *= t.scale;
        r = finish(&t, &t.adaptor, t.best_latents, ret_solver);
        if (r < 0)
                return r;
        *ret_adaptor = t.adaptor;
        ret_solver->adaptor = ret_adaptor;
        t.adaptor = (struct adaptor){ 0 };
        return 0;
}

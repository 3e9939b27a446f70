/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training of one group's codebooks (RVQ: Chen, Guan, Wang 2010). Stages are seeded by k-means++
 * (Arthur, Vassilvitskii 2007) and refined by Lloyd's iterations on the residual of the stages
 * before; then all stages are searched and re-estimated together, which is where most of the gain
 * is. Samples are coded by several threads; everything that adds floats up runs in sample order on
 * one, so the result depends on samples and seed only.
 */
#include "rvq.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "lanes.h"
#include "parallel.h"
#include "rng.h"

#define BLOCK_SAMPLES 4096u

/* k-means++ looks at this many samples: more do not place sixteen centroids better. */
#define SEED_SAMPLES 8192u

/* Passes end when the error falls by less than this share. */
#define GAIN_MIN 1e-3

/* Rounds of coordinate descent after each coding: later passes go on from where these end. */
#define SOLVE_SWEEPS 4u

/* ---- Seeding ---- */

static const float *seed_sample(const struct rvq_samples *samples, size_t i, size_t n_seeds) {
        return samples->values + i * samples->n / n_seeds * samples->n_slots;
}

/* Lowers distances to those to the newest centroid; returns their sum. */
static double seed_distances(const struct rvq_samples *samples, size_t n_seeds,
                             const float *centroid, float *distances) {
        double sum = 0;

        for (size_t i = 0; i < n_seeds; i++) {
                const float *x = seed_sample(samples, i, n_seeds);
                float distance = 0;

                for (uint32_t d = 0; d < samples->n_slots; d++)
                        distance += (x[d] - centroid[d]) * (x[d] - centroid[d]);
                distances[i] = MIN(distances[i], distance);
                sum += distances[i];
        }
        return sum;
}

static size_t seed_pick(const float *distances, size_t n_seeds, double target) {
        for (size_t i = 0; i < n_seeds; i++) {
                target -= distances[i];
                if (target < 0)
                        return i;
        }
        return n_seeds - 1;
}

int rvq_seed(const struct rvq_shape *shape, const struct rvq_samples *samples, uint64_t seed,
             float *ret_codebook) {
        uint32_t n_entries = 1u << shape->codebook_bits;
        struct rng rng = rng_stream(seed, 0);
        size_t n_seeds = MIN(samples->n, SEED_SAMPLES);
        _cleanup_(freep) float *distances = malloc(n_seeds * sizeof(float));
        size_t pick = rng_below(&rng, n_seeds);

        if (!distances)
                return -ENOMEM;
        for (size_t i = 0; i < n_seeds; i++)
                distances[i] = FLT_MAX;
        memset(ret_codebook, 0, (size_t)shape->subvector_dims * n_entries * sizeof(float));
        for (uint32_t c = 0; c < n_entries; c++) {
                const float *centroid = seed_sample(samples, pick, n_seeds);

                for (uint32_t d = 0; d < samples->n_slots; d++)
                        ret_codebook[(size_t)d * n_entries + c] = centroid[d];
                pick = seed_pick(distances, n_seeds,
                                 rng_uniform(&rng) *
                                         seed_distances(samples, n_seeds, centroid, distances));
        }
        return 0;
}

/* ---- One pass ---- */

struct coding {
        const struct rvq_search *search;
        const struct rvq_samples *samples;
        struct rvq_scratch *scratch; /* one for each thread */
        uint8_t *codes;
        float *errors; /* one for each sample */
};

static int code_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct coding *coding = userdata;
        size_t end = MIN((item + 1) * BLOCK_SAMPLES, coding->samples->n);
        uint32_t n_stages = coding->search->shape.n_stages, n_slots = coding->samples->n_slots;

        (void)ret_fault;
        for (size_t i = item * BLOCK_SAMPLES; i < end; i++)
                coding->errors[i] = rvq_search_encode(
                        coding->search, &coding->scratch[thread],
                        coding->samples->values + i * n_slots,
                        coding->samples->n_stages ? coding->samples->n_stages[i] : n_stages,
                        coding->codes + i * n_stages);
        return 0;
}

static int code_samples(const struct rvq_shape *shape, const struct rvq_samples *samples,
                        const float *codebooks, uint32_t width, unsigned n_threads, uint8_t *codes,
                        float *errors) {
        _cleanup_(rvq_search_deinit) struct rvq_search search = { 0 };
        struct coding coding = { &search, samples, NULL, codes, errors };
        int r;

        r = rvq_search_init(&search, shape, codebooks, samples->n_slots, width);
        if (r < 0)
                return r;
        coding.scratch = calloc(n_threads, sizeof(*coding.scratch));
        r = coding.scratch ? 0 : -ENOMEM;
        for (unsigned i = 0; r >= 0 && i < n_threads; i++)
                r = rvq_scratch_init(&coding.scratch[i], &search);
        if (r >= 0)
                r = parallel_for(n_threads, div_round_up(samples->n, BLOCK_SAMPLES), code_block,
                                 &coding, NULL);
        for (unsigned i = 0; coding.scratch && i < n_threads; i++)
                rvq_scratch_deinit(&coding.scratch[i]);
        free(coding.scratch);
        return r;
}

/* ---- Least squares ---- */

/* The normal equations of min |X - B D|, B saying which entries a sample uses. */
struct normal_equations {
        size_t n;        /* unknowns: entries of all stages */
        uint32_t n_rhs;  /* slots */
        double *counts;  /* [n][n] = B'B: how often two entries occur together */
        double *sums;    /* [n][n_rhs] = B'X */
        double *entries; /* [n][n_rhs] = D */
};

static void equations_deinit(struct normal_equations *e) {
        free(e->counts);
        free(e->sums);
        free(e->entries);
}

static int equations_init(struct normal_equations *e, const struct rvq_shape *shape,
                          uint32_t n_slots) {
        e->n = (size_t)shape->n_stages << shape->codebook_bits;
        e->n_rhs = n_slots;
        e->counts = calloc(e->n * e->n, sizeof(double));
        e->sums = calloc(e->n * n_slots, sizeof(double));
        e->entries = malloc(e->n * n_slots * sizeof(double));
        return e->counts && e->sums && e->entries ? 0 : -ENOMEM;
}

static void accumulate(struct normal_equations *e, const struct rvq_shape *shape,
                       const struct rvq_samples *samples, const uint8_t *codes) {
        for (size_t i = 0; i < samples->n; i++, codes += shape->n_stages) {
                uint32_t n_stages = samples->n_stages ? samples->n_stages[i] : shape->n_stages;
                const float *x = samples->values + i * e->n_rhs;
                size_t unknowns[TABLE_STAGES_MAX];

                for (uint32_t a = 0; a < n_stages; a++) {
                        unknowns[a] = ((size_t)a << shape->codebook_bits) + codes[a];
                        for (uint32_t d = 0; d < e->n_rhs; d++)
                                e->sums[unknowns[a] * e->n_rhs + d] += (double)x[d];
                        e->counts[unknowns[a] * e->n + unknowns[a]]++;
                        for (uint32_t b = 0; b < a; b++) {
                                e->counts[unknowns[a] * e->n + unknowns[b]]++;
                                e->counts[unknowns[b] * e->n + unknowns[a]]++;
                        }
                }
        }
}

/* Codebooks to unknowns, or back. */
static void move_entries(const struct normal_equations *e, const struct rvq_shape *shape,
                         float *codebooks, bool back) {
        uint32_t bits = shape->codebook_bits, mask = (1u << bits) - 1;

        for (size_t u = 0; u < e->n; u++)
                for (uint32_t d = 0; d < e->n_rhs; d++) {
                        size_t at = ((u >> bits) * shape->subvector_dims + d) << bits | (u & mask);

                        if (back)
                                codebooks[at] = (float)e->entries[u * e->n_rhs + d];
                        else
                                e->entries[u * e->n_rhs + d] = (double)codebooks[at];
                }
}

/* The best value of one entry with all others held: entries of its own stage never meet it. */
_simd_clones_ static void solve_entry(struct normal_equations *e, size_t u) {
        const double *counts = e->counts + u * e->n;
        uint32_t n_rhs = e->n_rhs;
        double left[TABLE_SUBVECTOR_DIMS_MAX];

        if (counts[u] == 0)
                return; /* unused: stays as it is */
        memcpy(left, e->sums + u * n_rhs, n_rhs * sizeof(double));
        for (size_t v = 0; v < e->n; v++) {
                const double *other = e->entries + v * n_rhs;

                if (counts[v] == 0 || v == u)
                        continue;
                for (uint32_t d = 0; d < n_rhs; d++)
                        left[d] -= counts[v] * other[d];
        }
        for (uint32_t d = 0; d < n_rhs; d++)
                e->entries[u * n_rhs + d] = left[d] / counts[u];
}

/*
 * Better codebooks of all stages for these codes, by Gauss and Seidel: each step is the exact
 * optimum of its entries, so the error never rises, and the directions in which the system is
 * singular (a constant may move from one stage to another) do no harm.
 */
static int solve_joint(const struct rvq_shape *shape, const struct rvq_samples *samples,
                       const uint8_t *codes, float *codebooks) {
        _cleanup_(equations_deinit) struct normal_equations e = { 0 };
        uint32_t n_sweeps = shape->n_stages > 1 ? SOLVE_SWEEPS : 1;
        int r = equations_init(&e, shape, samples->n_slots);

        if (r < 0)
                return r;
        accumulate(&e, shape, samples, codes);
        move_entries(&e, shape, codebooks, false);
        for (uint32_t i = 0; i < n_sweeps; i++)
                for (size_t u = 0; u < e.n; u++)
                        solve_entry(&e, u);
        move_entries(&e, shape, codebooks, true);
        return 0;
}

/* Entries that no sample chose move to the samples that are coded worst. One stage only. */
static void reseed_unused(const struct rvq_shape *shape, const struct rvq_samples *samples,
                          const uint8_t *codes, float *errors, float *codebook) {
        uint32_t n_entries = 1u << shape->codebook_bits;
        bool used[1u << TABLE_CODEBOOK_BITS_MAX] = { 0 };

        for (size_t i = 0; i < samples->n; i++)
                used[codes[i]] = true;
        for (uint32_t c = 0; c < n_entries; c++) {
                size_t worst = 0;

                if (used[c])
                        continue;
                for (size_t i = 1; i < samples->n; i++)
                        if (errors[i] > errors[worst])
                                worst = i;
                errors[worst] = 0;
                for (uint32_t d = 0; d < samples->n_slots; d++)
                        codebook[(size_t)d * n_entries + c] =
                                samples->values[worst * samples->n_slots + d];
        }
}

int rvq_pass(const struct rvq_shape *shape, const struct rvq_samples *samples, uint32_t width,
             unsigned n_threads, float *codebooks, uint8_t *codes, double *ret_error) {
        _cleanup_(freep) float *errors = malloc(samples->n * sizeof(float));
        double sum = 0;
        int r;

        if (!errors)
                return -ENOMEM;
        r = code_samples(shape, samples, codebooks, width, n_threads, codes, errors);
        if (r < 0)
                return r;
        for (size_t i = 0; i < samples->n; i++)
                sum += errors[i];
        r = solve_joint(shape, samples, codes, codebooks);
        if (r < 0)
                return r;
        if (shape->n_stages == 1)
                reseed_unused(shape, samples, codes, errors, codebooks);
        *ret_error = sum / (double)samples->n;
        return 0;
}

/* ---- Training ---- */

static void tell(const struct rvq_effort *effort, uint32_t n_passes) {
        if (effort->passed && n_passes)
                effort->passed(effort->userdata, n_passes);
}

/*
 * Stochastic relaxation (SR-D of Martinez, Zakhmi, Hoos, Little: LSQ++, ECCV 2018): noise as wide
 * as the stage's entries, cooled to none, shakes the codebooks out of poor optima.
 */
static void perturb(const struct rvq_shape *shape, float *codebooks, double temperature,
                    struct rng *rng) {
        size_t n_entries = (size_t)1 << shape->codebook_bits;

        for (size_t row = 0; row < (size_t)shape->n_stages * shape->subvector_dims; row++) {
                float *entries = codebooks + row * n_entries;
                double sum = 0, squares = 0, deviation;

                for (size_t i = 0; i < n_entries; i++) {
                        sum += (double)entries[i];
                        squares += (double)entries[i] * (double)entries[i];
                }
                deviation = sqrt(
                        MAX(squares / (double)n_entries - pow(sum / (double)n_entries, 2), 0.));
                for (size_t i = 0; i < n_entries; i++)
                        entries[i] += (float)(temperature * deviation) * rng_normal(rng);
        }
}

static int run_passes(const struct rvq_shape *shape, const struct rvq_samples *samples,
                      const struct rvq_effort *effort, uint32_t n_passes, float temperature,
                      uint64_t seed, unsigned n_threads, float *codebooks, uint8_t *codes) {
        struct rng rng = rng_stream(seed, 1);
        double error, last = DBL_MAX;

        for (uint32_t i = 0; i < n_passes; i++) {
                double heat = (double)temperature * sqrt(1 - (i + 1.) / n_passes);
                int r = rvq_pass(shape, samples, effort->width, n_threads, codebooks, codes,
                                 &error);

                if (r < 0)
                        return r;
                tell(effort, 1);
                if (heat > 0) {
                        perturb(shape, codebooks, heat, &rng);
                } else if (error >= last * (1 - GAIN_MIN)) {
                        tell(effort, n_passes - i - 1);
                        break;
                }
                last = error;
        }
        return 0;
}

/* Seeds and refines each stage on what the ones before leave of `residuals`, which it lowers. */
static int train_greedy(const struct rvq_shape *shape, const struct rvq_samples *samples,
                        float *residuals, const struct rvq_effort *effort, uint64_t seed,
                        unsigned n_threads, uint8_t *codes, float *codebooks) {
        struct rvq_shape stage = { 1, shape->codebook_bits, shape->subvector_dims };
        struct rvq_samples left = { residuals, samples->n, samples->n_slots, NULL };

        for (uint32_t l = 0; l < shape->n_stages; l++) {
                float *codebook = codebooks + l * rvq_codebook_floats(&stage);
                float values[TABLE_SUBVECTOR_DIMS_MAX];
                int r = rvq_seed(&stage, &left, rng_mix(seed + l), codebook);

                if (r >= 0)
                        r = run_passes(&stage, &left, effort, effort->lloyd_passes, 0, seed,
                                       n_threads, codebook, codes);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < left.n; i++) {
                        rvq_decode(&stage, codebook, left.n_slots, 1, codes + i, values);
                        for (uint32_t d = 0; d < left.n_slots; d++)
                                residuals[i * left.n_slots + d] -= values[d];
                }
        }
        return 0;
}

int rvq_train(const struct rvq_shape *shape, const struct rvq_samples *samples,
              const struct rvq_effort *effort, uint64_t seed, unsigned n_threads,
              float *ret_codebooks) {
        size_t residual_bytes = samples->n * samples->n_slots * sizeof(float);
        _cleanup_(freep) float *residuals = malloc(residual_bytes);
        _cleanup_(freep) uint8_t *codes = malloc(samples->n * shape->n_stages);
        int r = 0;

        if (!residuals || !codes)
                return -ENOMEM;
        memcpy(residuals, samples->values, residual_bytes);
        if (!effort->warm)
                r = train_greedy(shape, samples, residuals, effort, seed, n_threads, codes,
                                 ret_codebooks);
        if (r < 0)
                return r;
        return run_passes(shape, samples, effort, effort->joint_passes, effort->temperature, seed,
                          n_threads, ret_codebooks, codes);
}

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
#include <string.h>

#include "parallel.h"
#include "rng.h"

#define BLOCK_SAMPLES 4096u

/* k-means++ looks at this many samples: more do not place sixteen centroids better. */
#define SEED_SAMPLES 8192u

/* Passes end when the error falls by less than this share. */
#define GAIN_MIN 1e-3

/* LAPACK: solves A X = B for symmetric positive definite A. */
void dposv_(const char *uplo, const int *n, const int *n_rhs, double *a, const int *lda, double *b,
            const int *ldb, int *info);

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
                coding->errors[i] = rvq_search_encode(coding->search, &coding->scratch[thread],
                                                      coding->samples->values + i * n_slots,
                                                      coding->codes + i * n_stages);
        return 0;
}

static int code_samples(const struct rvq_shape *shape, const struct rvq_samples *samples,
                        const float *codebooks, unsigned n_threads, uint8_t *codes, float *errors) {
        _cleanup_(rvq_search_deinit) struct rvq_search search = { 0 };
        struct coding coding = { &search, samples, NULL, codes, errors };
        int r;

        r = rvq_search_init(&search, shape, codebooks, samples->n_slots, 0);
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

/*
 * Sums for the normal equations of min |R - B D|: `counts` = B'B says how often two entries occur
 * together, `sums` = B'R collects the residuals of the samples that use an entry.
 */
static void accumulate(const struct rvq_shape *shape, const struct rvq_samples *samples,
                       const float *codebooks, const uint8_t *codes, double *counts, double *sums) {
        uint32_t n_stages = shape->n_stages, n_slots = samples->n_slots;
        size_t n = (size_t)n_stages << shape->codebook_bits;
        float residual[TABLE_SUBVECTOR_DIMS_MAX];
        size_t unknowns[TABLE_STAGES_MAX];

        for (size_t i = 0; i < samples->n; i++, codes += n_stages) {
                rvq_decode(shape, codebooks, n_slots, codes, residual);
                for (uint32_t d = 0; d < n_slots; d++)
                        residual[d] = samples->values[i * n_slots + d] - residual[d];
                for (uint32_t a = 0; a < n_stages; a++) {
                        unknowns[a] = ((size_t)a << shape->codebook_bits) + codes[a];
                        for (uint32_t d = 0; d < n_slots; d++)
                                sums[d * n + unknowns[a]] += residual[d];
                        /* Column-major upper triangle: row <= column as stages ascend. */
                        for (uint32_t b = 0; b <= a; b++)
                                counts[unknowns[a] * n + unknowns[b]]++;
                }
        }
}

/*
 * Moves every entry by the least-squares step. A constant may shift between stages at no cost, so
 * the system is singular; the small ridge picks the shortest step and leaves unused entries alone.
 * It pulls towards no change, hence the error cannot rise.
 */
static int solve_joint(const struct rvq_shape *shape, const struct rvq_samples *samples,
                       const uint8_t *codes, float *codebooks) {
        uint32_t n_entries = 1u << shape->codebook_bits, h = shape->subvector_dims;
        int n = (int)(shape->n_stages * n_entries), n_rhs = (int)samples->n_slots, info;
        _cleanup_(freep) double *counts = calloc((size_t)n * (size_t)n, sizeof(double));
        _cleanup_(freep) double *sums = calloc((size_t)n * samples->n_slots, sizeof(double));

        if (!counts || !sums)
                return -ENOMEM;
        accumulate(shape, samples, codebooks, codes, counts, sums);
        for (int i = 0; i < n; i++)
                counts[(size_t)i * (size_t)n + (size_t)i] += 1e-2;
        dposv_("U", &n, &n_rhs, counts, &n, sums, &n, &info);
        if (info != 0)
                return 0; /* keep what there is: it is a valid codebook */
        for (int d = 0; d < n_rhs; d++)
                for (int i = 0; i < n; i++) {
                        size_t stage = (size_t)i / n_entries, entry = (size_t)i % n_entries;

                        codebooks[(stage * h + (size_t)d) * n_entries + entry] +=
                                (float)sums[(size_t)d * (size_t)n + (size_t)i];
                }
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

int rvq_pass(const struct rvq_shape *shape, const struct rvq_samples *samples, unsigned n_threads,
             float *codebooks, uint8_t *codes, double *ret_error) {
        _cleanup_(freep) float *errors = malloc(samples->n * sizeof(float));
        double sum = 0;
        int r;

        if (!errors)
                return -ENOMEM;
        r = code_samples(shape, samples, codebooks, n_threads, codes, errors);
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

static int run_passes(const struct rvq_shape *shape, const struct rvq_samples *samples,
                      const struct rvq_effort *effort, uint32_t n_passes, unsigned n_threads,
                      float *codebooks, uint8_t *codes) {
        double error, last = DBL_MAX;

        for (uint32_t i = 0; i < n_passes; i++) {
                int r = rvq_pass(shape, samples, n_threads, codebooks, codes, &error);

                if (r < 0)
                        return r;
                tell(effort, 1);
                if (error >= last * (1 - GAIN_MIN)) {
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
        struct rvq_samples left = { residuals, samples->n, samples->n_slots };

        for (uint32_t l = 0; l < shape->n_stages; l++) {
                float *codebook = codebooks + l * rvq_codebook_floats(&stage);
                float values[TABLE_SUBVECTOR_DIMS_MAX];
                int r = rvq_seed(&stage, &left, rng_mix(seed + l), codebook);

                if (r >= 0)
                        r = run_passes(&stage, &left, effort, effort->lloyd_passes, n_threads,
                                       codebook, codes);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < left.n; i++) {
                        rvq_decode(&stage, codebook, left.n_slots, codes + i, values);
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
        int r;

        if (!residuals || !codes)
                return -ENOMEM;
        memcpy(residuals, samples->values, residual_bytes);
        r = train_greedy(shape, samples, residuals, effort, seed, n_threads, codes, ret_codebooks);
        if (r < 0)
                return r;
        return run_passes(shape, samples, effort, effort->joint_passes, n_threads, ret_codebooks,
                          codes);
}

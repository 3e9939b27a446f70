/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training of codebooks, and of an adaptor that comes after them or in turn with them, on a sample
 * of rows that the caller holds. One thread, which starts others.
 */
#include <math.h>
#include <string.h>

#include "quantizer-impl.h"

#define ALTERNATE_ROUNDS 2u /* at most */

struct training {
        const struct quantizer_rows *rows;
        struct adaptor_fit *refit;
        struct coder_effort effort; /* of the training at hand */
        struct coder_effort again;  /* of each round of alternation */
        uint64_t seed;
        unsigned n_threads;
        float *targets; /* [n_rows][n_dims]: of the codes, normalized as they are trained */
        float *weights; /* [n_rows] */
        float *left;    /* [n_rows][n_dims]: by the codes; only if there is alternation */
        struct closeness closeness; /* of the rows; the same */
        struct fault *fault;
};

static void training_deinit(struct training *t) {
        free(t->targets);
        free(t->weights);
        free(t->left);
}

static int training_init(struct training *t, const struct quantizer *q) {
        size_t n = t->rows->n_rows, n_values = n * q->coder.header.n_dims;

        t->targets = malloc(n_values * sizeof(float));
        t->weights = malloc(n * sizeof(float));
        if (q->order != ADAPTOR_BEFORE)
                t->left = malloc(n_values * sizeof(float));
        return t->targets && t->weights && (q->order == ADAPTOR_BEFORE || t->left) ? 0 : -ENOMEM;
}

/*
 * Scales are stored as half: a table of very large or very small values is moved to where half is
 * precise. Codebooks keep room for entries of sixteen times the mean.
 */
static float choose_unit(const struct quantizer *q, const float *residuals, size_t n_rows) {
        uint32_t n_dims = q->coder.header.n_dims;
        double sum = 0, rms;

        for (size_t i = 0; i < n_rows; i++) {
                double row = root_mean_square(residuals + i * n_dims, n_dims);
                sum += row * row;
        }
        rms = sqrt(sum / (double)n_rows);
        if (!q->coder.header.row_scale || rms == 0 || (rms > 0x1p-8 && rms < 0x1p8))
                return 1;
        return (float)exp2(MIN(MAX(rint(log2(rms)), -10.), 11.));
}

/*
 * What the adaptor leaves of the rows, with latents for `solved`: the rows themselves, or what
 * codes have left of them. Memory of a block: the adaptor's part is a few rows at a time.
 */
static int set_targets(struct training *t, const struct quantizer *q, const float *solved) {
        uint32_t n_dims = q->coder.header.n_dims;
        size_t n_block = MAX((1u << 20) / n_dims, 1u);
        _cleanup_(freep) float *latents =
                malloc(n_block * MAX(q->coder.header.latent_dims, 1u) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(n_block * n_dims * sizeof(float));

        if (!latents || !outputs)
                return -ENOMEM;
        for (size_t i = 0; i < t->rows->n_rows; i += n_block) {
                size_t n = MIN(n_block, t->rows->n_rows - i), at = i * n_dims;
                int r = quantizer_start(q, solved + at, n, latents, outputs);

                if (r < 0)
                        return r;
                for (size_t d = 0; d < n * n_dims; d++)
                        t->targets[at + d] = t->rows->rows[at + d] - outputs[d];
        }
        return 0;
}

/* With a row scale the error of a normalized row counts by the square of its scale. */
static void normalize_targets(struct training *t, const struct quantizer *q) {
        const struct table_header *h = &q->coder.header;

        for (size_t i = 0; i < t->rows->n_rows; i++) {
                uint32_t tier = t->rows->tiers ? t->rows->tiers[i] : h->n_tiers - 1;
                float *row = t->targets + i * h->n_dims, scale;

                if (tier >= table_code_tiers(h))
                        continue; /* it will not be trained on */
                scale = (h->row_scale ? quantizer_row_scale(q, row) : 1) *
                        quantizer_tier_scale(q, tier);
                quantizer_normalize(q, scale, row, row);
                t->weights[i] = scale * scale;
        }
}

/* Codebooks for t->targets, which do not outlive it. */
static int train_codes(struct training *t, struct quantizer *q) {
        struct coder_samples samples = { t->targets, t->rows->n_rows, t->weights, t->rows->tiers };

        normalize_targets(t, q);
        if (!q->has_columns)
                coder_set_columns(&q->coder, t->targets, t->rows->n_rows);
        q->has_columns = true;
        return coder_train(&q->coder, t->targets, &samples, &t->effort, t->seed, t->n_threads,
                           t->fault);
}

/* Into *next: the adaptor for what the codes have left, then codes for what that leaves. */
static int train_next(struct training *t, struct quantizer *next, struct adaptor_fit *fit) {
        int r = 0;

        if (t->refit) {
                r = adaptor_fit_make(fit, t->left, t->rows->n_rows, t->n_threads);
                next->solver = &fit->solver;
        }
        if (r >= 0)
                r = set_targets(t, next, t->left);
        return r >= 0 ? train_codes(t, next) : r;
}

/* One round of alternation, undone unless the rows come closer: 1 if they do, else 0. */
static int alternate(struct training *t, struct quantizer *q) {
        struct quantizer next = *q;
        struct adaptor_fit fit = { 0 };
        struct closeness closeness;
        int r;

        r = coder_copy(&q->coder, &next.coder);
        if (r < 0)
                return r;
        if (t->refit)
                fit = (struct adaptor_fit){ .shape = t->refit->shape,
                                            .effort = t->refit->effort,
                                            .seed = t->refit->seed };
        r = train_next(t, &next, &fit);
        if (r >= 0)
                r = quantizer_leftovers(&next, t->rows, t->n_threads, t->targets, &closeness,
                                        t->fault);
        if (r >= 0 && closeness.error < t->closeness.error) {
                struct coder coder = q->coder;
                float *left = t->left;

                t->closeness = closeness;
                t->left = t->targets;
                t->targets = left;
                q->coder = next.coder;
                next.coder = coder;
                if (t->refit)
                        adaptor_fit_move(t->refit, &fit);
                r = 1;
        } else if (r == -ERANGE) {
                r = 0; /* nothing that a file could hold */
        }
        coder_deinit(&next.coder);
        adaptor_fit_deinit(&fit);
        return r;
}

/* The adaptor's turn, once there are codes. */
static int train_order(struct training *t, struct quantizer *q) {
        int r = 0;

        if (q->order == ADAPTOR_BEFORE || (q->order == ADAPTOR_AFTER && !t->refit))
                return 0;
        if (q->order == ADAPTOR_AFTER)
                q->solver = NULL;
        r = quantizer_leftovers(q, t->rows, t->n_threads, t->left, &t->closeness, t->fault);
        if (r >= 0 && q->order == ADAPTOR_AFTER) {
                r = adaptor_fit_make(t->refit, t->left, t->rows->n_rows, t->n_threads);
                q->solver = &t->refit->solver;
                return r;
        }
        t->effort = t->again;
        for (uint32_t round = 0; r >= 0 && round < ALTERNATE_ROUNDS; round++) {
                r = alternate(t, q);
                if (r == 0)
                        break;
        }
        return MIN(r, 0);
}

/*
 * Rounds of alternation take their passes from those of the start: an order that trains longer
 * would win for that alone.
 */
static void share_passes(struct training *t) {
        uint32_t n_joint = t->effort.rvq.joint_passes, n_trellis = t->effort.trellis.n_passes;
        uint32_t joint = MAX(n_joint / (3 * ALTERNATE_ROUNDS), 1u);
        uint32_t trellis = MAX(n_trellis / (3 * ALTERNATE_ROUNDS), 1u);

        t->again = t->effort;
        t->again.rvq.warm = t->again.trellis.warm = true;
        t->again.rvq.joint_passes = joint;
        t->again.trellis.n_passes = trellis;
        joint *= ALTERNATE_ROUNDS;
        trellis *= ALTERNATE_ROUNDS;
        t->effort.rvq.joint_passes = n_joint > joint ? n_joint - joint : 1;
        t->effort.trellis.n_passes = n_trellis > trellis ? n_trellis - trellis : 1;
}

int quantizer_train(struct quantizer *q, const struct quantizer_rows *rows,
                    struct adaptor_fit *refit, const struct coder_effort *effort, uint64_t seed,
                    unsigned n_threads, struct fault *ret_fault) {
        _cleanup_(training_deinit) struct training t = {
                .rows = rows,
                .refit = refit,
                .effort = *effort,
                .seed = seed,
                .n_threads = n_threads,
                .fault = ret_fault,
        };
        int r;

        if (q->order == ADAPTOR_ALTERNATE)
                share_passes(&t);
        r = training_init(&t, q);
        if (r >= 0)
                r = set_targets(&t, q, rows->rows);
        if (r < 0)
                return r;
        q->unit = choose_unit(q, t.targets, rows->n_rows);
        r = train_codes(&t, q);
        if (r == -ERANGE && !q->coder.header.row_scale)
                return fault_set(ret_fault, r,
                                 "a centroid does not fit a half-float codebook (65504 at most); "
                                 "use --row-scale on");
        return r >= 0 ? train_order(&t, q) : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What both methods share: shape, column scales, memory. */
#include "coder.h"

#include <math.h>
#include <string.h>

#include "lib/codec/half.h"

/* So that a table of any width is packed within 2 GiB. */
#define SEARCH_BYTES_MAX (UINT64_C(768) << 20)

static int check_search(const struct coder *c, struct fault *ret_fault) {
        uint64_t bytes =
                rvq_search_bytes(&c->rvq, c->header.subvector_dims) * c->layout.n_col_groups;

        if (bytes <= SEARCH_BYTES_MAX)
                return 0;
        return fault_set(ret_fault, -EOVERFLOW,
                         "%" PRIu32 " column groups need %" PRIu64
                         " MiB to search, more than %" PRIu64
                         "; choose wider groups or smaller codebooks",
                         c->layout.n_col_groups, bytes >> 20, SEARCH_BYTES_MAX >> 20);
}

/* Codes that share bits, in the rows of any tier. */
static bool is_trellis(const struct table_header *h) {
        for (uint32_t t = 0; t < h->n_tiers; t++)
                if (h->tier_stages[t] && h->tier_bits[t] < h->window_bits)
                        return true;
        return false;
}

int coder_init(struct coder *coder, const struct table_header *h, uint32_t width,
               struct fault *ret_fault) {
        struct coder c = {
                .header = *h,
                .trellis = is_trellis(h),
                .rvq = { h->n_stages, h->codebook_bits, h->subvector_dims },
                .path = { h->window_bits, h->subvector_dims, h->n_dims, h->group_cols },
                .width = width,
        };
        size_t n;
        int r;

        r = table_layout_compute(h, &c.layout, ret_fault);
        if (r >= 0 && !c.trellis)
                r = check_search(&c, ret_fault);
        if (r < 0)
                return r;
        n = c.layout.n_col_groups * c.layout.group_bytes / sizeof(uint16_t);
        c.codebooks = calloc(n, sizeof(uint16_t));
        c.centroids = calloc(n, sizeof(float));
        c.searches = calloc(2 * (size_t)c.layout.n_col_groups, sizeof(*c.searches));
        c.col_scales = calloc(h->n_dims, sizeof(uint16_t));
        c.cols = malloc(h->n_dims * sizeof(float));
        if (h->col_scale)
                c.weights = malloc(h->n_dims * sizeof(float));
        if (!c.codebooks || !c.centroids || !c.searches || !c.col_scales || !c.cols ||
            (h->col_scale && !c.weights)) {
                coder_deinit(&c);
                return -ENOMEM;
        }
        for (uint32_t i = 0; i < h->n_dims; i++)
                c.cols[i] = 1;
        *coder = c;
        return 0;
}

static void free_searches(struct coder *c) {
        for (size_t i = 0; c->searches && i < 2 * (size_t)c->layout.n_col_groups; i++)
                rvq_search_deinit(&c->searches[i]);
}

void coder_deinit(struct coder *c) {
        free_searches(c);
        free(c->searches);
        free(c->codebooks);
        free(c->centroids);
        free(c->col_scales);
        free(c->cols);
        free(c->weights);
        *c = (struct coder){ 0 };
}

/* ---- Column scales ---- */

/* A column that is always zero decodes to zero whatever its scale. */
void coder_set_columns(struct coder *c, const float *values, size_t n_rows) {
        uint32_t n_dims = c->header.n_dims;
        double mean = 0;

        if (!c->header.col_scale)
                return;
        for (uint32_t i = 0; i < n_dims; i++) {
                double sum = 0;

                for (size_t r = 0; r < n_rows; r++)
                        sum += (double)values[r * n_dims + i] * (double)values[r * n_dims + i];
                c->col_scales[i] = float_to_half((float)MIN(sqrt(sum / (double)n_rows), 65504.));
                c->cols[i] = half_to_float(c->col_scales[i]);
                mean += (double)c->cols[i] * (double)c->cols[i] / n_dims;
        }
        for (uint32_t i = 0; i < n_dims; i++)
                c->weights[i] =
                        mean > 0 ? (float)((double)c->cols[i] * (double)c->cols[i] / mean) : 1;
}

static void divide_columns(const struct coder *c, const float *values, float *ret_values) {
        for (uint32_t i = 0; i < c->header.n_dims; i++)
                ret_values[i] = c->cols[i] > 0 ? values[i] / c->cols[i] : 0;
}

/* ---- Training ---- */

int coder_copy(const struct coder *coder, struct coder *ret_coder) {
        size_t n = coder->layout.n_col_groups * coder->layout.group_bytes / sizeof(uint16_t);
        size_t n_dims = coder->header.n_dims;
        struct coder c;
        int r;

        r = coder_init(&c, &coder->header, coder->width, NULL);
        if (r < 0)
                return r;
        memcpy(c.centroids, coder->centroids, n * sizeof(float));
        memcpy(c.col_scales, coder->col_scales, n_dims * sizeof(uint16_t));
        memcpy(c.cols, coder->cols, n_dims * sizeof(float));
        if (c.weights)
                memcpy(c.weights, coder->weights, n_dims * sizeof(float));
        *ret_coder = c;
        return 0;
}

int coder_round(float value, uint16_t *ret_half, float *ret_value, struct fault *ret_fault) {
        uint16_t half = float_to_half(value);

        if ((half & 0x7c00) == 0x7c00)
                return fault_set(ret_fault, -ERANGE,
                                 "a centroid of %g does not fit a half-float codebook (65504 at "
                                 "most)",
                                 (double)value);
        *ret_half = half;
        *ret_value = half_to_float(half);
        return 0;
}

int coder_train(struct coder *c, float *values, const struct coder_samples *samples,
                const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                struct fault *ret_fault) {
        for (size_t i = 0; c->header.col_scale && i < samples->n_rows; i++)
                divide_columns(c, values + i * c->header.n_dims, values + i * c->header.n_dims);
        if (c->trellis)
                return coder_trellis_train(c, samples, effort, seed, n_threads, ret_fault);
        free_searches(c);
        return coder_rvq_train(c, samples, effort, seed, n_threads, ret_fault);
}

uint64_t coder_n_passes(const struct coder *c, const struct coder_effort *effort) {
        if (c->trellis)
                return effort->trellis.n_passes;
        return (uint64_t)c->layout.n_col_groups *
               (c->header.n_stages * effort->rvq.lloyd_passes + effort->rvq.joint_passes);
}

/* ---- Encoding ---- */

static uint32_t code_bits_min(const struct table_header *h) {
        uint32_t bits = h->codebook_bits;

        for (uint32_t t = 0; t < h->n_tiers; t++)
                if (h->tier_stages[t])
                        bits = MIN(bits, h->tier_bits[t]);
        return bits;
}

int coder_scratch_init(struct coder_scratch *scratch, const struct coder *c) {
        struct coder_scratch s = {
                .values = malloc(c->header.n_dims * sizeof(float)),
                .codes = malloc((size_t)c->header.n_stages * c->layout.n_subvectors),
                .states = malloc(c->layout.n_subvectors * sizeof(uint16_t)),
        };
        int r = s.values && s.codes && s.states ? 0 : -ENOMEM;

        if (r >= 0)
                r = c->trellis
                            ? trellis_scratch_init(&s.trellis, &c->path, code_bits_min(&c->header))
                            : rvq_scratch_init(&s.rvq, &c->searches[0]);
        if (r < 0) {
                coder_scratch_deinit(&s);
                return r;
        }
        *scratch = s;
        return 0;
}

void coder_scratch_deinit(struct coder_scratch *s) {
        rvq_scratch_deinit(&s->rvq);
        trellis_scratch_deinit(&s->trellis);
        free(s->values);
        free(s->codes);
        free(s->states);
        *s = (struct coder_scratch){ 0 };
}

void coder_encode(const struct coder *c, struct coder_scratch *scratch, const float *values,
                  uint32_t tier, uint8_t *ret_bytes, float *ret_decoded) {
        divide_columns(c, values, scratch->values);
        if (c->header.tier_stages[tier] == 0)
                memset(ret_decoded, 0, c->header.n_dims * sizeof(float));
        else if (c->trellis)
                coder_trellis_encode(c, scratch, tier, ret_bytes, ret_decoded);
        else
                coder_rvq_encode(c, scratch, tier, ret_bytes, ret_decoded);
        for (uint32_t i = 0; i < c->header.n_dims; i++)
                ret_decoded[i] *= c->cols[i];
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder of the carvq codec. Order: adaptor first, codes for what it leaves. The paper corrects
 * the RVQ's residual instead; but that is close to white noise, of which a few latents catch
 * nothing, while a table's own leading directions hold much of its energy.
 */
#include "quantizer.h"

#include <math.h>
#include <string.h>

#include "lib/codec/half.h"

int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, uint32_t width, struct fault *ret_fault) {
        struct quantizer q = { .solver = solver, .unit = 1 };
        int r = coder_init(&q.coder, header, width, ret_fault);

        if (r >= 0)
                *quantizer = q;
        return r;
}

void quantizer_deinit(struct quantizer *q) {
        coder_deinit(&q->coder);
        *q = (struct quantizer){ 0 };
}

/* ---- Rows as the coder sees them ---- */

static double root_mean_square(const float *values, uint32_t n) {
        double sum = 0;

        for (uint32_t i = 0; i < n; i++)
                sum += (double)values[i] * (double)values[i];
        return sqrt(sum / n);
}

static float row_scale(const struct quantizer *q, const float *residual) {
        double rms = root_mean_square(residual, q->coder.header.n_dims) / (double)q->unit;

        return half_to_float(float_to_half((float)rms));
}

/* Of all rows of a tier; the product with a row's own scale is exact. */
static float tier_scale(const struct quantizer *q, uint32_t tier) {
        return half_to_float(q->coder.header.tier_scale[tier]);
}

/* ret_values = residual / scale in units of the trained centroids. A zero scale decodes to zero. */
static void normalize(const struct quantizer *q, float scale, const float *residual,
                      float *ret_values) {
        for (uint32_t i = 0; i < q->coder.header.n_dims; i++)
                ret_values[i] = scale > 0 ? residual[i] / scale : 0;
}

/* Latents and residuals of a block of rows; without an adaptor the residual is the row. */
static int apply_adaptor(const struct quantizer *q, const float *rows, size_t n_rows,
                         float *ret_latents, float *ret_outputs, float *ret_residuals) {
        size_t n = n_rows * q->coder.header.n_dims;

        if (!q->solver) {
                memset(ret_outputs, 0, n * sizeof(float));
                memcpy(ret_residuals, rows, n * sizeof(float));
                return 0;
        }
        int r = adaptor_solve(q->solver, rows, n_rows, ret_latents, ret_outputs);
        for (size_t i = 0; r >= 0 && i < n; i++)
                ret_residuals[i] = rows[i] - ret_outputs[i];
        return r;
}

/* ---- Training ---- */

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
 * Memory of a block: the adaptor's part is a few rows at a time. With a row scale the error of a
 * normalized row counts by the square of its scale.
 */
static int normalize_rows(struct quantizer *q, const float *rows, size_t n_rows,
                          const uint8_t *tiers, float *values, float *weights) {
        uint32_t n_dims = q->coder.header.n_dims;
        size_t n_block = MAX((1u << 20) / n_dims, 1u);
        _cleanup_(freep) float *latents =
                malloc(n_block * MAX(q->coder.header.latent_dims, 1u) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(n_block * n_dims * sizeof(float));

        if (!latents || !outputs)
                return -ENOMEM;
        for (size_t i = 0; i < n_rows; i += n_block) {
                int r = apply_adaptor(q, rows + i * n_dims, MIN(n_block, n_rows - i), latents,
                                      outputs, values + i * n_dims);
                if (r < 0)
                        return r;
        }
        q->unit = choose_unit(q, values, n_rows);
        for (size_t i = 0; i < n_rows; i++) {
                uint32_t tier = tiers ? tiers[i] : q->coder.header.n_tiers - 1;
                float *row = values + i * n_dims, scale = 1;

                if (tier >= table_code_tiers(&q->coder.header))
                        continue; /* it will not be trained on */
                if (q->coder.header.row_scale)
                        scale = row_scale(q, row);
                scale *= tier_scale(q, tier);
                normalize(q, scale, row, row);
                weights[i] *= scale * scale;
        }
        return 0;
}

int quantizer_train(struct quantizer *q, const float *rows, size_t n_rows, const uint8_t *tiers,
                    const float *weights, const struct coder_effort *effort, uint64_t seed,
                    unsigned n_threads, struct fault *ret_fault) {
        _cleanup_(freep) float *values = malloc(n_rows * q->coder.header.n_dims * sizeof(float));
        _cleanup_(freep) float *row_weights = malloc(n_rows * sizeof(float));
        struct coder_samples samples = { values, n_rows, row_weights, tiers };
        int r;

        if (!values || !row_weights)
                return -ENOMEM;
        for (size_t i = 0; i < n_rows; i++)
                row_weights[i] = weights ? weights[i] : 1;
        r = normalize_rows(q, rows, n_rows, tiers, values, row_weights);
        if (r < 0)
                return r;
        if (!q->has_columns)
                coder_set_columns(&q->coder, values, n_rows);
        q->has_columns = true;
        r = coder_train(&q->coder, values, &samples, effort, seed, n_threads, ret_fault);
        if (r == -ERANGE && !q->coder.header.row_scale)
                return fault_set(ret_fault, r,
                                 "a centroid does not fit a half-float codebook (65504 at most); "
                                 "use --row-scale on");
        return r;
}

/* ---- Encoding ---- */

struct row_encoder {
        struct coder_scratch scratch;
        float *values;  /* normalized residual */
        float *decoded; /* without scale and adaptor */
};

static void row_encoder_deinit(struct row_encoder *e) {
        coder_scratch_deinit(&e->scratch);
        free(e->values);
        free(e->decoded);
}

static int row_encoder_init(struct row_encoder *e, const struct quantizer *q) {
        e->values = malloc(q->coder.header.n_dims * sizeof(float));
        e->decoded = malloc(q->coder.header.n_dims * sizeof(float));
        if (!e->values || !e->decoded)
                return -ENOMEM;
        return coder_scratch_init(&e->scratch, &q->coder);
}

/* The scale that is best for the codes at hand, if it still is after rounding to half. `unit` is
 * the tier's. */
static float refine_scale(const float *residual, const float *decoded, uint32_t n, float unit,
                          float scale) {
        double product = 0, energy = 0;
        float better;

        for (uint32_t i = 0; i < n; i++) {
                product += (double)residual[i] * (double)decoded[i];
                energy += (double)decoded[i] * (double)decoded[i];
        }
        product *= (double)unit;
        energy *= (double)unit * (double)unit;
        if (!(product > 0) || !(energy > 0))
                return scale;
        better = half_to_float(float_to_half((float)(product / energy)));
        /* The error is a parabola in the scale: nearer to its lowest point is better. */
        return isfinite(better) && fabs((double)better - product / energy) <
                                           fabs((double)scale - product / energy)
                       ? better
                       : scale;
}

/* Integers of the row itself: neither adaptor nor scales have a part in it. */
static int encode_int8_row(const struct quantizer *q, const float *row, uint8_t *ret_record,
                           float *ret_decoded) {
        uint32_t n_dims = q->coder.header.n_dims;
        float largest = 0, scale;
        uint16_t half;

        for (uint32_t i = 0; i < n_dims; i++)
                largest = MAX(largest, fabsf(row[i]));
        half = float_to_half(largest / 127);
        if (half_to_float(half) * 127 < largest)
                half++; /* up, so that nothing is cut off */
        scale = half_to_float(half);
        if (!isfinite(scale))
                return -ERANGE;
        memcpy(ret_record, &half, sizeof(half));
        for (uint32_t i = 0; i < n_dims; i++) {
                float q8 = scale > 0 ? rintf(row[i] / scale) : 0;

                ret_record[sizeof(half) + i] = (uint8_t)(int8_t)MIN(MAX(q8, -127.f), 127.f);
                ret_decoded[i] = scale * (float)(int8_t)ret_record[sizeof(half) + i];
        }
        return 0;
}

static void put_half(uint8_t **at, float value) {
        uint16_t half = float_to_half(value);

        memcpy(*at, &half, sizeof(half));
        *at += sizeof(half);
}

/* Latents come rounded: here they only change form. */
static void put_latent(const struct quantizer *q, uint8_t **at, float value) {
        if (q->coder.header.latent_bits == 16)
                put_half(at, value);
        else
                *(*at)++ = (uint8_t)(int8_t)value;
}

static int encode_row(const struct quantizer *q, struct row_encoder *e, const float *residual,
                      const float *latent, const float *output, uint32_t tier, uint8_t *ret_record,
                      float *ret_decoded) {
        const struct table_header *h = &q->coder.header;
        uint8_t *codes = ret_record + q->coder.layout.codes_offset;
        float scale = 1, of_tier = tier_scale(q, tier);

        if (h->row_scale) {
                scale = row_scale(q, residual);
                if (!isfinite(scale))
                        return -ERANGE;
        }
        normalize(q, scale * of_tier, residual, e->values);
        coder_encode(&q->coder, &e->scratch, e->values, tier, codes, e->decoded);
        if (h->row_scale) {
                scale = refine_scale(residual, e->decoded, h->n_dims, of_tier, scale);
                put_half(&ret_record, scale);
        }
        scale *= of_tier;
        for (uint32_t i = 0; i < h->latent_dims; i++)
                put_latent(q, &ret_record, latent[i]);
        for (uint32_t i = 0; i < h->n_dims; i++)
                ret_decoded[i] = e->decoded[i] * scale + output[i];
        return 0;
}

int quantizer_encode(const struct quantizer *q, const struct quantizer_rows *rows,
                     uint8_t *ret_records, size_t *ret_n_bytes, struct closeness *closeness,
                     struct fault *ret_fault) {
        const struct table_header *h = &q->coder.header;
        size_t n_dims = h->n_dims, m = h->latent_dims, n_bytes = 0;
        _cleanup_(freep) float *latents = malloc(rows->n_rows * MAX(m, 1u) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(rows->n_rows * n_dims * sizeof(float));
        _cleanup_(freep) float *residuals = malloc(rows->n_rows * n_dims * sizeof(float));
        _cleanup_(freep) float *decoded = malloc(n_dims * sizeof(float));
        _cleanup_(row_encoder_deinit) struct row_encoder encoder = { 0 };
        int r;

        if (!latents || !outputs || !residuals || !decoded)
                return -ENOMEM;
        r = row_encoder_init(&encoder, q);
        if (r >= 0)
                r = apply_adaptor(q, rows->rows, rows->n_rows, latents, outputs, residuals);
        if (r < 0)
                return r;
        for (size_t i = 0; i < rows->n_rows; i++) {
                uint32_t tier = rows->tiers ? rows->tiers[i] : h->n_tiers - 1;

                if (tier < table_code_tiers(h))
                        r = encode_row(q, &encoder, residuals + i * n_dims, latents + i * m,
                                       outputs + i * n_dims, tier, ret_records + n_bytes, decoded);
                else
                        r = encode_int8_row(q, rows->rows + i * n_dims, ret_records + n_bytes,
                                            decoded);
                if (r < 0)
                        return fault_set(ret_fault, r,
                                         "row %" PRIu64 ": its root mean square does not fit a "
                                         "half-float scale; use --codec f32 or bf16",
                                         rows->row_first + i);
                closeness_add_row(closeness, rows->rows + i * n_dims, decoded, (uint32_t)n_dims);
                n_bytes += q->coder.layout.tier_bytes[tier];
        }
        *ret_n_bytes = n_bytes;
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder of the carvq codec. Order: adaptor first, RVQ on what it leaves. The paper corrects the
 * RVQ's residual instead; but that is close to white noise, of which a few latents catch nothing,
 * while a table's own leading directions hold much of its energy.
 */
#include "quantizer.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "lib/codec/half.h"

/* So that a table of any width is packed within 2 GiB. */
#define SEARCH_BYTES_MAX (UINT64_C(768) << 20)

/* ---- Shape ---- */

/* Slots of sub-vector j: its dimensions below n_dims. */
static uint32_t n_slots(const struct quantizer *q, uint32_t j) {
        if (!table_small_codebooks(&q->header))
                return MIN(q->header.subvector_dims,
                           q->header.n_dims - j * q->header.subvector_dims);
        return (uint32_t)div_round_up(q->header.n_dims - j, q->layout.n_subvectors);
}

int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, struct fault *ret_fault) {
        struct quantizer q = {
                .header = *header,
                .shape = { header->n_stages, header->codebook_bits, header->subvector_dims },
                .solver = solver,
                .unit = 1,
        };
        uint64_t search_bytes;
        size_t n_floats;
        int r;

        r = table_layout_compute(header, &q.layout, ret_fault);
        if (r < 0)
                return r;
        search_bytes = rvq_search_bytes(&q.shape, header->subvector_dims) * q.layout.n_col_groups;
        if (search_bytes > SEARCH_BYTES_MAX)
                return fault_set(ret_fault, -EOVERFLOW,
                                 "%" PRIu32 " column groups need %" PRIu64
                                 " MiB to search, more than %" PRIu64
                                 "; choose wider groups or smaller codebooks",
                                 q.layout.n_col_groups, search_bytes >> 20, SEARCH_BYTES_MAX >> 20);
        n_floats = q.layout.n_col_groups * rvq_codebook_floats(&q.shape);
        q.codebooks = calloc(n_floats, sizeof(uint16_t));
        q.centroids = calloc(n_floats, sizeof(float));
        q.searches = calloc(2 * (size_t)q.layout.n_col_groups, sizeof(*q.searches));
        if (!q.codebooks || !q.centroids || !q.searches) {
                quantizer_deinit(&q);
                return -ENOMEM;
        }
        *quantizer = q;
        return 0;
}

static void free_searches(struct quantizer *q) {
        for (size_t i = 0; q->searches && i < 2 * (size_t)q->layout.n_col_groups; i++)
                rvq_search_deinit(&q->searches[i]);
}

void quantizer_deinit(struct quantizer *q) {
        free_searches(q);
        free(q->searches);
        free(q->codebooks);
        free(q->centroids);
        *q = (struct quantizer){ 0 };
}

/* ---- Rows as the RVQ sees them ---- */

static double root_mean_square(const float *values, uint32_t n) {
        double sum = 0;

        for (uint32_t i = 0; i < n; i++)
                sum += (double)values[i] * (double)values[i];
        return sqrt(sum / n);
}

static float row_scale(const struct quantizer *q, const float *residual) {
        double rms = root_mean_square(residual, q->header.n_dims) / (double)q->unit;

        return half_to_float(float_to_half((float)rms));
}

/* ret_values = residual / scale in units of the trained centroids. A zero scale decodes to zero. */
static void normalize(const struct quantizer *q, float scale, const float *residual,
                      float *ret_values) {
        float divisor = q->header.row_scale ? scale * q->unit : q->unit;

        for (uint32_t i = 0; i < q->header.n_dims; i++)
                ret_values[i] = divisor > 0 ? residual[i] / divisor : 0;
}

/* Latents and residuals of a block of rows; without an adaptor the residual is the row. */
static int apply_adaptor(const struct quantizer *q, const float *rows, size_t n_rows,
                         float *ret_latents, float *ret_outputs, float *ret_residuals) {
        size_t n = n_rows * q->header.n_dims;

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
        double sum = 0, rms;

        for (size_t i = 0; i < n_rows; i++) {
                double row = root_mean_square(residuals + i * q->header.n_dims, q->header.n_dims);
                sum += row * row;
        }
        rms = sqrt(sum / (double)n_rows);
        if (!q->header.row_scale || rms == 0 || (rms > 0x1p-8 && rms < 0x1p8))
                return 1;
        return (float)exp2(MIN(MAX(rint(log2(rms)), -10.), 11.));
}

/* Of a group's last slot, where there is one: what stands in for it in sub-vectors that lack it. */
static float mean_of_slot(const struct quantizer *q, const float *values, size_t n_rows,
                          uint32_t slot, uint32_t first) {
        size_t at = (size_t)slot * q->layout.n_subvectors + first, n = q->header.n_dims - at;
        double sum = 0;

        for (size_t i = 0; i < n_rows; i++)
                for (size_t c = 0; c < n; c++)
                        sum += values[i * q->header.n_dims + at + c];
        return (float)(sum / ((double)n_rows * (double)n));
}

/* Sub-vectors of columns [first, end) spread evenly over the rows, with their slots in order. */
static int gather(const struct quantizer *q, const float *values, size_t n_rows, uint32_t first,
                  uint32_t end, size_t n_max, struct rvq_samples *ret_samples) {
        uint32_t slots = n_slots(q, first);
        uint64_t n_all = (uint64_t)n_rows * (end - first), n = MIN(n_all, n_max);
        float *samples = malloc(n * slots * sizeof(float)), stand_in = 0;

        if (!samples)
                return -ENOMEM;
        if (n_slots(q, end - 1) < slots)
                stand_in = mean_of_slot(q, values, n_rows, slots - 1, first);
        for (uint64_t i = 0; i < n; i++) {
                uint64_t at = (uint64_t)((double)i * ((double)n_all / (double)n));
                const float *row = values + at / (end - first) * q->header.n_dims;
                uint32_t j = first + (uint32_t)(at % (end - first));

                for (uint32_t d = 0; d < slots; d++)
                        samples[i * slots + d] =
                                d < n_slots(q, j)
                                        ? row[table_slot_dim(&q->header, &q->layout, j, d)]
                                        : stand_in;
        }
        *ret_samples = (struct rvq_samples){ samples, n, slots };
        return 0;
}

/* Where the file has entry i of [L][h][2^k]. */
static size_t stored_at(const struct quantizer *q, size_t i) {
        size_t n = (size_t)1 << q->header.codebook_bits, h = q->header.subvector_dims;

        return table_small_codebooks(&q->header) ? i : (i / (n * h) * n + i % n) * h + i / n % h;
}

static int round_codebooks(struct quantizer *q, size_t offset, const float *trained,
                           struct fault *ret_fault) {
        size_t n = rvq_codebook_floats(&q->shape);

        for (size_t i = 0; i < n; i++) {
                uint16_t half = float_to_half(trained[i] * q->unit);

                if ((half & 0x7c00) == 0x7c00)
                        return fault_set(ret_fault, -ERANGE,
                                         "a centroid of %g does not fit a half-float codebook "
                                         "(65504 at most)%s",
                                         (double)trained[i] * (double)q->unit,
                                         q->header.row_scale ? "; use --codec f32 or bf16"
                                                             : "; use --row-scale on");
                q->codebooks[offset + stored_at(q, i)] = half;
                q->centroids[offset + i] = half_to_float(half);
        }
        return 0;
}

/* The search runs in the rows' units, on exactly the values that a reader will see. */
static int init_searches(struct quantizer *q, uint32_t group, uint32_t slots, uint32_t fewest) {
        size_t n = rvq_codebook_floats(&q->shape);
        _cleanup_(freep) float *scaled = malloc(n * sizeof(float));
        int r = scaled ? 0 : -ENOMEM;

        for (size_t i = 0; r >= 0 && i < n; i++)
                scaled[i] = q->centroids[group * n + i] / q->unit;
        for (uint32_t missing = 0; r >= 0 && missing <= (fewest < slots); missing++)
                r = rvq_search_init(&q->searches[2 * group + missing], &q->shape, scaled,
                                    missing ? fewest : slots, 0);
        return r;
}

static int train_group(struct quantizer *q, uint32_t group, const float *values, size_t n_rows,
                       const struct rvq_effort *effort, size_t n_max, uint64_t seed,
                       unsigned n_threads, struct fault *ret_fault) {
        uint32_t first = group * q->header.group_cols, slots = n_slots(q, first);
        uint32_t end = MIN(first + q->header.group_cols, q->layout.n_subvectors), whole = end;
        size_t n = rvq_codebook_floats(&q->shape);
        _cleanup_(freep) float *trained = malloc(n * sizeof(float));
        struct rvq_samples samples;
        uint32_t fewest = n_slots(q, end - 1);
        int r;

        /* The last sub-vectors may lack a slot. They are coded with these codebooks all the same,
         * but trained on only where there are too few whole ones to learn from. */
        while (n_slots(q, whole - 1) < slots)
                whole--;
        if (2 * (whole - first) > end - first || !table_small_codebooks(&q->header))
                end = whole;
        r = trained ? gather(q, values, n_rows, first, end, n_max, &samples) : -ENOMEM;
        if (r < 0)
                return r;
        r = rvq_train(&q->shape, &samples, effort, seed + group, n_threads, trained);
        free((float *)samples.values);
        if (r >= 0)
                r = round_codebooks(q, group * n, trained, ret_fault);
        if (r >= 0)
                r = init_searches(q, group, slots, fewest);
        return r;
}

/* Memory of a block: the adaptor's part is a few rows at a time. */
static int normalize_rows(struct quantizer *q, const float *rows, size_t n_rows, float *values) {
        uint32_t n_dims = q->header.n_dims;
        size_t n_block = MAX((1u << 20) / n_dims, 1u);
        _cleanup_(freep) float *latents =
                malloc(n_block * MAX(q->header.latent_dims, 1u) * sizeof(float));
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
                float *row = values + i * n_dims;

                normalize(q, q->header.row_scale ? row_scale(q, row) : 1, row, row);
        }
        return 0;
}

int quantizer_train(struct quantizer *q, const float *rows, size_t n_rows,
                    const struct rvq_effort *effort, size_t n_subvectors, uint64_t seed,
                    unsigned n_threads, struct fault *ret_fault) {
        size_t n_min = (size_t)64 << q->header.codebook_bits;
        size_t n_max = MAX(n_subvectors / q->layout.n_col_groups, n_min);
        _cleanup_(freep) float *values = malloc(n_rows * q->header.n_dims * sizeof(float));
        int r;

        if (!values)
                return -ENOMEM;
        free_searches(q);
        r = normalize_rows(q, rows, n_rows, values);
        for (uint32_t group = 0; r >= 0 && group < q->layout.n_col_groups; group++)
                r = train_group(q, group, values, n_rows, effort, n_max, seed, n_threads,
                                ret_fault);
        return r;
}

/* ---- Encoding ---- */

struct row_encoder {
        struct rvq_scratch scratch;
        float *values;  /* normalized residual */
        float *decoded; /* without scale and adaptor */
        uint8_t *codes; /* [L][J] */
};

static void row_encoder_deinit(struct row_encoder *e) {
        rvq_scratch_deinit(&e->scratch);
        free(e->values);
        free(e->decoded);
        free(e->codes);
}

static int row_encoder_init(struct row_encoder *e, const struct quantizer *q) {
        e->values = malloc(q->header.n_dims * sizeof(float));
        e->decoded = malloc(q->header.n_dims * sizeof(float));
        e->codes = malloc((size_t)q->header.n_stages * q->layout.n_subvectors);
        if (!e->values || !e->decoded || !e->codes)
                return -ENOMEM;
        return rvq_scratch_init(&e->scratch, &q->searches[0]);
}

/* Codes of one row, and what they decode to before scale and adaptor. */
static void code_row(const struct quantizer *q, struct row_encoder *e) {
        uint32_t n_subvectors = q->layout.n_subvectors;
        size_t n = rvq_codebook_floats(&q->shape);

        for (uint32_t j = 0; j < n_subvectors; j++) {
                uint32_t group = j / q->header.group_cols, slots = n_slots(q, j);
                bool missing = slots < n_slots(q, group * q->header.group_cols);
                float values[TABLE_SUBVECTOR_DIMS_MAX];
                uint8_t codes[TABLE_STAGES_MAX];

                for (uint32_t d = 0; d < slots; d++)
                        values[d] = e->values[table_slot_dim(&q->header, &q->layout, j, d)];
                rvq_search_encode(&q->searches[2 * group + missing], &e->scratch, values, codes);
                rvq_decode(&q->shape, q->centroids + group * n, slots, codes, values);
                for (uint32_t d = 0; d < slots; d++)
                        e->decoded[table_slot_dim(&q->header, &q->layout, j, d)] = values[d];
                for (uint32_t l = 0; l < q->header.n_stages; l++)
                        e->codes[(size_t)l * n_subvectors + j] = codes[l];
        }
}

/* The scale that is best for the codes at hand, if it still is after rounding to half. */
static float refine_scale(const float *residual, const float *decoded, uint32_t n, float scale) {
        double product = 0, energy = 0;
        float better;

        for (uint32_t i = 0; i < n; i++) {
                product += (double)residual[i] * (double)decoded[i];
                energy += (double)decoded[i] * (double)decoded[i];
        }
        if (!(product > 0) || !(energy > 0))
                return scale;
        better = half_to_float(float_to_half((float)(product / energy)));
        /* The error is a parabola in the scale: nearer to its lowest point is better. */
        return isfinite(better) && fabs((double)better - product / energy) <
                                           fabs((double)scale - product / energy)
                       ? better
                       : scale;
}

static void put_half(uint8_t **at, float value) {
        uint16_t half = float_to_half(value);

        memcpy(*at, &half, sizeof(half));
        *at += sizeof(half);
}

static int encode_row(const struct quantizer *q, struct row_encoder *e, const float *residual,
                      const float *latent, const float *output, uint8_t *ret_record,
                      float *ret_decoded) {
        uint32_t n_dims = q->header.n_dims;
        float scale = 1;

        if (q->header.row_scale) {
                scale = row_scale(q, residual);
                if (!isfinite(scale))
                        return -ERANGE;
        }
        normalize(q, scale, residual, e->values);
        code_row(q, e);
        if (q->header.row_scale) {
                scale = refine_scale(residual, e->decoded, n_dims, scale);
                put_half(&ret_record, scale);
        }
        for (uint32_t i = 0; i < q->header.latent_dims; i++)
                put_half(&ret_record, latent[i]);
        for (uint32_t l = 0; l < q->header.n_stages; l++)
                codes_pack(e->codes + (size_t)l * q->layout.n_subvectors, q->layout.n_subvectors,
                           q->header.codebook_bits, ret_record + l * q->layout.stage_bytes[0]);
        for (uint32_t i = 0; i < n_dims; i++)
                ret_decoded[i] = e->decoded[i] * scale + output[i];
        return 0;
}

int quantizer_encode(const struct quantizer *q, const float *rows, uint64_t row_first,
                     size_t n_rows, uint8_t *ret_records, struct closeness *closeness,
                     struct fault *ret_fault) {
        size_t n_dims = q->header.n_dims, m = q->header.latent_dims;
        _cleanup_(freep) float *latents = malloc(n_rows * MAX(m, 1u) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(n_rows * n_dims * sizeof(float));
        _cleanup_(freep) float *residuals = malloc(n_rows * n_dims * sizeof(float));
        _cleanup_(freep) float *decoded = malloc(n_dims * sizeof(float));
        _cleanup_(row_encoder_deinit) struct row_encoder encoder = { 0 };
        int r;

        if (!latents || !outputs || !residuals || !decoded)
                return -ENOMEM;
        r = row_encoder_init(&encoder, q);
        if (r >= 0)
                r = apply_adaptor(q, rows, n_rows, latents, outputs, residuals);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_rows; i++) {
                r = encode_row(q, &encoder, residuals + i * n_dims, latents + i * m,
                               outputs + i * n_dims, ret_records + i * q->layout.record_bytes,
                               decoded);
                if (r < 0)
                        return fault_set(ret_fault, r,
                                         "row %" PRIu64 ": its root mean square does not fit a "
                                         "half-float scale; use --codec f32 or bf16",
                                         row_first + i);
                closeness_add_row(closeness, rows + i * n_dims, decoded, (uint32_t)n_dims);
        }
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder of the carvq codec. Three orders (quantizer.h). The paper's is AFTER; but what codes
 * leave is close to white noise, of which a few latents catch little, while a table's own leading
 * directions hold much of its energy. Solved again, latents take all of the error that the codes
 * have made along their components: alternation gains about the share that these are of all
 * dimensions, 0.5 % for 3 of 640.
 */
#include "quantizer.h"

#include <math.h>
#include <string.h>

#include "lib/codec/half.h"
#include "parallel.h"
#include "quantizer-impl.h"

#define BLOCK_BYTES (256u << 10)
#define ROW_ROUNDS  2u /* of one row, when alternating */

int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, enum adaptor_order order, uint32_t width,
                   struct fault *ret_fault) {
        struct quantizer q = {
                .solver = solver, .order = order, .row_rounds = ROW_ROUNDS, .unit = 1
        };
        int r = coder_init(&q.coder, header, width, ret_fault);

        if (r >= 0)
                *quantizer = q;
        return r;
}

void quantizer_deinit(struct quantizer *q) {
        coder_deinit(&q->coder);
        *q = (struct quantizer){ 0 };
}

/* ---- Encoding ---- */

/* One way to store a row: the parts of its record, and what they decode to. */
struct attempt {
        uint8_t *record; /* but for the latent */
        float *latent;
        float *output; /* of the adaptor */
        float *coded;  /* of the codes, with all scales */
};

struct row_encoder {
        struct coder_scratch scratch;
        float *target; /* of the codes, or of the latent */
        float *values; /* the same, normalized */
        float *memory; /* of both attempts */
        struct attempt attempt, best;
        double error; /* of the best */
};

static void row_encoder_deinit(struct row_encoder *e) {
        coder_scratch_deinit(&e->scratch);
        free(e->target);
        free(e->values);
        free(e->memory);
        free(e->attempt.record);
        free(e->best.record);
}

static void place_attempt(struct attempt *a, float *memory, size_t n, size_t m) {
        a->output = memory;
        a->coded = memory + n;
        a->latent = memory + 2 * n;
        memset(a->latent, 0, m * sizeof(float));
}

static int row_encoder_init(struct row_encoder *e, const struct quantizer *q) {
        size_t n = q->coder.header.n_dims, m = q->coder.header.latent_dims;

        e->target = malloc(n * sizeof(float));
        e->values = malloc(n * sizeof(float));
        e->memory = malloc(2 * (2 * n + m) * sizeof(float));
        e->attempt.record = calloc(1, q->coder.layout.record_bytes);
        e->best.record = calloc(1, q->coder.layout.record_bytes);
        if (!e->target || !e->values || !e->memory || !e->attempt.record || !e->best.record)
                return -ENOMEM;
        place_attempt(&e->attempt, e->memory, n, m);
        place_attempt(&e->best, e->memory + 2 * n + m, n, m);
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

static void put_half(uint8_t **at, float value) {
        uint16_t half = float_to_half(value);

        memcpy(*at, &half, sizeof(half));
        *at += sizeof(half);
}

/* It comes rounded: here it only changes form. */
static void put_latent(const struct quantizer *q, uint8_t **at, float value) {
        if (q->coder.header.latent_bits == 16)
                put_half(at, value);
        else
                *(*at)++ = (uint8_t)(int8_t)value;
}

/* Codes for what the attempt's adaptor leaves of the row. -ERANGE: its scale does not fit half. */
static int encode_codes(const struct quantizer *q, struct row_encoder *e, const float *row,
                        uint32_t tier) {
        const struct table_header *h = &q->coder.header;
        float scale = 1, of_tier = quantizer_tier_scale(q, tier), *coded = e->attempt.coded;
        uint8_t *record = e->attempt.record;

        for (uint32_t i = 0; i < h->n_dims; i++)
                e->target[i] = row[i] - e->attempt.output[i];
        if (h->row_scale) {
                scale = quantizer_row_scale(q, e->target);
                if (!isfinite(scale))
                        return -ERANGE;
        }
        quantizer_normalize(q, scale * of_tier, e->target, e->values);
        coder_encode(&q->coder, &e->scratch, e->values, tier, record + q->coder.layout.codes_offset,
                     coded);
        if (h->row_scale) {
                scale = refine_scale(e->target, coded, h->n_dims, of_tier, scale);
                put_half(&record, scale);
        }
        scale *= of_tier;
        for (uint32_t i = 0; i < h->n_dims; i++)
                coded[i] *= scale;
        return 0;
}

/* The latent for what the attempt's codes leave of the row. */
static int encode_latent(const struct quantizer *q, struct row_encoder *e, const float *row) {
        for (uint32_t i = 0; i < q->coder.header.n_dims; i++)
                e->target[i] = row[i] - e->attempt.coded[i];
        return adaptor_solve(q->solver, e->target, 1, e->attempt.latent, e->attempt.output);
}

static void keep_if_better(const struct quantizer *q, struct row_encoder *e, const float *row) {
        size_t n = q->coder.header.n_dims;
        double error = 0;

        for (size_t i = 0; i < n; i++) {
                float difference = row[i] - (e->attempt.coded[i] + e->attempt.output[i]);

                error += (double)difference * (double)difference;
        }
        if (!(error < e->error))
                return;
        e->error = error;
        memcpy(e->best.record, e->attempt.record, q->coder.layout.record_bytes);
        memcpy(e->best.latent, e->attempt.latent, q->coder.header.latent_dims * sizeof(float));
        memcpy(e->best.output, e->attempt.output, n * sizeof(float));
        memcpy(e->best.coded, e->attempt.coded, n * sizeof(float));
}

/*
 * Codes, then perhaps the latent again, and both once more: the best of what came by is e->best, so
 * that it is never worse than the start. `latent` and `output` are where it starts; after the codes
 * come AFTER, there is nothing to keep before that.
 */
static int encode_row(const struct quantizer *q, struct row_encoder *e, const float *row,
                      const float *latent, const float *output, uint32_t tier) {
        bool solves = q->solver && q->order != ADAPTOR_BEFORE;
        bool alternates = solves && q->order == ADAPTOR_ALTERNATE && q->coder.header.latent_dims;
        int r = 0;

        e->error = INFINITY;
        memcpy(e->attempt.latent, latent, q->coder.header.latent_dims * sizeof(float));
        memcpy(e->attempt.output, output, q->coder.header.n_dims * sizeof(float));
        for (uint32_t round = 0; r >= 0 && round < (alternates ? q->row_rounds : 1); round++) {
                r = encode_codes(q, e, row, tier);
                if (r >= 0 && !(solves && q->order == ADAPTOR_AFTER))
                        keep_if_better(q, e, row);
                if (r >= 0 && solves)
                        r = encode_latent(q, e, row);
                if (r >= 0 && solves)
                        keep_if_better(q, e, row);
        }
        return r;
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

int quantizer_start(const struct quantizer *q, const float *rows, size_t n_rows, float *ret_latents,
                    float *ret_outputs) {
        if (q->solver && q->order != ADAPTOR_AFTER)
                return adaptor_solve(q->solver, rows, n_rows, ret_latents, ret_outputs);
        memset(ret_latents, 0, n_rows * q->coder.header.latent_dims * sizeof(float));
        memset(ret_outputs, 0, n_rows * q->coder.header.n_dims * sizeof(float));
        return 0;
}

/* Where encoded rows go. */
struct sink {
        uint8_t *records; /* NULL: nobody wants them */
        size_t n_bytes;
        float *left; /* by the codes; NULL: nobody wants it */
        struct closeness *closeness;
};

static void put_row(const struct quantizer *q, const struct row_encoder *e, uint8_t *ret_record,
                    float *ret_decoded) {
        const struct table_header *h = &q->coder.header;

        memcpy(ret_record, e->best.record, q->coder.layout.record_bytes);
        ret_record += h->row_scale ? sizeof(uint16_t) : 0;
        for (uint32_t i = 0; i < h->latent_dims; i++)
                put_latent(q, &ret_record, e->best.latent[i]);
        for (uint32_t i = 0; i < h->n_dims; i++)
                ret_decoded[i] = e->best.coded[i] + e->best.output[i];
}

static int encode_rows(const struct quantizer *q, const struct quantizer_rows *rows,
                       struct sink *sink, struct fault *ret_fault) {
        const struct table_header *h = &q->coder.header;
        size_t n_dims = h->n_dims, m = h->latent_dims;
        _cleanup_(freep) float *latents = malloc(rows->n_rows * MAX(m, 1u) * sizeof(float));
        _cleanup_(freep) float *outputs = malloc(rows->n_rows * n_dims * sizeof(float));
        _cleanup_(freep) float *decoded = malloc(n_dims * sizeof(float));
        _cleanup_(freep) uint8_t *record = malloc(q->coder.layout.record_bytes);
        _cleanup_(row_encoder_deinit) struct row_encoder encoder = { 0 };
        int r;

        if (!latents || !outputs || !decoded || !record)
                return -ENOMEM;
        r = row_encoder_init(&encoder, q);
        if (r >= 0)
                r = quantizer_start(q, rows->rows, rows->n_rows, latents, outputs);
        if (r < 0)
                return r;
        for (size_t i = 0; i < rows->n_rows; i++) {
                const float *row = rows->rows + i * n_dims;
                uint32_t tier = rows->tiers ? rows->tiers[i] : h->n_tiers - 1;
                bool coded = tier < table_code_tiers(h);

                if (coded) {
                        r = encode_row(q, &encoder, row, latents + i * m, outputs + i * n_dims,
                                       tier);
                        if (r >= 0)
                                put_row(q, &encoder, record, decoded);
                } else {
                        r = encode_int8_row(q, row, record, decoded);
                }
                if (r < 0)
                        return fault_set(ret_fault, r,
                                         "row %" PRIu64 ": its root mean square does not fit a "
                                         "half-float scale; use --codec f32 or bf16",
                                         rows->row_first + i);
                closeness_add_row(sink->closeness, row, decoded, (uint32_t)n_dims);
                if (sink->records)
                        memcpy(sink->records + sink->n_bytes, record,
                               q->coder.layout.tier_bytes[tier]);
                sink->n_bytes += q->coder.layout.tier_bytes[tier];
                for (size_t d = 0; sink->left && d < n_dims; d++)
                        sink->left[i * n_dims + d] = coded && h->tier_stages[tier]
                                                             ? row[d] - encoder.best.coded[d]
                                                             : outputs[i * n_dims + d];
        }
        return 0;
}

int quantizer_encode(const struct quantizer *q, const struct quantizer_rows *rows,
                     uint8_t *ret_records, size_t *ret_n_bytes, struct closeness *closeness,
                     struct fault *ret_fault) {
        struct sink sink = { .records = ret_records, .closeness = closeness };
        int r = encode_rows(q, rows, &sink, ret_fault);

        if (r >= 0)
                *ret_n_bytes = sink.n_bytes;
        return r;
}

struct leaving {
        const struct quantizer *q;
        const struct quantizer_rows *rows;
        size_t n_block_rows;
        float *left;
        struct closeness *blocks;
};

static int leave_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct leaving *l = userdata;
        size_t first = item * l->n_block_rows, at = first * l->q->coder.header.n_dims;
        struct quantizer_rows rows = {
                .rows = l->rows->rows + at,
                .n_rows = MIN(l->n_block_rows, l->rows->n_rows - first),
                .row_first = l->rows->row_first + first,
                .tiers = l->rows->tiers ? l->rows->tiers + first : NULL,
        };
        struct sink sink = { .left = l->left ? l->left + at : NULL, .closeness = &l->blocks[item] };

        (void)thread;
        closeness_init(sink.closeness);
        return encode_rows(l->q, &rows, &sink, ret_fault);
}

int quantizer_leftovers(const struct quantizer *q, const struct quantizer_rows *rows,
                        unsigned n_threads, float *ret_left, struct closeness *ret_closeness,
                        struct fault *ret_fault) {
        size_t n_block = MAX(BLOCK_BYTES / sizeof(float) / q->coder.header.n_dims, 1u);
        size_t n_blocks = div_round_up(rows->n_rows, n_block);
        _cleanup_(freep) struct closeness *blocks = malloc(n_blocks * sizeof(*blocks));
        struct leaving leaving = { q, rows, n_block, ret_left, blocks };
        int r;

        if (!blocks)
                return -ENOMEM;
        r = parallel_for(n_threads, n_blocks, leave_block, &leaving, ret_fault);
        if (r < 0)
                return r;
        closeness_init(ret_closeness);
        for (size_t i = 0; i < n_blocks; i++)
                closeness_add(ret_closeness, &blocks[i]);
        return 0;
}

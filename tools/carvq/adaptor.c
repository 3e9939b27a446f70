/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor's parameters: their place in memory, their rounding to what a reader will see, and
 * the chunk that a file has of them. Any thread.
 */
#include "adaptor.h"

#include <math.h>
#include <string.h>

#include "adaptor-impl.h"
#include "lib/codec/half.h"

#define INT8_MAX_WEIGHT 127.f
#define HALF_MAX        65504.f

int adaptor_init(struct adaptor *adaptor, const struct adaptor_shape *shape) {
        struct adaptor a = {
                .dims = { shape->latent_dims },
                .latent_bits = shape->latent_bits ? shape->latent_bits : 16,
                .type = shape->type ? shape->type : TABLE_ADAPTOR_HALF,
        };
        size_t n_outputs = 0;
        float *p;

        for (size_t i = 0; i < ARRAY_SIZE(shape->hidden_dims) && shape->hidden_dims[i]; i++)
                a.dims[++a.n_layers] = shape->hidden_dims[i];
        a.dims[++a.n_layers] = shape->n_dims;
        for (uint32_t l = 0; l < a.n_layers; l++) {
                a.n_parameters += ((size_t)a.dims[l] + 1) * a.dims[l + 1];
                n_outputs += a.dims[l + 1];
        }
        p = a.parameters = calloc(a.n_parameters + n_outputs, sizeof(float));
        if (!p)
                return -ENOMEM;
        for (uint32_t l = 0; l < a.n_layers; l++) {
                a.weights[l] = p;
                a.biases[l] = p + (size_t)a.dims[l] * a.dims[l + 1];
                p = a.biases[l] + a.dims[l + 1];
        }
        for (uint32_t l = 0; l < a.n_layers; l++) {
                a.scales[l] = p;
                p += a.dims[l + 1];
        }
        *adaptor = a;
        return 0;
}

void adaptor_deinit(struct adaptor *adaptor) {
        free(adaptor->parameters);
        *adaptor = (struct adaptor){ 0 };
}

/* ---- Rounding ---- */

static int round_halves(float *values, size_t n) {
        for (size_t i = 0; i < n; i++) {
                float value = half_to_float(float_to_half(values[i]));

                if (!isfinite(value))
                        return -ERANGE;
                values[i] = value;
        }
        return 0;
}

/* The least half that is no less than `value`: rounded down it would clip the largest weight, and
 * by much where halves are subnormal. */
static float half_at_least(float value) {
        uint16_t half = float_to_half(value);

        return half_to_float(half_to_float(half) < value ? (uint16_t)(half + 1) : half);
}

/* A weight becomes q times its output's scale, which a float holds exactly. */
static int round_integers(float *weights, size_t n_in, size_t n_out, float *ret_scales) {
        memset(ret_scales, 0, n_out * sizeof(float));
        for (size_t i = 0; i < n_in * n_out; i++) {
                float magnitude = fabsf(weights[i]);

                if (!isfinite(magnitude))
                        return -ERANGE;
                ret_scales[i % n_out] = MAX(ret_scales[i % n_out], magnitude);
        }
        for (size_t o = 0; o < n_out; o++) {
                float scale = half_at_least(ret_scales[o] / INT8_MAX_WEIGHT);

                if (!(scale <= HALF_MAX))
                        return -ERANGE;
                ret_scales[o] = scale;
        }
        for (size_t i = 0; i < n_in * n_out; i++) {
                float scale = ret_scales[i % n_out];

                weights[i] = scale > 0 ? rintf(weights[i] / scale) * scale : 0;
        }
        return 0;
}

int adaptor_round(struct adaptor *a, enum table_adaptor type) {
        int r = 0;

        for (uint32_t l = 0; r >= 0 && l < a->n_layers; l++) {
                size_t n_weights = (size_t)a->dims[l] * a->dims[l + 1];

                r = type == TABLE_ADAPTOR_INT8 ? round_integers(a->weights[l], a->dims[l],
                                                                a->dims[l + 1], a->scales[l])
                                               : round_halves(a->weights[l], n_weights);
                if (r >= 0)
                        r = round_halves(a->biases[l], a->dims[l + 1]);
        }
        a->type = type;
        return r;
}

float adaptor_round_latent(uint32_t latent_bits, float value) {
        if (!isfinite(value))
                return 0;
        if (latent_bits == 8)
                return rintf(MIN(MAX(value, -LATENT_STEPS), LATENT_STEPS));
        return half_to_float(float_to_half(MIN(MAX(value, -HALF_MAX), HALF_MAX)));
}

/* ---- Storing ---- */

size_t adaptor_stored_bytes(const struct adaptor *a) {
        size_t n_bytes = 0;

        for (uint32_t l = 0; l < a->n_layers; l++)
                n_bytes += table_layer_bytes(a->type, a->dims[l], a->dims[l + 1]);
        return n_bytes;
}

static uint8_t *store_halves(const float *values, size_t n, uint8_t *at) {
        for (size_t i = 0; i < n; i++, at += sizeof(uint16_t)) {
                uint16_t half = float_to_half(values[i]);

                memcpy(at, &half, sizeof(half));
        }
        return at;
}

static uint8_t *store_integers(const float *weights, const float *scales, size_t n_in, size_t n_out,
                               uint8_t *at) {
        size_t n = n_in * n_out;

        for (size_t i = 0; i < n; i++) {
                float scale = scales[i % n_out];

                *at++ = (uint8_t)(int8_t)(scale > 0 ? rintf(weights[i] / scale) : 0);
        }
        if (n % 2)
                *at++ = 0;
        return at;
}

void adaptor_store(const struct adaptor *a, uint8_t *at) {
        for (uint32_t l = 0; l < a->n_layers; l++) {
                size_t n_in = a->dims[l], n_out = a->dims[l + 1];

                if (a->type == TABLE_ADAPTOR_INT8) {
                        at = store_halves(a->scales[l], n_out, at);
                        at = store_halves(a->biases[l], n_out, at);
                        at = store_integers(a->weights[l], a->scales[l], n_in, n_out, at);
                } else {
                        at = store_halves(a->weights[l], n_in * n_out, at);
                        at = store_halves(a->biases[l], n_out, at);
                }
        }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings a table's columns and its adaptor's weights into the forms of prepared.h, when it is
 * loaded. Trusts a checked header and nothing in the chunks. Any thread.
 */
#include <math.h>

#include "adaptor.h"

/* ---- Layers ---- */

static bool halves_finite(const uint16_t *halves, size_t n) {
        for (size_t i = 0; i < n; i++)
                if ((halves[i] & 0x7c00) == 0x7c00)
                        return false;
        return true;
}

static bool layer_finite(const struct codec_layer *l) {
        return halves_finite(l->biases, l->n_out) &&
               halves_finite(l->scales ? l->scales : l->halves,
                             l->scales ? l->n_out : l->n_in * l->n_out);
}

/* Exact: eight bits times eleven. */
static float weight_at(const struct codec_layer *l, size_t i, size_t o) {
        size_t at = i * l->n_out + o;

        return l->halves ? half_to_float(l->halves[at])
                         : half_to_float(l->scales[o]) * (float)l->integers[at];
}

static void pack_floats(const struct codec_layer *l, float *ret_floats) {
        for (size_t i = 0; i < l->n_in; i++)
                for (size_t o = 0; o < l->n_out; o++)
                        ret_floats[(o / CODEC_PANEL_OUTPUTS * l->n_in + i) * CODEC_PANEL_OUTPUTS +
                                   o % CODEC_PANEL_OUTPUTS] = weight_at(l, i, o);
}

/* Where the first digit of a weight goes. */
static size_t digit_at(const struct codec_packed *p, size_t i, size_t o) {
        size_t panel = o / CODEC_PANEL_OUTPUTS, tile = i / CODEC_TILE_INPUTS;

        return (panel * p->n_tiles + tile) * p->n_digits * CODEC_TILE_BYTES +
               i % CODEC_TILE_INPUTS / 4 * 64 + o % CODEC_PANEL_OUTPUTS * 4 + i % 4;
}

static void pack_integers(const struct codec_layer *l, const struct codec_packed *p,
                          float *ret_scales, int8_t *ret_digits) {
        for (size_t o = 0; o < l->n_out; o++)
                ret_scales[o] = half_to_float(l->scales[o]);
        for (size_t i = 0; i < l->n_in; i++)
                for (size_t o = 0; o < l->n_out; o++)
                        ret_digits[digit_at(p, i, o)] = l->integers[i * l->n_out + o];
}

/* The sums of products count 128s. */
static void pack_halves(const struct codec_layer *l, const struct codec_packed *p,
                        float *ret_scales, int8_t *ret_digits) {
        for (size_t i = 0; i < l->n_in; i++)
                for (size_t o = 0; o < l->n_out; o++)
                        ret_scales[o] = fmaxf(ret_scales[o], fabsf(weight_at(l, i, o)));
        for (size_t i = 0; i < l->n_in; i++)
                for (size_t o = 0; o < l->n_out; o++) {
                        float max = ret_scales[o];
                        float w = max > 0 ? weight_at(l, i, o) * (CODEC_WEIGHT_MAX / max) : 0;
                        int q = MAX(MIN((int)lrintf(w), CODEC_WEIGHT_MAX), -CODEC_WEIGHT_MAX);
                        int8_t *digits = ret_digits + digit_at(p, i, o);

                        digits[0] = (int8_t)((q + 64) >> 7);
                        digits[CODEC_TILE_BYTES] = (int8_t)(q - 128 * digits[0]);
                }
        for (size_t o = 0; o < l->n_out; o++)
                ret_scales[o] *= 128.0f / CODEC_WEIGHT_MAX;
}

static struct codec_packed packed_shape(const struct codec_layer *l, bool first) {
        return (struct codec_packed){
                .n_in = l->n_in,
                .n_out = l->n_out,
                .n_panels = div_round_up(l->n_out, CODEC_PANEL_OUTPUTS),
                .n_tiles = div_round_up(l->n_in, CODEC_TILE_INPUTS),
                .n_digits = first       ? 0
                            : l->halves ? 2
                                        : 1,
                .relu = l->relu,
        };
}

/* Biases, scales and weights follow one another; each takes whole cache lines. */
static size_t packed_bytes(const struct codec_packed *p) {
        size_t line_bytes = CODEC_PANEL_OUTPUTS * sizeof(float);
        size_t panel_bytes =
                p->n_digits ? p->n_tiles * p->n_digits * CODEC_TILE_BYTES : p->n_in * line_bytes;

        return p->n_panels * (2 * line_bytes + panel_bytes);
}

static void pack_layer(const struct codec_layer *l, struct codec_packed *p, uint8_t *memory) {
        size_t n_padded = p->n_panels * CODEC_PANEL_OUTPUTS;
        float *biases = (void *)memory, *scales = biases + n_padded;
        void *weights = scales + n_padded;

        memset(memory, 0, packed_bytes(p));
        for (size_t o = 0; o < l->n_out; o++)
                biases[o] = half_to_float(l->biases[o]);
        p->biases = biases;
        p->scales = scales;
        if (!p->n_digits) {
                pack_floats(l, weights);
                p->floats = weights;
        } else {
                (l->halves ? pack_halves : pack_integers)(l, p, scales, weights);
                p->digits = weights;
        }
}

/* ---- Columns ---- */

static struct codec_columns columns_shape(const struct table_header *h,
                                          const struct codec_layer *layers, size_t n_layers) {
        bool linear = n_layers == 1 && layers[0].n_in <= CODEC_LINEAR_INPUTS_MAX &&
                      (!layers[0].n_in || layer_finite(&layers[0]));

        return (struct codec_columns){
                .n_inputs = linear ? layers[0].n_in : 0,
                .stride = align_up(h->n_dims, CODEC_PANEL_OUTPUTS) + CODEC_COLUMNS_PAD,
        };
}

static size_t columns_bytes(const struct codec_columns *c) {
        size_t n = c->n_inputs ? MAX(c->n_inputs, CODEC_LINEAR_INPUTS_MIN) : 0;

        return (2 + n) * c->stride * sizeof(float);
}

/* Of a column without halves every value is `absent`. */
static void fill_column(const uint16_t *halves, float absent, size_t n, float *ret_column) {
        for (size_t i = 0; i < n; i++)
                ret_column[i] = halves ? half_to_float(halves[i]) : absent;
}

static void fill_columns(const struct table_header *h, const uint16_t *col_scales,
                         const struct codec_layer *layer, struct codec_columns *c, float *memory) {
        bool has_biases = c->n_inputs || (layer && !layer->n_in);
        float *biases = memory + c->stride, *weights = memory + 2 * c->stride;

        memset(memory, 0, columns_bytes(c));
        fill_column(h->col_scale ? col_scales : NULL, 1, h->n_dims, memory);
        fill_column(has_biases ? layer->biases : NULL, -0.0f, h->n_dims, biases);
        for (size_t i = 0; i < c->n_inputs; i++)
                for (size_t o = 0; o < h->n_dims; o++)
                        weights[i * c->stride + o] = weight_at(layer, i, o);
        c->scales = memory;
        c->biases = biases;
        c->weights = weights;
}

/* ---- Both ---- */

int codec_prepare(const struct table_header *h, const uint16_t *col_scales, const uint16_t *adaptor,
                  struct codec_prepared **ret_prepared) {
        struct codec_layer layers[CODEC_LAYERS_MAX];
        struct codec_prepared shape = { 0 };
        size_t at = align_up(sizeof(shape), CODEC_SCRATCH_ALIGNMENT), n_bytes = at;
        size_t n_layers = h->adaptor_type ? codec_layers(h, adaptor, layers) : 0;
        bool finite = h->latent_dims > 0;
        struct codec_prepared *p;

        *ret_prepared = NULL;
        if (h->codec != TABLE_CODEC_CARVQ)
                return 0;
        shape.columns = columns_shape(h, layers, n_layers);
        n_bytes += columns_bytes(&shape.columns);
        for (size_t i = 0; i < n_layers; i++)
                finite = finite && layer_finite(&layers[i]);
        shape.n_layers = finite ? n_layers : 0;
        for (size_t i = 0; i < shape.n_layers; i++) {
                shape.layers[i] = packed_shape(&layers[i], i == 0);
                n_bytes += packed_bytes(&shape.layers[i]);
        }
        p = aligned_alloc(CODEC_SCRATCH_ALIGNMENT, align_up(n_bytes, CODEC_SCRATCH_ALIGNMENT));
        if (!p)
                return -ENOMEM;
        *p = shape;
        for (size_t i = 0; i < p->n_layers; i++) {
                pack_layer(&layers[i], &p->layers[i], (uint8_t *)p + at);
                at += packed_bytes(&p->layers[i]);
        }
        fill_columns(h, col_scales, n_layers ? layers : NULL, &p->columns,
                     (void *)((uint8_t *)p + at));
        *ret_prepared = p;
        return 0;
}

void codec_prepared_free(struct codec_prepared *prepared) {
        free(prepared);
}

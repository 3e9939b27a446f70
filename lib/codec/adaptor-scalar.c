/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corrective adaptor in plain C: the specification of FORMAT.md's "Adaptor", and the walk over
 * its layers that every instruction set shares. Trusts a checked table's layout and nothing in its
 * chunks. Any thread.
 */
#include "half.h"
#include "kernels.h"

size_t codec_scratch_floats(const struct table_header *h) {
        return codec_scratch_round(h->latent_dims) + codec_scratch_round(h->hidden_dims[0]) +
               codec_scratch_round(h->hidden_dims[1]);
}

void codec_scalar_layer(const struct codec_layer *l, const float *inputs, float *ret_outputs) {
        for (size_t o = 0; o < l->n_out; o++)
                ret_outputs[o] = l->halves ? half_to_float(l->biases[o]) : 0;
        for (size_t i = 0; i < l->n_in; i++) {
                const float x = inputs[i];

                if (x == 0) /* as about half are behind a ReLU */
                        continue;
                for (size_t o = 0; l->halves && o < l->n_out; o++)
                        ret_outputs[o] += half_to_float(l->halves[i * l->n_out + o]) * x;
                for (size_t o = 0; l->integers && o < l->n_out; o++)
                        ret_outputs[o] += (float)l->integers[i * l->n_out + o] * x;
        }
        for (size_t o = 0; l->integers && o < l->n_out; o++) {
                float product = half_to_float(l->scales[o]) * ret_outputs[o];

                ret_outputs[o] = half_to_float(l->biases[o]) + product;
        }
        for (size_t o = 0; l->relu && o < l->n_out; o++)
                ret_outputs[o] = ret_outputs[o] > 0 ? ret_outputs[o] : 0;
}

static struct codec_layer layer_at(uint32_t adaptor_type, const uint16_t *at, size_t n_in,
                                   size_t n_out, bool relu) {
        struct codec_layer layer = { .n_in = n_in, .n_out = n_out, .relu = relu };

        if (adaptor_type == TABLE_ADAPTOR_INT8) {
                layer.scales = at;
                layer.biases = at + n_out;
                layer.integers = (const void *)(at + 2 * n_out);
        } else {
                layer.halves = at;
                layer.biases = at + n_in * n_out;
        }
        return layer;
}

/* The latent's values as floats. */
static void load_latent(const struct table_header *h, const uint8_t *bytes, float *ret_inputs) {
        for (size_t i = 0; i < h->latent_dims; i++)
                ret_inputs[i] = h->latent_bits == 8 ? (float)(int8_t)bytes[i]
                                                    : half_to_float(codec_load_half(bytes + 2 * i));
}

const uint16_t *codec_adaptor_means(const struct codec_table *table) {
        const struct table_header *h = &table->contents.header;

        if (!h->adaptor_type || h->latent_dims)
                return NULL;
        return layer_at(h->adaptor_type, table->adaptor, 0, h->n_dims, false).biases;
}

static void run_layers(const struct codec_table *table, const struct codec_record *record,
                       codec_layer_fn *run, float *inputs, float *ret_outputs) {
        const struct table_header *h = &table->contents.header;
        const uint16_t *at = table->adaptor;
        size_t n_in = h->latent_dims;
        struct codec_layer layer;

        load_latent(h, record->bytes + sizeof(uint16_t) * h->row_scale, inputs);
        for (size_t i = 0; i < ARRAY_SIZE(h->hidden_dims) && h->hidden_dims[i]; i++) {
                float *hidden = inputs + codec_scratch_round(n_in);

                layer = layer_at(h->adaptor_type, at, n_in, h->hidden_dims[i], true);
                run(&layer, inputs, hidden);
                at += table_layer_bytes(h->adaptor_type, n_in, h->hidden_dims[i]) / sizeof(*at);
                inputs = hidden;
                n_in = h->hidden_dims[i];
        }
        layer = layer_at(h->adaptor_type, at, n_in, h->n_dims, false);
        run(&layer, inputs, ret_outputs);
}

void codec_adaptor(const struct codec_table *table, const struct codec_record *records,
                   size_t n_rows, codec_layer_fn *run, float *scratch, size_t stride,
                   float *ret_outputs) {
        for (size_t i = 0; i < n_rows; i++)
                if (!codec_is_int8(table, &records[i]))
                        run_layers(table, &records[i], run, scratch, ret_outputs + i * stride);
}

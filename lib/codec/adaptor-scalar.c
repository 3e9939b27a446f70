/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corrective adaptor in plain C, row by row with the weights as the file has them: the
 * specification of FORMAT.md's "Adaptor". Trusts a checked table's layout and nothing in its
 * chunks. Any thread.
 */
#include "kernels.h"

size_t codec_layers(const struct table_header *h, const uint16_t *adaptor,
                    struct codec_layer ret_layers[CODEC_LAYERS_MAX]) {
        const size_t n_outs[CODEC_LAYERS_MAX] = { h->hidden_dims[0], h->hidden_dims[1], h->n_dims };
        const uint16_t *at = adaptor;
        size_t n_in = h->latent_dims, n = 0;

        for (size_t i = 0; i < CODEC_LAYERS_MAX; i++) {
                struct codec_layer *l = &ret_layers[n];

                if (!n_outs[i])
                        continue;
                *l = (struct codec_layer){
                        .n_in = n_in,
                        .n_out = n_outs[i],
                        .relu = i + 1 < CODEC_LAYERS_MAX,
                };
                if (h->adaptor_type == TABLE_ADAPTOR_INT8) {
                        l->scales = at;
                        l->biases = at + l->n_out;
                        l->integers = (const void *)(at + 2 * l->n_out);
                } else {
                        l->halves = at;
                        l->biases = at + l->n_in * l->n_out;
                }
                at += table_layer_bytes(h->adaptor_type, n_in, l->n_out) / sizeof(*at);
                n_in = l->n_out;
                n++;
        }
        return n;
}

const uint16_t *codec_adaptor_means(const struct codec_table *table) {
        const struct table_header *h = &table->contents.header;
        struct codec_layer layers[CODEC_LAYERS_MAX];

        if (!h->adaptor_type || h->latent_dims)
                return NULL;
        codec_layers(h, table->adaptor, layers);
        return layers[0].biases;
}

void codec_load_latent(const struct table_header *h, const struct codec_record *record,
                       float *ret_inputs) {
        const uint8_t *bytes = record->bytes + sizeof(uint16_t) * h->row_scale;

        for (size_t i = 0; i < h->latent_dims; i++)
                ret_inputs[i] = h->latent_bits == 8 ? (float)(int8_t)bytes[i]
                                                    : half_to_float(codec_load_half(bytes + 2 * i));
}

static void run_layer(const struct codec_layer *l, const float *inputs, float *ret_outputs) {
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

/* The inputs of a layer and its outputs, which are the next one's inputs, follow one another in the
 * scratch. */
static void run_row(const struct codec_table *table, const struct codec_record *record,
                    float *scratch, float *ret_outputs) {
        struct codec_layer layers[CODEC_LAYERS_MAX];
        size_t n_layers = codec_layers(&table->contents.header, table->adaptor, layers);

        codec_load_latent(&table->contents.header, record, scratch);
        for (size_t i = 0; i < n_layers; i++) {
                float *outputs = scratch + codec_scratch_round(layers[i].n_in);

                if (i + 1 == n_layers)
                        outputs = ret_outputs;
                run_layer(&layers[i], scratch, outputs);
                scratch = outputs;
        }
}

void codec_scalar_adaptor(const struct codec_table *table, const struct codec_record *records,
                          size_t n_rows, float *scratch, size_t stride, float *ret_outputs) {
        for (size_t i = 0; i < n_rows; i++)
                if (!codec_is_int8(table, &records[i]))
                        run_row(table, &records[i], scratch, ret_outputs + i * stride);
}

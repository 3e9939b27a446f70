/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptor for a batch of rows, layer by layer, so that each weight is read once for all of
 * them: the walk that the instruction sets share. Trusts a checked table's layout and nothing in
 * its chunks. What is mapped is read first, so that a file that has been cut interrupts no step.
 * Any thread.
 */
#include "adaptor.h"

/* Parts of the scratch: latents and the last hidden layer's outputs, by rows, and its inputs. */
static size_t hidden_floats(const struct table_header *h) {
        return codec_scratch_round(MAX(h->hidden_dims[0], h->hidden_dims[1]));
}

static size_t tiles_bytes(const struct table_header *h) {
        return div_round_up(MAX(h->hidden_dims[0], h->hidden_dims[1]), CODEC_TILE_INPUTS) *
               CODEC_INPUT_TILE_BYTES;
}

size_t codec_scratch_floats(const struct table_header *h) {
        if (!h->latent_dims)
                return 0;
        return CODEC_BATCH_ROWS * (codec_scratch_round(h->latent_dims) + hidden_floats(h)) +
               tiles_bytes(h) / sizeof(float);
}

/* A batch under way: rows that have latents. */
struct batch {
        size_t n_rows;
        float *latents;
        uint8_t *tiles;
        float *hidden[CODEC_BATCH_ROWS], *outputs[CODEC_BATCH_ROWS];
};

static void run_layer(const struct codec_adaptor_steps *steps, const struct codec_packed *layer,
                      const struct batch *b, float *const *ret_outputs) {
        float scales[CODEC_BATCH_ROWS];

        if (!layer->n_digits) {
                steps->floats(layer, b->latents, codec_scratch_round(layer->n_in), b->n_rows,
                              ret_outputs);
                return;
        }
        for (size_t i = 0; i < b->n_rows; i++)
                scales[i] = steps->quantize(b->hidden[i], layer->n_in, b->tiles, i);
        steps->digits(layer, b->tiles, scales, b->n_rows, ret_outputs);
}

void codec_adaptor_batch(const struct codec_adaptor_steps *steps, const struct codec_table *table,
                         const struct codec_record *records, size_t n_rows, float *scratch,
                         size_t stride, float *ret_outputs) {
        const struct table_header *h = &table->contents.header;
        const struct codec_prepared *p = table->prepared;
        size_t n_latent = codec_scratch_round(h->latent_dims), n_hidden = hidden_floats(h);
        float *hidden = scratch + CODEC_BATCH_ROWS * n_latent;
        struct batch b = {
                .latents = scratch,
                .tiles = (uint8_t *)(hidden + CODEC_BATCH_ROWS * n_hidden),
        };

        if (!p || !p->n_layers) {
                codec_scalar_adaptor(table, records, n_rows, scratch, stride, ret_outputs);
                return;
        }
        for (size_t i = 0; i < n_rows; i++) {
                if (codec_is_int8(table, &records[i]))
                        continue;
                codec_load_latent(h, &records[i], b.latents + b.n_rows * n_latent);
                b.hidden[b.n_rows] = hidden + b.n_rows * n_hidden;
                b.outputs[b.n_rows++] = ret_outputs + i * stride;
        }
        for (size_t i = 0; b.n_rows && i < p->n_layers; i++)
                run_layer(steps, &p->layers[i], &b, i + 1 < p->n_layers ? b.hidden : b.outputs);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders in plain C: the specification that every other kernel is tested against, and
 * FORMAT.md in its order. Trusts a checked table's layout and nothing in its chunks, where every
 * bit pattern is some value. Any thread; a value is written once and never read back.
 *
 * Method: "CARVQ: Corrective Adaptor with Group Residual Vector Quantization for LLM Embedding
 * Compression" (arXiv 2510.12721), as reconstructed; the layout is ours.
 */
#include "half.h"
#include "kernels.h"

/* Codes of one block of a packed sequence (FORMAT.md, "Packed codes"). */
static void unpack_block(const uint8_t *packed, size_t n_codes, uint32_t bits, size_t block,
                         uint8_t ret_codes[TABLE_BLOCK_CODES]) {
        size_t first = block * TABLE_BLOCK_CODES;
        size_t n = MIN(n_codes - first, TABLE_BLOCK_CODES);
        uint32_t shift = 0;

        memset(ret_codes, 0, TABLE_BLOCK_CODES);
        for (uint32_t width = 8; width; width >>= 1) {
                if (!(bits & width))
                        continue;

                const uint8_t *pieces = packed + first * width / 8;
                size_t n_bytes = div_round_up(n * width, 8);

                for (size_t i = 0; i < n; i++) {
                        uint32_t piece = pieces[i % n_bytes] >> i / n_bytes * width;

                        ret_codes[i] |= (piece & ((1u << width) - 1)) << shift;
                }
                packed += table_packed_bytes(n_codes, width); /* the next run */
                shift += width;
        }
}

/* Sub-vectors [first, first + n_codes) of one row, at most a block of them. */
static void decode_block(const struct codec_table *table, const uint16_t *codebooks,
                         uint8_t codes[][TABLE_BLOCK_CODES], size_t first, size_t n_codes,
                         const float *scale, const float *addends, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        size_t group_halves = l->group_bytes / sizeof(uint16_t);

        for (size_t i = 0; i < n_codes; i++) {
                size_t j = first + i;
                const uint16_t *group = codebooks + j / h->group_cols * group_halves;

                for (size_t d = 0; d < h->subvector_dims; d++) {
                        size_t dim = d * l->n_subvectors + j;
                        float v = 0;

                        if (dim >= h->n_dims)
                                break;
                        for (size_t s = 0; s < h->n_stages; s++) {
                                size_t entry = ((s * h->subvector_dims + d) << h->codebook_bits) +
                                               codes[s][i];
                                float centroid = half_to_float(group[entry]);

                                v = s ? v + centroid : centroid;
                        }
                        if (scale)
                                v *= *scale;
                        if (addends)
                                v += addends[dim];
                        ret_values[dim] = v;
                }
        }
}

void codec_scalar_codes(const struct codec_table *table, uint64_t row, const float *addends,
                        float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        const uint8_t *record = codec_record(table, row);
        const uint16_t *codebooks = codec_row_codebooks(table, row);
        uint8_t codes[TABLE_STAGES_MAX][TABLE_BLOCK_CODES];
        float scale = h->row_scale ? half_to_float(codec_load_half(record)) : 1;

        for (size_t first = 0; first < l->n_subvectors; first += TABLE_BLOCK_CODES) {
                for (size_t s = 0; s < h->n_stages; s++)
                        unpack_block(record + l->codes_offset + s * l->stage_bytes, l->n_subvectors,
                                     h->codebook_bits, first / TABLE_BLOCK_CODES, codes[s]);
                decode_block(table, codebooks, codes, first,
                             MIN(l->n_subvectors - first, TABLE_BLOCK_CODES),
                             h->row_scale ? &scale : NULL, addends, ret_values);
        }
}

static void layer_scalar(const uint16_t *weights, const float *inputs, size_t n_in, size_t n_out,
                         bool relu, float *ret_outputs) {
        const uint16_t *bias = weights + n_in * n_out;

        for (size_t o = 0; o < n_out; o++)
                ret_outputs[o] = half_to_float(bias[o]);
        for (size_t i = 0; i < n_in; i++) {
                const float x = inputs[i];

                if (x == 0) /* as about half are behind a ReLU */
                        continue;
                for (size_t o = 0; o < n_out; o++)
                        ret_outputs[o] += half_to_float(weights[i * n_out + o]) * x;
        }
        for (size_t o = 0; relu && o < n_out; o++)
                ret_outputs[o] = ret_outputs[o] > 0 ? ret_outputs[o] : 0;
}

size_t codec_scratch_floats(const struct table_header *h) {
        return codec_scratch_round(h->n_dims) + codec_scratch_round(h->latent_dims) +
               codec_scratch_round(h->hidden_dims[0]) + codec_scratch_round(h->hidden_dims[1]);
}

const float *codec_adaptor(const struct codec_table *table, const uint8_t *record,
                           codec_layer_fn *layer, float *scratch) {
        const struct table_header *h = &table->contents.header;
        const uint16_t *weights = table->adaptor;
        float *outputs = scratch, *inputs = scratch + codec_scratch_round(h->n_dims);
        size_t n_in = h->latent_dims;

        if (!n_in)
                return NULL;

        for (size_t i = 0; i < n_in; i++)
                inputs[i] = half_to_float(codec_load_half(record + 2 * (h->row_scale + i)));
        for (size_t i = 0; i < ARRAY_SIZE(h->hidden_dims) && h->hidden_dims[i]; i++) {
                float *hidden = inputs + codec_scratch_round(n_in);

                layer(weights, inputs, n_in, h->hidden_dims[i], true, hidden);
                weights += (n_in + 1) * h->hidden_dims[i];
                inputs = hidden;
                n_in = h->hidden_dims[i];
        }
        layer(weights, inputs, n_in, h->n_dims, false, outputs);
        return outputs;
}

static void decode_carvq(const struct codec_table *table, uint64_t row, float *scratch,
                         float *ret_values) {
        const uint8_t *record = codec_record(table, row);

        codec_scalar_codes(table, row, codec_adaptor(table, record, layer_scalar, scratch),
                           ret_values);
}

void codec_decode_f32(const struct codec_table *table, uint64_t row, float *scratch,
                      float *ret_values) {
        (void)scratch;
        memcpy(ret_values, codec_record(table, row), table->contents.layout.record_bytes);
}

static void decode_f16(const struct codec_table *table, uint64_t row, float *scratch,
                       float *ret_values) {
        const uint8_t *record = codec_record(table, row);

        (void)scratch;
        for (size_t i = 0; i < table->contents.header.n_dims; i++)
                ret_values[i] = half_to_float(codec_load_half(record + 2 * i));
}

static void decode_bf16(const struct codec_table *table, uint64_t row, float *scratch,
                        float *ret_values) {
        const uint8_t *record = codec_record(table, row);

        (void)scratch;
        for (size_t i = 0; i < table->contents.header.n_dims; i++)
                ret_values[i] = bf16_to_float(codec_load_half(record + 2 * i));
}

static void decode_int8(const struct codec_table *table, uint64_t row, float *scratch,
                        float *ret_values) {
        const uint8_t *record = codec_record(table, row);
        float scale;

        (void)scratch;
        memcpy(&scale, record, sizeof(scale));
        for (size_t i = 0; i < table->contents.header.n_dims; i++)
                ret_values[i] = scale * (float)(int8_t)record[sizeof(scale) + i];
}

static void decode_int4(const struct codec_table *table, uint64_t row, float *scratch,
                        float *ret_values) {
        const uint8_t *record = codec_record(table, row);
        size_t n_dims = table->contents.header.n_dims;
        uint8_t codes[TABLE_BLOCK_CODES];
        float scale;

        (void)scratch;
        memcpy(&scale, record, sizeof(scale));
        for (size_t i = 0; i < n_dims; i++) {
                if (i % TABLE_BLOCK_CODES == 0)
                        unpack_block(record + sizeof(scale), n_dims, 4, i / TABLE_BLOCK_CODES,
                                     codes);
                ret_values[i] = scale * (float)(codes[i % TABLE_BLOCK_CODES] - 8);
        }
}

static void f32_to_f16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i++)
                ret_values[i] = float_to_half(values[i]);
}

static void f32_to_bf16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i++)
                ret_values[i] = float_to_bf16(values[i]);
}

const struct codec_kernels codec_kernels_scalar = {
        .name = "scalar",
        .decode = {
                [TABLE_CODEC_F32] = codec_decode_f32,
                [TABLE_CODEC_F16] = decode_f16,
                [TABLE_CODEC_BF16] = decode_bf16,
                [TABLE_CODEC_INT8] = decode_int8,
                [TABLE_CODEC_INT4] = decode_int4,
                [TABLE_CODEC_CARVQ] = decode_carvq,
        },
        .f32_to_f16 = f32_to_f16,
        .f32_to_bf16 = f32_to_bf16,
};

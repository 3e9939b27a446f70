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

/* Codes of block `block` of a packed sequence (FORMAT.md, "Packed codes"). */
static void unpack_block(const uint8_t *packed, size_t n_codes, uint32_t bits, size_t block,
                         uint16_t ret_codes[TABLE_BLOCK_CODES]) {
        size_t first = block * TABLE_BLOCK_CODES;
        size_t n = MIN(n_codes - first, TABLE_BLOCK_CODES);
        uint32_t shift = 0;

        memset(ret_codes, 0, TABLE_BLOCK_CODES * sizeof(*ret_codes));
        for (uint32_t width = TABLE_SMALL_BITS_MAX; width; width >>= 1) {
                if (!(bits & width))
                        continue;

                const uint8_t *pieces = packed + first * width / 8;
                size_t n_bytes = div_round_up(n * width, 8);

                for (size_t i = 0; i < n; i++) {
                        uint32_t piece = pieces[i % n_bytes] >> i / n_bytes * width;

                        ret_codes[i] |= (uint16_t)((piece & ((1u << width) - 1)) << shift);
                }
                packed += table_packed_bytes(n_codes, width); /* the next run */
                shift += width;
        }
}

/* Which centroids the sub-vectors of a block have in a stage. */
static void choose_centroids(const struct codec_table *table, const struct codec_record *record,
                             size_t stage, size_t block,
                             uint16_t ret_centroids[TABLE_BLOCK_CODES]) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        const uint8_t *codes = record->bytes + l->codes_offset + stage * record->stage_bytes;
        size_t first = block * TABLE_BLOCK_CODES;

        if (table_small_codebooks(h)) {
                unpack_block(codes, l->n_subvectors, record->code_bits, block, ret_centroids);
                return;
        }
        for (size_t i = 0; i < MIN(l->n_subvectors - first, TABLE_BLOCK_CODES); i++)
                ret_centroids[i] =
                        (uint16_t)codec_load_bits(codes, record->stage_bytes,
                                                  (first + i) * record->code_bits, h->window_bits);
}

/* Where in its group's codebooks a value is: FORMAT.md, "Codebooks". */
static size_t entry_at(const struct table_header *h, size_t stage, size_t centroid, size_t slot) {
        return table_small_codebooks(h)
                       ? ((stage * h->subvector_dims + slot) << h->window_bits) + centroid
                       : ((stage << h->window_bits) + centroid) * h->subvector_dims + slot;
}

/* What becomes of the stages' sums; NULL: nothing. Of the last two at most one is set. */
struct finish {
        const float *scale;
        const uint16_t *col_scales; /* half[n_dims] */
        const float *addends;       /* [n_dims] */
        const uint16_t *means;      /* half[n_dims] */
};

/* Sub-vectors [first, first + n) of one row, at most a block of them. */
static void decode_block(const struct codec_table *table, const uint16_t *codebooks,
                         uint16_t centroids[][TABLE_BLOCK_CODES], size_t n_stages, size_t first,
                         size_t n, const struct finish *finish, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const struct table_layout *l = &table->contents.layout;
        size_t group_halves = l->group_bytes / sizeof(uint16_t);

        for (size_t i = 0; i < n; i++) {
                size_t j = first + i;
                const uint16_t *group = codebooks + j / h->group_cols * group_halves;

                for (size_t d = 0; d < h->subvector_dims; d++) {
                        size_t dim = table_slot_dim(h, l, j, d);
                        float v = 0;

                        if (dim >= h->n_dims)
                                break;
                        for (size_t s = 0; s < n_stages; s++) {
                                float c = half_to_float(group[entry_at(h, s, centroids[s][i], d)]);

                                v = s ? v + c : c;
                        }
                        if (finish->scale)
                                v *= *finish->scale;
                        if (finish->col_scales)
                                v *= half_to_float(finish->col_scales[dim]);
                        if (finish->addends)
                                v += finish->addends[dim];
                        if (finish->means)
                                v += half_to_float(finish->means[dim]);
                        ret_values[dim] = v;
                }
        }
}

/* FORMAT.md, decoding steps 1 to 3 but for the adaptor's layers, of a row of codes. */
static void decode_codes(const struct codec_table *table, const struct codec_record *record,
                         const float *addends, float *ret_values) {
        const struct table_layout *l = &table->contents.layout;
        const uint16_t *codebooks = codec_row_codebooks(table, record->row);
        float scale = codec_row_scale(table, record);
        const struct finish finish = {
                .scale = record->n_stages ? &scale : NULL,
                .col_scales = record->n_stages ? table->col_scales : NULL,
                .addends = addends,
                .means = codec_adaptor_means(table),
        };
        uint16_t centroids[TABLE_STAGES_MAX][TABLE_BLOCK_CODES];

        for (size_t first = 0; first < l->n_subvectors; first += TABLE_BLOCK_CODES) {
                for (size_t s = 0; s < record->n_stages; s++)
                        choose_centroids(table, record, s, first / TABLE_BLOCK_CODES, centroids[s]);
                decode_block(table, codebooks, centroids, record->n_stages, first,
                             MIN(l->n_subvectors - first, TABLE_BLOCK_CODES), &finish, ret_values);
        }
}

static struct codec_record find(const struct codec_table *table, uint64_t row) {
        return codec_find(table, row);
}

static void decode_integers(const uint8_t *integers, float scale, size_t n, float *ret_values) {
        for (size_t i = 0; i < n; i++)
                ret_values[i] = scale * (float)(int8_t)integers[i];
}

static void decode_carvq(const struct codec_table *table, const struct codec_record *record,
                         const float *addends, float *ret_values) {
        if (codec_is_int8(table, record))
                decode_integers(record->bytes + sizeof(uint16_t),
                                half_to_float(codec_load_half(record->bytes)),
                                table->contents.header.n_dims, ret_values);
        else
                decode_codes(table, record, addends, ret_values);
}

void codec_decode_f32(const struct codec_table *table, const struct codec_record *record,
                      const float *addends, float *ret_values) {
        (void)addends;
        memcpy(ret_values, record->bytes, table->contents.layout.record_bytes);
}

static void decode_f16(const struct codec_table *table, const struct codec_record *record,
                       const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;

        (void)addends;
        for (size_t i = 0; i < table->contents.header.n_dims; i++)
                ret_values[i] = half_to_float(codec_load_half(bytes + 2 * i));
}

static void decode_bf16(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;

        (void)addends;
        for (size_t i = 0; i < table->contents.header.n_dims; i++)
                ret_values[i] = bf16_to_float(codec_load_half(bytes + 2 * i));
}

static void decode_int8(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        float scale;

        (void)addends;
        memcpy(&scale, bytes, sizeof(scale));
        decode_integers(bytes + sizeof(scale), scale, table->contents.header.n_dims, ret_values);
}

static void decode_int4(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        const uint8_t *bytes = record->bytes;
        size_t n_dims = table->contents.header.n_dims;
        uint16_t codes[TABLE_BLOCK_CODES];
        float scale;

        (void)addends;
        memcpy(&scale, bytes, sizeof(scale));
        for (size_t i = 0; i < n_dims; i++) {
                if (i % TABLE_BLOCK_CODES == 0)
                        unpack_block(bytes + sizeof(scale), n_dims, 4, i / TABLE_BLOCK_CODES,
                                     codes);
                ret_values[i] = scale * (float)((int)codes[i % TABLE_BLOCK_CODES] - 8);
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
        .find = find,
        .decode = {
                [TABLE_CODEC_F32] = codec_decode_f32,
                [TABLE_CODEC_F16] = decode_f16,
                [TABLE_CODEC_BF16] = decode_bf16,
                [TABLE_CODEC_INT8] = decode_int8,
                [TABLE_CODEC_INT4] = decode_int4,
                [TABLE_CODEC_CARVQ] = decode_carvq,
        },
        .adaptor = codec_scalar_adaptor,
        .f32_to_f16 = f32_to_f16,
        .f32_to_bf16 = f32_to_bf16,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "reference-decoder.h"

#include <math.h>
#include <string.h>

static float reference_half(const uint8_t *bytes) {
        uint32_t half = bytes[0] | (uint32_t)bytes[1] << 8;
        int exponent = (int)(half >> 10 & 31), mantissa = (int)(half & 0x3ff);
        double value = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

        if (exponent == 31)
                value = mantissa ? (double)NAN : (double)INFINITY;
        return (float)(half & 0x8000 ? -value : value);
}

static uint32_t reference_code(const uint8_t *packed, size_t n_codes, uint32_t bits, size_t i) {
        uint32_t code = 0, shift = 0;

        for (uint32_t w = 4; w; w /= 2) {
                size_t run_bytes = 0, block_at = 0, q = 0;

                if (!(bits & w))
                        continue;
                for (size_t first = 0; first < n_codes; first += 64) {
                        size_t t = n_codes - first < 64 ? n_codes - first : 64;
                        size_t bytes = (t * w + 7) / 8;

                        if (i / 64 == first / 64) {
                                block_at = run_bytes;
                                q = bytes;
                        }
                        run_bytes += bytes;
                }
                code |= (packed[block_at + i % 64 % q] >> i % 64 / q * w & ((1u << w) - 1))
                        << shift;
                shift += w;
                packed += run_bytes;
        }
        return code;
}

/* The number made of `window` bits of a string from bit `k` x i on; the string is a ring. */
static uint32_t reference_window(const uint8_t *string, size_t n_bytes, uint32_t k, uint32_t window,
                                 size_t i) {
        uint32_t number = 0;

        for (size_t b = 0; b < window; b++) {
                size_t at = i * k + b;

                if (string[at / 8 % n_bytes] & 1 << at % 8)
                        number += 1u << b;
        }
        return number;
}

static float reference_sum(const uint8_t *weights, bool int8, const float *x, size_t n_in,
                           size_t n_out, size_t o, float sum) {
        for (size_t i = 0; i < n_in; i++) {
                size_t at = i * n_out + o;
                float w = int8 ? (float)(weights[at] < 128 ? weights[at] : weights[at] - 256)
                               : reference_half(weights + 2 * at);
                float product = w * x[i];

                if (x[i] != 0)
                        sum = sum + product;
        }
        return sum;
}

static void reference_layer(const uint8_t *layer, bool int8, const float *x, size_t n_in,
                            size_t n_out, bool relu, float *ret_y) {
        for (size_t o = 0; o < n_out; o++) {
                float y;

                if (int8) {
                        float bias = reference_half(layer + 2 * (n_out + o));
                        float product =
                                reference_sum(layer + 4 * n_out, true, x, n_in, n_out, o, 0);

                        product = reference_half(layer + 2 * o) * product;
                        y = n_in ? bias + product : bias;
                } else {
                        float bias = reference_half(layer + 2 * (n_in * n_out + o));

                        y = reference_sum(layer, false, x, n_in, n_out, o, bias);
                }
                ret_y[o] = relu && !(y > 0) ? 0 : y;
        }
}

static void reference_adaptor(const struct codec_table *table, const uint8_t *latent,
                              float *ret_a) {
        const struct table_header *h = &table->contents.header;
        const uint8_t *weights = (const void *)table->adaptor;
        float buffers[3][64];
        size_t n_in = h->latent_dims, at = 0;
        bool int8 = h->adaptor_type == 2;

        for (size_t i = 0; i < n_in; i++)
                buffers[0][i] = h->latent_bits == 8
                                        ? (float)(latent[i] < 128 ? latent[i] : latent[i] - 256)
                                        : reference_half(latent + 2 * i);
        for (; at < 2 && h->hidden_dims[at]; at++) {
                size_t n_out = h->hidden_dims[at];

                reference_layer(weights, int8, buffers[at], n_in, n_out, true, buffers[at + 1]);
                weights +=
                        int8 ? 4 * n_out + n_in * n_out + n_in * n_out % 2 : 2 * (n_in + 1) * n_out;
                n_in = n_out;
        }
        reference_layer(weights, int8, buffers[at], n_in, h->n_dims, false, ret_a);
}

static void reference_carvq(const struct codec_table *table, uint64_t row, const uint8_t *record,
                            uint32_t tier, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        const uint8_t *codebooks = (const void *)table->codebooks;
        const uint8_t *col_scales = (const void *)table->col_scales;
        size_t n = h->n_dims, slots = h->subvector_dims, J = (n + slots - 1) / slots;
        size_t col_groups = (J + h->group_cols - 1) / h->group_cols;
        size_t entries = (size_t)1 << h->window_bits, S = h->window_bits, k = h->tier_bits[tier];
        size_t n_stages = h->tier_stages[tier];
        bool large = entries > 16;
        size_t stage_bytes = large ? (k * J + 7) / 8 : table_packed_bytes(J, (uint32_t)k);
        const uint8_t *latent = record + 2 * h->row_scale;
        const uint8_t *codes = latent + (size_t)h->latent_dims * h->latent_bits / 8;
        float *a = calloc(n, sizeof(float));
        float scale = reference_half((const uint8_t *)&h->tier_scale[tier]);

        if (h->int8_tier && tier + 1 == h->n_tiers) {
                for (size_t i = 0; i < n; i++)
                        ret_values[i] =
                                reference_half(record) *
                                (float)(record[2 + i] < 128 ? record[2 + i] : record[2 + i] - 256);
                free(a);
                return;
        }
        if (h->row_scale)
                scale *= reference_half(record);
        if (h->adaptor_type)
                reference_adaptor(table, latent, a);
        for (size_t i = 0; i < n; i++) {
                size_t d = large ? i % slots : i / J, j = large ? i / slots : i % J;
                size_t group = row / h->group_rows * col_groups + j / h->group_cols;
                float v = 0;

                for (size_t l = 0; l < n_stages; l++) {
                        const uint8_t *s = codes + l * stage_bytes;
                        size_t c_j = large ? reference_window(s, stage_bytes, (uint32_t)k,
                                                              (uint32_t)S, j)
                                           : reference_code(s, J, (uint32_t)k, j);
                        size_t stage = (group * h->n_stages + l) * slots * entries;
                        size_t at = large ? c_j * slots + d : d * entries + c_j;
                        float c = reference_half(codebooks + 2 * (stage + at));

                        v = l == 0 ? c : v + c;
                }
                if (n_stages)
                        v = v * scale;
                if (h->col_scale && n_stages)
                        v = v * reference_half(col_scales + 2 * i);
                if (h->adaptor_type)
                        v = v + a[i];
                ret_values[i] = v;
        }
        free(a);
}

/* Bit `position` of level `level`, both from 0. */
static bool reference_bit(const struct codec_table *table, uint32_t level, uint64_t position) {
        const struct table_header *h = &table->contents.header;
        const uint8_t *block = (const void *)table->tiers;

        for (uint32_t l = 0; l < level; l++)
                block += 64 * (((l ? h->tier_rows[l - 1] : h->n_rows) + 447) / 448);
        block += 64 * (position / 448);
        return block[8 + position % 448 / 8] >> position % 8 & 1;
}

const uint8_t *reference_record(const struct codec_table *table, uint64_t row, uint32_t *ret_tier,
                                uint64_t *ret_n_bytes) {
        const struct table_header *h = &table->contents.header;
        uint64_t position[TABLE_TIERS_MAX] = { 0 };
        const uint8_t *record = table->rows;

        *ret_tier = 0;
        *ret_n_bytes = h->record_bytes;
        if (h->n_tiers <= 1)
                return record + row * h->record_bytes;
        for (uint64_t r = 0;; r++) {
                uint32_t tier = 0;

                while (tier + 1 < h->n_tiers && reference_bit(table, tier, position[tier]++))
                        tier++;
                *ret_tier = tier;
                *ret_n_bytes =
                        h->int8_tier && tier + 1 == h->n_tiers
                                ? 2 + (uint64_t)h->n_dims
                                : table_record_bytes(h, h->tier_stages[tier], h->tier_bits[tier]);
                if (r == row)
                        return record;
                record += *ret_n_bytes;
        }
}

void reference_row(const struct codec_table *table, uint64_t row, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        uint32_t tier;
        uint64_t n_bytes;
        const uint8_t *record = reference_record(table, row, &tier, &n_bytes);
        float scale = 0;

        if (h->codec == TABLE_CODEC_INT8 || h->codec == TABLE_CODEC_INT4)
                memcpy(&scale, record, sizeof(scale));
        for (size_t i = 0; i < h->n_dims; i++)
                switch (h->codec) {
                case TABLE_CODEC_F32:
                        memcpy(&ret_values[i], record + 4 * i, 4);
                        break;
                case TABLE_CODEC_F16:
                        ret_values[i] = reference_half(record + 2 * i);
                        break;
                case TABLE_CODEC_BF16: {
                        uint8_t wide[4] = { 0, 0, record[2 * i], record[2 * i + 1] };
                        memcpy(&ret_values[i], wide, 4);
                        break;
                }
                case TABLE_CODEC_INT8:
                        ret_values[i] = scale * (float)(record[4 + i] < 128 ? record[4 + i]
                                                                            : record[4 + i] - 256);
                        break;
                case TABLE_CODEC_INT4:
                        ret_values[i] =
                                scale *
                                (float)((int)reference_code(record + 4, h->n_dims, 4, i) - 8);
                        break;
                }
        if (h->codec == TABLE_CODEC_CARVQ)
                reference_carvq(table, row, record, tier, ret_values);
}

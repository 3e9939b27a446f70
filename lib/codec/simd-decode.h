/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders of all codecs in the words of whichever simd-ISA.h was included before, for the file
 * that makes a set of kernels of them. Byte-equal to decode-scalar.c. Trusts a checked table's
 * layout and nothing in its chunks. Any thread.
 */
#pragma once

#include "simd-large.h"
#include "simd-small.h"

static struct codec_record find(const struct codec_table *table, uint64_t row) {
        return codec_find(table, row);
}

/* ---- Codec carvq ---- */

static void prepare_inputs(const struct codec_table *table, const struct codec_record *record,
                           struct finish *f) {
        const struct codec_columns *c = &table->prepared->columns;
        float inputs[CODEC_LINEAR_INPUTS_MAX] = { 0 };
        size_t n = MAX(c->n_inputs, CODEC_LINEAR_INPUTS_MIN);

        codec_load_latent(&table->contents.header, record, inputs);
        for (size_t i = 0; i < n; i++) {
                f->inputs[i].weights = c->weights + i * c->stride;
                f->inputs[i].x = inputs[i];
        }
}

/* What is to be done to the record's sums. */
static struct finish finish_of(const struct codec_table *table, const struct codec_record *record,
                               const float *addends) {
        const struct table_header *h = &table->contents.header;
        const struct codec_columns *c = &table->prepared->columns;
        struct finish f = {
                .scale = codec_row_scale(table, record),
                .col_scales = c->scales,
                .addends = addends ? addends : c->biases,
        };

        if (!addends && c->n_inputs) {
                f.kind = FINISH_LINEAR;
                prepare_inputs(table, record, &f);
        } else if (f.scale != 1 || h->col_scale || h->adaptor_type) {
                f.kind = FINISH_COLUMNS;
        }
        return f;
}

/* A row of no stages is what the adaptor makes of it. */
static void decode_no_stages(const struct finish *f, size_t n, float *ret_values) {
        for (size_t i = 0; i < n; i += LANES)
                v_store(ret_values + i, n - i,
                        v_add(v_set(0), finish_addends(f, f->kind, i, n - i)));
}

static void decode_integers(const uint8_t *integers, float scale, size_t n, float *ret_values) {
        for (size_t i = 0; i < n; i += LANES)
                v_store(ret_values + i, n - i,
                        v_mul(v_set(scale), v_load_int8(integers + i, n - i)));
}

static void decode_carvq(const struct codec_table *table, const struct codec_record *record,
                         const float *addends, float *ret_values) {
        const struct table_header *h = &table->contents.header;
        struct finish finish;

        if (!table->prepared) {
                codec_kernels_scalar.decode[TABLE_CODEC_CARVQ](table, record, addends, ret_values);
                return;
        }
        if (codec_is_int8(table, record)) {
                decode_integers(record->bytes + sizeof(uint16_t),
                                half_to_float(codec_load_half(record->bytes)), h->n_dims,
                                ret_values);
                return;
        }
        finish = finish_of(table, record, addends);
        if (!record->n_stages)
                decode_no_stages(&finish, h->n_dims, ret_values);
        else if (table_small_codebooks(h))
                decode_small(table, record, &finish, ret_values);
        else
                decode_large(table, record, &finish, ret_values);
}

/* ---- The other codecs ---- */

static void decode_f16(const struct codec_table *table, const struct codec_record *record,
                       const float *addends, float *ret_values) {
        size_t n = table->contents.header.n_dims;

        (void)addends;
        for (size_t i = 0; i < n; i += LANES)
                v_store(ret_values + i, n - i, v_load_halves(record->bytes + 2 * i, n - i));
}

static void decode_bf16(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        size_t n = table->contents.header.n_dims;

        (void)addends;
        for (size_t i = 0; i < n; i += LANES)
                v_store(ret_values + i, n - i, v_load_bf16(record->bytes + 2 * i, n - i));
}

static void decode_int8(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        float scale;

        (void)addends;
        memcpy(&scale, record->bytes, sizeof(scale));
        decode_integers(record->bytes + sizeof(scale), scale, table->contents.header.n_dims,
                        ret_values);
}

/* Codes of 4 bits that choose among integers. */
static void decode_int4(const struct codec_table *table, const struct codec_record *record,
                        const float *addends, float *ret_values) {
        static const uint16_t levels[16] = { 0xc800, 0xc700, 0xc600, 0xc500, 0xc400, 0xc200,
                                             0xc000, 0xbc00, 0x0000, 0x3c00, 0x4000, 0x4200,
                                             0x4400, 0x4500, 0x4600, 0x4700 }; /* -8 to 7 */
        size_t n_dims = table->contents.header.n_dims;
        const centroids c = load_centroids(levels, 4);
        float scale;

        (void)addends;
        memcpy(&scale, record->bytes, sizeof(scale));
        for (size_t first = 0; first < n_dims; first += TABLE_BLOCK_CODES) {
                size_t n = MIN(n_dims - first, TABLE_BLOCK_CODES);
                uint8_t codes[TABLE_BLOCK_CODES + 8];
                indices in[BLOCK_PARTS];
                vector v[BLOCK_PARTS * PART_VECTORS];

                block_indices(record->bytes + sizeof(scale), n_dims, 4, first, false, codes, in);
                for (size_t p = 0; p < BLOCK_PARTS; p++)
                        look_up(c, in[p], v + p * PART_VECTORS);
                for (size_t i = 0; i < BLOCK_PARTS * PART_VECTORS && i * LANES < n; i++)
                        v_store(ret_values + first + i * LANES, n - i * LANES,
                                v_mul(v_set(scale), v[i]));
        }
}

/* ---- Conversions ---- */

static void f32_to_f16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i += LANES)
                v_store_halves(ret_values + i, n - i, v_load(values + i, n - i));
}

static void f32_to_bf16(const float *values, size_t n, uint16_t *ret_values) {
        for (size_t i = 0; i < n; i += LANES)
                v_store_bf16(ret_values + i, n - i, v_load(values + i, n - i));
}

/* A set of all these; sets of one instruction set differ in what the adaptor runs on. */
#define KERNELS(set_name, adaptor_fn)                                                                \
        {                                                                                            \
                .name = set_name,                                                                  \
                .runs_linear_map = true,                                                           \
                .find = find,                                                                      \
                .decode = {                                                                        \
                        [TABLE_CODEC_F32] = codec_decode_f32,                                      \
                        [TABLE_CODEC_F16] = decode_f16,                                            \
                        [TABLE_CODEC_BF16] = decode_bf16,                                          \
                        [TABLE_CODEC_INT8] = decode_int8,                                          \
                        [TABLE_CODEC_INT4] = decode_int4,                                          \
                        [TABLE_CODEC_CARVQ] = decode_carvq,                                        \
                },                                                                                 \
                .adaptor = adaptor_fn,                                                             \
                .f32_to_f16 = f32_to_f16,                                                          \
                .f32_to_bf16 = f32_to_bf16, \
        }

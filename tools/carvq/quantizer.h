/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The carvq codec's encoder: rows of floats in, records out, for one row group at a time. A row is
 * first given to the adaptor; what the adaptor leaves is divided by its root mean square (the row
 * scale) and coded by RVQ with the codebooks of its column groups.
 */
#pragma once

#include "adaptor.h"
#include "closeness.h"
#include "rvq.h"

struct quantizer {
        struct table_header header; /* the codec's parameters, n_rows and n_dims */
        struct table_layout layout;
        struct rvq_shape shape;
        const struct adaptor_solver *solver; /* NULL: no adaptor */
        float unit; /* power of two: stored scale = rms / unit, stored centroid = centroid * unit */
        uint16_t *codebooks;         /* [column group] as stored */
        float *centroids;            /* the same as floats, [L][h][2^k] */
        struct rvq_search *searches; /* [column group][2]: all slots, and the last one missing */
};

/* `solver` stays the caller's; its shape is the header's. */
int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, struct fault *ret_fault);
void quantizer_deinit(struct quantizer *quantizer);

/*
 * Trains the codebooks of one row group on a sample of its rows. `subvectors` bounds the samples
 * for all column groups together. -ERANGE when a value does not fit a half-float codebook.
 */
int quantizer_train(struct quantizer *quantizer, const float *rows, size_t n_rows,
                    const struct rvq_effort *effort, size_t n_subvectors, uint64_t seed,
                    unsigned n_threads, struct fault *ret_fault);

/*
 * Encodes rows into n_rows * layout.record_bytes bytes and adds to *closeness. `row_first` is for
 * the fault. Thread-safe.
 */
int quantizer_encode(const struct quantizer *quantizer, const float *rows, uint64_t row_first,
                     size_t n_rows, uint8_t *ret_records, struct closeness *closeness,
                     struct fault *ret_fault);

/* Packs a stage's codes of `bits` bits (FORMAT.md, "Packed codes"), with windows of as many. */
void codes_pack(const uint8_t *codes, size_t n_codes, uint32_t bits, uint8_t *ret_bytes);

/*
 * One record of a codec that needs no training, and the values that it decodes to. -ERANGE: value
 * *ret_column is outside the codec's range.
 */
int scalar_encode(uint32_t codec, const float *row, uint32_t n_dims, uint8_t *ret_record,
                  float *ret_decoded, uint32_t *ret_column);

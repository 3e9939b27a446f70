/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The carvq codec's encoder: rows of floats in, records out, for one row group at a time. A row is
 * first given to the adaptor; what the adaptor leaves is divided by its root mean square (the row
 * scale) and coded.
 */
#pragma once

#include "adaptor.h"
#include "closeness.h"
#include "coder.h"

struct quantizer {
        const struct adaptor_solver *solver; /* NULL: no adaptor */
        float unit; /* power of two: stored scale = rms / unit, stored centroid = centroid * unit */
        bool has_columns;
        struct coder coder;
};

/* `solver` stays the caller's; its shape is the header's. `width` is of the search, 0: default. */
int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, uint32_t width, struct fault *ret_fault);
void quantizer_deinit(struct quantizer *quantizer);

/*
 * Trains the codebooks of one row group on a sample of its rows; before the first, the column
 * scales. `tiers` (NULL: all the highest) and `weights` (NULL: all 1) are the rows'. -ERANGE when a
 * value does not fit a half-float codebook.
 */
int quantizer_train(struct quantizer *quantizer, const float *rows, size_t n_rows,
                    const uint8_t *tiers, const float *weights, const struct coder_effort *effort,
                    uint64_t seed, unsigned n_threads, struct fault *ret_fault);

/* A row to encode, and what became of it. */
struct quantizer_rows {
        const float *rows; /* [n_rows][n_dims] */
        size_t n_rows;
        uint64_t row_first;   /* for the fault */
        const uint8_t *tiers; /* [n_rows]; NULL: all the highest */
};

/* Encodes rows into records one after another and adds to *closeness. Thread-safe. */
int quantizer_encode(const struct quantizer *quantizer, const struct quantizer_rows *rows,
                     uint8_t *ret_records, size_t *ret_n_bytes, struct closeness *closeness,
                     struct fault *ret_fault);

/*
 * One record of a codec that needs no training, and the values that it decodes to. -ERANGE: value
 * *ret_column is outside the codec's range.
 */
int scalar_encode(uint32_t codec, const float *row, uint32_t n_dims, uint8_t *ret_record,
                  float *ret_decoded, uint32_t *ret_column);

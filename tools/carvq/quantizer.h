/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The carvq codec's encoder: rows of floats in, records out, for one row group at a time. A row is
 * the adaptor's output plus a scale times codes; which of the two is found first is the order, and
 * no concern of a reader.
 */
#pragma once

#include "adaptor.h"
#include "closeness.h"
#include "coder.h"

enum adaptor_order {
        ADAPTOR_BEFORE,    /* codes stand for what the adaptor leaves of a row */
        ADAPTOR_AFTER,     /* the adaptor stands for what the codes leave, as in the paper */
        ADAPTOR_ALTERNATE, /* as before; then, in turn, each for what the other leaves */
};

struct quantizer {
        const struct adaptor_solver *solver; /* NULL: no adaptor */
        enum adaptor_order order;
        uint32_t row_rounds; /* of codes and latent when alternating: 2, or 1 to code as fast as
                                before */
        float unit; /* power of two: stored scale = rms / unit, stored centroid = centroid * unit */
        bool has_columns;
        struct coder coder;
};

/* `solver` stays the caller's; its shape is the header's. `width` is of the search, 0: default. */
int quantizer_init(struct quantizer *quantizer, const struct table_header *header,
                   const struct adaptor_solver *solver, enum adaptor_order order, uint32_t width,
                   struct fault *ret_fault);
void quantizer_deinit(struct quantizer *quantizer);

struct quantizer_rows {
        const float *rows; /* [n_rows][n_dims] */
        size_t n_rows;
        uint64_t row_first;   /* for the fault */
        const uint8_t *tiers; /* [n_rows]; NULL: all the highest */
};

/*
 * Trains the codebooks of one row group on a sample of its rows; before the first, the column
 * scales. In any order but BEFORE `refit` (NULL: the adaptor stays as it is) is fitted to what the
 * codes leave, and its solver becomes the quantizer's; for ALTERNATE it is that already, for AFTER
 * there need not have been one. Alternation ends where the sample comes no closer. -ERANGE when a
 * value does not fit a half-float codebook, or an adaptor after the codes does not fit half.
 */
int quantizer_train(struct quantizer *quantizer, const struct quantizer_rows *rows,
                    struct adaptor_fit *refit, const struct coder_effort *effort, uint64_t seed,
                    unsigned n_threads, struct fault *ret_fault);

/*
 * How close rows come once they are encoded, and what the codes leave of them ([n_rows][n_dims];
 * may be NULL). Rows of a tier without codes have nothing to teach an adaptor: of those it is what
 * the present one makes of them.
 */
int quantizer_leftovers(const struct quantizer *quantizer, const struct quantizer_rows *rows,
                        unsigned n_threads, float *ret_left, struct closeness *ret_closeness,
                        struct fault *ret_fault);

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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From normalized rows to codes, for one row group at a time: residual vector quantization
 * (coder-rvq.c) where a code chooses its centroid alone, trellis coding (coder-trellis.c) where the
 * bits before it take part. Values are divided by their column's scale first, where there is one.
 */
#pragma once

#include "rvq.h"
#include "trellis.h"

struct coder {
        struct table_header header; /* the codec's parameters, n_rows and n_dims */
        struct table_layout layout;
        bool trellis;
        struct rvq_shape rvq;
        struct trellis_shape path;
        uint16_t *codebooks;         /* [column group] as stored; one row group */
        float *centroids;            /* the same as floats, in the order of rvq.h or trellis.h */
        struct rvq_search *searches; /* [column group][2]: all slots, and with some missing */
        uint16_t *col_scales;        /* [n_dims] as stored */
        float *cols;                 /* the same as floats, all 1 without column scales */
        float *weights;              /* of columns, in the error; NULL without column scales */
        uint32_t width;              /* of the search */
};

int coder_init(struct coder *coder, const struct table_header *header, uint32_t width,
               struct fault *ret_fault);
/* A coder of the same parameters with the same columns and centroids, to be trained further. */
int coder_copy(const struct coder *coder, struct coder *ret_coder);
void coder_deinit(struct coder *coder);

/* Scales of the columns of normalized rows: their root mean squares. Once, before training. */
void coder_set_columns(struct coder *coder, const float *values, size_t n_rows);

struct coder_samples {
        const float *values; /* [n_rows][n_dims], normalized */
        size_t n_rows;
        const float *row_weights; /* in the error; NULL: all 1 */
        const uint8_t *tiers;     /* NULL: all the highest */
};

struct coder_effort {
        struct rvq_effort rvq;
        struct trellis_effort trellis;
        size_t n_subvectors; /* RVQ: at most so many are trained on, over all column groups */
};

/* `values` are divided by the column scales in place. -ERANGE: a centroid does not fit half. */
int coder_train(struct coder *coder, float *values, const struct coder_samples *samples,
                const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                struct fault *ret_fault);

/* Passes that `effort` will report at most. */
uint64_t coder_n_passes(const struct coder *coder, const struct coder_effort *effort);

struct coder_scratch {
        struct rvq_scratch rvq;
        struct trellis_scratch trellis;
        float *values;    /* [n_dims], divided by column scales */
        uint8_t *codes;   /* [L][J] */
        uint16_t *states; /* [J] */
};

int coder_scratch_init(struct coder_scratch *scratch, const struct coder *coder);
void coder_scratch_deinit(struct coder_scratch *scratch);

/*
 * The codes of one row of tier `tier`, packed as in a record, and the values that they decode to,
 * column scales included. Thread-safe.
 */
void coder_encode(const struct coder *coder, struct coder_scratch *scratch, const float *values,
                  uint32_t tier, uint8_t *ret_bytes, float *ret_decoded);

/* ---- Between coder.c and the two methods ---- */

int coder_rvq_train(struct coder *coder, const struct coder_samples *samples,
                    const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                    struct fault *ret_fault);
void coder_rvq_encode(const struct coder *coder, struct coder_scratch *scratch, uint32_t tier,
                      uint8_t *ret_bytes, float *ret_decoded);
int coder_trellis_train(struct coder *coder, const struct coder_samples *samples,
                        const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                        struct fault *ret_fault);
void coder_trellis_encode(const struct coder *coder, struct coder_scratch *scratch, uint32_t tier,
                          uint8_t *ret_bytes, float *ret_decoded);

/* Rounds one centroid's value to what a reader will see. */
int coder_round(float value, uint16_t *ret_half, float *ret_value, struct fault *ret_fault);

/* Packs codes of `bits` bits (FORMAT.md, "Packed codes") into table_packed_bytes() bytes. */
void codes_pack(const uint8_t *codes, size_t n_codes, uint32_t bits, uint8_t *ret_bytes);

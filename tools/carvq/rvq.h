/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Residual vector quantization of sub-vectors: training of one group's codebooks, and the search
 * for the codes of one sub-vector. Works on plain arrays of floats; knows nothing of files.
 *
 * Codebooks are float[L][h][2^k], the order of the file. A sub-vector is n_slots <= h consecutive
 * floats; slots past n_slots do not exist (FORMAT.md) and take no part in any distance.
 */
#pragma once

#include "proto/table.h"

struct rvq_shape {
        uint32_t n_stages;
        uint32_t codebook_bits;
        uint32_t subvector_dims;
};

static inline size_t rvq_codebook_floats(const struct rvq_shape *shape) {
        return (size_t)shape->n_stages * shape->subvector_dims << shape->codebook_bits;
}

/* ---- Search (rvq-search.c) ---- */

/* Tables derived from one group's codebooks: the search needs no other arithmetic on centroids. */
struct rvq_search {
        struct rvq_shape shape;
        uint32_t n_slots;
        uint32_t n_lanes; /* 2^k rounded up to the vector width; lanes past 2^k never win */
        uint32_t width;   /* prefixes kept between stages */
        float *entries;   /* [L][n_slots][n_lanes] */
        float *norms;     /* [L][n_lanes], squared; FLT_MAX / 4 in the padding */
        float *cross;     /* [pairs a < b][2^k][n_lanes]: 2 <entry of stage a, entry of stage b> */
};

/*
 * A beam of `width` prefixes is kept. 0: of at most RVQ_EXHAUSTIVE_BITS of stages all combinations
 * are tried; beyond that RVQ_WIDTH_DEFAULT are kept.
 */
#define RVQ_EXHAUSTIVE_BITS 12u
#define RVQ_WIDTH_DEFAULT   16u
#define RVQ_WIDTH_MAX       1024u

int rvq_search_init(struct rvq_search *search, const struct rvq_shape *shape,
                    const float *codebooks, uint32_t n_slots, uint32_t width);
/* Memory that such a search takes. */
uint64_t rvq_search_bytes(const struct rvq_shape *shape, uint32_t n_slots);
void rvq_search_deinit(struct rvq_search *search);

/* One thread's working memory for any search with this shape and width or less. */
struct rvq_scratch {
        float *products;   /* [L][n_lanes] */
        uint64_t *keys;    /* candidates, see candidate_key() */
        float *costs[2];   /* [width] */
        uint8_t *codes[2]; /* [width][L] */
};

int rvq_scratch_init(struct rvq_scratch *scratch, const struct rvq_search *search);
void rvq_scratch_deinit(struct rvq_scratch *scratch);

/*
 * Codes of the first `n_stages` stages for the n_slots floats at `values`. Returns the squared
 * error up to rounding. Ties go to the lowest index; the same on every instruction set, because
 * lanes never mix and nothing is fused.
 */
float rvq_search_encode(const struct rvq_search *search, struct rvq_scratch *scratch,
                        const float *values, uint32_t n_stages, uint8_t *ret_codes);

/* The sum of the chosen entries, in the order of FORMAT.md. */
void rvq_decode(const struct rvq_shape *shape, const float *codebooks, uint32_t n_slots,
                uint32_t n_stages, const uint8_t *codes, float *ret_values);

/* ---- Training (rvq-train.c) ---- */

struct rvq_samples {
        const float *values; /* [n][n_slots] */
        size_t n;
        uint32_t n_slots;
        const uint8_t *n_stages; /* [n]: each sample is coded with as many; NULL: with all */
};

struct rvq_effort {
        uint32_t lloyd_passes; /* at most, for each stage */
        uint32_t joint_passes; /* at most, over all stages */
        uint32_t width;        /* of the search, 0: default */
        float temperature;     /* of the first joint pass; 0: no perturbation */
        bool warm;             /* go on from the codebooks there are, by joint passes alone */
        /* May be NULL: called after each pass, and for those that were not needed. */
        void (*passed)(void *userdata, uint32_t n_passes);
        void *userdata;
};

/* Seeds 2^k centroids of one stage by k-means++; `ret_codebook` is [h][2^k]. */
int rvq_seed(const struct rvq_shape *shape, const struct rvq_samples *samples, uint64_t seed,
             float *ret_codebook);

/*
 * One pass: codes for all samples, then codebooks of all stages that are better for these codes
 * (least squares by block coordinate descent, which cannot raise the error; with one stage this is
 * Lloyd's iteration). `codes` is [n][L]. Returns the mean squared error of the coding in
 * *ret_error, that is, before the update.
 */
int rvq_pass(const struct rvq_shape *shape, const struct rvq_samples *samples, uint32_t width,
             unsigned n_threads, float *codebooks, uint8_t *codes, double *ret_error);

/* The whole training. The result is not yet rounded to half. */
int rvq_train(const struct rvq_shape *shape, const struct rvq_samples *samples,
              const struct rvq_effort *effort, uint64_t seed, unsigned n_threads,
              float *ret_codebooks);

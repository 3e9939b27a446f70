/* SPDX-License-Identifier: Apache-2.0 */
/* Trellis coding: one path for each row, over all its sub-vectors. One stage. */
#include <string.h>

#include "coder.h"

/* Where the file has slot d of state s: half[2^S][h]. */
static int round_centroids(struct coder *c, struct fault *ret_fault) {
        uint32_t h = c->header.subvector_dims, n_states = 1u << c->header.window_bits;
        size_t n_group = trellis_group_floats(&c->path);

        for (size_t g = 0; g < c->layout.n_col_groups; g++)
                for (uint32_t s = 0; s < n_states; s++)
                        for (uint32_t d = 0; d < h; d++) {
                                float *value =
                                        &c->centroids[g * n_group + (size_t)d * n_states + s];
                                size_t entry = trellis_entry(s, c->header.window_bits);
                                int r = coder_round(*value,
                                                    &c->codebooks[g * n_group + entry * h + d],
                                                    value, ret_fault);
                                if (r < 0)
                                        return r;
                        }
        return 0;
}

int coder_trellis_train(struct coder *c, const struct coder_samples *samples,
                        const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                        struct fault *ret_fault) {
        _cleanup_(freep) uint8_t *code_bits = malloc(samples->n_rows);
        _cleanup_(freep) float *rows = NULL;
        _cleanup_(freep) float *weights = NULL;
        uint32_t n_dims = c->header.n_dims;
        struct trellis_samples kept = { .weights = c->weights };
        int r;

        /* Rows without codes take no part. */
        rows = malloc(samples->n_rows * n_dims * sizeof(float));
        weights = malloc(samples->n_rows * sizeof(float));
        if (!code_bits || !rows || !weights)
                return -ENOMEM;
        for (size_t i = 0; i < samples->n_rows; i++) {
                uint32_t tier = samples->tiers ? samples->tiers[i] : c->header.n_tiers - 1;

                if (c->header.tier_stages[tier] == 0)
                        continue;
                memcpy(rows + kept.n_rows * n_dims, samples->values + i * n_dims,
                       n_dims * sizeof(float));
                weights[kept.n_rows] = samples->row_weights ? samples->row_weights[i] : 1;
                code_bits[kept.n_rows++] = c->header.tier_bits[tier];
        }
        if (kept.n_rows == 0)
                return 0; /* the codebook stays zero, and nobody will look at it */
        kept.rows = rows;
        kept.row_weights = weights;
        kept.code_bits = code_bits;
        r = trellis_train(&c->path, &kept, &effort->trellis, seed, n_threads, c->centroids);
        return r < 0 ? r : round_centroids(c, ret_fault);
}

void coder_trellis_encode(const struct coder *c, struct coder_scratch *scratch, uint32_t tier,
                          uint8_t *ret_bytes, float *ret_decoded) {
        uint32_t code_bits = c->header.tier_bits[tier];

        trellis_encode(&c->path, c->centroids, &scratch->trellis, scratch->values, c->weights,
                       code_bits, scratch->states);
        trellis_decode(&c->path, c->centroids, scratch->states, ret_decoded);
        trellis_pack(scratch->states, c->layout.n_subvectors, c->header.window_bits, code_bits,
                     ret_bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Residual vector quantization: each sub-vector is coded by itself, with its group's codebooks. */
#include <string.h>

#include "coder.h"

/* Slots of sub-vector j: its dimensions below n_dims. */
static uint32_t n_slots(const struct coder *c, uint32_t j) {
        if (!table_small_codebooks(&c->header))
                return MIN(c->header.subvector_dims,
                           c->header.n_dims - j * c->header.subvector_dims);
        return (uint32_t)div_round_up(c->header.n_dims - j, c->layout.n_subvectors);
}

/* Of a group's last slot, where there is one: what stands in for it in sub-vectors that lack it. */
static float mean_of_slot(const struct coder *c, const struct coder_samples *samples, uint32_t slot,
                          uint32_t first) {
        size_t at = (size_t)slot * c->layout.n_subvectors + first, n = c->header.n_dims - at;
        double sum = 0;

        for (size_t i = 0; i < samples->n_rows; i++)
                for (size_t k = 0; k < n; k++)
                        sum += (double)samples->values[i * c->header.n_dims + at + k];
        return (float)(sum / ((double)samples->n_rows * (double)n));
}

/* What is trained on: sub-vectors of columns [first, end) spread evenly over the rows. */
static int gather(const struct coder *c, const struct coder_samples *samples, uint32_t first,
                  uint32_t end, size_t n_max, struct rvq_samples *ret_samples) {
        uint32_t slots = n_slots(c, first);
        uint64_t n_all = (uint64_t)samples->n_rows * (end - first), n = MIN(n_all, n_max);
        float *values = malloc(n * slots * sizeof(float)), stand_in = 0;
        uint8_t *n_stages = malloc(n);

        if (!values || !n_stages) {
                free(values);
                free(n_stages);
                return -ENOMEM;
        }
        if (n_slots(c, end - 1) < slots)
                stand_in = mean_of_slot(c, samples, slots - 1, first);
        for (uint64_t i = 0; i < n; i++) {
                uint64_t at = (uint64_t)((double)i * ((double)n_all / (double)n));
                size_t row = at / (end - first);
                uint32_t j = first + (uint32_t)(at % (end - first));
                uint32_t tier = samples->tiers ? samples->tiers[row] : c->header.n_tiers - 1;

                n_stages[i] = c->header.tier_stages[tier];
                for (uint32_t d = 0; d < slots; d++)
                        values[i * slots + d] =
                                d < n_slots(c, j)
                                        ? samples->values[row * c->header.n_dims +
                                                          table_slot_dim(&c->header, &c->layout, j,
                                                                         d)]
                                        : stand_in;
        }
        *ret_samples = (struct rvq_samples){ values, n, slots, n_stages };
        return 0;
}

/* Where the file has entry i of [L][h][2^k]. */
static size_t stored_at(const struct coder *c, size_t i) {
        size_t n = (size_t)1 << c->header.codebook_bits, h = c->header.subvector_dims;

        return table_small_codebooks(&c->header) ? i : (i / (n * h) * n + i % n) * h + i / n % h;
}

/* The search runs on exactly the values that a reader will see. */
static int finish_group(struct coder *c, uint32_t group, uint32_t slots, uint32_t fewest,
                        struct fault *ret_fault) {
        size_t n = rvq_codebook_floats(&c->rvq);
        float *centroids = c->centroids + group * n;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n; i++)
                r = coder_round(centroids[i], &c->codebooks[group * n + stored_at(c, i)],
                                &centroids[i], ret_fault);
        for (uint32_t missing = 0; r >= 0 && missing <= (fewest < slots); missing++)
                r = rvq_search_init(&c->searches[2 * group + missing], &c->rvq, centroids,
                                    missing ? fewest : slots, c->width);
        return r;
}

static int train_group(struct coder *c, uint32_t group, const struct coder_samples *samples,
                       const struct coder_effort *effort, size_t n_max, uint64_t seed,
                       unsigned n_threads, struct fault *ret_fault) {
        uint32_t first = group * c->header.group_cols, slots = n_slots(c, first);
        uint32_t end = MIN(first + c->header.group_cols, c->layout.n_subvectors), whole = end;
        uint32_t fewest = n_slots(c, end - 1);
        struct rvq_samples chosen;
        int r;

        /* The last sub-vectors may lack slots. They are coded with these codebooks all the same,
         * but trained on only where there are too few whole ones to learn from. */
        while (n_slots(c, whole - 1) < slots)
                whole--;
        if (2 * (whole - first) > end - first || !table_small_codebooks(&c->header))
                end = whole;
        r = gather(c, samples, first, end, n_max, &chosen);
        if (r < 0)
                return r;
        r = rvq_train(&c->rvq, &chosen, &effort->rvq, seed + group, n_threads,
                      c->centroids + group * rvq_codebook_floats(&c->rvq));
        free((float *)chosen.values);
        free((uint8_t *)chosen.n_stages);
        return r < 0 ? r : finish_group(c, group, slots, fewest, ret_fault);
}

int coder_rvq_train(struct coder *c, const struct coder_samples *samples,
                    const struct coder_effort *effort, uint64_t seed, unsigned n_threads,
                    struct fault *ret_fault) {
        size_t n_min = (size_t)64 << c->header.codebook_bits;
        size_t n_max = MAX(effort->n_subvectors / c->layout.n_col_groups, n_min);
        int r = 0;

        for (uint32_t group = 0; r >= 0 && group < c->layout.n_col_groups; group++)
                r = train_group(c, group, samples, effort, n_max, seed, n_threads, ret_fault);
        return r;
}

void coder_rvq_encode(const struct coder *c, struct coder_scratch *scratch, uint32_t tier,
                      uint8_t *ret_bytes, float *ret_decoded) {
        uint32_t n_subvectors = c->layout.n_subvectors, n_stages = c->header.tier_stages[tier];
        size_t n = rvq_codebook_floats(&c->rvq);

        for (uint32_t j = 0; j < n_subvectors; j++) {
                uint32_t group = j / c->header.group_cols, slots = n_slots(c, j);
                bool missing = slots < n_slots(c, group * c->header.group_cols);
                float values[TABLE_SUBVECTOR_DIMS_MAX];
                uint8_t codes[TABLE_STAGES_MAX];

                for (uint32_t d = 0; d < slots; d++)
                        values[d] = scratch->values[table_slot_dim(&c->header, &c->layout, j, d)];
                rvq_search_encode(&c->searches[2 * group + missing], &scratch->rvq, values,
                                  n_stages, codes);
                rvq_decode(&c->rvq, c->centroids + group * n, slots, n_stages, codes, values);
                for (uint32_t d = 0; d < slots; d++)
                        ret_decoded[table_slot_dim(&c->header, &c->layout, j, d)] = values[d];
                for (uint32_t l = 0; l < n_stages; l++)
                        scratch->codes[(size_t)l * n_subvectors + j] = codes[l];
        }
        for (uint32_t l = 0; l < n_stages; l++)
                codes_pack(scratch->codes + (size_t)l * n_subvectors, n_subvectors,
                           c->header.codebook_bits, ret_bytes + l * c->layout.stage_bytes[tier]);
}

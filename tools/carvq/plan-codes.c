/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels are what a row may cost; the rows are dealt to the best few of them (tiers.h), for
 * sub-vectors of four, two and one dimensions, and the best of that is taken.
 */
#include "plan-codes.h"

#include <float.h>
#include <string.h>

#include "lib/codec/half.h"

#define META_BYTES 512u /* what the meta chunk takes at most, as packed */
/*
 * Of the error, for twice the look-ups: 1.55 times the time to decode a row. Of narrow rows a
 * codebook and whole bytes take a larger share, and there is less to win elsewhere.
 */
#define NARROWER_GAIN 1.05
#define NARROW_GAIN   1.01
#define NARROW_N_DIMS 256u

/* A second round of alternation doubles the time to encode and leaves 0.3 % less than one, which
 * leaves 0.5 % less than none (three components, 32,768 x 640 of Gemma at 1.6 bits). */
/* Of the first pass, in deviations of a codebook's entries. MiniLM: 0.4 % less error with stages of
 * 4 bits, 0.2 % with 8; from 0.1 on it is less. */
#define ANNEALING 0.03f

const struct plan_effort plan_presets[] = {
        [PLAN_FAST] = { 10, 8, 6, 10, 0, 8, 1 },
        [PLAN_DEFAULT] = { 12, 8, 10, 20, ANNEALING, 12, 1 },
        [PLAN_BEST] = { 14, 16, 12, 30, ANNEALING, 16, 2 },
};

/* ---- Bytes ---- */

/* Whole bytes of the file but for the rows and the tier map. */
static double fixed_bytes(const struct table_header *header) {
        struct table_layout l = { 0 };

        table_layout_compute(header, &l, NULL);
        return (double)align_up(sizeof(*header) + TABLE_CHUNKS_MAX * sizeof(struct table_chunk) +
                                        l.codebook_bytes + l.adaptor_bytes +
                                        3 * TABLE_CHUNK_ALIGNMENT,
                                TABLE_ROWS_ALIGNMENT) +
               TABLE_CHUNK_ALIGNMENT + META_BYTES;
}

/* ---- Codes ---- */

/*
 * What trellis codes of N(0,1) values leave, as a multiple of the least that is possible at the
 * rate, 2^(-2 k / h). Fitted to measurements of k = 2 ... 10 and windows of 8 to 14 bits, within a
 * few percent: every bit that a window has beyond its code takes 0.134 of what is left to gain.
 */
#define CODE_BITS_MAX   12u
#define WINDOW_BITS_MIN 5u

static double code_loss(uint32_t subvector_dims, double code_bits, uint32_t window_bits) {
        double rate = code_bits / subvector_dims;
        double memoryless = subvector_dims >= 4   ? 0.28 + 0.155 * rate
                            : subvector_dims >= 2 ? 0.42 + 0.135 * rate
                                                  : 0.55 + 0.165 * rate;

        return exp2(memoryless * pow(0.866, window_bits - code_bits));
}

double plan_code_error(uint32_t subvector_dims, uint32_t code_bits, uint32_t window_bits) {
        if (code_bits == 0)
                return 1;
        return code_loss(subvector_dims, code_bits, window_bits) /
               plan_worth((double)code_bits / subvector_dims);
}

void plan_set_codes(struct table_header *h, uint32_t subvector_dims, uint32_t code_bits,
                    uint32_t window_bits) {
        h->subvector_dims = MIN(subvector_dims, h->n_dims);
        h->codebook_bits = code_bits;
        h->window_bits = window_bits;
        h->group_cols = (uint32_t)div_round_up(h->n_dims, h->subvector_dims);
        h->group_rows = h->n_rows;
        table_set_one_tier(h, 1);
}

/* The window whose codebook is worth its bytes, for codes of about `code_bits`. */
static uint32_t choose_window(const struct table_header *header, uint32_t subvector_dims,
                              double code_bits, uint32_t max) {
        double n = (double)header->n_rows * header->n_dims, best_cost = INFINITY;
        uint32_t best = WINDOW_BITS_MIN;

        for (uint32_t s = WINDOW_BITS_MIN; s <= max; s++) {
                double cost = code_loss(subvector_dims, MIN(code_bits, s), s) *
                              plan_worth(MAX(code_bits - s, 0.) / subvector_dims +
                                         16. * subvector_dims * (1u << s) / n);

                if (cost < best_cost) {
                        best = s;
                        best_cost = cost;
                }
        }
        return best;
}

bool plan_wants_columns(const struct plan_request *request, const struct table_header *h) {
        if (request->col_scale != PLAN_AUTO)
                return request->col_scale == PLAN_ON;
        return h->window_bits > h->codebook_bits && h->n_rows >= 1024;
}

/* ---- Tiers ---- */

/* What a row may cost: no codes at all, codes of 1 to CODE_BITS_MAX bits, or integers. */
#define LEVEL_INT8 UINT8_MAX
#define INT8_ERROR 6e-5 /* of N(0,1) values; a larger row of codes is no better */

struct levels {
        uint32_t n;
        struct tier_level level[CODE_BITS_MAX + 2];
        uint8_t code_bits[CODE_BITS_MAX + 2];
};

static void add_level(struct levels *l, double bytes, double error, uint8_t code_bits) {
        /* In very narrow rows longer codes may cost nothing. */
        if (l->n > 0 && bytes <= l->level[l->n - 1].bytes)
                l->n--;
        l->level[l->n] = (struct tier_level){ bytes, error };
        l->code_bits[l->n++] = code_bits;
}

/* With counts a row that nobody uses need not have codes. */
static void make_levels(const struct table_header *header, bool counts, struct levels *ret_levels) {
        double int8_bytes = (double)table_int8_record_bytes(header);
        struct table_layout l = { 0 };

        ret_levels->n = 0;
        table_layout_compute(header, &l, NULL);
        for (uint32_t k = counts ? 0 : 1; k <= MIN(CODE_BITS_MAX, header->window_bits); k++) {
                double bytes = (double)(l.codes_offset + (k ? table_stage_bytes(header, k) : 0));

                if (bytes < int8_bytes || k <= 1)
                        add_level(ret_levels, bytes,
                                  plan_code_error(header->subvector_dims, k, header->window_bits),
                                  (uint8_t)k);
        }
        if (ret_levels->level[ret_levels->n - 1].bytes < int8_bytes)
                add_level(ret_levels, int8_bytes, INT8_ERROR, LEVEL_INT8);
}

/*
 * The highest level that the budget has for all rows and the next one, for what is left of it.
 * Where nobody knows the rows' use each is worth the same care: dealt by energy alone, bits of
 * small rows would go to large ones, and of cosines 7 % more of what they lack would be lost than
 * squared error won.
 */
static void keep_neighbours(struct levels *l, double row_bytes) {
        uint32_t first = 0;

        while (first + 1 < l->n && l->level[first + 1].bytes <= row_bytes)
                first++;
        l->n = MIN(l->n - first, 2u);
        memmove(l->level, l->level + first, l->n * sizeof(*l->level));
        memmove(l->code_bits, l->code_bits + first, l->n * sizeof(*l->code_bits));
}

#define WEIGHT_ROWS 4096u

/*
 * What the errors of rows [first, first + n), at most WEIGHT_ROWS, weigh, relative to the rows:
 * their use, or, where nobody knows it, their energy, since that makes the squared error.
 */
static int read_weights(const struct plan_request *request, const struct survey *survey,
                        uint64_t first, size_t n, float *ret_weights, struct fault *ret_fault) {
        if (request->counts)
                return counts_read(request->counts, first, n, ret_weights, ret_fault);
        for (size_t i = 0; i < n; i++)
                ret_weights[i] = survey_energy(survey, first + i);
        return 0;
}

/* Of the rows that bits are allocated to: all but outliers. */
static int weigh_rows(const struct plan_request *request, const struct survey *survey,
                      struct tier_histogram *histogram, struct fault *ret_fault) {
        uint64_t n_rows = request->header.n_rows;
        float weights[WEIGHT_ROWS];

        for (uint64_t i = 0; i < n_rows; i += WEIGHT_ROWS) {
                size_t n = (size_t)MIN(n_rows - i, WEIGHT_ROWS), n_kept = 0;
                int r = read_weights(request, survey, i, n, weights, ret_fault);

                if (r < 0)
                        return r;
                for (size_t j = 0; j < n; j++)
                        if (!survey_is_outlier(survey, i + j))
                                weights[n_kept++] = weights[j];
                tier_histogram_add(histogram, weights, n_kept);
        }
        return 0;
}

/* Before all other rows. */
static const float outlier_weight = FLT_MAX;

int plan_deal(const struct plan_request *request, const struct plan *plan, uint8_t *ret_tiers,
              struct fault *ret_fault) {
        _cleanup_(freep) struct tier_assigner *assigner = malloc(sizeof(*assigner));
        uint64_t n_rows = request->header.n_rows;
        float weights[WEIGHT_ROWS];

        if (!assigner)
                return -ENOMEM;
        tier_assigner_init(assigner, plan->histogram, &plan->tiers);
        for (uint64_t i = 0; i < n_rows; i += WEIGHT_ROWS) {
                size_t n = (size_t)MIN(n_rows - i, WEIGHT_ROWS);
                int r = read_weights(request, &plan->survey, i, n, weights, ret_fault);

                if (r < 0)
                        return r;
                for (size_t j = 0; j < n; j++)
                        ret_tiers[i + j] = tier_assign(
                                assigner, survey_is_outlier(&plan->survey, i + j) ? outlier_weight
                                                                                  : weights[j]);
        }
        return 0;
}

/* Codes of fewer bits are smaller, like everything that is the mean of what it stands for. */
static uint16_t tier_scale(const struct table_header *h, uint32_t code_bits) {
        double mine = 1 - plan_code_error(h->subvector_dims, code_bits, h->window_bits);
        double top = 1 - plan_code_error(h->subvector_dims, h->codebook_bits, h->window_bits);

        if (code_bits == 0 || code_bits == h->codebook_bits)
                return TABLE_HALF_ONE;
        return float_to_half((float)sqrt(MAX(mine, 0.01) / MAX(top, 0.01)));
}

static void apply_tiers(struct table_header *h, const struct tier_allocation *a,
                        const struct levels *levels) {
        uint32_t n_codes;

        h->n_tiers = a->n_tiers;
        h->int8_tier = levels->code_bits[a->level[a->n_tiers - 1]] == LEVEL_INT8;
        n_codes = table_code_tiers(h);
        h->codebook_bits = n_codes ? levels->code_bits[a->level[n_codes - 1]] : 0;
        memset(h->tier_stages, 0, sizeof(h->tier_stages));
        memset(h->tier_bits, 0, sizeof(h->tier_bits));
        memset(h->tier_scale, 0, sizeof(h->tier_scale));
        for (uint32_t t = 0; t < n_codes; t++) {
                h->tier_bits[t] = levels->code_bits[a->level[t]];
                h->tier_stages[t] = h->tier_bits[t] ? 1 : 0;
                h->tier_scale[t] = tier_scale(h, h->tier_bits[t]);
        }
        for (uint32_t t = 1; t < a->n_tiers; t++)
                h->tier_rows[t - 1] = a->n_rows[t];
        h->n_stages = 1;
}

/* Outliers join the rows of integers, or are the only ones. */
static void add_outliers(struct table_header *h, struct tier_allocation *a, uint64_t n_outliers) {
        if (n_outliers == 0)
                return;
        if (!h->int8_tier) {
                a->n_rows[a->n_tiers++] = 0;
                h->int8_tier = 1;
        }
        for (uint32_t t = 0; t < a->n_tiers; t++)
                a->n_rows[t] += n_outliers;
        h->n_tiers = a->n_tiers;
        for (uint32_t t = 1; t < a->n_tiers; t++)
                h->tier_rows[t - 1] = a->n_rows[t];
}

/* One way to spend the bits. */
struct spending {
        struct table_header header;
        struct tier_allocation tiers;
        double bits_min; /* what such a table takes at least */
        int r;
};

/* The best that sub-vectors of `subvector_dims` reach. -ENOSPC: there are too few bits. */
static int spend(const struct plan_request *request, const struct tier_histogram *histogram,
                 uint64_t n_outliers, uint32_t subvector_dims, struct spending *s) {
        struct table_header *h = &s->header;
        double n = (double)h->n_rows * h->n_dims, fixed, budget;
        struct levels levels;

        plan_set_codes(h, subvector_dims, 1,
                       choose_window(h, subvector_dims, request->bits * subvector_dims,
                                     plan_presets[request->preset].window_bits));
        h->col_scale = plan_wants_columns(request, h);
        make_levels(h, request->counts != NULL, &levels);
        fixed = fixed_bytes(h) + (double)(n_outliers * table_int8_record_bytes(h));
        if (n_outliers) /* one more level of the map */
                fixed += (double)h->n_rows / TABLE_TIER_BLOCK_ROWS * TABLE_CHUNK_ALIGNMENT;
        s->bits_min = (fixed + (double)h->n_rows * levels.level[0].bytes) * 8 / n;
        budget = request->bits * n / 8 - fixed;
        if (!request->counts)
                keep_neighbours(&levels, budget / (double)(h->n_rows - n_outliers));
        s->r = tiers_allocate(histogram, levels.level, levels.n, TABLE_TIERS_MAX, budget,
                              &s->tiers);
        /* Outliers join a tier of integers, or there must be room for theirs. */
        if (s->r >= 0 && n_outliers && s->tiers.n_tiers == TABLE_TIERS_MAX &&
            levels.code_bits[s->tiers.level[TABLE_TIERS_MAX - 1]] != LEVEL_INT8)
                s->r = tiers_allocate(histogram, levels.level, levels.n, TABLE_TIERS_MAX - 1,
                                      budget, &s->tiers);
        if (s->r < 0)
                return s->r == -ENOSPC ? 0 : s->r;
        apply_tiers(h, &s->tiers, &levels);
        if (h->codebook_bits == 0 || table_code_tiers(h) == 0)
                s->r = -ENOSPC; /* nothing but integers, or nothing but means: no such table */
        else
                add_outliers(h, &s->tiers, n_outliers);
        return 0;
}

/* Of which a header's page is a good part of what the default rate allows. */
static bool is_small(const struct plan_request *request, struct table_header header) {
        plan_set_codes(&header, 4, 6, 6);
        return fixed_bytes(&header) * 8 > request->bits / 4 * (double)header.n_rows * header.n_dims;
}

/* A table too small for the default rate: codes of about as many bits, and whatever else it takes.
 */
static void spend_anyway(const struct plan_request *request, struct table_header *h) {
        plan_set_codes(h, 4, 6, 6);
        h->window_bits = MAX(choose_window(h, 4, 6, plan_presets[request->preset].window_bits), 6u);
        h->col_scale = plan_wants_columns(request, h);
}

int plan_decide_codes(const struct plan_request *request, struct plan *plan,
                      struct fault *ret_fault) {
        struct spending best = { .r = -ENOSPC, .bits_min = INFINITY };
        uint64_t n_outliers = plan->survey.n_outliers;
        double gain = plan->header.n_dims < NARROW_N_DIMS ? NARROW_GAIN : NARROWER_GAIN;
        int r;

        if (!request->bits_given && is_small(request, plan->header)) {
                spend_anyway(request, &plan->header);
                return 0;
        }
        plan->histogram = calloc(1, sizeof(*plan->histogram));
        r = plan->histogram ? weigh_rows(request, &plan->survey, plan->histogram, ret_fault)
                            : -ENOMEM;
        for (uint32_t dims = 4; r >= 0 && dims > 0; dims /= 2) {
                struct spending s = { .header = plan->header };

                r = spend(request, plan->histogram, n_outliers, dims, &s);
                if (s.r >= 0 && (best.r < 0 || s.tiers.error * gain < best.tiers.error))
                        best = s;
                best.bits_min = MIN(best.bits_min, s.bits_min);
        }
        if (r < 0)
                return r;
        if (best.r < 0)
                return fault_set(ret_fault, -ENOSPC,
                                 "--bits %g: a table of this shape takes at least %.2f",
                                 request->bits, best.bits_min + 0.005);
        plan->header = best.header;
        plan->tiers = best.tiers;
        for (uint64_t i = 0; i < n_outliers; i++)
                tier_histogram_add(plan->histogram, &outlier_weight, 1);
        return 0;
}

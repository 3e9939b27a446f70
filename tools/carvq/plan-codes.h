/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How bits become codes and tiers: a model of what codes of a length leave, and the best that a
 * number of bits buys by it.
 */
#pragma once

#include <math.h>

#include "plan.h"

/* What presets trade against packing time. */
struct plan_effort {
        uint32_t window_bits;                /* at most */
        uint32_t n_components;               /* of an adaptor, at most */
        uint32_t lloyd_passes, joint_passes; /* RVQ */
        float temperature;                   /* of its perturbation, at first */
        uint32_t n_passes;                   /* trellis */
        uint32_t row_rounds;                 /* of alternation */
};

extern const struct plan_effort plan_presets[];

/* What some bits a parameter are worth: one divides the error by four. */
static inline double plan_worth(double bits) {
        return exp2(2 * bits);
}

/*
 * What trellis codes of N(0,1) values leave of their energy, by a model that was fitted to
 * measurements; 1 for no code at all.
 */
double plan_code_error(uint32_t subvector_dims, uint32_t code_bits, uint32_t window_bits);

/* Trellis codes of one length, or plain ones where the window has no more bits; one tier. */
void plan_set_codes(struct table_header *header, uint32_t subvector_dims, uint32_t code_bits,
                    uint32_t window_bits);

/* Scales of columns are worth their bytes when the columns differ, and trellis codes share one
 * codebook among all. */
bool plan_wants_columns(const struct plan_request *request, const struct table_header *header);

/*
 * Codes and tiers for the plan's header, which has adaptor and row scale, and for its survey.
 * -ENOSPC: the request's bits are too few.
 */
int plan_decide_codes(const struct plan_request *request, struct plan *plan,
                      struct fault *ret_fault);

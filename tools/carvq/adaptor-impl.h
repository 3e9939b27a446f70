/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the adaptor's parts share and nobody else needs: the two loops their products are made of,
 * whose results are the same bits on every CPU, the rounding of a latent, and the affine solver.
 */
#pragma once

#include "adaptor.h"

/* y += a x */
static inline void add_scaled(float *restrict y, float a, const float *restrict x, size_t n) {
        for (size_t i = 0; i < n; i++)
                y[i] += a * x[i];
}

/* Sixteen partial sums, always the same ones, so that it vectorizes without reordering. */
static inline float dot(const float *x, const float *y, size_t n) {
        float sums[16] = { 0 }, sum = 0;
        size_t i = 0;

        for (; i + 16 <= n; i += 16)
                for (size_t e = 0; e < 16; e++)
                        sums[e] += x[i + e] * y[i + e];
        for (; i < n; i++)
                sums[i % 16] += x[i] * y[i];
        for (size_t e = 0; e < 16; e++)
                sum += sums[e];
        return sum;
}

/* For int8 latents: one step past this many ends the range. */
#define LATENT_STEPS 127.f

/* The step at which a latent that reached this far in a sample has a little room beyond it. */
static inline float latent_step(float reach) {
        return reach * 1.05f / LATENT_STEPS;
}

/* As it will be stored. Past the range nothing can be, and what is not a number is of no use. */
float adaptor_round_latent(uint32_t latent_bits, float value);

/* adaptor_solver_init() and adaptor_solve() of an adaptor without hidden layers. */
int adaptor_affine_init(struct adaptor_solver *solver, const struct adaptor *adaptor);
void adaptor_affine_solve(const struct adaptor_solver *solver, const float *targets, size_t n_rows,
                          float *ret_latents, float *ret_outputs);

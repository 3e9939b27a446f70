/* SPDX-License-Identifier: Apache-2.0 */
/* Error and cosine of rows, accumulated in double. Pure; any thread. */
#include "closeness.h"

#include <math.h>

void closeness_init(struct closeness *closeness) {
        *closeness = (struct closeness){ .cosine_min = 1 };
}

void closeness_add_row(struct closeness *c, const float *row, const float *decoded,
                       uint32_t n_dims) {
        double error = 0, energy = 0, other = 0, product = 0, cosine;

        for (uint32_t i = 0; i < n_dims; i++) {
                double x = (double)row[i], y = (double)decoded[i], d = x - y;

                error += d * d;
                energy += x * x;
                other += y * y;
                product += x * y;
                c->max_abs_error = MAX(c->max_abs_error, fabs(d));
        }
        /* A zero row points nowhere: right if it stayed zero, wrong if not. */
        if (energy > 0 && other > 0)
                cosine = product / (sqrt(energy) * sqrt(other));
        else
                cosine = energy > 0 || other > 0 ? 0 : 1;
        c->error += error;
        c->energy += energy;
        c->cosine_sum += cosine;
        c->cosine_min = MIN(c->cosine_min, cosine);
        c->n_rows++;
}

void closeness_add(struct closeness *c, const struct closeness *other) {
        c->error += other->error;
        c->energy += other->energy;
        c->cosine_sum += other->cosine_sum;
        c->cosine_min = MIN(c->cosine_min, other->cosine_min);
        c->max_abs_error = MAX(c->max_abs_error, other->max_abs_error);
        c->n_rows += other->n_rows;
}

double closeness_rel_mse(const struct closeness *c) {
        return c->energy > 0 ? c->error / c->energy : c->error > 0 ? 1 : 0;
}

double closeness_cosine_mean(const struct closeness *c) {
        return c->n_rows ? c->cosine_sum / (double)c->n_rows : 1;
}

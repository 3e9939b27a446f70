/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a row's sums of stages (FORMAT.md, decoding steps 2 and 3), in the words of
 * whichever simd-ISA.h was included before.
 */
#pragma once

/* Of addends and means at most one is set; a NULL finish: nothing is to be done. */
struct finish {
        float scale;                /* 1 where the table has none: exact */
        const uint16_t *col_scales; /* as the table has them; NULL: none, as the others */
        const float *addends;       /* the adaptor's outputs */
        const uint16_t *means;      /* the same, as the table has them, of one without inputs */
};

/* What differs from column to column. */
static inline bool finish_has_columns(const struct finish *finish) {
        return finish && (finish->col_scales || finish->addends || finish->means);
}

/* The first n of dimensions `at` and following. */
static _always_inline vector finish_values(const struct finish *finish, size_t at, size_t n,
                                           vector v) {
        v = v_mul(v, v_set(finish->scale));
        if (finish->col_scales)
                v = v_mul(v, v_load_halves(finish->col_scales + at, n));
        if (finish->addends)
                v = v_add(v, v_load(finish->addends + at, n));
        else if (finish->means)
                v = v_add(v, v_load_halves(finish->means + at, n));
        return v;
}

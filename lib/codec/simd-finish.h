/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a row's sums of stages (FORMAT.md, decoding steps 2 and 3), in the words of
 * whichever simd-ISA.h was included before.
 */
#pragma once

#include "prepared.h"

/* Loops over values are made for each kind, so that what it needs stays in registers. */
enum finish_kind {
        FINISH_NONE,    /* the sums are the row */
        FINISH_COLUMNS, /* scales, and addends */
        FINISH_LINEAR,  /* and a linear map */
};

struct finish {
        enum finish_kind kind;
        float scale;
        const float *col_scales;
        const float *addends; /* the adaptor's outputs, or what the linear map begins with */
        struct {
                const float *weights; /* the fourth: NULL for none */
                float x;
        } inputs[CODEC_LINEAR_INPUTS_MAX];
};

/* The adaptor's outputs for dimensions `at` and following, of which the first n count. */
static _always_inline vector finish_addends(const struct finish *f, enum finish_kind kind,
                                            size_t at, size_t n) {
        vector v = v_load(f->addends + at, n);

        if (kind != FINISH_LINEAR)
                return v;
        v = v_fma(v_set(f->inputs[0].x), v_load(f->inputs[0].weights + at, LANES), v);
        v = v_fma(v_set(f->inputs[1].x), v_load(f->inputs[1].weights + at, LANES), v);
        v = v_fma(v_set(f->inputs[2].x), v_load(f->inputs[2].weights + at, LANES), v);
        if (f->inputs[3].weights)
                v = v_fma(v_set(f->inputs[3].x), v_load(f->inputs[3].weights + at, LANES), v);
        return v;
}

static _always_inline vector finish_values(const struct finish *f, enum finish_kind kind, size_t at,
                                           size_t n, vector v) {
        if (kind == FINISH_NONE)
                return v;
        v = v_mul(v_mul(v, v_set(f->scale)), v_load(f->col_scales + at, LANES));
        return v_add(v, finish_addends(f, kind, at, n));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decides, by measurement on the sample, whether a row scale and an adaptor are worth their bytes.
 * Candidates differ in size, so they are compared at equal bytes: the error that the plain RVQ
 * would reach with the same bytes is interpolated log-linearly from what its last stage gained.
 */
#pragma once

#include "progress.h"
#include "quantizer.h"
#include "sample.h"

enum plan_choice {
        PLAN_AUTO,
        PLAN_OFF,
        PLAN_ON,
};

struct plan_request {
        struct table_header header; /* everything but row scale and adaptor */
        enum plan_choice row_scale;
        enum plan_choice adaptor; /* PLAN_ON: of `adaptor_shape`, still kept only if it pays */
        bool adaptor_force;
        struct adaptor_shape adaptor_shape;
        uint64_t seed;
        unsigned n_threads;
};

struct plan {
        struct table_header header; /* complete */
        struct adaptor adaptor;
        struct adaptor_solver solver;
        char note[256]; /* the comparison, for the user */
};

int plan_make(const struct plan_request *request, const struct sample *sample,
              struct progress *progress, struct plan *ret_plan, struct fault *ret_fault);
void plan_deinit(struct plan *plan);

/* NULL when the plan has no adaptor. */
const struct adaptor_solver *plan_solver(const struct plan *plan);

/* Seeds of phases that must not draw the same numbers. */
enum plan_stream {
        PLAN_STREAM_SAMPLE = 1,
        PLAN_STREAM_ADAPTOR,
        PLAN_STREAM_TRIAL,
        PLAN_STREAM_CODEBOOKS,
};

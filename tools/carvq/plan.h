/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns what the user asked for, usually no more than bits a parameter, into a table's parameters:
 * adaptor, row scale, column scale, codes and tiers. What a component of the adaptor or a bit of
 * code buys is known (a bit a parameter divides the error by four); what depends on the table is
 * measured on the sample.
 */
#pragma once

#include "counts.h"
#include "progress.h"
#include "quantizer.h"
#include "survey.h"
#include "tiers.h"

enum plan_choice {
        PLAN_AUTO,
        PLAN_OFF,
        PLAN_ON,
};

enum plan_preset {
        PLAN_FAST,
        PLAN_DEFAULT,
        PLAN_BEST,
};

#define PLAN_NOTE_BYTES 384u

struct plan_request {
        struct table_header header; /* shape of codes: only if `shape_given` */
        bool shape_given;
        double bits;     /* a parameter, at most, all included; unless `shape_given` */
        bool bits_given; /* else small tables may take more */
        enum plan_preset preset;
        uint32_t width; /* of the RVQ search, 0: default */
        enum plan_choice row_scale;
        enum plan_choice col_scale;
        enum plan_choice adaptor; /* PLAN_ON: of `adaptor_shape`, still kept only if it pays */
        bool adaptor_force;
        struct adaptor_shape adaptor_shape; /* its `type` NONE: whichever weights are better */
        bool order_given;                   /* else what pays */
        enum adaptor_order order;
        struct source *source;
        struct counts *counts; /* of the rows' use; NULL: all alike */
        uint64_t seed;
        unsigned n_threads;
};

struct plan {
        struct table_header header; /* complete */
        struct adaptor_fit adaptor;
        enum adaptor_order order;
        uint32_t row_rounds; /* of alternation */
        struct survey survey;
        struct tier_histogram *histogram; /* of all rows; NULL: there is one tier */
        struct tier_allocation tiers;     /* where the header has more than one */
        struct coder_effort effort;       /* for the final training */
        char note[PLAN_NOTE_BYTES];       /* on the adaptor, for the user */
};

int plan_make(const struct plan_request *request, const struct sample *sample,
              struct progress *progress, struct plan *ret_plan, struct fault *ret_fault);
void plan_deinit(struct plan *plan);

/* The tier of each row, where the plan's header has more than one. */
int plan_deal(const struct plan_request *request, const struct plan *plan, uint8_t *ret_tiers,
              struct fault *ret_fault);

/* NULL when the plan has no adaptor. */
const struct adaptor_solver *plan_solver(const struct plan *plan);

/* Seeds of phases that must not draw the same numbers. */
enum plan_stream {
        PLAN_STREAM_SAMPLE = 1,
        PLAN_STREAM_ADAPTOR,
        PLAN_STREAM_TRIAL,
        PLAN_STREAM_CODEBOOKS,
};

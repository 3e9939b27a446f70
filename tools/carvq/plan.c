/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of decisions: adaptor, its order and the row scale (plan-adaptor.c), and then codes and
 * tiers (plan-codes.c).
 */
#include "plan-codes.h"

#include <stdio.h>
#include <string.h>

#include "plan-adaptor.h"

#define TRIAL_WINDOW 8u /* codebooks of 256 centroids are trained in a moment */

/* The header that trials judge adaptor and scales by: codes of about the right rate. */
static struct table_header trial_header(const struct plan_request *request) {
        struct table_header h = request->header;

        if (!request->shape_given)
                plan_set_codes(
                        &h, request->bits > 2 ? 2 : 4,
                        (uint32_t)MIN(MAX(request->bits * (request->bits > 2 ? 2 : 4), 1.), 8.),
                        TRIAL_WINDOW);
        return h;
}

/* Codes and adaptor of `from` around everything else of `header`. */
static void copy_adaptor(struct table_header *header, const struct table_header *from) {
        header->row_scale = from->row_scale;
        header->col_scale = from->col_scale;
        header->adaptor_type = from->adaptor_type;
        header->latent_dims = from->latent_dims;
        header->latent_bits = from->latent_bits;
        memcpy(header->hidden_dims, from->hidden_dims, sizeof(header->hidden_dims));
}

/* The format's own limits: of training, too, which holds some nine copies of an adaptor. */
static int check_size(const struct plan_request *request, struct table_header header,
                      struct fault *ret_fault) {
        const struct adaptor_shape *shape = &request->adaptor_shape;

        if (!shape->hidden_dims[0] && shape->latent_dims > header.n_dims)
                return fault_set(ret_fault, -EINVAL,
                                 "--adaptor %" PRIu32 ": rows of %" PRIu32
                                 " dimensions have no more components than that",
                                 shape->latent_dims, header.n_dims);
        header.adaptor_type = TABLE_ADAPTOR_HALF;
        header.latent_dims = shape->latent_dims;
        header.latent_bits = shape->latent_dims ? 8 : 0;
        memcpy(header.hidden_dims, shape->hidden_dims, sizeof(header.hidden_dims));
        return table_layout_compute(&header, &(struct table_layout){ 0 }, ret_fault);
}

/* Too few rows to hold any out: what usually wins for such a width. */
static int decide_blindly(const struct plan_request *request, struct plan *plan,
                          struct table_header *h, struct fault *ret_fault) {
        h->row_scale = request->row_scale == PLAN_ON ||
                       (request->row_scale == PLAN_AUTO && h->n_dims > 256);
        if (request->adaptor == PLAN_ON && request->adaptor_force)
                return fault_set(ret_fault, -EINVAL,
                                 "an adaptor needs at least %u rows to be trained on",
                                 PLAN_ROWS_MIN);
        if (request->adaptor != PLAN_OFF)
                snprintf(plan->note, sizeof(plan->note),
                         "none: at least %u rows are needed to train one", PLAN_ROWS_MIN);
        return 0;
}

/* About as many trials as there will be. */
static uint64_t guess_trials(const struct plan_request *request) {
        bool fast = request->preset == PLAN_FAST || request->order_given;
        uint64_t n_scales = request->row_scale == PLAN_AUTO ? 2 : 1;

        return request->adaptor == PLAN_OFF ? n_scales : n_scales + (fast ? 1 : 4);
}

static int decide(const struct plan_request *request, const struct sample *sample,
                  struct progress *progress, struct table_header *h, struct plan *plan,
                  struct fault *ret_fault) {
        int r = 0;

        if (request->adaptor == PLAN_ON)
                r = check_size(request, *h, ret_fault);
        if (r < 0)
                return r;
        if (sample->n_rows < PLAN_ROWS_MIN)
                return decide_blindly(request, plan, h, ret_fault);
        progress_begin(progress, "plan", "trials", guess_trials(request));
        r = plan_decide_adaptor(request, sample, progress, h, plan, ret_fault);
        if (r >= 0)
                progress_end(progress);
        return r;
}

/* ---- The plan ---- */

static void set_effort(const struct plan_request *request, struct plan *plan) {
        plan->row_rounds = plan_presets[request->preset].row_rounds;
        plan->effort = (struct coder_effort){
                .rvq = { .lloyd_passes = plan_presets[request->preset].lloyd_passes,
                         .joint_passes = plan_presets[request->preset].joint_passes,
                         .temperature = plan_presets[request->preset].temperature,
                         .width = request->width },
                .trellis = { .n_passes = plan_presets[request->preset].n_passes },
        };
}

int plan_make(const struct plan_request *request, const struct sample *sample,
              struct progress *progress, struct plan *ret_plan, struct fault *ret_fault) {
        const struct adaptor_solver *solver;
        struct table_header h = trial_header(request);
        int r;

        *ret_plan = (struct plan){ 0 };
        set_effort(request, ret_plan);
        h.col_scale = plan_wants_columns(request, &h);
        r = decide(request, sample, progress, &h, ret_plan, ret_fault);
        if (r >= 0 && request->shape_given) {
                ret_plan->header = h;
                return 0;
        }
        if (r >= 0) {
                ret_plan->header = request->header;
                copy_adaptor(&ret_plan->header, &h);
                /* Codes that come first see the rows as they are. */
                solver = ret_plan->order == ADAPTOR_AFTER ? NULL : plan_solver(ret_plan);
                r = survey_rows(request->source, sample, solver, h.row_scale, request->n_threads,
                                progress, &ret_plan->survey, ret_fault);
        }
        if (r >= 0)
                r = plan_decide_codes(request, ret_plan, ret_fault);
        if (r < 0)
                plan_deinit(ret_plan);
        return r;
}

void plan_deinit(struct plan *plan) {
        free(plan->histogram);
        survey_deinit(&plan->survey);
        adaptor_fit_deinit(&plan->adaptor);
        *plan = (struct plan){ 0 };
}

const struct adaptor_solver *plan_solver(const struct plan *plan) {
        return plan->header.adaptor_type ? &plan->adaptor.solver : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: the only owner of the main thread's io_uring. An operation is a submission entry
 * that the caller fills with io_uring_prep_...() and a callback for its completions.
 */
#pragma once

#include <liburing.h>
#include <poll.h>

#include "mailbox.h"

struct loop;

struct loop_op {
        void (*done)(struct loop_op *op, int32_t res, uint32_t cqe_flags);
};

/* Negative errno where io_uring cannot be had; the fault says what forbids it. */
int loop_new(struct loop **ret_loop, struct fault *ret_fault);
struct loop *loop_free(struct loop *loop);

/*
 * A zeroed entry that will complete into `op`; NULL op: the completion is ignored. The entry is
 * submitted before the loop waits again. Cannot fail: a full queue is submitted first.
 */
struct io_uring_sqe *loop_prepare(struct loop *loop, struct loop_op *op);

/* The loop thread's mailbox: other threads run code here through it. */
struct mailbox *loop_mailbox(struct loop *loop);

/* Calls `turned` each time before the loop waits; what it submits is still submitted before. */
void loop_set_turned(struct loop *loop, void (*turned)(void *userdata), void *userdata);

/* Until loop_stop(); 0 or the negative errno of a broken ring. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* What to tell a person when io_uring_setup() failed with `error`. */
void loop_explain(int error, struct fault *ret_fault);

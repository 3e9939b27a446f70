/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's event loop. An operation is a submission entry that the caller fills with
 * io_uring_prep_...(), whatever performs it, and a callback for its completions.
 */
#pragma once

#include <poll.h>

#include "loop-io.h"
#include "mailbox.h"

struct loop;

/* Negative errno where the choice cannot be had; the fault says what forbids it. */
int loop_new(enum loop_choice choice, struct loop **ret_loop, struct fault *ret_fault);
struct loop *loop_free(struct loop *loop);

bool loop_is_epoll(const struct loop *loop);
/* "io_uring" or "epoll". */
const char *loop_name(const struct loop *loop);
/* What forbids io_uring; empty where it runs, and where nobody asked for it. */
const char *loop_why(const struct loop *loop);

/*
 * A zeroed entry that will complete into `op`, which is idle. The entry is submitted before the
 * loop waits again. Cannot fail: a full queue is submitted first.
 */
struct io_uring_sqe *loop_prepare(struct loop *loop, struct loop_op *op);

/* At once, so that the operation's descriptor may be closed; its last completion still comes. */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* The loop thread's mailbox: other threads run code here through it. */
struct mailbox *loop_mailbox(struct loop *loop);

/* Calls `turned` each time before the loop waits; what it submits is still submitted before. */
void loop_set_turned(struct loop *loop, void (*turned)(void *userdata), void *userdata);

/* Until loop_stop(); 0 or the negative errno of a broken loop. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

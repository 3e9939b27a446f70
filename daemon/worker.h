/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that decodes. It owns the seats attached to it, looks at the rings of those that are
 * awake without any system call, and sleeps in an event loop of its own when all are asleep. Each
 * function below is called on the loop thread; callbacks run there too.
 */
#pragma once

#include "mailbox.h"
#include "serve.h"

struct worker;

/* What becomes of a client's submissions when its seat is let go. */
enum worker_detach_how {
        WORKER_DROP,
        WORKER_DRAIN,  /* those that are there now are served */
        WORKER_FINISH, /* the one under way is; the others stay in the ring */
};

TAILQ_HEAD(worker_seats, worker_seat);

struct worker_seat {
        struct seat seat; /* the worker's while attached */
        int doorbell_fd;  /* owned by the session; only polled here */

        /* The seat broke the protocol and is no longer looked at; detach it. */
        void (*failed)(struct worker_seat *seat, const struct fault *fault);
        void (*detached)(struct worker_seat *seat);

        /* The worker's own. */
        struct worker *worker;
        TAILQ_ENTRY(worker_seat) link;
        struct loop_op doorbell_op;
        struct worker_seats *list; /* of the worker's; while attached */
        bool dead, draining, detaching;
        bool cut; /* detached with a submission taken and not completed */
        enum worker_detach_how how;
        uint32_t drain_head; /* the submission index where draining ends */
        uint64_t drain_until_ns;
        uint64_t last_work_ns;
        uint8_t short_gaps; /* of the last gaps between pieces of work, a bit each: short enough
                             * to spin through */
        struct mail attach, detach, failure;
        struct fault fault;
};

struct worker_options {
        const struct codec_kernels *kernels;
        uint64_t spin_ns_max; /* 0: never spin */
        uint32_t n_workers;   /* that will run beside each other, this one included */
        bool is_epoll;        /* not io_uring */
        uint32_t number;      /* of them, from 0 on */
        struct mailbox *home;
};

/* -errno; the fault says why. */
int worker_new(const struct worker_options *options, struct worker **ret_worker,
               struct fault *ret_fault);
/* All seats must be detached. Joins the thread. */
struct worker *worker_free(struct worker *worker);

/* Tables that it has open already are made ready first; without the memory for that it fails. */
void worker_attach(struct worker *worker, struct worker_seat *seat);
uint32_t worker_number(const struct worker *worker);
/* Of these, the one with the fewest seats. */
struct worker *worker_least_loaded(struct worker **workers, uint32_t n_workers);
/*
 * Lets go of the seat and calls `detached`. What is still served is, in turn with the other seats
 * and for a few seconds at most.
 */
void worker_detach(struct worker_seat *seat, enum worker_detach_how how);

/*
 * Sets (table) or clears (NULL) a slot; when the worker has done so, `done` runs and `table` holds
 * the slot's former table. -ENOMEM in `error` if the worker has no scratch for the table; the slot
 * is then clear.
 */
struct worker_slot_change {
        struct mail mail;
        struct worker_seat *seat;
        uint64_t handle;
        struct store_table *table;
        int error;
        void (*done)(struct worker_slot_change *change);
};

void worker_change_slot(struct worker_slot_change *change);

/* Tells every client that loop and worker move. Does nothing while the last one is still under way.
 */
void worker_heartbeat(struct worker *worker);
/* True if the worker has delivered a heartbeat since this was last asked. */
bool worker_has_moved(struct worker *worker);

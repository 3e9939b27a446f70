/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <poll.h>
#include <string.h>

#include "crowd.h"
#include "proto/spin.h"

/* Even a seat whose gaps are long gets this much, unless the maximum is less. */
#define SPIN_NS_MIN 2000u

#define GAPS        8 /* bits of short_gaps */

/* At the end of the daemon: longer than any backlog of a client that means no harm. */
#define DRAIN_NS UINT64_C(5000000000)

struct worker {
        struct loop_io io;
        struct serve serve;
        struct mailbox mailbox;
        struct loop_op mail_op;
        struct mailbox *home;
        uint64_t spin_ns_max;
        struct crowd crowd;
        uint32_t n_seats; /* attached or about to be; the loop's */
        uint32_t number;
        struct worker_seats awake, asleep;
        struct worker_seats held; /* have work, and wait until their user has less in flight */
        struct mail stop, heartbeat;
        atomic_bool beating;
        _Atomic uint32_t n_beats;
        uint32_t n_beats_seen; /* the loop's */
        bool stopping;
        pthread_t thread;
};

/* Of doorbells and the mailbox: each write to an eventfd is an event; it need not be read, and a
 * client could meddle with that. */
static void poll_add(struct worker *w, int fd, struct loop_op *op) {
        io_uring_prep_poll_multishot(loop_io_prepare(&w->io, op), fd, POLLIN);
}

/* ---- seats ---- */

static void seat_unlink(struct worker_seat *seat) {
        TAILQ_REMOVE(seat->list, seat, link);
        seat->list = NULL;
}

static void seat_link(struct worker_seat *seat, struct worker_seats *list) {
        seat->list = list;
        TAILQ_INSERT_TAIL(list, seat, link);
}

static void seat_move(struct worker_seat *seat, struct worker_seats *list) {
        seat_unlink(seat);
        seat_link(seat, list);
}

static void seat_wake(struct worker *w, struct worker_seat *seat) {
        if (seat->list != &w->asleep || seat->dead)
                return;
        ring_server_announce_awake(&seat->seat.ring);
        seat_move(seat, &w->awake);
}

/* Those that wait for this user's ids, if enough came back. They go first, in their order. */
static void seats_invite(struct worker *w, struct quota_ids *ids) {
        struct worker_seat *seat, *previous;

        if (TAILQ_EMPTY(&w->held) || !quota_ids_invite(ids))
                return;
        for (seat = TAILQ_LAST(&w->held, worker_seats); seat; seat = previous) {
                previous = TAILQ_PREV(seat, worker_seats, link);
                if (seat->seat.ids_quota != ids)
                        continue;
                seat_unlink(seat);
                seat->list = &w->awake;
                TAILQ_INSERT_HEAD(&w->awake, seat, link);
        }
}

/* Announce, fence, look once more: only then is there surely nothing. */
static void seat_try_sleep(struct worker *w, struct worker_seat *seat) {
        ring_server_announce_sleep(&seat->seat.ring);
        if (serve_has_work(&seat->seat))
                ring_server_announce_awake(&seat->seat.ring);
        else
                seat_move(seat, &w->asleep);
}

static void deliver_failure(struct mail *mail) {
        struct worker_seat *seat = container_of(mail, struct worker_seat, failure);

        seat->failed(seat, &seat->fault);
}

static void seat_fail(struct worker *w, struct worker_seat *seat) {
        seat->dead = true;
        seat_move(seat, &w->asleep);
        seat->failure.deliver = deliver_failure;
        mailbox_post(w->home, &seat->failure);
}

/*
 * How long to look at a quiet ring before sleeping: as long as is worth burning, so that a client
 * in a tight loop costs no system call, if that would have met the end of most of its last gaps;
 * else next to nothing, and nothing at all where others want the CPU. A count of gaps and not their
 * mean: work comes in bursts, and the pause between two says nothing about the gaps in them.
 */
static uint64_t spin_budget(const struct worker *w, const struct worker_seat *seat) {
        if (crowd_is(&w->crowd))
                return 0;
        return __builtin_popcount(seat->short_gaps) > GAPS / 2 ? w->spin_ns_max
                                                               : MIN(SPIN_NS_MIN, w->spin_ns_max);
}

/* Idle time is counted from our last completion to the client's next submission, by its own clock:
 * the time that waking us took would make the gap look longer than it is. */
static void seat_worked(const struct worker *w, struct worker_seat *seat, uint64_t now) {
        uint64_t start_ns = seat->seat.start_ns;

        if (start_ns > seat->last_work_ns) {
                bool is_short = start_ns - seat->last_work_ns <= w->spin_ns_max;

                seat->short_gaps = (uint8_t)(seat->short_gaps << 1 | is_short);
        }
        seat->last_work_ns = now;
}

/* Off the lists; seat_gone() follows when the kernel has dropped its poll. */
static void seat_release(struct worker *w, struct worker_seat *seat) {
        seat_unlink(seat);
        seat->cut = seat->seat.job;
        serve_forget(&w->serve, &seat->seat);
        seats_invite(w, seat->seat.ids_quota);
        seat->dead = true;
        seat->draining = false;
        seat->detaching = true;
        io_uring_prep_cancel(loop_io_prepare(&w->io, NULL), &seat->doorbell_op, 0);
}

/* All that was there when draining began has been served, or it takes too long. */
static bool drained(const struct worker_seat *seat, uint64_t now) {
        return now > seat->drain_until_ns ||
               (!seat->seat.job && (int32_t)(seat->seat.ring.sq_head - seat->drain_head) >= 0);
}

/* One look at a seat. True: the round is full, and the next one begins behind this seat. */
static bool seat_turn(struct worker *w, struct worker_seat *seat) {
        int r = serve_take(&w->serve, &seat->seat, &seat->fault);
        uint64_t now = w->serve.now_ns;

        if (r < 0 && !seat->draining)
                seat_fail(w, seat);
        else if (r == SERVE_HELD)
                seat_move(seat, &w->held);
        else if (r != SERVE_WORKED && seat->draining) /* served, or the client does not reap */
                seat_release(w, seat);
        else if (r == SERVE_IDLE && now - seat->last_work_ns > spin_budget(w, seat))
                seat_try_sleep(w, seat);
        return serve_full(&w->serve);
}

/* A share of every awake seat's work, at once. False: nobody had any. */
static bool serve_round(struct worker *w) {
        struct worker_seat *seat, *next;

        serve_begin(&w->serve);
        for (seat = TAILQ_FIRST(&w->awake); seat; seat = next) {
                next = TAILQ_NEXT(seat, link);
                if (seat_turn(w, seat))
                        break;
        }
        while (seat && next && TAILQ_FIRST(&w->awake) != next)
                seat_move(TAILQ_FIRST(&w->awake), &w->awake);
        if (!w->serve.n_turns)
                return false;

        serve_finish(&w->serve);
        for (uint32_t i = 0; i < w->serve.n_turns; i++) {
                seat = container_of(w->serve.turns[i].seat, struct worker_seat, seat);
                seat_worked(w, seat, w->serve.now_ns);
                seats_invite(w, seat->seat.ids_quota);
                if (seat->draining && drained(seat, w->serve.now_ns))
                        seat_release(w, seat);
        }
        return true;
}

/* ---- mail from the loop ---- */

static bool reserve_slots(struct worker *w, const struct seat *seat) {
        for (uint32_t i = 0; i < WIRE_TABLES_MAX; i++)
                if (seat->slots[i].table && serve_reserve(&w->serve, seat->slots[i].table) < 0)
                        return false;
        return true;
}

static void deliver_detached(struct mail *mail) {
        struct worker_seat *seat = container_of(mail, struct worker_seat, detach);

        seat->worker->n_seats--;
        seat->detached(seat);
}

/* Nothing refers to the seat any more. */
static void seat_gone(struct worker_seat *seat) {
        seat->detach.deliver = deliver_detached;
        mailbox_post(seat->worker->home, &seat->detach);
}

static void doorbell_rang(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct worker_seat *seat = container_of(op, struct worker_seat, doorbell_op);
        struct worker *w = seat->worker;

        (void)res;
        if (!(cqe_flags & IORING_CQE_F_MORE)) {
                if (seat->detaching) {
                        seat_gone(seat);
                        return;
                }
                poll_add(w, seat->doorbell_fd, op);
        }
        seat_wake(w, seat);
}

/* Awake, so that its rings are looked at: one that comes from another daemon may have work. */
static void deliver_attach(struct mail *mail) {
        struct worker_seat *seat = container_of(mail, struct worker_seat, attach);
        struct worker *w = seat->worker;

        seat->last_work_ns = clock_ns();
        ring_server_heartbeat(&seat->seat.ring, seat->last_work_ns);
        ring_server_announce_awake(&seat->seat.ring);
        seat_link(seat, &w->awake);
        seat->doorbell_op.done = doorbell_rang;
        poll_add(w, seat->doorbell_fd, &seat->doorbell_op);
        if (!reserve_slots(w, &seat->seat)) {
                fault_write(&seat->fault, "carvqd is out of memory");
                seat_fail(w, seat);
        }
}

static void deliver_detach(struct mail *mail) {
        struct worker_seat *seat = container_of(mail, struct worker_seat, detach);
        struct worker *w = seat->worker;
        uint32_t n_pending;

        if (seat->how == WORKER_DROP || seat->dead ||
            ring_server_pending(&seat->seat.ring, &n_pending, NULL) < 0) {
                seat_release(w, seat);
                return;
        }
        /* What is there now is served; what a flood adds meanwhile is not. */
        seat->seat.takes_nothing = seat->how == WORKER_FINISH;
        seat->draining = true;
        seat->drain_head = seat->seat.ring.sq_head + (seat->how == WORKER_DRAIN ? n_pending : 0);
        seat->drain_until_ns = clock_ns() + DRAIN_NS;
        seat_wake(w, seat);
}

static void deliver_slot_done(struct mail *mail) {
        struct worker_slot_change *change = container_of(mail, struct worker_slot_change, mail);

        change->done(change);
}

static void deliver_slot_change(struct mail *mail) {
        struct worker_slot_change *change = container_of(mail, struct worker_slot_change, mail);
        struct worker *w = change->seat->worker;
        struct seat *seat = &change->seat->seat;
        struct serve_slot *slot = &seat->slots[change->handle % WIRE_TABLES_MAX];
        struct serve_slot former = *slot;

        if (change->table)
                change->error = serve_reserve(&w->serve, change->table);
        /* A job in the middle of its pieces must not read a table that is about to go. */
        if (former.table && seat->job && seat->job->handle == former.handle)
                serve_abort(&w->serve, seat, RING_STATUS_NO_TABLE);
        seats_invite(w, seat->ids_quota);

        *slot = change->table && change->error >= 0
                        ? (struct serve_slot){ .handle = change->handle, .table = change->table }
                        : (struct serve_slot){ 0 };
        if (!change->table)
                change->table = former.table;
        change->mail.deliver = deliver_slot_done;
        mailbox_post(w->home, &change->mail);
}

static void deliver_heartbeat(struct mail *mail) {
        struct worker *w = container_of(mail, struct worker, heartbeat);
        uint64_t now = clock_ns();
        struct worker_seat *seat;

        TAILQ_FOREACH(seat, &w->awake, link) {
                ring_server_heartbeat(&seat->seat.ring, now);
        }
        TAILQ_FOREACH(seat, &w->asleep, link) {
                ring_server_heartbeat(&seat->seat.ring, now);
        }
        TAILQ_FOREACH(seat, &w->held, link) {
                ring_server_heartbeat(&seat->seat.ring, now);
        }
        atomic_fetch_add_explicit(&w->n_beats, 1, memory_order_relaxed);
        atomic_store_explicit(&w->beating, false, memory_order_release);
        crowd_look(&w->crowd);
}

static void deliver_stop(struct mail *mail) {
        container_of(mail, struct worker, stop)->stopping = true;
}

/* ---- the thread ---- */

static void mail_arrived(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct worker *w = container_of(op, struct worker, mail_op);

        (void)res;
        if (!(cqe_flags & IORING_CQE_F_MORE))
                poll_add(w, w->mailbox.event_fd, &w->mail_op);
}

static void *worker_main(void *userdata) {
        struct worker *w = userdata;

        poll_add(w, w->mailbox.event_fd, &w->mail_op);
        while (!w->stopping) {
                loop_io_submit(&w->io);
                loop_io_dispatch(&w->io);
                if (atomic_load_explicit(&w->mailbox.pending, memory_order_acquire))
                        mailbox_drain(&w->mailbox);
                else if (TAILQ_EMPTY(&w->awake))
                        loop_io_wait(&w->io);
                else if (!serve_round(w))
                        cpu_relax();
        }
        return NULL;
}

int worker_new(const struct worker_options *options, struct worker **ret_worker,
               struct fault *ret_fault) {
        _cleanup_(freep) struct worker *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        TAILQ_INIT(&w->awake);
        TAILQ_INIT(&w->asleep);
        TAILQ_INIT(&w->held);
        w->number = options->number;
        w->home = options->home;
        /* Workers on every CPU would spin where their clients want to run. */
        w->spin_ns_max = options->n_workers < cpu_count() ? options->spin_ns_max : 0;
        w->stop.deliver = deliver_stop;
        w->heartbeat.deliver = deliver_heartbeat;
        w->mail_op.done = mail_arrived;
        serve_init(&w->serve, options->kernels, &w->io);

        /* No flags: completions are seen in memory while the worker is awake, without a call. */
        r = loop_io_init(&w->io, options->is_epoll ? LOOP_EPOLL : LOOP_IO_URING, 0, ret_fault);
        if (r < 0)
                return r;
        r = mailbox_init(&w->mailbox);
        if (r >= 0) {
                r = -pthread_create(&w->thread, NULL, worker_main, w);
                if (r < 0)
                        mailbox_deinit(&w->mailbox);
        }
        if (r < 0) {
                loop_io_deinit(&w->io);
                return fault_set(ret_fault, r, "worker: %s", strerror(-r));
        }
        pthread_setname_np(w->thread, "carvqd-worker");
        *ret_worker = steal_pointer(&w);
        return 0;
}

struct worker *worker_free(struct worker *w) {
        if (!w)
                return NULL;
        mailbox_post(&w->mailbox, &w->stop);
        pthread_join(w->thread, NULL);
        loop_io_deinit(&w->io);
        mailbox_deinit(&w->mailbox);
        serve_deinit(&w->serve);
        free(w);
        return NULL;
}

void worker_attach(struct worker *w, struct worker_seat *seat) {
        w->n_seats++;
        seat->worker = w;
        seat->attach.deliver = deliver_attach;
        mailbox_post(&w->mailbox, &seat->attach);
}

uint32_t worker_number(const struct worker *w) {
        return w->number;
}

struct worker *worker_least_loaded(struct worker **workers, uint32_t n_workers) {
        struct worker *least = workers[0];

        for (uint32_t i = 1; i < n_workers; i++)
                if (workers[i]->n_seats < least->n_seats)
                        least = workers[i];
        return least;
}

void worker_detach(struct worker_seat *seat, enum worker_detach_how how) {
        seat->how = how;
        seat->detach.deliver = deliver_detach;
        mailbox_post(&seat->worker->mailbox, &seat->detach);
}

void worker_change_slot(struct worker_slot_change *change) {
        change->error = 0;
        change->mail.deliver = deliver_slot_change;
        mailbox_post(&change->seat->worker->mailbox, &change->mail);
}

void worker_heartbeat(struct worker *w) {
        if (!atomic_exchange_explicit(&w->beating, true, memory_order_acquire))
                mailbox_post(&w->mailbox, &w->heartbeat);
}

bool worker_has_moved(struct worker *w) {
        uint32_t n_beats = atomic_load_explicit(&w->n_beats, memory_order_relaxed);
        bool moved = n_beats != w->n_beats_seen;

        w->n_beats_seen = n_beats;
        return moved;
}

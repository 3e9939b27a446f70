/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one user may have at once, all of its sessions together, so that no user takes what others
 * need: an account for each uid that is here, root's and the daemon's own included. What a session
 * takes is noted with the session, and all of it goes back when the session leaves; nothing can be
 * left behind. On the loop thread, but for the ids in flight: each worker has a counter of its own
 * for each account, so that no worker waits for another.
 */
#pragma once

#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "proto/base.h"

enum quota_kind {
        QUOTA_SESSIONS,
        QUOTA_RING_BYTES,
        QUOTA_TABLES,
        QUOTA_CHARGED_N, /* the kinds that sessions take and give back */
        /* Of lookups that were begun and could not be ended in the same round. */
        QUOTA_IDS = QUOTA_CHARGED_N,
        QUOTA_HANDSHAKES, /* in a second, after a burst of as many */
        QUOTA_KINDS_N
};

struct quota_account;

struct quota {
        uint64_t limits[QUOTA_KINDS_N]; /* each at least 1 */
        uint32_t n_workers, n_accounts;
        LIST_HEAD(, quota_account) accounts;
};

/* What a session holds of its user's account. Of zeros: nothing. */
struct quota_holder {
        struct quota_account *account;
        uint64_t held[QUOTA_CHARGED_N];
};

void quota_init(struct quota *quota, const uint64_t limits[QUOTA_KINDS_N], uint32_t n_workers);
/* No holder may be used after that. */
void quota_deinit(struct quota *quota);
/* From now on; whoever has more keeps it. */
void quota_set_limits(struct quota *quota, const uint64_t limits[QUOTA_KINDS_N]);

/*
 * A handshake and a session; `now_ns` is CLOCK_MONOTONIC. -EDQUOT with a sentence that names the
 * limit and its option; -ENOMEM.
 */
int quota_enter(struct quota *quota, uid_t uid, uint64_t now_ns, struct quota_holder *ret_holder,
                struct fault *ret_fault);
/* The same without a handshake: a session that a former daemon has left. */
int quota_enter_again(struct quota *quota, uid_t uid, uint64_t now_ns,
                      struct quota_holder *ret_holder, struct fault *ret_fault);
/* Gives back all that it holds. Harmless twice, and on one that never entered. */
void quota_leave(struct quota_holder *holder);

/* -EDQUOT as above; nothing is taken then. */
int quota_take(struct quota *quota, struct quota_holder *holder, enum quota_kind kind,
               uint64_t amount, struct fault *ret_fault);
/* No more than it holds. */
void quota_give(struct quota_holder *holder, enum quota_kind kind, uint64_t amount);

/* For reports: users that have sessions. */
struct quota_usage {
        uid_t uid;
        uint64_t used[QUOTA_IDS + 1];
};

const struct quota_account *quota_first(const struct quota *quota);
const struct quota_account *quota_next(const struct quota_account *account);
struct quota_usage quota_usage(const struct quota *quota, const struct quota_account *account);

/* ---- Ids in flight: a worker's part of an account, of which it is the only writer ---- */

struct quota_ids {
        _Atomic uint64_t n;
        _Atomic uint64_t max; /* the loop's to change */
        bool gave_back;       /* since somebody was last told; the worker's own */
};

/* Stays while the holder does. */
struct quota_ids *quota_ids(const struct quota_holder *holder, uint32_t worker);

/* True: nothing new is begun. NULL, here and below: nobody counts. */
static inline bool quota_ids_over(const struct quota_ids *ids) {
        return ids && atomic_load_explicit(&ids->n, memory_order_relaxed) >=
                              atomic_load_explicit(&ids->max, memory_order_relaxed);
}

void quota_ids_take(struct quota_ids *ids, uint64_t n);
void quota_ids_give(struct quota_ids *ids, uint64_t n);

/*
 * True, once, when so much has come back that those who wait should try again: a quarter, so that
 * many who wait for little are not all asked for each of them.
 */
bool quota_ids_invite(struct quota_ids *ids);

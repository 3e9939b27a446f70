/* SPDX-License-Identifier: Apache-2.0 */
#include "quota.h"

#include <assert.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

struct quota_account {
        uid_t uid;
        uint64_t used[QUOTA_CHARGED_N];
        uint64_t paid_until_ns; /* handshakes so far have used the time up to here */
        LIST_ENTRY(quota_account) link;
        struct quota_ids ids[]; /* for each worker */
};

/* What is said of it, and the option that changes it. */
static const struct {
        const char *what, *option;
} kinds[QUOTA_KINDS_N] = {
        [QUOTA_SESSIONS] = { "sessions", "max-sessions-per-user" },
        [QUOTA_RING_BYTES] = { "bytes of shared memory", "max-ring-bytes-per-user" },
        [QUOTA_TABLES] = { "open tables", "max-tables-per-user" },
        [QUOTA_IDS] = { "ids in flight", "max-ids-in-flight-per-user" },
        [QUOTA_HANDSHAKES] = { "handshakes a second", "max-handshakes-per-second-per-user" },
};

/* ---- Accounts ---- */

/* A worker's part of the limit; rounded up, so that each can begin something. */
static void set_ids_limit(const struct quota *q, struct quota_account *account) {
        uint64_t max = (q->limits[QUOTA_IDS] + q->n_workers - 1) / q->n_workers;

        for (uint32_t i = 0; i < q->n_workers; i++)
                atomic_store_explicit(&account->ids[i].max, max, memory_order_relaxed);
}

static struct quota_account *account_new(struct quota *q, uid_t uid) {
        struct quota_account *account =
                calloc(1, sizeof(*account) + q->n_workers * sizeof(account->ids[0]));

        if (!account)
                return NULL;
        account->uid = uid;
        set_ids_limit(q, account);
        LIST_INSERT_HEAD(&q->accounts, account, link);
        q->n_accounts++;
        return account;
}

static void account_free(struct quota *q, struct quota_account *account) {
        LIST_REMOVE(account, link);
        q->n_accounts--;
        free(account);
}

void quota_init(struct quota *q, const uint64_t limits[QUOTA_KINDS_N], uint32_t n_workers) {
        *q = (struct quota){ .n_workers = n_workers };
        LIST_INIT(&q->accounts);
        quota_set_limits(q, limits);
}

void quota_deinit(struct quota *q) {
        struct quota_account *account;

        while ((account = LIST_FIRST(&q->accounts)))
                account_free(q, account);
}

void quota_set_limits(struct quota *q, const uint64_t limits[QUOTA_KINDS_N]) {
        struct quota_account *account;

        memcpy(q->limits, limits, sizeof(q->limits));
        LIST_FOREACH(account, &q->accounts, link) {
                set_ids_limit(q, account);
        }
}

/*
 * An account outlives its sessions for the second in which it still counts how often they came:
 * those that are past it go, so that there are never more than users of a second.
 */
static struct quota_account *find_account(struct quota *q, uid_t uid, uint64_t now_ns) {
        struct quota_account *account, *next, *found = NULL;

        for (account = LIST_FIRST(&q->accounts); account; account = next) {
                next = LIST_NEXT(account, link);
                if (account->uid == uid) {
                        found = account;
                } else if (!account->used[QUOTA_SESSIONS] && account->paid_until_ns <= now_ns) {
                        account_free(q, account);
                }
        }
        return found ? found : account_new(q, uid);
}

/* ---- Charges ---- */

/* Each handshake uses up its part of a second, and may be as much as that early. */
static int take_handshake(const struct quota *q, struct quota_account *account, uint64_t now_ns,
                          struct fault *ret_fault) {
        uint64_t each_ns = NS_PER_S / q->limits[QUOTA_HANDSHAKES];
        uint64_t from_ns = MAX(account->paid_until_ns, now_ns);

        if (from_ns - now_ns > NS_PER_S - each_ns)
                return fault_set(ret_fault, -EDQUOT,
                                 "user %u connects too often, a user may have %" PRIu64 " %s (%s)",
                                 account->uid, q->limits[QUOTA_HANDSHAKES],
                                 kinds[QUOTA_HANDSHAKES].what, kinds[QUOTA_HANDSHAKES].option);
        account->paid_until_ns = from_ns + each_ns;
        return 0;
}

static int enter(struct quota *q, uid_t uid, uint64_t now_ns, bool handshake,
                 struct quota_holder *ret_holder, struct fault *ret_fault) {
        struct quota_holder holder = { .account = find_account(q, uid, now_ns) };
        int r = 0;

        if (!holder.account)
                return fault_set(ret_fault, -ENOMEM, "carvqd is out of memory");
        if (handshake)
                r = take_handshake(q, holder.account, now_ns, ret_fault);
        if (r >= 0)
                r = quota_take(q, &holder, QUOTA_SESSIONS, 1, ret_fault);
        if (r < 0)
                return r;
        *ret_holder = holder;
        return 0;
}

int quota_enter(struct quota *q, uid_t uid, uint64_t now_ns, struct quota_holder *ret_holder,
                struct fault *ret_fault) {
        return enter(q, uid, now_ns, true, ret_holder, ret_fault);
}

int quota_enter_again(struct quota *q, uid_t uid, uint64_t now_ns, struct quota_holder *ret_holder,
                      struct fault *ret_fault) {
        return enter(q, uid, now_ns, false, ret_holder, ret_fault);
}

void quota_leave(struct quota_holder *holder) {
        if (!holder->account)
                return;
        for (int kind = 0; kind < QUOTA_CHARGED_N; kind++)
                quota_give(holder, kind, holder->held[kind]);
        holder->account = NULL;
}

int quota_take(struct quota *q, struct quota_holder *holder, enum quota_kind kind, uint64_t amount,
               struct fault *ret_fault) {
        uint64_t *used = &holder->account->used[kind];

        /* A limit may have been lowered below what is used. */
        if (*used > q->limits[kind] || amount > q->limits[kind] - *used)
                return fault_set(ret_fault, -EDQUOT,
                                 "user %u has %" PRIu64 " %s and asks for %" PRIu64
                                 " more, a user may have %" PRIu64 " (%s)",
                                 holder->account->uid, *used, kinds[kind].what, amount,
                                 q->limits[kind], kinds[kind].option);
        *used += amount;
        holder->held[kind] += amount;
        return 0;
}

void quota_give(struct quota_holder *holder, enum quota_kind kind, uint64_t amount) {
        assert(amount <= holder->held[kind] && amount <= holder->account->used[kind]);
        holder->held[kind] -= amount;
        holder->account->used[kind] -= amount;
}

/* ---- Reports ---- */

static const struct quota_account *skip_empty(const struct quota_account *account) {
        while (account && !account->used[QUOTA_SESSIONS])
                account = LIST_NEXT(account, link);
        return account;
}

const struct quota_account *quota_first(const struct quota *q) {
        return skip_empty(LIST_FIRST(&q->accounts));
}

const struct quota_account *quota_next(const struct quota_account *account) {
        return skip_empty(LIST_NEXT(account, link));
}

struct quota_usage quota_usage(const struct quota *q, const struct quota_account *account) {
        struct quota_usage usage = { .uid = account->uid };

        memcpy(usage.used, account->used, sizeof(account->used));
        for (uint32_t i = 0; i < q->n_workers; i++)
                usage.used[QUOTA_IDS] +=
                        atomic_load_explicit(&account->ids[i].n, memory_order_relaxed);
        return usage;
}

/* ---- Ids in flight ---- */

struct quota_ids *quota_ids(const struct quota_holder *holder, uint32_t worker) {
        return &holder->account->ids[worker];
}

static uint64_t now_in_flight(const struct quota_ids *ids) {
        return atomic_load_explicit(&ids->n, memory_order_relaxed);
}

/* Stores will do where there is one writer. */
void quota_ids_take(struct quota_ids *ids, uint64_t n) {
        if (ids)
                atomic_store_explicit(&ids->n, now_in_flight(ids) + n, memory_order_relaxed);
}

void quota_ids_give(struct quota_ids *ids, uint64_t n) {
        if (!ids || !n)
                return;
        atomic_store_explicit(&ids->n, now_in_flight(ids) - n, memory_order_relaxed);
        ids->gave_back = true;
}

bool quota_ids_invite(struct quota_ids *ids) {
        uint64_t max;

        if (!ids || !ids->gave_back)
                return false;
        max = atomic_load_explicit(&ids->max, memory_order_relaxed);
        if (now_in_flight(ids) > max - (max + 3) / 4)
                return false;
        ids->gave_back = false;
        return true;
}

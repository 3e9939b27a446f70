/* SPDX-License-Identifier: Apache-2.0 */
#include "wait-budget.h"

#include "proto/base.h"

/* Above this a busy wait costs more than the wake-up it saves (about 8 us). */
#define SPIN_NS_MAX UINT64_C(50000)
#define SPIN_NS_MIN UINT64_C(5000)

/* No sleep is shorter, so that waits as short as this need not be compared with one. */
#define SLEEP_NS_LEAST UINT64_C(4000)

/* Longer waits are all alike. */
#define WAIT_NS_MAX (4 * SPIN_NS_MAX)

/* The way that has been worse is tried again, for some waits, after so many of the other; and each
 * time that it still is, after twice as many. */
#define WAITS_BETWEEN_TRIALS 16u
#define WAITS_OF_TRIAL       4u
#define SAME_MAX             8u

static bool spinning_pays(const struct wait_history *h) {
        if (h->spun_ns <= SLEEP_NS_LEAST)
                return true;
        return h->spun_ns <= SPIN_NS_MAX && (!h->slept_ns || h->spun_ns < h->slept_ns);
}

static bool trial_is_due(const struct wait_history *h) {
        return h->n_waits >= WAITS_BETWEEN_TRIALS << h->n_same;
}

uint64_t wait_budget_ns(const struct wait_history *h) {
        if (spinning_pays(h) == trial_is_due(h))
                return 0;
        return MIN(2 * h->spun_ns + SPIN_NS_MIN, SPIN_NS_MAX);
}

/* A wait may be long by accident, when its thread or the daemon's was interrupted, but not short:
 * so one that is longer than expected counts as twice as long at most. */
static void add(uint64_t *mean_ns, uint64_t waited_ns) {
        if (*mean_ns)
                waited_ns = MIN(waited_ns, 2 * *mean_ns + 1000);
        *mean_ns = *mean_ns ? (3 * *mean_ns + waited_ns) / 4 : waited_ns;
}

void wait_learn(struct wait_history *h, bool spun, uint64_t waited_ns) {
        const bool paid = spinning_pays(h);

        add(spun ? &h->spun_ns : &h->slept_ns, MAX(MIN(waited_ns, WAIT_NS_MAX), 1u));
        h->n_waits++;
        if (h->spun_ns <= SLEEP_NS_LEAST || spinning_pays(h) != paid)
                h->n_waits = h->n_same = 0;
        else if (h->n_waits >= (WAITS_BETWEEN_TRIALS << h->n_same) + WAITS_OF_TRIAL) {
                h->n_waits = 0;
                h->n_same = MIN(h->n_same + 1, SAME_MAX);
        }
}

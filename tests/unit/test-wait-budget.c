/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice between spinning and sleeping, in worlds where each has its price: an idle machine,
 * one whose CPUs are taken, large batches, and changes from one to another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include "random.h"
#include "wait-budget.h"

/* When rows come if one spins for them, and if one sleeps at once. */
struct world {
        uint64_t spun_ns, slept_ns;
};

static const struct world idle = { 1000, 9000 }, crowded = { 60000, 7000 },
                          slow = { 1000000, 1008000 }, middling = { 20000, 27000 };

struct tally {
        unsigned n_spun;
        uint64_t burnt_ns, waited_ns;
};

/* `n` waits that take up to a quarter more or less. A spin that does not last ends in a sleep. */
static struct tally wait_often(struct wait_history *h, const struct world *w, unsigned n) {
        struct tally tally = { 0 };
        uint32_t random = 1;

        while (n--) {
                uint64_t noise = 768 + test_random(&random) % 512, budget = wait_budget_ns(h);
                uint64_t spun_ns = w->spun_ns * noise / 1024, slept_ns = w->slept_ns * noise / 1024;
                uint64_t waited_ns = !budget            ? slept_ns
                                     : spun_ns < budget ? spun_ns
                                                        : budget + slept_ns;

                wait_learn(h, budget > 0, waited_ns);
                tally.n_spun += budget > 0;
                tally.burnt_ns += budget < waited_ns ? budget : waited_ns;
                tally.waited_ns += waited_ns;
        }
        return tally;
}

static void test_idle_machine(void **state) {
        struct wait_history h = { 0 };

        (void)state;
        /* From the first on, and never a sleep just to see what it would cost. */
        assert_int_equal(wait_often(&h, &idle, 100000).n_spun, 100000);
}

static void test_crowded_machine(void **state) {
        struct wait_history h = { 0 };
        struct tally t;

        (void)state;
        wait_often(&h, &crowded, 100);
        t = wait_often(&h, &crowded, 100000);
        assert_in_range(t.n_spun, 1, 200); /* it looks now and then whether that has changed */
        assert_true(t.burnt_ns < t.waited_ns / 50);
}

/* Spinning for a millisecond is no use, even if the wake-up would be saved. */
static void test_slow_lookups(void **state) {
        struct wait_history h = { 0 };
        struct tally t;

        (void)state;
        wait_often(&h, &slow, 100);
        t = wait_often(&h, &slow, 100000);
        assert_in_range(t.n_spun, 1, 200);
}

static void test_budget_grows_to_what_pays(void **state) {
        struct wait_history h = { 0 };
        struct tally t;

        (void)state;
        wait_often(&h, &middling, 100);
        t = wait_often(&h, &middling, 100000);
        assert_true(t.n_spun > 99000);
        assert_true(wait_budget_ns(&h) > middling.spun_ns);
        assert_true(t.waited_ns / 100000 < middling.spun_ns * 11 / 10);
}

static void test_changes_are_noticed(void **state) {
        struct wait_history h = { 0 };

        (void)state;
        for (unsigned i = 0; i < 10; i++) {
                wait_often(&h, &idle, 50000);
                /* A crowd, soon: each of these waits is paid for. */
                wait_often(&h, &crowded, 100);
                assert_true(wait_often(&h, &crowded, 1000).n_spun < 50);
                wait_often(&h, &crowded, 50000);
                /* Room again, within a second of the fastest of clients. */
                wait_often(&h, &idle, 20000);
                assert_int_equal(wait_often(&h, &idle, 1000).n_spun, 1000);
        }
}

static void test_one_outlier_decides_nothing(void **state) {
        struct wait_history h = { 0 };

        (void)state;
        wait_often(&h, &idle, 1000);
        wait_learn(&h, true, UINT64_C(20000000));
        assert_true(wait_often(&h, &idle, 100).n_spun > 90);
}

static void test_extremes(void **state) {
        struct wait_history h = { 0 };

        (void)state;
        for (unsigned i = 0; i < 1000; i++) {
                wait_learn(&h, wait_budget_ns(&h) > 0, i % 2 ? UINT64_MAX : 0);
                assert_true(wait_budget_ns(&h) <= 50000);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_idle_machine),
                cmocka_unit_test(test_crowded_machine),
                cmocka_unit_test(test_slow_lookups),
                cmocka_unit_test(test_budget_grows_to_what_pays),
                cmocka_unit_test(test_changes_are_noticed),
                cmocka_unit_test(test_one_outlier_decides_nothing),
                cmocka_unit_test(test_extremes),
        };

        return cmocka_run_group_tests_name("wait-budget", tests, NULL, NULL);
}

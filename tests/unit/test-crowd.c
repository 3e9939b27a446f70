/* SPDX-License-Identifier: Apache-2.0 */
/* When a machine counts as crowded, by half seconds of made-up counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include "daemon/crowd.h"

#define MS UINT64_C(1000000)

/* A look after so many more preemptions and milliseconds on a CPU. */
static bool look(struct crowd *c, uint64_t n_preempted, uint64_t ran_ms) {
        crowd_judge(c, c->n_preempted + n_preempted, c->ran_ns + ran_ms * MS);
        return crowd_is(c);
}

static void test_cpu_of_its_own(void **state) {
        struct crowd c = { 0 };

        (void)state;
        for (int i = 0; i < 100; i++) {
                assert_false(look(&c, i % 10, 500)); /* spins, and kernel threads have work */
                assert_false(look(&c, i % 5, 1));    /* sleeps nearly all the time */
                assert_false(look(&c, 0, 0));
        }
}

static void test_shared_cpu(void **state) {
        struct crowd c = { 0 };

        (void)state;
        assert_true(look(&c, 80, 250)); /* a hog beside it: slices of 3 ms */
        c = (struct crowd){ 0 };
        assert_true(look(&c, 20000, 400)); /* its clients run where it spins */
        c = (struct crowd){ 0 };
        assert_true(look(&c, 10, 20)); /* sleeps much, and is preempted nevertheless */
}

static void test_it_lasts_a_while(void **state) {
        struct crowd c = { 0 };
        unsigned n = 0;

        (void)state;
        look(&c, 100, 250);
        while (look(&c, 0, 10))
                n++;
        assert_in_range(n, 2, 20);
        for (int i = 0; i < 10; i++)
                assert_false(look(&c, 0, 500));
}

/* Its own counters are what they are, but they count. */
static void test_real_counters(void **state) {
        struct crowd c = { 0 };

        (void)state;
        while (!c.ran_ns)
                crowd_look(&c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cpu_of_its_own),
                cmocka_unit_test(test_shared_cpu),
                cmocka_unit_test(test_it_lasts_a_while),
                cmocka_unit_test(test_real_counters),
        };

        return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}

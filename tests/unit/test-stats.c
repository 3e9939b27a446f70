/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>

#include "daemon/stats.h"

/* A percentile is the upper end of a bucket that is at most 12.5 % wide, and never above the
 * maximum. */
static void test_percentiles_bound_the_truth(void **state) {
        static struct stats stats;
        struct stats_snapshot s;

        (void)state;
        for (uint64_t ns = 1; ns <= 1000; ns++)
                stats_add_lookup(&stats, RING_STATUS_OK, ns * 100);
        stats_read(&stats, &s);
        assert_int_equal(s.n_lookups, 1000);
        assert_in_range(s.latency_p50_ns, 50000, 50000 * 9 / 8);
        assert_in_range(s.latency_p99_ns, 99000, 100000);
        assert_int_equal(s.latency_max_ns, 100000);
}

static void test_every_latency_has_a_bucket(void **state) {
        (void)state;
        for (uint32_t shift = 0; shift < 64; shift++)
                for (int delta = -1; delta <= 1; delta++) {
                        struct stats stats = { 0 };
                        struct stats_snapshot s;
                        uint64_t ns = (UINT64_C(1) << shift) + (uint64_t)delta;

                        stats_add_lookup(&stats, RING_STATUS_OK, ns);
                        stats_read(&stats, &s);
                        assert_int_equal(s.latency_max_ns, ns);
                        if (ns < (UINT64_C(1) << 40)) {
                                assert_int_equal(s.latency_p50_ns, ns); /* cut at the maximum */
                                assert_int_equal(s.latency_p99_ns, ns);
                        }
                }
}

static void test_buckets_ascend(void **state) {
        struct stats stats = { 0 };
        struct stats_snapshot s;
        uint64_t last = 0;

        (void)state;
        stats_add_lookup(&stats, RING_STATUS_OK, UINT64_C(1) << 39); /* lifts the maximum */
        for (uint64_t ns = 1; ns < UINT64_C(1) << 38; ns += 1 + ns / 5) {
                struct stats one = { 0 };

                stats_add_lookup(&one, RING_STATUS_OK, ns);
                stats_add_lookup(&one, RING_STATUS_OK, UINT64_C(1) << 39);
                stats_read(&one, &s);
                assert_true(s.latency_p50_ns >= ns && s.latency_p50_ns >= last);
                assert_true(s.latency_p50_ns - ns <= ns / 8);
                last = s.latency_p50_ns;
        }
}

static void test_errors_are_counted_and_have_no_latency(void **state) {
        struct stats stats = { 0 };
        struct stats_snapshot s;

        (void)state;
        stats_add_lookup(&stats, RING_STATUS_OUT_OF_RANGE, 1000);
        stats_add_lookup(&stats, RING_STATUS_NO_TABLE, 1000);
        stats_add_lookup(&stats, RING_STATUS_OK, 10);
        stats_read(&stats, &s);
        assert_int_equal(s.n_lookups, 3);
        assert_int_equal(s.n_errors, 2);
        assert_int_equal(s.n_status[RING_STATUS_OUT_OF_RANGE], 1);
        assert_int_equal(s.latency_max_ns, 10);
}

static void test_no_lookups_no_percentiles(void **state) {
        struct stats stats = { 0 };
        struct stats_snapshot s;

        (void)state;
        stats_read(&stats, &s);
        assert_int_equal(s.latency_p50_ns + s.latency_p99_ns + s.latency_max_ns, 0);
}

static void test_pieces_add_up(void **state) {
        struct codec_cost cost = { .n_rows_read = 7, .bytes_read = 700, .lines_read = 13, .bytes_written = 2800 };
        struct stats stats = { 0 };
        struct stats_snapshot s;

        (void)state;
        stats_add_piece(&stats, &cost, 5, 100);
        stats_add_piece(&stats, &cost, 5, 100);
        stats_read(&stats, &s);
        assert_int_equal(s.n_rows, 10);
        assert_int_equal(s.n_rows_read, 14);
        assert_int_equal(s.n_values_read, 1400);
        assert_int_equal(s.bytes_read, 1400);
        assert_int_equal(s.lines_read, 26);
        assert_int_equal(s.bytes_written, 5600);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_percentiles_bound_the_truth),
                cmocka_unit_test(test_every_latency_has_a_bucket),
                cmocka_unit_test(test_buckets_ascend),
                cmocka_unit_test(test_errors_are_counted_and_have_no_latency),
                cmocka_unit_test(test_no_lookups_no_percentiles),
                cmocka_unit_test(test_pieces_add_up),
        };

        return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}

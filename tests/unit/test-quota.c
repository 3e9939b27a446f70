/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accounts of users, with a clock that the test turns. What was taken comes back, whatever order
 * sessions come and go in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "daemon/quota.h"
#include "random.h"

#define S       UINT64_C(1000000000)
#define ALICE   1000u
#define BOB     1001u
#define WORKERS 3u

static const uint64_t limits[QUOTA_KINDS_N] = {
        [QUOTA_SESSIONS] = 3, [QUOTA_RING_BYTES] = 1000,    [QUOTA_TABLES] = 5,
        [QUOTA_IDS] = 300,    [QUOTA_HANDSHAKES] = 1000000,
};

static struct quota quota;
static struct fault fault;

static int setup(void **state) {
        (void)state;
        quota_init(&quota, limits, WORKERS);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        quota_deinit(&quota);
        return 0;
}

static struct quota_holder enter(uid_t uid, uint64_t now_ns) {
        struct quota_holder holder = { 0 };

        assert_int_equal(quota_enter(&quota, uid, now_ns, &holder, &fault), 0);
        return holder;
}

static void expect_refused(uid_t uid, uint64_t now_ns, const char *sentence) {
        struct quota_holder holder = { 0 };

        assert_int_equal(quota_enter(&quota, uid, now_ns, &holder, &fault), -EDQUOT);
        if (sentence)
                assert_string_equal(fault.text, sentence);
        assert_null(holder.account);
}

static struct quota_usage usage_of(uid_t uid) {
        const struct quota_account *a = quota_first(&quota);

        for (; a; a = quota_next(a)) {
                const struct quota_usage usage = quota_usage(&quota, a);

                if (usage.uid == uid)
                        return usage;
        }
        return (struct quota_usage){ .uid = uid };
}

static void test_sessions(void **state) {
        struct quota_holder alice[3], bob;

        (void)state;
        for (int i = 0; i < 3; i++)
                alice[i] = enter(ALICE, S);
        expect_refused(ALICE, S,
                       "user 1000 has 3 sessions and asks for 1 more, a user may have 3 "
                       "(max-sessions-per-user)");
        bob = enter(BOB, S);
        assert_int_equal(usage_of(ALICE).used[QUOTA_SESSIONS], 3);
        assert_int_equal(usage_of(BOB).used[QUOTA_SESSIONS], 1);

        quota_leave(&alice[1]);
        quota_leave(&alice[1]);
        assert_int_equal(usage_of(ALICE).used[QUOTA_SESSIONS], 2);
        alice[1] = enter(ALICE, S);
        expect_refused(ALICE, S, NULL);
        for (int i = 0; i < 3; i++)
                quota_leave(&alice[i]);
        quota_leave(&bob);
        assert_null(quota_first(&quota));
}

/* All that a session has goes when it goes, without being named again. */
static void test_charges(void **state) {
        struct quota_holder one = enter(ALICE, S), two = enter(ALICE, S), bob = enter(BOB, S);

        (void)state;
        assert_int_equal(quota_take(&quota, &one, QUOTA_RING_BYTES, 600, &fault), 0);
        assert_int_equal(quota_take(&quota, &two, QUOTA_RING_BYTES, 401, &fault), -EDQUOT);
        assert_string_equal(fault.text, "user 1000 has 600 bytes of shared memory and asks for 401 "
                                        "more, a user may have 1000 (max-ring-bytes-per-user)");
        assert_int_equal(quota_take(&quota, &two, QUOTA_RING_BYTES, 400, &fault), 0);
        assert_int_equal(quota_take(&quota, &two, QUOTA_RING_BYTES, UINT64_MAX, &fault), -EDQUOT);
        assert_int_equal(quota_take(&quota, &bob, QUOTA_RING_BYTES, 1000, &fault), 0);
        for (int i = 0; i < 5; i++)
                assert_int_equal(quota_take(&quota, i % 2 ? &one : &two, QUOTA_TABLES, 1, &fault),
                                 0);
        assert_int_equal(quota_take(&quota, &two, QUOTA_TABLES, 1, &fault), -EDQUOT);
        assert_string_equal(fault.text, "user 1000 has 5 open tables and asks for 1 more, a user "
                                        "may have 5 (max-tables-per-user)");
        quota_give(&one, QUOTA_TABLES, 1);
        assert_int_equal(quota_take(&quota, &two, QUOTA_TABLES, 1, &fault), 0);

        quota_leave(&two);
        assert_int_equal(usage_of(ALICE).used[QUOTA_RING_BYTES], 600);
        assert_int_equal(usage_of(ALICE).used[QUOTA_TABLES], 1);
        quota_leave(&one);
        assert_int_equal(usage_of(ALICE).used[QUOTA_SESSIONS], 0);
        assert_int_equal(usage_of(BOB).used[QUOTA_RING_BYTES], 1000);
        quota_leave(&bob);
}

/* Lower ones take nothing away; higher ones count at once. */
static void test_limits_change(void **state) {
        struct quota_holder holder = enter(ALICE, S);
        uint64_t other[QUOTA_KINDS_N];

        (void)state;
        memcpy(other, limits, sizeof(other));
        assert_int_equal(quota_take(&quota, &holder, QUOTA_TABLES, 5, &fault), 0);
        other[QUOTA_TABLES] = 2;
        quota_set_limits(&quota, other);
        assert_int_equal(quota_take(&quota, &holder, QUOTA_TABLES, 1, &fault), -EDQUOT);
        quota_give(&holder, QUOTA_TABLES, 3);
        assert_int_equal(quota_take(&quota, &holder, QUOTA_TABLES, 1, &fault), -EDQUOT);
        quota_give(&holder, QUOTA_TABLES, 1);
        assert_int_equal(quota_take(&quota, &holder, QUOTA_TABLES, 1, &fault), 0);
        other[QUOTA_IDS] = 3000;
        quota_set_limits(&quota, other);
        assert_int_equal(quota_ids(&holder, 2)->max, 1000);
        quota_leave(&holder);
}

/* A burst of a second's worth, then as many as the limit says; whoever comes too often pays nothing
 * for being refused. */
static void test_handshakes(void **state) {
        uint64_t few[QUOTA_KINDS_N], now = 7 * S;
        struct quota_holder holder;
        int n = 0;

        (void)state;
        memcpy(few, limits, sizeof(few));
        few[QUOTA_HANDSHAKES] = 10;
        quota_set_limits(&quota, few);
        for (int i = 0; i < 10; i++) {
                holder = enter(ALICE, now);
                quota_leave(&holder);
        }
        expect_refused(ALICE, now,
                       "user 1000 connects too often, a user may have 10 handshakes a second "
                       "(max-handshakes-per-second-per-user)");
        holder = enter(BOB, now);
        quota_leave(&holder);

        for (int i = 0; i < 5000; i++) { /* five seconds of a flood */
                now += S / 1000;
                holder = (struct quota_holder){ 0 };
                n += quota_enter(&quota, ALICE, now, &holder, &fault) >= 0;
                quota_leave(&holder);
        }
        assert_int_equal(n, 50);
        now += S;
        for (int i = 0; i < 10; i++) {
                holder = enter(ALICE, now);
                quota_leave(&holder);
        }
        expect_refused(ALICE, now, NULL);
}

/* A user who goes through its range of subordinate uids leaves nothing behind. */
static void test_accounts_go(void **state) {
        struct quota_holder stays = enter(ALICE, S), holder;

        (void)state;
        for (uid_t uid = 100000; uid < 100500; uid++) {
                holder = enter(uid, S);
                quota_leave(&holder);
        }
        assert_true(quota.n_accounts > 500);
        holder = enter(BOB, 3 * S);
        assert_int_equal(quota.n_accounts, 2);
        assert_int_equal(usage_of(ALICE).used[QUOTA_SESSIONS], 1);
        quota_leave(&holder);
        quota_leave(&stays);
}

/* Each worker has a third of 300, and says when a quarter of that has come back. */
static void test_ids(void **state) {
        struct quota_holder holder = enter(ALICE, S);
        struct quota_ids *ids = quota_ids(&holder, 1);

        (void)state;
        assert_false(quota_ids_over(ids));
        quota_ids_take(ids, 99);
        assert_false(quota_ids_over(ids));
        quota_ids_take(ids, 500); /* one lookup may go beyond it */
        assert_true(quota_ids_over(ids));
        assert_false(quota_ids_over(quota_ids(&holder, 0)));
        assert_int_equal(usage_of(ALICE).used[QUOTA_IDS], 599);

        assert_false(quota_ids_invite(ids));
        quota_ids_give(ids, 500);
        assert_false(quota_ids_over(ids));
        assert_false(quota_ids_invite(ids)); /* 99 of 100 */
        quota_ids_give(ids, 24);
        assert_true(quota_ids_invite(ids));
        assert_false(quota_ids_invite(ids)); /* once */
        quota_ids_give(ids, 75);
        assert_int_equal(usage_of(ALICE).used[QUOTA_IDS], 0);

        assert_false(quota_ids_over(NULL));
        quota_ids_take(NULL, 1);
        quota_ids_give(NULL, 1);
        assert_false(quota_ids_invite(NULL));
        quota_leave(&holder);
}

/* However small the limit: when all has come back, those who wait are asked. */
static void test_smallest_ids(void **state) {
        uint64_t small[QUOTA_KINDS_N];
        struct quota_holder holder;

        (void)state;
        memcpy(small, limits, sizeof(small));
        for (uint64_t max = 1; max < 40; max++) {
                small[QUOTA_IDS] = max;
                quota_set_limits(&quota, small);
                holder = enter(ALICE, max * S);
                for (uint32_t w = 0; w < WORKERS; w++) {
                        struct quota_ids *ids = quota_ids(&holder, w);

                        assert_false(quota_ids_over(ids));
                        quota_ids_take(ids, 1000);
                        assert_true(quota_ids_over(ids));
                        quota_ids_give(ids, 1000);
                        assert_true(quota_ids_invite(ids));
                }
                quota_leave(&holder);
        }
}

/* Against sums that are made anew each time. */
static void test_many(void **state) {
        struct quota_holder holders[12] = { 0 };
        uint64_t now = S;
        uint32_t random = 42;

        (void)state;
        print_message("# seed 42\n");
        for (int i = 0; i < 200000; i++) {
                struct quota_holder *h = &holders[test_random(&random) % ARRAY_SIZE(holders)];
                enum quota_kind kind = test_random(&random) % 2 ? QUOTA_RING_BYTES : QUOTA_TABLES;
                uint64_t amount = test_random(&random) % 300;

                now += 1000000;
                switch (test_random(&random) % 4) {
                case 0:
                        if (!h->account)
                                quota_enter(&quota, ALICE + test_random(&random) % 3, now, h, NULL);
                        break;
                case 1:
                        quota_leave(h);
                        break;
                case 2:
                        if (h->account)
                                quota_take(&quota, h, kind, amount, NULL);
                        break;
                case 3:
                        if (h->account)
                                quota_give(h, kind, MIN(amount, h->held[kind]));
                }
        }
        for (uid_t uid = ALICE; uid < ALICE + 3; uid++) {
                const struct quota_usage usage = usage_of(uid);

                for (int kind = 0; kind < QUOTA_CHARGED_N; kind++)
                        assert_true(usage.used[kind] <= limits[kind]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
                quota_leave(&holders[i]);
        assert_null(quota_first(&quota));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_sessions, setup, teardown),
                cmocka_unit_test_setup_teardown(test_charges, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limits_change, setup, teardown),
                cmocka_unit_test_setup_teardown(test_handshakes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_accounts_go, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ids, setup, teardown),
                cmocka_unit_test_setup_teardown(test_smallest_ids, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

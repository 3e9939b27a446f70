/* SPDX-License-Identifier: Apache-2.0 */
/* The soak's judge: rows that are right pass it, and those that it must not miss do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "tests/soak/tables.h"
#include "tests/soak/verify.h"

#define N_ROWS   8u
#define N_DIMS   4u
#define N_IDS    3u
#define GRACE_NS 50u

static float contents[SOAK_VARIANTS][N_ROWS][N_DIMS];
static struct soak soak;
static const uint64_t ids[N_IDS] = { 5, 0, 5 };
static float rows[N_IDS][N_DIMS];

static void publish(uint32_t variant, uint64_t from_ns, uint64_t until_ns) {
        struct soak_shared_table *s = &soak.shared->tables[0];
        struct soak_publication *p = &s->publications[s->n_publications++];

        p->variant = variant;
        p->from_ns = from_ns;
        p->until_ns = until_ns;
}

/* Variant 0 lay there from 100 to 200, variant 1 lies there since. */
static int setup(void **state) {
        (void)state;
        soak = (struct soak){ .grace_ns = GRACE_NS,
                              .shared = calloc(1, sizeof(*soak.shared)),
                              .tables[0] = { .n_rows = N_ROWS, .n_dims = N_DIMS } };
        if (!soak.shared)
                return -1;
        for (uint32_t v = 0; v < SOAK_VARIANTS; v++) {
                soak.tables[0].rows[v][CARVQ_F32] = (const uint8_t *)contents[v];
                for (uint32_t r = 0; r < N_ROWS; r++)
                        for (uint32_t c = 0; c < N_DIMS; c++)
                                contents[v][r][c] = (float)(1000 * v + 10 * r + c + 1);
        }
        publish(0, 100, 200);
        publish(1, 200, 0);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        free(soak.shared);
        return 0;
}

static void fill(uint32_t variant) {
        for (size_t i = 0; i < N_IDS; i++)
                memcpy(rows[i], contents[variant][ids[i]], sizeof(rows[i]));
}

/* Of daemon 7, generation `generation`, by who opened the table at `opened_ns`. */
static struct verify_claim claim(uint64_t generation, uint64_t opened_ns) {
        return (struct verify_claim){ .ids = ids,
                                      .n_ids = N_IDS,
                                      .rows = rows,
                                      .row_stride_bytes = sizeof(rows[0]),
                                      .before = { 7, generation },
                                      .after = { 7, generation },
                                      .opened_from_ns = opened_ns,
                                      .opened_until_ns = opened_ns };
}

/* How many rows are wrong when they are those of this variant. */
static size_t judge(uint32_t variant, const struct verify_claim *c) {
        uint32_t found = UINT32_MAX;
        size_t n_wrong;

        fill(variant);
        n_wrong = verify_rows(&soak, c, &found);
        if (!n_wrong)
                assert_int_equal(found, variant);
        return n_wrong;
}

static void test_time(void **state) {
        struct verify_claim c = claim(1, 300);

        (void)state;
        assert_int_equal(judge(0, &c), N_IDS); /* gone for long */
        assert_int_equal(judge(2, &c), N_IDS); /* never there */
        assert_int_equal(judge(1, &c), 0);
        c = claim(2, 240); /* the daemon may not have noticed */
        assert_int_equal(judge(0, &c), 0);
        c = claim(3, 150); /* not yet there */
        assert_int_equal(judge(1, &c), N_IDS);
}

static void test_rows(void **state) {
        struct verify_claim c = claim(1, 210);
        uint32_t variant;

        (void)state;
        fill(1);
        rows[2][3] += 1;
        assert_int_equal(verify_rows(&soak, &c, &variant), 1);
        /* Both variants may be, but not together. */
        fill(1);
        memcpy(rows[1], contents[0][ids[1]], sizeof(rows[1]));
        assert_int_equal(verify_rows(&soak, &c, &variant), 1);
        /* Another row of the same table. */
        fill(1);
        memcpy(rows[0], contents[1][4], sizeof(rows[0]));
        assert_int_equal(verify_rows(&soak, &c, &variant), 1);
}

static void test_columns(void **state) {
        struct verify_claim c = claim(1, 210);
        const float narrow[N_IDS][3] = { { 1052, 1053, -1 },
                                         { 1002, 1003, -1 },
                                         { 1052, 1053, -1 } };
        uint32_t variant;

        (void)state;
        c.options.col_first = 1;
        c.options.n_cols = 2;
        c.rows = narrow;
        c.row_stride_bytes = sizeof(narrow[0]);
        assert_int_equal(verify_rows(&soak, &c, &variant), 0);
        c.options.col_first = 0;
        assert_int_equal(verify_rows(&soak, &c, &variant), N_IDS);
}

/* Whoever was first has said what a generation is, for all. */
static void test_generations(void **state) {
        struct verify_claim c = claim(1, 210);

        (void)state;
        assert_int_equal(judge(1, &c), 0);
        assert_int_equal(judge(0, &c), N_IDS);
        c.before.epoch = c.after.epoch = 8;
        assert_int_equal(judge(0, &c), 0);
        c = claim(2, 210);
        assert_int_equal(judge(0, &c), 0);
        /* An old handle keeps what it has. */
        c.opened_from_ns = c.opened_until_ns = 9999;
        assert_int_equal(judge(0, &c), 0);
        assert_int_equal(judge(1, &c), N_IDS);
}

static void test_restart(void **state) {
        struct verify_claim c = claim(1, 150);

        (void)state;
        assert_int_equal(judge(0, &c), 0);
        publish(2, 400, 0);
        soak.shared->tables[0].publications[1].until_ns = 400;
        /* Asked of generation 1, which is variant 0; answered by it, or by the next daemon. */
        c.after = (struct verify_key){ 8, 1 };
        c.opened_from_ns = 500;
        c.opened_until_ns = 510;
        assert_int_equal(judge(0, &c), 0);
        assert_int_equal(judge(2, &c), 0);
        assert_int_equal(judge(1, &c), N_IDS);
        assert_int_equal(judge(3, &c), N_IDS);
        /* Decoded from a file that was opened once, it may not change. */
        c.pinned = 1;
        assert_int_equal(judge(0, &c), 0);
        assert_int_equal(judge(2, &c), N_IDS);
}

static void test_bags(void **state) {
        const uint64_t bags[] = { 0, 2, 2 };
        struct verify_claim c = claim(1, 300);
        float sums[3][N_DIMS] = { { 1051 + 1001, 1052 + 1002, 1053 + 1003, 1054 + 1004 },
                                  { 0, 0, 0, 0 },
                                  { 1051, 1052, 1053, 1054 } };
        uint32_t variant;

        (void)state;
        c.options.pooling = CARVQ_POOLING_SUM;
        c.options.bag_offsets = bags;
        c.options.n_bags = 3;
        c.rows = sums;
        assert_int_equal(verify_rows(&soak, &c, &variant), 0);
        sums[0][1] += 1;
        assert_int_equal(verify_rows(&soak, &c, &variant), 1);
        sums[0][1] = NAN;
        assert_int_equal(verify_rows(&soak, &c, &variant), 1);
        sums[1][0] = 1e-30f; /* no row: nothing to round */
        assert_int_equal(verify_rows(&soak, &c, &variant), 2);
}

/* When lookups may fail. */
static void test_bad_times(void **state) {
        struct soak_shared_table *s = &soak.shared->tables[0];

        (void)state;
        assert_false(tables_bad_between(&soak, 0, 10, 20));
        s->bad_from_ns = 100;
        s->bad_until_ns = UINT64_MAX;
        assert_false(tables_bad_between(&soak, 0, 10, 20));
        assert_true(tables_bad_between(&soak, 0, 10, 100));
        assert_true(tables_bad_between(&soak, 0, 500, 501));
        s->bad_until_ns = 200;
        assert_true(tables_bad_between(&soak, 0, 200, 201));
        assert_false(tables_bad_between(&soak, 0, 201, 202));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_time, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
                cmocka_unit_test_setup_teardown(test_columns, setup, teardown),
                cmocka_unit_test_setup_teardown(test_generations, setup, teardown),
                cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bags, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_times, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

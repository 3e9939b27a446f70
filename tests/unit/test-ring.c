/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings' gates at every edge, and the client's half of the mechanics with the test as the
 * daemon: indices about to wrap, full rings, the doorbell and the wake-up flags.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "client-ring.h"

static const struct ring_geometry geometry = { 4, 8, 8192, 1 << 20 };

static void expect_layout(struct ring_geometry g, const char *field) {
        struct ring_layout l;
        struct fault fault = { "" };

        assert_int_equal(ring_layout_compute(&g, &l, &fault), -EINVAL);
        if (strncmp(fault.text, field, strlen(field)) != 0)
                fail_msg("found \"%s\", expected field %s", fault.text, field);
}

static void test_layout(void **state) {
        struct ring_layout l;

        (void)state;
        assert_int_equal(ring_layout_compute(&geometry, &l, NULL), 0);
        assert_int_equal(l.sq_offset, 4096);
        assert_int_equal(l.cq_offset, 8192);
        assert_int_equal(l.ids_offset, 12288);
        assert_int_equal(l.arena_offset, 12288 + 8192);
        assert_int_equal(l.ring_bytes, 12288 + 8192 + (1 << 20));
        assert_int_equal(ring_layout_compute(&(struct ring_geometry){ 4096, 4096, UINT64_C(1) << 40,
                                                                      UINT64_C(1) << 40 },
                                             &l, NULL),
                         0);
        assert_int_equal(l.ring_bytes, 4096 + 4096 * 160 + (UINT64_C(2) << 40));

        expect_layout((struct ring_geometry){ 0, 8, 4096, 4096 }, "sq_entries");
        expect_layout((struct ring_geometry){ 3, 8, 4096, 4096 }, "sq_entries");
        expect_layout((struct ring_geometry){ 8192, 8192, 4096, 4096 }, "sq_entries");
        expect_layout((struct ring_geometry){ 8, 4, 4096, 4096 }, "cq_entries");
        expect_layout((struct ring_geometry){ 8, 0, 4096, 4096 }, "cq_entries");
        expect_layout((struct ring_geometry){ 8, 24, 4096, 4096 }, "cq_entries");
        expect_layout((struct ring_geometry){ 8, UINT32_C(1) << 31, 4096, 4096 }, "cq_entries");
        expect_layout((struct ring_geometry){ 8, 8, 0, 4096 }, "ids_bytes");
        expect_layout((struct ring_geometry){ 8, 8, 4097, 4096 }, "ids_bytes");
        expect_layout((struct ring_geometry){ 8, 8, UINT64_MAX - 4095, 4096 }, "ids_bytes");
        expect_layout((struct ring_geometry){ 8, 8, 4096, 0 }, "arena_bytes");
        expect_layout((struct ring_geometry){ 8, 8, 4096, 100 }, "arena_bytes");
        expect_layout((struct ring_geometry){ 8, 8, 4096, (UINT64_C(1) << 40) + 4096 },
                      "arena_bytes");
}

static void test_distance(void **state) {
        uint32_t n = 99;

        (void)state;
        assert_int_equal(ring_distance(5, 5, 8, &n), 0);
        assert_int_equal(n, 0);
        assert_int_equal(ring_distance(13, 5, 8, &n), 0);
        assert_int_equal(n, 8);
        assert_int_equal(ring_distance(14, 5, 8, &n), -EPROTO);
        assert_int_equal(ring_distance(4, 5, 8, &n), -EPROTO); /* back */
        assert_int_equal(n, 8);                                /* only on success */
        assert_int_equal(ring_distance(3, UINT32_MAX - 2, 8, &n), 0);
        assert_int_equal(n, 6);
        assert_int_equal(ring_distance(6, UINT32_MAX - 2, 8, &n), -EPROTO);
}

/* ---- ring_submission_check() ---- */

#define N_DIMS 100u

/* 8 ids at the id area's start; 8 rows of 400 bytes at the arena's start. */
static struct ring_submission good(void) {
        return (struct ring_submission){ .row_stride_bytes = 400, .n_ids = 8, .scale = 1 };
}

static int check(const struct ring_submission *s, struct fault *ret_fault) {
        struct ring_layout l;
        uint32_t n_rows, n_cols;

        assert_int_equal(ring_layout_compute(&geometry, &l, NULL), 0);
        return ring_submission_check(s, &l, N_DIMS, &n_rows, &n_cols, ret_fault);
}

#define ACCEPT(...)                                                                                \
        do {                                                                                       \
                struct ring_submission s = good();                                                 \
                struct fault fault = { "" };                                                       \
                __VA_ARGS__;                                                                       \
                if (check(&s, &fault) != 0)                                                        \
                        fail_msg("line %d: %s", __LINE__, fault.text);                             \
        } while (0)

#define REFUSE(field, ...)                                                                         \
        do {                                                                                       \
                struct ring_submission s = good();                                                 \
                struct fault fault = { "" };                                                       \
                __VA_ARGS__;                                                                       \
                if (check(&s, &fault) != -EINVAL || !strstr(fault.text, field))                    \
                        fail_msg("line %d: found \"%s\", expected %s", __LINE__, fault.text,       \
                                 field);                                                           \
        } while (0)

static void test_submission_fields(void **state) {
        (void)state;
        ACCEPT();
        REFUSE("n_ids", s.n_ids = 0);
        REFUSE("n_ids", s.n_ids = RING_IDS_MAX + 1);
        REFUSE("n_ids", s.n_ids = UINT32_MAX);
        REFUSE("type", s.type = 3);
        REFUSE("pooling", s.pooling = 3; s.n_bags = 1);
        REFUSE("out_of_range", s.out_of_range = 2);
        ACCEPT(s.flags = RING_SUBMISSION_PIECES);
        REFUSE("flags", s.flags = 2);
        REFUSE("scale", s.scale = NAN);
        REFUSE("scale", s.scale = INFINITY);
        REFUSE("n_bags", s.n_bags = 1);
        REFUSE("bags_offset", s.bags_offset = 64);
        REFUSE("n_bags", s.pooling = RING_POOLING_SUM);
        REFUSE("n_bags", s.pooling = RING_POOLING_SUM; s.n_bags = RING_IDS_MAX + 1);
        ACCEPT(s.pooling = RING_POOLING_MEAN; s.n_bags = 3; s.bags_offset = 64);
        for (size_t i = 0; i < sizeof(((struct ring_submission *)0)->reserved); i++)
                REFUSE("reserved", s.reserved[i] = 1);
}

static void test_submission_ids(void **state) {
        (void)state;
        /* The id area has 8,192 bytes. */
        ACCEPT(s.ids_offset = 8192 - 64);
        REFUSE("ids_offset", s.ids_offset = 8192 - 56);
        REFUSE("ids_offset", s.ids_offset = 8192);
        REFUSE("ids_offset", s.ids_offset = 4);
        REFUSE("ids_offset", s.ids_offset = UINT64_MAX - 7);
        REFUSE("ids_offset", s.ids_offset = UINT64_MAX - 63); /* the end wraps to 0 */
        REFUSE("ids_offset", s.ids_offset = UINT64_C(1) << 63);
        ACCEPT(s.n_ids = 1024; s.row_stride_bytes = 400);
        REFUSE("ids_offset", s.n_ids = 1025);
        ACCEPT(s.pooling = 1; s.n_bags = 1; s.bags_offset = 8192 - 8);
        REFUSE("bags_offset", s.pooling = 1; s.n_bags = 2; s.bags_offset = 8192 - 8);
        REFUSE("bags_offset", s.pooling = 1; s.n_bags = 2; s.bags_offset = 12);
        REFUSE("bags_offset", s.pooling = 1; s.n_bags = 2; s.bags_offset = UINT64_MAX - 15);
}

static void test_submission_columns(void **state) {
        (void)state;
        ACCEPT(s.col_first = 99);
        ACCEPT(s.col_first = 99; s.n_cols = 1; s.row_stride_bytes = 4);
        ACCEPT(s.n_cols = 100);
        REFUSE("columns", s.n_cols = 101; s.row_stride_bytes = 404);
        REFUSE("columns", s.col_first = 100);
        REFUSE("columns", s.col_first = 99; s.n_cols = 2);
        REFUSE("columns", s.col_first = UINT32_MAX);
        REFUSE("columns", s.col_first = 1; s.n_cols = UINT32_MAX); /* the sum wraps to 0 */
}

static void test_submission_output(void **state) {
        const uint64_t arena = 1 << 20;

        (void)state;
        REFUSE("row_stride_bytes", s.row_stride_bytes = 399);
        REFUSE("row_stride_bytes", s.row_stride_bytes = 396);
        REFUSE("row_stride_bytes", s.row_stride_bytes = 402);
        REFUSE("row_stride_bytes", s.row_stride_bytes = 0);
        ACCEPT(s.type = RING_TYPE_BF16; s.row_stride_bytes = 200);
        ACCEPT(s.type = RING_TYPE_BF16; s.row_stride_bytes = 202);
        REFUSE("row_stride_bytes", s.type = RING_TYPE_F16; s.row_stride_bytes = 198);
        REFUSE("row_stride_bytes", s.type = RING_TYPE_F16; s.row_stride_bytes = 201);
        REFUSE("out_offset", s.out_offset = 32);
        /* One row: its stride does not matter. */
        ACCEPT(s.n_ids = 1; s.out_offset = arena - 448);
        REFUSE("out_offset", s.n_ids = 1; s.out_offset = arena - 384);
        REFUSE("out_offset", s.n_ids = 1; s.out_offset = arena);
        REFUSE("out_offset", s.n_ids = 1; s.out_offset = arena + 64);
        REFUSE("out_offset", s.n_ids = 1; s.out_offset = UINT64_MAX - 63);
        ACCEPT(s.n_ids = 1; s.row_stride_bytes = UINT64_MAX - 3);
        /* Products and sums that wrap. */
        REFUSE("out_offset", s.n_ids = 2; s.row_stride_bytes = UINT64_MAX - 3);
        REFUSE("out_offset", s.n_ids = 5; s.row_stride_bytes = UINT64_C(1) << 62);
        REFUSE("out_offset", s.n_ids = 2; s.row_stride_bytes = UINT64_MAX - 399);
        REFUSE("out_offset", s.n_ids = 2; s.row_stride_bytes = UINT64_MAX - 403);
        /* To the last byte: 2 rows, the second ends with the arena. */
        ACCEPT(s.n_ids = 2; s.row_stride_bytes = arena - 400);
        REFUSE("out_offset", s.n_ids = 2; s.row_stride_bytes = arena - 396);
        /* Pooling: as many rows as bags, not as ids. */
        ACCEPT(s.pooling = 1; s.n_bags = 1; s.bags_offset = 64; s.row_stride_bytes = arena);
        REFUSE("out_offset", s.pooling = 1; s.n_bags = 2; s.bags_offset = 64;
               s.row_stride_bytes = arena);
}

static void test_submission_results(void **state) {
        struct ring_submission s = good();
        uint32_t n_rows, n_cols;
        struct ring_layout l;

        (void)state;
        assert_int_equal(ring_layout_compute(&geometry, &l, NULL), 0);
        s.col_first = 30;
        assert_int_equal(ring_submission_check(&s, &l, N_DIMS, &n_rows, &n_cols, NULL), 0);
        assert_int_equal(n_rows, 8);
        assert_int_equal(n_cols, 70);
        s.pooling = 1;
        s.n_bags = 3;
        s.n_cols = 5;
        assert_int_equal(ring_submission_check(&s, &l, N_DIMS, &n_rows, &n_cols, NULL), 0);
        assert_int_equal(n_rows, 3);
        assert_int_equal(n_cols, 5);
}

/* ---- client-ring.c, with the test as the daemon ---- */

static void ring_setup(struct client_ring *ring, uint32_t start) {
        _cleanup_(closep) int memfd = -1;

        assert_int_equal(client_ring_init(ring, &geometry, &memfd, NULL), 0);
        ring->doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ring->sq_tail = ring->cq_head = start;
        atomic_store(&ring->header->sq_tail, start);
        atomic_store(&ring->header->sq_head, start);
        atomic_store(&ring->header->cq_tail, start);
        atomic_store(&ring->header->cq_head, start);
}

/* How often it rang since the last look. */
static uint64_t rings(struct client_ring *ring) {
        uint64_t n = 0;

        return read(ring->doorbell_fd, &n, sizeof(n)) < 0 ? 0 : n;
}

static void test_submit_wraps(void **state) {
        const struct ring_submission *entries;
        struct client_ring ring;

        (void)state;
        ring_setup(&ring, UINT32_MAX - 2);
        entries = ring.submissions;
        for (uint64_t i = 0; i < 4; i++)
                assert_int_equal(
                        client_ring_submit(&ring, &(struct ring_submission){ .user_data = i }), 0);
        assert_int_equal(atomic_load(&ring.header->sq_tail), 1);
        for (uint64_t i = 0; i < 4; i++)
                assert_int_equal(entries[(UINT32_MAX - 2 + (uint32_t)i) & 3].user_data, i);
        assert_int_equal(client_ring_submit(&ring, &(struct ring_submission){ 0 }), -EAGAIN);
        atomic_store(&ring.header->sq_head, UINT32_MAX - 1);
        assert_int_equal(client_ring_submit(&ring, &(struct ring_submission){ 0 }), 0);
        atomic_store(&ring.header->sq_head, 3); /* ahead of the tail */
        assert_int_equal(client_ring_submit(&ring, &(struct ring_submission){ 0 }), -EPROTO);
        atomic_store(&ring.header->sq_head, UINT32_MAX - 3); /* back */
        assert_int_equal(client_ring_submit(&ring, &(struct ring_submission){ 0 }), -EPROTO);
        assert_int_equal(rings(&ring), 0);
        client_ring_deinit(&ring);
}

static void test_reap_wraps(void **state) {
        struct ring_completion got[8];
        struct client_ring ring;

        (void)state;
        ring_setup(&ring, UINT32_MAX - 2);
        for (uint32_t i = 0; i < 8; i++)
                ((struct ring_completion *)ring.completions)[(UINT32_MAX - 2 + i) & 7].user_data =
                        i;
        assert_false(client_ring_ready(&ring));
        assert_int_equal(client_ring_reap(&ring, got, 8), 0);
        atomic_store(&ring.header->cq_tail, 5);
        assert_true(client_ring_ready(&ring));
        assert_true(client_ring_spin(&ring, 0));
        assert_int_equal(client_ring_reap(&ring, got, 3), 3);
        assert_int_equal(got[2].user_data, 2);
        assert_int_equal(atomic_load(&ring.header->cq_head), 0);
        assert_int_equal(client_ring_reap(&ring, got, 8), 5);
        assert_int_equal(got[4].user_data, 7);
        assert_false(client_ring_spin(&ring, 0));
        atomic_store(&ring.header->cq_tail, 5 + 9);
        assert_int_equal(client_ring_reap(&ring, got, 8), -EPROTO);
        atomic_store(&ring.header->cq_tail, 4);
        assert_int_equal(client_ring_reap(&ring, got, 8), -EPROTO);
        client_ring_deinit(&ring);
}

/* With a daemon that takes each at once. */
static void submit(struct client_ring *ring, unsigned n) {
        for (; n; n--) {
                assert_int_equal(client_ring_submit(ring, &(struct ring_submission){ 0 }), 0);
                atomic_store(&ring->header->sq_head, ring->sq_tail);
        }
}

static void test_doorbell(void **state) {
        struct ring_completion got[8];
        struct client_ring ring;

        (void)state;
        ring_setup(&ring, 0);
        client_ring_submit(&ring, &(struct ring_submission){ 0 });
        assert_int_equal(rings(&ring), 0);
        atomic_store(&ring.header->daemon_sleeping, 1);
        client_ring_submit(&ring, &(struct ring_submission){ 0 });
        assert_int_equal(rings(&ring), 1);
        /* Room wakes a daemon only where there was none ... */
        atomic_store(&ring.header->sq_head, 2);
        submit(&ring, 6);
        atomic_store(&ring.header->cq_tail, 7);
        assert_int_equal(client_ring_reap(&ring, got, 7), 7);
        assert_int_equal(rings(&ring), 6);
        submit(&ring, 7);
        atomic_store(&ring.header->cq_tail, 15);
        assert_int_equal(rings(&ring), 7);
        assert_int_equal(client_ring_reap(&ring, got, 1), 1);
        assert_int_equal(rings(&ring), 1);
        assert_int_equal(client_ring_reap(&ring, got, 8), 7);
        assert_int_equal(rings(&ring), 0);
        /* ... and few submissions can fill it if they come in pieces. */
        client_ring_submit(&ring, &(struct ring_submission){ .flags = RING_SUBMISSION_PIECES });
        atomic_store(&ring.header->cq_tail, 23);
        assert_int_equal(rings(&ring), 1);
        assert_int_equal(client_ring_reap(&ring, got, 1), 1);
        assert_int_equal(rings(&ring), 1);
        client_ring_deinit(&ring);
}

static void test_arm(void **state) {
        struct ring_completion got[8];
        struct client_ring ring;

        (void)state;
        ring_setup(&ring, 0);
        assert_true(client_ring_arm(&ring));
        assert_int_equal(atomic_load(&ring.header->client_waiting), 1);
        assert_true(client_ring_arm(&ring)); /* again: a new request, a new odd number */
        assert_int_equal(atomic_load(&ring.header->client_waiting), 3);
        client_ring_disarm(&ring);
        client_ring_disarm(&ring);
        assert_int_equal(atomic_load(&ring.header->client_waiting), 4);
        atomic_store(&ring.header->cq_tail, 1);
        assert_false(client_ring_arm(&ring));
        assert_int_equal(atomic_load(&ring.header->client_waiting), 6);
        assert_int_equal(client_ring_reap(&ring, got, 8), 1);
        assert_true(client_ring_arm(&ring));
        client_ring_deinit(&ring);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_layout),
                cmocka_unit_test(test_distance),
                cmocka_unit_test(test_submission_fields),
                cmocka_unit_test(test_submission_ids),
                cmocka_unit_test(test_submission_columns),
                cmocka_unit_test(test_submission_output),
                cmocka_unit_test(test_submission_results),
                cmocka_unit_test(test_submit_wraps),
                cmocka_unit_test(test_reap_wraps),
                cmocka_unit_test(test_doorbell),
                cmocka_unit_test(test_arm),
        };

        return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}

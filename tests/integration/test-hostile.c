/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that break the protocol, one rule each. That session gets the documented answer and ends;
 * a well-behaved client beside it gets right rows before and after.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "harness.h"
#include "raw-client.h"
#include "tests/make-table.h"

#define N_DIMS    100u
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct harness h;
static size_t n_fds_at_start; /* with the good client connected */
static carvq_client *good;
static carvq_table *good_table, *direct_table;

static int setup(void **state) {
        struct table_header header = { .codec = TABLE_CODEC_CARVQ,
                                       .n_rows = 1000,
                                       .n_dims = N_DIMS,
                                       .n_stages = 3,
                                       .codebook_bits = 4,
                                       .subvector_dims = 8,
                                       .group_cols = 13,
                                       .group_rows = 1000 };
        char spec[200];

        (void)state;
        harness_init(&h);
        make_table_file(harness_path(&h, "t"), &header, 5);
        snprintf(spec, sizeof(spec), "t=%s", harness_path(&h, "t"));
        harness_start(&h, (const char *[]){ "--table", spec, "--max-ring-bytes", "16777216",
                                            "--max-sessions", "64", "--max-sessions-per-user", "64",
                                            NULL });
        good = NULL;
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .arena_bytes = 1 << 20 };
        char message[CARVQ_MESSAGE_BYTES] = "";

        if (carvq_connect(&o, &good, message) < 0)
                fail_msg("%s", message);
        assert_int_equal(carvq_table_open(good, "t", &good_table), 0);
        assert_int_equal(carvq_file_open(harness_path(&h, "t"), NULL, &direct_table, NULL), 0);
        n_fds_at_start = harness_count(&h, "fd");
        return 0;
}

static int teardown(void **state) {
        (void)state;
        carvq_table_close(direct_table);
        carvq_client_free(good);
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

static void expect_good_client_served(void) {
        float a[50 * N_DIMS], b[50 * N_DIMS];
        uint64_t ids[50];

        for (uint64_t i = 0; i < 50; i++)
                ids[i] = i * 17 % 1000;
        assert_int_equal(carvq_lookup(good_table, ids, 50, NULL, a, sizeof(a)), 0);
        assert_int_equal(carvq_lookup(direct_table, ids, 50, NULL, b, sizeof(b)), 0);
        assert_memory_equal(a, b, sizeof(a));
}

static void expect_refusal(struct raw_client *c, enum wire_status status, const char *words) {
        raw_expect_refusal(c, status, words);
        expect_good_client_served();
}

/* ---- handshake ---- */

static void test_hello(void **state) {
        struct raw_client c;
        struct wire_hello m;

        (void)state;
        m = raw_hello();
        m.magic ^= 1;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &m, sizeof(m), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "magic");

        m = raw_hello();
        m.version_major++;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &m, sizeof(m), NULL, 0);
        expect_refusal(&c, WIRE_VERSION, "protocol version 2.1, expected 1.x");

        m = raw_hello();
        m.features_offered = m.features_required = 4;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &m, sizeof(m), NULL, 0);
        expect_refusal(&c, WIRE_VERSION, "features 0x4");

        m = raw_hello();
        memset(m.name, 'x', sizeof(m.name));
        raw_connect(&c, h.socket_path);
        raw_send(&c, &m, sizeof(m), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "padded");

        m = raw_hello();
        m.reserved = 1;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &m, sizeof(m), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "reserved");
}

static void test_packets(void **state) {
        uint8_t large[1024] = { WIRE_HELLO }, message[WIRE_MESSAGE_BYTES];
        struct wire_hello hello = raw_hello();
        struct raw_client c;
        int fds[8];

        (void)state;
        raw_connect(&c, h.socket_path);
        raw_send(&c, "hi", 2, NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "2 bytes");

        raw_connect(&c, h.socket_path);
        raw_send(&c, &hello, sizeof(hello) - 1, NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "HELLO of 167 bytes");

        raw_connect(&c, h.socket_path);
        raw_send(&c, large, sizeof(large), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "too long");

        hello.header.type = 99;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "99");

        /* Once greeted, as before that a kernel may not let any through. */
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = 1;
        hello = raw_hello();
        for (size_t n = 1; n <= ARRAY_SIZE(fds); n *= 8) {
                char words[32];

                snprintf(words, sizeof(words), "%zu descriptors", n);
                raw_connect(&c, h.socket_path);
                raw_send(&c, &hello, sizeof(hello), NULL, 0);
                assert_int_equal(raw_receive(&c, message), WIRE_WELCOME);
                raw_send(&c, &hello, sizeof(hello), fds, n);
                expect_refusal(&c, WIRE_PROTOCOL, words);
        }
}

static void test_messages_out_of_order(void **state) {
        struct wire_open_table open = { .header = { WIRE_OPEN_TABLE, sizeof(open) }, .name = "t" };
        struct wire_close_table close_table = { .header = { WIRE_CLOSE_TABLE, sizeof(close_table) },
                                                .table = 12345 };
        struct wire_hello hello = raw_hello();
        struct wire_ring ring = raw_ring();
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct raw_client c;
        int fd, r;

        (void)state;
        raw_connect(&c, h.socket_path);
        raw_send(&c, &open, sizeof(open), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        raw_connect(&c, h.socket_path);
        fd = raw_memfd(4096, 0);
        r = raw_try_send(&c, &ring, sizeof(ring), &fd, 1);
        close(fd);
        if (r == -EPERM) /* Linux 6.16: no descriptors before WELCOME */
                raw_close(&c);
        else
                expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        raw_connect(&c, h.socket_path);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        assert_int_equal(raw_receive(&c, message), WIRE_WELCOME);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        raw_handshake(&c, h.socket_path, 0);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "not allowed in this state");

        raw_handshake(&c, h.socket_path, 0);
        raw_send(&c, &close_table, sizeof(close_table), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "names no open table");
}

/* The first handle can be guessed; it is nobody's until the daemon has said so. */
static void test_guessed_handle(void **state) {
        struct wire_open_table open = { .header = { WIRE_OPEN_TABLE, sizeof(open) }, .name = "t" };
        struct wire_close_table close_table = { .header = { WIRE_CLOSE_TABLE, sizeof(close_table) },
                                                .table = WIRE_TABLES_MAX };
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct raw_client c;
        int type;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        raw_send(&c, &open, sizeof(open), NULL, 0);
        raw_send(&c, &close_table, sizeof(close_table), NULL, 0);
        /* It came too early, a violation, or the answer was faster; never anything worse. */
        type = raw_receive(&c, message);
        assert_true(type == WIRE_TABLE || type == WIRE_ERROR);
        raw_close(&c);
        expect_good_client_served();
}

/* ---- the ring's memory ---- */

static void expect_ring_refused(const struct wire_ring *ring, int fd, enum wire_status status,
                                const char *words) {
        struct wire_hello hello = raw_hello();
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct raw_client c;

        raw_connect(&c, h.socket_path);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        assert_int_equal(raw_receive(&c, message), WIRE_WELCOME);
        raw_send(&c, ring, sizeof(*ring), &fd, 1);
        close(fd);
        expect_refusal(&c, status, words);
}

static void test_ring_memory(void **state) {
        struct wire_ring ring = raw_ring(), bad;
        struct ring_layout l;
        int fds[2];

        (void)state;
        assert_int_equal(ring_layout_compute(&ring.geometry, &l, NULL), 0);
        expect_ring_refused(&ring, raw_memfd(l.ring_bytes, 0), WIRE_RING_REFUSED, "seals are 0x0");
        expect_ring_refused(&ring, raw_memfd(l.ring_bytes, F_SEAL_SHRINK | F_SEAL_SEAL),
                            WIRE_RING_REFUSED, "seals are 0x3");
        expect_ring_refused(&ring, raw_memfd(l.ring_bytes, ALL_SEALS | F_SEAL_WRITE),
                            WIRE_RING_REFUSED, "against writing");
        expect_ring_refused(&ring, raw_memfd(l.ring_bytes - 4096, ALL_SEALS), WIRE_RING_REFUSED,
                            "expected");
        expect_ring_refused(&ring, raw_memfd(l.ring_bytes + 4096, ALL_SEALS), WIRE_RING_REFUSED,
                            "expected");
        assert_int_equal(pipe(fds), 0);
        close(fds[1]);
        expect_ring_refused(&ring, fds[0], WIRE_RING_REFUSED, "not a memfd");
        expect_ring_refused(&ring, open("/proc/self/exe", O_RDONLY), WIRE_RING_REFUSED,
                            "not a memfd");

        bad = ring;
        bad.geometry.sq_entries = 7;
        expect_ring_refused(&bad, raw_memfd(l.ring_bytes, ALL_SEALS), WIRE_RING_REFUSED,
                            "sq_entries is 7");
        bad = ring;
        bad.geometry.cq_entries = 4;
        expect_ring_refused(&bad, raw_memfd(l.ring_bytes, ALL_SEALS), WIRE_RING_REFUSED,
                            "cq_entries is 4");
        bad = ring;
        bad.geometry.arena_bytes = 64 << 20;
        expect_ring_refused(&bad, raw_memfd(l.ring_bytes, ALL_SEALS), WIRE_LIMIT, "max-ring-bytes");
        bad.geometry.arena_bytes = UINT64_MAX - 4095;
        expect_ring_refused(&bad, raw_memfd(l.ring_bytes, ALL_SEALS), WIRE_RING_REFUSED,
                            "arena_bytes");
}

/* ---- the rings' words ---- */

static void test_impossible_indices(void **state) {
        struct raw_client c;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        atomic_store(&c.header->sq_tail, 9);
        raw_ring_doorbell(&c);
        expect_refusal(&c, WIRE_PROTOCOL, "sq_tail is 9");

        raw_handshake(&c, h.socket_path, 0);
        atomic_store(&c.header->sq_tail, UINT32_MAX);
        raw_ring_doorbell(&c);
        expect_refusal(&c, WIRE_PROTOCOL, "sq_tail");

        raw_handshake(&c, h.socket_path, 0);
        atomic_store(&c.header->cq_head, 1);
        raw_ring_doorbell(&c);
        expect_refusal(&c, WIRE_PROTOCOL, "cq_head is 1");
}

static struct ring_submission submission(uint64_t table) {
        return (struct ring_submission){ .user_data = 42,
                                         .table = table,
                                         .row_stride_bytes = N_DIMS * 4,
                                         .n_ids = 1,
                                         .scale = 1 };
}

/* One defect each: the answer is a completion, the session goes on. */
static void test_descriptors(void **state) {
        struct ring_completion completion;
        struct ring_submission s;
        struct wire_table info;
        struct raw_client c;
        uint64_t t, *ids;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        t = raw_open_table(&c, "t", &info);
        assert_int_equal(info.status, WIRE_OK);
        ids = (uint64_t *)(void *)(c.memory + c.layout.ids_offset);
        ids[0] = 3;

        const struct {
                size_t offset, bytes;
                uint64_t value;
                enum ring_status status;
        } defects[] = {
#define FIELD(f) offsetof(struct ring_submission, f), sizeof(((struct ring_submission *)0)->f)
                { FIELD(table), t + 256, RING_STATUS_NO_TABLE },
                { FIELD(table), 0, RING_STATUS_NO_TABLE },
                { FIELD(table), UINT64_MAX, RING_STATUS_NO_TABLE },
                { FIELD(n_ids), 0, RING_STATUS_INVALID },
                { FIELD(n_ids), 513, RING_STATUS_INVALID }, /* past the id area */
                { FIELD(n_ids), UINT32_MAX, RING_STATUS_INVALID },
                { FIELD(ids_offset), 4, RING_STATUS_INVALID },
                { FIELD(ids_offset), 4096, RING_STATUS_INVALID },
                { FIELD(ids_offset), UINT64_MAX - 7, RING_STATUS_INVALID },
                { FIELD(out_offset), 4, RING_STATUS_INVALID },
                { FIELD(out_offset), 4 * 4096, RING_STATUS_INVALID },
                { FIELD(out_offset), 4 * 4096 - 64, RING_STATUS_INVALID },
                { FIELD(out_offset), UINT64_MAX - 63, RING_STATUS_INVALID },
                { FIELD(row_stride_bytes), 396, RING_STATUS_INVALID },
                { FIELD(row_stride_bytes), 401, RING_STATUS_INVALID },
                { FIELD(type), 3, RING_STATUS_INVALID },
                { FIELD(pooling), 1, RING_STATUS_INVALID }, /* without bags */
                { FIELD(pooling), 3, RING_STATUS_INVALID },
                { FIELD(n_bags), 1, RING_STATUS_INVALID },
                { FIELD(bags_offset), 8, RING_STATUS_INVALID },
                { FIELD(out_of_range), 2, RING_STATUS_INVALID },
                { FIELD(flags), 0x80, RING_STATUS_INVALID },
                { FIELD(col_first), 100, RING_STATUS_INVALID },
                { FIELD(n_cols), 101, RING_STATUS_INVALID },
                { FIELD(scale), 0x7f800000, RING_STATUS_INVALID },
                { FIELD(reserved), 1, RING_STATUS_INVALID },
#undef FIELD
        };

        for (size_t i = 0; i < ARRAY_SIZE(defects); i++) {
                s = submission(t);
                memcpy((uint8_t *)&s + defects[i].offset, &defects[i].value,
                       MIN(defects[i].bytes, 8u));
                raw_submit(&c, &s);
                completion = raw_complete(&c);
                if (completion.user_data != 42 || completion.status != defects[i].status)
                        fail_msg("defect %zu: status %u", i, completion.status);
        }

        ids[0] = 1000;
        s = submission(t);
        raw_submit(&c, &s);
        completion = raw_complete(&c);
        assert_int_equal(completion.status, RING_STATUS_OUT_OF_RANGE);
        assert_int_equal(completion.detail, 0);

        ids[0] = 3;
        raw_submit(&c, &s);
        completion = raw_complete(&c);
        assert_int_equal(completion.status, RING_STATUS_OK);
        assert_int_equal(completion.n_rows, 1);
        raw_close(&c);
        expect_good_client_served();
}

/* A closed handle names nothing, also when its slot has been taken again. */
static void test_closed_handle(void **state) {
        struct wire_close_table close_table = { .header = { WIRE_CLOSE_TABLE,
                                                            sizeof(close_table) } };
        struct ring_submission s;
        struct wire_table info;
        struct raw_client c;
        uint64_t first, second;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        first = raw_open_table(&c, "t", &info);
        close_table.table = first;
        raw_send(&c, &close_table, sizeof(close_table), NULL, 0);
        second = raw_open_table(&c, "t", &info); /* answered after the close */
        assert_int_equal(info.status, WIRE_OK);
        assert_int_not_equal(first, second);
        s = submission(first);
        raw_submit(&c, &s);
        assert_int_equal(raw_complete(&c).status, RING_STATUS_NO_TABLE);
        s = submission(second);
        raw_submit(&c, &s);
        assert_int_equal(raw_complete(&c).status, RING_STATUS_OK);
        raw_send(&c, &close_table, sizeof(close_table), NULL, 0);
        expect_refusal(&c, WIRE_PROTOCOL, "names no open table");
}

/* Two huge rows whose stride alone would leave the arena, and a product that would wrap. */
static void test_strides_that_overflow(void **state) {
        static const uint64_t strides[] = { 16000, UINT64_C(1) << 62, UINT64_MAX - 3 };
        struct wire_table info;
        struct raw_client c;
        uint64_t t;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        t = raw_open_table(&c, "t", &info);
        for (size_t i = 0; i < ARRAY_SIZE(strides); i++) {
                struct ring_submission s = submission(t);

                s.n_ids = 5;
                s.row_stride_bytes = strides[i];
                raw_submit(&c, &s);
                assert_int_equal(raw_complete(&c).status, RING_STATUS_INVALID);
        }
        raw_close(&c);
        expect_good_client_served();
}

/* A client that never reaps waits for itself alone, and is served on when it reaps. */
static void test_full_completion_ring(void **state) {
        struct wire_table info;
        struct raw_client c;
        struct ring_submission s;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        s = submission(raw_open_table(&c, "t", &info));
        for (int i = 0; i < 16; i++) {
                while (atomic_load(&c.header->sq_tail) - atomic_load(&c.header->sq_head) == 8)
                        ;
                s.user_data = (uint64_t)i;
                raw_submit(&c, &s);
        }
        while (atomic_load(&c.header->cq_tail) != 16)
                ;
        for (int i = 16; i < 20; i++) {
                s.user_data = (uint64_t)i;
                raw_submit(&c, &s);
        }
        expect_good_client_served();
        assert_int_equal(atomic_load(&c.header->cq_tail), 16);
        assert_int_equal(atomic_load(&c.header->sq_head), 16);
        for (uint64_t i = 0; i < 20; i++) {
                assert_int_equal(raw_complete(&c).user_data, i);
                raw_ring_doorbell(&c);
        }
        raw_close(&c);
}

/* Pages of the ring turned to zeros under the daemon, its eventfd filled to the brim and made
 * blocking. */
static void test_meddling_with_shared_objects(void **state) {
        struct wire_table info;
        struct raw_client c;
        struct ring_submission s;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        s = submission(raw_open_table(&c, "t", &info));
        assert_int_equal(fcntl(c.doorbell, F_SETFL, 0), 0);
        assert_int_equal(
                write(c.doorbell, &(uint64_t){ UINT64_MAX - 1 }, 8) == 8 || errno == EAGAIN, 1);
        atomic_store(&c.header->client_waiting, 1);
        assert_int_equal(fallocate(c.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                   (off_t)c.layout.ring_bytes),
                         0);
        expect_good_client_served();
        assert_int_equal(read(c.doorbell, &(uint64_t){ 0 }, 8), 8);
        raw_submit(&c, &s);
        assert_int_equal(raw_complete(&c).status, RING_STATUS_OK);
        raw_close(&c);
        expect_good_client_served();
}

static void test_pieces_come_in_order(void **state) {
        struct ring_completion completion;
        struct wire_table info;
        struct raw_client c;
        struct ring_submission s;
        uint32_t next = 0;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        s = submission(raw_open_table(&c, "t", &info));
        s.flags = RING_SUBMISSION_PIECES;
        s.n_ids = 40;
        raw_submit(&c, &s);
        do {
                completion = raw_complete(&c);
                assert_int_equal(completion.status, RING_STATUS_OK);
                assert_int_equal(completion.row_first, next);
                next += completion.n_rows;
        } while (completion.flags & RING_COMPLETION_MORE);
        assert_int_equal(next, 40);
        raw_close(&c);
}

/* ---- limits ---- */

static void test_session_limit(void **state) {
        static struct raw_client clients[63];
        struct raw_client one_more;

        (void)state;
        harness_wait_count(&h, "fd", n_fds_at_start); /* earlier sessions have ended */
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
                raw_handshake(&clients[i], h.socket_path, 0);
        raw_connect(&one_more, h.socket_path);
        expect_refusal(&one_more, WIRE_LIMIT, "max-sessions");
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
                raw_close(&clients[i]);
}

static void test_handshake_that_stops_half_way(void **state) {
        struct wire_hello hello = raw_hello();
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct raw_client c;

        (void)state;
        harness_wait_count(&h, "fd", n_fds_at_start);
        raw_connect(&c, h.socket_path);
        raw_send(&c, &hello, sizeof(hello), NULL, 0);
        assert_int_equal(raw_receive(&c, message), WIRE_WELCOME);
        expect_refusal(&c, WIRE_PROTOCOL, "not finished in 5 s");
}

static void test_table_limit(void **state) {
        struct wire_open_table open = { .header = { WIRE_OPEN_TABLE, sizeof(open) }, .name = "t" };
        struct wire_table info;
        struct raw_client c;

        (void)state;
        raw_handshake(&c, h.socket_path, 0);
        for (uint32_t i = 0; i < WIRE_TABLES_MAX; i++) {
                raw_open_table(&c, "t", &info);
                assert_int_equal(info.status, WIRE_OK);
        }
        raw_open_table(&c, "t", &info);
        assert_int_equal(info.status, WIRE_LIMIT);
        raw_open_table(&c, "absent", &info);
        assert_int_equal(info.status, WIRE_NO_TABLE);
        assert_non_null(strstr(info.text, "'absent'"));
        raw_close(&c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hello),
                cmocka_unit_test(test_packets),
                cmocka_unit_test(test_messages_out_of_order),
                cmocka_unit_test(test_guessed_handle),
                cmocka_unit_test(test_ring_memory),
                cmocka_unit_test(test_impossible_indices),
                cmocka_unit_test(test_descriptors),
                cmocka_unit_test(test_closed_handle),
                cmocka_unit_test(test_strides_that_overflow),
                cmocka_unit_test(test_full_completion_ring),
                cmocka_unit_test(test_meddling_with_shared_objects),
                cmocka_unit_test(test_pieces_come_in_order),
                cmocka_unit_test(test_session_limit),
                cmocka_unit_test(test_handshake_that_stops_half_way),
                cmocka_unit_test(test_table_limit),
        };

        return cmocka_run_group_tests_name("hostile", tests, setup, teardown);
}

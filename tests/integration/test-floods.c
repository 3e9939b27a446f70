/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that nobody wants: by the hundred, in queues, with nothing else in the packet, of
 * kinds that are no memory for a ring, and such as take their time to be closed. Others are served
 * meanwhile, and the daemon keeps none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "harness.h"
#include "raw-client.h"
#include "tests/make-table.h"

#define SCM_MAX_FD 253u /* the kernel's */
#define ALL_SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct harness h;
static size_t n_fds, n_tasks;

static int setup(void **state) {
        const struct table_header header = { .codec = TABLE_CODEC_F16, .n_rows = 100, .n_dims = 8 };
        char spec[200];

        (void)state;
        harness_init(&h);
        make_table_file(harness_path(&h, "t"), &header, 1);
        snprintf(spec, sizeof(spec), "t=%s", harness_path(&h, "t"));
        harness_start(&h, (const char *[]){ "--table", spec, "--log-level", "warning", NULL });
        n_fds = harness_count(&h, "fd");
        n_tasks = harness_count(&h, "task");
        return 0;
}

static int teardown(void **state) {
        (void)state;
        if (h.pid)
                assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

/* A whole life: connect, open, look up, leave. */
static void expect_others_served(void) {
        carvq_client *client = harness_connect(&h);
        carvq_table *table;
        uint64_t id = 7;
        float row[8];

        assert_non_null(client);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(carvq_lookup(table, &id, 1, NULL, row, sizeof(row)), 0);
        carvq_client_free(client);
}

static void expect_nothing_left(void) {
        harness_wait_count(&h, "fd", n_fds);
        harness_wait_count(&h, "task", n_tasks);
}

/* Greeted: from here on descriptors may come. */
static void greet(struct raw_client *c) {
        raw_greet(c, h.socket_path);
}

/* ---- Descriptors that are slow to close ---- */

/* The daemon holds the last reference: it sees nothing of it until ours is closed. */
static void send_and_forget(struct raw_client *c, size_t n_before, size_t n, int *ret_other) {
        int fds[SCM_MAX_FD], fd;

        raw_make_lingering(&fd, ret_other);
        for (size_t i = 0; i < n; i++)
                fds[i] = i == n - 1 ? fd : STDIN_FILENO;
        kill(h.pid, SIGSTOP);
        for (size_t i = 0; i < n_before; i++)
                raw_send(c, "x", 1, NULL, 0);
        raw_send(c, "y", 1, fds, n);
        close(fd);
        kill(h.pid, SIGCONT);
}

/* In the message that is wrong; behind as many as it can carry; in the queue, where nobody ever
 * reads it. */
static void test_slow_to_close(void **state) {
        const size_t n_before[] = { 0, 0, 1 }, n[] = { 1, SCM_MAX_FD, 2 };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(n_before); i++) {
                struct raw_client c;
                int other;

                greet(&c);
                send_and_forget(&c, n_before[i], n[i], &other);
                for (int k = 0; k < 5; k++)
                        expect_others_served();
                assert_true(harness_count(&h, "task") > n_tasks); /* it is still at it */
                raw_close(&c);
                close(other);
                expect_nothing_left();
        }
}

/* Nor does the daemon's end wait for them, beyond ten seconds. */
static void test_slow_to_close_at_the_end(void **state) {
        struct raw_client c;
        int other;

        (void)state;
        greet(&c);
        send_and_forget(&c, 0, 1, &other);
        expect_others_served();
        assert_int_equal(harness_stop(&h), 0);
        assert_true(harness_logged(&h, "stopping without 1 client whose descriptors do not close"));
        raw_close(&c);
        close(other);
}

/* ---- Descriptors by the thousand ---- */

/* Without a byte beside them: to recvmsg() that looks like the connection's end. */
static void test_empty_packets(void **state) {
        int fds[4] = { 0, 0, 0, 0 };

        (void)state;
        for (int i = 0; i < 50; i++) {
                struct raw_client c;

                greet(&c);
                raw_send(&c, "", 0, fds, ARRAY_SIZE(fds));
                raw_close(&c);
        }
        expect_others_served();
        expect_nothing_left();
}

static void test_queues_of_descriptors(void **state) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        int fds[SCM_MAX_FD], type;
        size_t n_sent = 0;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = 0;
        for (int i = 0; i < 20; i++) {
                struct raw_client c;

                greet(&c);
                kill(h.pid, SIGSTOP);
                for (int k = 0; k < 100 && raw_try_send(&c, "x", 1, fds, ARRAY_SIZE(fds)) == 0; k++)
                        n_sent += ARRAY_SIZE(fds);
                kill(h.pid, SIGCONT);
                /* The refusal is lost when the socket is closed over what was not read of it. */
                type = raw_receive(&c, message);
                assert_true(type == WIRE_ERROR || type == 0);
                raw_close(&c);
        }
        print_message("# %zu descriptors\n", n_sent);
        assert_true(n_sent > 1000);
        expect_others_served();
        expect_nothing_left();
}

/* Where they may not come at all: the kernel says so (Linux 6.16), or the daemon. */
static void test_uninvited(void **state) {
        struct wire_hello hello = raw_hello();
        struct raw_client c;
        int fd = 0, r;

        (void)state;
        raw_connect(&c, h.socket_path);
        r = raw_try_send(&c, &hello, sizeof(hello), &fd, 1);
        if (r == 0)
                raw_expect_refusal(&c, WIRE_PROTOCOL, "1 descriptors");
        else
                raw_close(&c);
        assert_true(r == 0 || r == -EPERM);
        raw_handshake(&c, h.socket_path, 0);
        r = raw_try_send(&c, &hello, sizeof(hello), &fd, 1);
        if (r == 0)
                raw_expect_refusal(&c, WIRE_PROTOCOL, "1 descriptors");
        else
                raw_close(&c);
        assert_true(r == 0 || r == -EPERM);
        expect_nothing_left();
}

/* ---- What is no memory for a ring ---- */

static void expect_ring_refused(const struct wire_ring *ring, int fd, const char *words) {
        struct raw_client c;

        if (fd < 0) {
                print_message("# left out, this kernel has none: %s\n", words);
                return;
        }
        greet(&c);
        raw_send(&c, ring, sizeof(*ring), &fd, 1);
        close(fd);
        raw_expect_refusal(&c, WIRE_RING_REFUSED, words);
}

static int reopen(int fd, int flags) {
        char path[64];
        int again;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, flags | O_CLOEXEC);
        close(fd);
        return again;
}

static int make_sealed(unsigned flags, uint64_t bytes) {
        int fd = memfd_create("floods", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

        if (fd >= 0 && (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, ALL_SEALS) < 0))
                fail_msg("memfd: %s", strerror(errno));
        return fd;
}

static int make_unlinked(const char *folder) {
        return open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static void test_kinds_of_memory(void **state) {
        const uint64_t huge_bytes = 2 << 20;
        struct wire_ring ring = raw_ring(), huge = raw_ring();
        struct ring_layout l;
        int pair[2];

        (void)state;
        assert_int_equal(ring_layout_compute(&ring.geometry, &l, NULL), 0);
        huge.geometry.arena_bytes += huge_bytes - l.ring_bytes;
        expect_ring_refused(&huge, make_sealed(MFD_HUGETLB, huge_bytes), "huge pages");
        expect_ring_refused(&ring, reopen(make_sealed(0, l.ring_bytes), O_RDONLY), "mmap");
        expect_ring_refused(&ring, reopen(make_sealed(0, l.ring_bytes), O_PATH), "not a memfd");
        expect_ring_refused(&ring, make_unlinked("/dev/shm"), "seals are 0x1");
        expect_ring_refused(&ring, make_unlinked(h.folder), "");
        expect_ring_refused(&ring, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "not a memfd");
        expect_ring_refused(&ring, eventfd(0, EFD_CLOEXEC), "not a memfd");
        expect_ring_refused(&ring, epoll_create1(EPOLL_CLOEXEC), "not a memfd");
        expect_ring_refused(&ring, open("/dev/zero", O_RDWR | O_CLOEXEC), "not a memfd");
        expect_ring_refused(&ring, (int)syscall(SYS_memfd_secret, FD_CLOEXEC), "not a memfd");
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        close(pair[1]);
        expect_ring_refused(&ring, pair[0], "not a memfd");
        expect_others_served();
        expect_nothing_left();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_slow_to_close),
                cmocka_unit_test(test_empty_packets),
                cmocka_unit_test(test_queues_of_descriptors),
                cmocka_unit_test(test_uninvited),
                cmocka_unit_test(test_kinds_of_memory),
                cmocka_unit_test(test_slow_to_close_at_the_end), /* of the daemon */
        };

        return cmocka_run_group_tests_name("floods", tests, setup, teardown);
}

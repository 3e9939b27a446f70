/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon does when descriptors, memory, the log or the disk are used up under it: clients
 * that are in go on, new ones are told or wait, nothing spins, and once there is some again nobody
 * has to help.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "harness.h"
#include "proto/spin.h"
#include "raw-client.h"
#include "tests/make-table.h"

#define N_ROWS 2000u
#define N_DIMS 16u

/* An allocator of its own, which does not live with less memory. */
#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifndef HAVE_ASAN
#define HAVE_ASAN 0
#endif

static struct harness h;
static carvq_client *good;
static carvq_table *good_table, *direct_table;

static const struct table_header shape = {
        .codec = TABLE_CODEC_CARVQ,
        .n_rows = N_ROWS,
        .n_dims = N_DIMS,
        .n_stages = 3,
        .codebook_bits = 4,
        .subvector_dims = 8,
        .group_cols = 65536,
        .group_rows = N_ROWS,
};

static void start(const char *table_path, const char *log_level) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .arena_bytes = 8 << 20 };
        char spec[200], message[CARVQ_MESSAGE_BYTES];

        snprintf(spec, sizeof(spec), "t=%s", table_path);
        harness_start(&h, (const char *[]){ "--table", spec, "--log-level", log_level, NULL });
        if (carvq_connect(&o, &good, message) < 0)
                fail_msg("%s", message);
        assert_int_equal(carvq_table_open(good, "t", &good_table), 0);
        assert_int_equal(carvq_file_open(table_path, NULL, &direct_table, NULL), 0);
}

static int setup(void **state) {
        (void)state;
        harness_init(&h);
        make_table_file(harness_path(&h, "t"), &shape, 5);
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

static void expect_served(void) {
        float a[50 * N_DIMS], b[50 * N_DIMS];
        uint64_t ids[50];

        for (uint64_t i = 0; i < 50; i++)
                ids[i] = i * 17 % N_ROWS;
        assert_int_equal(carvq_lookup(good_table, ids, 50, NULL, a, sizeof(a)), 0);
        assert_int_equal(carvq_lookup(direct_table, ids, 50, NULL, b, sizeof(b)), 0);
        assert_memory_equal(a, b, sizeof(a));
}

/* Somebody new. */
static void expect_welcoming(void) {
        struct wire_table info;
        struct raw_client c;

        raw_handshake(&c, h.socket_path, 0);
        raw_open_table(&c, "t", &info);
        assert_int_equal(info.status, WIRE_OK);
        raw_close(&c);
}

static struct rlimit limit_of(int resource) {
        struct rlimit limit;

        assert_int_equal(prlimit(h.pid, resource, NULL, &limit), 0);
        return limit;
}

/* Soft limits only: anybody may raise them again. */
static void set_limit(int resource, uint64_t n) {
        const struct rlimit limit = { n, limit_of(resource).rlim_max };

        assert_int_equal(prlimit(h.pid, resource, &limit, NULL), 0);
}

static void say_hello(struct raw_client *c) {
        const struct wire_hello hello = raw_hello();

        raw_connect(c, h.socket_path);
        raw_send(c, &hello, sizeof(hello), NULL, 0);
}

static void expect_welcome(struct raw_client *c) {
        uint8_t message[WIRE_MESSAGE_BYTES];

        assert_int_equal(raw_receive(c, message), WIRE_WELCOME);
}

static void send_ring(struct raw_client *c, uint64_t arena_bytes) {
        struct wire_ring ring = raw_ring();
        struct ring_layout layout;

        ring.geometry.arena_bytes = arena_bytes;
        assert_int_equal(ring_layout_compute(&ring.geometry, &layout, NULL), 0);
        c->memfd = raw_memfd(layout.ring_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        raw_send(c, &ring, sizeof(ring), &c->memfd, 1);
}

/* ---- Descriptors ---- */

static uint64_t cpu_ns(void) {
        struct timespec t;
        clockid_t clock;

        assert_int_equal(clock_getcpuclockid(h.pid, &clock), 0);
        assert_int_equal(clock_gettime(clock, &t), 0);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t count_logged(const char *text) {
        FILE *f = fopen(h.log_path, "re");
        char line[1024];
        uint32_t n = 0;

        while (f && fgets(line, sizeof(line), f))
                n += strstr(line, text) != NULL;
        if (f)
                fclose(f);
        return n;
}

static void wait_logged_times(const char *text, uint32_t n) {
        for (int i = 0; i < 3000 && count_logged(text) < n; i++)
                nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        if (count_logged(text) < n)
                harness_wait_logged(&h, "never"); /* prints the log */
}

/* Numbers are used again, so there may be gaps: so many that `n` are free. */
static void leave_descriptors(unsigned n) {
        unsigned fd = 0;
        char path[64];

        for (;; fd++) {
                snprintf(path, sizeof(path), "/proc/%d/fd/%u", h.pid, fd);
                if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && n-- == 0)
                        break;
        }
        set_limit(RLIMIT_NOFILE, fd);
}

#define DESCRIPTORS_MAX 48u

/* An administrator gave it few: hard, so that the daemon cannot raise it. */
static void start_with_few_descriptors(void) {
        const char *script = harness_path(&h, "few"), *carvqd = getenv("CARVQD");
        FILE *f = fopen(script, "we");

        assert_non_null(f);
        fprintf(f, "#!/bin/sh\nulimit -n %u && exec %s \"$@\"\n", DESCRIPTORS_MAX, carvqd);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(chmod(script, 0755), 0);
        setenv("CARVQD", script, 1);
        start(harness_path(&h, "t"), "info");
        setenv("CARVQD", carvqd, 1);
}

/* A session takes two; whoever has said nothing yet takes one. */
static size_t take_all_descriptors(struct raw_client clients[DESCRIPTORS_MAX]) {
        size_t n = 0;

        while (harness_count(&h, "fd") + 2 <= DESCRIPTORS_MAX)
                raw_handshake(&clients[n++], h.socket_path, 0);
        return n;
}

static void test_no_descriptor_to_accept(void **state) {
        const char *text = "cannot accept a connection: Too many open files";
        struct raw_client inside[DESCRIPTORS_MAX], waiting[4];
        uint64_t start_ns, start_cpu_ns, ns, used_ns;
        size_t n_inside;

        (void)state;
        start_with_few_descriptors();
        n_inside = take_all_descriptors(inside);
        assert_true(n_inside > 2);
        for (size_t i = 0; i < ARRAY_SIZE(waiting); i++)
                say_hello(&waiting[i]);
        wait_logged_times(text, 1);
        start_ns = clock_ns();
        start_cpu_ns = cpu_ns();
        wait_logged_times(text, 3);
        used_ns = cpu_ns() - start_cpu_ns;
        ns = clock_ns() - start_ns;
        expect_served();
        assert_true(ns >= UINT64_C(1500000000)); /* two more, a second apart */
        if (used_ns > ns / 4)
                fail_msg("%" PRIu64 " ns of CPU time in %" PRIu64 " ns", used_ns, ns);
        assert_true(harness_logged(&h, " more like this in the last "));

        for (size_t i = 0; i < n_inside; i++)
                raw_close(&inside[i]);
        for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
                expect_welcome(&waiting[i]);
                raw_close(&waiting[i]);
        }
        expect_welcoming();
}

static void test_no_descriptor_for_the_ring(void **state) {
        uint64_t limit;
        struct raw_client c;

        (void)state;
        start(harness_path(&h, "t"), "info");
        limit = limit_of(RLIMIT_NOFILE).rlim_cur;
        say_hello(&c);
        expect_welcome(&c);
        leave_descriptors(0);
        send_ring(&c, 65536);
        raw_expect_refusal(&c, WIRE_INTERNAL, "no descriptor left for the client's");
        expect_served();
        set_limit(RLIMIT_NOFILE, limit);

        say_hello(&c);
        expect_welcome(&c);
        leave_descriptors(1);
        send_ring(&c, 65536);
        raw_expect_refusal(&c, WIRE_INTERNAL, "no descriptor left for the doorbell");
        expect_served();
        set_limit(RLIMIT_NOFILE, limit);
        expect_welcoming();
}

/* ---- Memory ---- */

/* "VmSize" or "VmData", in bytes. */
static uint64_t status_bytes(const char *name) {
        unsigned long kib = 0;
        char path[64], line[256];
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/status", h.pid);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f))
                if (!strncmp(line, name, strlen(name)))
                        sscanf(line + strlen(name), ": %lu", &kib);
        fclose(f);
        assert_true(kib);
        return (uint64_t)kib * 1024;
}

static void test_no_room_for_a_ring(void **state) {
        struct raw_client c;

        (void)state;
        start(harness_path(&h, "t"), "info");
        if (HAVE_ASAN) {
                print_message("# AddressSanitizer's allocator does not live with less memory\n");
                return;
        }
        say_hello(&c);
        expect_welcome(&c);
        set_limit(RLIMIT_AS, status_bytes("VmSize"));
        send_ring(&c, 1 << 20);
        raw_expect_refusal(&c, WIRE_INTERNAL, "Cannot allocate memory");
        expect_served();
        set_limit(RLIMIT_AS, RLIM_INFINITY);
        expect_welcoming();
}

/* In one piece, as carvq_lookup() does not do it. */
static int look_up_at_once(uint32_t n_ids) {
        static uint64_t ids[CARVQ_IDS_MAX];
        struct carvq_rows rows;
        carvq_ticket ticket;
        int r;

        assert_int_equal(carvq_submit(good_table, ids, n_ids, NULL, &ticket), 0);
        r = carvq_wait(good, ticket, 0, &rows);
        if (r >= 0)
                carvq_release(good, ticket);
        return r;
}

/* The first lookup of this size needs memory for its ids. */
static void test_no_memory_for_ids(void **state) {
        char said[65536];

        (void)state;
        start(harness_path(&h, "t"), "info");
        if (HAVE_ASAN) {
                print_message("# AddressSanitizer's allocator does not live with less memory\n");
                return;
        }
        expect_served();
        set_limit(RLIMIT_DATA, status_bytes("VmData"));
        assert_int_equal(look_up_at_once(CARVQ_IDS_MAX), -ENOMEM);
        expect_served();
        harness_ctl(&h, "--json stats", said, sizeof(said)); /* whatever it says */
        assert_int_equal(look_up_at_once(CARVQ_IDS_MAX), -ENOMEM);
        set_limit(RLIMIT_DATA, RLIM_INFINITY);
        assert_int_equal(look_up_at_once(CARVQ_IDS_MAX), 0);
        expect_welcoming();
        assert_int_equal(harness_ctl(&h, "--json stats", said, sizeof(said)), 0);
        assert_non_null(strstr(said, "\"no_memory\": 2"));
}

/* ---- The log ---- */

/* A pipe that nobody reads, and then one that nobody will: neither holds the daemon up. */
static void test_log_is_a_full_pipe(void **state) {
        static char said[1 << 20];
        int log_fd;
        ssize_t n;

        (void)state;
        assert_int_equal(mkfifo(h.log_path, 0600), 0);
        log_fd = open(h.log_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(log_fd >= 0);
        while (write(log_fd, "x", 1) == 1)
                ;
        start(harness_path(&h, "t"), "debug");
        for (int i = 0; i < 5; i++)
                expect_welcoming();
        expect_served();

        while (read(log_fd, said, sizeof(said)) > 0)
                ;
        expect_welcoming();
        n = read(log_fd, said, sizeof(said) - 1);
        assert_true(n > 0);
        said[n] = '\0';
        assert_non_null(strstr(said, " lines of this log were lost"));
        close(log_fd);
        expect_welcoming();
        expect_served();
}

static void test_log_is_on_a_full_disk(void **state) {
        (void)state;
        assert_int_equal(symlink("/dev/full", h.log_path), 0);
        start(harness_path(&h, "t"), "debug");
        for (int i = 0; i < 5; i++)
                expect_welcoming();
        expect_served();
}

/* ---- The disk ---- */

static void fill(const char *path) {
        static const char zeros[65536];
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        size_t bytes = sizeof(zeros);

        assert_true(fd >= 0);
        while (bytes)
                if (write(fd, zeros, bytes) <= 0)
                        bytes /= 2;
        close(fd);
}

/* Tables are only read: neither serving nor publishing one needs room beside it. */
static void test_tables_on_a_full_disk(void **state) {
        char folder[96], table[128], command[200], said[512];

        (void)state;
        snprintf(folder, sizeof(folder), "%s", harness_path(&h, "disk"));
        snprintf(table, sizeof(table), "%s/t", folder);
        assert_int_equal(mkdir(folder, 0755), 0);
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("carvq-test", folder, "tmpfs", 0, "size=1M") < 0) {
                print_message("# only root can mount a small disk: %s\n", strerror(errno));
                rmdir(folder);
                start(harness_path(&h, "t"), "info");
                return;
        }
        make_table_file(table, &shape, 5);
        strcat(table, "2");
        make_table_file(table, &shape, 6);
        fill(harness_path(&h, "disk/rest"));
        table[strlen(table) - 1] = '\0';
        start(table, "info");
        expect_served();
        snprintf(command, sizeof(command), "load t2 %s2", table);
        assert_int_equal(harness_ctl(&h, command, said, sizeof(said)), 0);
        expect_welcoming();
        expect_served();
        assert_int_equal(umount2(folder, MNT_DETACH), 0);
        assert_int_equal(rmdir(folder), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_no_descriptor_to_accept, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_descriptor_for_the_ring, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_room_for_a_ring, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_memory_for_ids, setup, teardown),
                cmocka_unit_test_setup_teardown(test_log_is_a_full_pipe, setup, teardown),
                cmocka_unit_test_setup_teardown(test_log_is_on_a_full_disk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_tables_on_a_full_disk, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

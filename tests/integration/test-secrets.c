/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No secret leaves: the daemon writes a client's rows, and not one byte beside them, into its
 * memory; handles are worth nothing in another session; who may not open a table gets at it by no
 * handle, and nobody at the daemon's descriptors; what is shared between clients, a table's cache,
 * holds rows of that table and can be written by none of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "harness.h"
#include "proto/cache.h"
#include "raw-client.h"
#include "tests/make-table.h"
#include "tests/unit/random.h"

#define N_ROWS      2000u
#define N_DIMS      100u /* a row does not end where a vector does */
#define N_IDS       200u /* large enough for stores that go around the caches */
#define ARENA_BYTES 262144u
#define N_TURNS     600
#define STRANGER    65534u
#define DAEMON      4711u
#define GROUP       4242u

static struct harness h;
static carvq_table *direct; /* of "open" */

static int setup(void **state) {
        struct table_header adapted = {
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = N_ROWS,
                .n_dims = N_DIMS,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 4,
                .group_cols = 65536,
                .group_rows = N_ROWS,
                .row_scale = 1,
                .latent_dims = 6,
                .hidden_dims = { 16 },
                .adaptor_type = TABLE_ADAPTOR_HALF,
                .latent_bits = 16,
        };
        char open_spec[200], locked_spec[200], locked_options[64];

        (void)state;
        harness_init(&h);
        h.user = geteuid() == 0 ? DAEMON : 0;
        make_table_file(harness_path(&h, "open"), &adapted, 1);
        make_table_file(harness_path(&h, "locked"), &adapted, 2);
        snprintf(open_spec, sizeof(open_spec), "open=%s", harness_path(&h, "open"));
        snprintf(locked_spec, sizeof(locked_spec), "locked=%s", harness_path(&h, "locked"));
        snprintf(locked_options, sizeof(locked_options), "locked:group=%u", GROUP);
        harness_start(&h, (const char *[]){ "--table", open_spec, "--table", locked_spec, "--table",
                                            locked_options, "--log-level", "error", NULL });
        chmod(h.folder, 0755);
        chmod(h.socket_path, 0666);
        assert_int_equal(carvq_file_open(harness_path(&h, "open"), NULL, &direct, NULL), 0);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        carvq_table_close(direct);
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

/* ---- The memory of one client ---- */

/* A request that fits, of any kind: gaps between rows, columns, types, bags. */
static struct ring_submission any_submission(struct raw_client *c, uint64_t table, uint32_t *seed) {
        static const uint32_t value_bytes[] = { 4, 2, 2 };
        struct ring_submission s = { .user_data = test_random(seed),
                                     .table = table,
                                     .scale = (float)(1 + test_random(seed) % 3),
                                     .type = (uint8_t)(test_random(seed) % 3),
                                     .n_ids = 1 + test_random(seed) % N_IDS,
                                     .flags = test_random(seed) % 2 };
        uint64_t *ids = (void *)(c->memory + c->layout.ids_offset), n_rows, bytes, room;

        s.ids_offset = 8 * (test_random(seed) % 16);
        for (uint32_t i = 0; i < s.n_ids; i++)
                ids[s.ids_offset / 8 + i] = test_random(seed) % N_ROWS;
        if (test_random(seed) % 4 == 0) {
                s.pooling = (uint8_t)(1 + test_random(seed) % 2);
                s.n_bags = 1 + test_random(seed) % 8;
                s.bags_offset = 2048;
                for (uint32_t i = 0; i < s.n_bags; i++)
                        ids[256 + i] = (uint64_t)s.n_ids * i / s.n_bags;
        }
        s.col_first = test_random(seed) % 2 ? 0 : test_random(seed) % N_DIMS;
        s.n_cols = 1 + test_random(seed) % (N_DIMS - s.col_first);
        s.row_stride_bytes = (uint64_t)value_bytes[s.type] * (s.n_cols + test_random(seed) % 70);
        n_rows = s.pooling ? s.n_bags : s.n_ids;
        bytes = (n_rows - 1) * s.row_stride_bytes + (uint64_t)s.n_cols * value_bytes[s.type];
        room = c->layout.geometry.arena_bytes - bytes;
        s.out_offset = test_random(seed) % 3 ? test_random(seed) % room & ~UINT64_C(63)
                                             : room & ~UINT64_C(63); /* to the arena's end */
        return s;
}

/* The same by direct decoding, where the daemon was asked to put it. */
static void decode_into(uint8_t *memory, const struct raw_client *c,
                        const struct ring_submission *s) {
        const uint64_t *ids = (const void *)(c->memory + c->layout.ids_offset);
        struct carvq_lookup_options o = { .size = sizeof(o),
                                          .type = s->type,
                                          .scale = s->scale,
                                          .col_first = s->col_first,
                                          .n_cols = s->n_cols,
                                          .row_stride_bytes = s->row_stride_bytes,
                                          .pooling = s->pooling,
                                          .bag_offsets = s->pooling ? ids + 256 : NULL,
                                          .n_bags = s->n_bags };
        uint64_t out = c->layout.arena_offset + s->out_offset;

        assert_int_equal(carvq_lookup(direct, ids + s->ids_offset / 8, s->n_ids, &o, memory + out,
                                      c->layout.ring_bytes - out),
                         0);
}

/* What the protocol gives to the daemon: its words and the completion ring. */
static void copy_what_is_the_daemons(uint8_t *to, const uint8_t *from,
                                     const struct ring_layout *l) {
        static const struct {
                size_t offset, bytes;
        } words[] = { { offsetof(struct ring_header, sq_head), 4 },
                      { offsetof(struct ring_header, cq_tail), 4 },
                      { offsetof(struct ring_header, daemon_sleeping), 4 },
                      { offsetof(struct ring_header, heartbeat_ns), 8 },
                      { offsetof(struct ring_header, epoch), 8 } };

        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                memcpy(to + words[i].offset, from + words[i].offset, words[i].bytes);
        memcpy(to + l->cq_offset, from + l->cq_offset,
               l->geometry.cq_entries * sizeof(struct ring_completion));
}

static struct ring_completion complete(struct raw_client *c) {
        struct ring_completion completion;

        do
                completion = raw_complete(c);
        while (completion.flags & RING_COMPLETION_MORE);
        return completion;
}

static void expect_same(const uint8_t *memory, const uint8_t *expected, uint64_t bytes, int turn) {
        if (!memcmp(memory, expected, bytes))
                return;
        for (uint64_t i = 0; i < bytes; i++)
                if (memory[i] != expected[i])
                        fail_msg("request %d: byte %" PRIu64 " is 0x%02x, expected 0x%02x", turn, i,
                                 memory[i], expected[i]);
}

/* Every byte of the memory, after each request, beside a client that asks for other rows. */
static void test_only_rows_are_written(void **state) {
        static uint8_t pattern[ARENA_BYTES + N_TURNS];
        carvq_client *other = harness_connect(&h);
        struct wire_ring ring = raw_ring();
        struct wire_table info;
        struct raw_client c;
        carvq_table *other_table;
        uint32_t seed = 1234567;
        uint8_t *expected, *seen;

        (void)state;
        print_message("# seed %u\n", seed);
        assert_int_equal(carvq_table_open(other, "locked", &other_table), 0);
        ring.geometry.arena_bytes = ARENA_BYTES;
        raw_handshake_with(&c, h.socket_path, 0, &ring);
        raw_open_table(&c, "open", &info);
        for (size_t i = 0; i < sizeof(pattern); i++)
                pattern[i] = (uint8_t)test_random(&seed);
        expected = malloc(c.layout.ring_bytes);
        seen = malloc(c.layout.ring_bytes);
        for (int turn = 0; turn < N_TURNS; turn++) {
                struct ring_submission s = any_submission(&c, info.table, &seed);
                const bool fails = turn % 8 == 7;
                uint64_t ids[3] = { test_random(&seed) % N_ROWS, 5, 6 };
                struct carvq_rows rows;
                carvq_ticket ticket;

                if (fails)
                        ((uint64_t *)(void *)(c.memory + c.layout.ids_offset +
                                              s.ids_offset))[s.n_ids - 1] = N_ROWS;
                memcpy(c.memory + c.layout.arena_offset, pattern + turn, ARENA_BYTES);
                memcpy(expected, c.memory, c.layout.ring_bytes);
                /* The entry and its index are ours, and known when it is served. */
                assert_int_equal(carvq_submit(other_table, ids, 3, NULL, &ticket), 0);
                raw_submit(&c, &s);
                assert_int_equal(complete(&c).status,
                                 fails ? RING_STATUS_OUT_OF_RANGE : RING_STATUS_OK);
                assert_int_equal(carvq_wait(other, ticket, 0, &rows), 0);
                carvq_release(other, ticket);
                memcpy(expected + offsetof(struct ring_header, sq_tail), &c.header->sq_tail, 4);
                memcpy(expected + offsetof(struct ring_header, cq_head), &c.header->cq_head, 4);
                memcpy(expected + c.layout.sq_offset +
                               (c.header->sq_tail - 1) % c.layout.geometry.sq_entries * sizeof(s),
                       &s, sizeof(s));
                /* Once, as the daemon's words may still change. */
                memcpy(seen, c.memory, c.layout.ring_bytes);
                copy_what_is_the_daemons(expected, seen, &c.layout);
                if (!fails)
                        decode_into(expected, &c, &s);
                expect_same(seen, expected, c.layout.ring_bytes, turn);
        }
        free(expected);
        free(seen);
        raw_close(&c);
        carvq_client_free(other);
}

/* ---- Handles, by a stranger ---- */

static void become_stranger(void) {
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* not on with the parent's tests */
        if (setgroups(0, NULL) < 0 || setgid(STRANGER) < 0 || setuid(STRANGER) < 0)
                _exit(9);
}

static void run_as_stranger(void (*work)(void)) {
        int status;
        pid_t pid;

        if (geteuid() != 0)
                skip(); /* to become somebody else takes root */
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                become_stranger();
                work();
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                fail_msg("the stranger ended with status 0x%x", (unsigned)status);
}

static uint64_t locked_handle; /* of the session that may */

static void guess_handles(void) {
        const enum wire_type requests[] = { WIRE_GET_FILE, WIRE_GET_CACHE, WIRE_CLOSE_TABLE };
        struct ring_submission s = { .row_stride_bytes = 4 * N_DIMS, .n_ids = 1, .scale = 1 };
        struct wire_table info;
        struct raw_client c;

        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        raw_open_table(&c, "locked", &info);
        assert_int_equal(info.status, WIRE_DENIED);
        assert_int_equal(info.table, 0);
        assert_int_equal(info.n_rows, 0);
        raw_open_table(&c, "open", &info);
        assert_int_equal(info.status, WIRE_OK);
        /* What another session has is among the first ones. */
        for (uint64_t handle = 0; handle < 1024; handle++) {
                s.table = handle;
                if (handle == info.table)
                        continue;
                raw_submit(&c, &s);
                assert_int_equal(raw_complete(&c).status, RING_STATUS_NO_TABLE);
        }
        raw_close(&c);

        for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
                struct wire_get_file get = { .header = { requests[i], sizeof(get) } };
                size_t bytes = sizeof(get);

                if (requests[i] == WIRE_CLOSE_TABLE) {
                        get.header.bytes = sizeof(struct wire_close_table);
                        bytes = sizeof(struct wire_close_table);
                        get.request = locked_handle; /* where CLOSE_TABLE has the handle */
                }
                get.table = locked_handle;
                raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
                raw_send(&c, &get, bytes, NULL, 0);
                raw_expect_refusal(&c, WIRE_PROTOCOL, "names no open table");
        }
}

static void test_handles_of_other_sessions(void **state) {
        struct wire_table info;
        struct raw_client c;

        (void)state;
        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        raw_open_table(&c, "locked", &info);
        assert_int_equal(info.status, WIRE_OK);
        locked_handle = info.table;
        run_as_stranger(guess_handles);
        raw_close(&c);
}

/* ---- The daemon's descriptors, by a stranger ---- */

static void look_for_descriptors(void) {
        static const char *const files[] = { "fd/0", "mem", "map_files", "environ", "maps" };
        struct iovec here = { &(uint8_t[8]){ 0 }, 8 }, there = { (void *)4096, 8 };
        char path[64];
        int pidfd = (int)syscall(SYS_pidfd_open, h.pid, 0);

        snprintf(path, sizeof(path), "/proc/%d/fd", h.pid);
        assert_null(opendir(path));
        assert_int_equal(errno, EACCES);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                snprintf(path, sizeof(path), "/proc/%d/%s", h.pid, files[i]);
                if (open(path, O_RDONLY) >= 0)
                        fail_msg("%s can be opened", path);
        }
        assert_true(pidfd >= 0);
        for (int fd = 0; fd < 64; fd++) {
                assert_int_equal(syscall(SYS_pidfd_getfd, pidfd, fd, 0), -1);
                assert_int_equal(errno, EPERM);
        }
        assert_int_equal(process_vm_readv(h.pid, &here, 1, &there, 1, 0), -1);
        assert_int_equal(errno, EPERM);
}

static void test_descriptors_are_out_of_reach(void **state) {
        (void)state;
        run_as_stranger(look_for_descriptors);
}

/* ---- What clients share ---- */

static int receive_descriptor(struct raw_client *c, enum wire_type request, uint64_t table,
                              uint8_t ret_message[WIRE_MESSAGE_BYTES]) {
        const struct wire_get_file get = { .header = { request, sizeof(get) }, .table = table };
        int doorbell = c->doorbell, fd;

        raw_send(c, &get, sizeof(get), NULL, 0);
        assert_int_equal(raw_receive(c, ret_message), request + 1);
        fd = c->doorbell;
        c->doorbell = doorbell;
        assert_int_not_equal(fd, doorbell);
        return fd;
}

static void expect_read_only(int fd) {
        char path[64];
        int again;

        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        /* Opened once more it may be for writing, and then a seal must stand before it. */
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_RDWR | O_CLOEXEC);
        if (again < 0)
                return;
        assert_int_equal(pwrite(again, "x", 1, 0), -1);
        assert_int_equal(fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
        assert_int_equal(ftruncate(again, 0), -1);
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
                         MAP_FAILED);
        close(again);
}

static void write_to_what_is_shared(void) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_table info;
        struct raw_client c;
        int fd;

        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        raw_open_table(&c, "open", &info);
        fd = receive_descriptor(&c, WIRE_GET_FILE, info.table, message);
        expect_read_only(fd);
        close(fd);
        fd = receive_descriptor(&c, WIRE_GET_CACHE, info.table, message);
        expect_read_only(fd);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        close(fd);
        raw_close(&c);
}

static void test_shared_files_are_read_only(void **state) {
        (void)state;
        run_as_stranger(write_to_what_is_shared);
}

/* Fills both tables' caches, so that rows of one might be found in the other's. */
static void use_caches(carvq_client *client) {
        static const char *const names[] = { "open", "locked" };
        float row[N_DIMS];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                struct carvq_table_options o = { .size = sizeof(o), .no_cache = 1 };
                carvq_table *table;

                assert_int_equal(carvq_table_open_with(client, names[i], &o, &table), 0);
                for (int turn = 0; turn < 3; turn++)
                        for (uint64_t id = 0; id < 300; id++)
                                assert_int_equal(
                                        carvq_lookup(table, &id, 1, NULL, row, sizeof(row)), 0);
        }
}

static bool all_zero(const uint8_t *bytes, uint64_t n) {
        while (n && !bytes[n - 1])
                n--;
        return !n;
}

/* Every byte of the cache: rows of this table where a word says so, and zeros. */
static void test_cache_holds_its_table_alone(void **state) {
        carvq_client *client = harness_connect(&h);
        uint8_t message[WIRE_MESSAGE_BYTES], *memory;
        const _Atomic uint64_t *words;
        struct cache_layout l;
        struct wire_cache cache;
        struct wire_table info;
        struct raw_client c;
        uint64_t n_rows = 0;
        int fd;

        (void)state;
        use_caches(client);
        carvq_client_free(client);
        raw_handshake(&c, h.socket_path, WIRE_FEATURES_KNOWN);
        raw_open_table(&c, "open", &info);
        fd = receive_descriptor(&c, WIRE_GET_CACHE, info.table, message);
        memcpy(&cache, message, sizeof(cache));
        assert_int_equal(cache_layout_compute(cache.n_sets, N_DIMS, &l, NULL), 0);
        memory = mmap(NULL, l.cache_bytes, PROT_READ, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        words = (const void *)memory;
        for (uint64_t slot = 0; slot < cache_slots(&l); slot++) {
                const uint8_t *row = memory + cache_row_offset(&l, slot);
                uint64_t id = words[slot] >> CACHE_SEQUENCE_BITS;
                float expected[N_DIMS];

                if (!words[slot]) {
                        assert_true(all_zero(row, l.row_stride_bytes));
                        continue;
                }
                assert_int_equal(words[slot] & 1, 0);
                assert_int_equal(carvq_lookup(direct, &id, 1, NULL, expected, sizeof(expected)), 0);
                assert_memory_equal(row, expected, sizeof(expected));
                assert_true(
                        all_zero(row + sizeof(expected), l.row_stride_bytes - sizeof(expected)));
                n_rows++;
        }
        print_message("# %" PRIu64 " rows in the cache\n", n_rows);
        assert_true(n_rows > 100);
        assert_true(all_zero(memory + cache_slots(&l) * 8, l.rows_offset - cache_slots(&l) * 8));
        munmap(memory, l.cache_bytes);
        close(fd);
        raw_close(&c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_only_rows_are_written),
                cmocka_unit_test(test_handles_of_other_sessions),
                cmocka_unit_test(test_descriptors_are_out_of_reach),
                cmocka_unit_test(test_shared_files_are_read_only),
                cmocka_unit_test(test_cache_holds_its_table_alone),
        };

        return cmocka_run_group_tests_name("secrets", tests, setup, teardown);
}

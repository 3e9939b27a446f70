/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that are killed (SIGKILL) at each state that a session or a ring can be in, a thousand of
 * them, each at a moment of its own from a seed; and clients that are stopped (SIGSTOP). The daemon
 * has afterwards what it had before: sessions, descriptors, threads, mappings, memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"
#include "proto/spin.h"
#include "raw-client.h"
#include "tests/make-table.h"
#include "tests/unit/random.h"

#define N_ROWS           3000u
#define N_DIMS           64u
#define N_KILLS          1000u
#define MAX_SESSIONS     "16"
#define DELAY_NS_MAX     600000u
#define DEADLINE_NS      UINT64_C(20000000000)
#define MEMORY_SLACK_KIB 16384u

/* Where a client is when it is killed: at this step or just behind it. */
enum step {
        STEP_CONNECT,
        STEP_HELLO,
        STEP_RING,
        STEP_READY,
        STEP_TABLE,
        STEP_CACHE, /* mapped */
        STEP_FILE,  /* held and mapped */
        STEP_SUBMITTED,
        STEP_UNREAPED,
        STEP_SLEEPING, /* client_waiting is odd, and the WAKE is on its way */
        STEP_SERVED,   /* over and over */
        STEP_N
};

static struct harness h;
static struct {
        _Atomic int step;
        _Atomic uint64_t n_lookups;
} * shared; /* with the child */

static int setup(void **state) {
        const struct table_header adapted = {
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = N_ROWS,
                .n_dims = N_DIMS,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = N_ROWS,
                .row_scale = 1,
                .latent_dims = 6,
                .hidden_dims = { 16 },
                .adaptor_type = TABLE_ADAPTOR_HALF,
                .latent_bits = 16,
        };
        char spec[200];

        (void)state;
        harness_watch_memory();
        harness_init(&h);
        make_table_file(harness_path(&h, "t"), &adapted, 3);
        snprintf(spec, sizeof(spec), "t=%s", harness_path(&h, "t"));
        harness_start(&h, (const char *[]){ "--table", spec, "--max-sessions", MAX_SESSIONS,
                                            "--max-sessions-per-user", MAX_SESSIONS, "--log-level",
                                            "error", NULL });
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_ptr_not_equal(shared, MAP_FAILED);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        munmap(shared, sizeof(*shared));
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

/* ---- The client, in a process of its own ---- */

static struct raw_client c;
static struct wire_table table;

static void take_descriptor(int type) {
        struct wire_get_file get = { .header = { (uint32_t)type, sizeof(get) },
                                     .table = table.table };
        uint8_t message[WIRE_MESSAGE_BYTES];
        int doorbell = c.doorbell;

        static_assert(sizeof(struct wire_get_file) == sizeof(struct wire_get_cache), "");
        raw_send(&c, &get, sizeof(get), NULL, 0);
        assert_int_equal(raw_receive(&c, message), type + 1);
        assert_int_not_equal(c.doorbell, doorbell);
        assert_ptr_not_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, c.doorbell, 0), MAP_FAILED);
        c.doorbell = doorbell;
}

static void submit(uint64_t i) {
        const struct ring_submission s = { .user_data = i,
                                           .table = table.table,
                                           .row_stride_bytes = 4 * N_DIMS,
                                           .n_ids = 64,
                                           .scale = 1,
                                           .flags = RING_SUBMISSION_PIECES };

        raw_submit(&c, &s);
}

static void reap(uint64_t i) {
        struct ring_completion completion;

        do {
                completion = raw_complete(&c);
                assert_int_equal(completion.status, RING_STATUS_OK);
                assert_int_equal(completion.user_data, i);
        } while (completion.flags & RING_COMPLETION_MORE);
}

/* Until it is killed. */
_Noreturn static void look_up(void) {
        reap(0);
        reap(1);
        for (uint64_t i = 2;; i++) {
                submit(i);
                reap(i);
                atomic_fetch_add(&shared->n_lookups, 1);
        }
}

static void take_step(enum step step) {
        struct wire_hello hello = raw_hello();
        struct wire_ring ring = raw_ring();
        uint8_t message[WIRE_MESSAGE_BYTES];

        switch (step) {
        case STEP_CONNECT:
                raw_connect(&c, h.socket_path);
                break;
        case STEP_HELLO:
                hello.features_offered = WIRE_FEATURES_KNOWN;
                raw_send(&c, &hello, sizeof(hello), NULL, 0);
                break;
        case STEP_RING:
                assert_int_equal(raw_receive(&c, message), WIRE_WELCOME);
                raw_send_ring(&c, &ring);
                break;
        case STEP_READY:
                assert_int_equal(raw_receive(&c, message), WIRE_READY);
                break;
        case STEP_TABLE:
                raw_open_table(&c, "t", &table);
                assert_int_equal(table.status, WIRE_OK);
                break;
        case STEP_CACHE:
                take_descriptor(WIRE_GET_CACHE);
                break;
        case STEP_FILE:
                take_descriptor(WIRE_GET_FILE);
                break;
        case STEP_SUBMITTED:
                submit(0);
                break;
        case STEP_UNREAPED:
                while (!atomic_load(&c.header->cq_tail))
                        ;
                break;
        case STEP_SLEEPING:
                atomic_store(&c.header->client_waiting, 1);
                submit(1);
                break;
        case STEP_SERVED:
                look_up();
        case STEP_N:
                break;
        }
}

static pid_t start_client(enum step last) {
        pid_t parent = getpid(), pid;

        atomic_store(&shared->step, -1);
        pid = fork();
        assert_true(pid >= 0);
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(1);
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* not on with the parent's tests */
        for (enum step step = 0; step <= last; step++) {
                atomic_store(&shared->step, (int)step);
                take_step(step);
        }
        atomic_store(&shared->step, (int)last + 1);
        for (;;)
                pause();
}

static void wait_for_step(enum step step, pid_t pid) {
        const uint64_t end_ns = clock_ns() + DEADLINE_NS;

        while (atomic_load(&shared->step) < (int)step) {
                if (clock_ns() > end_ns || waitpid(pid, NULL, WNOHANG) != 0)
                        fail_msg("the client did not come to step %d", step);
                sched_yield();
        }
}

static void expect_killed(pid_t pid) {
        int status;

        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
                fail_msg("the client ended by itself: status 0x%x", (unsigned)status);
}

/* ---- Tests ---- */

struct possessions {
        size_t n_fds, n_tasks, n_maps;
        uint64_t resident_kib;
};

static void take_stock(struct possessions *ret) {
        char path[64], line[256];
        FILE *f;

        *ret = (struct possessions){ .n_fds = harness_count(&h, "fd"),
                                     .n_tasks = harness_count(&h, "task"),
                                     .n_maps = harness_count(&h, "map_files") };
        snprintf(path, sizeof(path), "/proc/%d/status", h.pid);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "VmRSS: %" SCNu64, &ret->resident_kib) == 1)
                        break;
        fclose(f);
}

static void kill_clients(uint32_t n, size_t n_fds, uint32_t *seed) {
        for (uint32_t i = 0; i < n; i++) {
                const enum step step = i % STEP_N;
                pid_t pid = start_client(step);

                wait_for_step(step, pid);
                /* Within the step, or behind it. */
                nanosleep(&(struct timespec){ .tv_nsec = test_random(seed) % DELAY_NS_MAX }, NULL);
                expect_killed(pid);
                /* Of the sessions of those that went before most have ended when the next comes. */
                if (i % 8 == 7)
                        harness_wait_count(&h, "fd", n_fds + 4);
        }
}

/* All sessions that there may be, at once. */
static void expect_sessions(void) {
        static struct raw_client clients[16];

        for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
                raw_handshake(&clients[i], h.socket_path, 0);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
                raw_close(&clients[i]);
}

static void test_killed_at_every_step(void **state) {
        struct possessions before, after;
        uint32_t seed = 4711;
        uint64_t start_ns;

        (void)state;
        print_message("# seed %u\n", seed);
        take_stock(&before);
        expect_sessions();
        harness_wait_count(&h, "fd", before.n_fds);
        kill_clients(STEP_N, before.n_fds, &seed);
        harness_wait_count(&h, "fd", before.n_fds);
        take_stock(&before); /* with buffers as large as they get */
        start_ns = clock_ns();
        kill_clients(N_KILLS, before.n_fds, &seed);
        harness_wait_count(&h, "fd", before.n_fds);
        harness_wait_count(&h, "task", before.n_tasks);
        harness_wait_count(&h, "map_files", before.n_maps);
        take_stock(&after);
        print_message("# %u clients killed in %" PRIu64 " ms; resident %" PRIu64
                      " KiB before, %" PRIu64 " after\n",
                      N_KILLS, (clock_ns() - start_ns) / 1000000, before.resident_kib,
                      after.resident_kib);
        assert_true(after.resident_kib < before.resident_kib + MEMORY_SLACK_KIB);
        expect_sessions();
        harness_wait_count(&h, "fd", before.n_fds);
}

/* A stopped client keeps what it has, and holds up nobody; when it goes on it is served on. */
static void test_stopped_client(void **state) {
        carvq_client *client = harness_connect(&h);
        float rows[8 * N_DIMS], expected[8 * N_DIMS];
        uint64_t ids[8] = { 1, 7, 2, 9 }, n_before, end_ns;
        size_t n_fds;
        carvq_table *honest, *direct;
        pid_t pid;

        (void)state;
        assert_int_equal(carvq_table_open(client, "t", &honest), 0);
        assert_int_equal(carvq_file_open(harness_path(&h, "t"), NULL, &direct, NULL), 0);
        assert_int_equal(carvq_lookup(direct, ids, 8, NULL, expected, sizeof(expected)), 0);
        atomic_store(&shared->n_lookups, 0);
        pid = start_client(STEP_SERVED);
        wait_for_step(STEP_SERVED, pid);
        for (int round = 0; round < 10; round++) {
                int status;

                kill(pid, SIGSTOP);
                assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
                assert_true(WIFSTOPPED(status));
                n_before = atomic_load(&shared->n_lookups);
                n_fds = harness_count(&h, "fd");
                end_ns = clock_ns() + 50000000;
                do {
                        assert_int_equal(carvq_lookup(honest, ids, 8, NULL, rows, sizeof(rows)), 0);
                        assert_memory_equal(rows, expected, sizeof(rows));
                } while (clock_ns() < end_ns);
                assert_int_equal(harness_count(&h, "fd"), n_fds);
                assert_int_equal(atomic_load(&shared->n_lookups), n_before);
                kill(pid, SIGCONT);
                end_ns = clock_ns() + DEADLINE_NS;
                while (atomic_load(&shared->n_lookups) < n_before + 10) {
                        assert_true(clock_ns() < end_ns);
                        sched_yield();
                }
        }
        expect_killed(pid);
        carvq_table_close(direct);
        carvq_client_free(client);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_killed_at_every_step),
                cmocka_unit_test(test_stopped_client),
        };

        return cmocka_run_group_tests_name("killed-clients", tests, setup, teardown);
}

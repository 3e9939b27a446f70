/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No system call on either side while both are awake. The daemon's worker and a client process are
 * traced, and each of their system calls is counted; the client looks for windows of lookups in
 * which there was none. One such window is the proof. Where other processes want the CPUs the
 * daemon sleeps instead, and there is none to be had: then the test says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "harness.h"
#include "proto/spin.h"
#include "tests/make-table.h"

#define N_LOOKUPS   200u /* of a window */
#define N_WINDOWS   20u  /* without a system call are more than enough */
#define WINDOWS_MAX 5000u
#define SEARCH_NS   UINT64_C(5000000000)
/* A second. The worker gives spinning up at a hundred. */
#define FEW_PREEMPTIONS 30u

#define SPIN_NS         UINT64_C(1000000000)

#define SYSCALL_STOP    (SIGTRAP | 0x80)

static struct harness h;

/* Between tracer and client. */
struct shared {
        atomic_uint n_syscalls; /* entries and exits, of both */
        atomic_uint n_windows, n_clean;
};

static int setup(void **state) {
        const struct table_header header = {
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = 1000,
                .n_dims = 64,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = 1000,
        };
        char spec[200];

        (void)state;
        harness_init(&h);
        make_table_file(harness_path(&h, "rows"), &header, 1);
        snprintf(spec, sizeof(spec), "rows=%s", harness_path(&h, "rows"));
        /* Both spin for long: whether that pays is another question, and a tracer's stops are
         * longer than what pays. */
        harness_start(&h, (const char *[]){ "--table", spec, "--spin-us", "1000000", NULL });
        return 0;
}

static int teardown(void **state) {
        (void)state;
        harness_deinit(&h);
        return 0;
}

/* ---- The client, in a process of its own ---- */

static int look_up(carvq_table *table, unsigned n) {
        float row[64];

        for (uint64_t id = 0; id < n; id++)
                if (carvq_lookup(table, &id, 1, NULL, row, sizeof(row)) < 0)
                        return -1;
        return 0;
}

static void client_process(struct shared *shared, uint64_t spin_ns, unsigned n_windows) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .spin_ns = spin_ns };
        const uint64_t end_ns = clock_ns() + SEARCH_NS;
        carvq_client *client = NULL;
        carvq_table *table;
        int r;

        r = carvq_connect(&o, &client, NULL);
        if (r >= 0)
                r = carvq_table_open(client, "rows", &table);
        raise(SIGSTOP); /* from here on it is traced */
        for (unsigned i = 0; i < n_windows && r >= 0 && clock_ns() < end_ns; i++) {
                unsigned before = atomic_load(&shared->n_syscalls);

                r = look_up(table, N_LOOKUPS);
                atomic_fetch_add(&shared->n_windows, 1);
                if (atomic_load(&shared->n_syscalls) == before &&
                    atomic_fetch_add(&shared->n_clean, 1) + 1 == N_WINDOWS)
                        break;
        }
        _exit(r < 0);
}

/* ---- The tracer ---- */

static pid_t find_worker(void) {
        char path[320], name[32] = "";
        struct dirent *entry;
        pid_t tid = 0;
        DIR *tasks;

        snprintf(path, sizeof(path), "/proc/%d/task", h.pid);
        tasks = opendir(path);
        assert_non_null(tasks);
        while (!tid && (entry = readdir(tasks))) {
                FILE *f;

                snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", h.pid, entry->d_name);
                f = fopen(path, "re");
                if (f && fgets(name, sizeof(name), f) && !strcmp(name, "carvqd-worker\n"))
                        tid = atoi(entry->d_name);
                if (f)
                        fclose(f);
        }
        closedir(tasks);
        assert_true(tid > 0);
        return tid;
}

/* Goes on to the next system call, counting those of the past stop. Returns the status at the
 * client's end. */
static int count_syscalls(struct shared *shared, pid_t client) {
        for (;;) {
                int status, deliver = 0;
                pid_t tid = waitpid(-1, &status, __WALL);

                if (tid < 0)
                        return -1;
                if (!WIFSTOPPED(status)) {
                        if (tid == client)
                                return status;
                        continue;
                }
                if (WSTOPSIG(status) == SYSCALL_STOP)
                        atomic_fetch_add(&shared->n_syscalls, 1);
                else if (!(status >> 16) && WSTOPSIG(status) != SIGSTOP)
                        deliver = WSTOPSIG(status);
                ptrace(PTRACE_SYSCALL, tid, NULL, (void *)(intptr_t)deliver);
        }
}

static void release(pid_t tid) {
        int status;

        ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
        if (waitpid(tid, &status, __WALL) == tid)
                ptrace(PTRACE_DETACH, tid, NULL, NULL);
}

static void trace(uint64_t spin_ns, unsigned n_windows, struct shared *ret_shared) {
        struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        const pid_t worker = find_worker();
        int status;
        pid_t client;

        assert_ptr_not_equal(shared, MAP_FAILED);
        client = fork();
        if (client == 0)
                client_process(shared, spin_ns, n_windows);
        assert_int_equal(waitpid(client, &status, WUNTRACED), client);
        if (ptrace(PTRACE_SEIZE, client, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0 ||
            ptrace(PTRACE_SEIZE, worker, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0) {
                kill(client, SIGKILL);
                fail_msg("ptrace: %s", strerror(errno));
        }
        ptrace(PTRACE_INTERRUPT, worker, NULL, NULL);
        kill(client, SIGCONT);
        status = count_syscalls(shared, client);
        release(worker);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        *ret_shared = *shared;
        munmap(shared, sizeof(*shared));
        print_message("# %u windows of %u lookups, %u without a system call, %u stops in all\n",
                      ret_shared->n_windows, N_LOOKUPS, ret_shared->n_clean,
                      ret_shared->n_syscalls);
}

/* How often a second others take the CPU from a thread that wants it for itself. A few times is
 * what the kernel's own threads do. */
static unsigned preemptions_per_s(void) {
        const uint64_t end_ns = clock_ns() + 500000000;
        struct rusage before, after;

        getrusage(RUSAGE_SELF, &before);
        while (clock_ns() < end_ns)
                cpu_relax();
        getrusage(RUSAGE_SELF, &after);
        return 2 * (unsigned)(after.ru_nivcsw - before.ru_nivcsw);
}

static void test_none_while_both_are_awake(void **state) {
        struct shared shared;

        (void)state;
        trace(SPIN_NS, WINDOWS_MAX, &shared);
        if (!shared.n_clean && preemptions_per_s() > FEW_PREEMPTIONS) {
                /* Not skip(): cmocka 1.1.5 prints that as "not ok". */
                print_message("# left out: other processes want the CPUs\n");
                return;
        }
        assert_true(shared.n_clean > 0);
}

/* The counting counts: a client that always sleeps has no such window. */
static void test_some_when_the_client_sleeps(void **state) {
        struct shared shared;

        (void)state;
        trace(UINT64_MAX, N_WINDOWS, &shared);
        assert_int_equal(shared.n_windows, N_WINDOWS);
        assert_int_equal(shared.n_clean, 0);
        assert_true(shared.n_syscalls > shared.n_windows * N_LOOKUPS);
}

/* A container may forbid it. */
static bool may_trace(void) {
        int status;
        pid_t pid;

        pid = fork();
        if (pid == 0)
                for (;;)
                        pause();
        status = (int)ptrace(PTRACE_SEIZE, pid, NULL, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return status == 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_none_while_both_are_awake),
                cmocka_unit_test(test_some_when_the_client_sleeps),
        };
        const char *reason = NULL;

        if (!may_trace())
                reason = "ptrace is not permitted";
        else if (single_cpu())
                reason = "there is one CPU";
        if (reason) {
                printf("1..0 # SKIP %s\n", reason);
                return 0;
        }
        return cmocka_run_group_tests_name("awake", tests, setup, teardown);
}

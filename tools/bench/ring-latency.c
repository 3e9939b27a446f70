/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client's latency: the same ids decoded here, through rings whose two sides are awake or
 * asleep, and a message there and back between two processes as the price of sleeping. The ways
 * take turns, so what else the machine does hits all alike. One thread, and a process that echoes.
 */
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "ring-bench.h"

/* Longer than any budget that a daemon has learned from such pauses: it is asleep by then. */
#define PAUSE_NS    UINT64_C(150000)
#define N_WARM      300u
#define TURN_AWAKE  200u
#define TURN_ASLEEP 20u
#define TURN_LARGE  5u

enum way {
        WAY_DIRECT,
        WAY_AWAKE,
        WAY_AWAKE_COPY,
        WAY_ASLEEP,
        WAY_BOTH_ASLEEP,
        WAY_EVENTFD,
        WAY_EVENTFD_PAUSE,
        N_WAYS,
};

static const struct {
        const char *name;
        bool pause; /* before each: the other side has gone to sleep */
} ways[N_WAYS] = {
        [WAY_DIRECT] = { "in-process", false },
        [WAY_AWAKE] = { "ring, both awake", false },
        [WAY_AWAKE_COPY] = { "ring, both awake, copied", false },
        [WAY_ASLEEP] = { "ring, daemon asleep", true },
        [WAY_BOTH_ASLEEP] = { "ring, both asleep", true },
        [WAY_EVENTFD] = { "eventfd there and back", false },
        [WAY_EVENTFD_PAUSE] = { "eventfd, after a pause", true },
};

struct quantiles {
        double p50, p90, p99, p999, max; /* us */
};

struct latency {
        const struct ring_bench *bench;
        carvq_table *direct, *spinner_table, *sleeper_table;
        carvq_client *spinner, *sleeper;
        int there_fd, back_fd;
        float *rows;
        uint64_t random;
};

/* ---- The ways ---- */

static pid_t start_echo(int there_fd, int back_fd) {
        const pid_t parent = getpid(), pid = fork();
        uint64_t n;

        if (pid < 0)
                die("fork: %s", strerror(errno));
        if (pid)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
                while (read(there_fd, &n, sizeof(n)) > 0 && write(back_fd, &n, sizeof(n)) > 0)
                        ;
        _exit(0);
}

static void ring_eventfd(const struct latency *l) {
        uint64_t n = 1;

        if (write(l->there_fd, &n, sizeof(n)) < 0 || read(l->back_fd, &n, sizeof(n)) < 0)
                die("eventfd: %s", strerror(errno));
}

static void copy_out(const struct latency *l, carvq_table *table, const uint64_t *ids,
                     uint32_t batch) {
        if (carvq_lookup(table, ids, batch, NULL, l->rows,
                         batch * l->bench->n_dims * sizeof(float)) < 0)
                die("%s", carvq_table_error(table));
}

static void look_up(struct latency *l, enum way way, const uint64_t *ids, uint32_t batch) {
        switch (way) {
        case WAY_DIRECT:
                copy_out(l, l->direct, ids, batch);
                return;
        case WAY_AWAKE:
        case WAY_ASLEEP:
                ring_lookup(l->spinner, l->spinner_table, ids, batch);
                return;
        case WAY_AWAKE_COPY:
                copy_out(l, l->spinner_table, ids, batch);
                return;
        case WAY_BOTH_ASLEEP:
                ring_lookup(l->sleeper, l->sleeper_table, ids, batch);
                return;
        default:
                ring_eventfd(l);
        }
}

/* ---- Places ---- */

/* All threads of a process. */
static void pin(pid_t pid, const cpu_set_t *cpus) {
        char path[64];
        struct dirent *entry;
        DIR *folder;

        snprintf(path, sizeof(path), "/proc/%d/task", pid);
        folder = opendir(path);
        while (folder && (entry = readdir(folder)))
                if (entry->d_name[0] != '.')
                        sched_setaffinity(atoi(entry->d_name), sizeof(*cpus), cpus);
        if (folder)
                closedir(folder);
}

/*
 * This process on one CPU, daemon and echo on the others, as on a machine where nobody else asks
 * for CPUs: where somebody does, the scheduler may put all of them on one.
 */
static void pin_apart(pid_t daemon, pid_t echo, const cpu_set_t *allowed) {
        cpu_set_t here, there = *allowed;
        int cpu = 0;

        while (!CPU_ISSET(cpu, allowed))
                cpu++;
        CPU_ZERO(&here);
        CPU_SET(cpu, &here);
        CPU_CLR(cpu, &there);
        if (!CPU_COUNT(&there))
                return;
        pin(getpid(), &here);
        pin(daemon, &there);
        pin(echo, &there);
}

/* ---- Times ---- */

/* A turn's first lookups find the other side in the state that the turn before has left. */
static void take_turn(struct latency *l, enum way way, uint32_t batch, size_t n, uint64_t *ret_ns) {
        const size_t n_skipped = n / 10 + 1;
        uint64_t ids[RING_BATCH_MAX];

        for (size_t i = 0; i < n_skipped + n; i++) {
                uint64_t start_ns;

                for (uint32_t k = 0; k < batch; k++)
                        ids[k] = random_next(&l->random) % l->bench->n_rows;
                if (ways[way].pause)
                        for (uint64_t end_ns = clock_ns() + PAUSE_NS; clock_ns() < end_ns;)
                                cpu_relax();
                start_ns = clock_ns();
                look_up(l, way, ids, batch);
                if (i >= n_skipped)
                        ret_ns[i - n_skipped] = clock_ns() - start_ns;
        }
}

static struct quantiles quantiles_of(uint64_t *ns, size_t n) {
        return (struct quantiles){
                .p50 = (double)percentile(ns, n, 0.5) / 1e3,
                .p90 = (double)percentile(ns, n, 0.9) / 1e3,
                .p99 = (double)percentile(ns, n, 0.99) / 1e3,
                .p999 = (double)percentile(ns, n, 0.999) / 1e3,
                .max = (double)percentile(ns, n, 1) / 1e3,
        };
}

static size_t lookups_of_turn(enum way way, uint32_t batch) {
        return batch > 256 ? TURN_LARGE : ways[way].pause ? TURN_ASLEEP : TURN_AWAKE;
}

static void measure(struct latency *l, uint32_t batch, struct quantiles *ret_quantiles) {
        const size_t n_turns = MAX(l->bench->n_lookups / batch / TURN_AWAKE, 10);
        uint64_t *ns[N_WAYS];

        for (enum way way = 0; way < N_WAYS; way++)
                ns[way] = allocate(n_turns * TURN_AWAKE, sizeof(uint64_t));
        for (size_t turn = 0; turn < n_turns; turn++)
                for (enum way way = 0; way < N_WAYS; way++) {
                        size_t n = lookups_of_turn(way, batch);

                        take_turn(l, way, batch, n, ns[way] + turn * n);
                }
        for (enum way way = 0; way < N_WAYS; way++) {
                ret_quantiles[way] = quantiles_of(ns[way], n_turns * lookups_of_turn(way, batch));
                free(ns[way]);
        }
}

/* ---- What came out ---- */

static void report(json_t *lines, uint32_t batch, const struct quantiles *quantiles) {
        for (enum way way = 0; way < N_WAYS; way++) {
                const struct quantiles *q = &quantiles[way];

                printf("%6" PRIu32 "  %-26s %9.2f %9.2f %9.2f %9.2f %9.1f\n", batch, ways[way].name,
                       q->p50, q->p90, q->p99, q->p999, q->max);
                json_array_append_new(lines, json_pack("{si, ss, sf, sf, sf, sf, sf}", "batch",
                                                       (int)batch, "way", ways[way].name, "p50_us",
                                                       q->p50, "p90_us", q->p90, "p99_us", q->p99,
                                                       "p99.9_us", q->p999, "max_us", q->max));
        }
}

static void judge(json_t *outcome, const struct quantiles *q) {
        const double direct = q[WAY_DIRECT].p50, eventfd = q[WAY_EVENTFD].p50;

        outcome_target(outcome,
                       &(struct outcome_target){
                               .measure = "ring, 1 row, both awake, p50, beyond in-process",
                               .target = "at most 1.0 us",
                               .value = q[WAY_AWAKE].p50 - direct,
                               .unit = "us",
                               .limit = 1.0,
                               .sides = { { "ring", q[WAY_AWAKE].p50, "us" },
                                          { "in-process", direct, "us" } },
                       });
        outcome_target(
                outcome,
                &(struct outcome_target){
                        .measure = "ring, 1 row, daemon asleep, p50, less in-process",
                        .target = "at most 1.3 x an eventfd there and back",
                        .value = (q[WAY_ASLEEP].p50 - direct) / eventfd,
                        .unit = "x",
                        .limit = 1.3,
                        .sides = { { "ring less in-process", q[WAY_ASLEEP].p50 - direct, "us" },
                                   { "eventfd there and back", eventfd, "us" } },
                });
}

void ring_latency(const struct ring_bench *bench, json_t *outcome) {
        struct latency l = {
                .bench = bench,
                .direct = ring_open_direct(bench),
                .there_fd = eventfd(0, EFD_CLOEXEC),
                .back_fd = eventfd(0, EFD_CLOEXEC),
                .rows = allocate_pages(RING_BATCH_MAX * bench->n_dims * sizeof(float)),
                .random = bench->seed,
        };
        const pid_t echo = start_echo(l.there_fd, l.back_fd);
        struct quantiles quantiles[RING_BATCHES][N_WAYS];
        json_t *lines = json_array();
        uint64_t ns[N_WARM];
        cpu_set_t allowed;

        ring_connect(bench, 0, &l.spinner, &l.spinner_table);
        ring_connect(bench, UINT64_MAX, &l.sleeper, &l.sleeper_table);
        json_object_set_new(outcome, "latency", lines);
        sched_getaffinity(0, sizeof(allowed), &allowed);
        pin_apart(bench->daemon_pid, echo, &allowed);
        for (enum way way = 0; way < N_WAYS; way++)
                take_turn(&l, way, 1, N_WARM, ns);

        printf("\nlatency of one client, us; it has a CPU, daemon and echo the others\n%6s  %-26s "
               "%9s %9s %9s %9s %9s\n",
               "batch", "way", "p50", "p90", "p99", "p99.9", "max");
        for (size_t i = 0; i < RING_BATCHES; i++) {
                measure(&l, ring_batches[i], quantiles[i]);
                report(lines, ring_batches[i], quantiles[i]);
        }
        judge(outcome, quantiles[0]);

        pin(getpid(), &allowed);
        pin(bench->daemon_pid, &allowed);
        kill(echo, SIGKILL);
        waitpid(echo, NULL, 0);
        carvq_client_free(l.spinner);
        carvq_client_free(l.sleeper);
        carvq_table_close(l.direct);
        free(l.rows);
}

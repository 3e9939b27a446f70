/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-hostile: what a client that means no harm notices of one that does. Latencies of small
 * lookups, with nobody else there and beside one kind of mischief after the other, in turns within
 * one run. The daemon has a CPU of its own; both clients share the next one, where the hostile one
 * runs when the other has nothing to do: so the ratio is what the daemon makes of it, and not what
 * it costs to share a CPU. Starts a carvqd of its own on a table of random codes.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench-table.h"
#include "bench.h"
#include "lib/carvq.h"
#include "lib/codec/codec.h"
#include "options.h"
#include "outcome.h"
#include "private-daemon.h"
#include "tests/integration/scribbler.h"

#define TABLE_NAME  "hostile"
#define N_IDS       16u
#define PAUSE_NS    20000 /* between lookups: when the other client runs */
#define RATIO_LIMIT 3.0
#define SAMPLES_MAX (1u << 20)

struct options {
        uint64_t ms, rounds, n_rows, n_dims, seed, arena_mib, workers, idle;
        const char *only, *json_path, *work_path;
};

struct bench {
        const struct options *options;
        struct private_daemon daemon;
        carvq_client *client;
        carvq_table *table;
        uint64_t random;
        struct scribbler_report *report; /* shared with the child */
};

struct samples {
        uint64_t *ns;
        size_t n;
};

static void pin(pid_t pid, int cpu) {
        cpu_set_t set;

        if (cpu_count() < 2)
                return;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(pid, sizeof(set), &set) < 0)
                die("sched_setaffinity: %s", strerror(errno));
}

/* ---- Beside whom ---- */

static pid_t start_hostile(struct bench *b, enum scribbler_kind kind, uint64_t seed) {
        struct scribbler_options o = { .socket_path = b->daemon.socket_path,
                                       .table = TABLE_NAME,
                                       .kind = kind,
                                       .seed = seed,
                                       .until_ns = UINT64_MAX,
                                       .arena_bytes = b->options->arena_mib << 20 };
        pid_t parent = getpid(), pid = fork();

        if (pid < 0)
                die("fork: %s", strerror(errno));
        if (pid > 0) {
                keep_child(pid);
                return pid;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Under a real-time policy (`chrt -r 1 bench-hostile`, for a busy machine) it is enough not
         * to have one. */
        if (b->options->idle)
                sched_setscheduler(0,
                                   sched_getscheduler(0) == SCHED_OTHER ? SCHED_IDLE : SCHED_OTHER,
                                   &(struct sched_param){ 0 });
        if (getppid() == parent)
                scribbler_run(&o, b->report);
        _exit(1);
}

static void stop_hostile(const struct bench *b, pid_t pid, enum scribbler_kind kind) {
        if (waitpid(pid, NULL, WNOHANG) != 0)
                die("the hostile client (%s) ended by itself", scribbler_kind_name(kind));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        forget_child(pid);
        if (!b->report->n_acts)
                die("the hostile client (%s) did not come to act", scribbler_kind_name(kind));
}

/* ---- The honest one ---- */

static void look_up(struct bench *b, uint64_t ns, struct samples *samples) {
        uint64_t ids[N_IDS], now_ns = clock_ns();
        const uint64_t until_ns = now_ns + ns;
        struct carvq_rows rows;
        carvq_ticket ticket;

        while (now_ns < until_ns && samples->n < SAMPLES_MAX) {
                uint64_t start_ns;

                for (size_t i = 0; i < N_IDS; i++)
                        ids[i] = random_next(&b->random) % b->options->n_rows;
                start_ns = clock_ns();
                if (carvq_submit(b->table, ids, N_IDS, NULL, &ticket) < 0 ||
                    carvq_wait(b->client, ticket, 0, &rows) < 0)
                        die("%s", carvq_client_error(b->client));
                carvq_release(b->client, ticket);
                samples->ns[samples->n++] = clock_ns() - start_ns;
                nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
                now_ns = clock_ns();
        }
}

static void connect_honest(struct bench *b) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = b->daemon.socket_path };
        char message[CARVQ_MESSAGE_BYTES] = "";

        if (carvq_connect(&o, &b->client, message) < 0)
                die("%s", message);
        if (carvq_table_open(b->client, TABLE_NAME, &b->table) < 0)
                die("%s", carvq_client_error(b->client));
}

/* ---- Figures ---- */

static void judge(json_t *outcome, json_t *kinds, const char *name, struct samples *alone,
                  struct samples *beside, uint64_t n_acts) {
        const double us[2][3] = {
                { (double)percentile(alone->ns, alone->n, 0.5) / 1e3,
                  (double)percentile(alone->ns, alone->n, 0.99) / 1e3,
                  (double)percentile(alone->ns, alone->n, 0.999) / 1e3 },
                { (double)percentile(beside->ns, beside->n, 0.5) / 1e3,
                  (double)percentile(beside->ns, beside->n, 0.99) / 1e3,
                  (double)percentile(beside->ns, beside->n, 0.999) / 1e3 },
        };
        char measure[96];

        printf("%-12s %8.1f %8.1f %8.1f   %8.1f %8.1f %8.1f   %6.2f %10" PRIu64 "\n", name,
               us[0][0], us[0][1], us[0][2], us[1][0], us[1][1], us[1][2], us[1][1] / us[0][1],
               n_acts);
        json_object_set_new(kinds, name,
                            json_pack("{s[fff], s[fff], sI}", "undisturbed_us", us[0][0], us[0][1],
                                      us[0][2], "disturbed_us", us[1][0], us[1][1], us[1][2],
                                      "n_acts", (json_int_t)n_acts));
        snprintf(measure, sizeof(measure), "p99 of %u ids beside a hostile client: %s", N_IDS,
                 name);
        outcome_target(outcome,
                       &(struct outcome_target){ .measure = measure,
                                                 .target = "at most 3 x undisturbed",
                                                 .value = us[1][1] / us[0][1],
                                                 .unit = "x",
                                                 .limit = RATIO_LIMIT,
                                                 .sides = { { "disturbed", us[1][1], "us" },
                                                            { "undisturbed", us[0][1], "us" } } });
}

static void measure(struct bench *b, json_t *outcome, json_t *kinds, enum scribbler_kind kind) {
        struct samples alone = { .ns = allocate(SAMPLES_MAX, sizeof(uint64_t)) };
        struct samples beside = { .ns = allocate(SAMPLES_MAX, sizeof(uint64_t)) };
        const uint64_t ns = b->options->ms * 1000000;
        struct samples warm = { .ns = allocate(SAMPLES_MAX, sizeof(uint64_t)) };
        uint64_t n_acts = 0;

        for (uint64_t round = 0; round < b->options->rounds; round++) {
                pid_t pid;

                look_up(b, ns, &alone);
                *b->report = (struct scribbler_report){ 0 };
                pid = start_hostile(b, kind, b->options->seed + round);
                for (int k = 0;
                     k < 1000 && !((volatile struct scribbler_report *)b->report)->n_acts; k++)
                        look_up(b, 10000000, &warm);
                look_up(b, ns, &beside);
                stop_hostile(b, pid, kind);
                n_acts += b->report->n_acts;
                warm.n = 0;
                look_up(b, ns / 10, &warm); /* what it left behind is cleared away */
        }
        judge(outcome, kinds, scribbler_kind_name(kind), &alone, &beside, n_acts);
        free(alone.ns);
        free(beside.ns);
        free(warm.ns);
}

static void run(const struct options *o) {
        const struct bench_table table = { o->n_rows, (uint32_t)o->n_dims, o->seed,
                                           bench_table_rvq };
        json_t *outcome =
                outcome_new("hostile", codec_kernels_choose(codec_cpu_features())->name, "warm");
        json_t *kinds = json_object();
        struct bench b = { .options = o, .random = o->seed };
        char path[PATH_MAX], machine[256], workers[24];
        bool any = false;

        machine_name(machine, sizeof(machine));
        bench_table_make(&table, TABLE_NAME ".carvq", path, sizeof(path));
        snprintf(workers, sizeof(workers), "%" PRIu64, o->workers);
        private_daemon_start_with(
                &b.daemon, TABLE_NAME, path,
                (const char *const[]){ "--workers", workers, "--log-level", "error", NULL });
        pin(b.daemon.pid, 0);
        pin(0, 1);
        b.report = mmap(NULL, sizeof(*b.report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0);
        if (b.report == MAP_FAILED)
                die("mmap: %s", strerror(errno));
        connect_honest(&b);
        printf("%s; %" PRIu64 " x %" PRIu64 ", %" PRIu64
               " worker%s, lookups of %u ids\n%-12s %26s   "
               "%26s\n%-12s %8s %8s %8s   %8s %8s %8s   %6s %10s\n",
               machine, o->n_rows, o->n_dims, o->workers, o->workers == 1 ? "" : "s", N_IDS, "",
               "undisturbed, us", "disturbed, us", "mischief", "p50", "p99", "p99.9", "p50", "p99",
               "p99.9", "p99, x", "acts");
        for (int kind = 0; kind < SCRIBBLER_N; kind++) {
                if (o->only && strcmp(o->only, scribbler_kind_name(kind)) != 0)
                        continue;
                any = true;
                measure(&b, outcome, kinds, kind);
        }
        if (!any)
                die("--only: there is no mischief named %s", o->only);
        carvq_client_free(b.client);
        private_daemon_stop(&b.daemon);
        json_object_set_new(outcome, "mischief", kinds);
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

int main(int argc, char **argv) {
        struct options o = { .ms = 500,
                             .rounds = 3,
                             .n_rows = 100000,
                             .n_dims = 384,
                             .seed = 1,
                             .arena_mib = 64,
                             .workers = 1,
                             .idle = 1 };
        const struct bench_option options[] = {
                { "ms", "N", "of each measurement", .count = &o.ms, .min = 1, .max = 60000 },
                { "rounds", "N", "measurements of each kind", .count = &o.rounds, .min = 1,
                  .max = 100 },
                { "rows", "N", "of the table", .count = &o.n_rows, .min = 1000,
                  .max = UINT64_C(1) << 32 },
                { "dims", "N", "of a row", .count = &o.n_dims, .min = 8, .max = 65536 },
                { "seed", "N", "of table, ids and mischief", .count = &o.seed, .min = 1,
                  .max = UINT32_MAX },
                { "arena-mib", "N", "of the hostile client", .count = &o.arena_mib, .min = 1,
                  .max = 1024 },
                { "workers", "N", "of the daemon", .count = &o.workers, .min = 1, .max = 64 },
                { "idle", "N", "1: the hostile client has the lower priority", .count = &o.idle,
                  .max = 1 },
                { "only", "NAME", "this mischief alone", .text = &o.only },
                { "work", "DIR", "where the table goes; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { 0 },
        };

        bench_options(argc, argv,
                      "Latency of small lookups beside clients that mean harm, one kind after the "
                      "other.",
                      options);
        work_folder(o.work_path);
        run(&o);
        return 0;
}

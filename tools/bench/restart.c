/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-restart: how long a lookup takes at most while carvqd is restarted under its clients, each
 * a process of its own that asks for one batch after the other. The bench itself is the service
 * manager: it keeps the descriptors and starts the next daemon at once, so what a real one adds, a
 * sandbox say, is not in here; tests/systemd has that. Beside it stands what the longest lookup
 * takes while nothing is restarted, on the same machine at the same load.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench-table.h"
#include "bench.h"
#include "fake-manager.h"
#include "lib/carvq.h"
#include "lib/codec/codec.h"
#include "options.h"
#include "outcome.h"

#define TABLE_NAME   "table"
#define CLIENTS_MAX  64u
#define RESTARTS_MAX 1000u
#define LIMIT_MS     50.0
#define SEED         UINT64_C(29)

/* Each client's, before and after a restart. */
#define LOOKUPS_BETWEEN 50u

struct options {
        uint64_t n_rows, n_dims, batch, n_clients, n_restarts;
        const char *json_path, *work_path;
};

/* Of one client, in memory shared with the bench. */
struct share {
        _Alignas(128) _Atomic uint64_t n_lookups;
        _Atomic uint64_t longest_ns; /* since the bench last took it */
};

struct bench {
        const struct options *options;
        struct fake_manager manager;
        struct share *shares;
        pid_t clients[CLIENTS_MAX];
};

/* In nanoseconds, of each restart; `quiet` is the longest lookup between two of them. */
struct figures {
        uint64_t pause[RESTARTS_MAX], quiet[RESTARTS_MAX], stop[RESTARTS_MAX], start[RESTARTS_MAX];
};

/* ---- Clients ---- */

static void run_client(const struct bench *b, uint32_t index) {
        const struct options *o = b->options;
        struct carvq_connect_options co = { .size = sizeof(co),
                                            .socket_path = b->manager.data_path,
                                            .no_reconnect = 1 };
        struct share *share = &b->shares[index];
        uint64_t random = SEED + index, *ids = allocate(o->batch, sizeof(*ids)), longest_ns;
        size_t rows_bytes = o->batch * o->n_dims * sizeof(float);
        float *rows = allocate_pages(rows_bytes);
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client;
        carvq_table *table;

        if (carvq_connect(&co, &client, message) < 0)
                die("%s", message);
        if (carvq_table_open(client, TABLE_NAME, &table) < 0)
                die("%s", carvq_client_error(client));
        for (;;) {
                uint64_t start_ns;

                for (size_t i = 0; i < o->batch; i++)
                        ids[i] = random_next(&random) % o->n_rows;
                start_ns = clock_ns();
                if (carvq_lookup(table, ids, o->batch, NULL, rows, rows_bytes) < 0)
                        die("%s", carvq_client_error(client));
                start_ns = clock_ns() - start_ns;
                /* The bench takes it away now and then: what it misses it has seen the next time.
                 */
                longest_ns = share->longest_ns;
                while (start_ns > longest_ns &&
                       !atomic_compare_exchange_weak(&share->longest_ns, &longest_ns, start_ns))
                        ;
                share->n_lookups++;
        }
}

static void fork_clients(struct bench *b) {
        const pid_t parent = getpid();

        for (uint32_t i = 0; i < b->options->n_clients; i++) {
                b->clients[i] = fork();
                if (b->clients[i] < 0)
                        die("fork: %s", strerror(errno));
                if (b->clients[i]) {
                        keep_child(b->clients[i]);
                        continue;
                }
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() == parent)
                        run_client(b, i);
                _exit(3);
        }
}

static void end_clients(struct bench *b) {
        for (uint32_t i = 0; i < b->options->n_clients; i++) {
                kill(b->clients[i], SIGKILL);
                waitpid(b->clients[i], NULL, 0);
                forget_child(b->clients[i]);
        }
}

/* Until each has made so many lookups. No client may end. */
static void wait_for_lookups(struct bench *b, uint64_t n) {
        uint64_t before[CLIENTS_MAX];

        for (uint32_t i = 0; i < b->options->n_clients; i++)
                before[i] = b->shares[i].n_lookups;
        for (uint32_t i = 0; i < b->options->n_clients; i++)
                while (b->shares[i].n_lookups - before[i] < n) {
                        if (waitpid(b->clients[i], NULL, WNOHANG) != 0)
                                die("a client's lookup failed");
                        fake_manager_listen(&b->manager, 1);
                }
}

static uint64_t take_longest(struct bench *b) {
        uint64_t longest_ns = 0;

        for (uint32_t i = 0; i < b->options->n_clients; i++) {
                uint64_t ns = atomic_exchange(&b->shares[i].longest_ns, 0);

                longest_ns = MAX(longest_ns, ns);
        }
        return longest_ns;
}

/* ---- The daemons ---- */

static void start_daemon(struct bench *b, const char *table_path) {
        char program[PATH_MAX], table[PATH_MAX + 32];

        program_beside("../../daemon/carvqd", program, sizeof(program));
        snprintf(table, sizeof(table), TABLE_NAME "=%s", table_path);
        fake_manager_start(&b->manager,
                           (const char *[]){ program, "--table", table, "--tables-dir", "",
                                             "--cache-bytes", "0", "--config", "/dev/null", NULL });
        keep_child(b->manager.pid);
}

static void stop_daemon(struct bench *b) {
        pid_t pid = b->manager.pid;

        if (fake_manager_stop(&b->manager, SIGTERM) != 0)
                die("carvqd ended badly; see %s", b->manager.log_path);
        forget_child(pid);
}

static void restart(struct bench *b, const char *table_path, struct figures *f, uint64_t i) {
        uint64_t start_ns;

        wait_for_lookups(b, LOOKUPS_BETWEEN);
        f->quiet[i] = take_longest(b);
        start_ns = clock_ns();
        stop_daemon(b);
        f->stop[i] = clock_ns() - start_ns;
        start_ns = clock_ns();
        start_daemon(b, table_path);
        f->start[i] = clock_ns() - start_ns;
        wait_for_lookups(b, 2); /* the one that was under way, and one more */
        f->pause[i] = take_longest(b);
}

/* ---- Figures ---- */

static void print(const char *what, uint64_t *ns, uint64_t n) {
        double median_ms = (double)percentile(ns, n, 0.5) / 1e6; /* sorts */

        printf("%-44s %10.2f ms (worst of %" PRIu64 ": %.2f)\n", what, median_ms, n,
               (double)ns[n - 1] / 1e6);
}

static void report(const struct bench *b, struct figures *f) {
        const struct options *o = b->options;
        json_t *outcome =
                outcome_new("restart", codec_kernels_choose(codec_cpu_features())->name, "warm");
        char measure[128];
        uint64_t worst_ns;

        print("longest lookup across a restart, median", f->pause, o->n_restarts);
        print("... while nothing is restarted", f->quiet, o->n_restarts);
        print("SIGTERM to the end of the daemon", f->stop, o->n_restarts);
        print("fork to READY=1 of the next one", f->start, o->n_restarts);
        worst_ns = f->pause[o->n_restarts - 1];
        json_object_update_new(
                outcome,
                json_pack("{sI, sI, sf, sf, sf, sf, sf, sf, ss}", "clients",
                          (json_int_t)o->n_clients, "restarts", (json_int_t)o->n_restarts,
                          "pause_ms_median", (double)f->pause[o->n_restarts / 2] / 1e6,
                          "pause_ms_worst", (double)worst_ns / 1e6, "quiet_ms_median",
                          (double)f->quiet[o->n_restarts / 2] / 1e6, "quiet_ms_worst",
                          (double)f->quiet[o->n_restarts - 1] / 1e6, "stop_ms_median",
                          (double)f->stop[o->n_restarts / 2] / 1e6, "start_ms_median",
                          (double)f->start[o->n_restarts / 2] / 1e6, "manager", "the bench"));
        snprintf(measure, sizeof(measure),
                 "longest pause of %" PRIu64 " clients in %" PRIu64
                 " restarts, the bench as service manager",
                 o->n_clients, o->n_restarts);
        outcome_target(outcome, &(struct outcome_target){ .measure = measure,
                                                          .target = "at most 50 ms",
                                                          .value = (double)worst_ns / 1e6,
                                                          .unit = "ms",
                                                          .limit = LIMIT_MS });
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

static void run(const struct options *o) {
        struct bench *b = allocate(1, sizeof(*b));
        struct figures *f = allocate(1, sizeof(*f));
        const struct bench_table table = { o->n_rows, (uint32_t)o->n_dims, SEED,
                                           bench_table_adaptor };
        char path[PATH_MAX], machine[256];

        b->options = o;
        b->shares = mmap(NULL, CLIENTS_MAX * sizeof(*b->shares), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (b->shares == MAP_FAILED)
                die("mmap: %s", strerror(errno));
        bench_table_make(&table, TABLE_NAME ".carvq", path, sizeof(path));
        fake_manager_init(&b->manager, work_folder(NULL));
        machine_name(machine, sizeof(machine));
        printf("%s; %" PRIu64 " x %" PRIu64 " with an adaptor, warm; %" PRIu64
               " clients, batches of %" PRIu64 "\n",
               machine, o->n_rows, o->n_dims, o->n_clients, o->batch);
        start_daemon(b, path);
        fork_clients(b);
        wait_for_lookups(b, LOOKUPS_BETWEEN); /* warm */
        for (uint64_t i = 0; i < o->n_restarts; i++)
                restart(b, path, f, i);
        end_clients(b);
        stop_daemon(b);
        report(b, f);
        fake_manager_deinit(&b->manager);
        free(f);
        free(b);
}

int main(int argc, char **argv) {
        struct options o = {
                .n_rows = 262144, .n_dims = 640, .batch = 32, .n_clients = 8, .n_restarts = 50
        };
        const struct bench_option options[] = {
                { "rows", "N", "of the table", .count = &o.n_rows, .min = 1, .max = 1u << 30 },
                { "dims", "N", "of the table", .count = &o.n_dims, .min = 1, .max = 65536 },
                { "batch", "N", "ids of a lookup", .count = &o.batch, .min = 1, .max = 65536 },
                { "clients", "N", "that look rows up", .count = &o.n_clients, .min = 1,
                  .max = CLIENTS_MAX },
                { "restarts", "N", "how often", .count = &o.n_restarts, .min = 1,
                  .max = RESTARTS_MAX },
                { "work", "DIR", "where the table goes; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { 0 },
        };

        bench_options(argc, argv, "Times lookups while carvqd is restarted under its clients.",
                      options);
        work_folder(o.work_path);
        run(&o);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soak: a private carvqd, 16 clients at a time of which some are hostile, tables that are replaced,
 * damaged and truncated, and a daemon that is killed; every row is verified. Time goes in rounds of
 * a minute (soak.h has who is who):
 *
 *    |<-- two thirds: the daemon is killed every so often -->| calm |<-- it lives -->| calm |
 *
 * In a calm all clients are gone, all tables sound, and what the daemon takes is compared with the
 * calm before it. This process directs, with one thread, and never touches the daemon's rings.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "clients.h"
#include "daemon-process.h"
#include "report.h"
#include "tables.h"
#include "tools/bench/bench.h"
#include "tools/bench/options.h"

#define SECOND_NS      UINT64_C(1000000000)
#define TICK_US        5000u
#define REPLACE_NS     (SECOND_NS * 3 / 2)
#define DAMAGE_NS      (SECOND_NS * 4)
#define CUT_NS         (SECOND_NS * 12)
#define REPAIR_NS      (SECOND_NS * 1)
#define STAY_DEAD_US   300000u
#define TERMINATED_OF  3u /* one of so many ends by SIGTERM */
#define COMPLAINTS_MAX 50u
#define ALONE_NS_MAX   (SECOND_NS * 4)
#define STEADY_SAMPLES 10u
#define STEADY_US      50000u
#define STEADY_NS      (SECOND_NS * 20)

struct options {
        uint64_t minutes, seconds, seed, kill_s, n_workers;
        const char *json_path, *log_path, *work_path;
};

struct director {
        struct soak soak;
        struct tables tables;
        struct clients clients;
        struct daemon_process daemon;
        struct report report;
        uint64_t round_ns;
        uint64_t replace_ns, damage_ns, cut_ns; /* when the next one is due */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number) {
        interrupted = signal_number;
}

void soak_sleep_us(uint64_t us) {
        nanosleep(&(struct timespec){ .tv_sec = (time_t)(us / 1000000),
                                      .tv_nsec = (long)(us % 1000000 * 1000) },
                  NULL);
}

void soak_complain(const struct soak *soak, const char *format, ...) {
        char line[1024];
        va_list args;
        int n;

        if (atomic_fetch_add(&soak->shared->n_complaints, 1) >= COMPLAINTS_MAX)
                return;
        va_start(args, format);
        n = vsnprintf(line, sizeof(line), format, args);
        va_end(args);
        if (n >= 0)
                fprintf(stderr, "soak: %.3f: %s\n", (double)clock_ns() / 1e9, line);
}

/* ---- What happens while clients run ---- */

/* About every `ns`, more often in a short round. True when it is time. */
static bool is_due(struct director *d, uint64_t *due_ns, uint64_t now_ns, uint64_t ns) {
        bool due = *due_ns && *due_ns <= now_ns;

        ns = ns * MIN(MAX(d->round_ns / SECOND_NS, 15), 60) / 60;
        if (due || !*due_ns)
                *due_ns = now_ns + ns / 2 + soak_below(&d->soak.random, ns);
        return due;
}

/* A sound one, to be cut or not; SOAK_TABLES: there is none. */
static uint32_t pick_table(struct director *d, bool to_cut) {
        uint32_t first = (uint32_t)soak_below(&d->soak.random, SOAK_TABLES);

        for (uint32_t i = 0; i < SOAK_TABLES; i++) {
                uint32_t table = (first + i) % SOAK_TABLES;

                if (d->tables.state[table] == TABLE_SOUND &&
                    (!to_cut || d->soak.tables[table].is_cut))
                        return table;
        }
        return SOAK_TABLES;
}

static void disturb_tables(struct director *d, uint64_t now_ns) {
        uint64_t repair_ns = now_ns + REPAIR_NS / 5 + soak_below(&d->soak.random, REPAIR_NS);
        uint32_t table;

        tables_repair(&d->tables, now_ns);
        if (is_due(d, &d->replace_ns, now_ns, REPLACE_NS)) {
                table = pick_table(d, false);
                if (table < SOAK_TABLES)
                        tables_replace(&d->tables, table);
        }
        if (is_due(d, &d->damage_ns, now_ns, DAMAGE_NS)) {
                table = pick_table(d, false);
                if (table < SOAK_TABLES)
                        tables_damage(&d->tables, table, repair_ns);
        }
        if (is_due(d, &d->cut_ns, now_ns, CUT_NS)) {
                table = pick_table(d, true);
                if (table < SOAK_TABLES)
                        tables_cut(&d->tables, table, repair_ns);
        }
}

static void start_daemon(struct director *d) {
        tables_daemon_starts(&d->tables);
        daemon_start(&d->daemon);
        d->report.has_life = false;
}

static void restart_daemon(struct director *d) {
        bool terminate = soak_below(&d->soak.random, TERMINATED_OF) == 0;

        daemon_end(&d->daemon, terminate ? SIGTERM : SIGKILL);
        soak_add(&d->soak, terminate ? SOAK_DAEMON_TERMINATED : SOAK_DAEMON_KILLED, 1);
        soak_sleep_us(soak_below(&d->soak.random, STAY_DEAD_US));
        start_daemon(d);
}

/* `kill_ns` is the time between two deaths of the daemon, 0: it lives. */
static void storm(struct director *d, uint64_t until_ns, uint64_t kill_ns) {
        uint64_t next_kill_ns = clock_ns() + kill_ns / 2;

        for (uint64_t now_ns; (now_ns = clock_ns()) < until_ns && !interrupted;) {
                clients_tick(&d->clients, now_ns);
                disturb_tables(d, now_ns);
                if (!daemon_check(&d->daemon))
                        start_daemon(d);
                if (kill_ns && next_kill_ns <= now_ns) {
                        restart_daemon(d);
                        next_kill_ns += kill_ns;
                }
                soak_sleep_us(TICK_US);
        }
}

/* ---- Calms ---- */

static bool no_more_than(const struct daemon_sample *s, const struct daemon_sample *limit) {
        return s->n_fds <= limit->n_fds && s->n_mappings <= limit->n_mappings;
}

/* The daemon lets go of sessions and old generations some time after the last client is gone: until
 * it has for a while no more, and no more than in the first calm. */
static void await_steady(struct director *d) {
        const uint64_t deadline_ns = deadline_after(STEADY_NS);
        struct daemon_sample now = daemon_counts(&d->daemon), before;
        uint32_t n_same = 0;

        while (clock_ns() < deadline_ns && daemon_check(&d->daemon)) {
                before = now;
                soak_sleep_us(STEADY_US);
                now = daemon_counts(&d->daemon);
                n_same =
                        no_more_than(&now, &before) && no_more_than(&before, &now) ? n_same + 1 : 0;
                if (n_same >= STEADY_SAMPLES &&
                    (!d->report.has_first || no_more_than(&now, &d->report.first)))
                        break;
        }
}

static void calm(struct director *d) {
        struct daemon_sample sample;

        clients_calm(&d->clients);
        tables_repair(&d->tables, UINT64_MAX);
        await_steady(d);
        if (!d->daemon.pid) {
                start_daemon(d);
                return;
        }
        sample = daemon_sample(&d->daemon);
        report_calm(&d->report, &sample);
}

/* ---- The whole ---- */

/* Before anybody else comes: what latencies are compared with. */
static void run_alone(struct director *d, uint64_t ns) {
        clients_run_alone(&d->clients, 0, clock_ns() + ns / 2);
        clients_run_alone(&d->clients, 1, clock_ns() + ns / 2);
}

static void run_round(struct director *d, uint64_t end_ns, uint64_t kill_ns) {
        storm(d, end_ns - d->round_ns / 3, MIN(kill_ns, d->round_ns / 4));
        calm(d);
        storm(d, end_ns, 0);
        calm(d);
        report_minute(&d->report, &d->daemon);
}

static bool run(struct director *d, const struct options *o) {
        const uint64_t total_ns = (o->seconds ? o->seconds : o->minutes * 60) * SECOND_NS;
        const uint64_t n_rounds = MAX(total_ns / (60 * SECOND_NS), 1);
        const uint64_t start_ns = clock_ns();

        d->round_ns = total_ns / n_rounds;
        start_daemon(d);
        report_head(&d->report);
        run_alone(d, MIN(ALONE_NS_MAX, total_ns / 10));
        calm(d);
        for (uint64_t i = 0; i < n_rounds && !interrupted; i++)
                run_round(d, start_ns + (i + 1) * d->round_ns, o->kill_s * SECOND_NS);
        daemon_end(&d->daemon, SIGTERM);
        return report_verdict(&d->report, &d->daemon, o->json_path);
}

static void prepare(struct director *d, const struct options *o) {
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
        const char *folder = work_folder(o->work_path);
        static char log_path[PATH_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                signal(signals[i], on_signal);
        /* Hostile clients reach the socket with other rights. */
        if (chmod(folder, 0710) < 0)
                die("%s: %s", folder, strerror(errno));
        work_path("carvqd.log", log_path, sizeof(log_path));
        d->soak = (struct soak){ .seed = o->seed,
                                 .random = o->seed * UINT64_C(0x9e3779b97f4a7c15) | 1,
                                 .grace_ns = 5 * SECOND_NS };
        d->soak.shared = mmap(NULL, sizeof(*d->soak.shared), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (d->soak.shared == MAP_FAILED)
                die("mmap: %s", strerror(errno));
        tables_init(&d->tables, &d->soak);
        clients_init(&d->clients, &d->soak);
        daemon_init(&d->daemon, &d->soak, d->tables.folder, o->n_workers,
                    o->log_path ? o->log_path : log_path);
        report_init(&d->report, &d->soak, o->n_workers);
}

int main(int argc, char **argv) {
        struct options o = { .minutes = 1, .seed = 1, .kill_s = 12, .n_workers = 2 };
        const struct bench_option options[] = {
                { "minutes", "N", "how long", .count = &o.minutes, .min = 1, .max = 100000 },
                { "seconds", "N", "the same, instead", .count = &o.seconds, .min = 5,
                  .max = 1000000 },
                { "seed", "N", "of contents, clients and faults", .count = &o.seed, .min = 1,
                  .max = UINT32_MAX },
                { "kill-daemon", "S",
                  "between two ends of the daemon, two thirds of each minute; 0: it lives",
                  .count = &o.kill_s, .min = 0, .max = 1000000 },
                { "workers", "N", "of the daemon", .count = &o.n_workers, .min = 1, .max = 64 },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { "log", "FILE", "keep what the daemon says there", .text = &o.log_path },
                { "work", "DIR", "where tables and sockets go; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { 0 },
        };
        static struct director d;
        bool good;

        bench_options(argc, argv,
                      "Serves good and hostile clients with a daemon and tables that do not last, "
                      "and verifies every row.\nWrites TAP; exit status 1 if a row was wrong, a "
                      "lookup failed, something leaked or something died.",
                      options);
        prepare(&d, &o);
        good = run(&d, &o);
        report_deinit(&d.report);
        return !good;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See report.h. All output is TAP: what is not a verdict is a comment. The director's thread. */
#include "report.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* 16 buckets for each power of two. */
#define OCTAVE_BITS 4u

static uint32_t bucket_of(uint64_t ns) {
        uint32_t octave;

        if (ns < 1u << OCTAVE_BITS)
                return (uint32_t)ns;
        octave = 63 - (uint32_t)__builtin_clzll(ns) - OCTAVE_BITS;
        return (octave << OCTAVE_BITS) + (uint32_t)(ns >> octave);
}

/* The least time beyond it. */
static uint64_t bucket_end(uint32_t bucket) {
        uint32_t octave = bucket >> OCTAVE_BITS;

        if (octave == 0)
                return bucket + 1;
        octave--;
        return ((uint64_t)bucket + 1 - ((uint64_t)octave << OCTAVE_BITS)) << octave;
}

void soak_latency_add(const struct soak *soak, enum soak_latency which, uint64_t ns) {
        atomic_fetch_add_explicit(&soak->shared->latencies[which][bucket_of(ns)], 1,
                                  memory_order_relaxed);
}

static uint64_t quantile(const uint64_t n[SOAK_BUCKETS], double share) {
        uint64_t total = 0, sum = 0;

        for (uint32_t i = 0; i < SOAK_BUCKETS; i++)
                total += n[i];
        for (uint32_t i = 0; i < SOAK_BUCKETS; i++) {
                sum += n[i];
                if (n[i] && (double)sum >= share * (double)total)
                        return bucket_end(i);
        }
        return 0;
}

struct figures {
        double p50_us, p99_us, longest_us; /* a sixteenth too much at most */
};

/* Of what has come since `ret_before`, if that is not NULL; it takes up what there is now. */
static struct figures figures_of(const struct soak *soak, enum soak_latency which,
                                 uint64_t ret_before[SOAK_BUCKETS]) {
        uint64_t n[SOAK_BUCKETS];

        for (uint32_t i = 0; i < SOAK_BUCKETS; i++) {
                uint64_t now = atomic_load_explicit(&soak->shared->latencies[which][i],
                                                    memory_order_relaxed);

                n[i] = now - (ret_before ? ret_before[i] : 0);
                if (ret_before)
                        ret_before[i] = now;
        }
        return (struct figures){ (double)quantile(n, 0.5) / 1e3, (double)quantile(n, 0.99) / 1e3,
                                 (double)quantile(n, 1) / 1e3 };
}

static uint64_t count_of(const struct soak *soak, enum soak_count count) {
        return atomic_load_explicit(&soak->shared->counts[count], memory_order_relaxed);
}

/* ---- Minutes ---- */

/* By which the daemon's private dirty memory may grow from one calm to a later one of its life:
 * buffers that it keeps, and what its allocator keeps of what is freed. */
#define WORKER_BYTES (UINT64_C(4) << 20)
#define SLACK_BYTES  (UINT64_C(4) << 20)

void report_init(struct report *r, const struct soak *soak, uint64_t n_workers) {
        *r = (struct report){
                .soak = soak,
                .start_ns = clock_ns(),
                .minute_start_ns = clock_ns(),
                .minutes = json_array(),
                .tolerance_bytes = n_workers * WORKER_BYTES + SLACK_BYTES,
                /* The sanitizers keep what is freed, and look for leaks themselves. */
                .judges_memory = !SANITIZED
        };
}

void report_deinit(struct report *r) {
        json_decref(r->minutes);
}

void report_head(const struct report *r) {
        char machine[256];

        machine_name(machine, sizeof(machine));
        printf("# %s\n# seed %" PRIu64 ", %u clients, %u tables of %u variants\n", machine,
               r->soak->seed, SOAK_CLIENTS, SOAK_TABLES, SOAK_VARIANTS);
        printf("# %8s %9s %11s %5s %6s %7s | %8s %8s | %8s %8s | %8s | %7s %7s %4s %4s %4s %5s\n",
               "seconds", "lookups", "rows", "wrong", "failed", "faults", "1: p50", "p99 us",
               "256: p50", "p99 us", "pause ms", "PSS MiB", "dirty", "fds", "maps", "thr", "log/s");
        fflush(stdout);
}

/* Acts of hostile clients are too many to be one figure with the rest. */
static uint64_t count_faults(const uint64_t counts[SOAK_COUNTS]) {
        uint64_t n = 0;

        for (int i = SOAK_DAEMON_KILLED; i < SOAK_COUNTS; i++)
                n += counts[i];
        return n;
}

static json_t *sample_json(const struct daemon_sample *s) {
        return json_pack("{sI, sI, si, si, si}", "pss_bytes", (json_int_t)s->pss_bytes,
                         "private_dirty_bytes", (json_int_t)s->dirty_bytes, "fds", (int)s->n_fds,
                         "mappings", (int)s->n_mappings, "threads", (int)s->n_threads);
}

void report_minute(struct report *r, const struct daemon_process *daemon) {
        const uint64_t now_ns = clock_ns(), lines = daemon_log_lines(daemon);
        const double s = (double)(now_ns - r->minute_start_ns) / 1e9;
        uint64_t n[SOAK_COUNTS];
        struct figures one, many, pause;

        for (int i = 0; i < SOAK_COUNTS; i++) {
                uint64_t now = count_of(r->soak, i);

                n[i] = now - r->counts[i];
                r->counts[i] = now;
        }
        one = figures_of(r->soak, SOAK_ONE, r->latencies[SOAK_ONE]);
        many = figures_of(r->soak, SOAK_MANY, r->latencies[SOAK_MANY]);
        pause = figures_of(r->soak, SOAK_PAUSE, r->latencies[SOAK_PAUSE]);
        printf("# %8.1f %9" PRIu64 " %11" PRIu64 " %5" PRIu64 " %6" PRIu64 " %7" PRIu64
               " | %8.1f %8.1f | %8.1f %8.1f | %8.1f | %7.1f %7.1f %4" PRIu32 " %4" PRIu32
               " %4" PRIu32 " %5.1f\n",
               (double)(now_ns - r->start_ns) / 1e9, n[SOAK_LOOKUPS], n[SOAK_ROWS],
               n[SOAK_WRONG_ROWS], n[SOAK_FAILED_LOOKUPS], count_faults(n), one.p50_us, one.p99_us,
               many.p50_us, many.p99_us, pause.longest_us / 1e3, (double)r->last.pss_bytes / 0x1p20,
               (double)r->last.dirty_bytes / 0x1p20, r->last.n_fds, r->last.n_mappings,
               r->last.n_threads, (double)(lines - r->log_lines) / s);
        fflush(stdout);
        json_array_append_new(
                r->minutes,
                json_pack("{sf, sI, sI, sI, sI, sI, s[fff], s[fff], sf, so, sI}", "seconds", s,
                          "lookups", (json_int_t)n[SOAK_LOOKUPS], "rows", (json_int_t)n[SOAK_ROWS],
                          "wrong_rows", (json_int_t)n[SOAK_WRONG_ROWS], "failed_lookups",
                          (json_int_t)n[SOAK_FAILED_LOOKUPS], "faults", (json_int_t)count_faults(n),
                          "one_row_us", one.p50_us, one.p99_us, one.longest_us, "256_rows_us",
                          many.p50_us, many.p99_us, many.longest_us, "longest_pause_ms",
                          pause.longest_us / 1e3, "calm", sample_json(&r->last), "log_lines",
                          (json_int_t)(lines - r->log_lines)));
        r->minute_start_ns = now_ns;
        r->log_lines = lines;
}

/* ---- Calms ---- */

#define EXCESS(now, before) ((now) > (before) ? (now) - (before) : 0)

void report_calm(struct report *r, const struct daemon_sample *s) {
        r->last = *s;
        if (!r->has_first)
                r->first = *s;
        r->has_first = true;
        if (!r->has_life)
                r->life = *s;
        r->has_life = true;
        r->worst.n_fds = MAX(r->worst.n_fds, EXCESS(s->n_fds, r->first.n_fds));
        r->worst.n_threads = MAX(r->worst.n_threads, EXCESS(s->n_threads, r->first.n_threads));
        r->worst.n_mappings = MAX(r->worst.n_mappings, EXCESS(s->n_mappings, r->first.n_mappings));
        r->worst.dirty_bytes =
                MAX(r->worst.dirty_bytes, EXCESS(s->dirty_bytes, r->life.dirty_bytes));
}

static uint64_t leaked_bytes(const struct report *r) {
        return r->judges_memory ? EXCESS(r->worst.dirty_bytes, r->tolerance_bytes) : 0;
}

/* ---- The verdict ---- */

static const char *const fault_names[] = { "daemon killed",  "daemon terminated", "files replaced",
                                           "files damaged",  "files truncated",   "clients killed",
                                           "clients stopped" };

static_assert(ARRAY_SIZE(fault_names) == SOAK_COUNTS - SOAK_DAEMON_KILLED, "");

static json_t *print_faults(const struct report *r) {
        json_t *faults = json_object();

        printf("# faults:");
        for (size_t i = 0; i < ARRAY_SIZE(fault_names); i++) {
                uint64_t n = count_of(r->soak, SOAK_DAEMON_KILLED + (enum soak_count)i);

                printf(" %s %" PRIu64 ",", fault_names[i], n);
                json_object_set_new(faults, fault_names[i], json_integer((json_int_t)n));
        }
        printf("\n# acts of hostile clients:");
        for (int kind = 0; kind < SCRIBBLER_N; kind++) {
                uint64_t n = r->soak->shared->acts[kind];

                printf(" %s %" PRIu64 "%s", scribbler_kind_name(kind), n,
                       kind + 1 < SCRIBBLER_N ? "," : "\n");
                json_object_set_new(faults, scribbler_kind_name(kind), json_integer((json_int_t)n));
        }
        return faults;
}

/* Over all minutes. */
static json_t *print_latency(const struct report *r, const char *name, enum soak_latency alone,
                             enum soak_latency beside) {
        const struct figures a = figures_of(r->soak, alone, NULL),
                             b = figures_of(r->soak, beside, NULL);
        double ratio = a.p99_us > 0 ? b.p99_us / a.p99_us : 0;

        printf("# %s: p50 %.1f us, p99 %.1f, max %.1f; alone %.1f, %.1f, %.1f; ratio of p99 %.1f "
               "(%u "
               "clients share %u CPUs)\n",
               name, b.p50_us, b.p99_us, b.longest_us, a.p50_us, a.p99_us, a.longest_us, ratio,
               SOAK_CLIENTS, cpu_count());
        return json_pack("{s[fff], s[fff], sf}", "us", b.p50_us, b.p99_us, b.longest_us, "alone_us",
                         a.p50_us, a.p99_us, a.longest_us, "p99_ratio", ratio);
}

struct verdict {
        uint32_t n;
        bool failed;
};

static void judge(struct verdict *v, bool good, const char *format, ...) _printf_(3, 4);

static void judge(struct verdict *v, bool good, const char *format, ...) {
        va_list args;

        printf("%sok %" PRIu32 " - ", good ? "" : "not ", ++v->n);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
        v->failed |= !good;
}

static bool judge_all(const struct report *r, const struct daemon_process *daemon) {
        const struct soak *s = r->soak;
        struct verdict v = { 0 };

        judge(&v, count_of(s, SOAK_ROWS) && !count_of(s, SOAK_WRONG_ROWS),
              "every row is right: %" PRIu64 " lookups, %" PRIu64 " rows, %" PRIu64 " wrong",
              count_of(s, SOAK_LOOKUPS), count_of(s, SOAK_ROWS), count_of(s, SOAK_WRONG_ROWS));
        judge(&v, !count_of(s, SOAK_FAILED_LOOKUPS),
              "no lookup fails: %" PRIu64 " failed; %" PRIu64
              " refused while the file was bad; %" PRIu64 " reconnections, %" PRIu64 " asked again",
              count_of(s, SOAK_FAILED_LOOKUPS), count_of(s, SOAK_RETIRED_LOOKUPS),
              count_of(s, SOAK_RECONNECTIONS), count_of(s, SOAK_RESUBMITTED));
        judge(&v, !daemon->n_faults && !count_of(s, SOAK_MEMORY_CUT),
              "the daemon ends only when it is told to: %" PRIu32
              " faults; longest start %.0f ms, end %.0f ms; %" PRIu64 " lines of log",
              daemon->n_faults, (double)daemon->longest_start_ns / 1e6,
              (double)daemon->longest_end_ns / 1e6, r->log_lines);
        judge(&v, !count_of(s, SOAK_DEAD_CLIENTS),
              "no client dies of anything else: %" PRIu64 " did, of %" PRIu64 " good and %" PRIu64
              " hostile",
              count_of(s, SOAK_DEAD_CLIENTS), count_of(s, SOAK_GOOD_CLIENTS),
              count_of(s, SOAK_HOSTILE_CLIENTS));
        judge(&v, !r->worst.n_fds && !r->worst.n_mappings && !r->worst.n_threads,
              "nothing leaks: %" PRIu32 " descriptors, %" PRIu32 " mappings, %" PRIu32
              " threads more than in the first calm",
              r->worst.n_fds, r->worst.n_mappings, r->worst.n_threads);
        if (r->judges_memory)
                judge(&v, !leaked_bytes(r),
                      "no memory leaks: %" PRIu64 " bytes; from calm to calm at most %" PRIu64
                      " more, of which %" PRIu64 " may be kept",
                      leaked_bytes(r), r->worst.dirty_bytes, r->tolerance_bytes);
        else
                printf("ok %" PRIu32 " - no memory leaks # SKIP the sanitizers keep freed memory, "
                       "and look for leaks themselves\n",
                       ++v.n);
        printf("1..%" PRIu32 "\n", v.n);
        return !v.failed;
}

bool report_verdict(struct report *r, const struct daemon_process *daemon, const char *json_path) {
        const struct soak *s = r->soak;
        json_t *faults = print_faults(r);
        json_t *one = print_latency(r, "one row", SOAK_ONE_ALONE, SOAK_ONE);
        json_t *many = print_latency(r, "256 rows", SOAK_MANY_ALONE, SOAK_MANY);
        bool good = judge_all(r, daemon);
        json_t *all = json_pack(
                "{sI, sf, sb, sI, sI, sI, sI, sI, sI, sI, sI, sI, sI, so, so, so, so, so, sO}",
                "seed", (json_int_t)s->seed, "seconds", (double)(clock_ns() - r->start_ns) / 1e9,
                "pass", good, "lookups", (json_int_t)count_of(s, SOAK_LOOKUPS), "rows",
                (json_int_t)count_of(s, SOAK_ROWS), "wrong_rows",
                (json_int_t)count_of(s, SOAK_WRONG_ROWS), "failed_lookups",
                (json_int_t)count_of(s, SOAK_FAILED_LOOKUPS), "refused_lookups",
                (json_int_t)count_of(s, SOAK_RETIRED_LOOKUPS), "reconnections",
                (json_int_t)count_of(s, SOAK_RECONNECTIONS), "resubmitted",
                (json_int_t)count_of(s, SOAK_RESUBMITTED), "daemon_faults",
                (json_int_t)daemon->n_faults, "leaked_bytes", (json_int_t)leaked_bytes(r),
                "tolerance_bytes", (json_int_t)r->tolerance_bytes, "first_calm",
                sample_json(&r->first), "most_above_it", sample_json(&r->worst), "faults", faults,
                "one_row", one, "256_rows", many, "minutes", r->minutes);

        if (json_path && json_dump_file(all, json_path, JSON_INDENT(1)) < 0)
                die("%s: cannot be written", json_path);
        json_decref(all);
        return good;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl stats --traffic: what memory moves for carvqd and for the whole machine while this
 * watches, by the hardware's counters, beside what carvqd counts itself. Two kinds of counters that
 * know nothing of each other; where both are there, each is a check of the other.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "sample.h"
#include "traffic.h"

/* Counters are read one after the other, so a part may seem a bit more than the whole. */
#define PART_MAX 1.1

struct traffic {
        struct traffic_mbm mbm;
        struct traffic_imc imc;
        struct fault no_mbm, no_imc;
        uint64_t mbm_bytes, read_bytes, written_bytes;
        double seconds;
        uint64_t table_lines, rows_bytes; /* counted by carvqd */
};

static void open_counters(struct traffic *t, pid_t daemon) {
        int r = traffic_mbm_open(&t->mbm, "/sys", &t->no_mbm);

        if (r >= 0 && traffic_mbm_add(&t->mbm, daemon, &t->no_mbm) < 0)
                traffic_mbm_close(&t->mbm);
        traffic_imc_open(&t->imc, "/sys", &t->no_imc);
}

static void read_counters(struct traffic *t) {
        if (t->mbm.group && traffic_mbm_read(&t->mbm, &t->mbm_bytes, &t->no_mbm) < 0)
                traffic_mbm_close(&t->mbm);
        if (t->imc.n &&
            traffic_imc_read(&t->imc, &t->read_bytes, &t->written_bytes, &t->no_imc) < 0)
                traffic_imc_close(&t->imc);
}

static void close_counters(struct traffic *t) {
        traffic_mbm_close(&t->mbm);
        traffic_imc_close(&t->imc);
}

/* All that tables were asked for so far. */
static int count(const struct carvqctl *ctl, uint64_t *ret_lines, uint64_t *ret_rows_bytes) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        const json_t *item;
        size_t i;
        int r;

        r = control_call(ctl, "GetStats", NULL, &reply);
        *ret_lines = *ret_rows_bytes = 0;
        json_array_foreach(field(reply, "tables"), i, item) {
                *ret_lines += field_number(item, "stats.counted.table_read_lines");
                *ret_rows_bytes += field_number(item, "stats.counted.arena_write_bytes");
        }
        return r;
}

/* These end the wait and not the process, which has a monitoring group to remove. */
static void block_signals(sigset_t *ret_signals) {
        sigemptyset(ret_signals);
        sigaddset(ret_signals, SIGINT);
        sigaddset(ret_signals, SIGTERM);
        sigaddset(ret_signals, SIGHUP);
        sigprocmask(SIG_BLOCK, ret_signals, NULL);
}

static void wait_for(double seconds, const sigset_t *signals) {
        const double whole = floor(seconds);
        const struct timespec time = { .tv_sec = (time_t)whole,
                                       .tv_nsec = (long)((seconds - whole) * 1e9) };

        sigtimedwait(signals, NULL, &time);
}

static int measure(const struct carvqctl *ctl, const sigset_t *signals, struct traffic *t) {
        uint64_t lines, rows_bytes;
        double start = monotonic_seconds();
        int r = count(ctl, &lines, &rows_bytes);

        if (r != EXIT_OK)
                return r;
        wait_for(ctl->seconds > 0 ? ctl->seconds : 1, signals);
        read_counters(t);
        r = count(ctl, &t->table_lines, &t->rows_bytes);
        /* A table that was unloaded meanwhile has taken its counts along. */
        t->table_lines -= MIN(lines, t->table_lines);
        t->rows_bytes -= MIN(rows_bytes, t->rows_bytes);
        t->seconds = monotonic_seconds() - start;
        return r;
}

static struct text by_second(const struct traffic *t, uint64_t bytes) {
        return format_bytes((uint64_t)((double)bytes / t->seconds));
}

/* carvqd's share of the machine's traffic; NAN where one of them is not known. */
static double part(const struct traffic *t) {
        const double all = (double)(t->read_bytes + t->written_bytes);

        return t->mbm.group && t->imc.n && all > 0 ? (double)t->mbm_bytes / all : NAN;
}

static void print(const struct traffic *t) {
        printf("memory traffic by the second, over %.1f s\n", t->seconds);
        printf("  asked for, all tables  %s of cache lines read, %s of rows written (counted)\n",
               by_second(t, t->table_lines * 64).text, by_second(t, t->rows_bytes).text);
        if (t->mbm.group)
                printf("  carvqd                 %s (measured by resctrl)\n",
                       by_second(t, t->mbm_bytes).text);
        else
                printf("  carvqd                 unavailable\n    (%s)\n", t->no_mbm.text);
        if (t->imc.n)
                printf("  machine                %s read, %s written (measured by its memory "
                       "controllers)\n",
                       by_second(t, t->read_bytes).text, by_second(t, t->written_bytes).text);
        else
                printf("  machine                unavailable\n    (%s)\n", t->no_imc.text);
        if (part(t) > PART_MAX)
                printf("  %sThe part is %.1f x the whole%s: one of the two counts wrongly.\n",
                       style(STYLE_ALARM), part(t), style(STYLE_PLAIN));
        else if (part(t) >= 0)
                printf("  carvqd moves %.0f %% of what the machine does\n", 100 * part(t));
}

static json_t *words(bool available, const struct fault *why) {
        return available ? json_null() : json_string(why->text);
}

static json_t *number(bool available, uint64_t n) {
        return available ? json_integer((json_int_t)n) : json_null();
}

static int print_as_json(const struct traffic *t) {
        const bool mbm = t->mbm.group, imc = t->imc.n;
        _cleanup_(json_decrefp) json_t *o = json_pack(
                "{sf, s{sI, sI}, s{so, so}, s{so, so, so}, so}", "seconds", t->seconds, "counted",
                "table_read_lines", (json_int_t)t->table_lines, "arena_write_bytes",
                (json_int_t)t->rows_bytes, "measured_carvqd", "bytes", number(mbm, t->mbm_bytes),
                "unavailable", words(mbm, &t->no_mbm), "measured_machine", "read_bytes",
                number(imc, t->read_bytes), "written_bytes", number(imc, t->written_bytes),
                "unavailable", words(imc, &t->no_imc), "carvqd_part",
                part(t) >= 0 ? json_real(part(t)) : json_null());

        return print_json(o);
}

int stats_traffic(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *status = NULL;
        struct traffic t = { 0 };
        sigset_t signals;
        int r;

        if (ctl->n_arguments) {
                complain("stats: --traffic is of the whole daemon, not of a table");
                return EXIT_USAGE;
        }
        r = control_call(ctl, "GetStatus", NULL, &status);
        if (r != EXIT_OK)
                return r;
        block_signals(&signals);
        open_counters(&t, (pid_t)field_number(status, "pid"));
        r = measure(ctl, &signals, &t);
        if (r == EXIT_OK && ctl->json)
                r = print_as_json(&t);
        else if (r == EXIT_OK)
                print(&t);
        close_counters(&t);
        return r;
}

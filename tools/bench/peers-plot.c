/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three panels: latency against batch for each kind of ids, and memory against clients. The data go
 * to a file of the work folder, the commands to gnuplot's standard input.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "bench.h"
#include "peers.h"

/* carvq in warm colours and thick lines, whoever it is compared with in cold ones. */
static const struct style {
        const struct peer *peer;
        const char *colour;
        unsigned point;
        double width;
} styles[] = {
        { &peer_npy_f32, "#9aa5b1", 6, 1.6 },        { &peer_npy_f16, "#52606d", 7, 1.6 },
        { &peer_lmdb, "#2b8a9e", 5, 1.6 },           { &peer_redis, "#5b6abf", 9, 1.6 },
        { &peer_direct, "#c2410c", 13, 2.6 },        { &peer_ring, "#f59e0b", 11, 2.6 },
        { &peer_ring_in_place, "#db5c8c", 15, 2.6 },
};

static const char head[] =
        "set encoding utf8\n"
        "set terminal svg size 1280,560 font 'Helvetica,13' background '#ffffff'\n"
        "set multiplot\n"
        "set label 1 at screen 0.5,0.965 center font ',19' noenhanced "
        "'Rows by id on one host'\n"
        "set label 2 at screen 0.5,0.915 center font ',12' tc rgb '#616e7c' noenhanced title\n"
        "set border 3 lc rgb '#7b8794' lw 1\n"
        "set tics nomirror out scale 0.6 tc rgb '#3e4c59'\n"
        "set grid ytics lt 1 lc rgb '#e4e7eb' lw 1\n"
        "set style fill solid 1.0 noborder\n"
        "unset key\n"
        "set tmargin at screen 0.81\n"
        "set bmargin at screen 0.24\n";

static const char latency_axes[] =
        "set logscale xy\n"
        "set xrange [0.7:5900]\n"
        "set xtics (1, 16, 256, '4,096' 4096)\n"
        "set ytics ('0.1' 0.1, 1, 10, 100, '1,000' 1e3, '10,000' 1e4, '100,000' 1e5)\n"
        "set ylabel 'time to deliver a batch, p50, µs' tc rgb '#3e4c59' offset 1\n"
        "set xlabel 'ids in a batch' tc rgb '#3e4c59'\n"
        "set yrange [lowest:highest]\n";

static const char memory_axes[] =
        "unset logscale\n"
        "set title 'Memory' font ',14' tc rgb '#1f2933'\n"
        "set lmargin at screen 0.775\n"
        "set rmargin at screen 0.985\n"
        "set xlabel 'clients' tc rgb '#3e4c59' offset 0,0.4\n"
        "set ylabel 'PSS of clients and server, MiB' tc rgb '#3e4c59' offset -0.5\n"
        "set yrange [0:*]\n"
        "set ytics auto format '%g'\n";

static const struct style *style_of(const struct peer *peer) {
        for (size_t i = 0; i < ARRAY_SIZE(styles); i++)
                if (styles[i].peer == peer)
                        return &styles[i];
        return &styles[0];
}

static void write_data(const struct peers_result *results, size_t n_results, const char *path) {
        FILE *f = fopen(path, "we");

        if (!f)
                die("%s: %s", path, strerror(errno));
        /* A block for each kind of ids, then memory; a column for each peer. */
        for (size_t kind = 0; kind < PEERS_IDS; kind++) {
                for (size_t b = 0; b < PEERS_BATCHES; b++) {
                        fprintf(f, "%zu", peers_batches[b]);
                        for (size_t i = 0; i < n_results; i++)
                                fprintf(f, " %.4f", results[i].cells[kind][b].p50_us);
                        fputc('\n', f);
                }
                fputs("\n\n", f);
        }
        for (size_t c = 0; c < PEERS_CLIENTS; c++) {
                fprintf(f, "%u", peers_clients[c]);
                for (size_t i = 0; i < n_results; i++)
                        fprintf(f, " %.2f", (double)results[i].pss_bytes[c] / (1 << 20));
                fputc('\n', f);
        }
        if (fclose(f))
                die("%s: %s", path, strerror(errno));
}

/* One y range for both, so that they can be compared. */
static void write_range(FILE *f, const struct peers_result *results, size_t n_results) {
        double low = 1e9, high = 0;

        for (size_t i = 0; i < n_results; i++)
                for (size_t kind = 0; kind < PEERS_IDS; kind++)
                        for (size_t b = 0; b < PEERS_BATCHES; b++) {
                                low = MIN(low, results[i].cells[kind][b].p50_us);
                                high = MAX(high, results[i].cells[kind][b].p50_us);
                        }
        fprintf(f, "lowest = %g\nhighest = %g\n", low * 0.6, high * 1.6);
}

/* For all panels, below them: gnuplot's own keys belong to one. */
static void write_legend(FILE *f, const struct peers_result *results, size_t n_results) {
        for (size_t i = 0; i < n_results; i++) {
                const struct style *s = style_of(results[i].peer);

                fprintf(f,
                        "set label %zu at screen %.4f,0.065 left noenhanced '%s' "
                        "tc rgb '#1f2933' point lt 1 lc rgb '%s' pt %u ps 0.9 offset 1\n",
                        10 + i, 0.06 + 0.92 * (double)i / (double)n_results, results[i].peer->name,
                        s->colour, s->point);
        }
}

static void write_latency(FILE *f, const struct peers_result *results, size_t n_results,
                          size_t kind) {
        static const char *const titles[PEERS_IDS] = { "Latency, uniform ids",
                                                       "Latency, Zipf(1.0) ids" };

        fprintf(f,
                "set title '%s' font ',14' tc rgb '#1f2933'\n"
                "set lmargin at screen %.3f\n"
                "set rmargin at screen %.3f\n",
                titles[kind], 0.075 + 0.32 * (double)kind, 0.375 + 0.32 * (double)kind);
        if (kind > 0) /* what stands once, or on the axis of the first */
                fputs("unset label\nunset ylabel\n"
                      "set ytics ('' 0.1, '' 1, '' 10, '' 100, '' 1e3, '' 1e4, '' 1e5)\n",
                      f);
        fputs("plot ", f);
        for (size_t i = 0; i < n_results; i++) {
                const struct style *s = style_of(results[i].peer);

                fprintf(f,
                        "%sdata index %zu using 1:%zu with linespoints lt 1 lc rgb '%s' lw %.1f "
                        "pt %u ps 0.75 notitle",
                        i ? ", " : "", kind, i + 2, s->colour, s->width, s->point);
        }
        fputc('\n', f);
}

/* Bars side by side around each count of clients, their height written on them. */
static void write_memory(FILE *f, const struct peers_result *results, size_t n_results) {
        double step = 1 / ((double)n_results + 1), first = -step * ((double)n_results - 1) / 2;

        fputs(memory_axes, f);
        fprintf(f, "set boxwidth %g\nset xrange [-0.55:%g]\nset xtics (", step * 0.86,
                PEERS_CLIENTS - 0.45);
        for (size_t c = 0; c < PEERS_CLIENTS; c++)
                fprintf(f, "%s'%u' %zu", c ? ", " : "", peers_clients[c], c);
        fputs(") scale 0\nplot ", f);
        for (size_t i = 0; i < n_results; i++) {
                double at = first + step * (double)i;

                fprintf(f,
                        "%sdata index %u using ($0 + %g):%zu with boxes lc rgb '%s' notitle, "
                        "data index %u using ($0 + %g):%zu:(sprintf('%%.0f', $%zu)) with labels "
                        "font ',9' offset 0,0.5 tc rgb '#3e4c59' notitle",
                        i ? ", " : "", PEERS_IDS, at, i + 2, style_of(results[i].peer)->colour,
                        PEERS_IDS, at, i + 2, i + 2);
        }
        fputc('\n', f);
}

static void write_commands(FILE *f, const struct peers_result *results, size_t n_results,
                           const char *title, const char *data, const char *path) {
        fprintf(f, "set output '%s'\ndata = '%s'\ntitle = '%s'\n", path, data, title);
        fputs(head, f);
        write_legend(f, results, n_results);
        write_range(f, results, n_results);
        fputs(latency_axes, f);
        for (size_t kind = 0; kind < PEERS_IDS; kind++)
                write_latency(f, results, n_results, kind);
        write_memory(f, results, n_results);
        fputs("unset multiplot\n", f);
}

bool peers_plot(const struct peers_result *results, size_t n_results, const char *title,
                const char *path, struct fault *ret_why) {
        char data[PATH_MAX];
        int status;
        FILE *f;

        if (strchr(path, '\'')) {
                fault_write(ret_why, "gnuplot cannot have a quote in a file's name");
                return false;
        }
        work_path("plot.dat", data, sizeof(data));
        write_data(results, n_results, data);
        signal(SIGPIPE, SIG_IGN); /* of a shell that finds no gnuplot */
        f = popen("command -v gnuplot >/dev/null || exit 127; exec gnuplot", "we");
        if (!f)
                die("popen: %s", strerror(errno));
        write_commands(f, results, n_results, title, data, path);
        status = pclose(f);
        if (status)
                fault_write(ret_why, "%s",
                            WEXITSTATUS(status) == 127
                                    ? "gnuplot is not installed (Debian: gnuplot-nox)"
                                    : "gnuplot failed");
        return !status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-ring: the same lookups in-process and through carvqd's rings, in turn, in one run: latency
 * of one row, rows a second of batches. Prints both sides and their ratio; absolute times drift
 * with the machine.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lib/carvq.h"
#include "proto/base.h"
#include "proto/spin.h"

#define N_WARM 200u
#define BATCH  256u

static const char usage[] =
        "Usage: bench-ring [--socket PATH] [--lookups N] [--seed S] TABLE FILE\n"
        "Times lookups of TABLE through carvqd against FILE decoded in-process.\n";

static uint64_t random_state;

static uint64_t next_random(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state;
}

static int by_value(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

struct timing {
        double p50_us, p99_us, rows_per_s;
};

/* `n` lookups of `batch` ids, after a warm-up. */
static int time_lookups(carvq_table *table, uint64_t n_rows, size_t batch, size_t n, uint64_t *ns,
                        float *rows, size_t rows_bytes, struct timing *ret) {
        uint64_t ids[BATCH], total = 0;

        for (size_t i = 0; i < n + N_WARM; i++) {
                uint64_t start;
                int r;

                for (size_t k = 0; k < batch; k++)
                        ids[k] = next_random() % n_rows;
                start = clock_ns();
                r = carvq_lookup(table, ids, batch, NULL, rows, rows_bytes);
                if (r < 0) {
                        fprintf(stderr, "bench-ring: %s\n", carvq_table_error(table));
                        return r;
                }
                if (i >= N_WARM)
                        total += ns[i - N_WARM] = clock_ns() - start;
        }
        qsort(ns, n, sizeof(*ns), by_value);
        *ret = (struct timing){ ns[n / 2] / 1e3, ns[n * 99 / 100] / 1e3,
                                batch * n / (total / 1e9) };
        return 0;
}

static void print_line(const char *what, const struct timing *direct, const struct timing *ring,
                       bool rate) {
        if (rate)
                printf("%-28s %12.0f %12.0f  %.2f\n", what, direct->rows_per_s, ring->rows_per_s,
                       ring->rows_per_s / direct->rows_per_s);
        else
                printf("%-28s %12.2f %12.2f  %+.2f us\n", what, direct->p50_us, ring->p50_us,
                       ring->p50_us - direct->p50_us);
}

static int run(carvq_table *direct, carvq_table *ring, const struct carvq_table_info *info,
               size_t n) {
        size_t bytes = BATCH * (size_t)info->n_dims * sizeof(float);
        _cleanup_(freep) uint64_t *ns = calloc(n, sizeof(*ns));
        _cleanup_(freep) float *rows = malloc(bytes);
        struct timing one[2], many[2];
        struct utsname u;

        if (!ns || !rows)
                return -ENOMEM;
        uname(&u);
        printf("table %" PRIu64 " x %" PRIu32
               ", %s; in-process kernels %s; %s, Linux %s, %ld cores; warm\n",
               info->n_rows, info->n_dims, info->codec_name, info->kernel, u.machine, u.release,
               sysconf(_SC_NPROCESSORS_ONLN));
        if (time_lookups(direct, info->n_rows, 1, n, ns, rows, bytes, &one[0]) < 0 ||
            time_lookups(ring, info->n_rows, 1, n, ns, rows, bytes, &one[1]) < 0 ||
            time_lookups(direct, info->n_rows, BATCH, n / 16 + 1, ns, rows, bytes, &many[0]) < 0 ||
            time_lookups(ring, info->n_rows, BATCH, n / 16 + 1, ns, rows, bytes, &many[1]) < 0)
                return -EIO;
        printf("%-28s %12s %12s\n", "", "in-process", "through ring");
        print_line("1 row, p50, us", &one[0], &one[1], false);
        one[0].p50_us = one[0].p99_us;
        one[1].p50_us = one[1].p99_us;
        print_line("1 row, p99, us", &one[0], &one[1], false);
        print_line("256 rows, p50, us", &many[0], &many[1], false);
        print_line("256 rows, rows/s", &many[0], &many[1], true);
        return 0;
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "socket", required_argument, NULL, 's' },
                { "lookups", required_argument, NULL, 'n' },
                { "seed", required_argument, NULL, 'S' },
                { "help", no_argument, NULL, 'h' },
                { 0 },
        };
        struct carvq_connect_options co = { .size = sizeof(co), .name = "bench-ring" };
        struct carvq_table_info info = { .size = sizeof(info) };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *direct = NULL, *ring = NULL;
        carvq_client *client = NULL;
        size_t n = 20000;
        int opt, r;

        random_state = 88172645463325252u;
        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 's')
                        co.socket_path = optarg;
                else if (opt == 'n')
                        n = MAX(strtoull(optarg, NULL, 0), 16u);
                else if (opt == 'S')
                        random_state = strtoull(optarg, NULL, 0) | 1;
                else {
                        fputs(usage, opt == 'h' ? stdout : stderr);
                        return opt == 'h' ? 0 : 2;
                }
        if (argc - optind != 2) {
                fputs(usage, stderr);
                return 2;
        }
        r = carvq_connect(&co, &client, message);
        if (r >= 0)
                r = carvq_file_open(argv[optind + 1], NULL, &direct, message);
        if (r < 0)
                fprintf(stderr, "bench-ring: %s\n", message);
        else if ((r = carvq_table_open(client, argv[optind], &ring)) < 0)
                fprintf(stderr, "bench-ring: %s\n", carvq_client_error(client));
        else {
                carvq_table_info(direct, &info);
                r = run(direct, ring, &info, n);
        }
        carvq_table_close(direct);
        carvq_client_free(client);
        return r < 0 ? 3 : 0;
}

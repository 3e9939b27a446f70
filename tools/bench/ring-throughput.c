/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows a second of one to many clients, each a process of its own that waits for one batch before
 * it asks for the next, and of as many processes that decode for themselves. They wait for one
 * another at a gate, run for a while, and put what they did into shared memory.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "ring-bench.h"

#define N_IDS 65536u /* drawn beforehand: of each client */

static const uint32_t counts[RING_COUNTS] = { 1, 2, 4, 8, 64 };

/* Of one client, in memory shared with the bench. */
struct share {
        _Alignas(128) uint64_t n_rows;
        uint64_t start_ns, end_ns;
};

struct cell {
        const struct ring_bench *bench;
        uint32_t batch, n_clients;
        uint64_t spin_ns;
        bool direct;
        struct share *shares;
        int ready_fds[2], gate_fds[2];
};

static void run_client(const struct cell *c, uint32_t index) {
        const struct ring_bench *b = c->bench;
        uint64_t random = b->seed + 1000 * (index + 1), *ids = allocate(N_IDS, sizeof(*ids)),
                 end_ns;
        float *rows = c->direct ? allocate_pages(c->batch * b->n_dims * sizeof(*rows)) : NULL;
        struct share *share = &c->shares[index];
        carvq_client *client = NULL;
        carvq_table *table;
        char byte;

        if (c->direct)
                table = ring_open_direct(b);
        else
                ring_connect(b, c->spin_ns, &client, &table);
        for (size_t i = 0; i < N_IDS; i++)
                ids[i] = random_next(&random) % b->n_rows;
        *share = (struct share){ 0 };
        for (uint32_t first = 0, n = 0;; first = (first + c->batch) % N_IDS, n++) {
                if (n == 2) { /* warm: pages are there */
                        if (write(c->ready_fds[1], "", 1) != 1 || read(c->gate_fds[0], &byte, 1))
                                die("gate: %s", strerror(errno));
                        share->start_ns = clock_ns();
                        end_ns = share->start_ns + b->cell_ms * 1000000;
                }
                if (!c->direct)
                        ring_lookup(client, table, ids + first, c->batch);
                else if (carvq_lookup(table, ids + first, c->batch, NULL, rows,
                                      c->batch * b->n_dims * sizeof(*rows)) < 0)
                        die("%s", carvq_table_error(table));
                if (n < 2)
                        continue;
                share->n_rows += c->batch;
                share->end_ns = clock_ns();
                if (share->end_ns >= end_ns)
                        break;
        }
        _exit(0);
}

static void fork_clients(const struct cell *c, pid_t *ret_pids) {
        const pid_t parent = getpid();

        for (uint32_t i = 0; i < c->n_clients; i++) {
                ret_pids[i] = fork();
                if (ret_pids[i] < 0)
                        die("fork: %s", strerror(errno));
                if (ret_pids[i])
                        continue;
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(c->ready_fds[0]);
                close(c->gate_fds[1]);
                if (getppid() == parent)
                        run_client(c, i);
                _exit(3);
        }
}

/* Rows a second of all, from the first start to the last end. */
static double run_cell(struct cell *c) {
        uint64_t n_rows = 0, start_ns = UINT64_MAX, end_ns = 0;
        pid_t pids[RING_CLIENTS_MAX];
        char byte;

        if (pipe2(c->ready_fds, O_CLOEXEC) < 0 || pipe2(c->gate_fds, O_CLOEXEC) < 0)
                die("pipe: %s", strerror(errno));
        fork_clients(c, pids);
        close(c->ready_fds[1]);
        for (uint32_t i = 0; i < c->n_clients; i++)
                if (read(c->ready_fds[0], &byte, 1) != 1)
                        die("a client ended before its time");
        close(c->gate_fds[1]); /* all at once */
        for (uint32_t i = 0; i < c->n_clients; i++) {
                int status;

                if (waitpid(pids[i], &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
                        die("a client failed");
                n_rows += c->shares[i].n_rows;
                start_ns = MIN(start_ns, c->shares[i].start_ns);
                end_ns = MAX(end_ns, c->shares[i].end_ns);
        }
        close(c->ready_fds[0]);
        close(c->gate_fds[0]);
        return (double)n_rows / ((double)(end_ns - start_ns) / 1e9);
}

static void judge(json_t *outcome, uint32_t batch, const double *rates) {
        double best = 0, last = rates[RING_COUNTS - 1];
        char measure[64];

        for (size_t i = 0; i < RING_COUNTS; i++)
                best = MAX(best, rates[i]);
        snprintf(measure, sizeof(measure),
                 "ring, batches of %" PRIu32 ", 64 clients against the best", batch);
        outcome_target(outcome, &(struct outcome_target){
                                        .measure = measure,
                                        .target = "at least 0.9 x",
                                        .value = last / best,
                                        .unit = "x",
                                        .limit = 0.9,
                                        .at_least = true,
                                        .sides = { { "64 clients", last, "rows/s" },
                                                   { "best count", best, "rows/s" } },
                                });
}

/* Best of the rounds; ring and in-process take turns. */
static void measure(struct cell *c, double *ret_ring, double *ret_direct) {
        *ret_ring = *ret_direct = 0;
        for (uint64_t round = 0; round < c->bench->n_rounds; round++)
                for (int direct = 0; direct < 2; direct++) {
                        double *best = direct ? ret_direct : ret_ring, rate;

                        c->direct = direct;
                        rate = run_cell(c);
                        *best = MAX(*best, rate);
                }
}

void ring_throughput(const struct ring_bench *bench, const char *state, uint64_t spin_ns,
                     json_t *outcome) {
        json_t *lines = json_object_get(outcome, "throughput");
        struct cell c = { .bench = bench, .spin_ns = spin_ns };

        if (!bench->cell_ms)
                return;
        c.shares = mmap(NULL, RING_CLIENTS_MAX * sizeof(*c.shares), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (c.shares == MAP_FAILED)
                die("mmap: %s", strerror(errno));
        printf("\nthousand rows a second of all clients, ring / in-process, %s\n%6s", state,
               "batch");
        for (size_t i = 0; i < RING_COUNTS; i++)
                printf("  %10" PRIu32 " client%s", counts[i], counts[i] > 1 ? "s" : " ");
        putchar('\n');
        for (size_t i = 0; i < RING_BATCHES; i++) {
                double ring[RING_COUNTS], direct[RING_COUNTS];

                c.batch = ring_batches[i];
                if (bench->only_batch && bench->only_batch != c.batch)
                        continue;
                printf("%6" PRIu32, c.batch);
                for (size_t k = 0; k < RING_COUNTS; k++) {
                        c.n_clients = counts[k];
                        if (bench->only_clients && bench->only_clients != c.n_clients)
                                continue;
                        measure(&c, &ring[k], &direct[k]);
                        printf("  %8.0f / %7.0f", ring[k] / 1e3, direct[k] / 1e3);
                        fflush(stdout);
                        json_array_append_new(lines, json_pack("{ss, si, si, sf, sf}", "state",
                                                               state, "batch", (int)c.batch,
                                                               "clients", (int)c.n_clients,
                                                               "ring_rows_per_s", ring[k],
                                                               "in_process_rows_per_s", direct[k]));
                }
                putchar('\n');
                if (!strcmp(state, "awake") && !bench->only_clients)
                        judge(outcome, c.batch, ring);
        }
        munmap(c.shares, RING_CLIENTS_MAX * sizeof(*c.shares));
}

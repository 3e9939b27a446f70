/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the service at its default socket, steered by a script.
 *   client lookup TABLE
 *       one lookup
 *   client drain TABLE
 *       says "open"; after a line on stdin fills the ring with lookups and says "submitted";
 * expects an answer to each and says "answered"; then waits for the end of the daemon: "drained"
 *   client load TABLE FILE N
 *       N processes look rows up and compare them with the file's; says "open" when all do, and
 *       after a line on stdin how many lookups there were and what the longest took
 *   client insult
 *       sends what the protocol forbids
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "carvq.h"

#define N_LOOKUPS 16
#define N_IDS     4096

static carvq_client *client;
static carvq_table *table;

static int open_table(const char *name, bool no_reconnect) {
        const struct carvq_connect_options options = { .size = sizeof(options),
                                                       .no_reconnect = no_reconnect };
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        r = carvq_connect(&options, &client, message);
        if (r >= 0) {
                r = carvq_table_open(client, name, &table);
                if (r < 0)
                        snprintf(message, sizeof(message), "%s", carvq_client_error(client));
        }
        if (r < 0)
                fprintf(stderr, "client: %s: %s\n", carvq_strerror(r), message);
        return r;
}

static int lookup(void) {
        static float row[65536];
        int r = carvq_lookup(table, (uint64_t[]){ 1 }, 1, NULL, row, sizeof(row));

        if (r < 0)
                fprintf(stderr, "client: %s\n", carvq_strerror(r));
        return r;
}

static int drain(void) {
        static uint64_t ids[N_IDS];
        carvq_ticket tickets[N_LOOKUPS];
        struct carvq_rows rows;
        char line[16];
        int r;

        puts("open");
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin))
                return -EPIPE;
        for (int i = 0; i < N_LOOKUPS; i++) {
                r = carvq_submit(table, ids, N_IDS, NULL, &tickets[i]);
                if (r < 0)
                        return r;
        }
        puts("submitted");
        fflush(stdout);
        for (int i = 0; i < N_LOOKUPS; i++) {
                r = carvq_wait(client, tickets[i], 0, &rows);
                if (r < 0 || rows.n_rows != N_IDS) {
                        fprintf(stderr, "client: lookup %d: %s\n", i, carvq_strerror(r));
                        return -EIO;
                }
                carvq_release(client, tickets[i]);
        }
        puts("answered");
        fflush(stdout);
        do /* until the end is there */
                r = lookup();
        while (r >= 0);
        fprintf(stderr, "client: %s\n", carvq_client_error(client));
        puts("drained");
        return r == -ECONNRESET ? 0 : r;
}

/* ---- Load, across restarts ---- */

#define PROCESSES_MAX 16
#define LOAD_IDS      32

/* Of one process, in memory shared with the first one. */
static struct share { _Atomic unsigned long n_lookups, longest_ns; } * shares;

static unsigned long now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (unsigned long)t.tv_sec * 1000000000 + (unsigned long)t.tv_nsec;
}

/* Until it is killed; returns only with an error. */
static int look_up_for_ever(const char *path, struct share *share) {
        struct carvq_table_info info = { .size = sizeof(info) };
        char message[CARVQ_MESSAGE_BYTES] = "";
        uint64_t ids[LOAD_IDS] = { 0 };
        carvq_table *file;
        size_t bytes;
        float *rows, *expected;
        int r;

        r = carvq_file_open(path, NULL, &file, message);
        if (r < 0)
                fprintf(stderr, "client: %s\n", message);
        if (r < 0 || carvq_table_info(table, &info) < 0)
                return -1;
        bytes = LOAD_IDS * info.n_dims * sizeof(float);
        rows = malloc(bytes);
        expected = malloc(bytes);
        while (rows && expected) {
                unsigned long start_ns = now_ns();

                for (size_t i = 0; i < LOAD_IDS; i++)
                        ids[i] = (ids[i] * 69069 + i + 1) % info.n_rows;
                r = carvq_lookup(table, ids, LOAD_IDS, NULL, rows, bytes);
                start_ns = now_ns() - start_ns;
                if (r < 0 || carvq_lookup(file, ids, LOAD_IDS, NULL, expected, bytes) < 0 ||
                    memcmp(rows, expected, bytes) != 0) {
                        fprintf(stderr, "client: %s\n",
                                r < 0 ? carvq_client_error(client) : "wrong rows");
                        return -1;
                }
                if (start_ns > share->longest_ns)
                        share->longest_ns = start_ns;
                share->n_lookups++;
        }
        return -1;
}

static int load(const char *name, const char *path, int n) {
        unsigned long n_lookups = 0, longest_ns = 0;
        pid_t pids[PROCESSES_MAX];
        char line[16];

        shares = mmap(NULL, sizeof(*shares) * PROCESSES_MAX, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shares == MAP_FAILED || n < 1 || n > PROCESSES_MAX)
                return -EINVAL;
        for (int i = 0; i < n; i++) {
                pids[i] = fork();
                if (pids[i] == 0)
                        _exit(open_table(name, true) < 0 || look_up_for_ever(path, &shares[i]) < 0);
        }
        for (int i = 0; i < n; i++)
                while (!shares[i].n_lookups && !waitpid(-1, NULL, WNOHANG))
                        usleep(1000);
        puts("open");
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin))
                return -EPIPE;
        for (int i = 0; i < n; i++) {
                /* Nobody may have left. */
                if (waitpid(pids[i], NULL, WNOHANG) != 0)
                        return -EIO;
                kill(pids[i], SIGKILL);
                waitpid(pids[i], NULL, 0);
                n_lookups += shares[i].n_lookups;
                if (shares[i].longest_ns > longest_ns)
                        longest_ns = shares[i].longest_ns;
        }
        printf("%lu lookups of %d processes, the longest took %.1f ms\n", n_lookups, n,
               (double)longest_ns / 1e6);
        return 0;
}

static int insult(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX,
                                       .sun_path = "/run/carvq/carvqd.sock" };
        char packet[512] = "This is not a greeting";
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        (void)send(fd, packet, sizeof(packet), 0);
        while (recv(fd, packet, sizeof(packet), 0) > 0)
                ;
        return 0;
}

int main(int argc, char **argv) {
        bool drains = argc == 3 && !strcmp(argv[1], "drain");

        if (argc == 2 && !strcmp(argv[1], "insult"))
                return insult() < 0;
        if (argc == 5 && !strcmp(argv[1], "load"))
                return load(argv[2], argv[3], atoi(argv[4])) < 0;
        if (argc != 3 || open_table(argv[2], drains) < 0)
                return 1;
        return (drains ? drain() : lookup()) < 0;
}

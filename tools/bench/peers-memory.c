/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer takes on the host: the proportional set sizes of the clients and their server, so
 * that a page that several map, of the page cache or of a ring, counts once in the sum. Clients are
 * forked and open the peer themselves; the parent has none of its memory mapped.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "bench.h"
#include "peers.h"

#define BATCH       256u
#define CLIENTS_MAX 16u

const unsigned peers_clients[PEERS_CLIENTS] = { 1, 8 };

/* Reads every row once, says so, and stays until it is killed. */
_Noreturn static void be_client(struct peer_world *world, const struct peer *peer, int ready_fd) {
        void *handle = peer->open(world), *buffer = allocate_pages(BATCH * world->row_bytes);
        uint64_t ids[BATCH];
        struct peer_rows rows;

        for (uint64_t first = 0; first < world->n_rows; first += BATCH) {
                for (size_t i = 0; i < BATCH; i++)
                        ids[i] = (first + i) % world->n_rows;
                peer->get(handle, ids, BATCH, buffer, &rows);
        }
        if (write(ready_fd, "", 1) != 1)
                _exit(1);
        for (;;)
                pause();
}

static uint64_t pss_of(pid_t pid) {
        char path[64], line[128];
        uint64_t kib = 0;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
        f = fopen(path, "re");
        if (!f)
                die("%s: %s", path, strerror(errno));
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "Pss: %" SCNu64, &kib) == 1)
                        break;
        fclose(f);
        return kib * 1024;
}

static uint64_t measure(const struct peer *peer, const pid_t *clients, unsigned n_clients,
                        int ready_fd) {
        uint64_t bytes = 0;
        char byte;

        for (unsigned i = 0; i < n_clients; i++)
                if (read(ready_fd, &byte, 1) != 1)
                        die("%s: a client failed", peer->name);
        for (unsigned i = 0; i < n_clients; i++)
                bytes += pss_of(clients[i]);
        return bytes + (peer->server ? pss_of(peer->server()) : 0);
}

uint64_t peers_memory(struct peer_world *world, const struct peer *peer, unsigned n_clients) {
        pid_t clients[CLIENTS_MAX];
        uint64_t bytes;
        int fds[2];

        fflush(NULL);
        if (n_clients > CLIENTS_MAX || pipe2(fds, O_CLOEXEC) < 0)
                die("pipe: %s", strerror(errno));
        for (unsigned i = 0; i < n_clients; i++) {
                clients[i] = fork();
                if (clients[i] < 0)
                        die("fork: %s", strerror(errno));
                if (clients[i] == 0) {
                        close(fds[0]);
                        be_client(world, peer, fds[1]);
                }
                keep_child(clients[i]);
        }
        close(fds[1]); /* so that the pipe ends if all clients do */
        bytes = measure(peer, clients, n_clients, fds[0]);
        close(fds[0]);
        for (unsigned i = 0; i < n_clients; i++) {
                kill(clients[i], SIGKILL);
                waitpid(clients[i], NULL, 0);
                forget_child(clients[i]);
        }
        return bytes;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the service at its default socket, steered by a script.
 *   client lookup TABLE   one lookup
 *   client drain TABLE    says "open"; after a line on stdin fills the ring with lookups and says
 * "submitted"; expects an answer to each and then the daemon's farewell client insult         sends
 * what the protocol forbids
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "carvq.h"

#define N_LOOKUPS 16
#define N_IDS     4096

static carvq_client *client;
static carvq_table *table;

static int open_table(const char *name) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        r = carvq_connect(NULL, &client, message);
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
        do /* until the farewell is there */
                r = lookup();
        while (r >= 0);
        fprintf(stderr, "client: %s\n", carvq_client_error(client));
        puts("drained");
        return r == -ECONNRESET ? 0 : r;
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
        if (argc == 2 && !strcmp(argv[1], "insult"))
                return insult() < 0;
        if (argc != 3 || open_table(argv[2]) < 0)
                return 1;
        return (strcmp(argv[1], "drain") ? lookup() : drain()) < 0;
}

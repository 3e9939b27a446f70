/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq, by its public interface: decoded by the caller; through a carvqd of the bench's own, into
 * the caller's buffer like everybody else's rows; and the same with the rows left where the daemon
 * put them, in the caller's arena, which nobody else can offer.
 */
#include <string.h>

#include "bench.h"
#include "lib/carvq.h"
#include "peer.h"
#include "private-daemon.h"

#define TABLE_NAME "rows"

struct carvq_peer {
        struct peer_world *world;
        carvq_client *client; /* NULL: direct */
        carvq_table *table;
        carvq_ticket ticket; /* whose rows are out; 0: none */
};

static struct private_daemon daemon_;
static unsigned n_daemon_users;

/* ---- Direct ---- */

static bool set_up_direct(struct peer_world *world, struct fault *ret_why) {
        (void)world;
        (void)ret_why;
        return true;
}

static void *open_direct(struct peer_world *world) {
        struct carvq_peer *p = allocate(1, sizeof(*p));
        char message[CARVQ_MESSAGE_BYTES] = "";

        p->world = world;
        if (carvq_file_open(world->table_path, NULL, &p->table, message) < 0)
                die("%s", message);
        return p;
}

static void get_by_lookup(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                          struct peer_rows *ret_rows) {
        struct carvq_peer *p = handle;
        struct carvq_lookup_options o = { .size = sizeof(o), .type = p->world->type };

        if (carvq_lookup(p->table, ids, n_ids, &o, buffer, n_ids * p->world->row_bytes) < 0)
                die("%s", carvq_table_error(p->table));
        *ret_rows = (struct peer_rows){ buffer, p->world->row_bytes };
}

static void close_peer(void *handle) {
        struct carvq_peer *p = handle;

        if (p->client)
                carvq_client_free(p->client);
        else
                carvq_table_close(p->table);
        free(p);
}

static void tear_down_direct(void) {
}

const struct peer peer_direct = {
        .name = "carvq direct",
        .set_up = set_up_direct,
        .open = open_direct,
        .get = get_by_lookup,
        .close = close_peer,
        .tear_down = tear_down_direct,
};

/* ---- Ring: one daemon for both ---- */

static bool set_up_ring(struct peer_world *world, struct fault *ret_why) {
        (void)ret_why;
        if (n_daemon_users++ == 0)
                private_daemon_start(&daemon_, TABLE_NAME, world->table_path);
        return true;
}

static void tear_down_ring(void) {
        if (--n_daemon_users == 0)
                private_daemon_stop(&daemon_);
}

static pid_t server(void) {
        return daemon_.pid;
}

static void *open_ring(struct peer_world *world) {
        struct carvq_connect_options co = { .size = sizeof(co),
                                            .socket_path = daemon_.socket_path,
                                            .no_reconnect = 1 };
        struct carvq_peer *p = allocate(1, sizeof(*p));
        char message[CARVQ_MESSAGE_BYTES] = "";

        p->world = world;
        if (carvq_connect(&co, &p->client, message) < 0)
                die("%s", message);
        if (carvq_table_open(p->client, TABLE_NAME, &p->table) < 0)
                die("%s", carvq_client_error(p->client));
        return p;
}

static void get_in_place(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                         struct peer_rows *ret_rows) {
        struct carvq_peer *p = handle;
        struct carvq_lookup_options o = { .size = sizeof(o), .type = p->world->type };
        struct carvq_rows rows;

        (void)buffer;
        if (p->ticket)
                carvq_release(p->client, p->ticket);
        if (carvq_submit(p->table, ids, n_ids, &o, &p->ticket) < 0 ||
            carvq_wait(p->client, p->ticket, 0, &rows) < 0)
                die("%s", carvq_client_error(p->client));
        *ret_rows = (struct peer_rows){ rows.rows, rows.row_stride_bytes };
}

const struct peer peer_ring = {
        .name = "carvq ring",
        .set_up = set_up_ring,
        .open = open_ring,
        .get = get_by_lookup,
        .close = close_peer,
        .tear_down = tear_down_ring,
        .server = server,
};

const struct peer peer_ring_in_place = {
        .name = "carvq ring, in place",
        .set_up = set_up_ring,
        .open = open_ring,
        .get = get_in_place,
        .close = close_peer,
        .tear_down = tear_down_ring,
        .server = server,
};

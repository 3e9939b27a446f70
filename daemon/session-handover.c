/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a session passes from a daemon that ends to the one that comes after it; see session.h. Its
 * descriptors go by way of the service manager (handover.c, takeover.c). Loop thread.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "handover-state.h"
#include "proto/spin.h"
#include "session-impl.h"

/* ---- The daemon that ends ---- */

void session_hold(struct session *s) {
        if (s->info.state != SESSION_READY) {
                session_dismiss(s);
                return;
        }
        if (!s->holding) {
                s->holding = true;
                /* Ends without a message or with one, which is then answered. */
                loop_cancel(s->daemon->loop, &s->receive_op);
        }
        if (s->receiving || s->n_changes)
                return;
        if (!s->attached) {
                daemon_stop_if_done(s->daemon);
        } else if (!s->detaching) {
                s->detaching = true;
                worker_detach(&s->seat, WORKER_FINISH);
        }
}

bool session_is_held(const struct session *s) {
        return s->info.state == SESSION_READY && s->holding && !s->receiving && !s->n_changes &&
               !s->attached;
}

bool session_is_leaving(const struct session *s) {
        return s->leaving;
}

/* One of which a taken submission is lost, or of which the next daemon could not map a table, is
 * better told so. */
int session_describe(const struct session *s, struct handover_session *ret_record,
                     struct handover_use *ret_uses, struct session_descriptors *ret_descriptors) {
        const struct ring_server *ring = &s->seat.seat.ring;
        struct handover_session record = {
                .id = s->info.id,
                .features = s->info.features,
                .last_nonce = s->last_nonce,
                .connected_ns = s->info.connected_ns,
                .geometry = ring->layout.geometry,
                .sq_head = ring->sq_head,
                .cq_tail = ring->cq_tail,
                .wait_answered = ring->wait_answered,
        };

        if (s->seat.cut)
                return -ESTALE;
        for (uint32_t i = 0; i < WIRE_TABLES_MAX; i++) {
                if (!s->handles[i])
                        continue;
                if (s->tables[i]->handover_index == STORE_NOT_HANDED_OVER)
                        return -ESTALE;
                ret_uses[record.n_uses++] = (struct handover_use){
                        .handle = s->handles[i],
                        .table = s->tables[i]->handover_index,
                };
        }
        memcpy(record.name, s->info.name, sizeof(record.name));
        *ret_record = record;
        *ret_descriptors = (struct session_descriptors){
                .socket = s->fd,
                .memfd = s->memfd,
                .doorbell = s->seat.doorbell_fd,
        };
        return 0;
}

/* Without a shutdown(), which would end the connection for all who have the socket. */
void session_abandon(struct session *s) {
        s->info.state = SESSION_CLOSING;
        session_settle(s);
}

/* ---- The one that comes after it ---- */

/* An eventfd has no file type; pipes, sockets and files have one. */
static bool is_doorbell(int fd) {
        struct stat st;
        int flags = fcntl(fd, F_GETFL);

        return flags >= 0 && (flags & O_NONBLOCK) && fstat(fd, &st) >= 0 &&
               (st.st_mode & S_IFMT) == 0;
}

/* Its user's quota, by the limits that hold now; it has had its handshake. */
static enum wire_status take_quota(struct session *s, const struct handover_session *record,
                                   const struct ring_layout *layout, char text[WIRE_TEXT_BYTES]) {
        struct quota *quota = &s->daemon->quota;
        struct fault fault = { 0 };
        int r = quota_enter_again(quota, s->info.uid, clock_ns(), &s->quota, &fault);

        if (r >= 0 && session_take_ring(s, layout, text) != WIRE_OK)
                return WIRE_LIMIT;
        if (r >= 0)
                r = quota_take(quota, &s->quota, QUOTA_TABLES, record->n_uses, &fault);
        if (r < 0)
                snprintf(text, WIRE_TEXT_BYTES, "%.255s", fault.text);
        return r >= 0 ? WIRE_OK : r == -EDQUOT ? WIRE_LIMIT : WIRE_INTERNAL;
}

static enum wire_status check_limits(const struct session *s, const struct handover_session *record,
                                     char text[WIRE_TEXT_BYTES]) {
        if (s->daemon->n_sessions > s->daemon->config.max_sessions) {
                snprintf(text, WIRE_TEXT_BYTES,
                         "%" PRIu32 " sessions are open already (max-sessions)",
                         s->daemon->n_sessions - 1);
                return WIRE_LIMIT;
        }
        if (record->features & ~WIRE_FEATURES_KNOWN) {
                snprintf(text, WIRE_TEXT_BYTES,
                         "the session has features 0x%" PRIx64 ", this daemon has 0x%" PRIx64,
                         record->features, WIRE_FEATURES_KNOWN);
                return WIRE_VERSION;
        }
        return WIRE_OK;
}

/* Whoever may not open a table now does not keep it either. */
static enum wire_status adopt_tables(struct session *s, const struct handover_session *record,
                                     const struct handover_use *uses,
                                     struct store_table *const *tables,
                                     char text[WIRE_TEXT_BYTES]) {
        const struct ring_cache_use *cache_use = s->seat.seat.ring.cache_use;

        for (uint32_t k = 0; k < record->n_uses; k++) {
                uint32_t i = (uint32_t)(uses[k].handle % WIRE_TABLES_MAX);
                struct store_table *table = tables[uses[k].table];

                if (!table) {
                        snprintf(text, WIRE_TEXT_BYTES,
                                 "a table of this session cannot be read after the restart");
                        return WIRE_INTERNAL;
                }
                if (!session_may_use(s, table, text))
                        return WIRE_DENIED;
                store_use(table);
                s->tables[i] = table;
                s->handles[i] = uses[k].handle;
                s->seat.seat.slots[i] =
                        (struct serve_slot){ .handle = uses[k].handle, .table = table };
                s->n_hits[i] = atomic_load_explicit(&cache_use->n_hits[i], memory_order_relaxed);
                s->info.n_tables++;
        }
        s->seat.seat.n_hints = atomic_load_explicit(&cache_use->n_hints, memory_order_relaxed);
        return WIRE_OK;
}

static enum wire_status adopt(struct session *s, const struct handover_session *record,
                              const struct handover_use *uses, struct store_table *const *tables,
                              char text[WIRE_TEXT_BYTES]) {
        struct ring_server *ring = &s->seat.seat.ring;
        struct fault fault = { 0 };
        struct ring_layout layout;
        enum wire_status status;

        if (ring_layout_compute(&record->geometry, &layout, &fault) < 0 ||
            !is_doorbell(s->seat.doorbell_fd)) {
                snprintf(text, WIRE_TEXT_BYTES, "the session came without its rings");
                return WIRE_INTERNAL;
        }
        status = check_limits(s, record, text);
        if (status == WIRE_OK)
                status = take_quota(s, record, &layout, text);
        if (status != WIRE_OK)
                return status;
        /* As if it had just come from the client, who has had it all the time. */
        if (ring_server_init(ring, s->memfd, &layout, s->daemon->epoch, s->fd, &fault) < 0) {
                snprintf(text, WIRE_TEXT_BYTES, "%.255s", fault.text);
                return WIRE_RING_REFUSED;
        }
        ring_server_resume(ring, record->sq_head, record->cq_tail, record->wait_answered);
        return adopt_tables(s, record, uses, tables, text);
}

int session_adopt(struct daemon *daemon, const struct handover_session *record,
                  const struct handover_use *uses, struct store_table *const *tables,
                  const struct session_descriptors *descriptors) {
        const struct ucred peer = session_peer(descriptors->socket);
        struct session *s = session_create(daemon, descriptors->socket, &peer, record->id);
        char text[WIRE_TEXT_BYTES] = "";
        enum wire_status status;

        if (!s) {
                /* shutdown(), as the service manager has the socket, too. */
                shutdown(descriptors->socket, SHUT_RDWR);
                close(descriptors->socket);
                close(descriptors->memfd);
                close(descriptors->doorbell);
                return -ENOMEM;
        }
        s->memfd = descriptors->memfd;
        s->seat.doorbell_fd = descriptors->doorbell;
        s->info.features = record->features;
        s->info.connected_ns = record->connected_ns;
        memcpy(s->info.name, record->name, sizeof(s->info.name));
        s->last_nonce = record->last_nonce;
        status = adopt(s, record, uses, tables, text);
        if (status != WIRE_OK) {
                session_close(s, status, text);
                return -EACCES;
        }
        session_attach(s);
        session_receive(s);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client's connection: the handshake, its open tables, its end. Lives on the loop thread; its
 * seat belongs to the worker from READY until it is detached.
 */
#pragma once

#include <sys/types.h>

#include "smaps.h"
#include "worker.h"

struct daemon;
struct session;

enum session_state {
        SESSION_HELLO,  /* waits for HELLO */
        SESSION_RING,   /* greeted; waits for RING */
        SESSION_READY,  /* attached to the worker */
        SESSION_CLOSING /* gone when worker and kernel have let go */
};

struct session_info {
        uint64_t id; /* the next daemon keeps it */
        pid_t pid;   /* of the peer when it connected: for people, not for access */
        uid_t uid;
        gid_t gid;
        char name[WIRE_NAME_BYTES];
        uint64_t connected_ns; /* CLOCK_MONOTONIC */
        enum session_state state;
        uint64_t ring_bytes;
        uint32_t n_tables;
        uint64_t features; /* in force */
};

/* Takes over the accepted descriptor, also on failure. */
int session_new(struct daemon *daemon, int fd);

/*
 * Ends the connection, after what was submitted has been served. With a status other than WIRE_OK
 * the client is told why. Frees itself later; closing twice is harmless.
 */
void session_close(struct session *session, enum wire_status status, const char *text);

/* Tells one, or all, that the daemon ends. */
void session_dismiss(struct session *session);
void sessions_dismiss(struct daemon *daemon);

/*
 * Leaves a ready session as it is, for another daemon: what was taken from its ring is completed
 * and messages that have arrived are answered, the rest waits. daemon_stop_if_done() when that is
 * so. Any other session is closed.
 */
void session_hold(struct session *session);
bool session_is_held(const struct session *session);
/* Nothing but its descriptors, which are being closed. */
bool session_is_leaving(const struct session *session);

/* How a held one is passed on: its descriptors stay its own. */
struct session_descriptors {
        int socket, memfd, doorbell;
};

struct handover_session;
struct handover_use;

/* Up to WIRE_TABLES_MAX uses; the tables that are passed on have their number in `handover_index`.
 * -ESTALE: it cannot go on elsewhere. */
int session_describe(const struct session *session, struct handover_session *ret_record,
                     struct handover_use *ret_uses, struct session_descriptors *ret_descriptors);
/* It goes on elsewhere: frees itself later, and the client notices nothing. */
void session_abandon(struct session *session);

/*
 * Goes on with a session of a former daemon. `tables` are those that its uses count, NULL where one
 * could not be had. Takes over the descriptors. -errno: the client was told why it cannot be.
 */
int session_adopt(struct daemon *daemon, const struct handover_session *record,
                  const struct handover_use *uses, struct store_table *const *tables,
                  const struct session_descriptors *descriptors);

/* Ends sessions that do not finish the handshake in time. */
void sessions_expire(struct daemon *daemon, uint64_t now_ns);

/* For reports. */
const struct session_info *session_info(const struct session *session);
const struct stats *session_stats(const struct session *session);

/* What the client says it did by itself; 0 before and after it is ready. */
struct session_claims {
        uint64_t n_lookups, n_rows, n_rows_read, n_values_read, bytes_read, lines_read,
                bytes_written;
};

/* Adds what clients say they found in tables' caches to the tables' account; before a report. */
void sessions_count_hits(struct daemon *daemon);

struct session_claims session_claims(const struct session *session);

/* Where its shared memory is mapped here, for a measurement; of no bytes before it is. */
struct smaps_range session_ring(const struct session *session);
struct session *session_first(struct daemon *daemon);
struct session *session_next(struct session *session);

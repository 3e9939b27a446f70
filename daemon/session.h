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
        uint64_t id;
        pid_t pid; /* of the peer when it connected: for people, not for access */
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What session.c (a connection's life) and session-handover.c (how it passes from one daemon to the
 * next) share. Loop thread.
 */
#pragma once

#include <sys/socket.h>

#include "daemon.h"

/* As many as one message can carry (SCM_MAX_FD in the kernel): those that found no room would be
 * closed by the kernel there and then, on this thread. */
#define SESSION_FDS_MAX 253

struct session {
        struct worker_seat seat; /* first: worker's callbacks hand it back */
        struct session_info info;
        struct daemon *daemon;
        int fd, memfd; /* its socket, and its memory once it is mapped */

        struct loop_op receive_op;
        bool receiving, attached, detaching;
        bool holding;       /* stays as it is, for another daemon: takes nothing more */
        bool leaving;       /* see session_is_leaving() */
        uint32_t n_changes; /* slot changes under way */
        struct msghdr message;
        struct iovec iov;
        uint8_t buffer[WIRE_MESSAGE_BYTES];
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(SESSION_FDS_MAX * sizeof(int))];
        int fds[SESSION_FDS_MAX]; /* of the last message; of what kind, nobody knows */
        size_t n_fds;

        struct store_table
                *tables[WIRE_TABLES_MAX];  /* our view of the seat's slots; holds the use */
        uint64_t handles[WIRE_TABLES_MAX]; /* 0: free, or about to be */
        uint64_t last_nonce;
        uint64_t n_hits[WIRE_TABLES_MAX]; /* of the client's claims, counted so far */

        struct quota_holder quota;
        enum wire_status close_status;
        char close_text[WIRE_TEXT_BYTES];
        struct chore cleanup;
        TAILQ_ENTRY(session) link;
};

/* Who connected. */
struct ucred session_peer(int fd);

/* A session of the peer at the other end of `fd`, which it takes over, in the state HELLO, with
 * nothing under way and nothing of its user's quota. NULL: no memory. */
struct session *session_create(struct daemon *daemon, int fd, const struct ucred *peer,
                               uint64_t id);

/* Charges a ring to the session's user. WIRE_LIMIT: it is more than this daemon grants to one
 * session, or to one user, and the text says which. */
enum wire_status session_take_ring(struct session *session, const struct ring_layout *layout,
                                   char ret_text[WIRE_TEXT_BYTES]);

/* From here on the worker serves it. Memory and doorbell must be there. */
void session_attach(struct session *session);

/* The next message. */
void session_receive(struct session *session);

/* Something that was under way for it has ended. */
void session_settle(struct session *session);

/* Whether the peer may have the table; else the sentence that says why not. */
bool session_may_use(const struct session *session, const struct store_table *table,
                     char ret_text[WIRE_TEXT_BYTES]);

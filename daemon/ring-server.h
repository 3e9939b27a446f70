/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of one client's rings. Runs on the worker. Everything in the shared memory is
 * hostile: each word is read once into a private copy, indices are kept privately, and the arena is
 * only written.
 */
#pragma once

#include "proto/ring.h"
#include "proto/wire.h"

struct ring_server {
        struct ring_layout layout;
        void *memory;
        struct ring_header *header;
        const struct ring_submission *submissions;
        struct ring_completion *completions;
        const uint8_t *ids;
        uint8_t *arena;
        const struct ring_claims *claims; /* the client's words */
        const struct ring_cache_use *cache_use;
        uint32_t sq_head; /* ours, published with release */
        uint32_t cq_tail;
        uint32_t cq_published;  /* the tail that the client can see */
        uint64_t ids_guess;     /* in the id area: where the next ids may be */
        uint32_t wait_answered; /* the odd client_waiting we have sent a WAKE for */
        int socket_fd;          /* borrowed: where a WAKE goes */
};

/*
 * Checks seals, kind and size of the memfd and maps it; `memfd` stays the caller's. -EINVAL with
 * the reason, or mmap's errno.
 */
int ring_server_init(struct ring_server *server, int memfd, const struct ring_layout *layout,
                     uint64_t epoch, int socket_fd, struct fault *ret_fault);
void ring_server_deinit(struct ring_server *server);
/* Goes on where another daemon has stopped, with the indices that it kept privately. */
void ring_server_resume(struct ring_server *server, uint32_t sq_head, uint32_t cq_tail,
                        uint32_t wait_answered);

/* Free completion entries. -EPROTO: the client's index is impossible. */
int ring_server_room(struct ring_server *server, uint32_t *ret_n, struct fault *ret_fault);
/* Submissions that wait. -EPROTO likewise. */
int ring_server_pending(struct ring_server *server, uint32_t *ret_n, struct fault *ret_fault);
/* Copies the oldest one out and frees its entry; there must be one. */
void ring_server_take(struct ring_server *server, struct ring_submission *ret_submission);
/* There must be room. The client sees it when it is published. */
void ring_server_complete(struct ring_server *server, const struct ring_completion *completion);
/* All completions so far. True if the client sleeps, once for each time that it went to sleep: the
 * caller sends it `ring_server_wake`, without waiting for room, as who has a full queue has wakes
 * enough. */
bool ring_server_publish(struct ring_server *server);
extern const struct wire_wake ring_server_wake;

/* Asks for doorbells; the caller looks once more before it believes that there is no work. */
void ring_server_announce_sleep(struct ring_server *server);
void ring_server_announce_awake(struct ring_server *server);
void ring_server_heartbeat(struct ring_server *server, uint64_t now_ns);

/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: a client that can say anything, in any order, and write what it likes into its rings.
 */
#pragma once

#include "proto/ring.h"
#include "proto/wire.h"

struct raw_client {
        int fd, memfd, doorbell;
        struct ring_layout layout;
        struct ring_header *header;
        uint8_t *memory;
};

/* Connected, nothing said. -1 fds for the rest. */
void raw_connect(struct raw_client *c, const char *socket_path);
void raw_close(struct raw_client *c);

void raw_send(struct raw_client *c, const void *message, size_t bytes, const int *fds,
              size_t n_fds);

/* 0, or what sendmsg() says; does not wait. */
int raw_try_send(struct raw_client *c, const void *message, size_t bytes, const int *fds,
                 size_t n_fds);

/*
 * The next message that is not a WAKE: its type, or 0 at the end of the connection. Waits up to 20
 * s, then fails the test. A descriptor that comes along goes to `doorbell`.
 */
int raw_receive(struct raw_client *c, uint8_t ret_message[WIRE_MESSAGE_BYTES]);

/* The next message is this ERROR, its text has `words`, and the connection ends. Closes. */
void raw_expect_refusal(struct raw_client *c, enum wire_status status, const char *words);

struct wire_hello raw_hello(void);
/* Small: 8 and 16 entries, a page of ids, 4 pages of arena. */
struct wire_ring raw_ring(void);
/* A memfd of `bytes` with these seals. */
int raw_memfd(uint64_t bytes, int seals);

/* Connects, says HELLO and takes the WELCOME. */
void raw_greet(struct raw_client *c, const char *socket_path);

/* A TCP connection whose other end does not read, with bytes under way and SO_LINGER: whoever
 * closes `ret_fd` last waits for them, far longer than any test. Closing the other end ends that.
 */
void raw_make_lingering(int *ret_fd, int *ret_other);

/* RING, with memory as it must be; once greeted. */
void raw_send_ring(struct raw_client *c, const struct wire_ring *ring);

/* The whole handshake, done right, with these features offered. */
void raw_handshake(struct raw_client *c, const char *socket_path, uint64_t features);
/* The same with a ring that is not raw_ring(). */
void raw_handshake_with(struct raw_client *c, const char *socket_path, uint64_t features,
                        const struct wire_ring *ring);
/* Returns the handle. */
uint64_t raw_open_table(struct raw_client *c, const char *name, struct wire_table *ret_table);

/* Publishes one submission and rings the doorbell. */
void raw_submit(struct raw_client *c, const struct ring_submission *submission);
/* Waits for the next completion and reaps it. */
struct ring_completion raw_complete(struct raw_client *c);
void raw_ring_doorbell(struct raw_client *c);

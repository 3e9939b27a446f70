/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message over the socket, with at most one descriptor beside it. What arrives has passed
 * wire_check(), so a packet's fields can be read by its type. The client's thread.
 */
#pragma once

#include "proto/wire.h"

union packet {
        struct wire_header header;
        struct wire_welcome welcome;
        struct wire_table table;
        struct wire_file file;
        struct wire_cache cache;
        struct wire_error error;
        uint8_t bytes[WIRE_MESSAGE_BYTES];
};

/*
 * Blocks as long as the socket's SO_SNDTIMEO: -ETIMEDOUT. `attached_fd` may be -1. A peer that is
 * gone is not this function's news (0): its last words may still wait to be received.
 */
int packet_send(int socket_fd, const void *message, size_t bytes, int attached_fd);

/*
 * Waits for a message until `deadline_ns`; 0: does not wait. Returns the message's type (> 0), or 0
 * when there is none and waiting was not asked for.
 *   -ETIMEDOUT, -ECONNRESET (the peer closed), -EPROTO and -EPROTONOSUPPORT (not our protocol).
 * `*ret_fd` is owned by the caller, -1 where the type carries none.
 */
int packet_receive(int socket_fd, uint64_t deadline_ns, union packet *ret_packet, int *ret_fd,
                   struct fault *ret_fault);

/* The same in one system call: waits for as long as the socket's SO_RCVTIMEO, or until a signal
 * comes, and then returns 0; so it does at once where the socket's user has made it not block. */
int packet_await(int socket_fd, union packet *ret_packet, int *ret_fd, struct fault *ret_fault);

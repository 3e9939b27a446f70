/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole daemon on threads of this process, so that a fuzzer sees what its inputs reach: one table
 * "small" of 100 x 8 values, sockets in a folder of its own. Lives until the process ends.
 */
#pragma once

#include <sys/socket.h>

#include "proto/base.h"

/* Aborts on whatever goes wrong. */
void daemon_thread_start(void);

/* A new connection to its data socket (SOCK_SEQPACKET) or its control socket (SOCK_STREAM). */
int daemon_thread_connect(int type);

/* Waits until no connection of before is left, and aborts if they left a descriptor open. */
void daemon_thread_settle(void);

/* What comes until the daemon's end, in packets of at most 512 bytes or in pieces; thrown away but
 * for its length. Aborts when the end does not come. */
size_t daemon_thread_drain(int fd);

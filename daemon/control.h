/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's connections: each takes calls of io.carvq.Control and org.varlink.service
 * one at a time and answers them in order. Lives on the loop thread; who may connect is the socket
 * file's mode.
 */
#pragma once

struct daemon;

/* More than this at once are turned away. */
#define CONTROL_CONNECTIONS_MAX 64u

void control_init(struct daemon *daemon);

/* Takes over an accepted stream socket, also on failure. -EUSERS: too many; -ENOMEM. */
int control_connection_new(struct daemon *daemon, int fd);

/*
 * Ends all connections; answers that are under way are lost. Each is gone, and
 * daemon->n_control_connections lower, when the loop has run what it waited for.
 */
void control_close(struct daemon *daemon);

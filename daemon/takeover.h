/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The beginning of a daemon that takes over what a former one has left with the service manager
 * (handover.h): first the tables, each from its descriptor, so that it is the very generation that
 * clients have open; then their sessions. Whatever is odd is closed and said once; those clients
 * connect again. Loop thread.
 */
#pragma once

#include "daemon.h"

/* A passed descriptor. False: its name is not one of the store. Else it is taken over. */
bool takeover_offer(struct daemon *daemon, const char *name, int fd);

/* Takes over, if there is something, and then loads the tables that are to be served. */
void takeover_start(struct daemon *daemon);

/* Closes what was not taken over. */
void takeover_free(struct daemon *daemon);

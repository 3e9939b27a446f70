/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a daemon whose clients go on with the next one: their sockets, memories and doorbells
 * are left with the service manager (sd_notify(3), FDSTORE=1), beside a block that says what they
 * are (handover-state.h). Nothing of it is kept up to date before. takeover.h is the other half.
 * Loop thread.
 */
#pragma once

#include "daemon.h"

/*
 * Descriptors that are handed over at most. They come back with their names in one variable of the
 * environment, which the kernel limits to 128 KiB (MAX_ARG_STRLEN).
 */
#define HANDOVER_FDS_MAX 8000u

/* Whether there is a service manager that may have a store. Before systemd 254 it does not say
 * whether, and how large: one that has none closes what it gets, and the clients hear of it. */
bool handover_offered(const struct daemon *daemon);

/*
 * While stopping, when nothing else is under way: has the sessions held, and when all of them are,
 * hands them over and abandons them. Those that cannot be are told that the daemon ends.
 */
void handover_go_on(struct daemon *daemon);

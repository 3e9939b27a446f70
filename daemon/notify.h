/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service manager is told, as sd_notify(3) has it: readiness and reloads, a line for
 * `systemctl status`, and for its watchdog that the daemon moves. On the loop thread, which never
 * waits for the manager. Nothing is done where nobody listens.
 */
#pragma once

#include "loop.h"

#define NOTIFY_STATUS_BYTES 320u
#define NOTIFY_OWED_BYTES   64u

struct daemon;

struct notify {
        int fd; /* -1: nobody listens */
        bool pausing;
        char owed[NOTIFY_OWED_BYTES];     /* a state that is still to be told, or "" */
        char status[NOTIFY_STATUS_BYTES]; /* as last told */
        struct loop_op pause_op, watchdog_op;
        struct __kernel_timespec pause, watchdog_period;
};

/* When the workers run, and before the loop does; `fd` is -1 before. */
void notify_start(struct daemon *daemon);
void notify_deinit(struct daemon *daemon);

/* Once at the beginning, and after each notify_reloading(). */
void notify_ready(struct daemon *daemon);
void notify_reloading(struct daemon *daemon);
void notify_stopping(struct daemon *daemon);

/*
 * With descriptors for its store, or about them; waits a few seconds for room, as the daemon has
 * nothing else to do then. -errno: it was not told.
 */
int notify_store(struct daemon *daemon, const char *text, const int *fds, size_t n_fds);
/* Until the manager has taken in all that it was told: -errno if it does not. */
int notify_barrier(struct daemon *daemon);

/* The sentence of `systemctl status`, as things are. */
void notify_describe(const struct daemon *daemon, char ret_status[NOTIFY_STATUS_BYTES]);

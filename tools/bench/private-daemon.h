/* SPDX-License-Identifier: Apache-2.0 */
/* A carvqd of the bench's own, on sockets in the work folder. Dies where it cannot go on. */
#pragma once

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

struct private_daemon {
        pid_t pid;
        char socket_path[PATH_MAX];
        uint64_t ready_ns; /* from before the fork until it said that its table was published */
};

/* Starts it with one table and waits until it is ready. */
void private_daemon_start(struct private_daemon *daemon, const char *table_name,
                          const char *table_path);
/* The same with further arguments of carvqd's, at most 16, ended by NULL. */
void private_daemon_start_with(struct private_daemon *daemon, const char *table_name,
                               const char *table_path, const char *const *arguments);
void private_daemon_stop(struct private_daemon *daemon);

/* SPDX-License-Identifier: Apache-2.0 */
/* The soak's own carvqd: started, ended in whatever way, started again; and what /proc says of it.
 */
#pragma once

#include "soak.h"

struct daemon_process {
        struct soak *soak;
        pid_t pid; /* 0: not running */
        int notify_fd;
        char program[PATH_MAX], config_path[PATH_MAX], notify_path[PATH_MAX];
        const char *log_path;                      /* what all of them wrote to standard error */
        uint64_t longest_start_ns, longest_end_ns; /* to be ready; to be gone, after SIGTERM */
        uint32_t n_faults;                         /* it ended by itself, or not as it should */
};

struct daemon_sample {
        uint64_t pss_bytes, dirty_bytes; /* the second: private */
        uint32_t n_fds, n_threads;
        uint32_t n_mappings; /* of files and memfds */
};

/* Writes its configuration; `log_path` is emptied. */
void daemon_init(struct daemon_process *daemon, struct soak *soak, const char *tables_folder,
                 uint64_t n_workers, const char *log_path);

/* Returns when it is ready, which is when connecting may not fail any more. */
void daemon_start(struct daemon_process *daemon);

/* Sends the signal and waits until it is gone. */
void daemon_end(struct daemon_process *daemon, int signal_number);

/* False: it was not running any more, and that is a fault. */
bool daemon_check(struct daemon_process *daemon);

/* Both look at /proc; the second leaves memory out, which takes long with sanitizers. */
struct daemon_sample daemon_sample(const struct daemon_process *daemon);
struct daemon_sample daemon_counts(const struct daemon_process *daemon);

/* The log's last lines, on standard error. */
void daemon_show_log(const struct daemon_process *daemon);
uint64_t daemon_log_lines(const struct daemon_process *daemon);

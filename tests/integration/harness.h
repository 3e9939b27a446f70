/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: a real carvqd in a folder of its own. Failures are cmocka failures. */
#pragma once

#include <sys/types.h>

#include "lib/carvq.h"
#include "proto/base.h"

struct harness {
        char folder[64];
        char socket_path[96], control_path[96];
        char log_path[96]; /* what the daemon wrote to stderr */
        pid_t pid;         /* 0: not running */
        int notify_fd;
        bool pass_sockets;  /* hand them over like systemd instead of naming them */
        int io_uring_error; /* of a seccomp filter as containers have it: EPERM, ENOSYS; 0: none */
        uid_t user;         /* who runs it, with a group of this number; 0: who runs the test */
};

/* Before a daemon is started of which the test watches the memory: with AddressSanitizer what it
 * frees is kept for a while, to find its users; now for a short one. */
void harness_watch_memory(void);

/* A folder with socket paths; no daemon yet. */
void harness_init(struct harness *h);
void harness_deinit(struct harness *h);

/* "FOLDER/NAME", in a static buffer of which there are 8. */
const char *harness_path(const struct harness *h, const char *name);

/* Starts $CARVQD with its sockets, $CARVQD_WORKERS workers and $CARVQD_EVENT_LOOP if they are set,
 * and `args` (ended by NULL), and waits for READY=1. */
void harness_start(struct harness *h, const char *const *args);
/* The same where it may fail: -EALREADY when it is ready, else its exit status, -1 if a signal
 * killed it; one that does nothing for a minute is killed. */
int harness_try_start(struct harness *h, const char *const *args);
/* Starts it and expects it to fail: returns the exit status. */
int harness_start_fails(struct harness *h, const char *const *args);
/* SIGTERM; returns the exit status, -1 if a signal killed it. */
int harness_stop(struct harness *h);

/* True if the log has this text. */
bool harness_logged(const struct harness *h, const char *text);

/* The same, waited for, up to half a minute. */
void harness_wait_logged(const struct harness *h, const char *text);

/* Runs $CARVQCTL with these arguments, in a shell: its exit status, and all that it wrote. */
int harness_ctl(const struct harness *h, const char *arguments, char *ret_said, size_t size);

/* NULL after saying why: also for children, where a cmocka failure would run on in the wrong
 * process. */
carvq_client *harness_connect(const struct harness *h);

/* Entries of a folder under /proc/PID of the daemon: "fd", "task", "map_files". For leaks. */
size_t harness_count(const struct harness *h, const char *proc_folder);
/*
 * The loop lets go of a session some time after its client is gone: looks until there are at most
 * `n` entries, and fails the test after half a minute.
 */
void harness_wait_count(const struct harness *h, const char *proc_folder, size_t n);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service manager, as far as carvqd can tell: it passes listening sockets, hears what the daemon
 * says, keeps descriptors for it and passes them to the next one. It does what systemd 252 does,
 * without its time to set up a sandbox. Dies where it cannot go on. The caller's thread, which is
 * in one of these calls while the daemon talks.
 */
#pragma once

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#define FAKE_STORE_MAX 4096u

struct fake_manager {
        char folder[96];
        char data_path[112], control_path[112], log_path[112];
        int listen_fds[2], notify_fd;
        pid_t pid; /* 0: not running */
        uint32_t n_stored;
        uint32_t store_max; /* FileDescriptorStoreMax= */
        struct {
                char name[64];
                int fd;
        } stored[FAKE_STORE_MAX];
};

/* In a folder that exists. */
void fake_manager_init(struct fake_manager *manager, const char *folder);
void fake_manager_deinit(struct fake_manager *manager);

/* Starts it and waits for READY=1. `argv` is ended by NULL; sockets and store are passed. */
void fake_manager_start(struct fake_manager *manager, const char *const *argv);
/* The same without waiting: it may be stopped at any moment. */
void fake_manager_spawn(struct fake_manager *manager, const char *const *argv);
/* SIGTERM, or another signal: its exit status; -1 if a signal killed it. What it gave is kept. */
int fake_manager_stop(struct fake_manager *manager, int signal);
/* Hears what there is, waiting for up to `timeout_ms`. */
void fake_manager_listen(struct fake_manager *manager, int timeout_ms);
/* A real stop: the store is emptied. */
void fake_manager_drop(struct fake_manager *manager);

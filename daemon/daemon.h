/* SPDX-License-Identifier: Apache-2.0 */
/* The whole: what main() puts together and the modules on the loop thread share. */
#pragma once

#include <sys/queue.h>

#include "chore.h"
#include "config.h"
#include "folder.h"
#include "listener.h"
#include "load.h"
#include "loop.h"
#include "notify.h"
#include "quota.h"
#include "session.h"
#include "store.h"
#include "worker.h"

struct daemon {
        struct config config;
        struct loop *loop;
        struct chores *chores;
        struct worker **workers; /* config.n_workers */
        struct store store;
        struct listener data, control;
        const struct codec_kernels *kernels;
        uint32_t cpu_features; /* enum codec_cpu, after the mask */
        TAILQ_HEAD(, session) sessions;
        uint32_t n_sessions;
        struct quota quota;
        uint64_t last_session_id;
        TAILQ_HEAD(, control_connection) control_connections;
        uint32_t n_control_connections;
        uint64_t epoch;        /* random, in every WELCOME */
        uint64_t started_ns;   /* CLOCK_MONOTONIC */
        uint32_t n_loading;    /* loads, scans of the folder and readings of the configuration */
        uint32_t n_populating; /* tables */
        struct folder folder;
        LIST_HEAD(, refusal) refusals;
        struct reload *reloads;    /* the first one is under way */
        struct takeover *takeover; /* what a former daemon has left, until it is taken over */
        bool ready, stopping;
        bool handing_over, holding; /* while stopping: clients go on with another daemon */
        uint32_t n_left_behind;     /* sessions that the end does not wait for */
        uint64_t stopping_ns;       /* since when */

        struct notify notify;
        struct loop_op signal_op, tick_op;
        int signal_fd;
        bool ticking;
        struct __kernel_timespec tick;
};

/* Takes over the configuration. Runs until SIGTERM or SIGINT; 0 after an orderly end. */
int daemon_run(struct config *config, struct fault *ret_fault);

/* Heartbeats and handshake deadlines, as long as there are sessions. */
void daemon_start_tick(struct daemon *daemon);

/* One of n_loading is done. After the last one clients are served, and a reload is over. */
void daemon_loaded(struct daemon *daemon);

/* Drains the sessions, or hands them over, then ends daemon_run(). */
void daemon_stop(struct daemon *daemon);

/* Whoever is the last to go, once stopping, ends daemon_run(). */
void daemon_stop_if_done(struct daemon *daemon);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a table: opened, checked and mapped on the chore thread, published on the loop thread,
 * and then populated step by step. Tables that were to be served and are not are remembered with
 * the reason.
 */
#pragma once

#include "handover-state.h"
#include "store.h"

struct daemon;

/* On the loop thread: 0, -EALREADY (the request's `if_changed`), -EINPROGRESS (`only_links`), or
 * why not, with the reason. */
typedef void (*load_done)(void *userdata, const char *name, int r, const char *reason);

struct load_request {
        const char *name, *path;
        enum store_origin origin;
        /* Only if what is published is another file, or has other options. */
        bool if_changed;
        /* Only a link or a file that has several names: others are still being written, and whoever
         * does it will be heard of again. */
        bool only_links;
        /* A generation of a former daemon: what that said of it, which must stay until it is done,
         * and its file, taken over. */
        const struct handover_table *former;
        int former_fd;
        load_done done; /* may be NULL */
        void *userdata;
};

/* Copies the request's strings, and logs how it ends. -ENOMEM: nothing was started or taken. */
int load_start(struct daemon *daemon, const struct load_request *request);

/* A table that ought to be served from a file that cannot be. An older generation stays. */
struct refusal {
        char *name, *path;
        enum store_origin origin;
        char reason[sizeof(((struct fault *)NULL)->text)];
        uint64_t since_ns; /* CLOCK_MONOTONIC */
        LIST_ENTRY(refusal) link;
};

/* NULL: there is none. */
struct refusal *refusal_find(struct daemon *daemon, const char *name);
/* Returns NULL. */
struct refusal *refusal_free(struct refusal *refusal);
void refusals_free(struct daemon *daemon);

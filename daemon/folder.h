/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watched folder: NAME.carvq is served as NAME once it is renamed into it, linked into it, or
 * closed after writing; a file that replaces it is a new generation; one that goes takes its table
 * along. Whoever may write there decides what is served, and nothing else: every file is checked.
 */
#pragma once

#include <stdatomic.h>
#include <sys/queue.h>

#include "loop.h"

struct daemon;
struct folder_name;

struct folder {
        struct daemon *daemon;
        int inotify_fd;   /* -1: none to be had; the folder is looked at when asked only */
        atomic_int watch; /* of the chore thread while a scan is under way; -1: none */
        struct loop_op op;
        uint32_t n_busy; /* scans and loads under way */
        bool scan_wanted;
        STAILQ_HEAD(, folder_name) names; /* to look at when those are done */
        uint32_t n_names;
};

/* Nothing is watched yet. */
void folder_init(struct folder *folder, struct daemon *daemon);
void folder_deinit(struct folder *folder);

/* Makes what is served of the folder what is in it, whichever folder the configuration names now,
 * and keeps it so. */
void folder_scan(struct folder *folder);

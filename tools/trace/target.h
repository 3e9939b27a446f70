/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The carvqd that is traced: which process it is, and which files it has mapped where. Reads what
 * the control socket and /proc say; paths in it may be anything and are made fit to print.
 */
#pragma once

#include <sys/types.h>

#include "proto/base.h"
#include "shared.h"

/* Asks the daemon behind a control socket; NULL: the default one. -errno, the fault says why. */
int target_find(const char *control_path, pid_t *ret_pid, struct fault *ret_fault);

/* A mapping of a table's file, kept when it has gone. Its place in the list is its number in the
 * kernel. */
struct target_file {
        uint64_t start, end, inode;
        unsigned major, minor;
        char *path;
};

struct target_files {
        pid_t pid;
        struct target_file list[FILES_N];
        uint32_t n;
        uint64_t n_unwatched; /* mappings that found no place, at most at once */
};

void target_files_deinit(struct target_files *files);

/* Looks what is mapped now, and tells the programs in the kernel. -errno if /proc does not say. */
int target_files_refresh(struct target_files *files, struct ranges *ranges,
                         struct fault *ret_fault);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that appear whole or not at all: written under a temporary name beside the target, synced,
 * renamed. The temporary file is removed on failure and on signals that end a process politely. One
 * at a time in a process; main thread.
 */
#pragma once

#include <stdio.h>
#include <sys/stat.h>

#include "proto/table.h"

struct writer {
        int fd;
        int dir_fd;
        char *path;      /* as the user named it, for messages */
        char *name;      /* its last part */
        char *temp_name; /* beside it; NULL once renamed or removed */
        bool replaces;   /* a file of that name, this one: */
        dev_t replaced_dev;
        ino_t replaced_ino;
};

#define WRITER_INIT                                                                                \
        { .fd = -1, .dir_fd = -1 }

/* Before the work, so that what cannot be written is known at once. */
int writer_open(struct writer *writer, const char *path, struct fault *ret_fault);
/* -EEXIST if the finished file would replace this one, which is being read. */
int writer_check_source(const struct writer *writer, const struct stat *source,
                        struct fault *ret_fault);
int writer_write(struct writer *writer, uint64_t offset, const void *bytes, size_t n_bytes,
                 struct fault *ret_fault);
/* Sync, rename, sync the folder. */
int writer_commit(struct writer *writer, uint64_t file_bytes, struct fault *ret_fault);
/* Removes what was not committed: from a signal handler, before the process ends. */
void writer_abandon(void);
/* Removes what was not committed. */
void writer_deinit(struct writer *writer);

/* ---- A .carvq file ---- */

struct XXH3_state_s;

struct table_writer {
        struct writer file;
        struct table_header header;
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        uint64_t n_written[TABLE_CHUNKS_MAX];
        struct XXH3_state_s *states[TABLE_CHUNKS_MAX];
};

/* `file` is open. `header` holds the parameters only; a meta chunk will follow. */
int table_writer_begin(struct table_writer *writer, const struct table_header *header,
                       struct fault *ret_fault);
/* Chunks grow independently, each in order. */
int table_writer_append(struct table_writer *writer, uint32_t chunk_id, const void *bytes,
                        size_t n_bytes, struct fault *ret_fault);
/* Writes meta, contents table and header, and commits. */
int table_writer_commit(struct table_writer *writer, const char *meta, struct fault *ret_fault);
void table_writer_deinit(struct table_writer *writer);

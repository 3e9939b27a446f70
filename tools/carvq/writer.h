/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that appear whole or not at all: written under a temporary name beside the target, synced,
 * renamed. The temporary file is removed on failure and on SIGINT, SIGTERM and SIGHUP. One at a
 * time in a process; main thread.
 */
#pragma once

#include <stdio.h>

#include "proto/table.h"

struct writer {
        int fd;
        int dir_fd;
        char *path;      /* as the user named it, for messages */
        char *name;      /* its last part */
        char *temp_name; /* beside it; NULL once renamed or removed */
};

#define WRITER_INIT                                                                                \
        { .fd = -1, .dir_fd = -1 }

int writer_open(struct writer *writer, const char *path, struct fault *ret_fault);
int writer_write(struct writer *writer, uint64_t offset, const void *bytes, size_t n_bytes,
                 struct fault *ret_fault);
/* Sync, rename, sync the folder. */
int writer_commit(struct writer *writer, uint64_t file_bytes, struct fault *ret_fault);
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

/* `header` holds the parameters only. A meta chunk will follow. */
int table_writer_open(struct table_writer *writer, const char *path,
                      const struct table_header *header, struct fault *ret_fault);
/* Chunks grow independently, each in order. */
int table_writer_append(struct table_writer *writer, uint32_t chunk_id, const void *bytes,
                        size_t n_bytes, struct fault *ret_fault);
/* Writes meta, contents table and header, and commits. */
int table_writer_commit(struct table_writer *writer, const char *meta, struct fault *ret_fault);
void table_writer_deinit(struct table_writer *writer);

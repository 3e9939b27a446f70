/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: what a piece of code writes to standard output or error, as a string. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/base.h"

struct capture {
        int fd;    /* the descriptor that is captured */
        int saved; /* what it was */
        int file;
};

static inline struct capture capture_begin(int fd) {
        struct capture c = { .fd = fd, .saved = dup(fd), .file = memfd_create("capture", 0) };

        fflush(NULL);
        if (c.saved < 0 || c.file < 0 || dup2(c.file, fd) < 0)
                abort();
        return c;
}

/* malloc'd. */
static inline char *capture_end(struct capture *c) {
        char *text;
        off_t size;

        fflush(NULL);
        if (dup2(c->saved, c->fd) < 0)
                abort();
        size = lseek(c->file, 0, SEEK_END);
        text = calloc(1, (size_t)size + 1);
        if (!text || pread(c->file, text, (size_t)size, 0) != size)
                abort();
        close(c->saved);
        close(c->file);
        return text;
}

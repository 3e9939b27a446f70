/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: the daemon's loop, chores, store and control connections on a thread of their own,
 * with one table "small", one client in its handshake, and no sockets in the file system.
 */
#pragma once

#include <jansson.h>

#include "proto/base.h"

struct harness;

/* Where "small" was loaded from; other tests may load it again. */
#define HARNESS_TABLE_NAME "small"

struct harness *harness_new(void);
void harness_free(struct harness *harness);
const char *harness_table_path(const struct harness *harness);
/* What a reload reads; empty at first. */
void harness_write_config(const struct harness *harness, const char *text);

/* Ends the daemon's readiness for LoadTable, as between SIGTERM and the end. */
void harness_set_stopping(struct harness *harness, bool stopping);

/* Our end of a new control connection. One that was refused reads as ended. */
int harness_connect(struct harness *harness);

/*
 * Sends `bytes` in pieces, ends our direction, and returns what came until the daemon's end, with
 * one NUL more. malloc'd.
 */
char *harness_talk(struct harness *harness, const void *bytes, size_t n_bytes, size_t piece_bytes,
                   size_t *ret_bytes);

/* One call, one reply: the whole object. */
json_t *harness_call(struct harness *harness, const char *json);

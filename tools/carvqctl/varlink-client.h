/* SPDX-License-Identifier: Apache-2.0 */
/* One varlink call over a Unix socket, blocking, with a time limit. What answers is not trusted. */
#pragma once

#include <jansson.h>

#include "proto/base.h"

/*
 * Connects to `path`, calls `method` (with its interface) and waits for the one reply, at most
 * `timeout_s` for each step. `parameters`
 * stays the caller's and may be NULL.
 *   0  `*ret_error` is NULL: the reply's parameters; else the name of the error, and its parameters
 *   negative errno, and the fault names the path and what failed there
 * The caller owns both results.
 */
int varlink_client_call(const char *path, const char *method, json_t *parameters, int timeout_s,
                        char **ret_error, json_t **ret_parameters, struct fault *ret_fault);

/* Where carvqd's control socket is: $CARVQ_CONTROL, then the system's daemon where there is one,
 * then the user's. `*buffer` is the caller's to free. */
const char *varlink_client_default_path(char **buffer);

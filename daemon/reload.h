/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reload: the configuration is read again on the chore thread, and what is served is made what it
 * and the folder say now. Tables whose file and options are the same stay as they are. A
 * configuration with an error changes nothing.
 */
#pragma once

#include <jansson.h>

#include "daemon.h"

/*
 * What a reload came to, as the JSON of proto/io.carvq.Control.varlink: `r` is 0 and `report` the
 * parameters of Reload's reply, or -EINVAL and a list of `problems`, or -ENOMEM. Both are borrowed,
 * and NULL without memory.
 */
typedef void (*reload_done)(void *userdata, int r, json_t *report);

/* One after the other. `done` may be NULL; the log tells in any case. -ENOMEM. */
int reload_start(struct daemon *daemon, reload_done done, void *userdata);

/* Loads what the configuration and the folder name, unless it is served already, and retires what
 * they do not name any more; also at start. */
void reload_tables(struct daemon *daemon);

/* Nothing is being loaded any more: whoever loads last calls it. */
void reload_settled(struct daemon *daemon);

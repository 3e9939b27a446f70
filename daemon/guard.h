/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a mapping of a file that somebody truncates, or whose disk fails, raises SIGBUS. This is
 * the one place that survives it: work that reads a table runs under a guard for that table's
 * range, and a fault inside the range ends the work and not the daemon.
 */
#pragma once

#include "proto/base.h"

/* Once, before other threads. */
void guard_install(void);

/*
 * Runs work(userdata); false if it was cut short by a fault in [start, start + bytes). The work
 * must hold no lock and own nothing that only its end would release. Not to be nested.
 */
bool guard_run(const void *start, size_t bytes, void (*work)(void *userdata), void *userdata);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mapped file that is cut, or whose disk fails, raises SIGBUS in whoever reads it. To this
 * program that is an error like any other that ends it: one line that names the file, no partial
 * output, exit status 3. Watching is the main thread's; any thread may read.
 */
#pragma once

#include "lib/codec/codec.h"

/* At the start of main(); `clean_up` is called from a signal handler. */
void mapped_install(void (*clean_up)(void));

/* `path` stays the caller's and must stay, until it is forgotten or the process ends. */
void mapped_watch(const char *path, const struct codec_file *file);
void mapped_forget(const struct codec_file *file);

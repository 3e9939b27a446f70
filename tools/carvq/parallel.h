/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop over independent items on several threads. What an item computes may depend on its index
 * only, never on the thread that runs it: that is what makes the packer's output the same for every
 * number of threads. `thread` picks scratch memory and nothing else.
 */
#pragma once

#include "proto/base.h"

#define PARALLEL_THREADS_MAX 256u

typedef int (*parallel_fn)(void *userdata, size_t item, unsigned thread, struct fault *ret_fault);

/*
 * Runs all items; the calling thread takes part. Returns the error of the lowest failing item,
 * whatever the order in which they ran. Once an item has failed, later ones may be left out.
 */
int parallel_for(unsigned n_threads, size_t n_items, parallel_fn fn, void *userdata,
                 struct fault *ret_fault);

/* CPUs that this process may run on. */
unsigned parallel_default_threads(void);

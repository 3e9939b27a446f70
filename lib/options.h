/* SPDX-License-Identifier: Apache-2.0 */
/* Structs that begin with their own size, so that they can grow without a new symbol. */
#pragma once

#include "proto/base.h"

/* No such struct will ever be this large: what claims to be is not initialized. */
#define OPTIONS_BYTES_MAX 4096u

/*
 * Copies the part of `options` (NULL: all zero) that this library knows into `ret_known`, zeros for
 * the part that the caller does not. -EINVAL: size is not set; -E2BIG: a part unknown here is used.
 */
int options_copy(const void *options, size_t known_bytes, void *ret_known, struct fault *ret_fault);

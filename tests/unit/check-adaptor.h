/* SPDX-License-Identifier: Apache-2.0 */
/* The batched adaptors against a plain one, without a test framework, for any machine. */
#pragma once

#include "lib/codec/kernels.h"

struct check_adaptor_set {
        const char *name;
        codec_adaptor_fn *adaptor;
};

#define CHECK_ADAPTOR_SETS_MAX 4u

/* Those that run here, whatever sets they are in. */
size_t check_adaptor_sets(struct check_adaptor_set ret_sets[CHECK_ADAPTOR_SETS_MAX]);

struct check_adaptor_shape {
        uint32_t n_latent, n_hidden[2], n_dims;
        uint32_t n_rows; /* at most CODEC_BATCH_ROWS */
        bool int8_weights, int8_latents, row_scale;
        bool some_integers; /* some rows have no latents */
        bool wide;          /* weights of all sizes, latents of any bits */
};

/*
 * Random weights and latents: every set gives the bits that a plain reference gives for each row
 * alone, which lie within FORMAT.md's bound of what the specification gives; nothing is read or
 * written outside of what is theirs. false: what differs has been printed.
 */
bool check_adaptor(const struct check_adaptor_set *sets, size_t n_sets,
                   const struct check_adaptor_shape *shape, uint64_t *random);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last of each instruction set's adaptor, written once: the step over digits, by the file's own
 * digits_layer(), and the entry of struct codec_kernels.
 */
#pragma once

#include "adaptor.h"

/* With the number of a weight's digits known to the compiler. */
#define DIGITS_STEP(name)                                                                          \
        void name(const struct codec_packed *l, const uint8_t *tiles, const float *scales,         \
                  size_t n_rows, float *const *ret_outputs) {                                      \
                if (l->n_digits == 2)                                                              \
                        digits_layer(l, 2, tiles, scales, n_rows, ret_outputs);                    \
                else                                                                               \
                        digits_layer(l, 1, tiles, scales, n_rows, ret_outputs);                    \
        }

#define ADAPTOR(name, floats_step, quantize_step, digits_step)                                     \
        void name(const struct codec_table *table, const struct codec_record *records,             \
                  size_t n_rows, float *scratch, size_t stride, float *ret_outputs) {              \
                static const struct codec_adaptor_steps steps = {                                  \
                        .floats = floats_step,                                                     \
                        .quantize = quantize_step,                                                 \
                        .digits = digits_step,                                                     \
                };                                                                                 \
                                                                                                   \
                codec_adaptor_batch(&steps, table, records, n_rows, scratch, stride, ret_outputs); \
        }

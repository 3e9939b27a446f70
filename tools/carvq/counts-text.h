/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text of one count a line, read through a window of fixed size. Every byte is hostile. One
 * thread.
 */
#pragma once

#include "source-impl.h"

/* Twice as much is still a float. False for NaN. */
static inline bool count_is_sound(float count) {
        return count >= 0 && count <= 1e38f;
}

struct counts_text {
        const struct source_file *file;
        uint64_t offset; /* of the file's first byte that is not in the window yet */
        uint64_t line;   /* of the last line read, from 1 on */
        uint64_t row;    /* of the next count */
        size_t begin, end;
        char window[65536]; /* no line is longer */
};

/* At the first line of `file`, which stays the caller's. */
void counts_text_init(struct counts_text *text, const struct source_file *file);

/* 1 and the next count; 0 at the end of the file; or an error as of counts_open(). */
int counts_text_next(struct counts_text *text, float *ret_count, struct fault *ret_fault);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines, comments and numbers of a text of counts. The number's own syntax is strtof()'s, in the C
 * locale, which the program never leaves.
 */
#include "counts-text.h"

#include <string.h>

void counts_text_init(struct counts_text *text, const struct source_file *file) {
        text->file = file;
        text->offset = text->line = text->row = 0;
        text->begin = text->end = 0;
}

/* Makes room behind what is left of the window, and fills it. */
static int refill(struct counts_text *text, struct fault *ret_fault) {
        size_t n_left = text->end - text->begin, n_more;
        int r;

        if (n_left == sizeof(text->window))
                return source_fault(ret_fault, -EBADMSG, text->file->path,
                                    "line %" PRIu64 ": longer than %zu bytes", text->line + 1,
                                    sizeof(text->window));
        memmove(text->window, text->window + text->begin, n_left);
        text->begin = 0;
        text->end = n_left;
        n_more = MIN(sizeof(text->window) - n_left, text->file->n_bytes - text->offset);
        r = source_pread(text->file, text->window + n_left, n_more, text->offset, ret_fault);
        if (r < 0)
                return r;
        text->offset += n_more;
        text->end += n_more;
        return 0;
}

/* 1 and a line without its end, valid until the next call; 0 at the end of the file. */
static int next_line(struct counts_text *text, const char **ret_line, size_t *ret_n_bytes,
                     struct fault *ret_fault) {
        const char *line, *end = NULL;
        size_t n_seen = 0; /* of the line, without an end in it */

        while (!(end = memchr(text->window + text->begin + n_seen, '\n',
                              text->end - text->begin - n_seen)) &&
               text->offset < text->file->n_bytes) {
                int r;

                n_seen = text->end - text->begin;
                r = refill(text, ret_fault);
                if (r < 0)
                        return r;
        }
        if (!end && text->begin == text->end)
                return 0;
        line = text->window + text->begin;
        *ret_n_bytes = (size_t)((end ? end : text->window + text->end) - line);
        *ret_line = line;
        text->begin += *ret_n_bytes + !!end;
        text->line++;
        return 1;
}

static bool is_blank(char c) {
        return c == ' ' || c == '\t' || c == '\r';
}

int counts_text_next(struct counts_text *text, float *ret_count, struct fault *ret_fault) {
        const char *line, *comment;
        char number[64], *end;
        size_t n_bytes;
        float count;
        int r;

        do {
                r = next_line(text, &line, &n_bytes, ret_fault);
                if (r <= 0)
                        return r;
                comment = memchr(line, '#', n_bytes);
                if (comment)
                        n_bytes = (size_t)(comment - line);
                for (; n_bytes && is_blank(*line); n_bytes--)
                        line++;
                for (; n_bytes && is_blank(line[n_bytes - 1]); n_bytes--)
                        ;
        } while (!n_bytes);

        /* A longer one is cut, and refused for its length: no count needs so many digits. */
        memcpy(number, line, MIN(n_bytes, sizeof(number) - 1));
        number[MIN(n_bytes, sizeof(number) - 1)] = '\0';
        count = strtof(number, &end);
        if (end != number + n_bytes || !count_is_sound(count))
                return source_fault(ret_fault, -EDOM, text->file->path,
                                    "line %" PRIu64 ", row %" PRIu64
                                    ": found '%s', expected a number from 0 to 1e38",
                                    text->line, text->row, number);
        text->row++;
        *ret_count = count;
        return 1;
}

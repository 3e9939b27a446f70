/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .npy versions 1 to 3 (NumPy Enhancement Proposal 1 and numpy.lib.format): magic, version, header
 * length, a Python dict literal with the keys descr, fortran_order and shape, then the array. The
 * literal is read by a parser that knows this one dict and nothing else of Python. Runs on the
 * thread that opens the source.
 */
#include "source-impl.h"

#include <stdio.h>
#include <string.h>

#define MAGIC          "\x93NUMPY"
#define MAGIC_BYTES    6u
#define TEXT_BYTES_MAX (NPY_HEADER_BYTES_MAX - 12)
#define AXES_MAX       64u /* numpy's limit */

struct parser {
        const char *text;
        size_t n_bytes;
        size_t at;
        size_t text_offset; /* in the file, for messages */
        struct fault *fault;
};

static int expected(const struct parser *p, const char *what) {
        char found[16] = "the end";

        if (p->at < p->n_bytes)
                snprintf(found, sizeof(found), "'%c'", p->text[p->at]);
        return fault_set(p->fault, -EBADMSG, "header at byte %zu: %s, expected %s",
                         p->text_offset + p->at, found, what);
}

static void skip_blanks(struct parser *p) {
        while (p->at < p->n_bytes && (p->text[p->at] == ' ' || p->text[p->at] == '\n'))
                p->at++;
}

static bool accept(struct parser *p, const char *token) {
        size_t n_bytes = strlen(token);

        skip_blanks(p);
        if (n_bytes > p->n_bytes - p->at || memcmp(p->text + p->at, token, n_bytes) != 0)
                return false;
        p->at += n_bytes;
        return true;
}

static int expect(struct parser *p, const char *token) {
        return accept(p, token) ? 0 : expected(p, token);
}

/* A string without escapes, in either kind of quotes. */
static int parse_string(struct parser *p, const char *what, char ret_string[16]) {
        const char *start, *end;

        skip_blanks(p);
        if (p->at == p->n_bytes || (p->text[p->at] != '\'' && p->text[p->at] != '"'))
                return expected(p, what);
        start = p->text + p->at + 1;
        end = memchr(start, start[-1], p->n_bytes - p->at - 1);
        if (!end || end - start >= 16 || memchr(start, '\\', (size_t)(end - start)))
                return expected(p, what);
        memcpy(ret_string, start, (size_t)(end - start));
        ret_string[end - start] = '\0';
        p->at = (size_t)(end + 1 - p->text);
        return 0;
}

static int parse_integer(struct parser *p, uint64_t *ret_value) {
        uint64_t value = 0;
        size_t start;

        skip_blanks(p);
        start = p->at;
        for (; p->at < p->n_bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9'; p->at++)
                if (__builtin_mul_overflow(value, 10u, &value) ||
                    __builtin_add_overflow(value, (uint64_t)(p->text[p->at] - '0'), &value))
                        return expected(p, "a length below 2^64");
        if (p->at == start)
                return expected(p, "a length (a non-negative integer)");
        *ret_value = value;
        return 0;
}

static int parse_shape(struct parser *p, struct npy_header *header) {
        int r = expect(p, "(");

        if (r < 0)
                return r;
        while (!accept(p, ")")) {
                uint64_t length;

                if (header->n_axes == AXES_MAX)
                        return expected(p, "at most 64 axes");
                r = parse_integer(p, &length);
                if (r < 0)
                        return r;
                if (header->n_axes < ARRAY_SIZE(header->axes))
                        header->axes[header->n_axes] = length;
                header->n_axes++;
                if (!accept(p, ","))
                        return expect(p, ")");
        }
        return 0;
}

static int parse_bool(struct parser *p, bool *ret_value) {
        if (accept(p, "True"))
                *ret_value = true;
        else if (accept(p, "False"))
                *ret_value = false;
        else
                return expected(p, "True or False");
        return 0;
}

/* Structured dtypes are a list of fields: valid, but not a table. */
static int parse_descr(struct parser *p, char ret_descr[16]) {
        if (accept(p, "["))
                return fault_set(p->fault, -EOPNOTSUPP,
                                 "descr: a structured dtype, expected one such as '<f4'");
        return parse_string(p, "a dtype such as '<f4'", ret_descr);
}

static int parse_header(struct parser *p, struct npy_header *ret_header) {
        static const char *const keys[] = { "descr", "fortran_order", "shape" };
        struct npy_header header = { 0 };
        uint32_t seen = 0;
        char key[16];
        size_t k;
        int r;

        r = expect(p, "{");
        while (r >= 0 && !accept(p, "}")) {
                r = parse_string(p, "a key", key);
                if (r < 0)
                        return r;
                for (k = 0; k < ARRAY_SIZE(keys) && strcmp(key, keys[k]) != 0; k++)
                        ;
                if (k == ARRAY_SIZE(keys) || seen & 1u << k)
                        return expected(p, "descr, fortran_order and shape, once each, before it");
                seen |= 1u << k;
                r = expect(p, ":");
                if (r < 0)
                        return r;
                r = k == 0   ? parse_descr(p, header.descr)
                    : k == 1 ? parse_bool(p, &header.fortran_order)
                             : parse_shape(p, &header);
                if (r < 0)
                        return r;
                if (!accept(p, ",")) {
                        r = expect(p, "}");
                        break;
                }
        }
        if (r < 0)
                return r;
        skip_blanks(p);
        if (p->at != p->n_bytes)
                return expected(p, "nothing after the dict");
        if (seen != 7)
                return expected(p, "descr, fortran_order and shape in the dict");
        *ret_header = header;
        return 0;
}

static int check_supported(const struct npy_header *h, struct fault *ret_fault) {
        if (h->descr[0] == '>')
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "descr: '%s' is big-endian, expected '<f2', '<f4' or '<f8'",
                                 h->descr);
        if (!npy_dtype(h->descr))
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "descr: '%s', expected '<f2', '<f4' or '<f8'", h->descr);
        if (h->n_axes != 2)
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "shape: %" PRIu32 " axes, expected 2 (rows, dimensions)",
                                 h->n_axes);
        if (h->fortran_order)
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "fortran_order: True, expected False (rows one after another)");
        if (!h->axes[0] || !h->axes[1] || h->axes[1] > SOURCE_DIMS_MAX)
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "shape: (%" PRIu64 ", %" PRIu64
                                 "), expected at least one row of 1 to %u dimensions",
                                 h->axes[0], h->axes[1], SOURCE_DIMS_MAX);
        return 0;
}

static int check_array(const struct npy_header *h, uint64_t file_bytes, struct tensor_list *list,
                       struct fault *ret_fault) {
        struct tensor *tensor;
        int r;

        r = tensor_list_add(list, "", 0, npy_dtype(h->descr), h->axes, h->n_axes, &tensor,
                            ret_fault);
        if (r < 0)
                return r;
        if (tensor->n_bytes != file_bytes - h->data_offset)
                return fault_set(ret_fault, -EBADMSG,
                                 "%" PRIu64 " bytes of data, expected %" PRIu64 " (%" PRIu64
                                 " x %" PRIu64 " x %s)",
                                 file_bytes - h->data_offset, tensor->n_bytes, h->axes[0],
                                 h->axes[1], tensor->dtype->name);
        tensor->offset = h->data_offset;
        return 0;
}

/* Where the text starts and how long it is: u16 in version 1, u32 later. */
static int check_preamble(const uint8_t *bytes, uint64_t file_bytes, size_t *ret_text_offset,
                          uint32_t *ret_text_bytes, struct fault *ret_fault) {
        uint32_t text_bytes = 0;
        size_t text_offset;

        if (memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
                return fault_set(ret_fault, -EBADMSG, "magic at byte 0: expected \\x93NUMPY");
        if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
                return fault_set(ret_fault, -EOPNOTSUPP,
                                 "version at byte 6: %u.%u, expected 1.0, 2.0 or 3.0", bytes[6],
                                 bytes[7]);
        text_offset = bytes[6] == 1 ? 10 : 12;
        memcpy(&text_bytes, bytes + 8, text_offset - 8);
        if (text_bytes > TEXT_BYTES_MAX || !range_inside(text_offset, text_bytes, file_bytes))
                return fault_set(ret_fault, -EBADMSG,
                                 "header length at byte 8: %" PRIu32 ", expected at most %" PRIu64,
                                 text_bytes,
                                 MIN((uint64_t)TEXT_BYTES_MAX, file_bytes - text_offset));
        *ret_text_offset = text_offset;
        *ret_text_bytes = text_bytes;
        return 0;
}

int npy_read_header(const void *bytes, size_t n_bytes, uint64_t file_bytes,
                    struct npy_header *ret_header, uint64_t *ret_need_bytes,
                    struct fault *ret_fault) {
        uint32_t text_bytes;
        size_t text_offset;
        int r;

        if (file_bytes < 12)
                return fault_set(ret_fault, -EBADMSG,
                                 "the file has %" PRIu64 " bytes, expected at least 12",
                                 file_bytes);
        *ret_need_bytes = 12;
        if (n_bytes < 12)
                return -EAGAIN;
        r = check_preamble(bytes, file_bytes, &text_offset, &text_bytes, ret_fault);
        if (r < 0)
                return r;
        *ret_need_bytes = text_offset + text_bytes;
        if (n_bytes < *ret_need_bytes)
                return -EAGAIN;

        struct parser parser = {
                .text = (const char *)bytes + text_offset,
                .n_bytes = text_bytes,
                .text_offset = text_offset,
                .fault = ret_fault,
        };

        r = parse_header(&parser, ret_header);
        if (r < 0)
                return r;
        ret_header->data_offset = text_offset + text_bytes;
        return 0;
}

int npy_check(const void *bytes, size_t n_bytes, uint64_t file_bytes, struct tensor_list *ret_list,
              uint64_t *ret_need_bytes, struct fault *ret_fault) {
        _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
        struct npy_header header;
        int r;

        r = npy_read_header(bytes, n_bytes, file_bytes, &header, ret_need_bytes, ret_fault);
        if (r < 0)
                return r;
        r = check_supported(&header, ret_fault);
        if (r < 0)
                return r;
        r = check_array(&header, file_bytes, &list, ret_fault);
        if (r < 0)
                return r;
        *ret_list = list;
        list = (struct tensor_list){ 0 };
        return 0;
}

bool npy_probe(const uint8_t *head, size_t head_bytes) {
        return head_bytes >= MAGIC_BYTES && !memcmp(head, MAGIC, MAGIC_BYTES);
}

static int npy_open(struct source *source, struct fault *ret_fault) {
        return source_scan(source, 0, npy_check, NPY_HEADER_BYTES_MAX, &source->list, ret_fault);
}

const struct source_format source_format_npy = {
        .name = "npy",
        .probe = npy_probe,
        .open = npy_open,
};

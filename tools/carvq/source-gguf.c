/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF versions 2 and 3, little-endian (the format's description in ggml's docs/gguf.md): counts,
 * key-value pairs, tensor descriptions, then aligned data. The header does not say how long it is,
 * so a cursor walks over a prefix of the file and asks for more when it comes to the end. Every
 * length is compared with what the file still has before it is followed, so an absurd count costs
 * nothing. Runs on the thread that opens the source.
 */
#include "source-impl.h"

#include <string.h>

#define HEADER_BYTES_MAX      (UINT64_C(256) << 20) /* tokenizers make real ones some 20 MB long */
#define AXES_MAX              4u                    /* GGML_MAX_DIMS */
#define NAME_BYTES_MAX        1024u                 /* ggml itself stops at 64 */
#define ARRAY_DEPTH_MAX       4u
#define DEFAULT_ALIGNMENT     32u

#define KEY_VALUE_BYTES_MIN   13u /* empty key, type, one byte */
#define TENSOR_INFO_BYTES_MIN 24u /* empty name, no axes, type, offset */

enum value_type {
        VALUE_UINT32 = 4,
        VALUE_STRING = 8,
        VALUE_ARRAY = 9,
};

/* Of scalar types; string and array are 0. */
static const uint8_t value_bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

struct cursor {
        const uint8_t *bytes; /* a prefix of the file */
        uint64_t n_bytes;
        uint64_t file_bytes;
        uint64_t at;
        uint64_t need_bytes; /* when a step returned -EAGAIN */
        uint32_t alignment;
        struct fault *fault;
};

static int cursor_take(struct cursor *c, uint64_t n_bytes, const char *what,
                       const uint8_t **ret_bytes) {
        if (!range_inside(c->at, n_bytes, c->file_bytes))
                return fault_set(c->fault, -EBADMSG,
                                 "%s at byte %" PRIu64 ": %" PRIu64
                                 " bytes, the file ends after %" PRIu64,
                                 what, c->at, n_bytes, c->file_bytes - c->at);
        if (!range_inside(c->at, n_bytes, c->n_bytes)) {
                c->need_bytes = c->at + n_bytes;
                return -EAGAIN;
        }
        *ret_bytes = c->bytes + c->at;
        c->at += n_bytes;
        return 0;
}

static int cursor_take_u32(struct cursor *c, const char *what, uint32_t *ret_value) {
        const uint8_t *bytes;
        int r = cursor_take(c, sizeof(*ret_value), what, &bytes);

        if (r >= 0)
                memcpy(ret_value, bytes, sizeof(*ret_value));
        return r;
}

static int cursor_take_u64(struct cursor *c, const char *what, uint64_t *ret_value) {
        const uint8_t *bytes;
        int r = cursor_take(c, sizeof(*ret_value), what, &bytes);

        if (r >= 0)
                memcpy(ret_value, bytes, sizeof(*ret_value));
        return r;
}

/* A number of things that take at least `min_bytes` each, compared with what the file still has. */
static int cursor_take_count(struct cursor *c, const char *what, uint64_t min_bytes,
                             uint64_t *ret_count) {
        uint64_t at = c->at, count;
        int r = cursor_take_u64(c, what, &count);

        if (r < 0)
                return r;
        if (count > (c->file_bytes - c->at) / min_bytes)
                return fault_set(c->fault, -EBADMSG,
                                 "%s at byte %" PRIu64 ": %" PRIu64
                                 ", the rest of the file has room for %" PRIu64,
                                 what, at, count, (c->file_bytes - c->at) / min_bytes);
        *ret_count = count;
        return 0;
}

static int cursor_take_string(struct cursor *c, const char *what, const char **ret_string,
                              uint64_t *ret_n_bytes) {
        const uint8_t *bytes;
        uint64_t n_bytes;
        int r;

        r = cursor_take_u64(c, what, &n_bytes);
        if (r < 0)
                return r;
        r = cursor_take(c, n_bytes, what, &bytes);
        if (r < 0)
                return r;
        *ret_string = (const char *)bytes;
        *ret_n_bytes = n_bytes;
        return 0;
}

static int skip_scalars(struct cursor *c, uint32_t type, uint64_t n) {
        const uint8_t *bytes;

        /* No overflow: n is 1, or a count that fitted into the file. */
        return cursor_take(c, n * value_bytes[type], "value", &bytes);
}

static int check_value_type(struct cursor *c, uint32_t type) {
        if (type < ARRAY_SIZE(value_bytes))
                return 0;
        return fault_set(c->fault, -EBADMSG,
                         "value type before byte %" PRIu64 ": %" PRIu32 ", expected 0 to %zu",
                         c->at, type, ARRAY_SIZE(value_bytes) - 1);
}

static int skip_array(struct cursor *c, uint32_t depth);

static int skip_values(struct cursor *c, uint32_t type, uint64_t n, uint32_t depth) {
        const char *string;
        uint64_t n_bytes;
        int r = 0;

        if (value_bytes[type])
                return skip_scalars(c, type, n);
        for (uint64_t i = 0; i < n && r >= 0; i++)
                r = type == VALUE_STRING ? cursor_take_string(c, "string", &string, &n_bytes)
                                         : skip_array(c, depth + 1);
        return r;
}

static int skip_array(struct cursor *c, uint32_t depth) {
        uint64_t count, min_bytes;
        uint32_t type;
        int r;

        if (depth > ARRAY_DEPTH_MAX)
                return fault_set(c->fault, -EBADMSG,
                                 "array at byte %" PRIu64 ": nested deeper than %u", c->at,
                                 ARRAY_DEPTH_MAX);
        r = cursor_take_u32(c, "array type", &type);
        if (r < 0)
                return r;
        r = check_value_type(c, type);
        if (r < 0)
                return r;
        min_bytes = type == VALUE_STRING ? 8 : type == VALUE_ARRAY ? 12 : value_bytes[type];
        r = cursor_take_count(c, "array length", min_bytes, &count);
        return r < 0 ? r : skip_values(c, type, count, depth);
}

/* The one key that matters here; 0 stands for "not seen yet". */
static int take_alignment(struct cursor *c, uint32_t type) {
        uint64_t at = c->at;
        uint32_t alignment;
        int r;

        if (type != VALUE_UINT32)
                return fault_set(c->fault, -EBADMSG,
                                 "general.alignment at byte %" PRIu64 ": type %" PRIu32
                                 ", expected 4 (uint32)",
                                 at, type);
        r = cursor_take_u32(c, "general.alignment", &alignment);
        if (r < 0)
                return r;
        if (!alignment || (alignment & (alignment - 1)))
                return fault_set(c->fault, -EBADMSG,
                                 "general.alignment at byte %" PRIu64 ": %" PRIu32
                                 ", expected a power of two",
                                 at, alignment);
        if (c->alignment)
                return fault_set(c->fault, -EBADMSG,
                                 "general.alignment at byte %" PRIu64 ": a second time", at);
        c->alignment = alignment;
        return 0;
}

static int take_key_value(struct cursor *c) {
        static const char alignment_key[] = "general.alignment";
        uint64_t key_bytes;
        const char *key;
        uint32_t type;
        int r;

        r = cursor_take_string(c, "key", &key, &key_bytes);
        if (r < 0)
                return r;
        r = cursor_take_u32(c, "value type", &type);
        if (r < 0)
                return r;
        r = check_value_type(c, type);
        if (r < 0)
                return r;
        if (key_bytes == strlen(alignment_key) && !memcmp(key, alignment_key, key_bytes))
                return take_alignment(c, type);
        return type == VALUE_ARRAY ? skip_array(c, 1) : skip_values(c, type, 1, 0);
}

/* Offsets count from the start of the data, which is not known yet. */
static int take_tensor_info(struct cursor *c, struct tensor_list *list) {
        uint64_t name_bytes, ne[AXES_MAX], axes[AXES_MAX], offset, at = c->at;
        struct tensor *tensor;
        uint32_t n_axes, type;
        const char *name;
        int r;

        r = cursor_take_string(c, "tensor name", &name, &name_bytes);
        if (r < 0)
                return r;
        if (name_bytes > NAME_BYTES_MAX)
                return fault_set(c->fault, -EBADMSG,
                                 "tensor name at byte %" PRIu64 ": %" PRIu64
                                 " bytes, expected at most %u",
                                 at, name_bytes, NAME_BYTES_MAX);
        r = cursor_take_u32(c, "number of axes", &n_axes);
        if (r < 0)
                return r;
        if (n_axes > AXES_MAX)
                return fault_set(c->fault, -EBADMSG,
                                 "tensor at byte %" PRIu64 ": %" PRIu32
                                 " axes, expected at most %u",
                                 at, n_axes, AXES_MAX);
        for (uint32_t i = 0; i < n_axes; i++) {
                r = cursor_take_u64(c, "axis", &ne[i]);
                if (r < 0)
                        return r;
        }
        r = cursor_take_u32(c, "tensor type", &type);
        if (r < 0)
                return r;
        r = cursor_take_u64(c, "tensor offset", &offset);
        if (r < 0)
                return r;

        /* ne[0] is the contiguous axis, the width of a row. */
        for (uint32_t i = 0; i < n_axes; i++)
                axes[i] = ne[n_axes - 1 - i];
        r = tensor_list_add(list, name, (size_t)name_bytes, gguf_dtype(type), axes, n_axes, &tensor,
                            c->fault);
        if (r < 0)
                return r;
        tensor->offset = offset;
        return 0;
}

/* `c` stands behind the last tensor info: the data starts at the next aligned byte. */
static int place_tensors(const struct cursor *c, struct tensor_list *list) {
        uint32_t alignment = c->alignment ? c->alignment : DEFAULT_ALIGNMENT;
        uint64_t data_offset = align_up(c->at, alignment);

        for (size_t i = 0; i < list->n_tensors; i++) {
                struct tensor *t = &list->tensors[i];

                if (t->offset % alignment)
                        return fault_set(c->fault, -EBADMSG,
                                         "tensor '%.80s', offset %" PRIu64
                                         ": expected a multiple of %" PRIu32,
                                         t->info.name, t->offset, alignment);
                if (!range_inside(data_offset, t->offset, c->file_bytes) ||
                    !range_inside(data_offset + t->offset, t->n_bytes, c->file_bytes))
                        return fault_set(c->fault, -EBADMSG,
                                         "tensor '%.80s': %" PRIu64 " bytes at %" PRIu64
                                         " + %" PRIu64 ", the file has %" PRIu64,
                                         t->info.name, t->n_bytes, data_offset, t->offset,
                                         c->file_bytes);
                t->offset += data_offset;
        }
        return tensor_list_settle(list, c->fault);
}

static int check_identity(struct cursor *c) {
        uint32_t magic, version;
        int r;

        r = cursor_take_u32(c, "magic", &magic);
        if (r < 0)
                return r;
        if (memcmp(&magic, "GGUF", sizeof(magic)) != 0)
                return fault_set(c->fault, -EBADMSG, "magic at byte 0: expected 'GGUF'");
        r = cursor_take_u32(c, "version", &version);
        if (r < 0)
                return r;
        if (version == 2 || version == 3)
                return 0;
        return fault_set(c->fault, -EOPNOTSUPP,
                         "version at byte 4: 0x%08" PRIx32 "%s, expected 2 or 3", version,
                         version & 0xffff ? "" : " (big-endian)");
}

/* All steps in file order; -EAGAIN from any of them means a longer prefix is needed. */
static int check(struct cursor *c, struct tensor_list *list) {
        uint64_t n_tensors, n_key_values;
        int r;

        r = check_identity(c);
        if (r < 0)
                return r;
        r = cursor_take_count(c, "number of tensors", TENSOR_INFO_BYTES_MIN, &n_tensors);
        if (r < 0)
                return r;
        r = cursor_take_count(c, "number of key-value pairs", KEY_VALUE_BYTES_MIN, &n_key_values);
        if (r < 0)
                return r;
        for (uint64_t i = 0; i < n_key_values; i++) {
                r = take_key_value(c);
                if (r < 0)
                        return r;
        }
        for (uint64_t i = 0; i < n_tensors; i++) {
                r = take_tensor_info(c, list);
                if (r < 0)
                        return r;
        }
        return place_tensors(c, list);
}

int gguf_check(const void *bytes, size_t n_bytes, uint64_t file_bytes, struct tensor_list *ret_list,
               uint64_t *ret_need_bytes, struct fault *ret_fault) {
        _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
        struct cursor cursor = {
                .bytes = bytes,
                .n_bytes = n_bytes,
                .file_bytes = file_bytes,
                .fault = ret_fault,
        };
        int r;

        r = check(&cursor, &list);
        if (r == -EAGAIN)
                *ret_need_bytes = cursor.need_bytes;
        if (r < 0)
                return r;
        *ret_list = list;
        list = (struct tensor_list){ 0 };
        return 0;
}

static bool gguf_probe(const uint8_t *head, size_t head_bytes) {
        return head_bytes >= 4 && !memcmp(head, "GGUF", 4);
}

static int gguf_open(struct source *source, struct fault *ret_fault) {
        return source_scan(source, 0, gguf_check, HEADER_BYTES_MAX, &source->list, ret_fault);
}

const struct source_format source_format_gguf = {
        .name = "gguf",
        .probe = gguf_probe,
        .open = gguf_open,
};

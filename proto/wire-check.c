/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of the socket: one packet in, its type or one sentence out. Pure; used by both sides,
 * because a client need not trust what answers on a path either.
 */
#include "wire.h"

#include <string.h>

struct wire_rule {
        const char *name;
        size_t bytes;
        size_t n_fds;       /* none where there is a status and it is not WIRE_OK */
        size_t text_offset; /* of a NUL-padded text; 0: none */
        size_t text_bytes;
        size_t reserved_offset; /* of a u32 that must be 0; 0: none */
        size_t status_offset;   /* of a u32 that decides about descriptors; 0: none */
};

static const struct wire_rule rules[] = {
        [WIRE_HELLO] = { "HELLO", sizeof(struct wire_hello), 0, offsetof(struct wire_hello, name),
                         WIRE_NAME_BYTES, offsetof(struct wire_hello, reserved), 0 },
        [WIRE_WELCOME] = { "WELCOME", sizeof(struct wire_welcome), 0,
                           offsetof(struct wire_welcome, server), WIRE_NAME_BYTES, 0, 0 },
        [WIRE_RING] = { "RING", sizeof(struct wire_ring), 1, 0, 0, 0, 0 },
        [WIRE_READY] = { "READY", sizeof(struct wire_ready), 1, 0, 0, 0, 0 },
        [WIRE_OPEN_TABLE] = { "OPEN_TABLE", sizeof(struct wire_open_table), 0,
                              offsetof(struct wire_open_table, name), WIRE_NAME_BYTES, 0, 0 },
        [WIRE_TABLE] = { "TABLE", sizeof(struct wire_table), 0, offsetof(struct wire_table, text),
                         WIRE_TEXT_BYTES, offsetof(struct wire_table, reserved), 0 },
        [WIRE_CLOSE_TABLE] = { "CLOSE_TABLE", sizeof(struct wire_close_table), 0, 0, 0, 0, 0 },
        [WIRE_WAKE] = { "WAKE", sizeof(struct wire_wake), 0, 0, 0, 0, 0 },
        [WIRE_ERROR] = { "ERROR", sizeof(struct wire_error), 0, offsetof(struct wire_error, text),
                         WIRE_TEXT_BYTES, offsetof(struct wire_error, reserved), 0 },
        [WIRE_GET_FILE] = { "GET_FILE", sizeof(struct wire_get_file), 0, 0, 0, 0, 0 },
        [WIRE_FILE] = { "FILE", sizeof(struct wire_file), 1, offsetof(struct wire_file, text),
                        WIRE_TEXT_BYTES, offsetof(struct wire_file, reserved),
                        offsetof(struct wire_file, status) },
        [WIRE_GET_CACHE] = { "GET_CACHE", sizeof(struct wire_get_cache), 0, 0, 0, 0, 0 },
        [WIRE_CACHE] = { "CACHE", sizeof(struct wire_cache), 1, offsetof(struct wire_cache, text),
                         WIRE_TEXT_BYTES, 0, offsetof(struct wire_cache, status) },
};

bool wire_text_padded(const char *text, size_t bytes) {
        size_t n = strnlen(text, bytes);

        if (n == bytes)
                return false;
        while (n < bytes)
                if (text[n++])
                        return false;
        return true;
}

int wire_check_version(const void *message, size_t bytes, struct fault *ret_fault) {
        struct wire_hello start = { 0 }; /* only the part that all versions share is filled */
        const size_t n = offsetof(struct wire_hello, reserved);

        memcpy(&start, message, MIN(bytes, n));
        if (bytes < n || (start.header.type != WIRE_HELLO && start.header.type != WIRE_WELCOME))
                return 0; /* wire_check() has the word */
        if (start.magic != WIRE_MAGIC)
                return fault_set(ret_fault, -EPROTO,
                                 "%s: magic is 0x%" PRIx64 ", expected 0x%" PRIx64,
                                 rules[start.header.type].name, start.magic, WIRE_MAGIC);
        if (start.version_major != WIRE_VERSION_MAJOR)
                return fault_set(ret_fault, -EPROTONOSUPPORT,
                                 "%s: protocol version %u.%u, expected %u.x",
                                 rules[start.header.type].name, start.version_major,
                                 start.version_minor, WIRE_VERSION_MAJOR);
        return 0;
}

int wire_check(const void *message, size_t bytes, size_t n_fds, struct fault *ret_fault) {
        const struct wire_rule *rule;
        struct wire_header header;
        uint32_t reserved = 0, status = WIRE_OK;
        size_t n_fds_expected;

        if (bytes < sizeof(header))
                return fault_set(ret_fault, -EPROTO,
                                 "a message of %zu bytes, expected at least %zu", bytes,
                                 sizeof(header));
        memcpy(&header, message, sizeof(header));
        if (header.type < WIRE_HELLO || header.type > WIRE_TYPE_LAST)
                return fault_set(ret_fault, -EPROTO, "message type %" PRIu32 " is unknown",
                                 header.type);
        rule = &rules[header.type];
        if (bytes != rule->bytes || header.bytes != rule->bytes)
                return fault_set(ret_fault, -EPROTO,
                                 "%s of %zu bytes that claims %" PRIu32 ", expected %zu",
                                 rule->name, bytes, header.bytes, rule->bytes);
        if (rule->status_offset)
                memcpy(&status, (const uint8_t *)message + rule->status_offset, sizeof(status));
        n_fds_expected = status == WIRE_OK ? rule->n_fds : 0;
        if (n_fds != n_fds_expected)
                return fault_set(ret_fault, -EPROTO, "%s with %zu descriptors, expected %zu",
                                 rule->name, n_fds, n_fds_expected);
        if (rule->reserved_offset)
                memcpy(&reserved, (const uint8_t *)message + rule->reserved_offset,
                       sizeof(reserved));
        if (reserved)
                return fault_set(ret_fault, -EPROTO,
                                 "%s: reserved field is 0x%" PRIx32 ", expected 0", rule->name,
                                 reserved);
        if (rule->text_offset &&
            !wire_text_padded((const char *)message + rule->text_offset, rule->text_bytes))
                return fault_set(ret_fault, -EPROTO,
                                 "%s: text is not padded with zeros to %zu bytes", rule->name,
                                 rule->text_bytes);
        return (int)header.type;
}

bool wire_table_name_valid(const char *name) {
        size_t n =
                strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

        return n > 0 && n < WIRE_NAME_BYTES && name[n] == '\0' && name[0] != '.';
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See varlink.h. jansson refuses what nests deeper than 2048, duplicate keys and "\u0000". */
#include "varlink.h"

#include <string.h>

int varlink_frame(const char *bytes, size_t n_bytes, size_t *ret_message_bytes) {
        const char *end = memchr(bytes, '\0', MIN(n_bytes, VARLINK_CALL_BYTES_MAX));

        if (!end)
                return n_bytes < VARLINK_CALL_BYTES_MAX ? 0 : -EMSGSIZE;
        *ret_message_bytes = (size_t)(end - bytes);
        return 1;
}

/* An absent field counts as false. */
static int get_flag(const json_t *message, const char *name, bool *ret_flag,
                    struct fault *ret_fault) {
        const json_t *flag = json_object_get(message, name);

        if (flag && !json_is_boolean(flag) && !json_is_null(flag))
                return fault_set(ret_fault, -EBADMSG, "varlink call: \"%s\" is not true or false",
                                 name);
        *ret_flag = json_is_true(flag);
        return 0;
}

static int get_method(const json_t *message, const char **ret_method, struct fault *ret_fault) {
        const char *method = json_string_value(json_object_get(message, "method"));

        if (!method)
                return fault_set(ret_fault, -EBADMSG,
                                 "varlink call: \"method\" is missing or no string");
        *ret_method = method;
        return 0;
}

static int get_parameters(const json_t *message, json_t **ret_parameters, struct fault *ret_fault) {
        json_t *parameters = json_object_get(message, "parameters");

        if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
                return fault_set(ret_fault, -EBADMSG, "varlink call: \"parameters\" is no object");
        *ret_parameters = json_is_object(parameters) ? parameters : NULL;
        return 0;
}

int varlink_call_parse(const char *bytes, size_t n_bytes, struct varlink_call *ret_call,
                       struct fault *ret_fault) {
        _cleanup_(json_decrefp) json_t *message = NULL;
        struct varlink_call call = { 0 };
        json_error_t error;
        bool more;
        int r;

        message = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES, &error);
        if (!message && json_error_code(&error) == json_error_out_of_memory)
                return fault_set(ret_fault, -ENOMEM, "varlink call: out of memory");
        if (!message)
                return fault_set(ret_fault, -EBADMSG, "varlink call: byte %d: %s", error.position,
                                 error.text);
        if (!json_is_object(message))
                return fault_set(ret_fault, -EBADMSG, "varlink call: no JSON object");

        r = get_method(message, &call.method, ret_fault);
        if (r >= 0)
                r = get_parameters(message, &call.parameters, ret_fault);
        if (r >= 0)
                r = get_flag(message, "oneway", &call.oneway, ret_fault);
        if (r >= 0)
                r = get_flag(message, "upgrade", &call.upgrade, ret_fault);
        /* "more" permits several replies and does not demand them: one is always enough here. */
        if (r >= 0)
                r = get_flag(message, "more", &more, ret_fault);
        if (r < 0)
                return r;
        call.message = steal_pointer(&message);
        *ret_call = call;
        return 0;
}

json_t *varlink_reply_new(json_t *parameters) {
        return json_pack("{so}", "parameters", parameters);
}

json_t *varlink_error_new(const char *error, json_t *parameters) {
        return json_pack("{ssso}", "error", error, "parameters", parameters);
}

json_t *varlink_object_new(const struct varlink_field *fields, size_t n_fields) {
        json_t *object = json_object();
        bool ok = true;

        for (size_t i = 0; i < n_fields; i++)
                if (json_object_set_new(object, fields[i].name, fields[i].value) < 0)
                        ok = false;
        if (ok)
                return object;
        json_decref(object);
        return NULL;
}

/* Of the terminal, so that a client's name cannot steer it: C0, DEL, and C1 in UTF-8. */
static bool starts_control(const unsigned char *c) {
        return c[0] < ' ' || c[0] == 0x7f || (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0);
}

/* Not json_dumps(), which (2.14) leaves keys out when it has no memory for them and says nothing.
 */
char *varlink_dump(const json_t *message) {
        size_t n = json_dumpb(message, NULL, 0, JSON_COMPACT);
        char *text = n ? calloc(1, n + 1) : NULL;

        if (text && json_dumpb(message, text, n, JSON_COMPACT) != n)
                free(steal_pointer(&text));
        return text;
}

json_t *varlink_text(const char *text) {
        _cleanup_(freep) char *copy = strdup(text);
        json_t *json;

        if (!copy)
                return NULL;
        for (char *c = copy; *c; c++)
                if (starts_control((unsigned char *)c)) {
                        if (*c & 0x80)
                                *c++ = '?';
                        *c = '?';
                }
        json = json_string(copy);
        if (json)
                return json;
        for (char *c = copy; *c; c++)
                if ((unsigned char)*c >= 0x80)
                        *c = '?';
        return json_string(copy);
}

json_t *varlink_number(uint64_t number) {
        return json_integer((json_int_t)MIN(number, (uint64_t)INT64_MAX));
}

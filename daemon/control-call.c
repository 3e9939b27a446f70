/* SPDX-License-Identifier: Apache-2.0 */
/* See control-call.h. Trusts nothing in the message. */
#include "control-call.h"

#include <string.h>

struct parameter {
        const char *name; /* NULL: no more */
        bool nullable;
};

static const struct {
        const char *name;
        struct parameter parameters[CONTROL_ARGUMENTS_MAX];
} methods[CONTROL_METHODS_N] = {
        [CONTROL_GET_INFO] = { CONTROL_SERVICE_INTERFACE ".GetInfo", { { 0 } } },
        [CONTROL_GET_INTERFACE_DESCRIPTION] = { CONTROL_SERVICE_INTERFACE
                                                ".GetInterfaceDescription",
                                                { { "interface", false } } },
        [CONTROL_GET_STATUS] = { CONTROL_INTERFACE ".GetStatus", { { 0 } } },
        [CONTROL_LIST_TABLES] = { CONTROL_INTERFACE ".ListTables", { { 0 } } },
        [CONTROL_LIST_CLIENTS] = { CONTROL_INTERFACE ".ListClients", { { 0 } } },
        [CONTROL_GET_STATS] = { CONTROL_INTERFACE ".GetStats", { { "table", true } } },
        [CONTROL_LOAD_TABLE] = { CONTROL_INTERFACE ".LoadTable",
                                 { { "name", false }, { "path", false } } },
        [CONTROL_UNLOAD_TABLE] = { CONTROL_INTERFACE ".UnloadTable", { { "name", false } } },
        [CONTROL_RELOAD] = { CONTROL_INTERFACE ".Reload", { { 0 } } },
};

const char *control_method_name(enum control_method method) {
        return methods[method].name;
}

/* org.varlink.service's errors all have one field that quotes what was wrong. */
static int refuse(struct control_call *call, const char *error, const char *field, json_t *value) {
        call->refusal = varlink_error_new(error, json_pack("{so}", field, value));
        return call->refusal ? 0 : -ENOMEM;
}

static int refuse_parameter(struct control_call *call, const char *name) {
        return refuse(call, CONTROL_SERVICE_INTERFACE ".InvalidParameter", "parameter",
                      json_string(name));
}

/* The interface is what stands before the last dot. */
static int refuse_method(struct control_call *call, const char *method) {
        const char *dot = strrchr(method, '.');
        size_t n = dot ? (size_t)(dot - method) : strlen(method);

        if ((n == strlen(CONTROL_INTERFACE) && !memcmp(method, CONTROL_INTERFACE, n)) ||
            (n == strlen(CONTROL_SERVICE_INTERFACE) &&
             !memcmp(method, CONTROL_SERVICE_INTERFACE, n)))
                return refuse(call, CONTROL_SERVICE_INTERFACE ".MethodNotFound", "method",
                              json_string(method));
        return refuse(call, CONTROL_SERVICE_INTERFACE ".InterfaceNotFound", "interface",
                      json_stringn(method, n));
}

static bool has_parameter(const struct parameter parameters[CONTROL_ARGUMENTS_MAX],
                          const char *name) {
        for (size_t i = 0; i < CONTROL_ARGUMENTS_MAX && parameters[i].name; i++)
                if (!strcmp(parameters[i].name, name))
                        return true;
        return false;
}

/* The first parameter that is missing, unknown or no string; NULL: all are well. */
static const char *take_arguments(struct control_call *call, json_t *given) {
        const struct parameter *parameters = methods[call->method].parameters;
        const char *name;
        json_t *value;

        for (size_t i = 0; i < CONTROL_ARGUMENTS_MAX && parameters[i].name; i++) {
                value = json_object_get(given, parameters[i].name);
                if (value && !json_is_null(value) && !json_is_string(value))
                        return parameters[i].name;
                call->arguments[i] = json_string_value(value);
                if (!call->arguments[i] && !parameters[i].nullable)
                        return parameters[i].name;
        }
        json_object_foreach(given, name, value) if (!has_parameter(parameters, name)) return name;
        return NULL;
}

static int resolve(struct control_call *call, const struct varlink_call *varlink) {
        const char *bad;
        size_t i;

        for (i = 0; i < ARRAY_SIZE(methods); i++)
                if (!strcmp(methods[i].name, varlink->method))
                        break;
        if (i == ARRAY_SIZE(methods))
                return refuse_method(call, varlink->method);
        if (varlink->upgrade)
                return refuse(call, CONTROL_SERVICE_INTERFACE ".MethodNotImplemented", "method",
                              json_string(varlink->method));
        call->method = (enum control_method)i;
        bad = take_arguments(call, varlink->parameters);
        return bad ? refuse_parameter(call, bad) : 0;
}

int control_call_parse(const char *message, size_t n_bytes, struct control_call *ret_call,
                       struct fault *ret_fault) {
        struct control_call call = { 0 };
        struct varlink_call varlink;
        int r;

        r = varlink_call_parse(message, n_bytes, &varlink, ret_fault);
        if (r < 0)
                return r;
        call.message = varlink.message;
        call.oneway = varlink.oneway;
        r = resolve(&call, &varlink);
        if (r < 0) {
                control_call_deinit(&call);
                return fault_set(ret_fault, r, "control call: out of memory");
        }
        *ret_call = call;
        return 0;
}

void control_call_deinit(struct control_call *call) {
        json_decref(call->message);
        json_decref(call->refusal);
        *call = (struct control_call){ 0 };
}

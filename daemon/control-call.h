/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes of a varlink call to one of our methods with checked arguments, or to the refusal
 * that answers it. Pure: the gate of the control socket, and its fuzz target.
 */
#pragma once

#include "varlink.h"

#define CONTROL_SERVICE_INTERFACE "org.varlink.service"
#define CONTROL_INTERFACE         "io.carvq.Control"

enum control_method {
        CONTROL_GET_INFO,
        CONTROL_GET_INTERFACE_DESCRIPTION,
        CONTROL_GET_STATUS,
        CONTROL_LIST_TABLES,
        CONTROL_LIST_CLIENTS,
        CONTROL_GET_STATS,
        CONTROL_LOAD_TABLE,
        CONTROL_UNLOAD_TABLE,
        CONTROL_RELOAD,
        CONTROL_METHODS_N,
};

/* With its interface. */
const char *control_method_name(enum control_method method);

#define CONTROL_ARGUMENTS_MAX 2u

struct control_call {
        json_t *message; /* owned; the arguments point into it */
        enum control_method method;
        /* In the order of the .varlink file; all of ours are strings. NULL: null or absent. */
        const char *arguments[CONTROL_ARGUMENTS_MAX];
        bool oneway;
        json_t *refusal; /* owned; not NULL: the reply, and method and arguments are not set */
};

/*
 * One message without its NUL. 0: a call or a refusal. -EBADMSG: not varlink, the connection cannot
 * go on; -ENOMEM. The fault says why.
 */
int control_call_parse(const char *message, size_t n_bytes, struct control_call *ret_call,
                       struct fault *ret_fault);
void control_call_deinit(struct control_call *call);

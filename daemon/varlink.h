/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The varlink protocol (varlink.org): JSON objects, each ended by a NUL, on a stream. Framing,
 * calls and replies as pure functions; what the methods mean is in control-call.h. A call's bytes
 * are hostile until they are parsed here.
 */
#pragma once

#include <jansson.h>

#include "proto/base.h"

/* Of one call with its NUL. The longest honest one carries a path of 4096 bytes. */
#define VARLINK_CALL_BYTES_MAX 65536u

/*
 * The first message in a stream's `bytes`. 1: it is `*ret_message_bytes` long, without the NUL
 * behind it. 0: it is not complete. -EMSGSIZE: and it never will be within the limit.
 */
int varlink_frame(const char *bytes, size_t n_bytes, size_t *ret_message_bytes);

struct varlink_call {
        json_t *message;    /* owned; the others point into it */
        const char *method; /* with its interface: "org.example.Thing.Do" */
        json_t *parameters; /* an object; NULL if there are none */
        bool oneway;        /* the caller wants no reply */
        bool upgrade;       /* the caller wants to speak another protocol afterwards */
};

/* -EBADMSG: not a varlink call, so nothing that could be answered; the fault says why. -ENOMEM. */
int varlink_call_parse(const char *message, size_t n_bytes, struct varlink_call *ret_call,
                       struct fault *ret_fault);

/* Both take over `parameters`, and return NULL without memory or if `parameters` is NULL. */
json_t *varlink_reply_new(json_t *parameters);
json_t *varlink_error_new(const char *error, json_t *parameters);

/* An object of fields whose values it takes over; NULL if one of them is NULL. */
struct varlink_field {
        const char *name;
        json_t *value;
};
json_t *varlink_object_new(const struct varlink_field *fields, size_t n_fields);

/* A message's bytes, compact, with a NUL; whole, or NULL without memory. */
char *varlink_dump(const json_t *message);

/* A string for JSON: bytes that are not UTF-8 and control characters become '?'. */
json_t *varlink_text(const char *text);

/* JSON has no unsigned numbers: what is above 2^63 - 1 is cut to that. */
json_t *varlink_number(uint64_t number);

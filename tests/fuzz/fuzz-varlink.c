/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon/varlink.c and control-call.c: a stream of calls, cut into messages, parsed, resolved to a
 * method with its arguments or refused; then the same stream to a whole daemon's control socket, in
 * pieces. Calls that would open a path, or take long, end it there.
 */
#include "daemon-thread.h"
#include "daemon/control-call.h"
#include "fuzz.h"

#define CALLS_MAX 64u
#define SENT_MAX  4096u /* what a socket takes without anybody reading */
#define PIECE_MIN 7u

int LLVMFuzzerInitialize(int *argc, char ***argv) {
        (void)argc;
        (void)argv;
        daemon_thread_start();
        return 0;
}

/* What a daemon may be asked as often as one likes. */
static bool is_harmless(const struct control_call *call) {
        return call->refusal || call->method == CONTROL_GET_INFO ||
               call->method == CONTROL_GET_INTERFACE_DESCRIPTION ||
               call->method == CONTROL_GET_STATUS || call->method == CONTROL_LIST_CLIENTS ||
               (call->method == CONTROL_UNLOAD_TABLE && strcmp(call->arguments[0], "small") != 0);
}

static void check_text(const char *text) {
        json_t *json = varlink_text(text);

        require(json, "a string of any bytes");
        for (const unsigned char *c = (const unsigned char *)json_string_value(json); *c; c++)
                require(*c >= ' ' && *c != 0x7f && !(c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0),
                        "no control characters");
        json_decref(json);
}

/* 1: harmless, 0: not, negative: the connection would end. */
static int check_call(const char *message, size_t n_bytes) {
        _cleanup_(freep) char *copy = copy_exactly(message, n_bytes);
        struct control_call call = { 0 };
        struct fault fault = { 0 };
        int r = control_call_parse(copy, n_bytes, &call, &fault);

        if (r < 0) {
                require(r == -EBADMSG && *fault.text && !call.message, "a refusal has a reason");
                return r;
        }
        require(call.message, "owned");
        require(call.refusal || call.method < CONTROL_METHODS_N, "a method");
        for (size_t i = 0; !call.refusal && i < CONTROL_ARGUMENTS_MAX; i++)
                if (call.arguments[i])
                        check_text(call.arguments[i]);
        if (call.refusal) {
                char *reply = json_dumps(call.refusal, JSON_COMPACT);

                require(reply, "a refusal can be sent");
                free(reply);
        }
        r = is_harmless(&call);
        control_call_deinit(&call);
        return r;
}

/* How much of the stream a daemon can have. */
static size_t check_stream(const char *bytes, size_t n_bytes) {
        size_t at = 0, length;

        for (uint32_t i = 0; i < CALLS_MAX; i++) {
                _cleanup_(freep) char *rest = copy_exactly(bytes + at, n_bytes - at);
                int r = varlink_frame(rest, n_bytes - at, &length);

                if (r <= 0)
                        return n_bytes;
                require(length < n_bytes - at && !bytes[at + length], "a message and its NUL");
                r = check_call(bytes + at, length);
                if (r < 0)
                        return n_bytes;
                if (r == 0)
                        return at;
                at += length + 1;
        }
        return at;
}

static void talk(const char *bytes, size_t n_bytes) {
        int fd = daemon_thread_connect(SOCK_STREAM);
        size_t piece = PIECE_MIN + (uint8_t)bytes[0];

        for (size_t at = 0, n; at < n_bytes; at += n) {
                n = MIN(piece * (at + 1), n_bytes - at);
                if (send(fd, bytes + at, n, MSG_NOSIGNAL) < (ssize_t)n)
                        break;
        }
        shutdown(fd, SHUT_WR);
        daemon_thread_drain(fd);
        close(fd);
        daemon_thread_settle();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        size_t n_sent;

        check_text(n_bytes ? strndupa((const char *)bytes, MIN(n_bytes, 1000u)) : "");
        n_sent = check_stream((const char *)bytes, n_bytes);
        if (n_sent && n_sent <= SENT_MAX)
                talk((const char *)bytes, n_sent);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See varlink-client.h. */
#include "varlink-client.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define CONTROL_PATH    "/run/carvq/control.sock"

#define REPLY_BYTES_MAX (64u << 20) /* a thousand clients' statistics take 2 MiB */

static int connect_to(const char *path, int timeout_s, int *ret_fd, struct fault *ret_fault) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const struct timeval timeout = { .tv_sec = timeout_s };
        _cleanup_(closep) int fd = -1;

        if (strlen(path) >= sizeof(address.sun_path))
                return fault_set(ret_fault, -ENAMETOOLONG,
                                 "%s: longer than the %zu bytes of a socket's path", path,
                                 sizeof(address.sun_path) - 1);
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "socket: %s", strerror(errno));
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return fault_set(ret_fault, -errno, "%s: %s%s", path, strerror(errno),
                                 errno == ENOENT || errno == ECONNREFUSED ? "; is carvqd running?"
                                                                          : "");
        *ret_fd = steal_fd(&fd);
        return 0;
}

static int send_call(int fd, const char *text) {
        size_t n_bytes = strlen(text) + 1, n_sent = 0;

        while (n_sent < n_bytes) {
                ssize_t n = send(fd, text + n_sent, n_bytes - n_sent, MSG_NOSIGNAL);

                if (n < 0 && errno != EINTR)
                        return -errno;
                n_sent += (size_t)MAX(n, 0);
        }
        return 0;
}

/* The reply without its NUL. */
static int receive_reply(int fd, char **ret_text, size_t *ret_bytes) {
        _cleanup_(freep) char *text = NULL;
        size_t size = 0, n_bytes = 0;

        for (;;) {
                ssize_t n;
                char *end;

                if (n_bytes == size) {
                        size = size ? 2 * size : 65536;
                        end = size <= REPLY_BYTES_MAX ? realloc(text, size) : NULL;
                        if (!end)
                                return size > REPLY_BYTES_MAX ? -EMSGSIZE : -ENOMEM;
                        text = end;
                }
                n = recv(fd, text + n_bytes, size - n_bytes, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ECONNRESET;
                end = memchr(text + n_bytes, '\0', (size_t)n);
                n_bytes += (size_t)n;
                if (end) {
                        *ret_bytes = (size_t)(end - text);
                        *ret_text = steal_pointer(&text);
                        return 0;
                }
        }
}

static int parse_reply(const char *text, size_t n_bytes, char **ret_error,
                       json_t **ret_parameters) {
        _cleanup_(json_decrefp) json_t *reply = json_loadb(text, n_bytes, 0, NULL);
        _cleanup_(freep) char *error = NULL;
        json_t *parameters = json_object_get(reply, "parameters");
        const json_t *name = json_object_get(reply, "error");

        if (!json_is_object(reply) || (parameters && !json_is_object(parameters)) ||
            (name && !json_is_string(name)))
                return -EPROTO;
        if (name) {
                error = strdup(json_string_value(name));
                if (!error)
                        return -ENOMEM;
        }
        *ret_parameters = parameters ? json_incref(parameters) : json_object();
        *ret_error = steal_pointer(&error);
        return 0;
}

int varlink_client_call(const char *path, const char *method, json_t *parameters, int timeout_s,
                        char **ret_error, json_t **ret_parameters, struct fault *ret_fault) {
        _cleanup_(json_decrefp) json_t *call =
                json_pack("{ss sO*}", "method", method, "parameters", parameters);
        _cleanup_(freep) char *text = json_dumps(call, JSON_COMPACT);
        _cleanup_(freep) char *reply = NULL;
        _cleanup_(closep) int fd = -1;
        size_t n_bytes = 0;
        int r;

        if (!text)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = connect_to(path, timeout_s, &fd, ret_fault);
        if (r < 0)
                return r;
        r = send_call(fd, text);
        if (r >= 0)
                r = receive_reply(fd, &reply, &n_bytes);
        if (r >= 0)
                r = parse_reply(reply, n_bytes, ret_error, ret_parameters);
        if (r == -EPROTO)
                return fault_set(ret_fault, r, "%s: the answer is no varlink reply", path);
        if (r == -EAGAIN)
                return fault_set(ret_fault, r, "%s: no answer within %d s", path, timeout_s);
        if (r < 0)
                return fault_set(ret_fault, r, "%s: %s", path,
                                 r == -ECONNRESET ? "closed the connection without an answer"
                                                  : strerror(-r));
        return 0;
}

const char *varlink_client_default_path(char **buffer) {
        const char *variable = getenv("CARVQ_CONTROL"), *user = getenv("XDG_RUNTIME_DIR");

        if (variable && *variable)
                return variable;
        if (!user || !*user || !access(CONTROL_PATH, F_OK))
                return CONTROL_PATH;
        if (asprintf(buffer, "%s/carvq/control.sock", user) < 0)
                return CONTROL_PATH;
        return *buffer;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's life: how it begins, the messages that come when nobody waits for them, the end. A
 * connection that is lost is reconnect.c's affair; one that is broken fails in one way, -ECONNRESET
 * with a sentence, because the caller's answer is always the same: a new client.
 */
#include "client.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"
#include "proto/spin.h"

#define SOCKET_PATH_SYSTEM  "/run/carvq/carvqd.sock"
#define TIMEOUT_NS_DEFAULT  (UINT64_C(30) * 1000000000u)
#define ARENA_BYTES_DEFAULT (UINT64_C(64) << 20)

/* Messages taken in one go, so that a daemon that never stops sending cannot hold us here. */
#define DRAIN_MESSAGES_MAX 64u

static_assert(sizeof(((struct fault *)0)->text) <= CARVQ_MESSAGE_BYTES, "");

/* ---- Ends ---- */

void client_break(struct carvq_client *client, const char *format, ...) {
        va_list args;

        if (client->link == LINK_ENDED)
                return;
        client->link = LINK_ENDED;
        va_start(args, format);
        vsnprintf(client->why.text, sizeof(client->why.text), format, args);
        va_end(args);
        /* Tells the daemon, and makes the descriptor readable for whoever polls it. */
        if (client->socket_fd >= 0)
                shutdown(client->socket_fd, SHUT_RDWR);
        client_fd_set_timer(client);
}

int client_check(struct carvq_client *client) {
        if (client->link != LINK_ENDED)
                return 0;
        return fault_set(&client->error, -ECONNRESET, "%s", client->why.text);
}

int client_status_errno(uint32_t status) {
        switch (status) {
        case WIRE_VERSION:
                return -EPROTONOSUPPORT;
        case WIRE_LIMIT:
                return -EDQUOT;
        case WIRE_NO_TABLE:
                return -ENOENT;
        case WIRE_SHUTDOWN:
                return -ECONNRESET;
        case WIRE_DENIED:
                return -EACCES;
        case WIRE_INTERNAL:
                return -EIO;
        default:
                return -EPROTO;
        }
}

const char *client_text(char *text) {
        for (char *c = text; *c; c++)
                if (!isprint((unsigned char)*c))
                        *c = '?';
        return text;
}

/* ---- Messages that no call waits for ---- */

/* Its last words: by its own account nobody broke the rules, or somebody did. */
static void take_error(struct carvq_client *client, const struct wire_error *error) {
        struct wire_error copy = *error;
        struct fault why;

        fault_write(&why, "the daemon closed the connection: %s", client_text(copy.text));
        client_reap(client); /* what was completed before the end is good */
        if (error->status == WIRE_PROTOCOL || error->status == WIRE_RING_REFUSED)
                client_break(client, "%s", why.text);
        else
                client_lose(client, why.text);
}

void client_dispatch(struct carvq_client *client, int type, const union packet *packet) {
        switch (type) {
        case WIRE_WAKE:
                return;
        case WIRE_TABLE:
                if (packet->table.request > client->last_request)
                        break;
                /* Else the answer to a carvq_table_open() that timed out. */
                if (!client_table_reopened(client, &packet->table))
                        table_hand_back(client, &packet->table);
                return;
        case WIRE_FILE:
        case WIRE_CACHE:
                if (packet->table.request > client->last_request)
                        break;
                return; /* its descriptor is closed by whoever received it */
        case WIRE_ERROR:
                take_error(client, &packet->error);
                return;
        }
        client_break(client, "the daemon broke the protocol: message type %d is out of place",
                     type);
}

/* What receiving a message came to; its descriptor is `fd`. */
static void take_message(struct carvq_client *client, int r, const union packet *packet, int fd,
                         const struct fault *fault) {
        closep(&fd);
        if (r == -ECONNRESET)
                client_lose(client, fault->text);
        else if (r < 0)
                client_break(client, "%s", fault->text);
        else if (r > 0)
                client_dispatch(client, r, packet);
}

void client_drain(struct carvq_client *client) {
        for (unsigned i = 0; i < DRAIN_MESSAGES_MAX && client->link == LINK_UP; i++) {
                struct fault fault;
                union packet packet;
                int fd = -1, r;

                r = packet_receive(client->socket_fd, 0, &packet, &fd, &fault);
                take_message(client, r, &packet, fd, &fault);
                if (r == 0)
                        return;
        }
}

bool client_sleep(struct carvq_client *client) {
        struct fault fault;
        union packet packet;
        int fd = -1, r;

        r = packet_await(client->socket_fd, &packet, &fd, &fault);
        take_message(client, r, &packet, fd, &fault);
        return r != 0;
}

/* ---- The beginning ---- */

static const char *default_path(char *buffer, size_t bytes) {
        const char *path = secure_getenv("CARVQ_SOCKET"), *runtime;

        if (path && *path)
                return path;
        runtime = secure_getenv("XDG_RUNTIME_DIR");
        if (!runtime || !*runtime || access(SOCKET_PATH_SYSTEM, F_OK) == 0)
                return SOCKET_PATH_SYSTEM;
        snprintf(buffer, bytes, "%s/carvq/carvqd.sock", runtime);
        return buffer;
}

/* What the socket and HELLO have room for. */
static int copy_names(struct carvq_client *client, const struct carvq_connect_options *options,
                      struct fault *ret_fault) {
        char buffer[sizeof(client->socket_path) + 1];
        const char *path =
                options->socket_path ? options->socket_path : default_path(buffer, sizeof(buffer));

        if (strlen(path) >= sizeof(client->socket_path))
                return fault_set(ret_fault, -EINVAL,
                                 "socket path of %zu bytes, expected less than %zu: %.64s...",
                                 strlen(path), sizeof(client->socket_path), path);
        strcpy(client->socket_path, path);
        snprintf(client->name, sizeof(client->name), "%s",
                 options->name ? options->name : program_invocation_short_name);
        return 0;
}

static struct carvq_client *client_new(const struct carvq_connect_options *options) {
        struct carvq_client *client = calloc(1, sizeof(*client));

        if (!client)
                return NULL;
        client->socket_fd = client->memfd = client->events_fd = client->retry_timer_fd = -1;
        client->link = LINK_DOWN;
        client->pid = getpid();
        client->no_reconnect = options->no_reconnect;
        client->arena_bytes = options->arena_bytes ? options->arena_bytes : ARENA_BYTES_DEFAULT;
        client->timeout_ns = options->timeout_ns ? options->timeout_ns : TIMEOUT_NS_DEFAULT;
        client->spin_ns = options->spin_ns;
        client->single_cpu = single_cpu();
        LIST_INIT(&client->tables);
        SLIST_INIT(&client->free_lookups);
        for (size_t i = CLIENT_LOOKUPS_MAX; i-- > 0;)
                SLIST_INSERT_HEAD(&client->free_lookups, &client->lookups[i], link);
        return client;
}

static void client_freep(struct carvq_client **client) {
        carvq_client_free(*client);
}

static int client_connect(const struct carvq_connect_options *user_options,
                          carvq_client **ret_client, struct fault *ret_fault) {
        _cleanup_(client_freep) struct carvq_client *client = NULL;
        struct carvq_connect_options options;
        uint64_t deadline_ns;
        int r;

        r = options_copy(user_options, sizeof(options), &options, ret_fault);
        if (r < 0)
                return r;
        client = client_new(&options);
        if (!client)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = copy_names(client, &options, ret_fault);
        if (r < 0)
                return r;

        deadline_ns = deadline_after(client->timeout_ns);
        r = handshake_start(client, 0, ret_fault);
        while (r >= 0 && client->link != LINK_UP)
                r = handshake_step(client, deadline_ns, ret_fault);
        if (r < 0)
                return r;
        if (client->no_reconnect) {
                closep(&client->memfd); /* no other daemon will be given it */
                client->memfd = -1;
        }
        *ret_client = steal_pointer(&client);
        return 0;
}

/* ---- The API ---- */

_public_ int carvq_connect(const struct carvq_connect_options *options, carvq_client **ret_client,
                           char *ret_message) {
        struct fault fault = { "" };
        int r;

        r = client_connect(options, ret_client, &fault);
        if (r < 0 && ret_message)
                memcpy(ret_message, fault.text, sizeof(fault.text));
        return r;
}

_public_ void carvq_client_free(carvq_client *client) {
        carvq_table *table, *next;

        if (!client)
                return;
        /* Closed first: the daemon lets go of tables and rings by itself. */
        closep(&client->socket_fd);
        for (table = LIST_FIRST(&client->tables); table; table = next) {
                next = LIST_NEXT(table, link);
                table_free(table);
        }
        client_ring_deinit(&client->ring);
        closep(&client->memfd);
        closep(&client->events_fd);
        closep(&client->retry_timer_fd);
        free(client->misses);
        free(client);
}

_public_ const char *carvq_client_error(const carvq_client *client) {
        return client->error.text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's life: the handshake, the messages that come later, the end. Trusts the socket's
 * path and nothing that arrives over it. An established connection fails in one way, -ECONNRESET
 * with a sentence, because the caller's answer is always the same: connect again.
 */
#include "client.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "options.h"
#include "proto/spin.h"

#define SOCKET_PATH_SYSTEM  "/run/carvq/carvqd.sock"
#define TIMEOUT_NS_DEFAULT  (UINT64_C(30) * 1000000000u)
#define ARENA_BYTES_DEFAULT (UINT64_C(64) << 20)
#define SQ_ENTRIES          64u
#define CQ_ENTRIES          128u

/* Two of the largest batches, with as many bags. Pages are there once they are touched. */
#define IDS_BYTES (2 * 2 * RING_IDS_MAX * sizeof(uint64_t))

/* Messages taken in one go, so that a daemon that never stops sending cannot hold us here. */
#define DRAIN_MESSAGES_MAX 64u

static_assert(sizeof(((struct fault *)0)->text) <= CARVQ_MESSAGE_BYTES, "");

/* ---- Ends ---- */

void client_break(struct carvq_client *client, const char *format, ...) {
        va_list args;

        if (client->broken)
                return;
        client->broken = true;
        va_start(args, format);
        vsnprintf(client->broken_why.text, sizeof(client->broken_why.text), format, args);
        va_end(args);
        /* Tells the daemon, and makes the descriptor readable for whoever polls it. It is closed
         * only with the client: its number must not come to mean something else. */
        shutdown(client->socket_fd, SHUT_RDWR);
}

int client_check(struct carvq_client *client) {
        if (!client->broken)
                return 0;
        return fault_set(&client->error, -ECONNRESET, "%s", client->broken_why.text);
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

/* The answer to a carvq_table_open() that timed out: the daemon would keep it open for us. */
static void close_late_table(struct carvq_client *client, const struct wire_table *table) {
        const struct wire_close_table close_table = {
                .header = { WIRE_CLOSE_TABLE, sizeof(close_table) },
                .table = table->table,
        };

        if (table->status == WIRE_OK)
                packet_send(client->socket_fd, &close_table, sizeof(close_table), -1);
}

void client_dispatch(struct carvq_client *client, int type, const union packet *packet) {
        struct wire_error error;

        switch (type) {
        case WIRE_WAKE:
                return;
        case WIRE_TABLE:
                if (packet->table.request > client->last_request)
                        break;
                close_late_table(client, &packet->table);
                return;
        case WIRE_FILE:
        case WIRE_CACHE:
                if (packet->table.request > client->last_request)
                        break;
                return; /* its descriptor is closed by whoever received it */
        case WIRE_ERROR:
                error = packet->error;
                client_reap(client); /* what was completed before the end is good */
                client_break(client, "the daemon closed the connection: %s",
                             client_text(error.text));
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
                client_reap(client);
        if (r < 0)
                client_break(client, "%s", fault->text);
        else if (r > 0)
                client_dispatch(client, r, packet);
}

void client_drain(struct carvq_client *client) {
        for (unsigned i = 0; i < DRAIN_MESSAGES_MAX && !client->broken; i++) {
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

/* ---- The handshake ---- */

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

static int set_timeout(int fd, int option, uint64_t timeout_ns) {
        struct timeval t = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
                             .tv_usec = (suseconds_t)(timeout_ns % 1000000000u / 1000) };

        if (!t.tv_sec && !t.tv_usec)
                t.tv_usec = 1; /* 0 would mean for ever */
        return setsockopt(fd, SOL_SOCKET, option, &t, sizeof(t)) < 0 ? -errno : 0;
}

static int connect_socket(const char *path, uint64_t timeout_ns, int *ret_fd,
                          struct fault *ret_fault) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = -1;
        int r;

        if (strlen(path) >= sizeof(address.sun_path))
                return fault_set(ret_fault, -EINVAL,
                                 "socket path of %zu bytes, expected less than %zu: %.64s...",
                                 strlen(path), sizeof(address.sun_path), path);
        strcpy(address.sun_path, path);

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "socket: %s", strerror(errno));
        r = set_timeout(fd, SO_SNDTIMEO, timeout_ns);
        if (r >= 0)
                r = set_timeout(fd, SO_RCVTIMEO, CLIENT_SLEEP_NS_MAX);
        if (r < 0)
                return fault_set(ret_fault, r, "a time-out of the socket: %s", strerror(-r));
        do
                r = connect(fd, (struct sockaddr *)&address, sizeof(address));
        while (r < 0 && errno == EINTR);
        if (r < 0)
                switch (errno) {
                case EAGAIN:
                case EINPROGRESS:
                        return fault_set(ret_fault, -ETIMEDOUT,
                                         "%s: the daemon accepts no connection", path);
                case EPROTOTYPE:
                        return fault_set(ret_fault, -EPROTO,
                                         "%s: not a SOCK_SEQPACKET socket, not carvqd's", path);
                case ENOENT:
                case ECONNREFUSED:
                        return fault_set(ret_fault, -errno, "%s: no daemon there (%s)", path,
                                         strerror(errno));
                default:
                        return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
                }
        *ret_fd = steal_fd(&fd);
        return 0;
}

/* The next message must be of this type, or say why not. */
static int expect(struct carvq_client *client, enum wire_type type, uint64_t deadline_ns,
                  union packet *ret_packet, int *ret_fd, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        int r;

        r = packet_receive(client->socket_fd, deadline_ns, ret_packet, &fd, ret_fault);
        if (r == WIRE_ERROR)
                return fault_set(ret_fault, client_status_errno(ret_packet->error.status),
                                 "the daemon refused: %s", client_text(ret_packet->error.text));
        if (r < 0)
                return r;
        if (r != (int)type)
                return fault_set(ret_fault, -EPROTO, "message type %d, expected %d", r, type);
        *ret_fd = steal_fd(&fd);
        return 0;
}

static int greet(struct carvq_client *client, const char *name, uint64_t deadline_ns,
                 struct wire_welcome *ret_welcome, struct fault *ret_fault) {
        struct wire_hello hello = {
                .header = { WIRE_HELLO, sizeof(hello) },
                .magic = WIRE_MAGIC,
                .version_major = WIRE_VERSION_MAJOR,
                .version_minor = WIRE_VERSION_MINOR,
                .features_offered = WIRE_FEATURES_KNOWN,
        };
        union packet packet;
        int r, fd = -1;

        snprintf(hello.name, sizeof(hello.name), "%s", name ? name : program_invocation_short_name);
        r = packet_send(client->socket_fd, &hello, sizeof(hello), -1);
        if (r < 0)
                return fault_set(ret_fault, r, "sending HELLO: %s", strerror(-r));
        r = expect(client, WIRE_WELCOME, deadline_ns, &packet, &fd, ret_fault);
        if (r < 0)
                return r;
        if (packet.welcome.features_accepted & ~hello.features_offered)
                return fault_set(ret_fault, -EPROTO,
                                 "WELCOME: features 0x%" PRIx64 " were not offered",
                                 packet.welcome.features_accepted & ~hello.features_offered);
        if (!packet.welcome.max_ids)
                return fault_set(ret_fault, -EPROTO, "WELCOME: max_ids is 0");
        *ret_welcome = packet.welcome;
        return 0;
}

/*
 * A doorbell is written to without a second thought, so it must not be something whose writes wait
 * or raise SIGPIPE. An eventfd has no file type; pipes, sockets and files have one.
 */
static int check_doorbell(int fd, struct fault *ret_fault) {
        struct stat st;
        int flags;

        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || !(flags & O_NONBLOCK) || fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) != 0)
                return fault_set(ret_fault, -EPROTO,
                                 "READY: the doorbell is not an eventfd that does not block");
        return 0;
}

static int share_ring(struct carvq_client *client, uint64_t arena_bytes, uint64_t max_ring_bytes,
                      uint64_t deadline_ns, struct fault *ret_fault) {
        struct wire_ring message = {
                .header = { WIRE_RING, sizeof(message) },
                .geometry = { SQ_ENTRIES, CQ_ENTRIES, IDS_BYTES,
                              align_up(MIN(arena_bytes, RING_BYTES_MAX + 1), RING_PAGE_BYTES) },
        };
        _cleanup_(closep) int memfd = -1, doorbell_fd = -1;
        struct ring_layout layout;
        union packet packet;
        int r;

        r = ring_layout_compute(&message.geometry, &layout, ret_fault);
        if (r < 0)
                return r;
        if (layout.ring_bytes > max_ring_bytes)
                return fault_set(ret_fault, -EDQUOT,
                                 "the rings need %" PRIu64 " bytes (arena %" PRIu64
                                 "), the daemon grants %" PRIu64,
                                 layout.ring_bytes, message.geometry.arena_bytes, max_ring_bytes);
        r = client_ring_init(&client->ring, &message.geometry, &memfd, ret_fault);
        if (r < 0)
                return r;
        r = packet_send(client->socket_fd, &message, sizeof(message), memfd);
        if (r < 0)
                return fault_set(ret_fault, r, "sending RING: %s", strerror(-r));
        r = expect(client, WIRE_READY, deadline_ns, &packet, &doorbell_fd, ret_fault);
        if (r < 0)
                return r;
        r = check_doorbell(doorbell_fd, ret_fault);
        if (r < 0)
                return r;

        client->ring.doorbell_fd = steal_fd(&doorbell_fd);
        arena_init(&client->ids, message.geometry.ids_bytes, sizeof(uint64_t));
        arena_init(&client->arena, message.geometry.arena_bytes, RING_OUT_ALIGNMENT);
        return 0;
}

static struct carvq_client *client_new(const struct carvq_connect_options *options) {
        struct carvq_client *client = calloc(1, sizeof(*client));

        if (!client)
                return NULL;
        client->socket_fd = -1;
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
        struct wire_welcome welcome = { 0 };
        char path[sizeof(struct sockaddr_un) + 1];
        uint64_t deadline_ns;
        int r;

        r = options_copy(user_options, sizeof(options), &options, ret_fault);
        if (r < 0)
                return r;
        client = client_new(&options);
        if (!client)
                return fault_set(ret_fault, -ENOMEM, "out of memory");

        deadline_ns = deadline_after(client->timeout_ns);
        r = connect_socket(options.socket_path ? options.socket_path
                                               : default_path(path, sizeof(path)),
                           client->timeout_ns, &client->socket_fd, ret_fault);
        if (r < 0)
                return r;
        r = greet(client, options.name, deadline_ns, &welcome, ret_fault);
        if (r < 0)
                return r;
        client->max_ids = MIN(welcome.max_ids, RING_IDS_MAX);
        client->features = welcome.features_accepted;
        r = share_ring(client, options.arena_bytes ? options.arena_bytes : ARENA_BYTES_DEFAULT,
                       welcome.max_ring_bytes, deadline_ns, ret_fault);
        if (r < 0)
                return r;
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
        free(client->misses);
        free(client);
}

_public_ const char *carvq_client_error(const carvq_client *client) {
        return client->error.text;
}

_public_ int carvq_client_fd(const carvq_client *client) {
        return client->socket_fd;
}

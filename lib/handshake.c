/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a socket's path to a ring that a daemon serves, one message at a time, so that nobody need
 * wait between them; the first connection and those after it alike. Trusts the path and nothing
 * that arrives over it. The client's thread.
 */
#include "client.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SQ_ENTRIES 64u
#define CQ_ENTRIES 128u

/* Two of the largest batches, with as many bags. Pages are there once they are touched. */
#define IDS_BYTES (2 * 2 * RING_IDS_MAX * sizeof(uint64_t))

static_assert(sizeof(((struct carvq_client *)0)->socket_path) ==
                      sizeof(((struct sockaddr_un *)0)->sun_path),
              "");

static int set_timeout(int fd, int option, uint64_t timeout_ns) {
        struct timeval t = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
                             .tv_usec = (suseconds_t)(timeout_ns % 1000000000u / 1000) };

        if (!t.tv_sec && !t.tv_usec)
                t.tv_usec = 1; /* 0 would mean for ever */
        return setsockopt(fd, SOL_SOCKET, option, &t, sizeof(t)) < 0 ? -errno : 0;
}

static int make_socket(uint64_t timeout_ns, int flags, int *ret_fd, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        int r;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "socket: %s", strerror(errno));
        r = set_timeout(fd, SO_SNDTIMEO, timeout_ns);
        if (r >= 0)
                r = set_timeout(fd, SO_RCVTIMEO, CLIENT_SLEEP_NS_MAX);
        if (r < 0)
                return fault_set(ret_fault, r, "a time-out of the socket: %s", strerror(-r));
        *ret_fd = steal_fd(&fd);
        return 0;
}

static int connect_socket(int fd, const char *path, struct fault *ret_fault) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int r;

        strcpy(address.sun_path, path);
        do
                r = connect(fd, (struct sockaddr *)&address, sizeof(address));
        while (r < 0 && errno == EINTR);
        if (r == 0) {
                fcntl(fd, F_SETFL, 0); /* whoever sleeps on it does so in recvmsg() */
                return 0;
        }
        switch (errno) {
        case EAGAIN:
        case EINPROGRESS:
                return fault_set(ret_fault, -ETIMEDOUT, "%s: the daemon accepts no connection",
                                 path);
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
}

int handshake_start(struct carvq_client *client, int flags, struct fault *ret_fault) {
        struct wire_hello hello = {
                .header = { WIRE_HELLO, sizeof(hello) },
                .magic = WIRE_MAGIC,
                .version_major = WIRE_VERSION_MAJOR,
                .version_minor = WIRE_VERSION_MINOR,
                .features_offered = WIRE_FEATURES_KNOWN,
        };
        int r;

        r = make_socket(client->timeout_ns, flags, &client->socket_fd, ret_fault);
        if (r >= 0)
                r = connect_socket(client->socket_fd, client->socket_path, ret_fault);
        if (r < 0)
                return r;
        memcpy(hello.name, client->name, sizeof(hello.name));
        r = packet_send(client->socket_fd, &hello, sizeof(hello), -1);
        if (r < 0)
                return fault_set(ret_fault, r, "sending HELLO: %s", strerror(-r));
        client->link = LINK_GREETING;
        return 0;
}

/* The next message must be of this type, or say why not. 0: there is none, and no time to wait. */
static int expect(struct carvq_client *client, enum wire_type type, uint64_t deadline_ns,
                  union packet *ret_packet, int *ret_fd, struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        int r;

        r = packet_receive(client->socket_fd, deadline_ns, ret_packet, &fd, ret_fault);
        client->refused = r == WIRE_ERROR && ret_packet->error.status != WIRE_VERSION;
        if (r == WIRE_ERROR)
                return fault_set(ret_fault, client_status_errno(ret_packet->error.status),
                                 "the daemon refused: %s", client_text(ret_packet->error.text));
        if (r <= 0)
                return r;
        if (r != (int)type)
                return fault_set(ret_fault, -EPROTO, "message type %d, expected %d", r, type);
        *ret_fd = steal_fd(&fd);
        return 1;
}

static int check_welcome(const struct wire_welcome *welcome, struct fault *ret_fault) {
        const uint64_t unknown = welcome->features_accepted & ~WIRE_FEATURES_KNOWN;

        if (unknown)
                return fault_set(ret_fault, -EPROTO,
                                 "WELCOME: features 0x%" PRIx64 " were not offered", unknown);
        if (!welcome->max_ids)
                return fault_set(ret_fault, -EPROTO, "WELCOME: max_ids is 0");
        return 0;
}

/* The memory, which is made for the first daemon and stays: rows that the caller has are in it. */
static int prepare_ring(struct carvq_client *client, uint64_t max_ring_bytes,
                        struct fault *ret_fault) {
        const struct ring_geometry geometry = {
                SQ_ENTRIES, CQ_ENTRIES, IDS_BYTES,
                align_up(MIN(client->arena_bytes, RING_BYTES_MAX + 1), RING_PAGE_BYTES)
        };
        struct ring_layout layout;
        int r;

        r = ring_layout_compute(&geometry, &layout, ret_fault);
        if (r < 0)
                return r;
        if (layout.ring_bytes > max_ring_bytes)
                return fault_set(ret_fault, -EDQUOT,
                                 "the rings need %" PRIu64 " bytes (arena %" PRIu64
                                 "), the daemon grants %" PRIu64,
                                 layout.ring_bytes, geometry.arena_bytes, max_ring_bytes);
        if (client->ring.memory) {
                client_ring_reset(&client->ring);
                return 0;
        }
        r = client_ring_init(&client->ring, &geometry, &client->memfd, ret_fault);
        if (r < 0)
                return r;
        arena_init(&client->ids, geometry.ids_bytes, sizeof(uint64_t));
        arena_init(&client->arena, geometry.arena_bytes, RING_OUT_ALIGNMENT);
        return 0;
}

static int take_welcome(struct carvq_client *client, uint64_t deadline_ns,
                        struct fault *ret_fault) {
        struct wire_ring message = { .header = { WIRE_RING, sizeof(message) } };
        union packet packet;
        int r, fd;

        r = expect(client, WIRE_WELCOME, deadline_ns, &packet, &fd, ret_fault);
        if (r <= 0)
                return r;
        r = check_welcome(&packet.welcome, ret_fault);
        if (r >= 0)
                r = prepare_ring(client, packet.welcome.max_ring_bytes, ret_fault);
        if (r < 0)
                return r;
        client->max_ids = MIN(packet.welcome.max_ids, RING_IDS_MAX);
        client->features = packet.welcome.features_accepted;
        client->epoch = packet.welcome.epoch;
        message.geometry = client->ring.layout.geometry;
        r = packet_send(client->socket_fd, &message, sizeof(message), client->memfd);
        if (r < 0)
                return fault_set(ret_fault, r, "sending RING: %s", strerror(-r));
        client->link = LINK_SHARING;
        return 1;
}

/*
 * A doorbell is written to without a second thought, so it must not be something whose writes wait
 * or raise SIGPIPE. An eventfd has no file type; pipes, sockets and files have one.
 */
static int check_doorbell(int fd, struct fault *ret_fault) {
        struct stat st;
        int flags;

        flags = fcntl(fd, F_GETFL);
        if (fstat(fd, &st) < 0)
                return fault_set(ret_fault, -errno, "fstat of the doorbell: %s", strerror(errno));
        if (flags < 0 || !(flags & O_NONBLOCK) || (st.st_mode & S_IFMT) != 0)
                return fault_set(ret_fault, -EPROTO,
                                 "READY: the doorbell is not an eventfd that does not block");
        return 0;
}

static int take_ready(struct carvq_client *client, uint64_t deadline_ns, struct fault *ret_fault) {
        _cleanup_(closep) int doorbell_fd = -1;
        union packet packet;
        int r;

        r = expect(client, WIRE_READY, deadline_ns, &packet, &doorbell_fd, ret_fault);
        if (r <= 0)
                return r;
        r = check_doorbell(doorbell_fd, ret_fault);
        if (r < 0)
                return r;
        client->ring.doorbell_fd = steal_fd(&doorbell_fd);
        client->link = LINK_UP;
        return 1;
}

int handshake_step(struct carvq_client *client, uint64_t deadline_ns, struct fault *ret_fault) {
        return client->link == LINK_GREETING ? take_welcome(client, deadline_ns, ret_fault)
                                             : take_ready(client, deadline_ns, ret_fault);
}

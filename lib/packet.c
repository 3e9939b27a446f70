/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trusts nothing that arrives: neither its length, nor its type, nor the number of descriptors that
 * come along. No call blocks for longer than it was told.
 */
#include "packet.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/spin.h"

/* Room for more descriptors than any message may carry, so that a surplus is seen and closed. */
#define FDS_MAX 4u

union control {
        struct cmsghdr header; /* for its alignment */
        uint8_t bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

int packet_send(int socket_fd, const void *message, size_t bytes, int attached_fd) {
        struct iovec iov = { .iov_base = (void *)message, .iov_len = bytes };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        union control control = { 0 };

        if (attached_fd >= 0) {
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(sizeof(int));
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(&control.header), &attached_fd, sizeof(int));
        }
        while (sendmsg(socket_fd, &msg, MSG_NOSIGNAL) < 0) {
                if (errno == EINTR)
                        continue;
                if (errno == EPIPE || errno == ECONNRESET)
                        return 0;
                return errno == EAGAIN ? -ETIMEDOUT : -errno;
        }
        return 0;
}

/* The descriptors of a message, which are ours to close from here on. */
static size_t take_fds(struct msghdr *msg, int fds[FDS_MAX]) {
        size_t n = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                size_t n_more = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                /* All messages' descriptors share one buffer of FDS_MAX: this cannot overrun. */
                memcpy(fds + n, CMSG_DATA(c), n_more * sizeof(int));
                n += n_more;
        }
        return n;
}

static ssize_t receive(int socket_fd, struct msghdr *msg, int flags) {
        ssize_t n;

        flags |= MSG_CMSG_CLOEXEC;

        do
                n = recvmsg(socket_fd, msg, flags);
        while (n < 0 && errno == EINTR && flags & MSG_DONTWAIT);

        /*
         * A peer that closes without having read all we sent sets ECONNRESET, and the kernel
         * reports it once, before the messages that the peer had sent. Those are its last words.
         */
        if (n < 0 && errno == ECONNRESET)
                n = recvmsg(socket_fd, msg, flags);
        return n;
}

static int check(const struct msghdr *msg, const union packet *packet, size_t bytes, size_t n_fds,
                 struct fault *ret_fault) {
        int r;

        if (msg->msg_flags & (MSG_TRUNC | MSG_CTRUNC))
                return fault_set(ret_fault, -EPROTO,
                                 "a message of more than %u bytes or %u descriptors",
                                 WIRE_MESSAGE_BYTES, FDS_MAX);
        r = wire_check_version(packet, bytes, ret_fault);
        if (r < 0)
                return r;
        return wire_check(packet, bytes, n_fds, ret_fault);
}

/* `flags`: MSG_DONTWAIT, or 0 to wait as long as the socket does. */
static int receive_one(int socket_fd, int flags, union packet *ret_packet, int *ret_fd,
                       struct fault *ret_fault) {
        union control control;
        struct iovec iov = { .iov_base = ret_packet, .iov_len = sizeof(*ret_packet) };
        struct msghdr msg = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = &control,
                              .msg_controllen = sizeof(control) };
        int fds[FDS_MAX], r;
        size_t n_fds;
        ssize_t n;

        n = receive(socket_fd, &msg, flags);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        /* A packet of no bytes looks like the end, and may carry descriptors all the same. */
        n_fds = n >= 0 ? take_fds(&msg, fds) : 0;
        if (n <= 0)
                r = fault_set(ret_fault, -ECONNRESET, "the daemon closed the connection");
        else
                r = check(&msg, ret_packet, (size_t)n, n_fds, ret_fault);
        if (r < 0)
                while (n_fds > 0)
                        close(fds[--n_fds]);
        else
                *ret_fd = n_fds ? fds[0] : -1;
        return r;
}

int packet_receive(int socket_fd, uint64_t deadline_ns, union packet *ret_packet, int *ret_fd,
                   struct fault *ret_fault) {
        for (;;) {
                uint64_t left_ns, now;
                struct timespec left;
                int r;

                r = receive_one(socket_fd, MSG_DONTWAIT, ret_packet, ret_fd, ret_fault);
                if (r != 0 || !deadline_ns)
                        return r;
                now = clock_ns();
                if (now >= deadline_ns)
                        return fault_set(ret_fault, -ETIMEDOUT, "the daemon does not answer");
                left_ns = deadline_ns - now;
                left = (struct timespec){ .tv_sec = (time_t)(left_ns / 1000000000u),
                                          .tv_nsec = (long)(left_ns % 1000000000u) };
                ppoll(&(struct pollfd){ .fd = socket_fd, .events = POLLIN }, 1, &left, NULL);
        }
}

int packet_await(int socket_fd, union packet *ret_packet, int *ret_fd, struct fault *ret_fault) {
        return receive_one(socket_fd, 0, ret_packet, ret_fd, ret_fault);
}

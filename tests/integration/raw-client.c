/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "raw-client.h"

#define DEADLINE_MS 20000

void raw_connect(struct raw_client *c, const char *socket_path) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        *c = (struct raw_client){ .fd = -1, .memfd = -1, .doorbell = -1 };
        c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        strcpy(a.sun_path, socket_path);
        assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

void raw_close(struct raw_client *c) {
        if (c->memory)
                munmap(c->memory, c->layout.ring_bytes);
        closep(&c->fd);
        closep(&c->memfd);
        closep(&c->doorbell);
}

int raw_try_send(struct raw_client *c, const void *message, size_t bytes, const int *fds,
                 size_t n_fds) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
        struct iovec iov = { (void *)(uintptr_t)message, bytes };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds) {
                struct cmsghdr *h;

                m.msg_control = control;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                h = CMSG_FIRSTHDR(&m);
                h->cmsg_level = SOL_SOCKET;
                h->cmsg_type = SCM_RIGHTS;
                h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
        }
        return sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

void raw_send(struct raw_client *c, const void *message, size_t bytes, const int *fds,
              size_t n_fds) {
        assert_int_equal(raw_try_send(c, message, bytes, fds, n_fds), 0);
}

int raw_receive(struct raw_client *c, uint8_t ret_message[WIRE_MESSAGE_BYTES]) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
        struct wire_header header;

        do {
                struct iovec iov = { ret_message, WIRE_MESSAGE_BYTES };
                struct msghdr m = { .msg_iov = &iov,
                                    .msg_iovlen = 1,
                                    .msg_control = control,
                                    .msg_controllen = sizeof(control) };
                struct pollfd p = { .fd = c->fd, .events = POLLIN };
                ssize_t n;

                assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
                n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
                if (n <= 0)
                        return 0;
                assert_true((size_t)n >= sizeof(header));
                memcpy(&header, ret_message, sizeof(header));
                if (CMSG_FIRSTHDR(&m))
                        memcpy(&c->doorbell, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
        } while (header.type == WIRE_WAKE);
        return (int)header.type;
}

void raw_expect_refusal(struct raw_client *c, enum wire_status status, const char *words) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_error error;

        assert_int_equal(raw_receive(c, message), WIRE_ERROR);
        memcpy(&error, message, sizeof(error));
        if (error.status != status || !strstr(error.text, words))
                fail_msg("status %u, \"%s\"; expected %d, \"%s\"", error.status, error.text, status,
                         words);
        assert_int_equal(raw_receive(c, message), 0);
        raw_close(c);
}

struct wire_hello raw_hello(void) {
        return (struct wire_hello){ .header = { WIRE_HELLO, sizeof(struct wire_hello) },
                                    .magic = WIRE_MAGIC,
                                    .version_major = WIRE_VERSION_MAJOR,
                                    .version_minor = WIRE_VERSION_MINOR,
                                    .name = "raw" };
}

struct wire_ring raw_ring(void) {
        return (struct wire_ring){ .header = { WIRE_RING, sizeof(struct wire_ring) },
                                   .geometry = { .sq_entries = 8,
                                                 .cq_entries = 16,
                                                 .ids_bytes = 4096,
                                                 .arena_bytes = 4 * 4096 } };
}

int raw_memfd(uint64_t bytes, int seals) {
        int fd = memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
        if (seals)
                assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
        return fd;
}

void raw_greet(struct raw_client *c, const char *socket_path) {
        struct wire_hello hello = raw_hello();
        uint8_t message[WIRE_MESSAGE_BYTES];

        raw_connect(c, socket_path);
        raw_send(c, &hello, sizeof(hello), NULL, 0);
        assert_int_equal(raw_receive(c, message), WIRE_WELCOME);
}

void raw_make_lingering(int *ret_fd, int *ret_other) {
        static const uint8_t bytes[65536];
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct linger linger = { .l_onoff = 1, .l_linger = 600 };
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t n = sizeof(a);

        *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &n), 0);
        assert_int_equal(connect(*ret_fd, (struct sockaddr *)&a, sizeof(a)), 0);
        *ret_other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(*ret_other >= 0);
        close(listener);
        while (send(*ret_fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
                ;
        assert_int_equal(errno, EAGAIN);
        assert_int_equal(setsockopt(*ret_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
}

void raw_send_ring(struct raw_client *c, const struct wire_ring *ring) {
        assert_int_equal(ring_layout_compute(&ring->geometry, &c->layout, NULL), 0);
        c->memfd = raw_memfd(c->layout.ring_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        c->memory =
                mmap(NULL, c->layout.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->memfd, 0);
        assert_ptr_not_equal(c->memory, MAP_FAILED);
        c->header = (struct ring_header *)c->memory;
        raw_send(c, ring, sizeof(*ring), &c->memfd, 1);
}

void raw_handshake(struct raw_client *c, const char *socket_path, uint64_t features) {
        const struct wire_ring ring = raw_ring();

        raw_handshake_with(c, socket_path, features, &ring);
}

void raw_handshake_with(struct raw_client *c, const char *socket_path, uint64_t features,
                        const struct wire_ring *ring) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_hello hello = raw_hello();

        hello.features_offered = features;
        raw_connect(c, socket_path);
        raw_send(c, &hello, sizeof(hello), NULL, 0);
        assert_int_equal(raw_receive(c, message), WIRE_WELCOME);
        raw_send_ring(c, ring);
        assert_int_equal(raw_receive(c, message), WIRE_READY);
        assert_true(c->doorbell >= 0);
}

uint64_t raw_open_table(struct raw_client *c, const char *name, struct wire_table *ret_table) {
        struct wire_open_table open = { .header = { WIRE_OPEN_TABLE, sizeof(open) },
                                        .request = 77 };
        uint8_t message[WIRE_MESSAGE_BYTES];

        strncpy(open.name, name, sizeof(open.name) - 1);
        raw_send(c, &open, sizeof(open), NULL, 0);
        assert_int_equal(raw_receive(c, message), WIRE_TABLE);
        memcpy(ret_table, message, sizeof(*ret_table));
        assert_int_equal(ret_table->request, 77);
        return ret_table->table;
}

void raw_ring_doorbell(struct raw_client *c) {
        assert_int_equal(write(c->doorbell, &(uint64_t){ 1 }, 8), 8);
}

void raw_submit(struct raw_client *c, const struct ring_submission *submission) {
        uint32_t tail = atomic_load_explicit(&c->header->sq_tail, memory_order_relaxed);
        uint32_t slot = tail & (c->layout.geometry.sq_entries - 1);

        memcpy(c->memory + c->layout.sq_offset + slot * sizeof(*submission), submission,
               sizeof(*submission));
        atomic_store_explicit(&c->header->sq_tail, tail + 1, memory_order_release);
        raw_ring_doorbell(c);
}

struct ring_completion raw_complete(struct raw_client *c) {
        uint32_t head = atomic_load_explicit(&c->header->cq_head, memory_order_relaxed);
        uint32_t slot = head & (c->layout.geometry.cq_entries - 1);
        struct ring_completion completion;
        time_t deadline = time(NULL) + DEADLINE_MS / 1000;

        while (atomic_load_explicit(&c->header->cq_tail, memory_order_acquire) == head) {
                if (time(NULL) > deadline)
                        fail_msg("no completion");
                sched_yield();
        }
        memcpy(&completion, c->memory + c->layout.cq_offset + slot * sizeof(completion),
               sizeof(completion));
        atomic_store_explicit(&c->header->cq_head, head + 1, memory_order_release);
        return completion;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's side as PROTOCOL.md has it, with the tricks at the places where they belong. */
#include "fake-daemon-impl.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <cmocka.h>

static uint64_t clock_now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Messages ---- */

void fake_send(struct fake_daemon *f, const void *message, size_t bytes, int fd, size_t n_fds) {
        union {
                struct cmsghdr header;
                uint8_t bytes[CMSG_SPACE(16 * sizeof(int))];
        } control = { 0 };
        struct iovec iov = { (void *)message, bytes };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds) {
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                for (size_t i = 0; i < n_fds; i++)
                        memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(int));
        }
        sendmsg(f->fd, &msg, MSG_NOSIGNAL);
}

void fake_error(struct fake_daemon *f, uint32_t status, const char *text) {
        struct wire_error m = { .header = { WIRE_ERROR, sizeof(m) }, .status = status };

        snprintf(m.text, sizeof(m.text), "%s", text);
        fake_send(f, &m, sizeof(m), -1, 0);
}

/* Waits; the message's type, 0 at the end. */
int fake_receive(struct fake_daemon *f, uint8_t buffer[WIRE_MESSAGE_BYTES], int *ret_fd) {
        union {
                struct cmsghdr header;
                uint8_t bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = { buffer, WIRE_MESSAGE_BYTES };
        struct msghdr msg = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = &control,
                              .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(f->fd, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

        *ret_fd = -1;
        if (c)
                memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
        if (n <= 0)
                return 0;
        return wire_check(buffer, (size_t)n, c != NULL, NULL);
}

/* Nothing more comes from here; the client must find a way out by itself. */
void fake_be_silent(struct fake_daemon *f) {
        uint64_t word;

        while (!f->stop)
                (void)read(f->control_fd, &word, sizeof(word));
}

/* ---- Handshake ---- */

static void send_welcome(struct fake_daemon *f, uint64_t offered) {
        struct {
                struct wire_welcome m;
                uint8_t more[600];
        } w = { .m = {
                        .header = { WIRE_WELCOME, sizeof(w.m) },
                        .magic = WIRE_MAGIC,
                        .version_major = WIRE_VERSION_MAJOR,
                        .max_ids = f->max_ids,
                        .features_accepted = offered & f->features,
                        .epoch = f->epoch,
                        .session = 1,
                        .max_ring_bytes = UINT64_C(1) << 30,
                        .server = "fake",
                } };
        size_t bytes = sizeof(w.m), n_fds = 0;

        switch (f->trick) {
        case TRICK_WELCOME_MAGIC:
                w.m.magic++;
                break;
        case TRICK_WELCOME_MAJOR_LONGER:
                bytes += 8;
                w.m.header.bytes = (uint32_t)bytes;
                w.m.version_major = 2;
                break;
        case TRICK_WELCOME_MAJOR:
                w.m.version_major = 2;
                break;
        case TRICK_WELCOME_SHORT:
                bytes = 12;
                break;
        case TRICK_WELCOME_LONG:
                bytes += 8;
                break;
        case TRICK_WELCOME_HUGE:
                bytes = sizeof(w);
                break;
        case TRICK_WELCOME_FEATURES:
                w.m.features_accepted = 4;
                break;
        case TRICK_WELCOME_MAX_IDS:
                w.m.max_ids = 0;
                break;
        case TRICK_WELCOME_SMALL_RING:
                w.m.max_ring_bytes = 1 << 20;
                break;
        case TRICK_WELCOME_WITH_FD:
                n_fds = 1;
                break;
        case TRICK_WELCOME_WITH_FDS:
                n_fds = 16;
                break;
        default:
                break;
        }
        fake_send(f, &w, bytes, f->control_fd, n_fds);
}

static bool greet(struct fake_daemon *f) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];
        int fd;

        if (f->trick == TRICK_CLOSE_AT_ACCEPT)
                return false;
        if (f->trick == TRICK_REFUSE_AT_ACCEPT) {
                fake_error(f, WIRE_LIMIT, "4096 sessions are open");
                return false;
        }
        if (fake_receive(f, buffer, &fd) != WIRE_HELLO)
                return false;
        switch (f->trick) {
        case TRICK_SILENT_AT_HELLO:
                fake_be_silent(f);
                return false;
        case TRICK_CLOSE_AT_HELLO:
                return false;
        case TRICK_REFUSE_VERSION:
                fake_error(f, WIRE_VERSION, "this daemon speaks 2.0");
                return false;
        case TRICK_REFUSE_INTERNAL:
                fake_error(f, WIRE_INTERNAL, "out of memory");
                return false;
        case TRICK_REFUSE_UNKNOWN_STATUS:
                fake_error(f, 1000, "from the future");
                return false;
        case TRICK_WAKE_FOR_WELCOME:
                fake_send(f, &(struct wire_wake){ { WIRE_WAKE, sizeof(struct wire_wake) } },
                          sizeof(struct wire_wake), -1, 0);
                return false;
        case TRICK_EMPTY_FOR_WELCOME:
                fake_send(f, "", 1, -1, 0);
                return false;
        default:
                send_welcome(f, ((struct wire_hello *)(void *)buffer)->features_offered);
                return true;
        }
}

/* What the real daemon checks, so that the client's memory is known to pass. */
static bool ring_sound(struct fake_daemon *f, const struct wire_ring *m, int memfd) {
        const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
        struct stat st;

        return memfd >= 0 && ring_layout_compute(&m->geometry, &f->layout, NULL) == 0 &&
               fstat(memfd, &st) == 0 && (uint64_t)st.st_size == f->layout.ring_bytes &&
               (fcntl(memfd, F_GET_SEALS) & seals) == seals;
}

static bool take_ring(struct fake_daemon *f) {
        struct wire_ready ready = { .header = { WIRE_READY, sizeof(ready) } };
        uint8_t buffer[WIRE_MESSAGE_BYTES];
        int pipes[2];

        if (fake_receive(f, buffer, &f->memfd) != WIRE_RING ||
            !ring_sound(f, (void *)buffer, f->memfd))
                return false;
        f->memory =
                mmap(NULL, f->layout.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
        f->header = (void *)f->memory;
        atomic_store(&f->header->epoch, f->epoch);
        atomic_store(&f->header->heartbeat_ns, clock_now());
        f->doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        switch (f->trick) {
        case TRICK_SILENT_AT_RING:
                fake_be_silent(f);
                return false;
        case TRICK_CLOSE_AT_RING:
                return false;
        case TRICK_REFUSE_RING:
                fake_error(f, WIRE_RING_REFUSED, "seals are missing");
                return false;
        case TRICK_READY_WITHOUT_FD:
                fake_send(f, &ready, sizeof(ready), -1, 0);
                return false;
        case TRICK_READY_WITH_PIPE:
                (void)pipe2(pipes, O_CLOEXEC);
                close(pipes[0]);
                fake_send(f, &ready, sizeof(ready), pipes[1], 1);
                close(pipes[1]);
                return false;
        default:
                fake_send(f, &ready, sizeof(ready), f->doorbell_fd, 1);
                return true;
        }
}

/* ---- The rings ---- */

static void publish(struct fake_daemon *f, uint32_t n) {
        struct wire_wake wake = { .header = { WIRE_WAKE, sizeof(wake) } };
        uint32_t waiting;

        f->cq_tail += n;
        atomic_store_explicit(&f->header->cq_tail, f->cq_tail, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        waiting = atomic_load_explicit(&f->header->client_waiting, memory_order_relaxed);
        if (!(waiting & 1) || waiting == f->answered)
                return;
        f->answered = waiting;
        f->n_wakes++;
        send(f->fd, &wake, sizeof(wake), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void complete(struct fake_daemon *f, const struct ring_completion *c) {
        struct ring_completion *entries = (void *)(f->memory + f->layout.cq_offset);

        entries[f->cq_tail & (f->layout.geometry.cq_entries - 1)] = *c;
        publish(f, 1);
}

static enum ring_status decode(struct fake_daemon *f, const struct ring_submission *s,
                               struct ring_completion *c) {
        const struct table_header *h = &f->file.table.contents.header;
        struct codec_context context;
        struct codec_cost cost = { 0 };
        uint32_t n_rows, n_cols;
        int r;

        if (s->table < 100 || s->table >= 100 + f->n_opened)
                return RING_STATUS_NO_TABLE;
        if (ring_submission_check(s, &f->layout, h->n_dims, &n_rows, &n_cols, NULL) < 0)
                return RING_STATUS_INVALID;
        uint8_t *ids = f->memory + f->layout.ids_offset;
        const struct codec_request request = {
                .ids = (void *)(ids + s->ids_offset),
                .n_ids = s->n_ids,
                .bag_offsets = s->pooling ? (void *)(ids + s->bags_offset) : NULL,
                .n_bags = s->n_bags,
                .col_first = s->col_first,
                .n_cols = n_cols,
                .scale = s->scale,
                .type = s->type,
                .pooling = s->pooling,
                .out_of_range = s->out_of_range,
                .row_stride_bytes = s->row_stride_bytes,
                .out = f->memory + f->layout.arena_offset + s->out_offset,
        };
        r = codec_request_check(&request, h, &c->detail, NULL);
        if (r < 0)
                return r == -ERANGE ? RING_STATUS_OUT_OF_RANGE : RING_STATUS_INVALID;
        codec_context_init(&context, &codec_kernels_scalar);
        r = codec_context_reserve(&context, &f->file.table);
        codec_decode_all(&context, &f->file.table, &request, &cost);
        codec_context_deinit(&context);
        c->n_rows = n_rows;
        return r < 0 ? RING_STATUS_NO_MEMORY : RING_STATUS_OK;
}

/* The completion with something wrong about it. */
static void spoil(enum trick trick, struct ring_completion *c) {
        switch (trick) {
        case TRICK_UNKNOWN_TICKET:
                c->user_data += 256;
                break;
        case TRICK_WRONG_ROWS:
                c->n_rows++;
                break;
        case TRICK_ROW_FIRST:
                c->row_first = 1;
                break;
        case TRICK_STATUS_UNKNOWN:
                c->status = 99;
                break;
        case TRICK_FLAG_MORE:
                c->flags = RING_COMPLETION_MORE;
                break;
        case TRICK_DETAIL_PAST_END:
                c->status = RING_STATUS_OUT_OF_RANGE;
                c->detail = UINT32_MAX;
                break;
        case TRICK_STATUS_INVALID:
                c->status = RING_STATUS_INVALID;
                break;
        case TRICK_STATUS_NO_TABLE:
                c->status = RING_STATUS_NO_TABLE;
                break;
        case TRICK_STATUS_RETIRED:
                c->status = RING_STATUS_RETIRED;
                break;
        case TRICK_STATUS_NO_MEMORY:
                c->status = RING_STATUS_NO_MEMORY;
                break;
        default:
                break;
        }
}

static bool misbehave(struct fake_daemon *f) {
        struct wire_wake wake = { .header = { WIRE_WAKE, sizeof(wake) } };

        switch (f->trick) {
        case TRICK_STOPPED_AT_SUBMIT:
                atomic_store(&f->header->heartbeat_ns, clock_now() - UINT64_C(9000000000));
                fake_be_silent(f);
                return true;
        case TRICK_SILENT_AT_SUBMIT:
                fake_be_silent(f);
                return true;
        case TRICK_ERROR_AT_SUBMIT:
                fake_error(f, WIRE_SHUTDOWN, "the daemon ends");
                return true;
        case TRICK_GARBAGE_AT_SUBMIT:
                fake_send(f, "garbage", 7, -1, 0);
                fake_be_silent(f);
                return true;
        case TRICK_FLOOD_AT_SUBMIT:
                while (!f->stop)
                        send(f->fd, &wake, sizeof(wake), MSG_NOSIGNAL | MSG_DONTWAIT);
                return true;
        case TRICK_CQ_TAIL_AHEAD:
                publish(f, f->layout.geometry.cq_entries + 1);
                fake_be_silent(f);
                return true;
        case TRICK_CQ_TAIL_BACK:
                publish(f, (uint32_t)-1);
                fake_be_silent(f);
                return true;
        case TRICK_SQ_HEAD_AHEAD:
                atomic_store(&f->header->sq_head, f->sq_head + 5);
                return false;
        default:
                return f->trick == TRICK_CLOSE_AT_SUBMIT;
        }
}

/* One submission; false: the connection ends. */
static bool serve(struct fake_daemon *f) {
        const struct ring_submission *entries = (void *)(f->memory + f->layout.sq_offset);
        struct ring_submission s = entries[f->sq_head & (f->layout.geometry.sq_entries - 1)];
        struct ring_completion c = { .user_data = s.user_data };

        f->sq_head++;
        f->n_taken++;
        atomic_store_explicit(&f->header->sq_head, f->sq_head, memory_order_release);
        if (misbehave(f))
                return false;
        c.status = decode(f, &s, &c);
        spoil(f->trick, &c);
        complete(f, &c);
        if (f->trick == TRICK_COMPLETE_TWICE)
                complete(f, &c);
        return f->trick != TRICK_CLOSE_AFTER_COMPLETION;
}

static bool has_work(const struct fake_daemon *f) {
        uint32_t cq_head = atomic_load_explicit(&f->header->cq_head, memory_order_acquire);

        return !f->hold && f->cq_tail - cq_head < f->layout.geometry.cq_entries &&
               atomic_load_explicit(&f->header->sq_tail, memory_order_acquire) != f->sq_head;
}

static void watch(int epoll_fd, int fd, uint32_t events) {
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd,
                  &(struct epoll_event){ .events = events, .data.fd = fd });
}

/* Sleeps as soon as there is nothing to do, so that every wake-up is put to the test. */
static void ready(struct fake_daemon *f) {
        _cleanup_(closep) int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        uint64_t word;

        watch(epoll_fd, f->fd, EPOLLIN);
        watch(epoll_fd, f->doorbell_fd, EPOLLIN | EPOLLET); /* never read: edges only */
        watch(epoll_fd, f->control_fd, EPOLLIN);
        while (!f->stop) {
                struct epoll_event event = { 0 };

                atomic_store_explicit(&f->header->daemon_sleeping, 1, memory_order_relaxed);
                atomic_thread_fence(memory_order_seq_cst);
                if (!has_work(f))
                        epoll_wait(epoll_fd, &event, 1, -1);
                atomic_store_explicit(&f->header->daemon_sleeping, 0, memory_order_relaxed);
                if (event.data.fd == f->doorbell_fd)
                        f->n_doorbells++;
                if (event.data.fd == f->control_fd)
                        (void)read(f->control_fd, &word, sizeof(word));
                if (f->trick == TRICK_CLOSE_WHEN_HELD && f->hold)
                        return;
                if (event.data.fd == f->fd && event.events && !fake_on_message(f))
                        return;
                while (has_work(f))
                        if (!serve(f))
                                return;
        }
}

static void serve_connection(struct fake_daemon *f) {
        f->fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        f->memory = NULL;
        f->memfd = f->doorbell_fd = -1;
        f->sq_head = f->cq_tail = f->answered = 0;
        f->n_connections += f->fd >= 0;
        if (f->fd >= 0 && greet(f) && take_ring(f))
                ready(f);
        /* A dead process drops everything at once. */
        if (f->memory)
                munmap(f->memory, f->layout.ring_bytes);
        closep(&f->memfd);
        closep(&f->doorbell_fd);
        closep(&f->fd);
}

static void *run(void *userdata) {
        struct fake_daemon *f = userdata;

        serve_connection(f);
        for (uint32_t i = 0; f->n_later && !f->stop; i++) {
                f->trick = f->later[i < f->n_later ? i : f->n_later - 1];
                f->epoch++;
                serve_connection(f);
        }
        return NULL;
}

void fake_daemon_start(struct fake_daemon *f, const char *dir, const char *table_path,
                       enum trick trick) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        *f = (struct fake_daemon){
                .trick = trick,
                .max_ids = RING_IDS_MAX,
                .features = WIRE_FEATURES_KNOWN,
                .epoch = 77,
                .fd = -1,
                .memfd = -1,
                .doorbell_fd = -1,
        };
        f->file_fd = open(table_path, O_RDONLY | O_CLOEXEC);
        assert_true(f->file_fd >= 0);
        assert_int_equal(codec_file_map(f->file_fd, &f->file, NULL), 0);
        snprintf(f->path, sizeof(f->path), "%s/socket", dir);
        memcpy(address.sun_path, f->path, sizeof(f->path));
        unlink(f->path);
        f->control_fd = eventfd(0, EFD_CLOEXEC);
        f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(f->listen_fd, (void *)&address, sizeof(address)), 0);
        assert_int_equal(listen(f->listen_fd, 8), 0);
        assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
}

static void poke(struct fake_daemon *f) {
        (void)write(f->control_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

void fake_daemon_hold(struct fake_daemon *f, bool hold) {
        f->hold = hold;
        poke(f);
}

void fake_daemon_stop(struct fake_daemon *f) {
        f->stop = true;
        poke(f);
        shutdown(f->listen_fd, SHUT_RDWR); /* when nobody connected */
        pthread_join(f->thread, NULL);
        close(f->listen_fd);
        close(f->control_fd);
        close(f->file_fd);
        codec_file_unmap(&f->file);
        unlink(f->path);
}

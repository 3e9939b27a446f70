/* SPDX-License-Identifier: Apache-2.0 */
/* See scribbler.h. Trusts neither the daemon nor what it wrote itself a moment ago. */
#include "scribbler.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "proto/ring.h"
#include "proto/spin.h"
#include "proto/wire.h"

#define SQ_ENTRIES   64u
#define CQ_ENTRIES   128u
#define IDS_BYTES    (RING_IDS_MAX * sizeof(uint64_t))
#define ANSWER_MS    10000
#define FDS_MAX      253u /* SCM_MAX_FD */
#define FLOOD_N      50u  /* messages of descriptors in a queue */
#define ACTS_PER_RUN 20000u

struct scribbler {
        const struct scribbler_options *options;
        struct scribbler_report *report;
        uint64_t random;
        int fd, memfd, doorbell;
        struct ring_layout layout;
        uint8_t *memory;
        struct ring_header *header;
        struct wire_table table;
        uint32_t sq_tail, cq_head; /* what an honest client would publish */
        uint32_t sq_head;          /* of the daemon's, the last that can be true */
        bool ended;                /* by the daemon */
};

static uint64_t next(struct scribbler *s) {
        s->random ^= s->random << 13;
        s->random ^= s->random >> 7;
        s->random ^= s->random << 17;
        return s->random;
}

static uint64_t below(struct scribbler *s, uint64_t n) {
        return (next(s) >> 16) % n;
}

/* ---- Messages ---- */

/* False: the connection is over, or the queue is full. */
static bool say(struct scribbler *s, const void *message, size_t bytes, const int *fds,
                size_t n_fds) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(FDS_MAX * sizeof(int))] = { 0 };
        struct iovec iov = { (void *)(uintptr_t)message, bytes };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds) {
                struct cmsghdr *c;

                m.msg_control = control;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        return sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes;
}

/* The next message of this type, past others; false at the end of the connection. */
static bool hear(struct scribbler *s, uint32_t type, void *ret_message, size_t bytes) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_header header;

        do {
                _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
                struct iovec iov = { message, sizeof(message) };
                struct msghdr m = { .msg_iov = &iov,
                                    .msg_iovlen = 1,
                                    .msg_control = control,
                                    .msg_controllen = sizeof(control) };
                struct pollfd p = { .fd = s->fd, .events = POLLIN };

                if (poll(&p, 1, ANSWER_MS) != 1 ||
                    recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC) < (ssize_t)sizeof(header))
                        return false;
                memcpy(&header, message, sizeof(header));
                if (CMSG_FIRSTHDR(&m) && s->doorbell < 0)
                        memcpy(&s->doorbell, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
                if (header.type == WIRE_ERROR)
                        return false;
        } while (header.type != type);
        memcpy(ret_message, message, bytes);
        return true;
}

/* Throws away what has come. */
static void listen_no_more(struct scribbler *s) {
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct wire_header header;
        ssize_t n;

        while ((n = recv(s->fd, message, sizeof(message), MSG_DONTWAIT)) >=
               (ssize_t)sizeof(header)) {
                memcpy(&header, message, sizeof(header));
                s->ended |= header.type == WIRE_ERROR;
        }
        s->ended |= n >= 0 || errno != EAGAIN;
}

/* ---- Connections ---- */

static void leave(struct scribbler *s) {
        if (s->memory)
                munmap(s->memory, s->layout.ring_bytes);
        s->memory = NULL;
        closep(&s->fd);
        closep(&s->memfd);
        closep(&s->doorbell);
        s->fd = s->memfd = s->doorbell = -1;
        s->report->n_refused += s->ended;
        s->ended = false;
}

static int reach(struct scribbler *s) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int r = 0;

        if (strlen(s->options->socket_path) >= sizeof(a.sun_path))
                return -ENAMETOOLONG;
        strcpy(a.sun_path, s->options->socket_path);
        s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                r = -errno;
        return r;
}

static bool say_hello(struct scribbler *s) {
        const struct wire_hello hello = { .header = { WIRE_HELLO, sizeof(hello) },
                                          .magic = WIRE_MAGIC,
                                          .version_major = WIRE_VERSION_MAJOR,
                                          .version_minor = WIRE_VERSION_MINOR,
                                          .features_offered = WIRE_FEATURES_KNOWN,
                                          .name = "scribbler" };

        return say(s, &hello, sizeof(hello), NULL, 0);
}

static int make_ring(struct scribbler *s, struct wire_ring *ret_ring) {
        const uint64_t arena_bytes = s->options->arena_bytes ? s->options->arena_bytes : 1 << 20;

        *ret_ring = (struct wire_ring){ .header = { WIRE_RING, sizeof(*ret_ring) },
                                        .geometry = { .sq_entries = SQ_ENTRIES,
                                                      .cq_entries = CQ_ENTRIES,
                                                      .ids_bytes = IDS_BYTES,
                                                      .arena_bytes = arena_bytes } };
        ring_layout_compute(&ret_ring->geometry, &s->layout, NULL);
        s->memfd = memfd_create("scribbler", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (s->memfd < 0 || ftruncate(s->memfd, (off_t)s->layout.ring_bytes) < 0 ||
            fcntl(s->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        s->memory =
                mmap(NULL, s->layout.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
        if (s->memory == MAP_FAILED) {
                s->memory = NULL;
                return -errno;
        }
        s->header = (struct ring_header *)(void *)s->memory;
        s->sq_tail = s->cq_head = s->sq_head = 0;
        return 0;
}

static bool open_table(struct scribbler *s) {
        struct wire_open_table open = { .header = { WIRE_OPEN_TABLE, sizeof(open) } };

        strncpy(open.name, s->options->table, sizeof(open.name) - 1);
        return say(s, &open, sizeof(open), NULL, 0) &&
               hear(s, WIRE_TABLE, &s->table, sizeof(s->table));
}

/* The whole handshake and an open table. -EAGAIN: the daemon did not want it, now. */
static int enter(struct scribbler *s) {
        struct wire_welcome welcome;
        struct wire_ready ready;
        struct wire_ring ring;
        int r;

        r = reach(s);
        if (r < 0)
                return r;
        if (!say_hello(s) || !hear(s, WIRE_WELCOME, &welcome, sizeof(welcome)))
                return -EAGAIN;
        r = make_ring(s, &ring);
        if (r < 0)
                return r;
        if (!say(s, &ring, sizeof(ring), &s->memfd, 1) ||
            !hear(s, WIRE_READY, &ready, sizeof(ready)) || s->doorbell < 0 || !open_table(s))
                return -EAGAIN;
        if (s->table.status != WIRE_OK)
                return -ENOENT;
        fcntl(s->doorbell, F_SETFL, O_NONBLOCK);
        s->report->n_connections++;
        return 0;
}

/* ---- The good stream ---- */

static struct ring_submission *entry(struct scribbler *s, uint32_t i) {
        return (struct ring_submission *)(void *)(s->memory + s->layout.sq_offset) +
               (i & (SQ_ENTRIES - 1));
}

static uint64_t *ids(struct scribbler *s) {
        return (uint64_t *)(void *)(s->memory + s->layout.ids_offset);
}

/* How many rows of this stride the arena holds. */
static uint32_t rows_that_fit(const struct scribbler *s, uint64_t stride, uint32_t n_max) {
        return (uint32_t)MIN(MAX(s->layout.geometry.arena_bytes / stride, 1u), n_max);
}

static struct ring_submission good_submission(struct scribbler *s) {
        struct ring_submission e = { .user_data = s->sq_tail,
                                     .table = s->table.table,
                                     .submit_ns = clock_ns(),
                                     .row_stride_bytes = s->table.n_dims * sizeof(float),
                                     .scale = 1 };

        e.n_ids = 1 + (uint32_t)below(s, rows_that_fit(s, e.row_stride_bytes, 64));
        return e;
}

/* One whose last id is past the table's end: all of them are copied and looked at for nothing. */
static struct ring_submission failing_submission(struct scribbler *s) {
        struct ring_submission e = good_submission(s);

        e.n_ids = RING_IDS_MAX;
        e.n_cols = 1;
        e.type = RING_TYPE_F16;
        e.row_stride_bytes = 2;
        ids(s)[RING_IDS_MAX - 1] = UINT64_MAX;
        return e;
}

static struct ring_submission strided_submission(struct scribbler *s) {
        struct ring_submission e = good_submission(s);

        e.row_stride_bytes = align_up(e.row_stride_bytes, 4096);
        e.n_ids = rows_that_fit(s, e.row_stride_bytes, RING_IDS_MAX);
        return e;
}

/* Any field, at any edge there may be: most are refused, and those that are not do no harm. */
static struct ring_submission submission_at_an_edge(struct scribbler *s) {
        const uint64_t n_bytes = s->layout.geometry.arena_bytes;
        const uint64_t edges[] = { 0,
                                   1,
                                   63,
                                   64,
                                   RING_IDS_MAX,
                                   RING_IDS_MAX + 1,
                                   INT32_MAX,
                                   UINT32_MAX,
                                   UINT64_C(1) << 32,
                                   INT64_MAX,
                                   UINT64_C(1) << 63,
                                   UINT64_MAX,
                                   UINT64_MAX - 63,
                                   n_bytes,
                                   n_bytes - 64,
                                   IDS_BYTES,
                                   IDS_BYTES - 8,
                                   s->table.n_dims,
                                   s->table.n_dims * 4u };
        struct ring_submission e = good_submission(s);
        uint64_t *wide[] = { &e.table,      &e.submit_ns,        &e.ids_offset, &e.bags_offset,
                             &e.out_offset, &e.row_stride_bytes, &e.user_data };
        uint32_t *narrow[] = { &e.n_ids, &e.n_bags, &e.col_first, &e.n_cols };
        uint8_t *bytes[] = { &e.type, &e.pooling, &e.out_of_range, &e.flags, e.reserved };

        for (uint64_t n = 1 + below(s, 3); n; n--) {
                const uint64_t edge = edges[below(s, ARRAY_SIZE(edges))];

                switch (below(s, 4)) {
                case 0:
                        *narrow[below(s, ARRAY_SIZE(narrow))] = (uint32_t)edge;
                        break;
                case 1:
                        *bytes[below(s, ARRAY_SIZE(bytes))] = (uint8_t)edge;
                        break;
                default:
                        *wide[below(s, ARRAY_SIZE(wide))] = edge;
                }
        }
        return e;
}

static struct ring_submission submission(struct scribbler *s) {
        switch (s->options->kind) {
        case SCRIBBLER_FAILURES:
                return failing_submission(s);
        case SCRIBBLER_FAULTS:
                return strided_submission(s);
        case SCRIBBLER_EDGES:
                return submission_at_an_edge(s);
        default:
                return good_submission(s);
        }
}

static void ring_bell(struct scribbler *s) {
        (void)!write(s->doorbell, &(uint64_t){ 1 }, sizeof(uint64_t));
}

/*
 * As an honest client does it; half of the ring at a time, so that what is scribbled hits entries
 * that wait. Where sq_head has been scribbled over, by what it was before: the rest of the ring
 * makes the daemon store it anew.
 */
static void submit_some(struct scribbler *s) {
        uint32_t head = atomic_load_explicit(&s->header->sq_head, memory_order_acquire);
        uint32_t n_max = SQ_ENTRIES / 2;
        bool any = false;

        if (s->sq_tail - head <= SQ_ENTRIES)
                s->sq_head = head;
        else
                n_max = SQ_ENTRIES;
        while (s->sq_tail - s->sq_head < n_max) {
                *entry(s, s->sq_tail) = submission(s);
                s->sq_tail++;
                s->report->n_submissions++;
                any = true;
        }
        if (!any)
                return;
        atomic_store_explicit(&s->header->sq_tail, s->sq_tail, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&s->header->daemon_sleeping, memory_order_relaxed))
                ring_bell(s);
}

static void reap_all(struct scribbler *s) {
        uint32_t tail = atomic_load_explicit(&s->header->cq_tail, memory_order_acquire);

        if (tail - s->cq_head > CQ_ENTRIES)
                return;
        s->report->n_completions += tail - s->cq_head;
        s->cq_head = tail;
        atomic_store_explicit(&s->header->cq_head, tail, memory_order_release);
        ring_bell(s);
}

static void fill_ids(struct scribbler *s) {
        for (size_t i = 0; i < RING_IDS_MAX; i++)
                ids(s)[i] = i % 1000;
}

/* ---- Mischief ---- */

static void scribble_entries(struct scribbler *s) {
        uint8_t *at = (uint8_t *)entry(s, (uint32_t)next(s));

        if (below(s, 2)) {
                ids(s)[below(s, 128)] = below(s, 2) ? next(s) : below(s, 1000);
                return;
        }
        /* A word, or a bit of one: what was right becomes wrong, and the other way round. */
        at += 8 * below(s, sizeof(struct ring_submission) / 8);
        if (below(s, 2))
                *(volatile uint64_t *)(void *)at = next(s) >> below(s, 64);
        else
                *(volatile uint64_t *)(void *)at ^= UINT64_C(1) << below(s, 64);
}

/* All but the two indices that are the client's to publish: these two end the session. */
static void scribble_words(struct scribbler *s) {
        const uint64_t at = 4 * below(s, RING_PAGE_BYTES / 4);

        if (at == offsetof(struct ring_header, sq_tail) ||
            at == offsetof(struct ring_header, cq_head))
                return;
        *(volatile uint32_t *)(void *)(s->memory + at) = (uint32_t)next(s);
        if (below(s, 64) == 0)
                s->memory[s->layout.cq_offset + below(s, CQ_ENTRIES * 32)] = (uint8_t)next(s);
}

static void scribble_indices(struct scribbler *s) {
        const uint32_t steps[] = {
                0u - 1,         1,        SQ_ENTRIES, SQ_ENTRIES + 1, 0u - SQ_ENTRIES,
                CQ_ENTRIES + 1, 1u << 31, 0x7fffffff, UINT32_MAX,     0u - CQ_ENTRIES
        };
        const uint32_t step = below(s, 4) ? steps[below(s, ARRAY_SIZE(steps))] : (uint32_t)next(s);

        if (below(s, 100))
                return; /* else it would be out before it had submitted anything */
        if (below(s, 2))
                atomic_fetch_add_explicit(&s->header->sq_tail, step, memory_order_release);
        else
                atomic_fetch_add_explicit(&s->header->cq_head, step, memory_order_release);
        ring_bell(s);
}

/* -ENOTRECOVERABLE: the memory could be cut. */
static int punch(struct scribbler *s, uint64_t from, uint64_t to) {
        uint64_t first = below(s, (to - from) / 4096), n = 1 + below(s, (to - from) / 4096 - first);

        fallocate(s->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(from + first * 4096), (off_t)(n * 4096));
        if (ftruncate(s->memfd, 0) == 0 ||
            ftruncate(s->memfd, (off_t)s->layout.ring_bytes * 2) == 0)
                return -ENOTRECOVERABLE;
        return 0;
}

static int punch_holes(struct scribbler *s) {
        int r;

        if (below(s, 50))
                return 0;
        r = punch(s, 0, s->layout.ring_bytes);
        /* Ids and indices are zeros now; an honest index would be an impossible one. */
        atomic_store_explicit(&s->header->sq_tail, s->sq_tail, memory_order_release);
        atomic_store_explicit(&s->header->cq_head, s->cq_head, memory_order_release);
        return r;
}

static void ask_for_wakes(struct scribbler *s) {
        atomic_fetch_add_explicit(&s->header->client_waiting, 2, memory_order_relaxed);
        ring_bell(s);
}

static void juggle_tables(struct scribbler *s) {
        struct wire_close_table close_table = { .header = { WIRE_CLOSE_TABLE, sizeof(close_table) },
                                                .table = s->table.table };

        s->ended |= !say(s, &close_table, sizeof(close_table), NULL, 0) || !open_table(s) ||
                    s->table.status != WIRE_OK; /* retired since */
}

/* The kernel limits how many may be under way, and from Linux 6.16 on lets none of them through. */
static void flood_descriptors(struct scribbler *s) {
        struct wire_welcome welcome;
        int fds[FDS_MAX];

        for (size_t i = 0; i < FDS_MAX; i++)
                fds[i] = s->fd;
        if (below(s, 2) && say_hello(s))
                hear(s, WIRE_WELCOME, &welcome, sizeof(welcome));
        for (size_t i = 0; i < FLOOD_N; i++)
                say(s, "flood", below(s, 6), fds, 1 + below(s, FDS_MAX));
        s->ended = true;
}

static void shake_hands_and_leave(struct scribbler *s) {
        struct wire_welcome welcome;
        struct wire_ready ready;
        struct wire_ring ring;
        const uint64_t how_far = below(s, 6);

        if (how_far == 0)
                return;
        if (how_far == 1) {
                s->ended = say(s, "half a message", 1 + below(s, 14), NULL, 0);
                return;
        }
        if (!say_hello(s) || how_far == 2 || !hear(s, WIRE_WELCOME, &welcome, sizeof(welcome)) ||
            how_far == 3 || make_ring(s, &ring) < 0)
                return;
        if (say(s, &ring, sizeof(ring), &s->memfd, 1) && how_far == 5)
                hear(s, WIRE_READY, &ready, sizeof(ready));
}

static int act(struct scribbler *s) {
        s->report->n_acts++;
        switch (s->options->kind) {
        case SCRIBBLER_ENTRIES:
                scribble_entries(s);
                break;
        case SCRIBBLER_WORDS:
                scribble_words(s);
                break;
        case SCRIBBLER_INDICES:
                scribble_indices(s);
                break;
        case SCRIBBLER_HOLES:
                return punch_holes(s);
        case SCRIBBLER_FAULTS:
                return punch(s, s->layout.arena_offset, s->layout.ring_bytes);
        case SCRIBBLER_WAKES:
                ask_for_wakes(s);
                break;
        case SCRIBBLER_TABLES:
                juggle_tables(s);
                break;
        default:
                break;
        }
        return 0;
}

static bool is_over(const struct scribbler *s) {
        return s->report->n_acts >= s->options->min_acts && clock_ns() > s->options->until_ns;
}

/* One connection, until its daemon or its time ends it. */
static int misbehave(struct scribbler *s) {
        const enum scribbler_kind kind = s->options->kind;
        int r = 0;

        fill_ids(s);
        for (uint64_t n = 0; n < ACTS_PER_RUN && !s->ended && r >= 0; n++) {
                if (n % 16 == 0) {
                        if (is_over(s))
                                break;
                        if (kind != SCRIBBLER_WAKES && kind != SCRIBBLER_TABLES)
                                listen_no_more(s);
                }
                if (kind == SCRIBBLER_WAKES && n % 256 == 0)
                        listen_no_more(s); /* or who is thrown out would never know */
                submit_some(s);
                if (kind != SCRIBBLER_MUTE)
                        reap_all(s);
                r = act(s);
                sched_yield();
        }
        return r;
}

static int connect_once(struct scribbler *s) {
        const enum scribbler_kind kind = s->options->kind;
        int r;

        if (kind == SCRIBBLER_DESCRIPTORS || kind == SCRIBBLER_HANDSHAKES) {
                r = reach(s);
                if (r < 0)
                        return r;
                s->report->n_connections++;
                s->report->n_acts++;
                if (kind == SCRIBBLER_DESCRIPTORS)
                        flood_descriptors(s);
                else
                        shake_hands_and_leave(s);
                return 0;
        }
        r = enter(s);
        s->ended = r == -EAGAIN;
        return r < 0 ? r : misbehave(s);
}

const char *scribbler_kind_name(enum scribbler_kind kind) {
        static const char *const names[SCRIBBLER_N] = {
                [SCRIBBLER_ENTRIES] = "entries",       [SCRIBBLER_WORDS] = "words",
                [SCRIBBLER_INDICES] = "indices",       [SCRIBBLER_EDGES] = "edges",
                [SCRIBBLER_OVERLAPS] = "overlaps",     [SCRIBBLER_HOLES] = "holes",
                [SCRIBBLER_FAULTS] = "faults",         [SCRIBBLER_FAILURES] = "failures",
                [SCRIBBLER_WAKES] = "wakes",           [SCRIBBLER_MUTE] = "mute",
                [SCRIBBLER_TABLES] = "tables",         [SCRIBBLER_DESCRIPTORS] = "descriptors",
                [SCRIBBLER_HANDSHAKES] = "handshakes",
        };

        return names[kind];
}

int scribbler_run(const struct scribbler_options *options, struct scribbler_report *ret_report) {
        struct scribbler s = { .options = options,
                               .report = ret_report,
                               .random = options->seed * UINT64_C(0x9e3779b97f4a7c15) | 1,
                               .fd = -1,
                               .memfd = -1,
                               .doorbell = -1 };
        int r = 0;

        *ret_report = (struct scribbler_report){ 0 };
        while (!is_over(&s)) {
                r = connect_once(&s);
                leave(&s);
                /* No room now is no reason to give up. */
                if (r < 0 && r != -EAGAIN)
                        break;
                r = 0;
        }
        return r;
}

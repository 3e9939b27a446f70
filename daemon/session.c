/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "access.h"
#include "probes.h"
#include "proto/spin.h"
#include "session-impl.h"

#define HANDSHAKE_NS UINT64_C(5000000000)

const struct session_info *session_info(const struct session *s) {
        return &s->info;
}

const struct stats *session_stats(const struct session *s) {
        return &s->seat.seat.stats;
}

struct session_claims session_claims(const struct session *s) {
        const struct ring_claims *c;

        if (s->info.state != SESSION_READY)
                return (struct session_claims){ 0 };
        c = s->seat.seat.ring.claims;
        return (struct session_claims){
                .n_lookups = atomic_load_explicit(&c->n_lookups, memory_order_relaxed),
                .n_rows = atomic_load_explicit(&c->n_rows, memory_order_relaxed),
                .n_rows_read = atomic_load_explicit(&c->n_rows_read, memory_order_relaxed),
                .n_values_read = atomic_load_explicit(&c->n_values_read, memory_order_relaxed),
                .bytes_read = atomic_load_explicit(&c->bytes_read, memory_order_relaxed),
                .lines_read = atomic_load_explicit(&c->lines_read, memory_order_relaxed),
                .bytes_written = atomic_load_explicit(&c->bytes_written, memory_order_relaxed),
        };
}

struct smaps_range session_ring(const struct session *s) {
        const struct ring_server *ring = &s->seat.seat.ring;

        return s->info.state == SESSION_READY
                       ? (struct smaps_range){ .start = (uintptr_t)ring->memory,
                                               .length_bytes = ring->layout.ring_bytes }
                       : (struct smaps_range){ 0 };
}

/* The difference to what was counted before: of any 64 bits, but nobody believes them anyway. */
static void count_hits(struct session *s, uint32_t i) {
        const struct ring_cache_use *use = s->seat.seat.ring.cache_use;
        uint64_t n;

        if (!s->tables[i] || !s->tables[i]->cache || !use)
                return;
        n = atomic_load_explicit(&use->n_hits[i], memory_order_relaxed);
        s->tables[i]->cache->n_hits += n - s->n_hits[i];
        probe_cache_hit(s->info.id, s->tables[i]->generation, n - s->n_hits[i]);
        s->n_hits[i] = n;
}

void sessions_count_hits(struct daemon *daemon) {
        struct session *s;

        TAILQ_FOREACH(s, &daemon->sessions, link) {
                for (uint32_t i = 0; s->info.state == SESSION_READY && i < WIRE_TABLES_MAX; i++)
                        count_hits(s, i);
        }
}

struct session *session_first(struct daemon *daemon) {
        return TAILQ_FIRST(&daemon->sessions);
}

struct session *session_next(struct session *s) {
        return TAILQ_NEXT(s, link);
}

/* A client can cause each of these as often as it likes. */
static void log_session(struct log_limit *limit, enum log_level level, const struct session *s,
                        const char *what, const char *detail) {
        char pid[16], uid[16], id[24];

        snprintf(pid, sizeof(pid), "%d", s->info.pid);
        snprintf(uid, sizeof(uid), "%u", s->info.uid);
        snprintf(id, sizeof(id), "%" PRIu64, s->info.id);
        log_limited(limit, level,
                    (const char *[]){ "SESSION", id, "CLIENT_PID", pid, "CLIENT_UID", uid,
                                      "CLIENT_NAME", s->info.name, NULL },
                    "client %s%s%s", what, detail[0] ? ": " : "", detail);
}

/* ---- sending: small and rare, straight from the loop, never waiting ---- */

static int send_message(struct session *s, const void *message, size_t bytes, int fd) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = { 0 };
        struct iovec iov = { (void *)(uintptr_t)message, bytes };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                struct cmsghdr *c;

                m.msg_control = control;
                m.msg_controllen = sizeof(control);
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(c), &fd, sizeof(int));
        }
        return sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* A client that lets its queue fill up or is gone already gets no more; its end shows at the
 * receive. */
static void send_or_close(struct session *s, const void *message, size_t bytes, int fd) {
        int r = send_message(s, message, bytes, fd);

        if (r < 0)
                session_close(s, WIRE_OK, r == -EAGAIN ? "does not read its socket" : strerror(-r));
}

static void send_error(int fd, enum wire_status status, const char *text) {
        struct wire_error m = { .header = { WIRE_ERROR, sizeof(m) }, .status = status };

        snprintf(m.text, sizeof(m.text), "%.255s", text);
        send(fd, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the end ---- */

static void close_fds(struct session *s) {
        while (s->n_fds)
                close(s->fds[--s->n_fds]);
}

static void cleanup_work(struct chore *chore) {
        struct session *s = container_of(chore, struct session, cleanup);

        /*
         * The last reference to the client's memory: freeing gigabytes takes its time. Descriptors
         * of the client's take what time it likes: a socket that lingers, a file of a file system
         * of its own (FUSE). More of them may be in the queue of ours.
         */
        close_fds(s);
        ring_server_deinit(&s->seat.seat.ring);
        closep(&s->memfd);
        closep(&s->seat.doorbell_fd);
        closep(&s->fd);
}

static void cleanup_done(struct chore *chore) {
        struct session *s = container_of(chore, struct session, cleanup);
        struct daemon *daemon = s->daemon;

        TAILQ_REMOVE(&daemon->sessions, s, link);
        daemon->n_sessions--;
        quota_leave(&s->quota);
        free(s);
        daemon_stop_if_done(daemon);
}

void session_settle(struct session *s) {
        if (s->holding && s->info.state == SESSION_READY) {
                session_hold(s);
                return;
        }
        if (s->info.state != SESSION_CLOSING || s->attached || s->receiving || s->n_changes)
                return;
        for (uint32_t i = 0; i < WIRE_TABLES_MAX; i++) {
                count_hits(s, i);
                if (s->tables[i])
                        store_unuse(&s->daemon->store, s->tables[i]);
        }
        s->cleanup.work = cleanup_work;
        s->cleanup.done = cleanup_done;
        s->leaving = true;
        chores_post_apart(s->daemon->chores, &s->cleanup);
        daemon_stop_if_done(s->daemon);
}

static void hang_up(struct session *s) {
        if (s->close_status != WIRE_OK)
                send_error(s->fd, s->close_status, s->close_text);
        /* Ends a receive that is under way. */
        shutdown(s->fd, SHUT_RDWR);
        session_settle(s);
}

void session_close(struct session *s, enum wire_status status, const char *text) {
        static struct log_limit limit;

        if (s->info.state == SESSION_CLOSING)
                return;
        s->info.state = SESSION_CLOSING;
        probe_session_close(s->info.id, &s->seat.seat, status);
        s->close_status = status;
        snprintf(s->close_text, sizeof(s->close_text), "%.255s", text);
        log_session(&limit,
                    status == WIRE_OK || status == WIRE_SHUTDOWN ? LOG_LEVEL_DEBUG
                                                                 : LOG_LEVEL_WARNING,
                    s, "leaves", text);

        /* The last word comes after the worker's wake-ups. */
        if (!s->attached)
                hang_up(s);
        else if (!s->detaching)
                worker_detach(&s->seat, status == WIRE_SHUTDOWN ? WORKER_DRAIN : WORKER_DROP);
}

void session_dismiss(struct session *s) {
        session_close(s, WIRE_SHUTDOWN, "carvqd is stopping");
}

void sessions_dismiss(struct daemon *daemon) {
        struct session *s, *next;

        for (s = session_first(daemon); s; s = next) {
                next = session_next(s);
                session_dismiss(s);
        }
}

static void seat_detached(struct worker_seat *seat) {
        struct session *s = (struct session *)seat;

        s->attached = false;
        if (s->info.state == SESSION_CLOSING)
                hang_up(s);
        else
                session_settle(s);
}

static void seat_failed(struct worker_seat *seat, const struct fault *fault) {
        session_close((struct session *)seat, WIRE_PROTOCOL, fault->text);
}

void sessions_expire(struct daemon *daemon, uint64_t now_ns) {
        struct session *s, *next;

        for (s = TAILQ_FIRST(&daemon->sessions); s; s = next) {
                next = TAILQ_NEXT(s, link);
                if (s->info.state <= SESSION_RING && now_ns - s->info.connected_ns > HANDSHAKE_NS)
                        session_close(s, WIRE_PROTOCOL, "the handshake was not finished in 5 s");
        }
}

/* ---- messages ---- */

static void on_hello(struct session *s, const struct wire_hello *m) {
        struct wire_welcome welcome = {
                .header = { WIRE_WELCOME, sizeof(welcome) },
                .magic = WIRE_MAGIC,
                .version_major = WIRE_VERSION_MAJOR,
                .version_minor = WIRE_VERSION_MINOR,
                .max_ids = RING_IDS_MAX,
                .features_accepted = m->features_offered & WIRE_FEATURES_KNOWN,
                .epoch = s->daemon->epoch,
                .session = s->info.id,
                .max_ring_bytes = s->daemon->config.max_ring_bytes,
                .server = "carvqd " CARVQ_VERSION,
        };
        char text[WIRE_TEXT_BYTES];

        if (m->features_required & ~WIRE_FEATURES_KNOWN) {
                snprintf(text, sizeof(text),
                         "the client requires features 0x%" PRIx64 ", this daemon has 0x%" PRIx64,
                         m->features_required, WIRE_FEATURES_KNOWN);
                session_close(s, WIRE_VERSION, text);
                return;
        }
        s->info.features = welcome.features_accepted;
        memcpy(s->info.name, m->name, sizeof(s->info.name));
        s->info.state = SESSION_RING;
        socket_pass_descriptors(s->fd, true);
        send_or_close(s, &welcome, sizeof(welcome), -1);
}

void session_attach(struct session *s) {
        struct worker *worker;

        s->info.ring_bytes = s->seat.seat.ring.layout.ring_bytes;
        s->info.state = SESSION_READY;
        s->seat.failed = seat_failed;
        s->seat.detached = seat_detached;
        s->attached = true;
        worker = worker_least_loaded(s->daemon->workers, s->daemon->config.n_workers);
        s->seat.seat.ids_quota = quota_ids(&s->quota, worker_number(worker));
        worker_attach(worker, &s->seat);
}

enum wire_status session_take_ring(struct session *s, const struct ring_layout *layout,
                                   char text[WIRE_TEXT_BYTES]) {
        const uint64_t max_bytes = s->daemon->config.max_ring_bytes;
        struct fault fault = { 0 };

        if (layout->ring_bytes > max_bytes)
                snprintf(text, WIRE_TEXT_BYTES,
                         "a ring of %" PRIu64 " bytes, this daemon grants %" PRIu64
                         " (max-ring-bytes)",
                         layout->ring_bytes, max_bytes);
        else if (quota_take(&s->daemon->quota, &s->quota, QUOTA_RING_BYTES, layout->ring_bytes,
                            &fault) < 0)
                snprintf(text, WIRE_TEXT_BYTES, "%.255s", fault.text);
        else
                return WIRE_OK;
        return WIRE_LIMIT;
}

/* Keeps the memory's descriptor, for a daemon that may come after this one. */
static void on_ring(struct session *s, const struct wire_ring *m) {
        struct wire_ready ready = { .header = { WIRE_READY, sizeof(ready) } };
        static struct log_limit limit;
        struct ring_layout layout;
        struct fault fault = { 0 };
        char text[WIRE_TEXT_BYTES];
        int r;

        socket_pass_descriptors(s->fd, false);
        if (ring_layout_compute(&m->geometry, &layout, &fault) < 0) {
                session_close(s, WIRE_RING_REFUSED, fault.text);
                return;
        }
        if (session_take_ring(s, &layout, text) != WIRE_OK) {
                session_close(s, WIRE_LIMIT, text);
                return;
        }
        r = ring_server_init(&s->seat.seat.ring, s->fds[0], &layout, s->daemon->epoch, s->fd,
                             &fault);
        if (r < 0) {
                /* Only what is wrong with the memory is the client's affair. */
                session_close(s, r == -ENOMEM ? WIRE_INTERNAL : WIRE_RING_REFUSED, fault.text);
                return;
        }
        s->seat.doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->seat.doorbell_fd < 0) {
                session_close(s, WIRE_INTERNAL, "carvqd has no descriptor left for the doorbell");
                return;
        }
        s->memfd = s->fds[0];
        s->n_fds = 0; /* there was one */
        session_attach(s);
        log_session(&limit, LOG_LEVEL_DEBUG, s, "is ready", "");
        send_or_close(s, &ready, sizeof(ready), s->seat.doorbell_fd);
}

static void change_slot(struct session *s, struct worker_slot_change *change) {
        change->seat = &s->seat;
        s->n_changes++;
        worker_change_slot(change);
}

static void answer_open(struct session *s, const struct wire_table *m) {
        send_or_close(s, m, sizeof(*m), -1);
}

static void refuse_open(struct session *s, uint64_t request, enum wire_status status,
                        const char *text) {
        struct wire_table m = { .header = { WIRE_TABLE, sizeof(m) },
                                .request = request,
                                .status = status };

        snprintf(m.text, sizeof(m.text), "%.255s", text);
        answer_open(s, &m);
}

struct open_change {
        struct worker_slot_change change; /* first */
        uint64_t request;
};

static void open_done(struct worker_slot_change *change) {
        _cleanup_(freep) struct open_change *open = (struct open_change *)change;
        struct session *s = (struct session *)change->seat;
        uint32_t i = (uint32_t)(change->handle % WIRE_TABLES_MAX);
        struct store_table *t = s->tables[i];
        const struct table_header *h = &t->file.table.contents.header;

        s->n_changes--;
        if (change->error < 0) {
                s->tables[i] = NULL;
                quota_give(&s->quota, QUOTA_TABLES, 1);
                store_unuse(&s->daemon->store, t);
                refuse_open(s, open->request, WIRE_INTERNAL, "carvqd is out of memory");
        } else if (s->info.state == SESSION_READY) {
                s->info.n_tables++;
                s->handles[i] = change->handle;
                answer_open(s, &(struct wire_table){
                                       .header = { WIRE_TABLE, sizeof(struct wire_table) },
                                       .request = open->request,
                                       .codec = h->codec,
                                       .table = change->handle,
                                       .n_rows = h->n_rows,
                                       .n_dims = h->n_dims,
                                       .record_bytes = h->record_bytes,
                                       .file_bytes = h->file_bytes,
                                       .generation = t->generation,
                               });
        }
        session_settle(s);
}

static int free_slot(const struct session *s) {
        for (int i = 0; i < (int)WIRE_TABLES_MAX; i++)
                if (!s->tables[i])
                        return i;
        return -ENOSPC;
}

/* At every door: whoever opened a table before its group was changed gets no more of it. */
bool session_may_use(const struct session *s, const struct store_table *table,
                     char text[WIRE_TEXT_BYTES]) {
        if (access_granted(s->fd, s->info.uid, s->info.gid, &table->options))
                return true;
        snprintf(text, WIRE_TEXT_BYTES,
                 "table %s is for group %s, of which user %u of this client is no member",
                 table->name, table->options.group, s->info.uid);
        return false;
}

static void on_open_table(struct session *s, const struct wire_open_table *m) {
        struct store_table *table = store_find(&s->daemon->store, m->name);
        static struct log_limit limit;
        struct open_change *open;
        struct fault fault = { 0 };
        char text[WIRE_TEXT_BYTES];
        int slot;

        if (!table) {
                snprintf(text, sizeof(text), "no table named '%s' is published", m->name);
                refuse_open(s, m->request, WIRE_NO_TABLE, text);
                return;
        }
        if (!session_may_use(s, table, text)) {
                log_session(&limit, LOG_LEVEL_INFO, s, "is refused a table", text);
                refuse_open(s, m->request, WIRE_DENIED, text);
                return;
        }
        slot = free_slot(s);
        if (slot < 0) {
                refuse_open(s, m->request, WIRE_LIMIT,
                            "256 tables are open in this session already");
                return;
        }
        if (quota_take(&s->daemon->quota, &s->quota, QUOTA_TABLES, 1, &fault) < 0) {
                refuse_open(s, m->request, WIRE_LIMIT, fault.text);
                return;
        }
        open = calloc(1, sizeof(*open));
        if (!open) {
                quota_give(&s->quota, QUOTA_TABLES, 1);
                refuse_open(s, m->request, WIRE_INTERNAL, "carvqd is out of memory");
                return;
        }
        store_use(table);
        s->tables[slot] = table;
        /* Unique in the session's life: a stale handle names nothing, not another table. */
        open->change.handle = ++s->last_nonce * WIRE_TABLES_MAX + (uint64_t)slot;
        open->request = m->request;
        open->change.table = table;
        open->change.done = open_done;
        change_slot(s, &open->change);
}

static void close_done(struct worker_slot_change *change) {
        struct session *s = (struct session *)change->seat;

        s->n_changes--;
        s->info.n_tables--;
        count_hits(s, (uint32_t)(change->handle % WIRE_TABLES_MAX));
        s->tables[change->handle % WIRE_TABLES_MAX] = NULL;
        store_unuse(&s->daemon->store, change->table);
        free(change);
        session_settle(s);
}

/* The table that a handle names, if the client was told of it and has not closed it. */
static struct store_table *open_table(const struct session *s, uint64_t handle) {
        uint32_t i = (uint32_t)(handle % WIRE_TABLES_MAX);

        return handle && s->handles[i] == handle ? s->tables[i] : NULL;
}

/* The file that is mapped here, whatever its path has come to mean since. */
static void on_get_file(struct session *s, const struct wire_get_file *m) {
        const struct store_table *table = open_table(s, m->table);
        struct wire_file answer = { .header = { WIRE_FILE, sizeof(answer) },
                                    .request = m->request };

        if (!table) {
                session_close(s, WIRE_PROTOCOL, "GET_FILE: the handle names no open table");
                return;
        }
        if (atomic_load_explicit(&table->failed, memory_order_relaxed)) {
                answer.status = WIRE_NO_TABLE;
                snprintf(answer.text, sizeof(answer.text),
                         "table %s was retired: its file cannot be read", table->name);
        } else if (!session_may_use(s, table, answer.text))
                answer.status = WIRE_DENIED;
        send_or_close(s, &answer, sizeof(answer), answer.status == WIRE_OK ? table->fd : -1);
}

static void on_get_cache(struct session *s, const struct wire_get_cache *m) {
        const struct store_table *table = open_table(s, m->table);
        struct wire_cache answer = { .header = { WIRE_CACHE, sizeof(answer) },
                                     .request = m->request };

        if (!table) {
                session_close(s, WIRE_PROTOCOL, "GET_CACHE: the handle names no open table");
                return;
        }
        if (!table->cache) {
                answer.status = WIRE_NO_CACHE;
                snprintf(answer.text, sizeof(answer.text), "table %s has no cache", table->name);
        } else if (!session_may_use(s, table, answer.text))
                answer.status = WIRE_DENIED;
        else
                answer.n_sets = table->cache->layout.n_sets;
        send_or_close(s, &answer, sizeof(answer), answer.status == WIRE_OK ? table->cache->fd : -1);
}

static void on_close_table(struct session *s, const struct wire_close_table *m) {
        uint32_t i = (uint32_t)(m->table % WIRE_TABLES_MAX);
        struct worker_slot_change *change;

        if (!open_table(s, m->table)) {
                session_close(s, WIRE_PROTOCOL, "CLOSE_TABLE: the handle names no open table");
                return;
        }
        change = calloc(1, sizeof(*change));
        if (!change) {
                session_close(s, WIRE_INTERNAL, "carvqd is out of memory");
                return;
        }
        s->handles[i] = 0;
        quota_give(&s->quota, QUOTA_TABLES, 1); /* an OPEN_TABLE may be right behind */
        change->handle = m->table;
        change->done = close_done;
        change_slot(s, change);
}

static void on_message(struct session *s, size_t bytes) {
        struct fault fault = { 0 };
        enum session_state state = s->info.state;
        int type;

        /* First, because another major version's HELLO may have another size. */
        type = wire_check_version(s->buffer, bytes, &fault);
        if (type >= 0)
                type = wire_check(s->buffer, bytes, s->n_fds, &fault);
        if (type < 0)
                session_close(s, type == -EPROTONOSUPPORT ? WIRE_VERSION : WIRE_PROTOCOL,
                              fault.text);
        else if (state == SESSION_HELLO && type == WIRE_HELLO)
                on_hello(s, (const struct wire_hello *)s->buffer);
        else if (state == SESSION_RING && type == WIRE_RING)
                on_ring(s, (const struct wire_ring *)s->buffer);
        else if (state == SESSION_READY && type == WIRE_OPEN_TABLE)
                on_open_table(s, (const struct wire_open_table *)s->buffer);
        else if (state == SESSION_READY && type == WIRE_CLOSE_TABLE)
                on_close_table(s, (const struct wire_close_table *)s->buffer);
        else if (state == SESSION_READY && type == WIRE_GET_FILE &&
                 (s->info.features & WIRE_FEATURE_FILES))
                on_get_file(s, (const struct wire_get_file *)s->buffer);
        else if (state == SESSION_READY && type == WIRE_GET_CACHE &&
                 (s->info.features & WIRE_FEATURE_CACHE))
                on_get_cache(s, (const struct wire_get_cache *)s->buffer);
        else if (state != SESSION_CLOSING)
                session_close(s, WIRE_PROTOCOL, "a message that is not allowed in this state");
}

/* ---- receiving ---- */

void session_receive(struct session *s) {
        s->iov = (struct iovec){ s->buffer, sizeof(s->buffer) };
        s->message = (struct msghdr){
                .msg_iov = &s->iov,
                .msg_iovlen = 1,
                .msg_control = s->control,
                .msg_controllen = sizeof(s->control),
        };
        s->receiving = true;
        io_uring_prep_recvmsg(loop_prepare(s->daemon->loop, &s->receive_op), s->fd, &s->message,
                              MSG_CMSG_CLOEXEC);
}

static void take_fds(struct session *s) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&s->message); c; c = CMSG_NXTHDR(&s->message, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = MIN(n, SESSION_FDS_MAX - s->n_fds);
                memcpy(&s->fds[s->n_fds], CMSG_DATA(c), n * sizeof(int));
                s->n_fds += n;
        }
}

static void received(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct session *s = container_of(op, struct session, receive_op);

        (void)cqe_flags;
        if (res >= 0)
                take_fds(s);

        if (s->info.state == SESSION_CLOSING || (s->holding && res == -ECANCELED))
                ;
        else if (res <= 0)
                session_close(s, WIRE_OK, res < 0 ? strerror(-res) : "");
        else if ((s->message.msg_flags & MSG_CTRUNC) && s->n_fds < SESSION_FDS_MAX)
                session_close(s, WIRE_INTERNAL, "carvqd has no descriptor left for the client's");
        else if (s->message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
                session_close(s, WIRE_PROTOCOL,
                              "a message that is too long or has too many descriptors");
        else
                on_message(s, (size_t)res);

        /* It has been found to be plain memory, the only kind that a session goes on with. */
        if (s->info.state != SESSION_CLOSING)
                close_fds(s);
        /* Until here the session counts as receiving, so that a close above did not free it. */
        s->receiving = false;
        if (s->info.state != SESSION_CLOSING && !s->holding)
                session_receive(s);
        else
                session_settle(s);
}

struct ucred session_peer(int fd) {
        struct ucred cred = { .uid = (uid_t)-1, .gid = (gid_t)-1 };

        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &(socklen_t){ sizeof(cred) });
        return cred;
}

struct session *session_create(struct daemon *daemon, int fd, const struct ucred *cred,
                               uint64_t id) {
        struct session *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->daemon = daemon;
        s->fd = fd;
        s->memfd = s->seat.doorbell_fd = -1;
        s->receive_op.done = received;
        s->info = (struct session_info){
                .id = id,
                .pid = cred->pid,
                .uid = cred->uid,
                .gid = cred->gid,
                .connected_ns = clock_ns(),
        };
        TAILQ_INSERT_TAIL(&daemon->sessions, s, link);
        daemon->n_sessions++;
        probe_session_open(s->info.id, &s->seat.seat, cred->pid, cred->uid);
        return s;
}

/* Whoever is turned away at the door has no session yet. */
static int refuse(int fd, const struct ucred *cred, int r, enum wire_status status,
                  const char *text) {
        static struct log_limit limit;
        char pid[16], uid[16];

        snprintf(pid, sizeof(pid), "%d", cred->pid);
        snprintf(uid, sizeof(uid), "%u", cred->uid);
        log_limited(&limit, LOG_LEVEL_WARNING,
                    (const char *[]){ "CLIENT_PID", pid, "CLIENT_UID", uid, NULL },
                    "client is refused: %s", text);
        send_error(fd, status, text);
        close(fd);
        return r;
}

int session_new(struct daemon *daemon, int fd) {
        const struct ucred cred = session_peer(fd);
        struct quota_holder quota = { 0 };
        struct fault fault = { 0 };
        struct session *s;
        int r;

        r = quota_enter(&daemon->quota, cred.uid, clock_ns(), &quota, &fault);
        if (r < 0)
                return refuse(fd, &cred, r, r == -EDQUOT ? WIRE_LIMIT : WIRE_INTERNAL, fault.text);
        if (daemon->n_sessions >= daemon->config.max_sessions) {
                char text[WIRE_TEXT_BYTES];

                quota_leave(&quota);
                snprintf(text, sizeof(text), "%" PRIu32 " sessions are open already (max-sessions)",
                         daemon->n_sessions);
                return refuse(fd, &cred, -EDQUOT, WIRE_LIMIT, text);
        }
        s = session_create(daemon, fd, &cred, daemon->last_session_id + 1);
        if (!s) {
                quota_leave(&quota);
                return refuse(fd, &cred, -ENOMEM, WIRE_INTERNAL, "carvqd is out of memory");
        }
        daemon->last_session_id++;
        s->quota = quota;
        session_receive(s);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See takeover.h. */
#include "takeover.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "handover-state.h"
#include "handover.h"
#include "reload.h"

#define SEALS_NEEDED    (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#define STATE_BYTES_MAX (UINT64_C(64) << 20)

enum kind { KIND_STATE, KIND_TABLE, KIND_SESSION };

static const char *const kind_names[] = { "state", "table", "session" };

struct passed {
        enum kind kind;
        uint32_t index;
        int fd; /* -1: in use by now */
};

struct takeover {
        size_t n_passed;
        struct passed *passed; /* in the order of kinds and indices, after the start */
        void *block;
        struct handover_state state; /* in the block */
        struct store_table **tables; /* of each in the state; one use is ours; NULL: none */
        size_t n_waiting;            /* tables that are being loaded, and the start itself */
        uint32_t n_sessions, n_lost;
};

void takeover_free(struct daemon *daemon) {
        struct takeover *t = daemon->takeover;

        if (!t)
                return;
        for (size_t i = 0; i < t->n_passed; i++)
                closep(&t->passed[i].fd);
        for (uint32_t i = 0; t->tables && i < t->state.header->n_tables; i++)
                if (t->tables[i])
                        store_unuse(&daemon->store, t->tables[i]);
        free(t->passed);
        free(t->block);
        free(t->tables);
        free(t);
        daemon->takeover = NULL;
}

/* ---- Descriptors ---- */

/* KIND-INDEX. */
static bool parse_name(const char *name, struct passed *ret_passed) {
        for (size_t i = 0; i < ARRAY_SIZE(kind_names); i++) {
                size_t n = strlen(kind_names[i]);
                uint32_t index;
                int end = 0;

                if (strncmp(name, kind_names[i], n) != 0 ||
                    sscanf(name + n, "-%5" SCNu32 "%n", &index, &end) != 1 || name[n + end] ||
                    name[n + 1] < '0' || name[n + 1] > '9')
                        continue;
                *ret_passed = (struct passed){ .kind = (enum kind)i, .index = index };
                return true;
        }
        return false;
}

bool takeover_offer(struct daemon *daemon, const char *name, int fd) {
        struct takeover *t = daemon->takeover;
        struct passed passed, *grown;

        if (!parse_name(name, &passed))
                return false;
        passed.fd = fd;
        if (!t)
                t = daemon->takeover = calloc(1, sizeof(*t));
        grown = t ? reallocarray(t->passed, t->n_passed + 1, sizeof(*grown)) : NULL;
        if (!grown) {
                shutdown(fd, SHUT_RDWR);
                close(fd);
                return true;
        }
        t->passed = grown;
        t->passed[t->n_passed++] = passed;
        return true;
}

static int compare(const void *a, const void *b) {
        const struct passed *x = a, *y = b;

        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        return x->index < y->index ? -1 : x->index > y->index;
}

/* Those of one name, which lie side by side: their number, and the first. */
static size_t find(const struct takeover *t, enum kind kind, uint32_t index,
                   struct passed **ret_first) {
        const struct passed key = { .kind = kind, .index = index };
        struct passed *first, *end = t->passed + t->n_passed, *last;

        first = bsearch(&key, t->passed, t->n_passed, sizeof(key), compare);
        if (!first)
                return 0;
        while (first > t->passed && !compare(first - 1, &key))
                first--;
        for (last = first; last < end && !compare(last, &key); last++)
                ;
        *ret_first = first;
        return (size_t)(last - first);
}

/* ---- The state ---- */

/* Sealed, so that what was checked stays as it is; and then a private copy of it all the same. */
static int read_state(struct takeover *t, struct fault *ret_fault) {
        struct passed *passed;
        size_t n = find(t, KIND_STATE, 0, &passed), n_read = 0;
        struct stat st;
        int seals;

        if (n != 1)
                return fault_set(ret_fault, -EBADMSG, "%zu states were passed, expected 1", n);
        seals = fcntl(passed->fd, F_GET_SEALS);
        if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED || fstat(passed->fd, &st) < 0 ||
            (uint64_t)st.st_size > STATE_BYTES_MAX)
                return fault_set(ret_fault, -EBADMSG, "its state is not sealed memory");
        t->block = malloc((size_t)st.st_size + 1);
        if (!t->block)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        while (n_read < (size_t)st.st_size) {
                ssize_t got = pread(passed->fd, (uint8_t *)t->block + n_read,
                                    (size_t)st.st_size - n_read, (off_t)n_read);

                if (got <= 0)
                        return fault_set(ret_fault, -EIO, "its state cannot be read");
                n_read += (size_t)got;
        }
        return handover_state_check(t->block, n_read, &t->state, ret_fault);
}

/* ---- Sessions ---- */

static bool is_connection(int fd) {
        int type = 0, domain = 0, listening = 0;
        socklen_t n = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) >= 0 &&
               getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) >= 0 &&
               getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) >= 0 &&
               type == SOCK_SEQPACKET && domain == AF_UNIX && !listening;
}

/* Which is which they tell themselves: the store keeps no order. What is wrong with one that is not
 * what it seems, the session finds out. */
static bool sort_out(struct passed *passed, struct session_descriptors *ret) {
        struct session_descriptors d = { -1, -1, -1 };

        for (size_t i = 0; i < 3; i++) {
                int *place = &d.doorbell;

                if (is_connection(passed[i].fd))
                        place = &d.socket;
                else if (fcntl(passed[i].fd, F_GET_SEALS) >= 0)
                        place = &d.memfd;
                if (*place >= 0)
                        return false;
                *place = passed[i].fd;
        }
        for (size_t i = 0; i < 3; i++)
                passed[i].fd = -1;
        *ret = d;
        return true;
}

static void adopt_sessions(struct daemon *daemon) {
        struct takeover *t = daemon->takeover;
        const struct handover_use *uses = t->state.uses;

        for (uint32_t i = 0; i < t->state.header->n_sessions; i++) {
                const struct handover_session *record = &t->state.sessions[i];
                struct session_descriptors descriptors;
                struct passed *passed;

                if (find(t, KIND_SESSION, i, &passed) == 3 && sort_out(passed, &descriptors) &&
                    session_adopt(daemon, record, uses, t->tables, &descriptors) >= 0)
                        t->n_sessions++;
                else
                        t->n_lost++;
                uses += record->n_uses;
        }
        if (daemon->n_sessions)
                daemon_start_tick(daemon);
}

/* ---- Start and end ---- */

static int forget(struct daemon *daemon, enum kind kind, uint32_t index) {
        char text[64];

        snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s-%" PRIu32, kind_names[kind],
                 index);
        return daemon->notify.fd < 0 ? -ENOTCONN : notify_store(daemon, text, NULL, 0);
}

/*
 * The store lets go of the rest, as an end of the connection would not be seen while somebody has
 * the socket. What nobody has taken over ends here. The barrier also makes room for READY=1.
 */
static void forget_all(struct daemon *daemon) {
        struct takeover *t = daemon->takeover;
        int r = 0;

        for (size_t i = 0; i < t->n_passed; i++) {
                const struct passed *p = &t->passed[i];

                if (p->fd >= 0 && p->kind == KIND_SESSION)
                        shutdown(p->fd, SHUT_RDWR);
                if ((i == 0 || compare(p - 1, p) != 0) && r >= 0)
                        r = forget(daemon, p->kind, p->index);
        }
        if (r >= 0)
                r = notify_barrier(daemon);
        if (r < 0)
                log_warning("descriptors stay in the service manager's store: %s", strerror(-r));
}

static void finish(struct daemon *daemon) {
        struct takeover *t = daemon->takeover;
        int r = 0;

        if (daemon->stopping) {
                /* All of it is in the store still, for the next one. */
                takeover_free(daemon);
                return;
        }
        /*
         * First of all, because from here on rings move and the state is true no more: a daemon
         * that came after a crash must not go by it. Without it what is in the store is nothing.
         */
        if (t->state.header)
                r = forget(daemon, KIND_STATE, 0);
        if (r < 0)
                log_error("the former daemon's clients are not taken over: %s", strerror(-r));
        else if (t->state.header)
                adopt_sessions(daemon);
        forget_all(daemon);
        if (r >= 0 && t->state.header)
                log_fields(t->n_lost ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE, NULL,
                           "took over %" PRIu32 " client%s of the former daemon; %" PRIu32
                           " could not go on",
                           t->n_sessions, t->n_sessions == 1 ? "" : "s", t->n_lost);
        takeover_free(daemon);
        reload_tables(daemon);
}

static void table_loaded(void *userdata, const char *name, int r, const char *reason) {
        struct daemon *daemon = userdata;
        struct takeover *t = daemon->takeover;

        (void)name;
        (void)r;
        (void)reason;
        if (--t->n_waiting)
                return;
        /* Published or not, they have their former numbers. */
        for (uint32_t i = 0; i < t->state.header->n_tables; i++)
                t->tables[i] = store_find_generation(&daemon->store, t->state.tables[i].generation);
        finish(daemon);
}

static void load_table(struct daemon *daemon, uint32_t i) {
        struct takeover *t = daemon->takeover;
        const struct handover_table *table = &t->state.tables[i];
        struct passed *passed;
        struct load_request request = {
                .name = table->name,
                .path = table->path,
                .origin = table->origin,
                .former = table,
                .done = table_loaded,
                .userdata = daemon,
        };

        if (find(t, KIND_TABLE, i, &passed) != 1)
                return;
        request.former_fd = passed->fd;
        if (load_start(daemon, &request) < 0)
                return;
        passed->fd = -1;
        t->n_waiting++;
}

void takeover_start(struct daemon *daemon) {
        struct takeover *t = daemon->takeover;
        struct fault fault = { 0 };
        int r;

        if (!t) {
                reload_tables(daemon);
                return;
        }
        qsort(t->passed, t->n_passed, sizeof(*t->passed), compare);
        r = read_state(t, &fault);
        if (r >= 0) {
                t->tables = calloc(t->state.header->n_tables + 1u, sizeof(struct store_table *));
                if (!t->tables)
                        r = fault_set(&fault, -ENOMEM, "out of memory");
        }
        if (r < 0) {
                log_error("the former daemon's clients are not taken over: %s", fault.text);
                t->state = (struct handover_state){ 0 };
                finish(daemon);
                return;
        }
        daemon->last_session_id = t->state.header->last_session;
        daemon->store.last_generation = t->state.header->last_generation;
        t->n_waiting = 1;
        for (uint32_t i = 0; i < t->state.header->n_tables; i++)
                load_table(daemon, i);
        table_loaded(daemon, NULL, 0, NULL);
}

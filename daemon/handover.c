/* SPDX-License-Identifier: Apache-2.0 */
/* See handover.h. */
#include "handover.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "handover-state.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

/* What is handed over, while it is gathered. */
struct bundle {
        size_t n_fds_left; /* that the store has room for */
        size_t n_tables, n_sessions, n_uses;
        struct handover_table *tables;
        struct handover_session *records;
        struct handover_use *uses;
        const struct store_table **open; /* of each table */
        struct session **sessions;       /* of each record */
        struct session_descriptors *descriptors;
};

static void bundle_deinit(struct bundle *b) {
        free(b->tables);
        free(b->records);
        free(b->uses);
        free(b->open);
        free(b->sessions);
        free(b->descriptors);
}

/* As the manager says, from systemd 254 on: 0 where it has none. */
static size_t store_size(void) {
        const char *text = getenv("FDSTORE");

        return text && *text ? MIN(strtoul(text, NULL, 10), HANDOVER_FDS_MAX) : HANDOVER_FDS_MAX;
}

bool handover_offered(const struct daemon *daemon) {
        /* What a former daemon has left lies there still, and goes to the next one. */
        return daemon->notify.fd >= 0 && store_size() > 0 && !daemon->takeover;
}

/* ---- What there is ---- */

/* Tables that somebody loaded by hand are in no configuration, so they go on too. */
static bool is_wanted(const struct store_table *table) {
        return !atomic_load_explicit(&table->failed, memory_order_relaxed) &&
               (table->n_users || (table->published && table->origin == STORE_LOADED));
}

static void gather_tables(struct bundle *b, struct store *store) {
        struct store_table *table;

        TAILQ_FOREACH(table, &store->tables, link) {
                struct handover_table *t = &b->tables[b->n_tables];

                table->handover_index = STORE_NOT_HANDED_OVER;
                if (!is_wanted(table) || b->n_tables == HANDOVER_TABLES_MAX || !b->n_fds_left ||
                    strlen(table->path) >= sizeof(t->path))
                        continue;
                *t = (struct handover_table){
                        .generation = table->generation,
                        .device = table->identity.device,
                        .inode = table->identity.inode,
                        .file_bytes = table->identity.n_bytes,
                        .changed_ns = table->identity.changed_ns,
                        .origin = table->origin,
                        .published = table->published,
                };
                strcpy(t->name, table->name);
                strcpy(t->path, table->path);
                table->handover_index = (uint32_t)b->n_tables;
                b->open[b->n_tables++] = table;
                b->n_fds_left--;
        }
}

static void gather_sessions(struct bundle *b, struct daemon *daemon) {
        struct session *s, *next;

        for (s = session_first(daemon); s; s = next) {
                next = session_next(s);
                if (session_is_leaving(s))
                        continue;
                if (b->n_fds_left < 3 ||
                    session_describe(s, &b->records[b->n_sessions], &b->uses[b->n_uses],
                                     &b->descriptors[b->n_sessions]) < 0) {
                        session_dismiss(s);
                        continue;
                }
                b->n_uses += b->records[b->n_sessions].n_uses;
                b->sessions[b->n_sessions++] = s;
                b->n_fds_left -= 3;
        }
}

static int gather(struct bundle *b, struct daemon *daemon) {
        const struct store_table *table;
        size_t n_sessions = daemon->n_sessions;

        TAILQ_FOREACH(table, &daemon->store.tables, link) {
                b->n_tables++;
        }
        b->tables = calloc(b->n_tables + 1, sizeof(*b->tables));
        b->open = calloc(b->n_tables + 1, sizeof(*b->open));
        b->records = calloc(n_sessions + 1, sizeof(*b->records));
        b->sessions = calloc(n_sessions + 1, sizeof(*b->sessions));
        b->descriptors = calloc(n_sessions + 1, sizeof(*b->descriptors));
        b->uses = calloc(n_sessions + 1, WIRE_TABLES_MAX * sizeof(*b->uses));
        if (!b->tables || !b->open || !b->records || !b->sessions || !b->descriptors || !b->uses)
                return -ENOMEM;
        b->n_tables = 0;
        b->n_fds_left = store_size() - 1; /* one for the state */
        gather_tables(b, &daemon->store);
        gather_sessions(b, daemon);
        return 0;
}

/* ---- Giving it away ---- */

static int make_state(const struct bundle *b, const struct daemon *daemon, int *ret_fd) {
        uint64_t n_bytes = handover_state_bytes(b->n_tables, b->n_sessions, b->n_uses);
        _cleanup_(freep) struct handover_header *header = calloc(1, n_bytes);
        _cleanup_(closep) int fd = memfd_create("carvqd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        uint8_t *at;

        if (!header)
                return -ENOMEM;
        if (fd < 0)
                return -errno;
        header->last_session = daemon->last_session_id;
        header->last_generation = daemon->store.last_generation;
        header->n_tables = (uint32_t)b->n_tables;
        header->n_sessions = (uint32_t)b->n_sessions;
        header->n_uses = (uint32_t)b->n_uses;
        at = mempcpy(header + 1, b->tables, b->n_tables * sizeof(*b->tables));
        at = mempcpy(at, b->records, b->n_sessions * sizeof(*b->records));
        memcpy(at, b->uses, b->n_uses * sizeof(*b->uses));
        handover_state_seal(header);
        for (uint64_t n_written = 0; n_written < n_bytes;) {
                ssize_t n = write(fd, (uint8_t *)header + n_written, n_bytes - n_written);

                if (n < 0)
                        return -errno;
                n_written += (uint64_t)n;
        }
        if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
                return -errno;
        *ret_fd = steal_fd(&fd);
        return 0;
}

/* FDPOLL=0: a client that dies meanwhile is found out by the next daemon, which then has all of its
 * descriptors and not some. */
static int give(struct daemon *daemon, const char *what, size_t i, const int *fds, size_t n_fds) {
        char text[64];

        snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s-%zu", what, i);
        return notify_store(daemon, text, fds, n_fds);
}

/* The state first and the tables next: should the store be smaller than it seems, sessions are
 * missing in it, and the next daemon does without them. */
static int give_all(struct bundle *b, struct daemon *daemon) {
        _cleanup_(closep) int state_fd = -1;
        int r;

        r = make_state(b, daemon, &state_fd);
        if (r >= 0)
                r = give(daemon, "state", 0, &state_fd, 1);
        for (size_t i = 0; i < b->n_tables && r >= 0; i++)
                r = give(daemon, "table", i, &b->open[i]->fd, 1);
        for (size_t i = 0; i < b->n_sessions && r >= 0; i++) {
                const struct session_descriptors *d = &b->descriptors[i];

                r = give(daemon, "session", i, (int[]){ d->socket, d->memfd, d->doorbell }, 3);
        }
        /* Else this process could end before the manager has them, and they with it. */
        return r < 0 ? r : notify_barrier(daemon);
}

static void hand_over(struct daemon *daemon) {
        _cleanup_(bundle_deinit) struct bundle b = { 0 };
        int r;

        r = gather(&b, daemon);
        if (r >= 0 && !b.n_tables && !b.n_sessions)
                return;
        if (r >= 0)
                r = give_all(&b, daemon);
        if (r < 0) {
                log_warning("clients are not handed over to the next daemon: %s", strerror(-r));
                /* Ends the connection also for whoever has the socket by now. */
                sessions_dismiss(daemon);
                return;
        }
        log_notice("handed over: %zu client%s, %zu table%s", b.n_sessions,
                   b.n_sessions == 1 ? "" : "s", b.n_tables, b.n_tables == 1 ? "" : "s");
        for (size_t i = 0; i < b.n_sessions; i++)
                session_abandon(b.sessions[i]);
}

void handover_go_on(struct daemon *daemon) {
        struct session *s, *next;
        uint32_t n_leaving = 0;

        if (!daemon->holding) {
                daemon->holding = true;
                for (s = session_first(daemon); s; s = next) {
                        next = session_next(s);
                        session_hold(s);
                }
        }
        for (s = session_first(daemon); s; s = session_next(s))
                if (!session_is_held(s) && !session_is_leaving(s))
                        return;
        daemon->handing_over = false;
        for (s = session_first(daemon); s; s = session_next(s))
                n_leaving += session_is_leaving(s);
        hand_over(daemon);
        /* Clients wait for the next daemon by now, and descriptors of those that have gone need
         * never close. */
        daemon->n_left_behind = n_leaving;
}

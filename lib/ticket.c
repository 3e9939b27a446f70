/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups in flight: from a request to a submission, from a completion to rows. Everything needed
 * to judge a completion is kept here, in private memory; the daemon's words are compared with it.
 * The client's thread.
 */
#include "client.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/spin.h"

/* Copied out of the ring in one go. */
#define REAP_BATCH     16u

#define POPULATE_BYTES UINT64_C(262144)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A daemon refreshes its heartbeat about twice a second. */
#define HEARTBEAT_NS_MAX UINT64_C(1500000000)

/* Idle polls between two looks at the socket, so that polling alone finds out about a death. */
#define POLLS_PER_LOOK 1024u

static_assert((int)CARVQ_F32 == RING_TYPE_F32 && (int)CARVQ_F16 == RING_TYPE_F16 &&
                      (int)CARVQ_BF16 == RING_TYPE_BF16,
              "");
static_assert((int)CARVQ_POOLING_SUM == RING_POOLING_SUM &&
                      (int)CARVQ_POOLING_MEAN == RING_POOLING_MEAN,
              "");
static_assert((int)CARVQ_OUT_OF_RANGE_ZERO_ROW == RING_OUT_OF_RANGE_ZERO, "");
static_assert(CARVQ_IDS_MAX == RING_IDS_MAX, "");

static struct lookup *find(struct carvq_client *client, carvq_ticket ticket) {
        struct lookup *l = &client->lookups[ticket % CLIENT_LOOKUPS_MAX];

        return ticket && l->ticket == ticket && l->state != LOOKUP_FREE ? l : NULL;
}

static void lookup_free(struct carvq_client *client, struct lookup *l) {
        arena_free(&client->ids, &l->ids);
        arena_free(&client->arena, &l->rows);
        l->state = LOOKUP_FREE;
        SLIST_INSERT_HEAD(&client->free_lookups, l, link);
}

static void mark_seen(struct carvq_client *client, struct lookup *l) {
        client->n_unseen -= !l->seen;
        l->seen = true;
}

void lookup_release(struct carvq_client *client, struct lookup *l) {
        if (l->state == LOOKUP_FLYING) {
                l->state = LOOKUP_ABANDONED; /* the daemon may still write its rows */
        } else if (l->state == LOOKUP_PENDING) {
                client->n_pending--;
                lookup_free(client, l);
        } else if (l->state == LOOKUP_DONE) {
                mark_seen(client, l);
                lookup_free(client, l);
        }
}

/* ---- Submitting ---- */

/* Ids and bags side by side, as the daemon will copy them. */
static void write_ids(struct carvq_client *client, const struct codec_request *request,
                      uint64_t offset) {
        uint64_t *words = (void *)(client->ring.memory + client->ring.layout.ids_offset + offset);

        memcpy(words, request->ids, request->n_ids * sizeof(*words));
        words += request->n_ids;
        for (uint64_t i = 0; i < request->n_bags; i++)
                words[i] = request->bag_offsets[i] - request->bag_offsets[0];
}

/*
 * Whoever first touches a page pays for it, and rows would be touched first by the daemon: so that
 * they are on this process's account, pages are made here, some at a time, before the daemon hears
 * of them.
 */
static void populate(struct carvq_client *client, const struct arena_block *rows) {
        uint64_t end =
                MIN(align_up(rows->offset + rows->bytes, POPULATE_BYTES), client->arena.bytes);
        uint8_t *arena = client->ring.memory + client->ring.layout.arena_offset;

        if (end <= client->populated_bytes)
                return;
        /* Before Linux 5.14 it fails, and the daemon's account it is. */
        madvise(arena + client->populated_bytes, end - client->populated_bytes,
                MADV_POPULATE_WRITE);
        client->populated_bytes = end;
}

static int allocate(struct carvq_client *client, const struct codec_request *request,
                    struct lookup *l) {
        uint64_t row_bytes = request->n_cols * codec_type_bytes(request->type), rows_bytes;
        int r;

        if (__builtin_mul_overflow(codec_request_rows(request) - 1, request->row_stride_bytes,
                                   &rows_bytes) ||
            __builtin_add_overflow(rows_bytes, row_bytes, &rows_bytes))
                return -EMSGSIZE;
        r = arena_alloc(&client->arena, rows_bytes, &l->rows);
        if (r < 0)
                return r;
        r = arena_alloc(&client->ids, (request->n_ids + request->n_bags) * sizeof(uint64_t),
                        &l->ids);
        if (r < 0)
                arena_free(&client->arena, &l->rows);
        else
                populate(client, &l->rows);
        return r;
}

static void describe(const struct carvq_client *client, struct carvq_table *table,
                     const struct codec_request *request, struct lookup *l) {
        l->ticket = (client->last_ticket / CLIENT_LOOKUPS_MAX + 1) * CLIENT_LOOKUPS_MAX +
                    (uint64_t)(l - client->lookups);
        l->table = table;
        l->n_table_rows = table->shape.n_rows;
        l->n_rows = (uint32_t)codec_request_rows(request);
        l->seen = false;
        l->again = false;
        l->submission = (struct ring_submission){
                .user_data = l->ticket,
                .ids_offset = l->ids.offset,
                .bags_offset =
                        request->pooling ? l->ids.offset + request->n_ids * sizeof(uint64_t) : 0,
                .out_offset = l->rows.offset,
                .row_stride_bytes = request->row_stride_bytes,
                .n_ids = (uint32_t)request->n_ids,
                .n_bags = (uint32_t)request->n_bags,
                .col_first = request->col_first,
                .n_cols = request->n_cols,
                .scale = request->scale,
                .type = request->type,
                .pooling = request->pooling,
                .out_of_range = request->out_of_range,
        };
}

int lookup_send(struct carvq_client *client, struct lookup *l) {
        int r;

        if (client->link != LINK_UP || !l->table->handle)
                return -ENOTCONN;
        l->submission.table = l->table->handle;
        l->submission.submit_ns = clock_ns();
        r = client_ring_submit(&client->ring, &l->submission);
        if (r < 0)
                return r;
        client->n_with_daemon++;
        l->state = LOOKUP_FLYING;
        return 0;
}

/* Without a sentence: -EAGAIN where there is no room, -EMSGSIZE where there never will be, -EPROTO.
 */
static int try_submit(struct carvq_client *client, struct carvq_table *table,
                      const struct codec_request *request, struct lookup **ret_lookup) {
        struct lookup *l = SLIST_FIRST(&client->free_lookups);
        int r;

        r = l ? allocate(client, request, l) : -EAGAIN;
        if (r < 0)
                return r;
        write_ids(client, request, l->ids.offset);
        describe(client, table, request, l);
        r = lookup_send(client, l);
        if (r == -ENOTCONN) {
                l->state = LOOKUP_PENDING; /* client_resubmit() will see to it */
                client->n_pending++;
        } else if (r < 0) {
                arena_free(&client->ids, &l->ids);
                arena_free(&client->arena, &l->rows);
                return r;
        }
        client->last_ticket = l->ticket;
        SLIST_REMOVE_HEAD(&client->free_lookups, link);
        *ret_lookup = l;
        return 0;
}

int lookup_submit(struct carvq_client *client, struct carvq_table *table,
                  const struct codec_request *request, struct lookup **ret_lookup) {
        int r;

        r = client_check(client);
        if (r < 0)
                return r;
        r = try_submit(client, table, request, ret_lookup);
        /* Lookups that nobody waits for any more may have left room behind. */
        if (r == -EAGAIN && client_reap(client) > 0)
                r = try_submit(client, table, request, ret_lookup);
        switch (r) {
        case -EMSGSIZE:
                return fault_set(&client->error, r,
                                 "%" PRIu64 " rows of stride %" PRIu64
                                 " do not fit into the arena's %" PRIu64 " bytes",
                                 codec_request_rows(request), request->row_stride_bytes,
                                 client->arena.bytes);
        case -EAGAIN:
                return fault_set(&client->error, r,
                                 "rings or arena are full (%" PRIu32
                                 " lookups with the daemon): release a ticket first",
                                 client->n_with_daemon + client->n_pending);
        case -EPROTO:
                client_break(client, "the daemon broke the protocol: sq_head jumped");
                return client_check(client);
        default:
                return r;
        }
}

/* ---- Completing ---- */

/* What a completion may say about the lookup that it names; NULL when it is sound. */
static const char *completion_defect(const struct ring_completion *c, const struct lookup *l) {
        if (!l || (l->state != LOOKUP_FLYING && l->state != LOOKUP_ABANDONED))
                return "a completion for no lookup in flight";
        if (c->status > RING_STATUS_NO_MEMORY)
                return "a completion with an unknown status";
        if (c->flags)
                return "a completion with flags that were not asked for";
        if (c->status == RING_STATUS_OK && (c->row_first != 0 || c->n_rows != l->n_rows))
                return "a completion with another number of rows";
        if (c->status == RING_STATUS_OUT_OF_RANGE && c->detail >= l->submission.n_ids)
                return "a completion whose bad id is none of ours";
        return NULL;
}

static int complete(struct carvq_client *client, const struct ring_completion *c) {
        struct lookup *l = find(client, c->user_data);
        const char *defect = completion_defect(c, l);

        if (defect) {
                client_break(client, "the daemon broke the protocol: %s", defect);
                return -ECONNRESET;
        }
        client->n_with_daemon--;
        client->n_completed++;
        if (client->backoff_ns)
                client_recovered(client);
        if (l->state == LOOKUP_ABANDONED) {
                lookup_free(client, l);
                return 0;
        }
        l->state = LOOKUP_DONE;
        l->status = c->status;
        l->detail = c->detail;
        client->n_unseen++;
        return 0;
}

void lookup_refuse(struct carvq_client *client, struct lookup *l) {
        l->state = LOOKUP_DONE;
        l->status = LOOKUP_STATUS_REFUSED;
        client->n_pending--;
        client->n_completed++;
        client->n_unseen++;
}

void lookup_orphan(struct carvq_client *client, struct lookup *l) {
        if (l->state == LOOKUP_ABANDONED) {
                lookup_free(client, l);
                client->n_with_daemon--;
        } else if (l->state == LOOKUP_FLYING) {
                l->state = LOOKUP_PENDING;
                l->again = true;
                client->n_with_daemon--;
                client->n_pending++;
        }
}

static int reap_ring(struct carvq_client *client) {
        struct ring_completion completions[REAP_BATCH];
        int n = 0, n_all = 0;

        /* Bounded: a daemon that completes without end runs out of lookups in flight. */
        do {
                if (client->link != LINK_UP)
                        break;
                n = client_ring_reap(&client->ring, completions, REAP_BATCH);
                if (n < 0) {
                        client_break(client, "the daemon broke the protocol: cq_tail jumped");
                        break;
                }
                for (int i = 0; i < n; i++)
                        if (complete(client, &completions[i]) < 0)
                                return n_all;
                n_all += n;
        } while (n == REAP_BATCH);
        return n_all;
}

int client_reap(struct carvq_client *client) {
        int n = reap_ring(client);

        client_look_at_epoch(client);
        if (client->n_pending && client->link == LINK_UP)
                client_resubmit(client);
        return n;
}

int lookup_outcome(struct carvq_client *client, const struct lookup *l, uint64_t id_first) {
        const uint64_t *ids = (const void *)(client->ring.memory + client->ring.layout.ids_offset +
                                             l->ids.offset);

        switch (l->status) {
        case RING_STATUS_OK:
                return 0;
        case RING_STATUS_OUT_OF_RANGE:
                return fault_set(&client->error, -ERANGE,
                                 "ids[%" PRIu64 "] is %" PRIu64 ", expected less than %" PRIu64
                                 ", the table's rows",
                                 id_first + l->detail, ids[l->detail], l->n_table_rows);
        case RING_STATUS_NO_TABLE:
                return fault_set(&client->error, -EBADF, "the daemon has no such table open");
        case RING_STATUS_RETIRED:
                return fault_set(&client->error, -EBADF,
                                 "the table was retired: its file failed under the daemon");
        case LOOKUP_STATUS_REFUSED:
                return fault_set(&client->error, -EBADF, "%s",
                                 l->table ? l->table->refusal.text : "the table was closed");
        case RING_STATUS_NO_MEMORY:
                return fault_set(&client->error, -ENOMEM, "the daemon has no memory for the ids");
        default:
                return fault_set(&client->error, -EINVAL, "the daemon found the lookup invalid");
        }
}

const uint8_t *lookup_rows(const struct carvq_client *client, const struct lookup *l) {
        return client->ring.memory + client->ring.layout.arena_offset + l->rows.offset;
}

/* ---- Waiting ---- */

static uint64_t spin_budget_ns(const struct carvq_client *client) {
        if (client->spin_ns)
                return client->spin_ns == UINT64_MAX ? 0 : client->spin_ns;
        return client->single_cpu ? 0 : wait_budget_ns(&client->waits);
}

static int timed_out(struct carvq_client *client) {
        uint64_t now = clock_ns(), beat = client_ring_heartbeat_ns(&client->ring);
        double age_s = beat < now ? (double)(now - beat) / 1e9 : 0;

        if (!beat)
                return fault_set(&client->error, -ETIMEDOUT,
                                 "no completion: the daemon has never"
                                 " moved");
        if (now > beat && now - beat > HEARTBEAT_NS_MAX)
                return fault_set(&client->error, -ETIMEDOUT,
                                 "no completion: the daemon has not moved for %.1f s", age_s);
        return fault_set(&client->error, -ETIMEDOUT,
                         "no completion: the lookup is slow, the daemon moved %.1f s ago", age_s);
}

/* Far from the deadline one system call is enough, which then is what a wake-up costs. */
static void sleep_until(struct carvq_client *client, uint64_t deadline_ns) {
        struct pollfd socket = { .fd = client->socket_fd, .events = POLLIN };
        uint64_t now = clock_ns(), left_ns = deadline_ns > now ? deadline_ns - now : 0;
        struct timespec left = { .tv_sec = (time_t)(left_ns / 1000000000u),
                                 .tv_nsec = (long)(left_ns % 1000000000u) };

        if (!client_ring_arm(&client->ring))
                return;
        if (!(left_ns > CLIENT_SLEEP_NS_MAX && client_sleep(client)) &&
            ppoll(&socket, 1, &left, NULL) > 0)
                client_drain(client);
        client_ring_disarm(&client->ring);
}

int client_wait(struct carvq_client *client, uint64_t deadline_ns) {
        const uint64_t n_completed = client->n_completed;
        uint64_t budget_ns = spin_budget_ns(client);
        int r;

        for (;;) {
                client_reap(client);
                if (client->n_completed != n_completed)
                        return 0;
                if (client->link != LINK_UP) {
                        r = client_await_link(client, deadline_ns);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (budget_ns &&
                    client_ring_spin(&client->ring, MIN(deadline_after(budget_ns), deadline_ns)))
                        continue;
                budget_ns = 0; /* a late wake-up is no reason to spin again */
                if (clock_ns() >= deadline_ns)
                        return timed_out(client);
                sleep_until(client, deadline_ns);
        }
}

int lookup_wait(struct carvq_client *client, struct lookup *l, uint64_t deadline_ns) {
        const uint64_t n_reconnects = client->n_reconnects;
        uint64_t start_ns;
        bool spins;
        int r;

        client_reap(client);
        if (!lookup_is_open(l))
                return 0;
        spins = spin_budget_ns(client) > 0;
        start_ns = clock_ns();
        do {
                r = client_wait(client, deadline_ns);
                if (r < 0 && lookup_is_open(l))
                        return r;
        } while (lookup_is_open(l));

        if (client->n_reconnects == n_reconnects) /* else it says nothing of spinning */
                wait_learn(&client->waits, spins, clock_ns() - start_ns);
        return 0;
}

/* ---- The API ---- */

_public_ int carvq_submit(carvq_table *table, const uint64_t *ids, size_t n_ids,
                          const struct carvq_lookup_options *options, carvq_ticket *ret_ticket) {
        struct carvq_client *client = table->client;
        struct codec_request request;
        struct lookup *l;
        int r;

        if (table_is_direct(table))
                return fault_set(table_fault(table), -EOPNOTSUPP,
                                 "a direct table has no ring: use carvq_lookup()");
        client->error.text[0] = '\0';
        r = request_init(&request, table, ids, n_ids, options, RING_OUT_ALIGNMENT, &client->error);
        if (r < 0)
                return r;
        if (n_ids > client->max_ids || request.n_bags > client->max_ids)
                return fault_set(&client->error, -EMSGSIZE,
                                 "%zu ids and %" PRIu64 " bags, the daemon takes %" PRIu32
                                 " of each in one submission",
                                 n_ids, request.n_bags, client->max_ids);
        r = lookup_submit(client, table, &request, &l);
        if (r < 0)
                return r;
        *ret_ticket = l->ticket;
        return 0;
}

static struct lookup *find_wanted(struct carvq_client *client, carvq_ticket ticket) {
        struct lookup *l = find(client, ticket);

        client->error.text[0] = '\0';
        if (l && l->state != LOOKUP_ABANDONED)
                return l;
        fault_set(&client->error, -ENOENT, "ticket %" PRIu64 " is not in flight", ticket);
        return NULL;
}

static int hand_out(struct carvq_client *client, struct lookup *l, struct carvq_rows *ret_rows) {
        int r;

        mark_seen(client, l);
        r = lookup_outcome(client, l, 0);
        if (r < 0) {
                lookup_release(client, l);
                return r;
        }
        *ret_rows = (struct carvq_rows){
                .rows = lookup_rows(client, l),
                .n_rows = l->n_rows,
                .row_stride_bytes = l->submission.row_stride_bytes,
                .n_cols = l->submission.n_cols,
                .type = l->submission.type,
        };
        return 0;
}

/* At what the socket has, or for a daemon, without waiting. */
static void client_look(struct carvq_client *client) {
        client_drain(client);
        client_reconnect(client);
        client_reap(client);
}

/* A lookup in the ring needs no system call but now and then; one that is not, each time. */
static bool polling_should_look(struct carvq_client *client) {
        return client->ring.waiting & 1 || client->n_pending || client->link != LINK_UP ||
               ++client->n_idle_polls % POLLS_PER_LOOK == 0;
}

_public_ int carvq_poll(carvq_client *client, carvq_ticket ticket, struct carvq_rows *ret_rows) {
        struct lookup *l = find_wanted(client, ticket);
        int r;

        if (!l)
                return -ENOENT;
        client_reap(client);
        if (lookup_is_open(l) && polling_should_look(client)) {
                client_ring_disarm(&client->ring);
                client_look(client);
        }
        if (lookup_is_open(l)) {
                r = client_check(client);
                if (r < 0)
                        lookup_release(client, l);
                return r;
        }
        r = hand_out(client, l, ret_rows);
        return r < 0 ? r : 1;
}

_public_ int carvq_wait(carvq_client *client, carvq_ticket ticket, uint64_t timeout_ns,
                        struct carvq_rows *ret_rows) {
        struct lookup *l = find_wanted(client, ticket);
        int r;

        if (!l)
                return -ENOENT;
        r = lookup_wait(client, l, deadline_after(timeout_ns ? timeout_ns : client->timeout_ns));
        if (r == -ECONNRESET)
                lookup_release(client, l);
        return r < 0 ? r : hand_out(client, l, ret_rows);
}

_public_ void carvq_release(carvq_client *client, carvq_ticket ticket) {
        struct lookup *l = find(client, ticket);

        if (l)
                lookup_release(client, l);
}

_public_ int carvq_arm(carvq_client *client) {
        client->error.text[0] = '\0';
        client_look(client); /* at old wake-ups, before a new one is asked for */
        for (;;) {
                client_reap(client);
                if (client->n_unseen)
                        return 1;
                /* Without a daemon the descriptor tells when the next step is due. */
                if (client->link != LINK_UP)
                        return client_check(client);
                if (client_ring_arm(&client->ring))
                        return 0;
        }
}

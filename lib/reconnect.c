/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens when the daemon goes: the same memory is offered to the next one, the tables are
 * opened there by name, and what was in flight is asked for again. In steps that do not wait, for
 * callers that must not. The client's thread.
 *
 * The memory still has the last daemon's mapping, perhaps, but no writer: a process that died
 * closed its socket after its last thread had left user space, and one that lives takes the
 * client off its workers before it hangs up. Only a daemon that breaks the protocol is believed
 * neither, and so that ends the client (client_break).
 */
#include "client.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"
#include "proto/spin.h"

/* Between two attempts, twice as long each time. */
#define BACKOFF_NS_MIN UINT64_C(1000000)
#define BACKOFF_NS_MAX UINT64_C(100000000)

/* Something answers there, but not our protocol: it may be about to be replaced, or not. */
#define VIOLATIONS_MAX 3u

/* ---- The end of a connection ---- */

static void drop_connection(struct carvq_client *client) {
        client_fd_close_socket(client);
        client->link = LINK_DOWN;
        client->retry_ns = clock_ns() + client->backoff_ns;
        client->backoff_ns = MIN(MAX(2 * client->backoff_ns, BACKOFF_NS_MIN), BACKOFF_NS_MAX);
        client_fd_set_timer(client);
}

/* Handles were the last daemon's, and a table may have other rows with the next one. */
static void forget_tables(struct carvq_client *client) {
        struct carvq_table *table;

        LIST_FOREACH(table, &client->tables, link) {
                table->handle = 0;
                table->open_request = 0;
                table->cache_due = table->wants_cache;
        }
}

/* Parent and child would write into one ring, and wait on one set of descriptors. */
static void stop_children(struct carvq_client *client) {
        if (getpid() != client->pid)
                client_break(client, "the client belongs to another process, which has forked");
}

void client_lose(struct carvq_client *client, const char *why) {
        if (client->link != LINK_UP)
                return;
        stop_children(client);
        client_reap(client);
        if (client->no_reconnect)
                client_break(client, "%s", why);
        if (client->link == LINK_ENDED)
                return;
        fault_write(&client->why, "%s", why);
        if (!client->down_ns)
                client->down_ns = clock_ns();
        drop_connection(client);
        for (size_t i = 0; i < CLIENT_LOOKUPS_MAX; i++)
                lookup_orphan(client, &client->lookups[i]);
        forget_tables(client);
}

/* ---- The next one ---- */

static void attempt_failed(struct carvq_client *client, int r, const struct fault *why) {
        client->why = *why;
        if ((r == -EPROTO || r == -EPROTONOSUPPORT) && !client->refused &&
            ++client->n_violations >= VIOLATIONS_MAX) {
                client_break(client, "the daemon is gone, and what answers instead does not do: %s",
                             why->text);
                return;
        }
        drop_connection(client);
}

static void end_pause(struct carvq_client *client) {
        if (!client->down_ns)
                return;
        client->last_pause_ns = clock_ns() - client->down_ns;
        client->longest_pause_ns = MAX(client->longest_pause_ns, client->last_pause_ns);
        client->down_ns = 0;
}

void client_recovered(struct carvq_client *client) {
        client->backoff_ns = 0;
        end_pause(client);
}

static void connected(struct carvq_client *client) {
        client->n_reconnects++;
        client->n_violations = 0;
        client->why.text[0] = '\0';
        if (!client->n_pending) /* so that no completion will end it */
                end_pause(client);
}

/* HELLO to whoever listens, or the next answer from it; 0: nothing to do yet. */
static int step(struct carvq_client *client, struct fault *ret_fault) {
        int r;

        if (client->link != LINK_DOWN)
                return handshake_step(client, 0, ret_fault);
        if (clock_ns() < client->retry_ns)
                return 0;
        client->refused = false;
        r = handshake_start(client, SOCK_NONBLOCK, ret_fault);
        if (r < 0)
                return r;
        r = client_fd_add_socket(client);
        if (r < 0)
                return fault_set(ret_fault, r, "watching the socket: %s", strerror(-r));
        client_fd_set_timer(client);
        return 1;
}

void client_reconnect(struct carvq_client *client) {
        struct fault fault = { "" };
        int r = 1;

        if (client->link == LINK_UP)
                return;
        stop_children(client);
        if (client->link == LINK_ENDED)
                return;
        while (r > 0 && client->link != LINK_UP)
                r = step(client, &fault);
        if (r < 0)
                attempt_failed(client, r, &fault);
        else if (client->link == LINK_UP)
                connected(client);
}

/* Until an answer is there, or the next attempt is due. */
static void sleep_down(const struct carvq_client *client, uint64_t now_ns, uint64_t deadline_ns) {
        struct pollfd socket = { .fd = client->socket_fd, .events = POLLIN };
        uint64_t until_ns = deadline_ns, left_ns;
        struct timespec left;

        if (client->link == LINK_DOWN)
                until_ns = MIN(until_ns, client->retry_ns);
        left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        left = (struct timespec){ .tv_sec = (time_t)(left_ns / 1000000000u),
                                  .tv_nsec = (long)(left_ns % 1000000000u) };
        ppoll(&socket, client->link != LINK_DOWN, &left, NULL);
}

int client_await_link(struct carvq_client *client, uint64_t deadline_ns) {
        for (;;) {
                uint64_t now_ns;

                client_reconnect(client);
                if (client->link == LINK_UP)
                        return 0;
                if (client->link == LINK_ENDED)
                        return client_check(client);
                now_ns = clock_ns();
                if (now_ns >= deadline_ns)
                        return fault_set(&client->error, -ETIMEDOUT, "no daemon for %.1f s: %s",
                                         (double)(now_ns - client->down_ns) / 1e9,
                                         client->why.text[0] ? client->why.text
                                                             : "it does not answer");
                sleep_down(client, now_ns, deadline_ns);
        }
}

/* ---- Tables and lookups ---- */

static struct lookup *next_pending(struct carvq_client *client, carvq_ticket after) {
        struct lookup *next = NULL;

        for (struct lookup *l = client->lookups; l < client->lookups + CLIENT_LOOKUPS_MAX; l++)
                if (l->state == LOOKUP_PENDING && l->ticket > after &&
                    (!next || l->ticket < next->ticket))
                        next = l;
        return next;
}

/* 0: with the daemon, or done, or waiting for its table; -EAGAIN: no room. */
static int resubmit(struct carvq_client *client, struct lookup *l) {
        int r;

        if (!l->table) {
                lookup_refuse(client, l);
                return 0;
        }
        if (!l->table->handle)
                return l->table->open_request
                               ? 0
                               : table_ask(client, l->table->name, &l->table->open_request);
        r = lookup_send(client, l);
        if (r < 0)
                return r;
        client->n_pending--;
        client->n_resubmitted += l->again;
        return 0;
}

void client_resubmit(struct carvq_client *client) {
        struct lookup *l;
        int r = 0;

        for (l = next_pending(client, 0); l && r >= 0; l = next_pending(client, l->ticket))
                r = resubmit(client, l);
        if (r == -EPROTO)
                client_break(client, "the daemon broke the protocol: sq_head jumped");
}

/* The rows in flight, and what callers know of the table, are for this shape. */
static int check_table(struct carvq_table *table, const struct wire_table *t) {
        const struct table_header *h = &table->shape;

        if (t->n_rows == h->n_rows && t->n_dims == h->n_dims && t->codec == h->codec)
                return 0;
        return fault_set(&table->refusal, -EBADF,
                         "table %s is another one since the daemon restarted: %" PRIu64
                         " x %" PRIu32 ", expected %" PRIu64 " x %" PRIu32 " of the same codec",
                         table->name, t->n_rows, t->n_dims, h->n_rows, h->n_dims);
}

static void refuse_lookups(struct carvq_client *client, const struct carvq_table *table) {
        for (size_t i = 0; i < CLIENT_LOOKUPS_MAX; i++)
                if (client->lookups[i].state == LOOKUP_PENDING && client->lookups[i].table == table)
                        lookup_refuse(client, &client->lookups[i]);
}

bool client_table_reopened(struct carvq_client *client, const struct wire_table *answer) {
        struct wire_table copy = *answer;
        struct carvq_table *table;

        LIST_FOREACH(table, &client->tables, link) {
                if (table->open_request && table->open_request == answer->request)
                        break;
        }
        if (!table)
                return false;
        table->open_request = 0;
        if (answer->status != WIRE_OK)
                fault_write(&table->refusal, "table %s: %s", table->name, client_text(copy.text));
        else if (check_table(table, answer) < 0)
                table_hand_back(client, answer);
        else {
                table->handle = answer->table;
                table->generation = answer->generation;
                table->shape.record_bytes = answer->record_bytes;
                table->shape.file_bytes = answer->file_bytes;
        }
        if (!table->handle) {
                client_recovered(client); /* an answer, too */
                refuse_lookups(client, table);
        }
        return true;
}

/* ---- Hand-over and statistics ---- */

/*
 * A daemon that was replaced in place: ring, handles and tables go on, and only the memory of
 * decoded rows is no longer filled.
 */
void client_look_at_epoch(struct carvq_client *client) {
        uint64_t epoch = client_ring_epoch(&client->ring);
        struct carvq_table *table;

        if (epoch == client->epoch || client->link != LINK_UP)
                return;
        client->epoch = epoch;
        client->n_handovers++;
        LIST_FOREACH(table, &client->tables, link) {
                table->cache_due = table->wants_cache;
        }
}

_public_ int carvq_client_stats(const carvq_client *client, struct carvq_client_stats *stats) {
        const size_t size = stats->size;
        const struct carvq_client_stats known = {
                .size = size,
                .epoch = client->epoch,
                .n_reconnects = client->n_reconnects,
                .n_handovers = client->n_handovers,
                .n_resubmitted = client->n_resubmitted,
                .last_pause_ns = client->last_pause_ns,
                .longest_pause_ns = client->longest_pause_ns,
        };

        if (size < sizeof(size) || size > OPTIONS_BYTES_MAX)
                return -EINVAL;
        memset(stats, 0, size);
        memcpy(stats, &known, MIN(size, sizeof(known)));
        return 0;
}

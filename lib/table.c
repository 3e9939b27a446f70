/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table as the caller sees it, whichever way it came: open, describe, close. Trusts a daemon's
 * description no further than the format's limits, and a file that it hands over no more than any
 * other. The client's thread.
 */
#include "client.h"

#include <string.h>

#include "options.h"
#include "proto/spin.h"

/* ---- Ring mode ---- */

static int check_description(const struct wire_table *t) {
        return t->n_rows >= 1 && t->n_rows <= TABLE_ROWS_MAX && t->n_dims >= 1 &&
               t->n_dims <= TABLE_DIMS_MAX;
}

/* The answer to `request`, past wake-ups and answers that came too late. */
static int await_answer(struct carvq_client *client, int type, uint64_t request,
                        union packet *ret_packet, int *ret_fd) {
        const uint64_t deadline_ns = deadline_after(client->timeout_ns);

        /* Ends at the deadline also when a daemon sends other things without end. */
        do {
                _cleanup_(closep) int fd = -1;
                union packet packet;
                int r;

                r = packet_receive(client->socket_fd, deadline_ns, &packet, &fd, &client->error);
                if (r == -ETIMEDOUT)
                        return r;
                if (r == -ECONNRESET) {
                        client_lose(client, client->error.text);
                } else if (r < 0) {
                        client_break(client, "%s", client->error.text);
                } else if (r == type && packet.table.request == request) {
                        *ret_packet = packet;
                        *ret_fd = steal_fd(&fd);
                        return 0;
                } else {
                        client_dispatch(client, r, &packet);
                }
                if (client->link != LINK_UP)
                        return fault_set(&client->error, -ECONNRESET, "%s", client->why.text);
        } while (clock_ns() < deadline_ns);
        return fault_set(&client->error, -ETIMEDOUT, "the daemon does not answer");
}

int table_ask(struct carvq_client *client, const char *name, uint64_t *ret_request) {
        struct wire_open_table message = {
                .header = { WIRE_OPEN_TABLE, sizeof(message) },
                .request = ++client->last_request,
        };
        int r;

        memcpy(message.name, name, strlen(name));
        r = packet_send(client->socket_fd, &message, sizeof(message), -1);
        if (r < 0)
                return fault_set(&client->error, r, "sending OPEN_TABLE: %s", strerror(-r));
        *ret_request = message.request;
        return 0;
}

void table_hand_back(struct carvq_client *client, const struct wire_table *table) {
        const struct wire_close_table close_table = {
                .header = { WIRE_CLOSE_TABLE, sizeof(close_table) },
                .table = table->table,
        };

        if (table->status == WIRE_OK)
                packet_send(client->socket_fd, &close_table, sizeof(close_table), -1);
}

static int ask_for_table(struct carvq_client *client, const char *name,
                         struct wire_table *ret_table) {
        uint64_t request = 0;
        union packet answer;
        int r, fd;

        r = table_ask(client, name, &request);
        if (r < 0)
                return r;
        r = await_answer(client, WIRE_TABLE, request, &answer, &fd);
        if (r < 0)
                return r;
        if (answer.table.status != WIRE_OK)
                return fault_set(&client->error, client_status_errno(answer.table.status),
                                 "table %s: %s", name, client_text(answer.table.text));
        if (!check_description(&answer.table)) {
                client_break(client,
                             "the daemon broke the protocol: table %s of %" PRIu64 " x %" PRIu32,
                             name, answer.table.n_rows, answer.table.n_dims);
                return client_check(client);
        }
        *ret_table = answer.table;
        return 0;
}

static int ask_for_file(struct carvq_table *table, const char *name, int *ret_fd) {
        struct carvq_client *client = table->client;
        const struct wire_get_file message = {
                .header = { WIRE_GET_FILE, sizeof(message) },
                .request = ++client->last_request,
                .table = table->handle,
        };
        union packet answer;
        int r;

        if (!(client->features & WIRE_FEATURE_FILES))
                return fault_set(&client->error, -EOPNOTSUPP,
                                 "table %s: the daemon does not hand out files", name);
        r = packet_send(client->socket_fd, &message, sizeof(message), -1);
        if (r < 0)
                return fault_set(&client->error, r, "sending GET_FILE: %s", strerror(-r));
        r = await_answer(client, WIRE_FILE, message.request, &answer, ret_fd);
        if (r < 0)
                return r;
        if (answer.file.status != WIRE_OK)
                return fault_set(&client->error, client_status_errno(answer.file.status),
                                 "table %s: %s", name, client_text(answer.file.text));
        return 0;
}

/* None is no error, and neither is a daemon that knows of no such thing. */
static int make_cached(struct carvq_table *table, const char *name) {
        struct carvq_client *client = table->client;
        const struct wire_get_cache message = {
                .header = { WIRE_GET_CACHE, sizeof(message) },
                .request = ++client->last_request,
                .table = table->handle,
        };
        _cleanup_(closep) int fd = -1;
        struct fault why = { "" };
        union packet answer;
        int r;

        if (!(client->features & WIRE_FEATURE_CACHE))
                return 0;
        r = packet_send(client->socket_fd, &message, sizeof(message), -1);
        if (r < 0)
                return fault_set(&client->error, r, "sending GET_CACHE: %s", strerror(-r));
        r = await_answer(client, WIRE_CACHE, message.request, &answer, &fd);
        if (r < 0 || answer.cache.status != WIRE_OK)
                return r;
        r = cached_init(table, fd, answer.cache.n_sets, &why);
        if (r == -EPROTO) {
                client_break(client, "the daemon broke the protocol: table %s: %s", name, why.text);
                return client_check(client);
        }
        return r < 0 ? fault_set(&client->error, r, "table %s: %s", name, why.text) : 0;
}

static int make_direct(struct carvq_table *table, const char *name, const char *cpu_mask) {
        struct carvq_client *client = table->client;
        _cleanup_(closep) int fd = -1;
        struct fault why = { "" };
        int r;

        r = ask_for_file(table, name, &fd);
        if (r < 0)
                return r;
        r = direct_init(table, fd, cpu_mask, &why);
        if (r == -EPROTO) {
                client_break(client, "the daemon broke the protocol: table %s: %s", name, why.text);
                return client_check(client);
        }
        return r < 0 ? fault_set(&client->error, r, "table %s: %s", name, why.text) : 0;
}

int table_renew_cache(struct carvq_table *table) {
        struct carvq_client *client = table->client;
        int r;

        cached_deinit(table);
        /* Before it is open, or when it cannot be had, the daemon is asked for all rows. */
        if (client->link != LINK_UP || !table->handle)
                return 0;
        table->cache_due = false;
        r = make_cached(table, table->name);
        if (r == -ETIMEDOUT)
                return r;
        client->error.text[0] = '\0'; /* the lookup finds out about an end by itself */
        return 0;
}

/* No such name can be published; -ENOENT spares callers a second error to handle. */
static int check_name(const char *name, struct fault *ret_fault) {
        if (wire_table_name_valid(name))
                return 0;
        return fault_set(ret_fault, -ENOENT,
                         "no table can have this name, expected 1 to %u of A-Z a-z 0-9 . _ "
                         "-, not starting with a dot",
                         WIRE_NAME_BYTES - 1);
}

static void table_closep(carvq_table **table) {
        carvq_table_close(*table);
}

static int ring_open(struct carvq_client *client, const char *name,
                     const struct carvq_table_options *options, carvq_table **ret_table) {
        _cleanup_(table_closep) carvq_table *table = NULL;
        _cleanup_(freep) struct carvq_table *fresh = calloc(1, sizeof(*fresh));
        struct wire_table answer = { 0 };
        int r;

        if (!fresh)
                return fault_set(&client->error, -ENOMEM, "out of memory");
        r = ask_for_table(client, name, &answer);
        if (r < 0)
                return r;

        table = steal_pointer(&fresh);
        table->client = client;
        memcpy(table->name, name, strlen(name));
        table->wants_cache = options->mode == CARVQ_MODE_RING && !options->no_cache;
        table->handle = answer.table;
        table->generation = answer.generation;
        table->shape.n_rows = answer.n_rows;
        table->shape.n_dims = answer.n_dims;
        table->shape.codec = answer.codec;
        table->shape.record_bytes = answer.record_bytes;
        table->shape.file_bytes = answer.file_bytes;
        LIST_INSERT_HEAD(&client->tables, table, link);
        if (options->mode == CARVQ_MODE_DIRECT)
                r = make_direct(table, name, options->cpu_mask);
        else if (table->wants_cache)
                r = make_cached(table, name);
        if (r < 0)
                return r;
        *ret_table = steal_pointer(&table);
        return 0;
}

_public_ int carvq_table_open_with(carvq_client *client, const char *name,
                                   const struct carvq_table_options *user_options,
                                   carvq_table **ret_table) {
        const uint64_t deadline_ns = deadline_after(client->timeout_ns);
        struct carvq_table_options options;
        int r;

        client->error.text[0] = '\0';
        r = client_check(client);
        if (r >= 0)
                r = options_copy(user_options, sizeof(options), &options, &client->error);
        if (r < 0)
                return r;
        if (options.mode > CARVQ_MODE_DIRECT)
                return fault_set(&client->error, -EINVAL, "mode is %" PRIu32 ", expected 0 to %d",
                                 options.mode, CARVQ_MODE_DIRECT);
        r = check_name(name, &client->error);
        while (r >= 0) {
                r = client_await_link(client, deadline_ns);
                if (r < 0)
                        break;
                r = ring_open(client, name, &options, ret_table);
                if (r != -ECONNRESET || client->link == LINK_ENDED)
                        break;
                r = 0; /* the daemon went meanwhile */
        }
        return r;
}

_public_ int carvq_table_open(carvq_client *client, const char *name, carvq_table **ret_table) {
        return carvq_table_open_with(client, name, NULL, ret_table);
}

/* ---- Both ---- */

void table_free(struct carvq_table *table) {
        cached_deinit(table);
        direct_deinit(table);
        free(table);
}

_public_ void carvq_table_close(carvq_table *table) {
        struct wire_close_table message = { .header = { WIRE_CLOSE_TABLE, sizeof(message) } };
        struct carvq_client *client;

        if (!table)
                return;
        client = table->client;
        if (client) {
                message.table = table->handle;
                if (table->handle && client->link == LINK_UP)
                        packet_send(client->socket_fd, &message, sizeof(message), -1);
                LIST_REMOVE(table, link);
                for (size_t i = 0; i < CLIENT_LOOKUPS_MAX; i++)
                        if (client->lookups[i].table == table)
                                client->lookups[i].table = NULL;
        }
        table_free(table);
}

_public_ int carvq_table_info(const carvq_table *table, struct carvq_table_info *info) {
        const struct table_header *h = &table->shape;
        const size_t size = info->size;
        const struct carvq_table_info known = {
                .size = size,
                .n_rows = h->n_rows,
                .n_dims = h->n_dims,
                .codec = h->codec,
                .record_bytes = h->record_bytes,
                .file_bytes = h->file_bytes,
                .generation = table->generation,
                .codec_name = table_codec_name(h->codec),
                .kernel = table_is_direct(table) ? table->context.kernels->name : "",
        };

        if (size < sizeof(size) || size > OPTIONS_BYTES_MAX)
                return -EINVAL;
        /* A newer caller's fields read as 0, an older caller's struct is not overrun. */
        memset(info, 0, size);
        memcpy(info, &known, MIN(size, sizeof(known)));
        return 0;
}

_public_ const char *carvq_table_error(const carvq_table *table) {
        return table->client ? table->client->error.text : table->error.text;
}

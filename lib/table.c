/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table as the caller sees it, whichever way it came: open, describe, close. Trusts a daemon's
 * description no further than the format's limits. The client's thread.
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
static int await_table(struct carvq_client *client, uint64_t request,
                       struct wire_table *ret_table) {
        const uint64_t deadline_ns = deadline_after(client->timeout_ns);

        /* Ends at the deadline also when a daemon sends other things without end. */
        do {
                union packet packet;
                int fd = -1, r;

                r = packet_receive(client->socket_fd, deadline_ns, &packet, &fd, &client->error);
                closep(&fd);
                if (r == -ETIMEDOUT)
                        return r;
                if (r < 0) {
                        client_reap(client); /* what was completed before the end is good */
                        client_break(client, "%s", client->error.text);
                } else if (r == WIRE_TABLE && packet.table.request == request) {
                        *ret_table = packet.table;
                        return 0;
                } else {
                        client_dispatch(client, r, &packet);
                }
                if (client->broken)
                        return client_check(client);
        } while (clock_ns() < deadline_ns);
        return fault_set(&client->error, -ETIMEDOUT, "the daemon does not answer");
}

static int ask_for_table(struct carvq_client *client, const char *name,
                         struct wire_table *ret_table) {
        struct wire_open_table message = {
                .header = { WIRE_OPEN_TABLE, sizeof(message) },
                .request = ++client->last_request,
        };
        int r;

        memcpy(message.name, name, strlen(name));
        r = packet_send(client->socket_fd, &message, sizeof(message), -1);
        if (r < 0)
                return fault_set(&client->error, r, "sending OPEN_TABLE: %s", strerror(-r));
        r = await_table(client, message.request, ret_table);
        if (r < 0)
                return r;
        if (ret_table->status != WIRE_OK)
                return fault_set(&client->error, client_status_errno(ret_table->status),
                                 "table %s: %s", name, client_text(ret_table->text));
        if (!check_description(ret_table)) {
                client_break(client,
                             "the daemon broke the protocol: table %s of %" PRIu64 " x %" PRIu32,
                             name, ret_table->n_rows, ret_table->n_dims);
                return client_check(client);
        }
        return 0;
}

_public_ int carvq_table_open(carvq_client *client, const char *name, carvq_table **ret_table) {
        _cleanup_(freep) struct carvq_table *table = NULL;
        struct wire_table answer;
        int r;

        client->error.text[0] = '\0';
        r = client_check(client);
        if (r < 0)
                return r;
        /* No such name can be published; -ENOENT spares callers a second error to handle. */
        if (!wire_table_name_valid(name))
                return fault_set(&client->error, -ENOENT,
                                 "no table can have this name, expected 1 to %u of A-Z a-z 0-9 . _ "
                                 "-, not starting with a dot",
                                 WIRE_NAME_BYTES - 1);
        table = calloc(1, sizeof(*table));
        if (!table)
                return fault_set(&client->error, -ENOMEM, "out of memory");
        r = ask_for_table(client, name, &answer);
        if (r < 0)
                return r;

        table->client = client;
        table->handle = answer.table;
        table->generation = answer.generation;
        table->shape.n_rows = answer.n_rows;
        table->shape.n_dims = answer.n_dims;
        table->shape.codec = answer.codec;
        table->shape.record_bytes = answer.record_bytes;
        table->shape.file_bytes = answer.file_bytes;
        LIST_INSERT_HEAD(&client->tables, table, link);
        *ret_table = steal_pointer(&table);
        return 0;
}

/* ---- Both ---- */

_public_ void carvq_table_close(carvq_table *table) {
        struct wire_close_table message = { .header = { WIRE_CLOSE_TABLE, sizeof(message) } };

        if (!table)
                return;
        if (!table->client) {
                direct_free(table);
                return;
        }
        message.table = table->handle;
        if (!table->client->broken)
                packet_send(table->client->socket_fd, &message, sizeof(message), -1);
        LIST_REMOVE(table, link);
        free(table);
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
                .kernel = table->client ? "" : table->context.kernels->name,
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq_lookup(): arguments -> a request, and the request served in whole (direct) or in pieces
 * that keep two batches in flight (ring), so that the daemon decodes one while this thread copies
 * the other. The client's thread.
 */
#include "client.h"

#include <string.h>

#include "options.h"
#include "proto/spin.h"

/* Rows of one piece: large enough that the round trip of a ring does not show, small enough that
 * two pieces and their copies stay in a second-level cache (measured: 0.12 us a row of 384 floats,
 * 0.21 with pieces four times as large). */
#define PIECE_BYTES UINT64_C(131072)

#define PIECES_MAX  2u

static_assert((int)CARVQ_F32 == CODEC_TYPE_F32 && (int)CARVQ_F16 == CODEC_TYPE_F16 &&
                      (int)CARVQ_BF16 == CODEC_TYPE_BF16,
              "");
static_assert((int)CARVQ_POOLING_SUM == CODEC_POOLING_SUM &&
                      (int)CARVQ_POOLING_MEAN == CODEC_POOLING_MEAN,
              "");
static_assert((int)CARVQ_OUT_OF_RANGE_ZERO_ROW == CODEC_OUT_OF_RANGE_ZERO, "");

/* ---- The request ---- */

/* What would not survive the way into a request's narrower fields. */
static int check_options(const struct carvq_lookup_options *o, struct fault *ret_fault) {
        const struct {
                const char *field;
                uint32_t value, max;
        } fields[] = {
                { "type", o->type, CARVQ_BF16 },
                { "pooling", o->pooling, CARVQ_POOLING_MEAN },
                { "out_of_range", o->out_of_range, CARVQ_OUT_OF_RANGE_ZERO_ROW },
        };

        for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
                if (fields[i].value > fields[i].max)
                        return fault_set(ret_fault, -EINVAL,
                                         "%s is %" PRIu32 ", expected 0 to %" PRIu32,
                                         fields[i].field, fields[i].value, fields[i].max);
        if (o->row_stride_bytes % codec_type_bytes(o->type))
                return fault_set(ret_fault, -EINVAL,
                                 "row_stride_bytes is %zu, expected a multiple of a value's %zu",
                                 o->row_stride_bytes, codec_type_bytes(o->type));
        return 0;
}

int request_init(struct codec_request *request, const struct carvq_table *table,
                 const uint64_t *ids, size_t n_ids, const struct carvq_lookup_options *options,
                 uint32_t stride_alignment, struct fault *ret_fault) {
        struct carvq_lookup_options o;
        struct codec_request unranged;
        uint64_t bad_index;
        uint32_t n_cols;
        int r;

        if (!ids || !n_ids)
                return fault_set(ret_fault, -EINVAL, "n_ids is 0, expected at least 1");
        r = options_copy(options, sizeof(o), &o, ret_fault);
        if (r < 0)
                return r;
        r = check_options(&o, ret_fault);
        if (r < 0)
                return r;

        n_cols = o.n_cols;
        if (!n_cols && o.col_first < table->shape.n_dims)
                n_cols = table->shape.n_dims - o.col_first;
        *request = (struct codec_request){
                .ids = ids,
                .n_ids = n_ids,
                .bag_offsets = o.bag_offsets,
                .n_bags = o.n_bags,
                .col_first = o.col_first,
                .n_cols = n_cols,
                .scale = o.scale == 0 ? 1 : o.scale,
                .type = (uint8_t)o.type,
                .pooling = (uint8_t)o.pooling,
                .out_of_range = (uint8_t)o.out_of_range,
                .row_stride_bytes = o.row_stride_bytes ? o.row_stride_bytes
                                                       : align_up(n_cols * codec_type_bytes(o.type),
                                                                  stride_alignment),
        };

        /* All but the ids: whoever decodes looks at them anyway. */
        unranged = *request;
        unranged.out_of_range = CODEC_OUT_OF_RANGE_ZERO;
        return codec_request_check(&unranged, &table->shape, &bad_index, ret_fault);
}

static uint64_t row_bytes_of(const struct codec_request *request) {
        return request->n_cols * codec_type_bytes(request->type);
}

static int check_buffer(const struct codec_request *request, const void *rows, size_t rows_bytes,
                        struct fault *ret_fault) {
        const size_t value_bytes = codec_type_bytes(request->type);
        uint64_t needed_bytes;

        if ((uintptr_t)rows % value_bytes)
                return fault_set(ret_fault, -EINVAL,
                                 "the buffer is not aligned to a value's %zu bytes", value_bytes);
        if (__builtin_mul_overflow(codec_request_rows(request) - 1, request->row_stride_bytes,
                                   &needed_bytes) ||
            __builtin_add_overflow(needed_bytes, row_bytes_of(request), &needed_bytes) ||
            needed_bytes > rows_bytes)
                return fault_set(ret_fault, -ENOBUFS,
                                 "the buffer has %zu bytes, too few for %" PRIu64
                                 " rows of %" PRIu64 " bytes, stride %" PRIu64,
                                 rows_bytes, codec_request_rows(request), row_bytes_of(request),
                                 request->row_stride_bytes);
        return 0;
}

/* ---- Pieces ---- */

struct piece {
        uint64_t row_first, n_rows; /* of the output */
        uint64_t id_first, n_ids;
        struct lookup *lookup;
};

static uint64_t bag_end(const struct codec_request *request, uint64_t bag) {
        return bag + 1 < request->n_bags ? request->bag_offsets[bag + 1] : request->n_ids;
}

static uint64_t rows_per_piece(const struct carvq_client *client,
                               const struct codec_request *request) {
        /* Both pieces must fit, at the arena's alignment. */
        uint64_t bytes = MIN(PIECE_BYTES, client->arena.bytes / PIECES_MAX);

        return MIN(MAX(bytes / row_bytes_of(request), 1), client->max_ids);
}

/* The piece that starts at output row `row_first`; bags are never split. */
static int plan_piece(struct carvq_client *client, const struct codec_request *request,
                      uint64_t row_first, struct piece *ret_piece) {
        struct piece p = { .row_first = row_first };

        p.n_rows = MIN(rows_per_piece(client, request), codec_request_rows(request) - row_first);
        if (!request->pooling) {
                p.id_first = row_first;
                p.n_ids = p.n_rows;
        } else {
                const uint64_t row_end = row_first + p.n_rows;

                p.id_first = request->bag_offsets[row_first];
                p.n_rows = 0;
                while (row_first + p.n_rows < row_end &&
                       bag_end(request, row_first + p.n_rows) - p.id_first <= client->max_ids)
                        p.n_ids = bag_end(request, row_first + p.n_rows++) - p.id_first;
                if (!p.n_rows)
                        return fault_set(&client->error, -EMSGSIZE,
                                         "bag %" PRIu64 " has %" PRIu64
                                         " ids, the daemon takes %" PRIu32,
                                         row_first, bag_end(request, row_first) - p.id_first,
                                         client->max_ids);
        }
        *ret_piece = p;
        return 0;
}

/* A slice of the request, its rows packed so that copying them out is as few copies as can be. */
static struct codec_request slice(const struct codec_request *request, const struct piece *p) {
        struct codec_request s = *request;

        s.ids += p->id_first;
        s.n_ids = p->n_ids;
        if (request->pooling) {
                s.bag_offsets += p->row_first;
                s.n_bags = p->n_rows;
        }
        s.row_stride_bytes = row_bytes_of(request);
        return s;
}

static void copy_rows(const struct codec_request *request, const struct piece *p,
                      const uint64_t *places, const uint8_t *rows) {
        const uint64_t row_bytes = row_bytes_of(request), stride = request->row_stride_bytes;

        if (stride == row_bytes && !places) {
                memcpy((uint8_t *)request->out + p->row_first * stride, rows,
                       p->n_rows * row_bytes);
                return;
        }
        for (uint64_t i = 0; i < p->n_rows; i++) {
                uint64_t place = places ? places[p->row_first + i] : p->row_first + i;

                memcpy((uint8_t *)request->out + place * stride, rows + i * row_bytes, row_bytes);
        }
}

/* Only empty bags: no ids to send. Zero rows, times a scale whose sign even a zero keeps. */
static void fill_empty(const struct codec_request *request, const struct piece *p) {
        const uint64_t row_bytes = row_bytes_of(request);
        const size_t value_bytes = codec_type_bytes(request->type);

        for (uint64_t i = 0; i < p->n_rows; i++) {
                uint8_t *row =
                        (uint8_t *)request->out + (p->row_first + i) * request->row_stride_bytes;

                memset(row, 0, row_bytes);
                if (request->scale < 0)
                        for (uint64_t at = value_bytes - 1; at < row_bytes; at += value_bytes)
                                row[at] = 0x80;
        }
}

/* ---- In flight ---- */

struct flight {
        struct carvq_table *table;
        const struct codec_request *request;
        const uint64_t *places; /* of its rows; NULL: as they come */
        uint64_t row_next;      /* of the next piece to submit */
        uint64_t deadline_ns;
        struct piece pieces[PIECES_MAX]; /* a queue */
        uint32_t n_pieces;
};

/* 0; -EAGAIN: there is no room for another piece now. */
static int submit_piece(struct flight *f) {
        struct carvq_client *client = f->table->client;
        struct codec_request s;
        struct piece p;
        int r;

        r = plan_piece(client, f->request, f->row_next, &p);
        if (r < 0)
                return r;
        if (p.n_ids) {
                s = slice(f->request, &p);
                r = lookup_submit(client, f->table, &s, &p.lookup);
                if (r < 0)
                        return r;
                f->pieces[f->n_pieces++] = p;
        } else {
                fill_empty(f->request, &p);
        }
        f->row_next += p.n_rows;
        return 0;
}

/* Waits for the oldest piece, copies its rows out and gives its memory back. */
static int finish_piece(struct flight *f) {
        struct carvq_client *client = f->table->client;
        struct piece *p = &f->pieces[0];
        int r;

        r = lookup_wait(client, p->lookup, f->deadline_ns);
        if (r >= 0)
                r = lookup_outcome(client, p->lookup, p->id_first);
        if (r < 0)
                return r;
        copy_rows(f->request, p, f->places, lookup_rows(client, p->lookup));
        lookup_release(client, p->lookup);
        f->n_pieces--;
        memmove(&f->pieces[0], &f->pieces[1], f->n_pieces * sizeof(f->pieces[0]));
        return 0;
}

static int run(struct flight *f) {
        struct carvq_client *client = f->table->client;
        const uint64_t n_rows = codec_request_rows(f->request);
        int r = 0;

        while (f->row_next < n_rows || f->n_pieces) {
                if (f->row_next < n_rows && f->n_pieces < PIECES_MAX) {
                        r = submit_piece(f);
                        if (r >= 0)
                                continue;
                        if (r != -EAGAIN)
                                return r;
                }
                if (f->n_pieces)
                        r = finish_piece(f);
                /* Else the room is with lookups that will end. */
                else if (client->n_with_daemon || client->n_pending)
                        r = client_wait(client, f->deadline_ns);
                if (r < 0)
                        return r;
        }
        client->error.text[0] = '\0'; /* of a piece that had to wait for room */
        return 0;
}

int ring_lookup(struct carvq_table *table, const struct codec_request *request,
                const uint64_t *places, uint64_t deadline_ns) {
        struct flight f = {
                .table = table,
                .request = request,
                .places = places,
                .deadline_ns = deadline_ns,
        };
        int r;

        r = run(&f);
        for (uint32_t i = 0; i < f.n_pieces; i++)
                lookup_release(table->client, f.pieces[i].lookup);
        return r;
}

/*
 * With a daemon. When another one came in the middle, some rows may be of the table's former
 * content, and so all are looked up again.
 */
static int served_lookup(struct carvq_table *table, const struct codec_request *request) {
        struct carvq_client *client = table->client;
        const uint64_t deadline_ns = deadline_after(client->timeout_ns);
        uint64_t n_reconnects;
        int r = 0;

        do {
                n_reconnects = client->n_reconnects;
                client_look_at_epoch(client);
                if (table->cache_due)
                        r = table_renew_cache(table);
                if (r < 0)
                        return r;
                r = table->cache.memory ? cached_lookup(table, request, deadline_ns)
                                        : ring_lookup(table, request, NULL, deadline_ns);
        } while (r >= 0 && n_reconnects != client->n_reconnects);
        return r;
}

_public_ int carvq_lookup(carvq_table *table, const uint64_t *ids, size_t n_ids,
                          const struct carvq_lookup_options *options, void *ret_rows,
                          size_t rows_bytes) {
        struct fault *fault = table_fault(table);
        struct codec_request request;
        int r;

        fault->text[0] = '\0';
        r = request_init(&request, table, ids, n_ids, options, 1, fault);
        if (r < 0)
                return r;
        r = check_buffer(&request, ret_rows, rows_bytes, fault);
        if (r < 0)
                return r;
        request.out = ret_rows;
        if (table_is_direct(table))
                return direct_lookup(table, &request);
        return served_lookup(table, &request);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A good client of the soak: a process that looks rows up in one style, through libcarvq alone, and
 * verifies each of them. Nothing that happens to daemon, tables or other clients may fail one of
 * its lookups, but that of a table whose file is bad. Runs in a child of the director's.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "tables.h"
#include "tools/bench/bench.h"
#include "verify.h"

#define MANY_IDS         256u
#define FLIGHTS_MAX      16u
#define FLIGHT_IDS_MAX   512u
#define BAGS_MAX         32u
#define THINK_US         2000u
#define RETRY_US         5000u
#define CONNECT_TRIES_NS UINT64_C(20000000000)
#define ANSWER_NS        UINT64_C(30000000000)

enum style {
        STYLE_ONE,
        STYLE_MANY,
        STYLE_BATCH, /* any number of ids */
        STYLE_TICKETS,
        STYLE_POOLED,
        STYLE_SLICES, /* types, columns, strides */
        STYLE_DIRECT,
        STYLE_CACHED,
};

struct handle {
        carvq_table *table;
        struct verify_key key;
        uint64_t from_ns;  /* it was opened after this, by the daemon of that key */
        uint64_t alive_ns; /* it was of use then */
        uint32_t pinned;   /* direct: 1 + its variant, whatever becomes of the daemon */
};

struct flight {
        carvq_ticket ticket; /* 0: none */
        struct verify_claim claim;
        uint64_t start_ns;
        uint64_t ids[FLIGHT_IDS_MAX];
};

struct good {
        const struct soak *soak;
        const struct soak_client *is;
        enum style style;
        uint64_t random;
        carvq_client *client;
        struct handle handles[SOAK_TABLES];
        struct flight flights[FLIGHTS_MAX];
        uint64_t n_reconnects, n_resubmitted; /* that are counted */
        uint64_t *ids, *bags;
        uint8_t *rows;
        size_t rows_bytes;
};

const char *good_style_name(uint32_t style) {
        static const char *const names[SOAK_GOOD_STYLES] = { "one row", "256 rows", "batches",
                                                             "tickets", "pooling",  "slices",
                                                             "direct",  "cached" };

        return names[style];
}

static bool over(const struct good *g) {
        return clock_ns() >= g->is->until_ns ||
               atomic_load_explicit(&g->soak->shared->calm, memory_order_relaxed);
}

static void fail(const struct good *g, const char *what, int r, const char *why) {
        soak_add(g->soak, SOAK_FAILED_LOOKUPS, 1);
        soak_complain(g->soak, "client %" PRIu32 " (%s, seed %" PRIu64 "): %s: %s (%s)",
                      g->is->slot, good_style_name(g->style), g->is->seed, what, carvq_strerror(r),
                      why);
}

/* ---- Connection and tables ---- */

static bool was_down(const struct soak *soak, uint64_t from_ns, uint64_t until_ns) {
        return atomic_load_explicit(&soak->shared->down_until_ns, memory_order_acquire) >=
                       from_ns &&
               atomic_load_explicit(&soak->shared->down_from_ns, memory_order_acquire) <= until_ns;
}

static bool connect_client(struct good *g) {
        const struct carvq_connect_options o = { .size = sizeof(o),
                                                 .socket_path = g->soak->socket_path,
                                                 .name = good_style_name(g->style),
                                                 .timeout_ns = ANSWER_NS };
        const uint64_t first_ns = clock_ns();
        char message[CARVQ_MESSAGE_BYTES] = "";

        while (!over(g)) {
                uint64_t start_ns = clock_ns();
                int r = carvq_connect(&o, &g->client, message);

                if (r >= 0)
                        return true;
                if (!was_down(g->soak, start_ns, clock_ns()) ||
                    start_ns - first_ns > CONNECT_TRIES_NS) {
                        fail(g, "connecting", r, message);
                        return false;
                }
                soak_sleep_us(RETRY_US);
        }
        return false;
}

static void count_reconnects(struct good *g) {
        struct carvq_client_stats stats = { .size = sizeof(stats) };

        carvq_client_stats(g->client, &stats);
        soak_add(g->soak, SOAK_RECONNECTIONS, stats.n_reconnects - g->n_reconnects);
        soak_add(g->soak, SOAK_RESUBMITTED, stats.n_resubmitted - g->n_resubmitted);
        g->n_reconnects = stats.n_reconnects;
        g->n_resubmitted = stats.n_resubmitted;
}

static struct verify_key key_of(struct good *g, const struct handle *h) {
        struct carvq_client_stats stats = { .size = sizeof(stats) };
        struct carvq_table_info info = { .size = sizeof(info) };

        carvq_client_stats(g->client, &stats);
        carvq_table_info(h->table, &info);
        return (struct verify_key){ stats.epoch, info.generation };
}

/* Lookups in flight on the table are given up. */
static void close_handle(struct good *g, uint32_t table) {
        for (struct flight *f = g->flights; f < g->flights + FLIGHTS_MAX; f++)
                if (f->ticket && f->claim.table == table) {
                        carvq_release(g->client, f->ticket);
                        f->ticket = 0;
                }
        carvq_table_close(g->handles[table].table);
        g->handles[table] = (struct handle){ 0 };
}

/* Documented of a table whose file is bad, or was since the handle was of use last. */
static void refused(struct good *g, uint32_t table, uint64_t from_ns, int r, const char *what) {
        if ((r == -EBADF || r == -ENOENT) &&
            tables_bad_between(g->soak, table, from_ns, clock_ns())) {
                soak_add(g->soak, SOAK_RETIRED_LOOKUPS, 1);
        } else {
                char text[256];

                snprintf(text, sizeof(text), "%s of table %s", what, g->soak->tables[table].name);
                fail(g, text, r, carvq_client_error(g->client));
        }
        close_handle(g, table);
        soak_sleep_us(RETRY_US);
}

static struct handle *open_handle(struct good *g, uint32_t table) {
        const struct carvq_table_options o = {
                .size = sizeof(o),
                .mode = g->style == STYLE_DIRECT ? CARVQ_MODE_DIRECT : CARVQ_MODE_RING,
                .no_cache = g->style != STYLE_CACHED && g->style != STYLE_BATCH,
        };
        struct handle *h = &g->handles[table];
        uint64_t now_ns = clock_ns();
        int r;

        if (h->table)
                return h;
        r = carvq_table_open_with(g->client, g->soak->tables[table].name, &o, &h->table);
        if (r < 0) {
                h->table = NULL;
                refused(g, table, now_ns, r, "opening");
                return NULL;
        }
        h->from_ns = h->alive_ns = now_ns;
        h->key = key_of(g, h);
        return h;
}

/* Files that are cut raise SIGBUS in who maps them. */
static uint32_t any_table(struct good *g) {
        uint32_t table;

        do
                table = (uint32_t)soak_below(&g->random, SOAK_TABLES);
        while (g->style == STYLE_DIRECT && g->soak->tables[table].is_cut);
        return table;
}

/* ---- One lookup ---- */

/* What is known before it. A daemon that came since the last one has opened the table anew. */
static void claim_begin(struct good *g, struct handle *h, struct verify_claim *c) {
        const struct verify_key now = key_of(g, h);

        if (now.epoch != h->key.epoch || now.generation != h->key.generation)
                h->from_ns = h->alive_ns;
        h->key = c->before = now;
        c->opened_from_ns = h->from_ns;
        c->pinned = h->pinned;
}

static void claim_end(struct good *g, struct handle *h, struct verify_claim *c, uint64_t start_ns) {
        const size_t n_rows = c->options.pooling ? c->options.n_bags : c->n_ids;
        uint64_t now_ns = clock_ns();
        uint32_t variant = 0;
        size_t n_wrong;

        c->after = key_of(g, h);
        c->opened_until_ns = now_ns;
        n_wrong = verify_rows(g->soak, c, &variant);
        soak_add(g->soak, SOAK_LOOKUPS, 1);
        soak_add(g->soak, SOAK_ROWS, n_rows);
        if (n_wrong) {
                soak_add(g->soak, SOAK_WRONG_ROWS, n_wrong);
                soak_complain(
                        g->soak,
                        "client %" PRIu32 " (%s, seed %" PRIu64
                        "): %zu of %zu rows of table %s are wrong, generation %" PRIu64
                        " of daemon %" PRIx64 ", after it %" PRIu64 " of %" PRIx64
                        ", variants that lay there: mask %" PRIx32,
                        g->is->slot, good_style_name(g->style), g->is->seed, n_wrong, n_rows,
                        g->soak->tables[c->table].name, c->before.generation, c->before.epoch,
                        c->after.generation, c->after.epoch,
                        tables_published_between(g->soak, c->table, c->opened_from_ns, now_ns));
        } else if (g->style == STYLE_DIRECT) {
                h->pinned = 1 + variant;
        }
        if (c->after.epoch != h->key.epoch || c->after.generation != h->key.generation)
                h->from_ns = start_ns;
        h->key = c->after;
        h->alive_ns = start_ns;
}

static void count_latency(struct good *g, const struct verify_claim *c, uint64_t ns) {
        const uint64_t before = g->n_reconnects;

        count_reconnects(g);
        if (g->is->disturbed || g->style == STYLE_DIRECT)
                return;
        if (before != g->n_reconnects)
                soak_latency_add(g->soak, SOAK_PAUSE, ns);
        else if (g->style == STYLE_ONE && c->n_ids == 1)
                soak_latency_add(g->soak, g->is->alone ? SOAK_ONE_ALONE : SOAK_ONE, ns);
        else if (g->style == STYLE_MANY && c->n_ids == MANY_IDS)
                soak_latency_add(g->soak, g->is->alone ? SOAK_MANY_ALONE : SOAK_MANY, ns);
}

/* The claim has table, ids, options and stride. */
static void look_up(struct good *g, struct verify_claim *c) {
        struct handle *h = open_handle(g, c->table);
        uint64_t start_ns;
        int r;

        if (!h)
                return;
        claim_begin(g, h, c);
        c->options.size = sizeof(c->options);
        c->rows = g->rows;
        start_ns = clock_ns();
        r = carvq_lookup(h->table, c->ids, c->n_ids, &c->options, g->rows, g->rows_bytes);
        if (r < 0) {
                refused(g, c->table, h->alive_ns, r, "lookup");
                return;
        }
        count_latency(g, c, clock_ns() - start_ns);
        claim_end(g, h, c, start_ns);
}

/* ---- Styles ---- */

/* Half of the ids are few: these are cached, and asked for together. */
static void draw_ids(struct good *g, uint32_t table, uint64_t *ids, size_t n) {
        const uint64_t n_rows = g->soak->tables[table].n_rows;

        for (size_t i = 0; i < n; i++)
                ids[i] = soak_below(&g->random, soak_below(&g->random, 2) ? 64 : n_rows);
}

static void look_up_plain(struct good *g, size_t n_ids) {
        struct verify_claim c = { .table = any_table(g), .ids = g->ids, .n_ids = n_ids };

        c.row_stride_bytes = g->soak->tables[c.table].n_dims * sizeof(float);
        draw_ids(g, c.table, g->ids, n_ids);
        look_up(g, &c);
}

static size_t any_number(struct good *g, uint32_t bits_max) {
        return 1 + soak_below(&g->random, UINT64_C(1) << soak_below(&g->random, bits_max + 1));
}

static void look_up_pooled(struct good *g) {
        struct verify_claim c = { .table = any_table(g), .ids = g->ids, .n_ids = MANY_IDS };

        draw_ids(g, c.table, g->ids, c.n_ids);
        c.options.pooling = soak_below(&g->random, 2) ? CARVQ_POOLING_SUM : CARVQ_POOLING_MEAN;
        c.options.n_bags = 1 + soak_below(&g->random, BAGS_MAX);
        c.options.bag_offsets = g->bags;
        g->bags[0] = 0;
        /* Some are empty. */
        for (size_t i = 1; i < c.options.n_bags; i++)
                g->bags[i] = MIN(g->bags[i - 1] + soak_below(&g->random, 12), c.n_ids);
        c.row_stride_bytes = g->soak->tables[c.table].n_dims * sizeof(float);
        look_up(g, &c);
}

static void look_up_slices(struct good *g) {
        struct verify_claim c = { .table = any_table(g), .ids = g->ids, .n_ids = any_number(g, 9) };
        const uint32_t n_dims = g->soak->tables[c.table].n_dims;

        draw_ids(g, c.table, g->ids, c.n_ids);
        c.options.type = (uint32_t)soak_below(&g->random, 3);
        c.options.col_first = (uint32_t)soak_below(&g->random, n_dims);
        c.options.n_cols = 1 + (uint32_t)soak_below(&g->random, n_dims - c.options.col_first);
        c.row_stride_bytes =
                (c.options.n_cols + soak_below(&g->random, 9)) * soak_type_bytes(c.options.type);
        c.options.row_stride_bytes = c.row_stride_bytes;
        look_up(g, &c);
}

static void submit_flight(struct good *g, struct flight *f) {
        struct verify_claim *c = &f->claim;
        struct handle *h;
        int r;

        *c = (struct verify_claim){ .table = any_table(g),
                                    .ids = f->ids,
                                    .n_ids = any_number(g, 9),
                                    .options = { .size = sizeof(c->options),
                                                 .type = (uint32_t)soak_below(&g->random, 3) } };
        h = open_handle(g, c->table);
        if (!h)
                return;
        draw_ids(g, c->table, f->ids, c->n_ids);
        claim_begin(g, h, c);
        f->start_ns = clock_ns();
        r = carvq_submit(h->table, f->ids, c->n_ids, &c->options, &f->ticket);
        if (r < 0) {
                f->ticket = 0;
                if (r != -EAGAIN)
                        refused(g, c->table, h->alive_ns, r, "submission");
        }
}

/* As an event loop does it. */
static int wait_by_descriptor(struct good *g, carvq_ticket ticket, struct carvq_rows *ret_rows) {
        const uint64_t deadline_ns = deadline_after(ANSWER_NS);
        int r;

        while ((r = carvq_poll(g->client, ticket, ret_rows)) == 0) {
                struct pollfd p = { .fd = carvq_client_fd(g->client), .events = POLLIN };

                if (clock_ns() > deadline_ns)
                        return -ETIMEDOUT;
                r = carvq_arm(g->client);
                if (r < 0)
                        return r;
                if (r == 0)
                        poll(&p, 1, 1000);
        }
        return r < 0 ? r : 0;
}

static void land_flight(struct good *g, struct flight *f) {
        struct handle *h = &g->handles[f->claim.table];
        struct carvq_rows rows;
        int r;

        /* Interest may be lost before the answer is there. */
        if (soak_below(&g->random, 16) == 0) {
                carvq_release(g->client, f->ticket);
                f->ticket = 0;
                return;
        }
        r = soak_below(&g->random, 2) ? carvq_wait(g->client, f->ticket, 0, &rows)
                                      : wait_by_descriptor(g, f->ticket, &rows);
        if (r < 0) {
                if (r != -ETIMEDOUT)
                        f->ticket = 0;
                refused(g, f->claim.table, f->start_ns, r, "ticket");
                return;
        }
        f->claim.rows = rows.rows;
        f->claim.row_stride_bytes = rows.row_stride_bytes;
        count_latency(g, &f->claim, clock_ns() - f->start_ns);
        claim_end(g, h, &f->claim, f->start_ns);
        carvq_release(g->client, f->ticket);
        f->ticket = 0;
}

static void fly(struct good *g) {
        struct flight *f = &g->flights[soak_below(&g->random, FLIGHTS_MAX)];

        if (f->ticket)
                land_flight(g, f);
        else
                submit_flight(g, f);
}

static void act(struct good *g) {
        switch (g->style) {
        case STYLE_ONE:
                look_up_plain(g, 1);
                break;
        case STYLE_MANY:
                look_up_plain(g, MANY_IDS);
                break;
        case STYLE_BATCH:
                look_up_plain(g, any_number(g, 16));
                break;
        case STYLE_TICKETS:
                for (size_t i = 0; i < FLIGHTS_MAX; i++)
                        fly(g);
                break;
        case STYLE_POOLED:
                look_up_pooled(g);
                break;
        case STYLE_SLICES:
                look_up_slices(g);
                break;
        case STYLE_DIRECT:
        case STYLE_CACHED:
                look_up_plain(g, any_number(g, 8));
                break;
        }
}

static void make_buffers(struct good *g) {
        const size_t n_ids = g->style == STYLE_BATCH ? CARVQ_IDS_MAX : 1024;
        size_t n_dims = 0;

        for (uint32_t i = 0; i < SOAK_TABLES; i++)
                n_dims = MAX(n_dims, g->soak->tables[i].n_dims);
        g->rows_bytes = n_ids * (n_dims + 8) * sizeof(float);
        g->rows = allocate(1, g->rows_bytes);
        g->ids = allocate(n_ids, sizeof(*g->ids));
        g->bags = allocate(BAGS_MAX, sizeof(*g->bags));
}

int good_run(const struct soak *soak, const struct soak_client *client, uint32_t style) {
        struct good g = { .soak = soak, .is = client, .style = style, .random = client->seed };

        make_buffers(&g);
        if (connect_client(&g)) {
                while (!over(&g)) {
                        act(&g);
                        soak_sleep_us(soak_below(&g.random, THINK_US));
                        /* The newest generation is had by opening a table again. */
                        if (soak_below(&g.random, 64) == 0)
                                close_handle(&g, (uint32_t)soak_below(&g.random, SOAK_TABLES));
                }
                count_reconnects(&g);
        }
        carvq_client_free(g.client);
        free(g.rows);
        free(g.ids);
        free(g.bags);
        return 0;
}

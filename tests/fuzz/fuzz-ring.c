/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto/ring-check.c, and the daemon's rounds over a hostile client's rings: indices, submissions
 * and ids are the input's, and between rounds the client moves its indices as the input says. Each
 * area is memory of its own, so that a byte outside is seen. No thread, no kernel: serve.c as a
 * worker calls it.
 */
#include <math.h>

#include "daemon/serve.h"
#include "fuzz.h"
#include "tests/make-table.h"

#define TABLES_N      4u
#define ENTRIES_LOG   4u  /* 16 submissions */
#define IDS_PAGES_MAX 8u  /* 4,096 ids */
#define ARENA_PAGES   32u /* 128 KiB */
#define ROUNDS_MAX    12u
#define HANDLE(i)     (256 * (uint64_t)((i) + 1) + (i))

static struct store_table tables[TABLES_N];

static void make_store_table(struct store_table *t, const struct table_header *parameters) {
        struct codec_file *f = &t->file;
        struct codec_table *table = &f->table;
        uint8_t *made = make_table(parameters, 1, &f->map_bytes), *file;
        struct table_contents contents;
        struct fault fault = { 0 };

        file = aligned_alloc(64, align_up(f->map_bytes, 64));
        require(file, "aligned_alloc");
        memcpy(file, made, f->map_bytes);
        free(made);
        require(!table_check(file, MIN(f->map_bytes, TABLE_HEAD_BYTES_MAX), f->map_bytes, &contents,
                             &fault),
                fault.text);
        codec_table_init(table, &contents, file);
        require(!codec_prepare(&contents.header, table->col_scales, table->adaptor,
                               &table->prepared),
                "memory");
        f->map = file;
        require(!cache_new(64 << 10, &contents.header, &t->cache, &fault), fault.text);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
        struct table_header parameters[TABLES_N] = {
                { .codec = TABLE_CODEC_F32, .n_rows = 100, .n_dims = 7 },
                { .codec = TABLE_CODEC_INT4, .n_rows = 3, .n_dims = 1000 },
                { .codec = TABLE_CODEC_CARVQ,
                  .n_rows = 50,
                  .n_dims = 100,
                  .n_stages = 3,
                  .codebook_bits = 4,
                  .subvector_dims = 8,
                  .group_cols = 4,
                  .group_rows = 20,
                  .row_scale = 1 },
                { .codec = TABLE_CODEC_CARVQ,
                  .n_rows = 33,
                  .n_dims = 33,
                  .n_stages = 2,
                  .codebook_bits = 4,
                  .subvector_dims = 8,
                  .group_cols = 4,
                  .group_rows = 33,
                  .adaptor_type = TABLE_ADAPTOR_INT8,
                  .latent_dims = 3,
                  .hidden_dims = { 9 },
                  .latent_bits = 8 },
        };

        (void)argc;
        (void)argv;
        for (size_t i = 0; i < TABLES_N; i++)
                make_store_table(&tables[i], &parameters[i]);
        return 0;
}

/* ---- The pure checks ---- */

static void check_layout(struct input *input) {
        struct ring_geometry geometry;
        struct ring_layout l;
        struct fault fault = { 0 };

        input_take(input, &geometry, sizeof(geometry));
        if (ring_layout_compute(&geometry, &l, &fault) < 0) {
                require(*fault.text, "a refusal has a reason");
                return;
        }
        require(l.sq_offset >= RING_PAGE_BYTES && l.cq_offset > l.sq_offset &&
                        l.ids_offset > l.cq_offset && l.arena_offset > l.ids_offset &&
                        l.ring_bytes > l.arena_offset,
                "areas in order");
        require((l.sq_offset | l.cq_offset | l.ids_offset | l.arena_offset | l.ring_bytes) %
                                RING_PAGE_BYTES ==
                        0,
                "at pages");
}

__extension__ typedef unsigned __int128 wide;

/* Against arithmetic that cannot wrap. */
static void check_submission(const struct ring_submission *s, const struct ring_layout *l,
                             uint32_t n_dims) {
        wide end;
        uint32_t n_rows, n_cols, value_bytes = s->type == RING_TYPE_F32 ? 4 : 2;
        struct fault fault = { 0 };

        if (ring_submission_check(s, l, n_dims, &n_rows, &n_cols, &fault) < 0) {
                require(*fault.text, "a refusal has a reason");
                return;
        }
        require(s->n_ids >= 1 && s->n_ids <= RING_IDS_MAX && s->n_bags <= RING_IDS_MAX, "counts");
        require(n_cols >= 1 && (uint64_t)s->col_first + n_cols <= n_dims, "columns");
        require(n_rows == (s->pooling ? s->n_bags : s->n_ids), "rows");
        end = (wide)s->ids_offset + (wide)s->n_ids * 8;
        require(end <= l->geometry.ids_bytes, "ids inside");
        end = (wide)s->bags_offset + (wide)s->n_bags * 8;
        require(end <= l->geometry.ids_bytes, "bags inside");
        end = (wide)s->out_offset + (wide)s->row_stride_bytes * (n_rows - 1) +
              (uint64_t)n_cols * value_bytes;
        require(end <= l->geometry.arena_bytes, "rows inside");
        require(s->row_stride_bytes >= (uint64_t)n_cols * value_bytes, "stride");
        require(isfinite(s->scale), "scale");
}

/* ---- The rings ---- */

static void make_seat(struct seat *seat, struct input *input) {
        struct ring_server *r = &seat->ring;
        uint32_t sq_log = input_u8(input) % (ENTRIES_LOG + 1);
        const struct ring_geometry geometry = {
                .sq_entries = 1u << sq_log,
                .cq_entries = 1u << (sq_log + input_u8(input) % 2),
                .ids_bytes = (1 + input_u8(input) % IDS_PAGES_MAX) * (uint64_t)RING_PAGE_BYTES,
                .arena_bytes = (1 + input_u8(input) % ARENA_PAGES) * (uint64_t)RING_PAGE_BYTES,
        };

        require(!ring_layout_compute(&geometry, &r->layout, NULL), "a sound geometry");
        r->header = aligned_alloc(RING_PAGE_BYTES, RING_PAGE_BYTES);
        r->submissions = calloc(geometry.sq_entries, sizeof(*r->submissions));
        r->completions = calloc(geometry.cq_entries, sizeof(*r->completions));
        r->ids = calloc(1, geometry.ids_bytes);
        r->arena = aligned_alloc(RING_PAGE_BYTES, geometry.arena_bytes);
        require(r->header && r->submissions && r->completions && r->ids && r->arena, "memory");
        memset(r->header, 0, RING_PAGE_BYTES);
        r->claims = (const void *)((uint8_t *)r->header + RING_CLAIMS_OFFSET);
        r->cache_use = (const void *)((uint8_t *)r->header + RING_CACHE_USE_OFFSET);
        r->socket_fd = -1;
        /* As after any number of lookups. */
        r->sq_head = input_u32(input);
        r->cq_tail = r->cq_published = input_u32(input);
        atomic_store(&r->header->cq_head, r->cq_tail);
        atomic_store(&r->header->cq_tail, r->cq_tail);
        for (uint32_t i = 0; i < TABLES_N; i++)
                seat->slots[HANDLE(i) % WIRE_TABLES_MAX] =
                        (struct serve_slot){ HANDLE(i), &tables[i] };
}

static void free_seat(struct seat *seat) {
        struct ring_server *r = &seat->ring;

        free(r->header);
        free((void *)(uintptr_t)r->submissions);
        free(r->completions);
        free((void *)(uintptr_t)r->ids);
        free(r->arena);
        free(seat);
}

/* What the client writes at once: hints, some submissions, and ids in all the rest. */
static void scribble(struct seat *seat, struct input *input) {
        struct ring_server *r = &seat->ring;
        struct ring_cache_use *use = (void *)(uintptr_t)r->cache_use;
        uint32_t n = 1 + input_u8(input) % r->layout.geometry.sq_entries;
        uint8_t *ids = (uint8_t *)(uintptr_t)r->ids;

        atomic_store(&use->n_hints, input_u8(input));
        input_take(input, (void *)&use->hints[0], sizeof(uint64_t) * 2);
        for (uint32_t i = 0; i < n; i++) {
                struct ring_submission s;
                uint32_t mask = r->layout.geometry.sq_entries - 1;

                /* Without the reserved bytes, which would be most of the input. */
                input_take(input, &s, offsetof(struct ring_submission, reserved));
                memset(s.reserved, 0, sizeof(s.reserved));
                s.reserved[47] = s.user_data == 1;
                if (s.table < TABLES_N)
                        s.table = HANDLE(s.table);
                memcpy((void *)(uintptr_t)&r->submissions[(r->sq_head + i) & mask], &s, sizeof(s));
                check_submission(&s, &r->layout, 1 + (uint32_t)(s.user_data % TABLE_DIMS_MAX));
        }
        atomic_store(&r->header->sq_tail, r->sq_head + n);
        /* Each id is two bytes of the input, so that some are rows. */
        for (uint64_t i = 0; i < r->layout.geometry.ids_bytes / 8 && input->n_bytes; i++)
                ids[i * 8] = input_u8(input), ids[i * 8 + 7] = ids[i * 8] == 255;
}

struct history {
        uint32_t n_ended;   /* submissions */
        uint32_t read_tail; /* of the completions seen */
        bool lies;          /* about what it has read, or submitted */
};

/* What the daemon has published since: pieces in order, one end for each. */
static void read_completions(const struct seat *seat, struct history *history) {
        const struct ring_server *r = &seat->ring;
        uint32_t tail = atomic_load(&r->header->cq_tail), mask = r->layout.geometry.cq_entries - 1;

        require(history->lies || tail - history->read_tail <= r->layout.geometry.cq_entries,
                "none overwritten");
        for (; history->read_tail != tail; history->read_tail++) {
                const struct ring_completion *c = &r->completions[history->read_tail & mask];

                require(c->status <= RING_STATUS_NO_MEMORY, "a known status");
                require(!(c->flags & ~RING_COMPLETION_MORE), "known flags");
                history->n_ended += !(c->flags & RING_COMPLETION_MORE);
        }
}

/* One round; false when the session would end. */
static bool round_of(struct serve *serve, struct seat *seat) {
        struct fault fault = { 0 };
        int r;

        serve_begin(serve);
        r = serve_take(serve, seat, &fault);
        require(r != -EPROTO || *fault.text, "a violation has a name");
        require(r >= 0 || r == -EPROTO, "as documented");
        serve_finish(serve);
        return r >= 0;
}

static void serve_client(struct serve *serve, struct seat *seat, struct input *input) {
        uint32_t first = seat->ring.sq_head, n_submitted;
        struct history history = { .read_tail = seat->ring.cq_tail };
        uint8_t steps = input_u8(input);
        uint32_t wild = input_u32(input);

        for (size_t i = 0; i < TABLES_N; i++)
                atomic_store(&tables[i].failed, (steps >> 4) == 15 && i == wild % TABLES_N);
        scribble(seat, input);
        n_submitted = atomic_load(&seat->ring.header->sq_tail) - first;
        for (uint32_t i = 0; i < ROUNDS_MAX; i++) {
                struct ring_header *h = seat->ring.header;

                if (!round_of(serve, seat))
                        break;
                read_completions(seat, &history);
                require(history.lies || history.n_ended <= n_submitted,
                        "no completion without a submission");
                if (steps & 1)
                        atomic_store(&h->cq_head, history.read_tail); /* reaps */
                if ((steps & 2) && i == 1)
                        atomic_store(&h->cq_head, wild);
                if ((steps & 4) && i == 1)
                        atomic_store(&h->sq_tail, wild);
                if (steps & 8)
                        atomic_store(&h->client_waiting, 2 * i + 1);
                history.lies |= (steps & 6) && i == 1;
                if (!serve_has_work(seat))
                        break;
        }
        if (steps & 16)
                serve_abort(serve, seat, RING_STATUS_RETIRED);
        serve_forget(serve, seat);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        struct input input = { bytes, n_bytes };
        struct seat *seat = calloc(1, sizeof(*seat));
        static struct serve serve;

        require(seat, "calloc");
        check_layout(&input);
        make_seat(seat, &input);
        serve_init(&serve, codec_kernels_choose(codec_cpu_features()), NULL);
        for (size_t i = 0; i < TABLES_N; i++)
                require(!serve_reserve(&serve, &tables[i]), "memory");
        serve_client(&serve, seat, &input);
        serve_deinit(&serve);
        free_seat(seat);
        return 0;
}

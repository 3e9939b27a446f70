/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's rounds without worker, socket or clock: seats over real ring memory, clients played
 * by the test, rounds counted one by one. Rows are compared with the same kernels' in-process.
 */
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "daemon/guard.h"
#include "daemon/serve.h"
#include "daemon/worker.h"
#include "proto/spin.h"
#include "random.h"
#include "tests/make-table.h"

#define N_SEATS 40u

/* What a round costs at most, in rows of the narrow table. */
#define ROUND_ROWS (131072u / 64)

static char dir[64];

/* A client and the daemon's seat for it, over the same memory. */
struct player {
        struct seat seat;
        struct ring_layout layout;
        uint8_t *memory;
        struct ring_header *header;
        uint32_t sq_tail, cq_head;
};

static struct store store;
static struct mailbox home;
static struct chores *chores;
static struct store_table *tables[3]; /* narrow, wide, with an adaptor */
static struct serve *serve;
static struct loop_io io; /* with fewer entries than there are seats */
static struct loop_io io_epoll;
static struct player players[N_SEATS];

static const struct table_header shapes[] = {
        { .codec = TABLE_CODEC_CARVQ,
          .n_rows = 5000,
          .n_dims = 64,
          .n_stages = 3,
          .codebook_bits = 4,
          .subvector_dims = 8,
          .group_cols = 65536,
          .group_rows = 5000 },
        { .codec = TABLE_CODEC_F16, .n_rows = 900, .n_dims = 2048 },
        { .codec = TABLE_CODEC_CARVQ,
          .n_rows = 900,
          .n_dims = 256,
          .n_stages = 3,
          .codebook_bits = 4,
          .subvector_dims = 8,
          .group_cols = 65536,
          .group_rows = 900,
          .latent_dims = 6,
          .hidden_dims = { 16 },
          .adaptor_type = TABLE_ADAPTOR_HALF,
          .latent_bits = 16 },
};

static void player_init(struct player *p, uint32_t n_entries, uint64_t arena_bytes) {
        const struct ring_geometry g = { n_entries, n_entries, 4 << 20, arena_bytes };
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        *p = (struct player){ 0 };
        assert_int_equal(ring_layout_compute(&g, &p->layout, NULL), 0);
        assert_int_equal(ftruncate(fd, (off_t)p->layout.ring_bytes), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
        assert_int_equal(ring_server_init(&p->seat.ring, fd, &p->layout, 1, -1, NULL), 0);
        p->memory = mmap(NULL, p->layout.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(p->memory, MAP_FAILED);
        p->header = (void *)p->memory;
        for (uint64_t t = 0; t < ARRAY_SIZE(tables); t++)
                p->seat.slots[t + 1] = (struct serve_slot){ t + 1, tables[t] };
        close(fd);
}

static void player_deinit(struct player *p) {
        if (!p->memory)
                return;
        serve_forget(serve, &p->seat);
        munmap(p->memory, p->layout.ring_bytes);
        ring_server_deinit(&p->seat.ring);
        p->memory = NULL;
}

static int setup_group(void **state) {
        (void)state;
        strcpy(dir, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        assert_int_equal(mailbox_init(&home), 0);
        assert_int_equal(chores_new(&home, &chores), 0);
        return 0;
}

static int teardown_group(void **state) {
        (void)state;
        chores_free(chores);
        mailbox_deinit(&home);
        return rmdir(dir);
}

static int setup(void **state) {
        (void)state;
        store_init(&store, chores, &home);
        serve = calloc(1, sizeof(*serve));
        io = (struct loop_io){ .epoll.fd = -1 };
        assert_int_equal(io_uring_queue_init(2, &io.ring, 0), 0);
        assert_int_equal(loop_io_init(&io_epoll, LOOP_EPOLL, 0, NULL), 0);
        serve_init(serve, codec_kernels_choose(codec_cpu_features()), &io);
        for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
                char path[96], name[8];

                snprintf(name, sizeof(name), "t%zu", t);
                snprintf(path, sizeof(path), "%s/%s", dir, name);
                make_table_file(path, &shapes[t], t + 1);
                assert_int_equal(store_table_new(name, path, &tables[t], NULL), 0);
                store_publish(&store, tables[t]);
                store_use(tables[t]);
                codec_context_reserve(&serve->context, &tables[t]->file.table);
        }
        return 0;
}

static int teardown(void **state) {
        (void)state;
        for (size_t i = 0; i < N_SEATS; i++)
                player_deinit(&players[i]);
        serve_deinit(serve);
        loop_io_deinit(&io);
        loop_io_deinit(&io_epoll);
        free(serve);
        mailbox_drain(&home); /* failures */
        for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
                unlink(tables[t]->path);
                store_unuse(&store, tables[t]);
        }
        store_deinit(&store);
        return 0;
}

/* ---- What clients do ---- */

/* Ids from `first` on; the place of ids and rows follows from the submission's number. */
static void submit(struct player *p, uint32_t table, uint64_t first, uint32_t n_ids,
                   const struct ring_submission *options) {
        struct ring_submission s = options ? *options : (struct ring_submission){ .scale = 1 };
        uint32_t slot = p->sq_tail & (p->layout.geometry.sq_entries - 1);
        uint64_t room = p->layout.geometry.ids_bytes / p->layout.geometry.sq_entries;
        uint64_t out_room = p->layout.geometry.arena_bytes / p->layout.geometry.sq_entries;
        uint64_t *ids;

        s.user_data = p->sq_tail;
        s.table = table + 1;
        s.n_ids = n_ids;
        s.ids_offset = slot * room;
        s.out_offset = slot * out_room;
        s.row_stride_bytes = shapes[table].n_dims * sizeof(float);
        ids = (void *)(p->memory + p->layout.ids_offset + s.ids_offset);
        for (uint32_t i = 0; i < n_ids; i++)
                ids[i] = (first + i * 7) % shapes[table].n_rows;
        if (s.pooling) {
                s.bags_offset = s.ids_offset + n_ids * sizeof(*ids);
                for (uint32_t i = 0; i < s.n_bags; i++)
                        ids[n_ids + i] = (uint64_t)n_ids * i / s.n_bags;
        }
        memcpy(p->memory + p->layout.sq_offset + slot * sizeof(s), &s, sizeof(s));
        atomic_store_explicit(&p->header->sq_tail, ++p->sq_tail, memory_order_release);
}

static bool reap(struct player *p, struct ring_completion *ret) {
        uint32_t slot = p->cq_head & (p->layout.geometry.cq_entries - 1);

        if (atomic_load_explicit(&p->header->cq_tail, memory_order_acquire) == p->cq_head)
                return false;
        memcpy(ret, p->memory + p->layout.cq_offset + slot * sizeof(*ret), sizeof(*ret));
        atomic_store_explicit(&p->header->cq_head, ++p->cq_head, memory_order_release);
        return true;
}

/* Rows of the submission with this number, as submit() made it. */
static void check_rows(struct player *p, uint64_t number, uint32_t table, uint64_t first,
                       uint32_t n_ids, const struct ring_submission *options) {
        static float expected[256 * 2048];
        const struct table_header *h = &shapes[table];
        uint32_t slot = (uint32_t)number & (p->layout.geometry.sq_entries - 1);
        const uint8_t *rows =
                p->memory + p->layout.arena_offset +
                slot * (p->layout.geometry.arena_bytes / p->layout.geometry.sq_entries);
        uint32_t pooling = options ? options->pooling : 0;
        uint64_t ids[256], bags[256], n_rows = pooling ? options->n_bags : n_ids;
        struct codec_request request = { .ids = ids,
                                         .n_ids = n_ids,
                                         .bag_offsets = pooling ? bags : NULL,
                                         .n_bags = pooling ? n_rows : 0,
                                         .n_cols = h->n_dims,
                                         .scale = 1,
                                         .pooling = (uint8_t)pooling,
                                         .row_stride_bytes = h->n_dims * sizeof(float),
                                         .out = expected };
        struct codec_cost cost = { 0 };
        struct codec_context context;

        assert_true(n_ids <= ARRAY_SIZE(ids));
        for (uint32_t i = 0; i < n_ids; i++)
                ids[i] = (first + i * 7) % h->n_rows;
        for (uint32_t i = 0; pooling && i < n_rows; i++)
                bags[i] = n_ids * i / n_rows;
        codec_context_init(&context, serve->context.kernels);
        codec_context_reserve(&context, &tables[table]->file.table);
        codec_decode_all(&context, &tables[table]->file.table, &request, &cost);
        codec_context_deinit(&context);
        assert_memory_equal(rows, expected, n_rows * h->n_dims * sizeof(float));
}

/* As the worker does it, from the first player on; how many seats had work. */
static uint32_t play_round(uint32_t n_players) {
        serve_begin(serve);
        for (uint32_t i = 0; i < n_players && !serve_full(serve); i++)
                assert_true(serve_take(serve, &players[i].seat, NULL) >= 0);
        serve_finish(serve);
        return serve->n_turns;
}

/* ---- Tests ---- */

/* However many clients send 65,536 rows at a time, a single row of another one is back after the
 * round that it met under way and the one that takes it; and the flood gets on. */
static void test_single_rows_under_a_flood(void **state) {
        const uint32_t n_flooders[] = { 1, 3, 32 };

        (void)state;
        for (size_t f = 0; f < ARRAY_SIZE(n_flooders); f++) {
                const uint32_t n = n_flooders[f];
                uint64_t n_rows_flood = 0;
                struct ring_completion c;

                for (uint32_t i = 0; i <= n; i++)
                        player_init(&players[i], 2, i < n ? 2 * 65536 * 64 * 4 : 65536);
                for (uint32_t i = 0; i < n; i++)
                        for (int k = 0; k < 2; k++)
                                submit(&players[i], 0, i, 65536,
                                       &(struct ring_submission){
                                               .scale = 1, .flags = RING_SUBMISSION_PIECES });
                for (uint64_t k = 0; k < 50; k++) {
                        struct player *p = &players[n];
                        uint64_t n_rows = 0;

                        submit(p, 0, k, 1, NULL);
                        assert_int_equal(play_round(n + 1), n + 1);
                        assert_true(reap(p, &c)); /* one round, not as many as there are floods */
                        assert_int_equal(c.user_data, k);
                        check_rows(p, k, 0, k, 1, NULL);
                        for (uint32_t i = 0; i < n; i++)
                                while (reap(&players[i], &c)) {
                                        assert_int_equal(c.status, RING_STATUS_OK);
                                        n_rows += c.n_rows;
                                }
                        /* And a round is bounded. */
                        assert_in_range(n_rows, 1, 2 * ROUND_ROWS);
                        n_rows_flood += n_rows;
                }
                assert_true(n_rows_flood >= 50 * ROUND_ROWS / 2);
                for (uint32_t i = 0; i <= n; i++)
                        player_deinit(&players[i]);
        }
}

/* Equal shares, whatever the width of a row: a client of wide rows waits for others after each. */
static void test_shares_are_equal(void **state) {
        uint64_t n_values[2] = { 0 };
        struct ring_completion c;

        (void)state;
        for (uint32_t i = 0; i < 2; i++) {
                player_init(&players[i], 2, 64 << 20);
                for (int k = 0; k < 2; k++)
                        submit(&players[i], i, k, i ? 4000 : 65536,
                               &(struct ring_submission){ .scale = 1,
                                                          .flags = RING_SUBMISSION_PIECES });
        }
        for (int k = 0; k < 60; k++) {
                assert_int_equal(play_round(2), 2);
                for (uint32_t i = 0; i < 2; i++)
                        while (reap(&players[i], &c))
                                n_values[i] += c.n_rows * shapes[i].n_dims;
        }
        assert_in_range(n_values[0] * 100 / n_values[1], 95, 105);
}

/* Whoever shares a counter waits while a lookup that outlives its round is as much as they may have
 * under way; others do not, and small lookups are never counted. */
static void test_ids_in_flight(void **state) {
        struct quota_ids ids = { .max = 1000 };
        struct player *large = &players[0], *waits = &players[1], *other = &players[2];
        struct ring_completion c;
        uint32_t n_rounds = 0;

        (void)state;
        for (uint32_t i = 0; i < 3; i++)
                player_init(&players[i], 4, 4 * 65536 * 64 * 4);
        large->seat.ids_quota = waits->seat.ids_quota = &ids;
        submit(waits, 0, 1, 100, NULL);
        play_round(3);
        assert_true(reap(waits, &c));
        assert_int_equal(ids.n, 0);

        submit(large, 0, 0, 65536, NULL);
        submit(large, 0, 0, 65536, NULL);
        play_round(3);
        assert_int_equal(ids.n, 65536); /* the second one is not begun */
        submit(waits, 0, 2, 1, NULL);
        for (uint64_t k = 0; ids.n; k++, n_rounds++) {
                submit(other, 0, k, 1, NULL);
                serve_begin(serve);
                assert_int_equal(serve_take(serve, &waits->seat, NULL), SERVE_HELD);
                assert_int_equal(serve_take(serve, &large->seat, NULL), SERVE_WORKED);
                assert_int_equal(serve_take(serve, &other->seat, NULL), SERVE_WORKED);
                assert_true(serve_has_work(&waits->seat));
                serve_finish(serve);
                assert_true(reap(other, &c));
        }
        assert_in_range(n_rounds, 10, 100);
        assert_true(reap(large, &c));
        assert_true(quota_ids_invite(&ids));
        serve_begin(serve);
        assert_int_equal(serve_take(serve, &waits->seat, NULL), SERVE_WORKED);
        assert_int_equal(serve_take(serve, &large->seat, NULL), SERVE_WORKED);
        serve_finish(serve);
        assert_true(reap(waits, &c));
        assert_int_equal(ids.n, 65536);

        /* What is forgotten or aborted is given back, too. */
        serve_abort(serve, &large->seat, RING_STATUS_NO_TABLE);
        assert_int_equal(ids.n, 0);
        submit(large, 0, 0, 65536, NULL);
        play_round(1);
        assert_int_equal(ids.n, 65536);
        serve_forget(serve, &large->seat);
        assert_int_equal(ids.n, 0);
        for (uint32_t i = 0; i < 3; i++)
                player_deinit(&players[i]);
}

/* ---- The worker itself, for those who wait ---- */

static uint32_t n_detached, n_changed;

static void on_detached(struct worker_seat *seat) {
        closep(&seat->doorbell_fd);
        n_detached++;
}

/* What it says of its index may be impossible by now; it is detached all the same. */
static void on_failed(struct worker_seat *seat, const struct fault *why) {
        (void)seat;
        (void)why;
}

static void on_changed(struct worker_slot_change *change) {
        n_changed += change->error == 0;
}

/* The loop's part, up to 20 s. */
static void wait_for_mail(const uint32_t *counter, uint32_t n) {
        struct pollfd p = { .fd = home.event_fd, .events = POLLIN };

        while (*counter < n) {
                assert_int_equal(poll(&p, 1, 20000), 1);
                mailbox_drain(&home);
        }
}

static void wait_for_completions(struct player *p, uint32_t n) {
        const uint64_t until_ns = clock_ns() + UINT64_C(20000000000);
        struct ring_completion c;

        while (n) {
                if (reap(p, &c)) {
                        assert_int_equal(c.status, RING_STATUS_OK);
                        n--;
                } else if (clock_ns() > until_ns)
                        fail_msg("a lookup of player %td was forgotten", p - players);
                else
                        sched_yield();
        }
}

/* Before its lookup can end, so that it is under way until it leaves. */
static void stop_reaping(struct player *p) {
        const uint64_t until_ns = clock_ns() + UINT64_C(20000000000);

        while (!atomic_load_explicit(&p->header->cq_tail, memory_order_acquire))
                assert_true(clock_ns() < until_ns);
        atomic_store_explicit(&p->header->cq_head, -p->layout.geometry.cq_entries,
                              memory_order_release);
}

/*
 * Each of 0 to 3 has more than their user may have under way; 4 is another user. While 0 is in the
 * middle the others wait, and 4 does not. When it leaves, and each time that one of them ends, the
 * next one is let in: no heartbeat and no doorbell helps.
 */
static void test_who_waits_is_invited(void **state) {
        static struct worker_seat seats[5];
        struct quota_ids ids = { .max = 1 };
        struct worker_slot_change change = {
                .seat = &seats[0], .handle = 1, .table = tables[0], .done = on_changed
        };
        const struct worker_options options = { .kernels = serve->context.kernels,
                                                .n_workers = 1,
                                                .home = &home };
        const struct ring_submission pieces = { .scale = 1, .flags = RING_SUBMISSION_PIECES };
        struct ring_completion c;
        struct worker *worker;

        (void)state;
        n_detached = n_changed = 0;
        assert_int_equal(worker_new(&options, &worker, NULL), 0);
        for (uint32_t i = 0; i < ARRAY_SIZE(seats); i++) {
                player_init(&players[i], 4, 4 * 65536 * 64 * 4);
                seats[i] = (struct worker_seat){ .seat = players[i].seat,
                                                 .doorbell_fd = eventfd(0, EFD_NONBLOCK),
                                                 .failed = on_failed,
                                                 .detached = on_detached };
                seats[i].seat.ids_quota = i < 4 ? &ids : NULL;
        }
        worker_attach(worker, &seats[0]);
        worker_change_slot(&change); /* the worker then has scratch for the table */
        wait_for_mail(&n_changed, 1);
        submit(&players[0], 0, 0, 65536, &pieces);
        assert_int_equal(write(seats[0].doorbell_fd, &(uint64_t){ 1 }, 8), 8);
        stop_reaping(&players[0]);
        for (uint32_t i = 1; i < ARRAY_SIZE(seats); i++) {
                for (int k = 0; k < 3; k++)
                        submit(&players[i], 0, i, i < 4 ? 65536 : 1, NULL);
                worker_attach(worker, &seats[i]);
        }
        wait_for_completions(&players[4], 3);
        for (uint32_t i = 1; i < 4; i++)
                assert_false(reap(&players[i], &c));

        worker_detach(&seats[0], false);
        for (uint32_t i = 1; i < 4; i++)
                wait_for_completions(&players[i], 3);
        for (uint32_t i = 1; i < ARRAY_SIZE(seats); i++)
                worker_detach(&seats[i], false);
        wait_for_mail(&n_detached, ARRAY_SIZE(seats));
        assert_int_equal(ids.n, 0);
        worker_free(worker);
}

/* What rows through an adaptor cost is learned, so that a slow one is cut into smaller pieces;
 * where there are enough, batches are full. */
static void test_adaptors_cost_what_they_take(void **state) {
        struct player *p = &players[0];
        struct ring_completion c;

        (void)state;
        player_init(p, 4, 4 << 20);
        submit(p, 2, 0, 700,
               &(struct ring_submission){ .scale = 1, .flags = RING_SUBMISSION_PIECES });
        assert_int_equal(tables[2]->row_ns, 0);
        tables[2]->row_ns = 25000; /* half a round's time */
        play_round(1);
        assert_int_not_equal(tables[2]->row_ns, 25000);
        assert_true(reap(p, &c));
        assert_int_equal(c.n_rows, 1);
        tables[2]->row_ns = 100;
        play_round(1);
        assert_true(reap(p, &c));
        assert_int_equal(c.n_rows, 7 * CODEC_BATCH_ROWS);
}

/* Small submissions of one client are taken in one round, and completed in order. */
static void test_small_ones_are_gathered(void **state) {
        struct ring_completion c;
        struct player *p = &players[0];

        (void)state;
        player_init(p, 64, 1 << 20);
        for (uint32_t k = 0; k < 64; k++)
                submit(p, 0, k, 1, NULL);
        assert_int_equal(play_round(1), 1);
        assert_int_equal(serve->n_jobs, 64);
        for (uint64_t k = 0; k < 64; k++) {
                assert_true(reap(p, &c));
                assert_int_equal(c.user_data, k);
                assert_int_equal(c.status, RING_STATUS_OK);
                check_rows(p, k, 0, k, 1, NULL);
        }
        assert_int_equal(play_round(1), 0);
}

/* One codec_decode() for each table: rows of all clients, pooled ones beside plain ones; wrong
 * requests between them fail alone. */
static void test_tables_clients_and_pooling_mixed(void **state) {
        const struct ring_submission pooled = { .scale = 1,
                                                .pooling = RING_POOLING_MEAN,
                                                .n_bags = 5 };
        const struct ring_submission plain = { .scale = 1 }, wrong = { .scale = 1, .type = 9 };
        uint32_t seed = 41;
        struct ring_completion c;

        (void)state;
        print_message("# seed %u\n", seed);
        for (uint32_t i = 0; i < N_SEATS; i++)
                player_init(&players[i], 8, 8 << 20);
        for (int turn = 0; turn < 20; turn++) {
                struct {
                        uint32_t table, n_ids;
                        uint64_t first;
                        const struct ring_submission *options;
                } calls[N_SEATS][3];

                for (uint32_t i = 0; i < N_SEATS; i++)
                        for (int k = 0; k < 3; k++) {
                                calls[i][k].table = test_random(&seed) % 3;
                                calls[i][k].n_ids = 1 + test_random(&seed) % 40;
                                calls[i][k].first = test_random(&seed) % 1000;
                                calls[i][k].options = test_random(&seed) % 3 == 0   ? &pooled
                                                      : test_random(&seed) % 8 == 0 ? &wrong
                                                                                    : &plain;
                                submit(&players[i], calls[i][k].table, calls[i][k].first,
                                       calls[i][k].n_ids, calls[i][k].options);
                        }
                /* The slower a row is found to be, the fewer go into a round. */
                for (int round = 0; play_round(N_SEATS); round++)
                        assert_true(round < 100000);
                for (uint32_t i = 0; i < N_SEATS; i++)
                        for (int k = 0; k < 3; k++) {
                                assert_true(reap(&players[i], &c));
                                assert_int_equal(c.user_data, turn * 3 + k);
                                assert_int_equal(c.status, calls[i][k].options == &wrong
                                                                   ? RING_STATUS_INVALID
                                                                   : RING_STATUS_OK);
                                if (c.status == RING_STATUS_OK)
                                        check_rows(&players[i], c.user_data, calls[i][k].table,
                                                   calls[i][k].first, calls[i][k].n_ids,
                                                   calls[i][k].options);
                        }
        }
}

/* A file cut short under the decoder: every job of its table is RETIRED, of all clients; jobs of
 * others in the same round are not, and later ones are refused at once. */
static void test_a_group_is_retired(void **state) {
        struct ring_completion c;

        (void)state;
        for (uint32_t i = 0; i < 6; i++) {
                player_init(&players[i], 4, 1 << 20);
                submit(&players[i], 0, i, 3, NULL);
                submit(&players[i], 1, 800, 3, NULL); /* the file's end */
        }
        assert_int_equal(truncate(tables[1]->path, 4096), 0);
        guard_install(); /* here, because cmocka sets handlers of its own for each test */
        assert_int_equal(play_round(6), 6);
        for (uint32_t i = 0; i < 6; i++) {
                assert_true(reap(&players[i], &c));
                assert_int_equal(c.status, RING_STATUS_OK);
                check_rows(&players[i], 0, 0, i, 3, NULL);
                assert_true(reap(&players[i], &c));
                assert_int_equal(c.status, RING_STATUS_RETIRED);
                submit(&players[i], 1, 0, 1, NULL);
        }
        assert_int_equal(play_round(6), 6);
        for (uint32_t i = 0; i < 6; i++) {
                assert_true(reap(&players[i], &c));
                assert_int_equal(c.status, RING_STATUS_RETIRED);
        }
        assert_true(tables[1]->failed);
}

/* Nothing starts that could not end: a client that does not reap holds up itself alone. */
static void test_no_room_to_complete(void **state) {
        struct ring_completion c;
        struct player *p = &players[0];

        (void)state;
        player_init(p, 4, 1 << 20);
        player_init(&players[1], 4, 1 << 20);
        for (uint32_t k = 0; k < 4; k++)
                submit(p, 0, k, 1, NULL);
        play_round(2);
        for (uint32_t k = 4; k < 8; k++)
                submit(p, 0, k, 1, NULL);
        submit(&players[1], 0, 1, 1, NULL);
        assert_int_equal(play_round(2), 1);
        assert_true(reap(&players[1], &c));
        assert_true(reap(p, &c));
        assert_int_equal(play_round(2), 1);
        assert_int_equal(serve->n_jobs, 1);
        for (uint64_t k = 1; k < 5; k++) {
                assert_true(reap(p, &c));
                assert_int_equal(c.user_data, k);
        }
}

/* Between rounds a job that is under way can be ended or dropped. */
static void test_ending_between_rounds(void **state) {
        struct ring_completion c;
        struct player *p = &players[0];

        (void)state;
        player_init(p, 2, 2 * 65536 * 64 * 4);
        submit(p, 0, 0, 65536, NULL);
        submit(p, 0, 0, 1, NULL);
        play_round(1);
        assert_non_null(p->seat.job);
        assert_false(reap(p, &c));
        serve_abort(serve, &p->seat, RING_STATUS_NO_TABLE);
        assert_true(reap(p, &c));
        assert_int_equal(c.status, RING_STATUS_NO_TABLE);
        assert_null(p->seat.job);
        play_round(1);
        assert_true(reap(p, &c));
        assert_int_equal(c.user_data, 1);
        assert_int_equal(c.status, RING_STATUS_OK);
}

/* Of a round's clients those that sleep get one message each, whatever room the ring has. */
static void check_wakes(void) {
        int pairs[N_SEATS][2];

        for (uint32_t n_asleep = 0; n_asleep <= N_SEATS; n_asleep += n_asleep < 4 ? 1 : 36) {
                for (uint32_t i = 0; i < N_SEATS; i++) {
                        player_init(&players[i], 4, 1 << 20);
                        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[i]), 0);
                        players[i].seat.ring.socket_fd = pairs[i][0];
                        players[i].header->client_waiting = i < n_asleep;
                        submit(&players[i], 0, i, 3, NULL);
                }
                for (int rounds = 0; rounds < 2; rounds++) {
                        serve_begin(serve);
                        for (uint32_t i = 0; i < N_SEATS; i++)
                                assert_true(serve_take(serve, &players[i].seat, NULL) >= 0);
                        serve_finish(serve);
                        for (uint32_t i = 0; i < N_SEATS; i++)
                                submit(&players[i], 0, i, 3, NULL);
                }
                for (uint32_t i = 0; i < N_SEATS; i++) {
                        struct wire_wake wake;

                        if (i < n_asleep) {
                                assert_int_equal(
                                        recv(pairs[i][1], &wake, sizeof(wake), MSG_DONTWAIT),
                                        sizeof(wake));
                                assert_memory_equal(&wake, &ring_server_wake, sizeof(wake));
                        }
                        assert_int_equal(recv(pairs[i][1], &wake, sizeof(wake), MSG_DONTWAIT), -1);
                        assert_int_equal(errno, EAGAIN);
                        close(pairs[i][0]);
                        close(pairs[i][1]);
                        player_deinit(&players[i]);
                }
        }
}

static void test_wakes(void **state) {
        (void)state;
        check_wakes();
}

static void test_wakes_with_epoll(void **state) {
        (void)state;
        serve->io = &io_epoll;
        check_wakes();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_single_rows_under_a_flood, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shares_are_equal, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ids_in_flight, setup, teardown),
                cmocka_unit_test_setup_teardown(test_who_waits_is_invited, setup, teardown),
                cmocka_unit_test_setup_teardown(test_adaptors_cost_what_they_take, setup, teardown),
                cmocka_unit_test_setup_teardown(test_small_ones_are_gathered, setup, teardown),
                cmocka_unit_test_setup_teardown(test_tables_clients_and_pooling_mixed, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_a_group_is_retired, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_room_to_complete, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ending_between_rounds, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wakes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wakes_with_epoll, setup, teardown),
        };

        return cmocka_run_group_tests_name("rounds", tests, setup_group, teardown_group);
}

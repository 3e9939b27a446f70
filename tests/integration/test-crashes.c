/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of the daemon, again and again, under clients that look rows up in every way and know
 * nothing of it: each row that they get is compared with the file's own. The number of kills is the
 * first argument.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"
#include "tests/make-table.h"

#define N_CLIENTS  8u
#define N_ROWS     4000u
#define N_DIMS     96u
#define N_IDS_MAX  2500u
#define N_TICKETS  6u
#define TICKET_IDS 300u

#define START_S    60 /* for all clients to get on after a kill */
#define KILLS_FEW  20u

/* What a client process tells the test. */
struct report {
        _Atomic uint64_t n_lookups, n_rows, n_failed, n_wrong;
        _Atomic uint64_t n_reconnects, n_resubmitted, longest_pause_ns;
};

static struct shared {
        _Atomic bool stop;
        struct report reports[N_CLIENTS];
} * shared;

static struct harness h;
static uint32_t n_kills = KILLS_FEW;

static const struct table_header plain = {
        .codec = TABLE_CODEC_CARVQ,
        .n_rows = N_ROWS,
        .n_dims = N_DIMS,
        .n_stages = 3,
        .codebook_bits = 4,
        .subvector_dims = 8,
        .group_cols = 12,
        .group_rows = N_ROWS,
};

/* With an adaptor: the daemon keeps a cache of its rows. */
static const struct table_header adapted = {
        .codec = TABLE_CODEC_CARVQ,
        .n_rows = N_ROWS,
        .n_dims = N_DIMS,
        .n_stages = 3,
        .codebook_bits = 4,
        .subvector_dims = 8,
        .group_cols = 12,
        .group_rows = N_ROWS,
        .latent_dims = 6,
        .hidden_dims = { 16 },
        .adaptor_type = TABLE_ADAPTOR_HALF,
        .latent_bits = 16,
};

static int setup(void **state) {
        (void)state;
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_true(shared != MAP_FAILED);
        harness_init(&h);
        make_table_file(harness_path(&h, "plain"), &plain, 1);
        make_table_file(harness_path(&h, "adapted"), &adapted, 2);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        harness_deinit(&h);
        munmap(shared, sizeof(*shared));
        return 0;
}

/* ---- A client process ---- */

struct client {
        struct report *report;
        carvq_client *client;
        carvq_table *tables[4], *files[4]; /* served, and the same from the file */
        uint64_t random;
};

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static void failed(struct client *c, const char *what, int r, const char *why) {
        c->report->n_failed++;
        fprintf(stderr, "# %s: %s: %s\n", what, carvq_strerror(r), why);
}

static bool open_tables(struct client *c) {
        const struct carvq_table_options uncached = { .size = sizeof(uncached), .no_cache = 1 },
                                         direct = { .size = sizeof(direct),
                                                    .mode = CARVQ_MODE_DIRECT };
        const struct {
                const char *name;
                const struct carvq_table_options *options;
        } kinds[] = { { "plain", NULL },
                      { "adapted", NULL },
                      { "adapted", &uncached },
                      { "plain", &direct } };

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (carvq_table_open_with(c->client, kinds[i].name, kinds[i].options,
                                          &c->tables[i]) < 0 ||
                    carvq_file_open(harness_path(&h, kinds[i].name), NULL, &c->files[i], NULL) < 0)
                        return false;
        return true;
}

/* A few favourites, which get into the cache, and others. */
static void choose_ids(struct client *c, uint64_t *ids, size_t n) {
        for (size_t i = 0; i < n; i++)
                ids[i] = next_random(&c->random) % (next_random(&c->random) % 2 ? 50 : N_ROWS);
}

static void verify(struct client *c, const void *rows, const void *expected, size_t bytes,
                   size_t n_rows) {
        c->report->n_lookups++;
        c->report->n_rows += n_rows;
        if (memcmp(rows, expected, bytes) == 0)
                return;
        c->report->n_wrong++;
        fprintf(stderr, "# wrong rows\n");
}

static void look_up(struct client *c) {
        static float rows[N_IDS_MAX * N_DIMS], expected[N_IDS_MAX * N_DIMS];
        static uint64_t ids[N_IDS_MAX];
        const size_t maxima[] = { 1, 10, 200, N_IDS_MAX };
        size_t n_ids = 1 + next_random(&c->random) % maxima[next_random(&c->random) % 4],
               t = next_random(&c->random) % ARRAY_SIZE(c->tables);
        uint64_t bags[] = { 0, n_ids / 3, n_ids / 2, n_ids / 2 };
        struct carvq_lookup_options o = { .size = sizeof(o),
                                          .type = (uint32_t)(next_random(&c->random) % 3),
                                          .pooling = (uint32_t)(next_random(&c->random) % 3),
                                          .scale = 2 };
        size_t value_bytes = o.type == CARVQ_F32 ? 4 : 2, n_rows = n_ids, bytes;
        int r;

        if (o.pooling) {
                o.bag_offsets = bags;
                o.n_bags = n_rows = ARRAY_SIZE(bags);
        }
        bytes = n_rows * N_DIMS * value_bytes;
        choose_ids(c, ids, n_ids);
        r = carvq_lookup(c->tables[t], ids, n_ids, &o, rows, sizeof(rows));
        if (r < 0) {
                failed(c, "carvq_lookup", r, carvq_client_error(c->client));
                return;
        }
        r = carvq_lookup(c->files[t], ids, n_ids, &o, expected, sizeof(expected));
        if (r < 0)
                failed(c, "the file", r, carvq_table_error(c->files[t]));
        verify(c, rows, expected, bytes, n_rows);
}

struct flight {
        carvq_ticket ticket;
        size_t n_ids, table;
        uint64_t ids[TICKET_IDS];
};

static void finish(struct client *c, const struct flight *f) {
        static float expected[TICKET_IDS * N_DIMS];
        const struct carvq_lookup_options o = { .size = sizeof(o),
                                                .row_stride_bytes = N_DIMS * sizeof(float) };
        struct carvq_rows rows;
        int r = 0;

        if (next_random(&c->random) % 2)
                for (int i = 0; i < 100 && r == 0; i++)
                        r = carvq_poll(c->client, f->ticket, &rows);
        if (r == 0)
                r = carvq_wait(c->client, f->ticket, 0, &rows);
        if (r < 0) {
                failed(c, "a ticket", r, carvq_client_error(c->client));
                return;
        }
        carvq_lookup(c->files[f->table], f->ids, f->n_ids, &o, expected, sizeof(expected));
        verify(c, rows.rows, expected, f->n_ids * N_DIMS * sizeof(float), f->n_ids);
        carvq_release(c->client, f->ticket);
}

static void fly(struct client *c) {
        static struct flight flights[N_TICKETS];
        size_t n = 1 + next_random(&c->random) % N_TICKETS;

        for (size_t i = 0; i < n; i++) {
                struct flight *f = &flights[i];
                int r;

                f->table = next_random(&c->random) % 3; /* not the direct one */
                f->n_ids = 1 + next_random(&c->random) % TICKET_IDS;
                choose_ids(c, f->ids, f->n_ids);
                r = carvq_submit(c->tables[f->table], f->ids, f->n_ids, NULL, &f->ticket);
                if (r < 0) {
                        failed(c, "carvq_submit", r, carvq_client_error(c->client));
                        return;
                }
        }
        if (next_random(&c->random) % 4 == 0)
                carvq_release(c->client, flights[--n].ticket); /* nobody waits for it */
        for (size_t i = n; i-- > 0;)
                finish(c, &flights[i]);
}

static int run_client(uint32_t index) {
        struct client c = { .report = &shared->reports[index],
                            .random = 88172645463325252u + index };
        struct carvq_client_stats stats = { .size = sizeof(stats) };

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        c.client = harness_connect(&h);
        if (!c.client || !open_tables(&c))
                return 1;
        while (!shared->stop) {
                if (next_random(&c.random) % 2)
                        look_up(&c);
                else
                        fly(&c);
                carvq_client_stats(c.client, &stats);
                c.report->n_reconnects = stats.n_reconnects;
                c.report->n_resubmitted = stats.n_resubmitted;
                c.report->longest_pause_ns = stats.longest_pause_ns;
        }
        for (size_t i = 0; i < ARRAY_SIZE(c.files); i++)
                carvq_table_close(c.files[i]);
        carvq_client_free(c.client);
        return 0;
}

/* ---- The test ---- */

static void start(void) {
        char a[200], b[200];

        snprintf(a, sizeof(a), "plain=%s", harness_path(&h, "plain"));
        snprintf(b, sizeof(b), "adapted=%s", harness_path(&h, "adapted"));
        harness_start(&h, (const char *[]){ "--table", a, "--table", b, NULL });
}

static uint64_t sum(size_t offset) {
        uint64_t all = 0;

        for (uint32_t i = 0; i < N_CLIENTS; i++)
                all += *(_Atomic uint64_t *)((uint8_t *)&shared->reports[i] + offset);
        return all;
}

#define SUM(field) sum(offsetof(struct report, field))

static uint64_t fewest_reconnects(void) {
        uint64_t fewest = UINT64_MAX;

        for (uint32_t i = 0; i < N_CLIENTS; i++)
                fewest = MIN(fewest, shared->reports[i].n_reconnects);
        return fewest;
}

/* Until every client is back, and some more lookups have been made. */
static void wait_for_clients(uint32_t n_reconnects, uint64_t n_more) {
        const time_t end = time(NULL) + START_S;
        uint64_t n_lookups = UINT64_MAX;

        while (n_lookups == UINT64_MAX || SUM(n_lookups) < n_lookups + n_more) {
                if (n_lookups == UINT64_MAX && fewest_reconnects() >= n_reconnects)
                        n_lookups = SUM(n_lookups);
                if (time(NULL) > end)
                        fail_msg("a client is not back: %" PRIu64 " reconnects, expected %" PRIu32,
                                 fewest_reconnects(), n_reconnects);
                nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        }
}

static void test_kills(void **state) {
        uint64_t random = 4101842887655102017u, longest_ns = 0;
        pid_t pids[N_CLIENTS];

        (void)state;
        print_message("# seed %" PRIu64 "\n", random);
        start();
        for (uint32_t i = 0; i < N_CLIENTS; i++) {
                pids[i] = fork();
                if (pids[i] == 0)
                        _exit(run_client(i));
        }
        for (uint32_t n = 0; n < n_kills; n++) {
                wait_for_clients(n, next_random(&random) % 50);
                kill(h.pid, SIGKILL);
                waitpid(h.pid, NULL, 0);
                h.pid = 0;
                start();
        }
        wait_for_clients(n_kills, 10);
        shared->stop = true;
        for (uint32_t i = 0; i < N_CLIENTS; i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
                longest_ns = MAX(longest_ns, shared->reports[i].longest_pause_ns);
        }
        print_message("# %" PRIu32 " kills, %" PRIu64 " reconnects; %" PRIu64 " lookups, of which "
                      "%" PRIu64 " were asked for again; %" PRIu64 " rows\n",
                      n_kills, SUM(n_reconnects), SUM(n_lookups), SUM(n_resubmitted), SUM(n_rows));
        print_message("# wrong: %" PRIu64 "; failed: %" PRIu64 "; longest pause: %.1f ms, with the "
                      "daemon's start\n",
                      SUM(n_wrong), SUM(n_failed), (double)longest_ns / 1e6);
        assert_int_equal(SUM(n_wrong), 0);
        assert_int_equal(SUM(n_failed), 0);
        assert_true(SUM(n_resubmitted) > 0);
        assert_int_equal(harness_stop(&h), 0);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_kills) };

        if (argc > 1)
                n_kills = (uint32_t)strtoul(argv[1], NULL, 10);
        return cmocka_run_group_tests_name("crashes", tests, setup, teardown);
}

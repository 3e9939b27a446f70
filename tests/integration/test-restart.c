/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One carvqd after another, and the same clients: the test is their service manager. Lookups go on
 * across restarts, each row compared with what this process decodes; and whatever is wrong with
 * what is handed over ends those sessions that it is wrong with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "lib/carvq.h"
#include "proto/spin.h"
#include "raw-client.h"
#include "tests/make-table.h"
#include "tools/bench/bench.h"
#include "tools/bench/fake-manager.h"

#define N_CLIENTS  8
#define N_RESTARTS 20
#define IDS_MAX    4096
#define DIMS_MAX   640
#define IN_FLIGHT  4
#define USER       54321
#define SEED       UINT64_C(20260711)

static struct fake_manager manager;
static char folder[64];

/* ---- A daemon ---- */

/* "FOLDER/NAME", in a static buffer of which there are 8. */
static const char *path_of(const char *name) {
        static char paths[8][128];
        static unsigned turn;
        char *path = paths[turn++ % ARRAY_SIZE(paths)];

        snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
        return path;
}

/* `text` with "@" for the folder. */
static void configure(const char *text) {
        FILE *f = fopen(path_of("conf"), "we");

        assert_non_null(f);
        for (; *text; text++)
                if (*text == '@')
                        fputs(folder, f);
                else
                        fputc(*text, f);
        fclose(f);
}

static const char *const *arguments(void) {
        static const char *argv[6];

        argv[0] = getenv("CARVQD");
        argv[1] = "--config";
        argv[2] = path_of("conf");
        argv[3] = "--tables-dir";
        argv[4] = path_of("tables");
        return argv;
}

static void start(void) {
        fake_manager_start(&manager, arguments());
        /* The store is empty, so that nobody but the daemon holds the clients' sockets. */
        fake_manager_listen(&manager, 0);
        assert_int_equal(manager.n_stored, 0);
}

static void stop(void) {
        assert_int_equal(fake_manager_stop(&manager, SIGTERM), 0);
}

static void restart(void) {
        stop();
        start();
}

static bool logged(const char *text) {
        FILE *f = fopen(manager.log_path, "re");
        char line[1024];
        bool found = false;

        while (f && fgets(line, sizeof(line), f))
                found = found || strstr(line, text);
        rewind(f);
        while (!found && fgets(line, sizeof(line), f))
                print_message("# carvqd: %s", line);
        fclose(f);
        return found;
}

static void make(const char *name, const struct table_header *header, uint64_t seed) {
        make_table_file(path_of("new"), header, seed);
        assert_int_equal(rename(path_of("new"), path_of(name)), 0);
}

static void make_small(const char *name, uint64_t seed) {
        make(name, &(struct table_header){ .codec = TABLE_CODEC_F32, .n_rows = 100, .n_dims = 8 },
             seed);
}

static int setup(void **state) {
        static const struct table_header wide = {
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = 3000,
                .n_dims = DIMS_MAX,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = 3000,
                .row_scale = 1,
        };

        (void)state;
        strcpy(folder, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(folder));
        assert_int_equal(chmod(folder, 0711), 0);
        assert_int_equal(mkdir(path_of("tables"), 0755), 0);
        fake_manager_init(&manager, folder);
        assert_int_equal(chmod(manager.data_path, 0666), 0);
        make("tables/wide.carvq", &wide, SEED);
        make_small("tables/small.carvq", 1);
        configure("");
        start();
        return 0;
}

static int teardown(void **state) {
        char command[96];
        int status = manager.pid ? fake_manager_stop(&manager, SIGINT) : 0;

        (void)state;
        fake_manager_deinit(&manager);
        snprintf(command, sizeof(command), "rm -rf %s", folder);
        return system(command) || status;
}

/* ---- Clients ---- */

static carvq_client *connect_client(void) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = manager.data_path,
                                           .arena_bytes = 48 << 20,
                                           /* It would hide a connection that was lost. */
                                           .no_reconnect = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client = NULL;

        if (carvq_connect(&o, &client, message) < 0)
                fprintf(stderr, "# carvq_connect: %s\n", message);
        return client;
}

static carvq_table *open_file(const char *name) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table = NULL;

        if (carvq_file_open(path_of(name), NULL, &table, message) < 0)
                fprintf(stderr, "# carvq_file_open: %s\n", message);
        return table;
}

struct small_client {
        carvq_client *client;
        carvq_table *table, *file; /* the daemon's and our own */
};

static struct small_client open_small(void) {
        struct small_client c = { .client = connect_client() };

        assert_non_null(c.client);
        assert_int_equal(carvq_table_open(c.client, "small", &c.table), 0);
        c.file = open_file("tables/small.carvq");
        assert_non_null(c.file);
        return c;
}

static void close_small(struct small_client *c) {
        carvq_client_free(c->client);
        carvq_table_close(c->file);
}

/* What a lookup comes to; rows must be right. */
static int look_up(struct small_client *c) {
        const uint64_t ids[] = { 99, 0, 7 };
        float rows[3 * 8], expected[3 * 8];
        int r = carvq_lookup(c->table, ids, 3, NULL, rows, sizeof(rows));

        if (r < 0)
                return r;
        assert_int_equal(carvq_lookup(c->file, ids, 3, NULL, expected, sizeof(expected)), 0);
        assert_memory_equal(rows, expected, sizeof(rows));
        return 0;
}

static void expect_end(struct small_client *c, const char *words) {
        assert_int_equal(look_up(c), -ECONNRESET);
        if (!strstr(carvq_client_error(c->client), words))
                fail_msg("%s", carvq_client_error(c->client));
        close_small(c);
}

/* ---- Load ---- */

/* In memory that the clients' processes share with this one. */
struct report {
        _Atomic bool stop;
        struct {
                _Atomic uint64_t n_lookups, longest_ns;
                _Atomic bool failed;
        } clients[N_CLIENTS];
};

static struct report *report;

struct flight {
        carvq_ticket ticket;
        carvq_table *table, *file;
        uint64_t n_ids, start_ns;
        uint64_t ids[IDS_MAX];
};

/* 0, or -1 after saying why. */
static int take_off(struct flight *f, uint64_t *seed) {
        struct carvq_table_info info = { .size = sizeof(info) };
        int r;

        carvq_table_info(f->table, &info);
        /* From one row to many times what a round takes. */
        f->n_ids = random_next(seed) % 8 ? 1 + random_next(seed) % 32
                                         : 1 + random_next(seed) % IDS_MAX;
        for (uint64_t i = 0; i < f->n_ids; i++)
                f->ids[i] = random_next(seed) % info.n_rows;
        f->start_ns = clock_ns();
        r = carvq_submit(f->table, f->ids, f->n_ids, NULL, &f->ticket);
        if (r < 0)
                fprintf(stderr, "# carvq_submit: %s: %s\n", carvq_strerror(r),
                        carvq_table_error(f->table));
        return r < 0 ? -1 : 0;
}

static int land(carvq_client *client, struct flight *f, size_t k) {
        static float expected[IDS_MAX * DIMS_MAX];
        struct carvq_rows rows;
        int r = carvq_wait(client, f->ticket, 0, &rows);
        uint64_t ns = clock_ns() - f->start_ns;

        if (r < 0) {
                fprintf(stderr, "# carvq_wait: %s: %s\n", carvq_strerror(r),
                        carvq_client_error(client));
                return -1;
        }
        if (ns > report->clients[k].longest_ns)
                report->clients[k].longest_ns = ns;
        r = carvq_lookup(f->file, f->ids, f->n_ids, NULL, expected, sizeof(expected));
        for (uint64_t i = 0; i < f->n_ids && r >= 0; i++)
                if (memcmp((const uint8_t *)rows.rows + i * rows.row_stride_bytes,
                           expected + i * rows.n_cols, rows.n_cols * sizeof(float)) != 0)
                        r = -1;
        if (r < 0 || rows.n_rows != f->n_ids) {
                fprintf(stderr, "# wrong rows\n");
                return -1;
        }
        carvq_release(client, f->ticket);
        report->clients[k].n_lookups++;
        return 0;
}

/* Messages cross restarts, too. */
static int open_another(carvq_client *client) {
        carvq_table *table;
        int r = carvq_table_open(client, "small", &table);

        if (r < 0)
                fprintf(stderr, "# carvq_table_open: %s\n", carvq_client_error(client));
        else
                carvq_table_close(table);
        return r;
}

static int run_client(size_t k) {
        static struct flight flights[IN_FLIGHT];
        carvq_client *client = connect_client();
        carvq_table *tables[2],
                *files[2] = { open_file("tables/wide.carvq"), open_file("tables/small.carvq") };
        uint64_t seed = SEED + k;
        int r = 0;

        if (!client || carvq_table_open(client, "wide", &tables[0]) < 0 ||
            carvq_table_open(client, "small", &tables[1]) < 0)
                return -1;
        for (size_t i = 0; i < IN_FLIGHT && r >= 0; i++) {
                flights[i].table = tables[i % 2];
                flights[i].file = files[i % 2];
                r = take_off(&flights[i], &seed);
        }
        for (uint64_t n = 0; !report->stop && r >= 0; n++) {
                struct flight *f = &flights[n % IN_FLIGHT];

                r = land(client, f, k);
                if (r >= 0)
                        r = take_off(f, &seed);
                if (r >= 0 && n % 64 == 63)
                        r = open_another(client);
        }
        carvq_client_free(client);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                carvq_table_close(files[i]);
        return r;
}

static uint64_t total(void) {
        uint64_t n = 0;

        for (size_t k = 0; k < N_CLIENTS; k++)
                n += report->clients[k].n_lookups;
        return n;
}

/* Until each client has made some progress since now. */
static void wait_for_progress(void) {
        uint64_t before[N_CLIENTS];

        for (size_t k = 0; k < N_CLIENTS; k++)
                before[k] = report->clients[k].n_lookups;
        for (size_t k = 0; k < N_CLIENTS; k++)
                while (report->clients[k].n_lookups < before[k] + 2 && !report->clients[k].failed)
                        sched_yield();
}

static void test_lookups_go_on(void **state) {
        pid_t children[N_CLIENTS];
        uint64_t longest_ns = 0;

        (void)state;
        print_message("# seed %" PRIu64 "\n", SEED);
        report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_true(report != MAP_FAILED);
        for (size_t k = 0; k < N_CLIENTS; k++) {
                children[k] = fork();
                assert_true(children[k] >= 0);
                if (children[k] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        report->clients[k].failed = run_client(k) < 0;
                        _exit(report->clients[k].failed);
                }
        }
        wait_for_progress();
        for (int i = 0; i < N_RESTARTS; i++) {
                restart();
                wait_for_progress();
        }
        report->stop = true;
        for (size_t k = 0; k < N_CLIENTS; k++) {
                int status;

                waitpid(children[k], &status, 0);
                assert_int_equal(status, 0);
                longest_ns = MAX(longest_ns, report->clients[k].longest_ns);
        }
        print_message("# %d restarts, %" PRIu64 " lookups by %d clients, the longest took %.1f "
                      "ms\n",
                      N_RESTARTS, total(), N_CLIENTS, (double)longest_ns / 1e6);
        assert_true(logged("took over 8 clients of the former daemon; 0 could not go on"));
        munmap(report, sizeof(*report));
}

/* ---- What waits while there is no daemon ---- */

static void test_submissions_wait(void **state) {
        struct small_client c = open_small();
        carvq_ticket tickets[16];
        struct carvq_rows rows;
        uint64_t id = 3;

        (void)state;
        assert_int_equal(look_up(&c), 0);
        stop();
        for (size_t i = 0; i < ARRAY_SIZE(tickets); i++)
                assert_int_equal(carvq_submit(c.table, &id, 1, NULL, &tickets[i]), 0);
        start();
        for (size_t i = 0; i < ARRAY_SIZE(tickets); i++)
                assert_int_equal(carvq_wait(c.client, tickets[i], 0, &rows), 0);
        close_small(&c);
}

/* With PIECES, of more rows than a round takes: the old daemon ends what it began, each row is told
 * of once, and the epoch in the ring becomes another. */
static void test_pieces_come_once(void **state) {
        struct ring_submission s = { .n_ids = 512, .scale = 1, .flags = RING_SUBMISSION_PIECES };
        struct wire_table table;
        struct raw_client c;
        uint64_t epoch;

        (void)state;
        raw_handshake(&c, manager.data_path, 0);
        s.table = raw_open_table(&c, "small", &table);
        s.row_stride_bytes = table.n_dims * sizeof(float);
        epoch = c.header->epoch;
        for (uint64_t i = 0; i < 4; i++) {
                s.user_data = i;
                raw_submit(&c, &s);
        }
        restart();
        for (uint64_t i = 0; i < 4; i++) {
                uint32_t n_rows = 0;
                struct ring_completion done;

                do {
                        done = raw_complete(&c);
                        assert_int_equal(done.user_data, i);
                        assert_int_equal(done.status, RING_STATUS_OK);
                        assert_int_equal(done.row_first, n_rows);
                        n_rows += done.n_rows;
                } while (done.flags & RING_COMPLETION_MORE);
                assert_int_equal(n_rows, s.n_ids);
        }
        assert_int_not_equal(c.header->epoch, epoch);
        raw_close(&c);
}

/* At some moment of its start, or after it: whatever it had of the clients goes to the next one. */
static void test_stopped_while_starting(void **state) {
        struct small_client c = open_small();

        (void)state;
        stop();
        for (uint64_t i = 0; i < 24; i++) {
                uint64_t until_ns = clock_ns() + i * 1000000;

                fake_manager_spawn(&manager, arguments());
                while (clock_ns() < until_ns)
                        fake_manager_listen(&manager, 0);
                fake_manager_stop(&manager, SIGTERM);
        }
        start();
        assert_int_equal(look_up(&c), 0);
        close_small(&c);
}

static void test_client_dies_meanwhile(void **state) {
        struct small_client c = open_small(), d = open_small();

        (void)state;
        stop();
        close_small(&d);
        start();
        assert_int_equal(look_up(&c), 0);
        close_small(&c);
        assert_true(logged("took over 2 clients"));
}

/* A daemon that is killed afterwards takes the connection with it: nobody else has it. */
static void test_death_is_seen(void **state) {
        struct small_client c = open_small();

        (void)state;
        restart();
        assert_int_equal(look_up(&c), 0);
        assert_int_equal(fake_manager_stop(&manager, SIGKILL), -1);
        expect_end(&c, "");
        start();
}

/* At the end of the service the manager drops what it has, and whoever sleeps wakes up. */
static void test_real_stop(void **state) {
        struct small_client c = open_small();
        struct pollfd p = { .fd = carvq_client_fd(c.client), .events = POLLIN };

        (void)state;
        stop();
        assert_int_not_equal(manager.n_stored, 0);
        assert_int_equal(poll(&p, 1, 0), 0);
        fake_manager_drop(&manager);
        assert_int_equal(poll(&p, 1, 0), 1);
        expect_end(&c, "");
        start();
}

/* Nor does a daemon keep its clients waiting that talks to somebody who does not listen. */
static void test_deaf_manager(void **state) {
        struct small_client c = open_small();
        int status;

        (void)state;
        kill(manager.pid, SIGTERM);
        assert_int_equal(waitpid(manager.pid, &status, 0), manager.pid);
        manager.pid = 0;
        assert_int_equal(status, 0);
        expect_end(&c, "carvqd is stopping");
        assert_true(logged("clients are not handed over to the next daemon"));
        fake_manager_listen(&manager, 0);
        start();
}

/* ---- Tables ---- */

static uint64_t generation_of(carvq_table *table) {
        struct carvq_table_info info = { .size = sizeof(info) };

        assert_int_equal(carvq_table_info(table, &info), 0);
        return info.generation;
}

static void test_same_file_same_generation(void **state) {
        struct small_client c = open_small(), d;

        (void)state;
        restart();
        d = open_small();
        assert_int_equal(generation_of(d.table), generation_of(c.table));
        assert_int_equal(look_up(&c), 0);
        close_small(&c);
        close_small(&d);
}

/* Two generations, one of which has no name any more, through two restarts. */
static void test_another_file(void **state) {
        struct small_client c = open_small(), d;

        (void)state;
        stop();
        make_small("tables/small.carvq", 2);
        start();
        assert_int_equal(look_up(&c), 0);
        d = open_small();
        assert_true(generation_of(d.table) > generation_of(c.table));
        assert_int_equal(look_up(&d), 0);
        restart();
        assert_int_equal(look_up(&c), 0);
        assert_int_equal(look_up(&d), 0);
        close_small(&c);
        close_small(&d);
}

static void test_damaged_file(void **state) {
        struct small_client c = open_small(), d = { 0 };

        (void)state;
        stop();
        assert_int_equal(truncate(path_of("conf"), 0), 0);
        assert_int_equal(rename(path_of("conf"), path_of("tables/small.carvq")), 0);
        configure("");
        start();
        assert_int_equal(look_up(&c), 0);
        d.client = connect_client();
        assert_int_equal(carvq_table_open(d.client, "small", &d.table), 0); /* the older one */
        assert_int_equal(generation_of(d.table), generation_of(c.table));
        carvq_client_free(d.client);
        close_small(&c);
}

static void test_file_gone(void **state) {
        struct small_client c = open_small();
        carvq_client *client;
        carvq_table *table;

        (void)state;
        stop();
        assert_int_equal(unlink(path_of("tables/small.carvq")), 0);
        start();
        assert_int_equal(look_up(&c), 0);
        client = connect_client();
        assert_int_equal(carvq_table_open(client, "small", &table), -ENOENT);
        carvq_client_free(client);
        close_small(&c);
}

/* Written to between the two daemons, so that it is another one under the same descriptor. */
static void test_file_written_to(void **state) {
        struct small_client c = open_small(), d;
        const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };

        (void)state;
        stop();
        assert_int_equal(utimensat(AT_FDCWD, path_of("tables/small.carvq"), times, 0), 0);
        start();
        expect_end(&c, "a table of this session cannot be read after the restart");
        assert_true(logged("was written to during the restart"));
        d = open_small();
        assert_int_equal(look_up(&d), 0);
        close_small(&d);
}

/* Of a client that is thrown out, while the others wait for the next daemon. */
static void test_descriptor_that_does_not_close(void **state) {
        struct small_client c = open_small();
        uint8_t message[WIRE_MESSAGE_BYTES];
        struct raw_client raw;
        int fd, other;

        (void)state;
        raw_greet(&raw, manager.data_path);
        raw_make_lingering(&fd, &other);
        kill(manager.pid, SIGSTOP); /* the last reference is to be its */
        raw_send(&raw, "y", 1, &fd, 1);
        close(fd);
        kill(manager.pid, SIGCONT);
        assert_int_equal(raw_receive(&raw, message), WIRE_ERROR);
        restart();
        assert_int_equal(look_up(&c), 0);
        assert_true(logged("not waiting for 1 client"));
        raw_close(&raw);
        close(other);
        close_small(&c);
}

static void test_loaded_by_hand(void **state) {
        carvq_client *client;
        carvq_table *table;
        char command[512];

        (void)state;
        make_small("by-hand.carvq", 3);
        snprintf(command, sizeof(command), "%s --control %s load by-hand %s >/dev/null",
                 getenv("CARVQCTL"), manager.control_path, path_of("by-hand.carvq"));
        assert_int_equal(system(command), 0);
        restart();
        client = connect_client();
        assert_int_equal(carvq_table_open(client, "by-hand", &table), 0);
        carvq_client_free(client);
}

/* ---- Limits and access, which are the new daemon's ---- */

static void test_fewer_sessions(void **state) {
        struct small_client c = open_small(), d = open_small();

        (void)state;
        stop();
        configure("[carvqd]\nmax-sessions = 1\n");
        start();
        assert_int_equal(look_up(&c), 0);
        expect_end(&d, "1 sessions are open already (max-sessions)");
        close_small(&c);
        assert_true(logged("took over 1 client of the former daemon; 1 could not go on"));
}

static void test_smaller_rings(void **state) {
        struct small_client c = open_small();

        (void)state;
        stop();
        configure("[carvqd]\nmax-ring-bytes = 1M\n");
        start();
        expect_end(&c, "(max-ring-bytes)");
}

static int become_and_look_up(int from, int to) {
        struct small_client c;
        char byte = 0;

        if (setgroups(0, NULL) < 0 || setgid(USER) < 0 || setuid(USER) < 0)
                return 1;
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* which setuid() has cleared */
        c = open_small();
        if (look_up(&c) < 0 || write(to, &byte, 1) != 1 || read(from, &byte, 1) != 1)
                return 2;
        if (look_up(&c) != -ECONNRESET ||
            !strstr(carvq_client_error(c.client), "table small is for group"))
                return 3;
        return 0;
}

static void test_access_withdrawn(void **state) {
        struct small_client c = open_small(); /* as root */
        int to[2], from[2], status;
        char byte;
        pid_t child;

        (void)state;
        assert_int_equal(pipe2(to, O_CLOEXEC), 0);
        assert_int_equal(pipe2(from, O_CLOEXEC), 0);
        child = fork();
        if (child == 0)
                _exit(become_and_look_up(to[0], from[1]));
        assert_int_equal(read(from[0], &byte, 1), 1);
        stop();
        configure("[table small]\ngroup = 4242\n");
        start();
        assert_int_equal(write(to[1], &byte, 1), 1);
        waitpid(child, &status, 0);
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(look_up(&c), 0);
        close_small(&c);
        for (int i = 0; i < 2; i++) {
                close(to[i]);
                close(from[i]);
        }
}

/* ---- What is wrong with the store ---- */

static int *stored(const char *name) {
        for (uint32_t i = 0; i < manager.n_stored; i++)
                if (!strcmp(manager.stored[i].name, name))
                        return &manager.stored[i].fd;
        fail_msg("no %s in the store", name);
        return NULL;
}

static int memfd_of(const void *bytes, size_t n, int seals) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(write(fd, bytes, n), (ssize_t)n);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
        return fd;
}

/* Replaces the state by one that differs: cut, changed or not sealed. */
static void spoil_state(size_t n_cut, size_t changed_byte, int seals) {
        static uint8_t bytes[1 << 16];
        int *fd = stored("state-0");
        ssize_t n = pread(*fd, bytes, sizeof(bytes), 0);

        assert_true(n > 64 && (size_t)n < sizeof(bytes));
        if (changed_byte)
                bytes[changed_byte] ^= 1;
        close(*fd);
        *fd = memfd_of(bytes, (size_t)n - n_cut, seals);
}

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static void refuse_state(size_t n_cut, size_t changed_byte, int seals, const char *words) {
        struct small_client c = open_small(), d;

        stop();
        spoil_state(n_cut, changed_byte, seals);
        start();
        expect_end(&c, "");
        assert_true(logged(words));
        d = open_small();
        assert_int_equal(look_up(&d), 0);
        close_small(&d);
}

static void test_bad_state(void **state) {
        (void)state;
        refuse_state(0, 100, SEALS, "are not taken over: its checksum is wrong");
        refuse_state(16, 0, SEALS, "bytes, says");
        refuse_state(0, 8, SEALS, "its version is 0, expected 1");
        refuse_state(0, 0, F_SEAL_SHRINK, "its state is not sealed memory");
}

static void drop(const char *name, bool (*matches)(int fd)) {
        for (uint32_t i = 0; i < manager.n_stored; i++)
                if (!strcmp(manager.stored[i].name, name) &&
                    (!matches || matches(manager.stored[i].fd))) {
                        close(manager.stored[i].fd);
                        manager.stored[i] = manager.stored[--manager.n_stored];
                        return;
                }
        fail_msg("no such %s in the store", name);
}

static bool is_socket(int fd) {
        struct stat st;

        return fstat(fd, &st) >= 0 && S_ISSOCK(st.st_mode);
}

static bool is_memory(int fd) {
        return fcntl(fd, F_GET_SEALS) >= 0;
}

static bool is_doorbell(int fd) {
        return !is_socket(fd) && !is_memory(fd);
}

static void test_missing_descriptor(void **state) {
        bool (*const kinds[])(int) = { is_socket, is_memory, is_doorbell };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                struct small_client c = open_small(), d = open_small();

                stop();
                drop("session-0", kinds[i]);
                start();
                expect_end(&c, "");
                assert_int_equal(look_up(&d), 0);
                close_small(&d);
                assert_true(logged("took over 1 client of the former daemon; 1 could not go on"));
        }
}

static void test_missing_table(void **state) {
        struct small_client c = open_small();

        (void)state;
        stop();
        drop("table-0", NULL);
        start();
        expect_end(&c, "a table of this session cannot be read after the restart");
}

static void test_missing_state(void **state) {
        struct small_client c = open_small();

        (void)state;
        stop();
        drop("state-0", NULL);
        start();
        expect_end(&c, "");
        assert_true(logged("0 states were passed, expected 1"));
}

/* Memory that the client could cut, and something else in place of the doorbell. */
static void test_wrong_descriptor(void **state) {
        bool (*const kinds[])(int) = { is_memory, is_doorbell };
        const char *const words[] = { "seals are 0x2", "came without its rings" };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                struct small_client c = open_small();
                int pipe_fds[2];

                stop();
                drop("session-0", kinds[i]);
                assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
                close(pipe_fds[1]);
                strcpy(manager.stored[manager.n_stored].name, "session-0");
                manager.stored[manager.n_stored++].fd =
                        i == 0 ? memfd_of("x", 1, F_SEAL_SHRINK) : pipe_fds[0];
                start();
                expect_end(&c, words[i]);
                if (i == 0)
                        close(pipe_fds[0]);
        }
}

/* Room for the state, one table and one session: who is left out hears of the end. */
static void test_small_store(void **state) {
        struct small_client c = open_small(), d = open_small();

        (void)state;
        manager.store_max = 6;
        restart();
        manager.store_max = FAKE_STORE_MAX;
        assert_int_equal(look_up(&c), 0);
        expect_end(&d, "");
        close_small(&c);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_lookups_go_on),
                TEST(test_submissions_wait),
                TEST(test_pieces_come_once),
                TEST(test_stopped_while_starting),
                TEST(test_client_dies_meanwhile),
                TEST(test_death_is_seen),
                TEST(test_real_stop),
                TEST(test_deaf_manager),
                TEST(test_same_file_same_generation),
                TEST(test_another_file),
                TEST(test_damaged_file),
                TEST(test_file_gone),
                TEST(test_file_written_to),
                TEST(test_descriptor_that_does_not_close),
                TEST(test_loaded_by_hand),
                TEST(test_fewer_sessions),
                TEST(test_smaller_rings),
                TEST(test_access_withdrawn),
                TEST(test_bad_state),
                TEST(test_missing_descriptor),
                TEST(test_missing_table),
                TEST(test_missing_state),
                TEST(test_wrong_descriptor),
                TEST(test_small_store),
        };

        signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests_name("restart", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqd with the Nth call of each kind failing, N = 1, 2, 3 ... until none is left to fail: while
 * it starts, while a client comes, looks up and goes, and while the control interface answers.
 * Whatever fails, the daemon says so and ends, or goes on; whoever is there or comes next is served
 * right; and nothing is left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "inject.h"
#include "tests/integration/harness.h"
#include "tests/make-table.h"

/* A hang is a failure, on however busy a machine. */
#define TIMEOUT_NS UINT64_C(20000000000)

#define N_ROWS     300
#define N_DIMS     64
#define N_IDS      200

/* Every call of a walk may fail once; more than this, and something goes on for ever. */
#define WALK_MAX 2000

static const char *const kind_names[] = { INJECT_NAMES };

static struct harness h;
static struct inject *armed; /* the daemon's */
static float expected[N_IDS * N_DIMS];
static uint64_t ids[N_IDS];
static char spec[200], table_path[160];

static int setup(void **state) {
        static const struct table_header parameters = { .codec = TABLE_CODEC_INT8,
                                                        .n_rows = N_ROWS,
                                                        .n_dims = N_DIMS };
        const char *path;
        carvq_table *table;
        int fd;

        (void)state;
        harness_init(&h);
        path = harness_path(&h, "inject");
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, sizeof(*armed)), 0);
        armed = mmap(NULL, sizeof(*armed), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(armed, MAP_FAILED);
        close(fd);
        setenv("CARVQ_INJECT", path, 1);

        snprintf(table_path, sizeof(table_path), "%s", harness_path(&h, "t.carvq"));
        make_table_file(table_path, &parameters, 1);
        snprintf(spec, sizeof(spec), "t=%s", table_path);
        assert_int_equal(carvq_file_open(table_path, NULL, &table, NULL), 0);
        for (uint64_t i = 0; i < N_IDS; i++)
                ids[i] = (i * 37 + 5) % N_ROWS;
        assert_int_equal(carvq_lookup(table, ids, N_IDS, NULL, expected, sizeof(expected)), 0);
        carvq_table_close(table);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        harness_deinit(&h);
        munmap(armed, sizeof(*armed));
        return 0;
}

/* ---- What a client does ---- */

static int connect_client(carvq_client **ret_client) {
        const struct carvq_connect_options o = { .size = sizeof(o),
                                                 .socket_path = h.socket_path,
                                                 .arena_bytes = 1 << 20,
                                                 .timeout_ns = TIMEOUT_NS };

        return carvq_connect(&o, ret_client, NULL);
}

/* 0 means that the rows are right. */
static int look_up(carvq_table *table, uint64_t n_ids) {
        static float rows[N_IDS * N_DIMS];
        int r = carvq_lookup(table, ids, n_ids, NULL, rows, sizeof(rows));

        if (r == 0)
                assert_memory_equal(rows, expected, n_ids * N_DIMS * sizeof(float));
        return r;
}

/* Comes, looks rows up in both modes, and goes. The first thing that went wrong; -ENOENT if the
 * table was refused. */
static int visit(void) {
        const struct carvq_table_options direct = { .size = sizeof(direct),
                                                    .mode = CARVQ_MODE_DIRECT };
        carvq_client *client = NULL;
        carvq_table *table;
        int r = connect_client(&client);

        if (r == 0)
                r = carvq_table_open(client, "t", &table);
        for (uint64_t i = 0; i < 4 && r == 0; i++)
                r = look_up(table, i % 2 ? N_IDS : 1);
        if (r == 0)
                carvq_table_close(table);
        if (r == 0)
                r = carvq_table_open_with(client, "t", &direct, &table);
        if (r == 0)
                r = look_up(table, N_IDS);
        carvq_client_free(client);
        return r;
}

/* One call on a connection of its own; false if it ended without an answer. One that comes is
 * whole. */
static bool call(const char *request, char *ret_answer, size_t size) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        size_t n = 0;
        ssize_t got = 1;
        json_t *reply;

        strcpy(a.sun_path, h.control_path);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        if (send(fd, request, strlen(request) + 1, MSG_NOSIGNAL) < 0)
                got = -1;
        while (got > 0 && (!n || ret_answer[n - 1] != '\0')) {
                got = recv(fd, ret_answer + n, size - n, 0);
                n += (size_t)MAX(got, 0);
        }
        close(fd);
        if (!n || ret_answer[n - 1] != '\0')
                return false;
        reply = json_loads(ret_answer, JSON_REJECT_DUPLICATES, NULL);
        if (!reply)
                fail_msg("an answer that is not JSON: %s", ret_answer);
        json_decref(reply);
        return true;
}

#define METHOD(name, parameters)                                                                   \
        "{\"method\":\"io.carvq.Control." name "\",\"parameters\":{" parameters "}}"

/* Everything that a daemon may be asked; the first one after it was told to load u. */
static const char *const requests[] = {
        METHOD("UnloadTable", "\"name\":\"u\""),
        METHOD("GetStats", ""),
        METHOD("ListClients", ""),
        METHOD("ListTables", ""),
        METHOD("Reload", ""),
        METHOD("GetStatus", ""),
};

static char answer[1 << 16];

static void load(void) {
        char request[400];

        snprintf(request, sizeof(request), METHOD("LoadTable", "\"name\":\"u\",\"path\":\"%s\""),
                 table_path);
        call(request, answer, sizeof(answer));
}

/* ---- Walks ---- */

static bool is_documented(int r) {
        switch (r) {
        case 0:
        case -EPROTO:
        case -EDQUOT:
        case -EIO:
        case -ECONNRESET:
        case -ENOMEM:
                return true;
        default:
                return false;
        }
}

static void fail_walk(const char *where, enum inject_kind kind, unsigned n, const char *what,
                      int r) {
        harness_logged(&h, "never"); /* so that the log is shown */
        if (h.pid)
                harness_stop(&h);
        fail_msg("%s, call %u of %s: %s: %d (%s)", where, n + 1, kind_names[kind], what, r,
                 strerror(r < 0 ? -r : r));
}

static bool log_is_empty(void) {
        struct stat st;

        return stat(h.log_path, &st) < 0 || st.st_size == 0;
}

/* Ends with a sentence, or serves; without the table if that is what failed, and then it says so.
 */
static void walk_start(enum inject_kind kind, const char *event_loop) {
        const char *const args[] = { "--event-loop", event_loop, "--cache-bytes", "64K", "--table",
                                     spec,           NULL };
        unsigned n_ended = 0, n_served = 0, n;

        for (n = 0; n < WALK_MAX; n++) {
                unsigned failed;
                int r;

                unlink(h.log_path);
                inject_arm(armed, kind, n);
                r = harness_try_start(&h, args);
                failed = inject_disarm(armed);
                if (r != -EALREADY) {
                        if (!failed || r < 1 || r > 2 || log_is_empty())
                                fail_walk("start", kind, n, "exit status", r);
                        n_ended++;
                        continue;
                }
                r = visit();
                if (r != 0 && !(failed && r == -ENOENT && harness_logged(&h, "t.carvq: ")))
                        fail_walk("start", kind, n, "a client is told", r);
                r = harness_stop(&h);
                if (r != 0)
                        fail_walk("start", kind, n, "exit status", r);
                if (!failed)
                        break;
                n_served++;
        }
        assert_true(n < WALK_MAX);
        print_message("# start, %s, %s: %u calls failed, %u times it served\n", event_loop,
                      kind_names[kind], n, n_served);
        assert_int_equal(n, n_ended + n_served);
}

static void test_start(void **state) {
        static const enum inject_kind kinds[] = { INJECT_MEMORY,   INJECT_MMAP,    INJECT_OPEN,
                                                  INJECT_STAT,     INJECT_READ,    INJECT_EVENTFD,
                                                  INJECT_MEMFD,    INJECT_RECEIVE, INJECT_SEND,
                                                  INJECT_IO_URING, INJECT_THREAD };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                walk_start(kinds[i], "auto");
        /* The two that it listens on: the third one is how it would say that it is ready. */
        for (unsigned n = 0; n < 2; n++) {
                inject_arm(armed, INJECT_SOCKET, n);
                assert_int_equal(harness_try_start(&h, NULL), 1);
                assert_true(harness_logged(&h, "error socket: Too many open files"));
        }
        walk_start(INJECT_IO_URING, "io_uring");
        walk_start(INJECT_EPOLL, "epoll");
}

/* While a client is served. The next one never notices, and neither does one who is there. */
static void walk_service(enum inject_kind kind, const char *event_loop) {
        size_t n_fds = harness_count(&h, "fd"), n_maps = harness_count(&h, "map_files"),
               n_errors = 0;
        carvq_client *bystander;
        carvq_table *table;
        unsigned n = 0;

        assert_int_equal(connect_client(&bystander), 0);
        assert_int_equal(carvq_table_open(bystander, "t", &table), 0);

        for (bool failed = true; failed && n < WALK_MAX; n++) {
                int r;

                inject_arm(armed, kind, n);
                r = visit();
                if (!is_documented(r))
                        fail_walk(event_loop, kind, n, "a client is told", r);
                failed = inject_disarm(armed);
                if (r != 0 && !failed)
                        fail_walk(event_loop, kind, n, "nothing failed, but a client is told", r);
                n_errors += r != 0;
                r = visit();
                if (r != 0)
                        fail_walk(event_loop, kind, n, "the next client is told", r);
                r = look_up(table, N_IDS);
                if (r != 0)
                        fail_walk(event_loop, kind, n, "a bystander is told", r);
        }
        assert_true(n < WALK_MAX);
        print_message("# service, %s, %s: %u calls failed, of which clients noticed %zu\n",
                      event_loop, kind_names[kind], n - 1, n_errors);
        carvq_client_free(bystander);
        harness_wait_count(&h, "fd", n_fds);
        harness_wait_count(&h, "map_files", n_maps);
}

/* While an administrator asks: the answer may be missing, the next one is not. NULL: a table is
 * loaded. */
static void walk_call(enum inject_kind kind, const char *request) {
        unsigned n = 0;

        for (bool failed = true; failed && n < WALK_MAX; n++) {
                if (request == requests[0])
                        load();
                inject_arm(armed, kind, n);
                if (request)
                        call(request, answer, sizeof(answer));
                else
                        load();
                failed = inject_disarm(armed);
                if (!call(METHOD("GetStatus", ""), answer, sizeof(answer)))
                        fail_walk(request ? request : "load", kind, n, "no answer to the next", 0);
        }
        assert_true(n < WALK_MAX);
        print_message("# %s, %s: %u calls failed\n", request ? request : "load", kind_names[kind],
                      n - 1);
}

static void walk_calls(void) {
        static const enum inject_kind kinds[] = { INJECT_MEMORY, INJECT_MMAP, INJECT_OPEN,
                                                  INJECT_STAT,   INJECT_READ, INJECT_MEMFD };
        size_t n_fds = harness_count(&h, "fd"), n_maps = harness_count(&h, "map_files");

        for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
                walk_call(kinds[k], NULL);
                for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
                        walk_call(kinds[k], requests[i]);
        }
        call(requests[0], answer, sizeof(answer));
        assert_int_equal(visit(), 0);
        harness_wait_count(&h, "fd", n_fds);
        harness_wait_count(&h, "map_files", n_maps);
}

static void start_service(const char *event_loop) {
        inject_disarm(armed);
        unlink(h.log_path);
        harness_start(&h, (const char *[]){ "--event-loop", event_loop, "--cache-bytes", "64K",
                                            "--spin-us", "0", "--table", spec, NULL });
        assert_int_equal(visit(), 0);
        load();
        call(requests[0], answer, sizeof(answer));
}

static void check_service(const char *event_loop, enum inject_kind own_kind) {
        const enum inject_kind kinds[] = { own_kind,       INJECT_MEMORY, INJECT_MMAP,
                                           INJECT_OPEN,    INJECT_STAT,   INJECT_READ,
                                           INJECT_EVENTFD, INJECT_MEMFD,  INJECT_RECEIVE,
                                           INJECT_SEND,    INJECT_ACCEPT };

        start_service(event_loop);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                walk_service(kinds[i], event_loop);
        assert_int_equal(harness_stop(&h), 0);
}

static void test_control(void **state) {
        (void)state;
        start_service("auto");
        walk_calls();
        assert_int_equal(harness_stop(&h), 0);
}

static void test_service_with_io_uring(void **state) {
        (void)state;
        check_service("io_uring", INJECT_IO_URING);
}

static void test_service_with_epoll(void **state) {
        (void)state;
        check_service("epoll", INJECT_EPOLL);
}

/* With an argument: only tests of such names, so that several run beside each other. */
int main(int argc, char **argv) {

        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_start),
                cmocka_unit_test(test_service_with_io_uring),
                cmocka_unit_test(test_service_with_epoll),
                cmocka_unit_test(test_control),
        };

        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests_name("inject-daemon", tests, setup, teardown);
}

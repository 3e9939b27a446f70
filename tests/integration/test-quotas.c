/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One user who takes all there is, with clients in processes of its own, and another one beside it
 * that is served as if it were alone. Limits are small, so that it does not take long. As root,
 * since only root can be several users.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "harness.h"
#include "proto/spin.h"
#include "tests/make-table.h"

#define GREEDY         65534u
#define MODEST         1u

#define N_ROWS         2000u
#define N_DIMS         16u

#define MAX_SESSIONS   30u
#define MAX_TABLES     10u
#define MAX_HANDSHAKES 100u

static struct harness h;
static carvq_table *direct_table;

/* Between a child and the test. */
static struct shared {
        uint32_t n;
        int error;
        char message[CARVQ_MESSAGE_BYTES];
        _Atomic uint64_t n_tries;
        _Atomic bool ready, stop;
} * shared;

static int setup(void **state) {
        const struct table_header header = {
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = N_ROWS,
                .n_dims = N_DIMS,
                .n_stages = 3,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 65536,
                .group_rows = N_ROWS,
        };
        char spec[200];

        (void)state;
        harness_init(&h);
        make_table_file(harness_path(&h, "t"), &header, 3);
        snprintf(spec, sizeof(spec), "t=%s", harness_path(&h, "t"));
        harness_start(&h,
                      (const char *[]){ "--table", spec, "--max-sessions-per-user", "30",
                                        "--max-tables-per-user", "10", "--max-ring-bytes-per-user",
                                        "256M", "--max-ids-in-flight-per-user", "1",
                                        "--max-handshakes-per-second-per-user", "100", NULL });
        assert_int_equal(chmod(h.folder, 0755), 0);
        assert_int_equal(chmod(h.socket_path, 0666), 0);
        assert_int_equal(carvq_file_open(harness_path(&h, "t"), NULL, &direct_table, NULL), 0);
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_ptr_not_equal(shared, MAP_FAILED);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        carvq_table_close(direct_table);
        munmap(shared, sizeof(*shared));
        assert_int_equal(harness_stop(&h), 0);
        harness_deinit(&h);
        return 0;
}

/* ---- Users ---- */

/* In children nothing may fail by cmocka: what is wrong is their exit status. */
static pid_t run_as(uid_t uid, int (*run)(void)) {
        pid_t pid;

        *shared = (struct shared){ 0 };
        pid = fork();
        assert_true(pid >= 0);
        if (pid)
                return pid;
        if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
                _exit(100);
        _exit(run());
}

static int status_of(pid_t pid) {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void wait_ready(void) {
        for (int i = 0; i < 6000 && !shared->ready; i++)
                nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        assert_true(shared->ready);
}

static carvq_client *connect_with(uint64_t arena_bytes, char *ret_message, int *ret_error) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = h.socket_path,
                                           .arena_bytes = arena_bytes };
        carvq_client *client = NULL;

        *ret_error = carvq_connect(&o, &client, ret_message);
        return client;
}

/* 0, or what went wrong. */
static int look_up(carvq_table *table, uint64_t first) {
        float a[20 * N_DIMS], b[20 * N_DIMS];
        uint64_t ids[20];

        for (uint64_t i = 0; i < 20; i++)
                ids[i] = (first + i * 17) % N_ROWS;
        if (carvq_lookup(table, ids, 20, NULL, a, sizeof(a)) < 0 ||
            carvq_lookup(direct_table, ids, 20, NULL, b, sizeof(b)) < 0)
                return 1;
        return memcmp(a, b, sizeof(a)) ? 2 : 0;
}

/* Comes, looks up and goes, five times. */
static int be_modest(void) {
        char message[CARVQ_MESSAGE_BYTES];
        carvq_table *table;
        int error;

        for (uint64_t i = 0; i < 5; i++) {
                carvq_client *client = connect_with(65536, message, &error);

                if (!client)
                        fprintf(stderr, "# %s\n", message);
                if (!client || carvq_table_open(client, "t", &table) < 0)
                        return 10;
                for (uint64_t k = 0; k < 20; k++)
                        if (look_up(table, i * 20 + k) != 0)
                                return 11;
                carvq_client_free(client);
        }
        return 0;
}

static void expect_modest_served(void) {
        const struct shared saved = *shared;

        assert_int_equal(status_of(run_as(MODEST, be_modest)), 0);
        *shared = saved;
}

/* What `carvqctl clients --json` says of the user, white space left out; "" for nothing. */
static void user_said(uid_t uid, char *ret_said, size_t size) {
        char said[65536], wanted[32], *at;
        size_t n = 0;

        assert_int_equal(harness_ctl(&h, "--json clients", said, sizeof(said)), 0);
        for (const char *c = said; *c; c++)
                if (*c != ' ' && *c != '\n')
                        said[n++] = *c;
        said[n] = '\0';
        at = strstr(said, "\"users\":");
        assert_non_null(at);
        snprintf(wanted, sizeof(wanted), "{\"uid\":%u,", uid);
        at = strstr(at, wanted);
        snprintf(ret_said, size, "%.*s", at ? (int)strcspn(at, "}") + 1 : 0, at ? at : "");
}

static void wait_user_gone(uid_t uid) {
        char said[256] = "x";

        for (int i = 0; i < 3000 && said[0]; i++) {
                user_said(uid, said, sizeof(said));
                nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        }
        assert_string_equal(said, "");
}

/* ---- Sessions ---- */

static int take_sessions(void) {
        while (shared->n < 10 * MAX_SESSIONS &&
               connect_with(65536, shared->message, &shared->error))
                shared->n++;
        shared->ready = true;
        return pause();
}

static void test_sessions(void **state) {
        char said[256];
        pid_t greedy;

        (void)state;
        for (int i = 0; i < 2; i++) { /* what a killed one had is there again */
                greedy = run_as(GREEDY, take_sessions);
                wait_ready();
                assert_int_equal(shared->n, MAX_SESSIONS);
                assert_int_equal(shared->error, -EDQUOT);
                assert_non_null(strstr(shared->message, "user 65534 has 30 sessions"));
                assert_non_null(strstr(shared->message, "(max-sessions-per-user)"));
                user_said(GREEDY, said, sizeof(said));
                assert_non_null(strstr(said, "\"n_clients\":30,"));
                expect_modest_served();
                kill(greedy, SIGKILL);
                assert_int_equal(status_of(greedy), -SIGKILL);
                wait_user_gone(GREEDY);
        }
}

/* ---- Shared memory ---- */

static int take_memory(void) {
        while (shared->n < 100 && connect_with(48 << 20, shared->message, &shared->error))
                shared->n++;
        shared->ready = true;
        return pause();
}

static void test_ring_bytes(void **state) {
        pid_t greedy = run_as(GREEDY, take_memory);

        (void)state;
        wait_ready();
        assert_in_range(shared->n, 3, 5);
        assert_int_equal(shared->error, -EDQUOT);
        assert_non_null(strstr(shared->message, "(max-ring-bytes-per-user)"));
        expect_modest_served();
        kill(greedy, SIGKILL);
        status_of(greedy);
        wait_user_gone(GREEDY);
}

/* ---- Tables ---- */

static int take_tables(void) {
        carvq_client *clients[2];
        carvq_table *tables[20];
        int error;

        for (int i = 0; i < 2; i++)
                if (!(clients[i] = connect_with(65536, shared->message, &error)))
                        return 1;
        for (;;) {
                carvq_client *client = clients[shared->n % 2];

                shared->error = carvq_table_open(client, "t", &tables[shared->n]);
                if (shared->error < 0 || shared->n == 19) {
                        snprintf(shared->message, sizeof(shared->message), "%s",
                                 carvq_client_error(client));
                        break;
                }
                shared->n++;
        }
        /* One that is closed makes room for one; the daemon needs no answer to have done it. */
        carvq_table_close(tables[0]);
        if (carvq_table_open(clients[0], "t", &tables[0]) < 0 || look_up(tables[0], 5) != 0)
                return 2;
        shared->ready = true;
        return pause();
}

static void test_tables(void **state) {
        pid_t greedy = run_as(GREEDY, take_tables);
        char said[256];

        (void)state;
        wait_ready();
        assert_int_equal(shared->n, MAX_TABLES);
        assert_int_equal(shared->error, -EDQUOT);
        assert_non_null(strstr(shared->message, "(max-tables-per-user)"));
        user_said(GREEDY, said, sizeof(said));
        assert_non_null(strstr(said, "\"n_clients\":2,"));
        assert_non_null(strstr(said, "\"n_tables\":10,"));
        expect_modest_served();
        kill(greedy, SIGKILL);
        status_of(greedy);
        wait_user_gone(GREEDY);
}

/* ---- Ids in flight ---- */

#define N_CLIENTS 3u

/* Each has two of the largest lookups in flight, again and again; with a limit of one id, one of
 * them is begun at a time on each worker, and all are served. */
static int take_ids(void) {
        static uint64_t ids[CARVQ_IDS_MAX];
        carvq_client *clients[N_CLIENTS];
        carvq_ticket tickets[N_CLIENTS][2];
        carvq_table *tables[N_CLIENTS];
        int error;

        for (uint64_t i = 0; i < CARVQ_IDS_MAX; i++)
                ids[i] = i * 7919 % N_ROWS;
        for (uint32_t i = 0; i < N_CLIENTS; i++)
                if (!(clients[i] = connect_with(12 << 20, shared->message, &error)) ||
                    carvq_table_open(clients[i], "t", &tables[i]) < 0)
                        return 20;
        while (!shared->stop || !shared->n) {
                for (uint32_t i = 0; i < 2 * N_CLIENTS; i++)
                        if (carvq_submit(tables[i / 2], ids, CARVQ_IDS_MAX, NULL,
                                         &tickets[i / 2][i % 2]) < 0)
                                return 21;
                shared->ready = true;
                for (uint32_t i = 0; i < 2 * N_CLIENTS; i++) {
                        struct carvq_rows rows;
                        carvq_ticket ticket = tickets[i / 2][i % 2];

                        if (carvq_wait(clients[i / 2], ticket, 0, &rows) < 0 ||
                            rows.n_rows != CARVQ_IDS_MAX)
                                return 22;
                        carvq_release(clients[i / 2], ticket);
                }
                for (uint32_t i = 0; i < N_CLIENTS; i++)
                        if (look_up(tables[i], shared->n) != 0)
                                return 23;
                shared->n++;
        }
        return 0;
}

static void test_ids_in_flight(void **state) {
        pid_t greedy = run_as(GREEDY, take_ids), modest;

        (void)state;
        wait_ready();
        modest = fork();
        if (!modest)
                _exit(setgroups(0, NULL) < 0 || setresgid(MODEST, MODEST, MODEST) < 0 ||
                                      setresuid(MODEST, MODEST, MODEST) < 0
                              ? 100
                              : be_modest());
        assert_int_equal(status_of(modest), 0);
        shared->stop = true;
        assert_int_equal(status_of(greedy), 0);
        wait_user_gone(GREEDY);
}

/* Killed while it waits, and while it is served. */
static void test_ids_are_given_back(void **state) {
        (void)state;
        for (int i = 0; i < 5; i++) {
                pid_t greedy = run_as(GREEDY, take_ids);

                wait_ready();
                kill(greedy, SIGKILL);
                status_of(greedy);
                wait_user_gone(GREEDY);
        }
        expect_modest_served();
}

/* ---- Handshakes ---- */

/* Connects as fast as it can, and does not stay to hear what it is told. */
static int flood(void) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        const uint64_t until_ns = clock_ns() + UINT64_C(2500000000);

        strcpy(a.sun_path, h.socket_path);
        while (clock_ns() < until_ns || !shared->stop) {
                int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

                shared->n_tries += connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
                shared->ready = shared->n_tries > 2 * MAX_HANDSHAKES;
                close(fd);
        }
        return 0;
}

static uint32_t count_logged(const char *text) {
        FILE *f = fopen(h.log_path, "re");
        char line[1024];
        uint32_t n = 0;

        while (f && fgets(line, sizeof(line), f))
                n += strstr(line, text) != NULL;
        fclose(f);
        return n;
}

static void test_handshakes(void **state) {
        const uint64_t start_ns = clock_ns();
        uint32_t n_before = count_logged("client is refused");
        pid_t greedy = run_as(GREEDY, flood), modest;
        double seconds;

        (void)state;
        wait_ready();
        modest = fork();
        if (!modest)
                _exit(setgroups(0, NULL) < 0 || setresgid(MODEST, MODEST, MODEST) < 0 ||
                                      setresuid(MODEST, MODEST, MODEST) < 0
                              ? 100
                              : be_modest());
        assert_int_equal(status_of(modest), 0);
        shared->stop = true;
        assert_int_equal(status_of(greedy), 0);
        harness_wait_logged(&h, "(max-handshakes-per-second-per-user)");
        wait_user_gone(GREEDY);

        seconds = (double)(clock_ns() - start_ns) * 1e-9;
        print_message("# %" PRIu64 " connections in %.1f s\n", shared->n_tries, seconds);
        assert_true(shared->n_tries > 5 * MAX_HANDSHAKES);
        assert_in_range(count_logged("client is refused") - n_before, 1, (uint32_t)seconds + 2);
        assert_in_range(count_logged("client leaves"), 0, (uint32_t)seconds + 2);
        assert_true(harness_logged(&h, " more like this in the last "));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sessions),
                cmocka_unit_test(test_ring_bytes),
                cmocka_unit_test(test_tables),
                cmocka_unit_test(test_ids_in_flight),
                cmocka_unit_test(test_ids_are_given_back),
                cmocka_unit_test(test_handshakes),
        };

        if (geteuid() != 0) {
                puts("1..0 # SKIP only root can be several users");
                return 0;
        }
        return cmocka_run_group_tests(tests, setup, teardown);
}

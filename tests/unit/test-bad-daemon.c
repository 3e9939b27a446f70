/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One test for each thing that a broken, hostile, stopped or dying daemon can do: the documented
 * error and its sentence, in time, and afterwards an answer to every further call. Of clients that
 * do not reconnect; test-reconnect has the others.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "carvq.h"
#include "client.h"
#include "fake-daemon.h"
#include "random.h"
#include "tests/make-table.h"

#define N_ROWS 100u
#define N_DIMS 16u

/* For tricks that end in a time-out, and for all others. */
#define TIMEOUT_SHORT_NS UINT64_C(60000000)
#define TIMEOUT_LONG_NS  UINT64_C(20000000000)

enum step { CONNECT, OPEN, OPEN_DIRECT, LOOKUP };

struct expectation {
        const char *name;
        enum trick trick;
        enum step step; /* that fails */
        int error;
        const char *text;
};

#define TRICK(name) #name, TRICK_##name

static const struct expectation expectations[] = {
        { TRICK(CLOSE_AT_ACCEPT), CONNECT, -ECONNRESET, "closed the connection" },
        { TRICK(REFUSE_AT_ACCEPT), CONNECT, -EDQUOT, "4096 sessions are open" },
        { TRICK(SILENT_AT_HELLO), CONNECT, -ETIMEDOUT, "does not answer" },
        { TRICK(CLOSE_AT_HELLO), CONNECT, -ECONNRESET, "closed the connection" },
        { TRICK(REFUSE_VERSION), CONNECT, -EPROTONOSUPPORT, "this daemon speaks 2.0" },
        { TRICK(REFUSE_INTERNAL), CONNECT, -EIO, "out of memory" },
        { TRICK(REFUSE_UNKNOWN_STATUS), CONNECT, -EPROTO, "from the future" },
        { TRICK(WELCOME_MAGIC), CONNECT, -EPROTO, "magic" },
        { TRICK(WELCOME_MAJOR), CONNECT, -EPROTONOSUPPORT, "protocol version 2.0" },
        { TRICK(WELCOME_MAJOR_LONGER), CONNECT, -EPROTONOSUPPORT, "protocol version 2.0" },
        { TRICK(WELCOME_SHORT), CONNECT, -EPROTO, "WELCOME of 12 bytes" },
        { TRICK(WELCOME_LONG), CONNECT, -EPROTO, "WELCOME of 192 bytes" },
        { TRICK(WELCOME_HUGE), CONNECT, -EPROTO, "more than 512 bytes" },
        { TRICK(WELCOME_FEATURES), CONNECT, -EPROTO, "features 0x4 were not offered" },
        { TRICK(WELCOME_MAX_IDS), CONNECT, -EPROTO, "max_ids is 0" },
        { TRICK(WELCOME_WITH_FD), CONNECT, -EPROTO, "WELCOME with 1 descriptors" },
        { TRICK(WELCOME_WITH_FDS), CONNECT, -EPROTO, "4 descriptors" },
        { TRICK(WELCOME_SMALL_RING), CONNECT, -EDQUOT, "the daemon grants 1048576" },
        { TRICK(WAKE_FOR_WELCOME), CONNECT, -EPROTO, "message type 8, expected 2" },
        { TRICK(EMPTY_FOR_WELCOME), CONNECT, -EPROTO, "a message of 1 bytes" },
        { TRICK(SILENT_AT_RING), CONNECT, -ETIMEDOUT, "does not answer" },
        { TRICK(CLOSE_AT_RING), CONNECT, -ECONNRESET, "closed the connection" },
        { TRICK(REFUSE_RING), CONNECT, -EPROTO, "seals are missing" },
        { TRICK(READY_WITHOUT_FD), CONNECT, -EPROTO, "READY with 0 descriptors" },
        { TRICK(READY_WITH_PIPE), CONNECT, -EPROTO, "not an eventfd" },

        { TRICK(SILENT_AT_OPEN), OPEN, -ETIMEDOUT, "does not answer" },
        { TRICK(CLOSE_AT_OPEN), OPEN, -ECONNRESET, "closed the connection" },
        { TRICK(ERROR_AT_OPEN), OPEN, -ECONNRESET, "the daemon ends" },
        { TRICK(TABLE_LIMIT), OPEN, -EDQUOT, "256 tables are open" },
        { TRICK(TABLE_INTERNAL), OPEN, -EIO, "table t" },
        { TRICK(TABLE_NO_ROWS), OPEN, -ECONNRESET, "broke the protocol" },
        { TRICK(TABLE_DIMS), OPEN, -ECONNRESET, "broke the protocol" },
        { TRICK(TABLE_REQUEST), OPEN, -ECONNRESET, "out of place" },
        { TRICK(TABLE_TEXT), OPEN, -ENOENT, "a?[2Jb?c" },
        { TRICK(CLIENT_MESSAGE_AT_OPEN), OPEN, -ECONNRESET, "out of place" },

        { TRICK(SILENT_AT_CACHE), OPEN, -ETIMEDOUT, "does not answer" },
        { TRICK(CACHE_REFUSED_WITH_FD), OPEN, -ECONNRESET, "CACHE with 1 descriptors" },
        { TRICK(CACHE_WITHOUT_FD), OPEN, -ECONNRESET, "CACHE with 0 descriptors" },
        { TRICK(CACHE_REQUEST), OPEN, -ECONNRESET, "out of place" },
        { TRICK(CACHE_IS_PIPE), OPEN, -ECONNRESET, "not memory that cannot shrink" },
        { TRICK(CACHE_IS_FILE), OPEN, -ECONNRESET, "not memory that cannot shrink" },
        { TRICK(CACHE_CAN_SHRINK), OPEN, -ECONNRESET, "not memory that cannot shrink" },
        { TRICK(CACHE_SHORT), OPEN, -ECONNRESET, "the cache has " },
        { TRICK(CACHE_LONG), OPEN, -ECONNRESET, "the cache has " },
        { TRICK(CACHE_NO_SETS), OPEN, -ECONNRESET, "a cache of 0 sets" },
        { TRICK(CACHE_MANY_SETS), OPEN, -ECONNRESET, "a cache of 4294967295 sets" },

        { TRICK(SILENT_AT_FILE), OPEN_DIRECT, -ETIMEDOUT, "does not answer" },
        { TRICK(FILE_REFUSED), OPEN_DIRECT, -ENOENT, "table t: table t was retired" },
        { TRICK(FILE_REFUSED_WITH_FD), OPEN_DIRECT, -ECONNRESET, "FILE with 1 descriptors" },
        { TRICK(FILE_WITHOUT_FD), OPEN_DIRECT, -ECONNRESET, "FILE with 0 descriptors" },
        { TRICK(FILE_WITH_FDS), OPEN_DIRECT, -ECONNRESET, "FILE with 2 descriptors" },
        { TRICK(FILE_REQUEST), OPEN_DIRECT, -ECONNRESET, "out of place" },
        { TRICK(FILE_IS_PIPE), OPEN_DIRECT, -EBADMSG, "not a regular file" },
        { TRICK(FILE_IS_SOCKET), OPEN_DIRECT, -EBADMSG, "not a regular file" },
        { TRICK(FILE_IS_FOLDER), OPEN_DIRECT, -EBADMSG, "not a regular file" },
        { TRICK(FILE_IS_ZERO), OPEN_DIRECT, -EBADMSG, "not a regular file" },
        { TRICK(FILE_IS_PATH), OPEN_DIRECT, -EBADMSG, "not a regular file" },
        { TRICK(FILE_EMPTY), OPEN_DIRECT, -EBADMSG, "" },
        { TRICK(FILE_SHORT), OPEN_DIRECT, -EBADMSG, "" },
        { TRICK(FILE_GARBAGE), OPEN_DIRECT, -EBADMSG, "" },
        { TRICK(FILE_OTHER), OPEN_DIRECT, -ECONNRESET, "a file of 3 x 2, expected the table of" },

        { TRICK(SILENT_AT_SUBMIT), LOOKUP, -ETIMEDOUT, "no completion" },
        { TRICK(STOPPED_AT_SUBMIT), LOOKUP, -ETIMEDOUT, "has not moved for 9." },
        { TRICK(CLOSE_AT_SUBMIT), LOOKUP, -ECONNRESET, "closed the connection" },
        { TRICK(ERROR_AT_SUBMIT), LOOKUP, -ECONNRESET, "the daemon ends" },
        { TRICK(GARBAGE_AT_SUBMIT), LOOKUP, -ECONNRESET, "a message of 7 bytes" },
        { TRICK(FLOOD_AT_SUBMIT), LOOKUP, -ETIMEDOUT, "no completion" },
        { TRICK(CQ_TAIL_AHEAD), LOOKUP, -ECONNRESET, "cq_tail jumped" },
        { TRICK(CQ_TAIL_BACK), LOOKUP, -ECONNRESET, "cq_tail jumped" },
        { TRICK(UNKNOWN_TICKET), LOOKUP, -ECONNRESET, "for no lookup in flight" },
        { TRICK(WRONG_ROWS), LOOKUP, -ECONNRESET, "another number of rows" },
        { TRICK(ROW_FIRST), LOOKUP, -ECONNRESET, "another number of rows" },
        { TRICK(STATUS_UNKNOWN), LOOKUP, -ECONNRESET, "unknown status" },
        { TRICK(FLAG_MORE), LOOKUP, -ECONNRESET, "flags that were not asked for" },
        { TRICK(DETAIL_PAST_END), LOOKUP, -ECONNRESET, "bad id is none of ours" },
        { TRICK(STATUS_INVALID), LOOKUP, -EINVAL, "found the lookup invalid" },
        { TRICK(STATUS_NO_TABLE), LOOKUP, -EBADF, "no such table" },
        { TRICK(STATUS_RETIRED), LOOKUP, -EBADF, "was retired" },
        { TRICK(STATUS_NO_MEMORY), LOOKUP, -ENOMEM, "no memory" },
};

static char dir[64], path[96], tiered_path[96];

static int setup(void **state) {
        (void)state;
        strcpy(dir, "/tmp/carvq-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/t.carvq", dir);
        make_table_file(path,
                        &(struct table_header){
                                .codec = TABLE_CODEC_F32, .n_rows = N_ROWS, .n_dims = N_DIMS },
                        99);
        snprintf(tiered_path, sizeof(tiered_path), "%s/tiered.carvq", dir);
        make_table_file(tiered_path,
                        &(struct table_header){ .codec = TABLE_CODEC_CARVQ,
                                                .n_rows = N_ROWS,
                                                .n_dims = N_DIMS,
                                                .n_stages = 4,
                                                .codebook_bits = 7,
                                                .subvector_dims = 8,
                                                .group_cols = 65536,
                                                .group_rows = N_ROWS,
                                                .row_scale = 1,
                                                .n_tiers = 3,
                                                .tier_stages = { 0, 2, 4 },
                                                .tier_rows = { 60, 9 },
                                                .adaptor_type = TABLE_ADAPTOR_INT8,
                                                .latent_dims = 5,
                                                .latent_bits = 8 },
                        98);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        unlink(path);
        unlink(tiered_path);
        return rmdir(dir);
}

static double seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int look_up(carvq_table *table) {
        const uint64_t ids[] = { 5, 6, 7 };
        float rows[3][N_DIMS];

        return carvq_lookup(table, ids, 3, NULL, rows, sizeof(rows));
}

/* Once the connection has ended, every call says so at once. */
static void check_ended(carvq_client *client, carvq_table *table) {
        struct carvq_rows rows;
        carvq_ticket ticket;
        carvq_table *other;
        uint64_t id = 1;

        assert_int_equal(carvq_table_open(client, "t", &other), -ECONNRESET);
        assert_int_equal(carvq_arm(client), -ECONNRESET);
        assert_int_equal(carvq_poll(client, 256, &rows), -ENOENT);
        if (table) {
                assert_int_equal(look_up(table), -ECONNRESET);
                assert_int_equal(carvq_submit(table, &id, 1, NULL, &ticket), -ECONNRESET);
                assert_string_not_equal(carvq_client_error(client), "");
        }
}

static void test_trick(void **state) {
        const struct expectation *e = *state;
        struct carvq_connect_options o = {
                .size = sizeof(o),
                .timeout_ns = e->error == -ETIMEDOUT ? TIMEOUT_SHORT_NS : TIMEOUT_LONG_NS,
                .no_reconnect = 1,
        };
        struct carvq_table_options table_options = { .size = sizeof(table_options) };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client = NULL;
        carvq_table *table = NULL;
        struct fake_daemon fake;
        enum step step = CONNECT;
        double start = seconds();
        int r;

        fake_daemon_start(&fake, dir, path, e->trick);
        fake.hold = e->trick == TRICK_SILENT_AT_OPEN;
        o.socket_path = fake.path;
        r = carvq_connect(&o, &client, message);
        if (r == 0) {
                step = e->step == OPEN_DIRECT ? OPEN_DIRECT : OPEN;
                table_options.mode = step == OPEN_DIRECT ? CARVQ_MODE_DIRECT : CARVQ_MODE_RING;
                r = carvq_table_open_with(client, "t", &table_options, &table);
        }
        if (r == 0) {
                step = LOOKUP;
                r = look_up(table);
        }
        if (client)
                snprintf(message, sizeof(message), "%s", carvq_client_error(client));
        if (r != e->error || step != e->step || !strstr(message, e->text))
                fail_msg("%s: step %d, %d \"%s\", expected step %d, %d \"%s\"", e->name, step, r,
                         message, e->step, e->error, e->text);
        if (seconds() - start > 10)
                fail_msg("%s: took %.1f s", e->name, seconds() - start);
        if (r == -ECONNRESET && client)
                check_ended(client, table);
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

/* What these break shows one call later. */
static void test_second_call(void **state) {
        const struct {
                enum trick trick;
                const char *text;
        } tricks[] = {
                { TRICK_COMPLETE_TWICE, "for no lookup in flight" },
                { TRICK_SQ_HEAD_AHEAD, "sq_head jumped" },
                { TRICK_CLOSE_AFTER_COMPLETION, "closed the connection" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(tricks); i++) {
                struct carvq_connect_options o = { .size = sizeof(o), .no_reconnect = 1 };
                struct fake_daemon fake;
                carvq_client *client;
                carvq_table *table;
                int r;

                fake_daemon_start(&fake, dir, path, tricks[i].trick);
                o.socket_path = fake.path;
                assert_int_equal(carvq_connect(&o, &client, NULL), 0);
                assert_int_equal(carvq_table_open(client, "t", &table), 0);
                r = look_up(table); /* the second completion may be there already */
                assert_true(r == 0 || r == -ECONNRESET);
                assert_int_equal(look_up(table), -ECONNRESET);
                if (!strstr(carvq_client_error(client), tricks[i].text))
                        fail_msg("found \"%s\", expected \"%s\" in it", carvq_client_error(client),
                                 tricks[i].text);
                check_ended(client, table);
                carvq_client_free(client);
                fake_daemon_stop(&fake);
        }
}

/* A completion that came before the end is good, whatever came after it. */
static void test_last_completion(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .no_reconnect = 1 };
        struct fake_daemon fake;
        struct carvq_rows rows;
        carvq_ticket ticket;
        carvq_client *client;
        carvq_table *table;
        uint64_t id = 9;

        (void)state;
        fake_daemon_start(&fake, dir, path, TRICK_CLOSE_AFTER_COMPLETION);
        o.socket_path = fake.path;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(carvq_submit(table, &id, 1, NULL, &ticket), 0);
        /* Until both the completion and the end are there. */
        assert_int_equal(poll(&(struct pollfd){ .fd = client->socket_fd }, 1, 20000), 1);
        assert_int_equal(carvq_arm(client), 1);
        assert_int_equal(carvq_wait(client, ticket, 0, &rows), 0);
        assert_int_equal(rows.n_rows, 1);
        carvq_release(client, ticket);
        assert_int_equal(carvq_arm(client), -ECONNRESET);
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

/* An older daemon, and one that writes into the file after it has been checked. */
static void test_files(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .no_reconnect = 1 };
        struct carvq_table_options direct = { .size = sizeof(direct), .mode = CARVQ_MODE_DIRECT };
        struct fake_daemon fake;
        carvq_client *client;
        carvq_table *table;
        uint32_t seed = 3;

        (void)state;
        fake_daemon_start(&fake, dir, path, TRICK_NONE);
        fake.features = 0;
        o.socket_path = fake.path;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open_with(client, "t", &direct, &table), -EOPNOTSUPP);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(look_up(table), 0);
        assert_int_equal(fake.n_opened - fake.n_closed, 1);
        carvq_client_free(client);
        fake_daemon_stop(&fake);

        fake_daemon_start(&fake, dir, tiered_path, TRICK_FILE_CHANGES);
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open_with(client, "t", &direct, &table), 0);
        for (int i = 0; i < 300; i++) {
                for (uint64_t at = 0; at + 4 <= fake.file.map_bytes; at += 4) {
                        uint32_t word = test_random(&seed);

                        assert_int_equal(pwrite(fake.copy_fd, &word, 4, (off_t)at), 4);
                }
                for (int k = 0; k < 20; k++)
                        assert_int_equal(look_up(table), 0); /* some rows, and no crash */
        }
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

/* Memory that says anything, and something else a moment later: rows are wrong then, and that is
 * all. */
static void test_lying_cache(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .no_reconnect = 1 };
        struct fake_daemon fake;
        struct stat st;
        carvq_client *client;
        carvq_table *table;
        uint64_t *memory;
        uint32_t seed = 7;

        (void)state;
        fake_daemon_start(&fake, dir, path, TRICK_CACHE_LIES);
        o.socket_path = fake.path;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(look_up(table), 0); /* misses */
        assert_int_equal(fstat(fake.copy_fd, &st), 0);
        memory =
                mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fake.copy_fd, 0);
        for (int i = 0; i < 2000; i++) {
                /* Half of the words look like rows that are asked for, the others like anything. */
                for (size_t k = 0; k < FAKE_CACHE_SETS * CACHE_WAYS; k++) {
                        uint64_t r = (uint64_t)test_random(&seed) << 32 | test_random(&seed);

                        memory[k] = r % 2 ? r : (5 + r / 2 % 3) << CACHE_SEQUENCE_BITS | 2;
                }
                assert_int_equal(look_up(table), 0);
                for (int k = 0; k < 50; k++)
                        memory[test_random(&seed) % ((uint64_t)st.st_size / 8)] =
                                test_random(&seed) * UINT64_C(0x100000001);
                assert_int_equal(look_up(table), 0);
        }
        munmap(memory, (size_t)st.st_size);
        close(fake.copy_fd);
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

/* Polling alone, with no call that waits, finds out about a death. */
static void test_polling(void **state) {
        struct carvq_connect_options o = { .size = sizeof(o), .no_reconnect = 1 };
        struct fake_daemon fake;
        struct carvq_rows rows;
        carvq_ticket ticket;
        carvq_client *client;
        carvq_table *table;
        uint64_t id = 9;
        int r;

        (void)state;
        fake_daemon_start(&fake, dir, path, TRICK_CLOSE_AT_SUBMIT);
        o.socket_path = fake.path;
        assert_int_equal(carvq_connect(&o, &client, NULL), 0);
        assert_int_equal(carvq_table_open(client, "t", &table), 0);
        assert_int_equal(carvq_submit(table, &id, 1, NULL, &ticket), 0);
        do
                r = carvq_poll(client, ticket, &rows);
        while (r == 0);
        assert_int_equal(r, -ECONNRESET);
        assert_int_equal(carvq_poll(client, ticket, &rows), -ENOENT);
        carvq_client_free(client);
        fake_daemon_stop(&fake);
}

int main(void) {
        struct CMUnitTest tests[ARRAY_SIZE(expectations) + 5] = { 0 };
        size_t n = 0;

        for (; n < ARRAY_SIZE(expectations); n++)
                tests[n] = (struct CMUnitTest){ .name = expectations[n].name,
                                                .test_func = test_trick,
                                                .initial_state = (void *)&expectations[n] };
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_second_call);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_last_completion);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_files);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_lying_cache);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_polling);
        return cmocka_run_group_tests_name("bad-daemon", tests, setup, teardown);
}

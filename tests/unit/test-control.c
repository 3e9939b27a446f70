/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "control-harness.h"
#include "daemon/control-call.h"
#include "daemon/control.h"
#include "daemon/page-cache.h"
#include "daemon/smaps.h"

/* ---- framing ---- */

static void test_frame(void **state) {
        static char big[VARLINK_CALL_BYTES_MAX + 1];
        size_t n;

        (void)state;
        assert_int_equal(varlink_frame("", 0, &n), 0);
        assert_int_equal(varlink_frame("abc", 3, &n), 0);
        assert_int_equal(varlink_frame("abc\0de", 6, &n), 1);
        assert_int_equal(n, 3);
        assert_int_equal(varlink_frame("\0", 1, &n), 1);
        assert_int_equal(n, 0);

        memset(big, 'x', sizeof(big));
        assert_int_equal(varlink_frame(big, VARLINK_CALL_BYTES_MAX - 1, &n), 0);
        assert_int_equal(varlink_frame(big, VARLINK_CALL_BYTES_MAX, &n), -EMSGSIZE);
        big[VARLINK_CALL_BYTES_MAX] = '\0'; /* one too far */
        assert_int_equal(varlink_frame(big, sizeof(big), &n), -EMSGSIZE);
        big[VARLINK_CALL_BYTES_MAX - 1] = '\0';
        assert_int_equal(varlink_frame(big, sizeof(big), &n), 1);
        assert_int_equal(n, VARLINK_CALL_BYTES_MAX - 1);
}

/* ---- calls ---- */

#define CALL(method)             "{\"method\":\"" method "\"}"
#define CALL_WITH(method, words) "{\"method\":\"" method "\",\"parameters\":" words "}"

static void test_calls(void **state) {
        struct control_call call;

        (void)state;
        assert_int_equal(control_call_parse(CALL("io.carvq.Control.GetStatus"),
                                            strlen(CALL("io.carvq.Control.GetStatus")), &call,
                                            NULL),
                         0);
        assert_null(call.refusal);
        assert_int_equal(call.method, CONTROL_GET_STATUS);
        assert_false(call.oneway);
        control_call_deinit(&call);

        const char *text = "{\"method\":\"io.carvq.Control.LoadTable\",\"oneway\":true,"
                           "\"more\":true,\"other\":1,"
                           "\"parameters\":{\"path\":\"/p\",\"name\":\"n\"}}";
        assert_int_equal(control_call_parse(text, strlen(text), &call, NULL), 0);
        assert_null(call.refusal);
        assert_int_equal(call.method, CONTROL_LOAD_TABLE);
        assert_string_equal(call.arguments[0], "n");
        assert_string_equal(call.arguments[1], "/p");
        assert_true(call.oneway);
        control_call_deinit(&call);

        text = CALL_WITH("io.carvq.Control.GetStats", "{\"table\":null}");
        assert_int_equal(control_call_parse(text, strlen(text), &call, NULL), 0);
        assert_null(call.refusal);
        assert_null(call.arguments[0]);
        control_call_deinit(&call);
}

static void test_refusals(void **state) {
        static const struct {
                const char *call, *error, *field, *value;
        } refused[] = {
                { CALL("io.carvq.Control.Frobnicate"), "MethodNotFound", "method",
                  "io.carvq.Control.Frobnicate" },
                { CALL("io.carvq.Control."), "MethodNotFound", "method", "io.carvq.Control." },
                { CALL("org.varlink.service.getinfo"), "MethodNotFound", "method",
                  "org.varlink.service.getinfo" },
                { CALL("io.carvq.Contro.GetStatus"), "InterfaceNotFound", "interface",
                  "io.carvq.Contro" },
                { CALL("io.carvq.Control.GetStatus.x"), "InterfaceNotFound", "interface",
                  "io.carvq.Control.GetStatus" },
                { CALL("GetStatus"), "InterfaceNotFound", "interface", "GetStatus" },
                { CALL(""), "InterfaceNotFound", "interface", "" },
                { CALL("io.carvq.Control.UnloadTable"), "InvalidParameter", "parameter", "name" },
                { CALL_WITH("io.carvq.Control.UnloadTable", "{\"name\":null}"), "InvalidParameter",
                  "parameter", "name" },
                { CALL_WITH("io.carvq.Control.UnloadTable", "{\"name\":1}"), "InvalidParameter",
                  "parameter", "name" },
                { CALL_WITH("io.carvq.Control.LoadTable", "{\"name\":\"a\"}"), "InvalidParameter",
                  "parameter", "path" },
                { CALL_WITH("io.carvq.Control.GetStats", "{\"table\":[]}"), "InvalidParameter",
                  "parameter", "table" },
                { CALL_WITH("io.carvq.Control.GetStatus", "{\"x\":null}"), "InvalidParameter",
                  "parameter", "x" },
                { "{\"method\":\"io.carvq.Control.GetStatus\",\"upgrade\":true}",
                  "MethodNotImplemented", "method", "io.carvq.Control.GetStatus" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                char error[64];
                struct control_call call;
                const json_t *parameters;

                assert_int_equal(
                        control_call_parse(refused[i].call, strlen(refused[i].call), &call, NULL),
                        0);
                assert_non_null(call.refusal);
                snprintf(error, sizeof(error), "org.varlink.service.%s", refused[i].error);
                assert_string_equal(json_string_value(json_object_get(call.refusal, "error")),
                                    error);
                parameters = json_object_get(call.refusal, "parameters");
                assert_string_equal(
                        json_string_value(json_object_get(parameters, refused[i].field)),
                        refused[i].value);
                control_call_deinit(&call);
        }
}

static void test_bytes_that_are_no_call(void **state) {
        static const struct {
                const char *bytes, *fault;
        } bad[] = {
                { "", "byte" },
                { "{", "byte 1" },
                { "nonsense", "byte" },
                { "[]", "no JSON object" },
                { "{}", "\"method\" is missing" },
                { "{\"method\":7}", "\"method\" is missing" },
                { "{\"method\":\"a.b\",\"parameters\":[]}", "\"parameters\" is no object" },
                { "{\"method\":\"a.b\",\"oneway\":1}", "\"oneway\" is not true or false" },
                { "{\"method\":\"a.b\",\"more\":\"\"}", "\"more\" is not true or false" },
                { "{\"method\":\"a.b\",\"method\":\"a.b\"}", "duplicate" },
                { "{\"method\":\"a.b\"} x", "byte" },
                { "{\"method\":\"a\\u0000b\"}", "\\u0000" },
                { "{\"method\":\"\xff\"}", "byte" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct control_call call;
                struct fault fault = { 0 };
                int r = control_call_parse(bad[i].bytes, strlen(bad[i].bytes), &call, &fault);

                if (r != -EBADMSG || !strstr(fault.text, bad[i].fault))
                        fail_msg("%s: %d, %s", bad[i].bytes, r, fault.text);
        }
}

static void test_deep_nesting(void **state) {
        static char deep[60000];
        struct control_call call;
        struct fault fault = { 0 };

        (void)state;
        memset(deep, '[', sizeof(deep));
        assert_int_equal(control_call_parse(deep, sizeof(deep), &call, &fault), -EBADMSG);
        assert_non_null(strstr(fault.text, "depth"));
        for (size_t i = 0; i + 5 <= sizeof(deep); i += 5)
                memcpy(deep + i, "{\"a\":", 5);
        assert_int_equal(control_call_parse(deep, sizeof(deep), &call, &fault), -EBADMSG);
}

/* Valid calls with a few bytes changed: whatever they become, it is parsed, refused or turned down.
 */
static void test_mutated_calls(void **state) {
        static const char *const seeds[] = {
                CALL_WITH("io.carvq.Control.LoadTable", "{\"name\":\"n\",\"path\":\"/p\\u00e9\"}"),
                CALL_WITH("org.varlink.service.GetInterfaceDescription",
                          "{\"interface\":\"io.carvq.Control\"}"),
                "{\"method\":\"io.carvq.Control.GetStats\",\"oneway\":false,\"upgrade\":null}",
        };
        uint64_t seed = 20251;
        unsigned n_parsed = 0, n_bad = 0;

        (void)state;
        print_message("# seed %" PRIu64 "\n", seed);
        srand48((long)seed);
        for (int i = 0; i < 30000; i++) {
                const char *text = seeds[i % (int)ARRAY_SIZE(seeds)];
                size_t n = strlen(text);
                _cleanup_(freep) char *copy = malloc(n); /* no NUL behind it */
                struct control_call call;
                int r;

                memcpy(copy, text, n);
                for (long k = lrand48() % 4; k >= 0; k--)
                        copy[(size_t)lrand48() % n] =
                                (char)(lrand48() % 3 ? "{}[]\":,\\0ntue "[lrand48() % 15]
                                                     : lrand48() % 256);
                r = control_call_parse(copy, n - (size_t)lrand48() % 2, &call, NULL);
                if (r == 0) {
                        n_parsed++;
                        control_call_deinit(&call);
                } else {
                        n_bad++;
                        assert_int_equal(r, -EBADMSG);
                }
        }
        assert_true(n_parsed > 100 && n_bad > 100);
}

static void test_text_is_safe(void **state) {
        static const struct {
                const char *text, *json;
        } texts[] = {
                { "plain", "plain" },
                { "caf\xc3\xa9", "caf\xc3\xa9" },
                { "a\nb\033[2J\x7f", "a?b?[2J?" },
                { "c1 \xc2\x9b", "c1 ??" },
                { "not utf-8 \xff\xc3", "not utf-8 ??" },
                { "cut \xc2", "cut ?" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                json_t *json = varlink_text(texts[i].text);

                assert_string_equal(json_string_value(json), texts[i].json);
                json_decref(json);
        }
}

/* ---- smaps ---- */

static void test_smaps(void **state) {
        static const char smaps[] =
                "10000-20000 r--s 00000000 08:01 7  /tables/Pss: 9 kB\n"
                "Size: 64 kB\nRss: 16 kB\nPss: 8 kB\nPss_Dirty: 4 kB\nVmFlags: rd\n"
                "20000-22000 r--s 00010000 08:01 7  /tables/a\n"
                "Rss: 8 kB\nPss: 2 kB\n"
                "22000-23000 r--s 00000000 08:01 8  /tables/b\n"
                "Rss: 4 kB\nPss: 1 kB\n"
                "40000-60000 rw-p 00000000 00:00 0\n"
                "Rss: 400 kB\nPss: 400 kB\n"
                "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\nPss: 0 kB\n";
        struct smaps_range ranges[] = {
                { .start = 0x10000, .length_bytes = 0x11001 }, /* two areas, the last page cut */
                { .start = 0x22000, .length_bytes = 100 },
                { .start = 0x40000, .length_bytes = 0x1000 }, /* less than its area */
                { .start = 0x70000, .length_bytes = 0x1000 }, /* not there */
                { .length_bytes = UINT64_MAX >> 1 },          /* all of them */
        };
        struct smaps_range *each[] = { &ranges[0], &ranges[1], &ranges[2], &ranges[3], &ranges[4] };
        FILE *f = fmemopen((void *)smaps, strlen(smaps), "r");

        (void)state;
        assert_int_equal(smaps_read(f, each, ARRAY_SIZE(each)), 0);
        fclose(f);
        assert_true(ranges[0].found);
        assert_int_equal(ranges[0].pss_bytes, 10 * 1024);
        assert_int_equal(ranges[0].rss_bytes, 24 * 1024);
        assert_true(ranges[1].found);
        assert_int_equal(ranges[1].pss_bytes, 1024);
        assert_false(ranges[2].found);
        assert_false(ranges[3].found);
        assert_int_equal(ranges[4].pss_bytes, 411 * 1024);
        assert_int_equal(ranges[4].rss_bytes, 428 * 1024);
}

static void test_smaps_of_this_process(void **state) {
        size_t n_bytes = 1 << 20;
        char *memory = aligned_alloc(4096, n_bytes);
        struct smaps_range range = { .start = (uintptr_t)memory, .length_bytes = n_bytes };
        struct smaps_range all = { .start = 4096, .length_bytes = UINT64_MAX >> 1 };

        (void)state;
        memset(memory, 1, n_bytes);
        assert_int_equal(smaps_measure((struct smaps_range *[]){ &range, &all }, 2), 0);
        assert_true(all.found);
        assert_true(all.pss_bytes >= n_bytes && all.rss_bytes >= all.pss_bytes);
        free(memory);
}

/* ---- The page cache ---- */

static void test_page_cache(void **state) {
        const uint64_t n_bytes = 5 * 4096 + 7;
        struct page_cache cache = { .cached_bytes = 1 };
        char path[] = "/tmp/carvq-test-XXXXXX", page[4096] = { 1 };
        int fd = mkstemp(path);
        void *map;

        (void)state;
        assert_true(fd >= 0);
        for (uint64_t at = 0; at < n_bytes; at += sizeof(page)) /* written: so it is there */
                assert_true(write(fd, page, MIN(n_bytes - at, sizeof(page))) > 0);
        map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(map, MAP_FAILED);
        assert_int_equal(page_cache_measure(fd, map, n_bytes, &cache), 0);
        assert_int_equal(cache.cached_bytes, n_bytes);
        munmap(map, n_bytes);

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(ftruncate(fd, (off_t)n_bytes), 0); /* a hole: nothing is */
        map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
        assert_int_equal(page_cache_measure(fd, map, n_bytes, &cache), 0);
        assert_int_equal(cache.cached_bytes, 0);
        munmap(map, n_bytes);
        close(fd);
        unlink(path);
}

/* ---- connections ---- */

static int make_harness(void **state) {
        *state = harness_new();
        return 0;
}

static int end_harness(void **state) {
        harness_free(*state);
        return 0;
}

struct text_buffer {
        char bytes[1 << 20];
        size_t n_bytes;
};

static struct text_buffer buffer;

/* With its NUL. */
static void add_call(const char *call) {
        assert_true(buffer.n_bytes + strlen(call) + 1 <= sizeof(buffer.bytes));
        strcpy(buffer.bytes + buffer.n_bytes, call);
        buffer.n_bytes += strlen(call) + 1;
}

/* Sends the buffer and checks that the replies contain `expected`, one each, in order. */
static void expect_replies(struct harness *h, size_t piece_bytes, const char *const *expected) {
        size_t n_bytes, offset = 0;
        _cleanup_(freep) char *replies =
                harness_talk(h, buffer.bytes, buffer.n_bytes, piece_bytes, &n_bytes);

        for (; *expected; expected++) {
                if (offset >= n_bytes)
                        fail_msg("no reply with %s", *expected);
                if (!strstr(replies + offset, *expected))
                        fail_msg("%s is not in %s", *expected, replies + offset);
                offset += strlen(replies + offset) + 1;
        }
        assert_int_equal(offset, n_bytes);
        buffer.n_bytes = 0;
}

static void add_varied_calls(void) {
        add_call(CALL("io.carvq.Control.GetStats"));
        add_call(CALL("org.varlink.service.GetInfo"));
        add_call(CALL("io.carvq.Control.ListTables"));
        add_call("{\"method\":\"io.carvq.Control.ListTables\",\"oneway\":true}");
        add_call("{\"method\":\"io.carvq.Control.Frobnicate\",\"oneway\":true}");
        add_call(CALL_WITH("io.carvq.Control.UnloadTable", "{\"name\":\"none\"}"));
        add_call(CALL("io.carvq.Control.ListClients"));
}

static const char *const varied_replies[] = { "\"stats\":",  "\"interfaces\":",     "\"tables\":",
                                              "NoSuchTable", "\"state\":\"hello\"", NULL };

static void test_pipelined_in_order(void **state) {
        add_varied_calls();
        expect_replies(*state, sizeof(buffer.bytes), varied_replies);
}

static void test_byte_by_byte(void **state) {
        add_varied_calls();
        expect_replies(*state, 1, varied_replies);
}

static void test_load_and_unload(void **state) {
        struct harness *h = *state;
        char load[512];

        snprintf(load, sizeof(load),
                 CALL_WITH("io.carvq.Control.LoadTable", "{\"name\":\"more\",\"path\":\"%s\"}"),
                 harness_table_path(h));
        add_call(load);
        add_call(CALL_WITH("io.carvq.Control.GetStats", "{\"table\":\"more\"}"));
        add_call(CALL_WITH("io.carvq.Control.LoadTable",
                           "{\"name\":\"more\",\"path\":\"/nonexistent\"}"));
        add_call(CALL_WITH("io.carvq.Control.UnloadTable", "{\"name\":\"more\"}"));
        add_call(CALL_WITH("io.carvq.Control.GetStats", "{\"table\":\"more\"}"));
        expect_replies(
                h, sizeof(buffer.bytes),
                (const char *const[]){ "{\"parameters\":{\"generation\":", "\"name\":\"more\"",
                                       "LoadFailed", "{\"parameters\":{}}", "NoSuchTable", NULL });
}

static void test_oversize_ends_the_connection(void **state) {
        struct harness *h = *state;

        add_call(CALL("org.varlink.service.GetInfo"));
        memset(buffer.bytes + buffer.n_bytes, ' ', VARLINK_CALL_BYTES_MAX + 100);
        buffer.n_bytes += VARLINK_CALL_BYTES_MAX + 100;
        add_call(CALL("org.varlink.service.GetInfo"));
        /* The first one is answered; the end may overtake the answer when bytes are left unread. */
        size_t n_bytes;
        _cleanup_(freep) char *replies =
                harness_talk(h, buffer.bytes, buffer.n_bytes, sizeof(buffer.bytes), &n_bytes);

        assert_true(n_bytes == 0 || n_bytes == strlen(replies) + 1);
        buffer.n_bytes = 0;
        json_decref(harness_call(h, CALL("org.varlink.service.GetInfo")));
}

static void test_bad_call_ends_the_connection(void **state) {
        add_call(CALL("org.varlink.service.GetInfo"));
        add_call("{\"method\":");
        add_call(CALL("org.varlink.service.GetInfo"));
        expect_replies(*state, sizeof(buffer.bytes),
                       (const char *const[]){ "\"interfaces\":", NULL });
}

/* The measurement comes back to a connection whose peer is gone. */
static void test_peer_leaves_early(void **state) {
        struct harness *h = *state;
        const char *call = CALL("io.carvq.Control.GetStats");

        for (int i = 0; i < 20; i++) {
                int fd = harness_connect(h);

                assert_int_equal(send(fd, call, strlen(call) + 1, MSG_NOSIGNAL), strlen(call) + 1);
                close(fd);
        }
        json_decref(harness_call(h, call));
}

/* It holds up nobody but itself, and gets everything in the end. */
static void test_peer_that_does_not_read(void **state) {
        struct harness *h = *state;
        const char *call = CALL_WITH("org.varlink.service.GetInterfaceDescription",
                                     "{\"interface\":\"io.carvq.Control\"}");
        int fd = harness_connect(h);
        size_t n_sent = 0, n_received = 0;
        static char bytes[65536];
        ssize_t n;

        while (send(fd, call, strlen(call) + 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
                n_sent++;
        assert_true(n_sent > 100);
        json_decref(harness_call(h, CALL("io.carvq.Control.GetStatus")));
        shutdown(fd, SHUT_WR);
        while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
                for (ssize_t i = 0; i < n; i++)
                        n_received += bytes[i] == '\0';
        assert_int_equal(n, 0);
        /* The last call may have been sent in part. */
        assert_in_range(n_received, n_sent - 1, n_sent);
        close(fd);
}

static void test_connections_are_limited(void **state) {
        struct harness *h = *state;
        int fds[CONTROL_CONNECTIONS_MAX];
        char byte;
        int fd;

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = harness_connect(h);
        fd = harness_connect(h);
        assert_int_equal(recv(fd, &byte, 1, 0), 0);
        close(fd);
        assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EAGAIN);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                close(fds[i]);
}

/* harness_free() drains: a half-sent call, an idle connection and a running measurement. */
static void test_stop_with_open_connections(void **state) {
        struct harness *h = harness_new();
        const char *call = CALL("io.carvq.Control.GetStats");
        int idle = harness_connect(h), half = harness_connect(h), busy = harness_connect(h);

        (void)state;
        assert_int_equal(send(half, call, 5, MSG_NOSIGNAL), 5);
        assert_int_equal(send(busy, call, strlen(call) + 1, MSG_NOSIGNAL), strlen(call) + 1);
        harness_free(h);
        close(idle);
        close(half);
        close(busy);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_frame),
                cmocka_unit_test(test_calls),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_bytes_that_are_no_call),
                cmocka_unit_test(test_deep_nesting),
                cmocka_unit_test(test_mutated_calls),
                cmocka_unit_test(test_text_is_safe),
                cmocka_unit_test(test_smaps),
                cmocka_unit_test(test_smaps_of_this_process),
                cmocka_unit_test(test_page_cache),
                cmocka_unit_test_setup_teardown(test_pipelined_in_order, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_byte_by_byte, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_load_and_unload, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_oversize_ends_the_connection, make_harness,
                                                end_harness),
                cmocka_unit_test_setup_teardown(test_bad_call_ends_the_connection, make_harness,
                                                end_harness),
                cmocka_unit_test_setup_teardown(test_peer_leaves_early, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_peer_that_does_not_read, make_harness,
                                                end_harness),
                cmocka_unit_test_setup_teardown(test_connections_are_limited, make_harness,
                                                end_harness),
                cmocka_unit_test(test_stop_with_open_connections),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

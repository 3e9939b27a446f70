/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one daemon tells the next one, as bytes that somebody has changed: each byte, each length,
 * each field outside its range, with the checksum wrong and with the checksum right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <string.h>

#include "daemon/handover-state.h"
#include "daemon/store.h"

#define N_TABLES   2
#define N_SESSIONS 3
#define N_USES     4

struct block {
        struct handover_header header;
        struct handover_table tables[N_TABLES];
        struct handover_session sessions[N_SESSIONS];
        struct handover_use uses[N_USES];
};

static struct block *good(void) {
        struct block *b = calloc(1, sizeof(*b));

        assert_non_null(b);
        b->header = (struct handover_header){ .last_session = 30,
                                              .last_generation = 9,
                                              .n_tables = N_TABLES,
                                              .n_sessions = N_SESSIONS,
                                              .n_uses = N_USES };
        for (uint32_t i = 0; i < N_TABLES; i++) {
                b->tables[i] = (struct handover_table){ .generation = 8 + i,
                                                        .device = 1,
                                                        .inode = 2,
                                                        .file_bytes = 4096,
                                                        .changed_ns = -1,
                                                        .origin = STORE_FOLDER,
                                                        .published = i };
                strcpy(b->tables[i].name, "words");
                strcpy(b->tables[i].path, "/var/lib/carvq/words.carvq");
        }
        for (uint32_t i = 0; i < N_SESSIONS; i++) {
                b->sessions[i] = (struct handover_session){ .id = 10 * (i + 1),
                                                            .features = 3,
                                                            .last_nonce = 2,
                                                            .geometry = { 8, 16, 4096, 16384 },
                                                            .sq_head = UINT32_MAX,
                                                            .cq_tail = 3,
                                                            .n_uses = i == 0   ? 2
                                                                      : i == 1 ? 0
                                                                               : 2 };
                strcpy(b->sessions[i].name, "client");
        }
        for (uint32_t i = 0; i < N_USES; i++)
                b->uses[i] = (struct handover_use){ .handle = 256 * (1 + i % 2) + i % 2,
                                                    .table = i % 2 };
        handover_state_seal(b);
        return b;
}

/* From a place of exactly that size, so that a sanitizer sees every look beyond it. */
static int check(const struct block *b, size_t n, struct fault *ret_fault) {
        _cleanup_(freep) void *copy = malloc(n ? n : 1);
        struct handover_state state;

        assert_non_null(copy);
        memcpy(copy, b, n);
        return handover_state_check(copy, n, &state, ret_fault);
}

static void test_good(void **state) {
        _cleanup_(freep) struct block *b = good();
        struct handover_state s;
        struct fault fault = { 0 };

        (void)state;
        assert_int_equal(sizeof(*b), handover_state_bytes(N_TABLES, N_SESSIONS, N_USES));
        if (handover_state_check(b, sizeof(*b), &s, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_ptr_equal(s.header, &b->header);
        assert_ptr_equal(s.tables, b->tables);
        assert_ptr_equal(s.sessions, b->sessions);
        assert_ptr_equal(s.uses, b->uses);
}

static void test_nothing(void **state) {
        struct block b = { 0 };
        struct fault fault = { 0 };

        (void)state;
        handover_state_seal(&b);
        if (check(&b, sizeof(b.header), &fault) < 0)
                fail_msg("%s", fault.text);
}

static void test_each_length(void **state) {
        _cleanup_(freep) struct block *b = good();
        struct fault fault;

        (void)state;
        for (size_t n = 0; n < sizeof(*b); n++)
                assert_int_equal(check(b, n, &fault), -EBADMSG);
}

/*
 * As is, each changed byte is found. With the checksum made right again some are accepted, such as
 * an inode: what is accepted was looked at to its end, under a sanitizer.
 */
static void test_each_byte(void **state) {
        _cleanup_(freep) struct block *b = good(), *original = good();
        size_t n_accepted = 0;
        struct fault fault;

        (void)state;
        for (size_t i = 0; i < sizeof(*b); i++)
                for (unsigned change = 1; change < 256; change = change * 2 + 1) {
                        ((uint8_t *)b)[i] ^= (uint8_t)change;
                        assert_true(check(b, sizeof(*b), &fault) < 0);
                        /* Sealing goes by the counts, which must be those of the block. */
                        if (handover_state_bytes(b->header.n_tables, b->header.n_sessions,
                                                 b->header.n_uses) == sizeof(*b)) {
                                handover_state_seal(b);
                                n_accepted += check(b, sizeof(*b), &fault) >= 0;
                                b->header = original->header;
                        }
                        ((uint8_t *)b)[i] = ((uint8_t *)original)[i];
                }
        assert_int_equal(check(b, sizeof(*b), &fault), 0);
        assert_true(n_accepted > 100);
}

/* ---- One defect each, under a right checksum ---- */

static void reserved(struct block *b) {
        b->header.reserved = 1;
}
static void reserved_too(struct block *b) {
        b->header.reserved_too = 1;
}
static void generation_0(struct block *b) {
        b->tables[0].generation = 0;
}
static void generation_future(struct block *b) {
        b->tables[1].generation = 10;
}
static void generation_twice(struct block *b) {
        b->tables[1].generation = 8;
}
static void published_twice(struct block *b) {
        b->tables[0].published = 1;
}
static void published_2(struct block *b) {
        b->tables[0].published = 2;
}
static void origin(struct block *b) {
        b->tables[1].origin = STORE_FOLDER + 1;
}
static void name_unterminated(struct block *b) {
        memset(b->tables[0].name, 'a', sizeof(b->tables[0].name));
}
static void name_of_a_path(struct block *b) {
        strcpy(b->tables[0].name, "../words");
}
static void name_with_more_behind(struct block *b) {
        b->tables[0].name[100] = 'a';
}
static void path_unterminated(struct block *b) {
        memset(b->tables[1].path, 'a', sizeof(b->tables[1].path));
}
static void path_empty(struct block *b) {
        memset(b->tables[1].path, 0, sizeof(b->tables[1].path));
}
static void id_0(struct block *b) {
        b->sessions[0].id = 0;
}
static void id_twice(struct block *b) {
        b->sessions[1].id = 10;
}
static void id_future(struct block *b) {
        b->sessions[2].id = 31;
}
static void client_unterminated(struct block *b) {
        memset(b->sessions[2].name, 'a', sizeof(b->sessions[2].name));
}
static void entries(struct block *b) {
        b->sessions[1].geometry.sq_entries = 7;
}
static void arena(struct block *b) {
        b->sessions[1].geometry.arena_bytes = UINT64_MAX;
}
static void nonce(struct block *b) {
        b->sessions[0].last_nonce = UINT64_MAX;
}
static void uses_of_next(struct block *b) {
        b->sessions[2].n_uses = 3;
}
static void uses_without_number(struct block *b) {
        b->sessions[2].n_uses = UINT32_MAX;
}
static void use_of_nobody(struct block *b) {
        b->sessions[2].n_uses = 1;
}
static void handle_0(struct block *b) {
        b->uses[0].handle = 0;
}
static void handle_without_nonce(struct block *b) {
        b->uses[0].handle = 5;
}
static void handle_future(struct block *b) {
        b->uses[0].handle = UINT64_C(256) * 3;
}
static void handle_twice(struct block *b) {
        b->uses[3].handle = 256;
}
static void table_past_end(struct block *b) {
        b->uses[3].table = N_TABLES;
}
static void use_reserved(struct block *b) {
        b->uses[2].reserved = 1;
}

static void test_each_defect(void **state) {
        static const struct {
                void (*spoil)(struct block *block);
                const char *says;
        } defects[] = {
                { reserved, "its header is wrong" },
                { reserved_too, "its header is wrong" },
                { generation_0, "of table 0 this is wrong: generation" },
                { generation_future, "of table 1 this is wrong: generation" },
                { generation_twice, "of table 1 this is wrong: generation, which another one has" },
                { published_twice, "of table 1 this is wrong: name, which another one has" },
                { published_2, "of table 0 this is wrong: published" },
                { origin, "of table 1 this is wrong: origin" },
                { name_unterminated, "of table 0 this is wrong: name" },
                { name_of_a_path, "of table 0 this is wrong: name" },
                { name_with_more_behind, "of table 0 this is wrong: name" },
                { path_unterminated, "of table 1 this is wrong: path" },
                { path_empty, "of table 1 this is wrong: path" },
                { id_0, "of session 0 this is wrong: id" },
                { id_twice, "of session 1 this is wrong: id" },
                { id_future, "of session 2 this is wrong: id" },
                { client_unterminated, "of session 2 this is wrong: name" },
                { entries, "of session 1 this is wrong: geometry" },
                { arena, "of session 1 this is wrong: geometry" },
                { nonce, "of session 0 this is wrong: last_nonce" },
                { uses_of_next, "of session 2 this is wrong: n_uses" },
                { uses_without_number, "of session 2 this is wrong: n_uses" },
                { use_of_nobody, "it has 4 uses of tables, expected 3" },
                { handle_0, "of session 0 this is wrong: handle" },
                { handle_without_nonce, "of session 0 this is wrong: handle" },
                { handle_future, "of session 0 this is wrong: handle" },
                { handle_twice, "of session 2 this is wrong: handle" },
                { table_past_end, "of session 2 this is wrong: table" },
                { use_reserved, "of session 2 this is wrong: table" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(defects); i++) {
                _cleanup_(freep) struct block *b = good();
                struct fault fault = { 0 };

                defects[i].spoil(b);
                handover_state_seal(b);
                assert_int_equal(check(b, sizeof(*b), &fault), -EBADMSG);
                assert_string_equal(fault.text, defects[i].says);
        }
}

static void test_other_version(void **state) {
        _cleanup_(freep) struct block *b = good();
        struct fault fault = { 0 };

        (void)state;
        b->header.version = 2;
        /* Before its length, which may mean something else there. */
        assert_int_equal(check(b, sizeof(b->header), &fault), -EPROTONOSUPPORT);
        assert_string_equal(fault.text, "its version is 2, expected 1");
}

/* Counts whose product would be the right length again. */
static void test_counts(void **state) {
        _cleanup_(freep) struct block *b = good();
        struct fault fault = { 0 };

        (void)state;
        b->header.n_tables = UINT32_MAX;
        b->header.n_sessions = UINT32_MAX;
        b->header.n_uses = UINT32_MAX;
        assert_int_equal(check(b, sizeof(*b), &fault), -EBADMSG);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),        cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_each_length), cmocka_unit_test(test_each_byte),
                cmocka_unit_test(test_each_defect), cmocka_unit_test(test_other_version),
                cmocka_unit_test(test_counts),
        };

        return cmocka_run_group_tests_name("handover-state", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The allocator against a model that marks every unit of the arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"
#include "random.h"

static void test_bottom_first(void **state) {
        struct arena_block a, b, c;
        struct arena arena;

        (void)state;
        arena_init(&arena, 4096, 64);
        assert_int_equal(arena_alloc(&arena, 100, &a), 0);
        assert_int_equal(a.offset, 0);
        assert_int_equal(a.bytes, 128);
        assert_int_equal(arena_alloc(&arena, 100, &b), 0);
        assert_int_equal(b.offset, 128);
        /* Two in flight keep to the same two places. */
        arena_free(&arena, &a);
        assert_int_equal(arena_alloc(&arena, 128, &c), 0);
        assert_int_equal(c.offset, 0);
        arena_free(&arena, &b);
        arena_free(&arena, &c);
        assert_int_equal(arena_alloc(&arena, 1, &a), 0);
        assert_int_equal(a.offset, 0);
}

static void test_limits(void **state) {
        struct arena_block a, b;
        struct arena arena;

        (void)state;
        arena_init(&arena, 4096, 64);
        assert_int_equal(arena_alloc(&arena, 4097, &a), -EMSGSIZE);
        assert_int_equal(arena_alloc(&arena, UINT64_MAX, &a), -EMSGSIZE);
        assert_int_equal(arena_alloc(&arena, 4096, &a), 0);
        assert_int_equal(arena_alloc(&arena, 1, &b), -EAGAIN);
        arena_free(&arena, &a);
        assert_int_equal(arena_alloc(&arena, 4033, &a), 0);
        assert_int_equal(arena_alloc(&arena, 1, &b), -EAGAIN); /* rounding took the rest */
}

static void test_gap(void **state) {
        struct arena_block blocks[4], d;
        struct arena arena;

        (void)state;
        arena_init(&arena, 256, 64);
        for (size_t i = 0; i < 4; i++)
                assert_int_equal(arena_alloc(&arena, 64, &blocks[i]), 0);
        arena_free(&arena, &blocks[1]);
        arena_free(&arena, &blocks[2]);
        assert_int_equal(arena_alloc(&arena, 129, &d), -EAGAIN);
        assert_int_equal(arena_alloc(&arena, 128, &d), 0);
        assert_int_equal(d.offset, 64);
}

/* Random sizes, released in random order: never an overlap, never a refusal where a gap fits. */
static void test_model(void **state) {
        enum { UNITS = 64, BLOCKS = 24 };
        struct arena_block blocks[BLOCKS];
        bool used[BLOCKS] = { false };
        uint8_t owner[UNITS] = { 0 };
        struct arena arena;
        uint32_t seed = 20251;

        (void)state;
        print_message("# seed %u\n", seed);
        arena_init(&arena, UNITS * 8, 8);
        for (int step = 0; step < 200000; step++) {
                size_t i = test_random(&seed) % BLOCKS;
                uint64_t bytes = 1 + test_random(&seed) % 96, n = (bytes + 7) / 8, run = 0, at = 0;
                int r;

                if (used[i]) {
                        for (uint64_t u = 0; u < blocks[i].bytes / 8; u++)
                                owner[blocks[i].offset / 8 + u] = 0;
                        arena_free(&arena, &blocks[i]);
                        used[i] = false;
                        continue;
                }
                for (; at < UNITS && run < n; at++)
                        run = owner[at] ? 0 : run + 1;
                r = arena_alloc(&arena, bytes, &blocks[i]);
                assert_int_equal(r, run == n ? 0 : -EAGAIN);
                if (r < 0)
                        continue;
                assert_int_equal(blocks[i].offset, (at - n) * 8);
                assert_int_equal(blocks[i].bytes, n * 8);
                memset(&owner[at - n], 1, n);
                used[i] = true;
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bottom_first),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_gap),
                cmocka_unit_test(test_model),
        };

        return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}

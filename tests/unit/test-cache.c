/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded rows in shared memory: the daemon's writer and the library's reader, one against the
 * other. Both sides use one mapping here, so that ThreadSanitizer sees them meet.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "daemon/cache.h"
#include "lib/row-cache.h"
#include "proto/table.h"
#include "random.h"

static struct cache *make_cache(uint32_t n_sets, uint32_t n_dims, uint64_t n_rows) {
        const struct table_header h = { .n_rows = n_rows, .n_dims = n_dims };
        uint64_t row_bytes = align_up(n_dims * sizeof(float), 64);
        struct cache *cache = NULL;

        assert_int_equal(cache_new(n_sets * (CACHE_WAYS * row_bytes + 64), &h, &cache, NULL), 0);
        assert_non_null(cache);
        assert_int_equal(cache->layout.n_sets, n_sets);
        return cache;
}

static struct row_cache reader_of(const struct cache *cache) {
        return (struct row_cache){ .layout = cache->layout, .memory = cache->memory };
}

/* Value i of the row of an id: no two rows share one. */
static float value_of(uint64_t id, uint32_t i) {
        return (float)(id * 131 % 65521) + (float)i / 4096;
}

static void make_row(uint64_t id, uint32_t n_dims, float *ret_values) {
        for (uint32_t i = 0; i < n_dims; i++)
                ret_values[i] = value_of(id, i);
}

static bool row_is(uint64_t id, uint32_t n_dims, const float *values) {
        for (uint32_t i = 0; i < n_dims; i++)
                if (values[i] != value_of(id, i))
                        return false;
        return true;
}

static void put(struct cache *cache, uint64_t id) {
        float row[400];

        make_row(id, cache->layout.n_dims, row);
        cache_put(cache, id, row);
}

static bool holds(const struct cache *cache, uint64_t id) {
        const struct row_cache reader = reader_of(cache);
        float row[400];
        uint32_t slot;

        return row_cache_read(&reader, id, row, &slot) && row_is(id, cache->layout.n_dims, row);
}

/* ---- One at a time ---- */

static void test_rows_of_every_width(void **state) {
        const uint32_t widths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 385 };
        const uint64_t largest = TABLE_ROWS_MAX - 1;

        (void)state;
        for (size_t w = 0; w < ARRAY_SIZE(widths); w++) {
                struct cache *cache = make_cache(16, widths[w], TABLE_ROWS_MAX);
                const struct row_cache reader = reader_of(cache);
                const uint64_t ids[] = { 0, 1, 2, 1000, largest };
                float row[400];
                uint32_t slot;

                for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
                        assert_false(holds(cache, ids[i]));
                        put(cache, ids[i]);
                        row[widths[w]] = 77;
                        assert_true(row_cache_read(&reader, ids[i], row, &slot));
                        assert_true(row_is(ids[i], widths[w], row));
                        assert_true(row[widths[w]] == 77); /* and not a value more */
                }
                assert_int_equal(cache->n_insertions, ARRAY_SIZE(ids));
                put(cache, 2); /* is there */
                assert_int_equal(cache->n_insertions, ARRAY_SIZE(ids));
                cache_free(cache);
        }
}

static void test_unaligned_output(void **state) {
        struct cache *cache = make_cache(1, 5, 10);
        const struct row_cache reader = reader_of(cache);
        float rows[8];
        uint32_t slot;

        (void)state;
        put(cache, 3);
        assert_true(row_cache_read(&reader, 3, rows + 1, &slot));
        assert_true(row_is(3, 5, rows + 1));
        cache_free(cache);
}

/* A row enters at its second miss; a scan, however long, leaves next to nothing. */
static void test_admission(void **state) {
        struct cache *cache = make_cache(64, 16, UINT64_C(1) << 30);
        uint64_t ids[CACHE_FILL_MAX], one[] = { 17 }, same[] = { 5, 6, 5, 5, 7 };
        uint32_t n = 0;

        (void)state;
        assert_int_equal(cache_admit(cache, one, 1, ids, CACHE_FILL_MAX), 0);
        assert_int_equal(cache_admit(cache, one, 1, ids, CACHE_FILL_MAX), 1);
        assert_int_equal(ids[0], 17);
        assert_int_equal(cache_admit(cache, one, 1, ids, CACHE_FILL_MAX), 0); /* starts over */
        put(cache, 17);
        for (int i = 0; i < 5; i++)
                assert_int_equal(cache_admit(cache, one, 1, ids, CACHE_FILL_MAX), 0);

        assert_int_equal(cache_admit(cache, same, ARRAY_SIZE(same), ids, CACHE_FILL_MAX), 1);
        assert_int_equal(ids[0], 5);

        for (uint64_t id = 100; id < 1000100; id++)
                n += cache_admit(cache, &id, 1, ids, CACHE_FILL_MAX);
        assert_in_range(n, 0, 60); /* by chance: two of them with one fingerprint, 2^-15 each */

        /* Never more than there is room for, and nothing outside the table. */
        for (int i = 0; i < 2; i++)
                n = cache_admit(cache, (uint64_t[]){ 31, 32, 33, 34 }, 4, ids, 3);
        assert_int_equal(n, 3);
        for (int i = 0; i < 3; i++)
                assert_int_equal(cache_admit(cache, &(uint64_t){ UINT64_MAX }, 1, ids, 1), 0);
        cache_free(cache);
}

/* Rows that clients hint at outlive others; without hints it is first in, first out. */
static void test_eviction(void **state) {
        struct cache *cache = make_cache(1, 4, 1000);
        const struct row_cache reader = reader_of(cache);
        float row[4];
        uint32_t slot;

        (void)state;
        for (uint64_t id = 0; id < CACHE_WAYS; id++)
                put(cache, id);
        for (uint64_t id = 100; id < 100 + 50 * CACHE_WAYS; id++) {
                assert_true(row_cache_read(&reader, 3, row, &slot));
                cache_hint(cache, slot);
                put(cache, id);
                assert_true(holds(cache, id));
        }
        assert_true(holds(cache, 3));
        assert_false(holds(cache, 2));
        assert_int_equal(cache->n_evictions, 50 * CACHE_WAYS);
        for (uint64_t id = 900; id < 900 + 2 * CACHE_WAYS; id++)
                put(cache, id);
        assert_false(holds(cache, 3)); /* nobody hinted any more */
        for (uint64_t id = 900 + CACHE_WAYS; id < 900 + 2 * CACHE_WAYS; id++)
                assert_true(holds(cache, id));

        /* All of use: somebody has to go all the same. */
        for (uint64_t i = 0; i < CACHE_WAYS; i++)
                cache_hint(cache, i);
        put(cache, 500);
        assert_true(holds(cache, 500));
        /* A hint is any number. */
        cache_hint(cache, CACHE_WAYS);
        cache_hint(cache, UINT32_MAX);
        cache_hint(cache, UINT64_MAX);
        cache_free(cache);
}

/* Readers see 0 as "never anything", so a sequence that wraps leaves it out. */
static void test_sequence_wraps(void **state) {
        struct cache *cache = make_cache(1, 4, 1000);
        _Atomic uint64_t *words = (void *)cache->memory;

        (void)state;
        for (uint64_t id = 0; id < CACHE_WAYS; id++)
                put(cache, id);
        for (uint32_t way = 0; way < CACHE_WAYS; way++)
                words[way] = (words[way] & ~CACHE_SEQUENCE_MASK) | (CACHE_SEQUENCE_MASK - 1);
        for (uint64_t id = 0; id < CACHE_WAYS; id++)
                assert_true(holds(cache, id));
        for (uint64_t id = 100; id < 100 + CACHE_WAYS; id++) {
                put(cache, id);
                assert_true(holds(cache, id));
        }
        for (uint32_t way = 0; way < CACHE_WAYS; way++)
                assert_int_equal(words[way] & CACHE_SEQUENCE_MASK, 2);
        cache_free(cache);
}

/* A row that is being written is not there. */
static void test_half_written(void **state) {
        struct cache *cache = make_cache(1, 4, 1000);
        _Atomic uint64_t *words = (void *)cache->memory;

        (void)state;
        put(cache, 9);
        words[0]++;
        assert_false(holds(cache, 9));
        words[0]++;
        assert_true(holds(cache, 9));
        cache_free(cache);
}

/* Whoever has the descriptor can read, and nothing else, by no way. */
static void test_seals(void **state) {
        struct cache *cache = make_cache(2, 16, 1000);
        struct row_cache reader;
        struct stat st;
        char path[64];
        float row[16];
        uint32_t slot;
        int fd;

        (void)state;
        assert_int_equal(row_cache_init(&reader, cache->fd, 2, 16, NULL), 0);
        put(cache, 9);
        assert_true(row_cache_read(&reader, 9, row, &slot));
        assert_true(row_is(9, 16, row));
        assert_int_equal(mprotect((void *)reader.memory, 4096, PROT_READ | PROT_WRITE), -1);
        row_cache_deinit(&reader);

        snprintf(path, sizeof(path), "/proc/self/fd/%d", cache->fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, cache->layout.cache_bytes);
        close(fd);
        put(cache, 10); /* the daemon still can */
        assert_true(holds(cache, 10));
        cache_free(cache);
}

static void test_sizes(void **state) {
        struct table_header h = { .n_rows = 100, .n_dims = 16, .file_bytes = 1 << 20 };
        struct cache_layout layout;
        struct cache *cache = (void *)1;
        struct fault fault;

        (void)state;
        assert_int_equal(cache_new(0, &h, &cache, NULL), 0);
        assert_null(cache);
        assert_int_equal(cache_new(575, &h, &cache, NULL), 0); /* a set is 8 x 64 + 64 bytes */
        assert_null(cache);
        assert_int_equal(cache_new(UINT64_C(1) << 40, &h, &cache, NULL), 0);
        assert_int_equal(cache->layout.n_sets, 26); /* never more than the table can use */
        cache_free(cache);

        assert_int_equal(cache_auto_bytes(&h), 0); /* nothing to gain */
        h.latent_dims = 4;
        assert_int_equal(cache_auto_bytes(&h), 8 << 20);
        h.file_bytes = 10 << 20;
        assert_int_equal(cache_auto_bytes(&h), 10 << 20);
        h.file_bytes = UINT64_C(1) << 40;
        assert_int_equal(cache_auto_bytes(&h), 64 << 20);

        assert_int_equal(cache_layout_compute(0, 16, &layout, &fault), -EINVAL);
        assert_non_null(strstr(fault.text, "a cache of 0 sets"));
        assert_int_equal(cache_layout_compute(CACHE_SETS_MAX + 1, 16, &layout, NULL), -EINVAL);
        assert_int_equal(cache_layout_compute(1, 0, &layout, NULL), -EINVAL);
        assert_int_equal(cache_layout_compute(1, TABLE_DIMS_MAX + 1, &layout, NULL), -EINVAL);
        assert_int_equal(cache_layout_compute(CACHE_SETS_MAX, TABLE_DIMS_MAX, &layout, &fault),
                         -EINVAL);
        assert_non_null(strstr(fault.text, "expected at most"));
}

/* ---- At the same time ---- */

#define N_IDS     48u
#define N_DIMS    333u
#define N_READERS 3u
#define N_WRITERS 2u

struct run {
        struct cache *cache;
        _Atomic uint32_t n_writing;
        _Atomic uint64_t n_read, n_wrong;
        uint32_t n_turns;
};

static void *write_rows(void *userdata) {
        struct run *run = userdata;
        uint32_t seed = 1 + run->n_writing; /* differs or not: all the same */
        float row[N_DIMS];

        for (uint32_t i = 0; i < run->n_turns; i++) {
                uint64_t id = test_random(&seed) % N_IDS;

                make_row(id, N_DIMS, row);
                cache_put(run->cache, id, row);
                cache_hint(run->cache, test_random(&seed) % 64);
        }
        run->n_writing--;
        return NULL;
}

static void *read_rows(void *userdata) {
        struct run *run = userdata;
        const struct row_cache reader = reader_of(run->cache);
        uint32_t seed = 99, slot;
        float row[N_DIMS];

        while (run->n_writing) {
                uint64_t id = test_random(&seed) % N_IDS;

                if (!row_cache_read(&reader, id, row, &slot))
                        continue;
                run->n_read++;
                run->n_wrong += !row_is(id, N_DIMS, row);
        }
        return NULL;
}

/* 48 rows through 16 slots, replaced all the time by two threads while three read: what a reader
 * accepts is whole. */
static void test_readers_beside_writers(void **state) {
        struct run run = { .cache = make_cache(2, N_DIMS, N_IDS), .n_writing = N_WRITERS };
        pthread_t threads[N_READERS + N_WRITERS];

        (void)state;
        run.n_turns = 60000;
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL,
                                                i < N_WRITERS ? write_rows : read_rows, &run),
                                 0);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                pthread_join(threads[i], NULL);
        print_message("# %llu rows read, %llu put in, %llu thrown out\n",
                      (unsigned long long)run.n_read, (unsigned long long)run.cache->n_insertions,
                      (unsigned long long)run.cache->n_evictions);
        assert_int_equal(run.n_wrong, 0);
        assert_true(run.n_read > 100);
        assert_true(run.cache->n_evictions > 1000);
        cache_free(run.cache);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows_of_every_width),
                cmocka_unit_test(test_unaligned_output),
                cmocka_unit_test(test_admission),
                cmocka_unit_test(test_eviction),
                cmocka_unit_test(test_sequence_wraps),
                cmocka_unit_test(test_half_written),
                cmocka_unit_test(test_seals),
                cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_readers_beside_writers),
        };

        return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}

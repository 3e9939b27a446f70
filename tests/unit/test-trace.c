/* SPDX-License-Identifier: Apache-2.0 */
/* What carvq-trace does outside the kernel: the buckets of its histograms, and which files a
 * process has mapped where, by the example of this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tools/trace/target.h"

#define PAGE UINT64_C(4096)

static void test_buckets(void **state) {
        (void)state;
        for (uint32_t i = 0; i + 1 < BUCKETS_N; i++) {
                uint64_t end = bucket_end(i);

                assert_int_equal(bucket_of(end), i);
                assert_int_equal(bucket_of(end + 1), i + 1);
                if (i >= 8) /* no wider than an eighth of what is in it */
                        assert_true((end - bucket_end(i - 1) - 1) * 8 <= bucket_end(i - 1) + 1);
        }
        assert_int_equal(bucket_of(0), 0);
        assert_int_equal(bucket_of(UINT64_C(1) << 40), BUCKETS_N - 1);
        assert_int_equal(bucket_of(UINT64_MAX), BUCKETS_N - 1);
}

/* ---- Files ---- */

struct fixture {
        char folder[32], path[64];
        struct target_files files;
        struct ranges ranges;
};

static int set_up(void **state) {
        struct fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        strcpy(f->folder, "/tmp/test-trace-XXXXXX");
        assert_non_null(mkdtemp(f->folder));
        f->files.pid = getpid();
        *state = f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;

        target_files_deinit(&f->files);
        unlink(f->path);
        rmdir(f->folder);
        free(f);
        return 0;
}

static uint8_t *map_file(struct fixture *f, const char *name, uint64_t n_pages, int flags) {
        uint8_t *map;
        int fd;

        snprintf(f->path, sizeof(f->path), "%s/%s", f->folder, name);
        fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0 && ftruncate(fd, (off_t)(n_pages * PAGE)) == 0);
        map = mmap(NULL, n_pages * PAGE, PROT_READ, flags, fd, 0);
        assert_true(map != MAP_FAILED);
        close(fd);
        return map;
}

static void refresh(struct fixture *f) {
        struct fault fault = { 0 };

        if (target_files_refresh(&f->files, &f->ranges, &fault) < 0)
                fail_msg("%s", fault.text);
}

/* The file at an address, as the programs in the kernel will find it; NULL: none. */
static const struct target_file *file_at(const struct fixture *f, const uint8_t *address) {
        uint32_t active = f->ranges.active;

        for (uint32_t i = 0; i < f->ranges.n[active]; i++) {
                const struct range *r = &f->ranges.list[active][i];

                if (i)
                        assert_true(r->start >= f->ranges.list[active][i - 1].end);
                if ((uintptr_t)address >= r->start && (uintptr_t)address < r->end)
                        return &f->files.list[r->file];
        }
        return NULL;
}

static void test_comes_and_goes(void **state) {
        struct fixture *f = *state;
        uint32_t n_before;
        uint8_t *map;

        refresh(f);
        n_before = f->files.n;
        map = map_file(f, "a.carvq", 3, MAP_SHARED);
        assert_null(file_at(f, map));
        refresh(f);
        assert_int_equal(f->files.n, n_before + 1);
        assert_string_equal(file_at(f, map)->path, f->path);
        assert_ptr_equal(file_at(f, map + 3 * PAGE - 1), file_at(f, map));

        refresh(f); /* nothing is new */
        assert_int_equal(f->files.n, n_before + 1);

        munmap(map, 3 * PAGE);
        refresh(f);
        assert_null(file_at(f, map));
        assert_int_equal(f->files.n, n_before + 1); /* what was counted for it stays its own */
}

static void test_replaced(void **state) {
        struct fixture *f = *state;
        const struct target_file *file;
        uint8_t *map;

        map = map_file(f, "a.carvq", 1, MAP_SHARED);
        refresh(f);
        file = file_at(f, map);
        assert_int_equal(unlink(f->path), 0);
        refresh(f);
        assert_ptr_equal(file_at(f, map), file);
        assert_non_null(strstr(file->path, "(deleted)"));
        munmap(map, PAGE);
}

/* Libraries are private, rings and caches memfds or writable. */
static void test_not_a_table(void **state) {
        struct fixture *f = *state;
        int memfd = memfd_create("a.carvq", MFD_CLOEXEC);
        uint8_t *shared, *private = map_file(f, "a.carvq", 1, MAP_PRIVATE);

        assert_true(memfd >= 0 && ftruncate(memfd, PAGE) == 0);
        shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, memfd, 0);
        assert_true(shared != MAP_FAILED);
        refresh(f);
        assert_null(file_at(f, private));
        assert_null(file_at(f, shared));
        assert_null(file_at(f, (const uint8_t *)f));
        munmap(private, PAGE);
        munmap(shared, PAGE);
        close(memfd);
}

static void test_odd_names(void **state) {
        static const char *const names[] = { "with spaces and (deleted)", "red\033[31m",
                                             "two\nlines", "r--s 00000000" };
        struct fixture *f = *state;

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                uint8_t *map = map_file(f, names[i], 1, MAP_SHARED);
                const struct target_file *file;

                refresh(f);
                file = file_at(f, map);
                assert_non_null(file);
                assert_null(strpbrk(file->path, "\033\n"));
                assert_int_equal(strncmp(file->path, f->folder, strlen(f->folder)), 0);
                munmap(map, PAGE);
                unlink(f->path);
        }
}

/* More than there is room for: those that were there first are watched, the others are counted. */
static void test_many(void **state) {
        struct fixture *f = *state;
        uint8_t *map;
        uint32_t n_before;

        refresh(f);
        n_before = f->files.n;
        map = map_file(f, "a.carvq", 2 * FILES_N + 8, MAP_SHARED);
        /* Every other page differs from its neighbours, so that each is a mapping of its own. */
        for (uint64_t i = 0; i < FILES_N + 4; i++)
                assert_int_equal(mprotect(map + 2 * i * PAGE, PAGE, PROT_NONE), 0);
        refresh(f);
        assert_int_equal(f->files.n, FILES_N);
        assert_int_equal(f->ranges.n[f->ranges.active], FILES_N);
        assert_int_equal(f->files.n_unwatched, n_before + 4);
        refresh(f);
        assert_int_equal(f->files.n_unwatched, n_before + 4);
        assert_null(file_at(f, map));
        assert_non_null(file_at(f, map + PAGE));
        munmap(map, (2 * FILES_N + 8) * PAGE);
        refresh(f);
        assert_null(file_at(f, map + PAGE));
}

static void test_no_process(void **state) {
        struct fixture *f = *state;
        struct fault fault = { 0 };

        f->files.pid = INT32_MAX - 1;
        assert_int_equal(target_files_refresh(&f->files, &f->ranges, &fault), -ENOENT);
        assert_string_equal(fault.text, "/proc/2147483646/maps: No such file or directory");
}

#define FILE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_buckets), FILE_TEST(test_comes_and_goes),
                FILE_TEST(test_replaced),       FILE_TEST(test_not_a_table),
                FILE_TEST(test_odd_names),      FILE_TEST(test_many),
                FILE_TEST(test_no_process),
        };

        return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}

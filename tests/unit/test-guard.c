/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that survives SIGBUS: work on a mapping of a file that was cut ends, as often as it
 * happens and on any thread; a fault anywhere else ends the process as ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "daemon/guard.h"

#define PAGE      4096u
#define PAGES     16u
#define THREADS_N 8u

/* A mapping of a file that nobody else knows; `n_pages` of it are still there. */
static const uint8_t *map_cut_file(size_t n_pages) {
        int fd = memfd_create("guard", MFD_CLOEXEC);
        void *map;

        assert_true(fd >= 0 && ftruncate(fd, PAGES * PAGE) >= 0);
        map = mmap(NULL, PAGES * PAGE, PROT_READ, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(map, MAP_FAILED);
        assert_int_equal(ftruncate(fd, (off_t)(n_pages * PAGE)), 0);
        close(fd);
        return map;
}

struct walk {
        const uint8_t *map;
        size_t n_pages;
        volatile size_t n_read;
};

static void walk(void *userdata) {
        struct walk *w = userdata;

        for (size_t i = 0; i < w->n_pages; i++) {
                (void)*(const volatile uint8_t *)(w->map + i * PAGE);
                w->n_read++;
        }
}

static void test_whole(void **state) {
        struct walk w = { .map = map_cut_file(PAGES), .n_pages = PAGES };

        (void)state;
        guard_install();
        assert_true(guard_run(w.map, PAGES * PAGE, walk, &w));
        assert_int_equal(w.n_read, PAGES);
        munmap((void *)(uintptr_t)w.map, PAGES * PAGE);
}

/* The mask is as before each time, so that the next fault is delivered, too. */
static void test_cut(void **state) {
        const uint8_t *map = map_cut_file(3);
        sigset_t before, after;

        (void)state;
        guard_install();
        pthread_sigmask(SIG_SETMASK, NULL, &before);
        for (int i = 0; i < 100; i++) {
                struct walk w = { .map = map, .n_pages = PAGES };

                assert_false(guard_run(map, PAGES * PAGE, walk, &w));
                assert_int_equal(w.n_read, 3);
        }
        pthread_sigmask(SIG_SETMASK, NULL, &after);
        for (int signal_number = 1; signal_number < SIGRTMIN; signal_number++)
                assert_int_equal(sigismember(&before, signal_number),
                                 sigismember(&after, signal_number));
        munmap((void *)(uintptr_t)map, PAGES * PAGE);
}

/* Every thread has a guard of its own: half of the files are whole. */
static void *run_many(void *userdata) {
        const size_t n_pages = (uintptr_t)userdata;
        const uint8_t *map = map_cut_file(n_pages);
        uintptr_t n_wrong = 0;

        for (int i = 0; i < 2000; i++) {
                struct walk w = { .map = map, .n_pages = PAGES };

                n_wrong += guard_run(map, PAGES * PAGE, walk, &w) != (n_pages == PAGES);
                n_wrong += w.n_read != n_pages;
        }
        munmap((void *)(uintptr_t)map, PAGES * PAGE);
        return (void *)n_wrong;
}

static void test_threads(void **state) {
        pthread_t threads[THREADS_N];
        void *n_wrong;

        (void)state;
        guard_install();
        for (uintptr_t i = 0; i < THREADS_N; i++)
                assert_int_equal(
                        pthread_create(&threads[i], NULL, run_many, (void *)(i % 2 ? PAGES : i)),
                        0);
        for (size_t i = 0; i < THREADS_N; i++) {
                pthread_join(threads[i], &n_wrong);
                assert_null(n_wrong);
        }
}

/* Returns if nothing happens. */
typedef void misdeed(const uint8_t *cut, const uint8_t *whole);

static void die_of(misdeed *work) {
        const uint8_t *cut = map_cut_file(0), *whole = map_cut_file(PAGES);
        const struct rlimit no_core = { 0 };
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                setrlimit(RLIMIT_CORE, &no_core);
                guard_install();
                work(cut, whole);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGBUS);
        munmap((void *)(uintptr_t)cut, PAGES * PAGE);
        munmap((void *)(uintptr_t)whole, PAGES * PAGE);
}

static void read_unguarded(const uint8_t *cut, const uint8_t *whole) {
        (void)whole;
        walk(&(struct walk){ .map = cut, .n_pages = 1 });
}

/* Another file than the guarded one: the table would be retired for what it has not done. */
static void read_another(const uint8_t *cut, const uint8_t *whole) {
        guard_run(whole, PAGES * PAGE, walk, &(struct walk){ .map = cut, .n_pages = 1 });
}

/* The range ends where it says. */
static void read_behind(const uint8_t *cut, const uint8_t *whole) {
        (void)whole;
        guard_run(cut, PAGE, walk, &(struct walk){ .map = cut + PAGE, .n_pages = 1 });
}

static void read_afterwards(const uint8_t *cut, const uint8_t *whole) {
        guard_run(cut, PAGES * PAGE, walk, &(struct walk){ .map = whole, .n_pages = 1 });
        walk(&(struct walk){ .map = cut, .n_pages = 1 });
}

/* And after a fault that was survived. */
static void read_again(const uint8_t *cut, const uint8_t *whole) {
        (void)whole;
        guard_run(cut, PAGES * PAGE, walk, &(struct walk){ .map = cut, .n_pages = 1 });
        walk(&(struct walk){ .map = cut, .n_pages = 1 });
}

static void test_anything_else_is_fatal(void **state) {
        (void)state;
        die_of(read_unguarded);
        die_of(read_another);
        die_of(read_behind);
        die_of(read_afterwards);
        die_of(read_again);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whole),
                cmocka_unit_test(test_cut),
                cmocka_unit_test(test_threads),
                cmocka_unit_test(test_anything_else_is_fatal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

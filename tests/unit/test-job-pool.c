/* SPDX-License-Identifier: Apache-2.0 */
/* What a pool of jobs keeps: the buffers of a few, whatever crowd there has been. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include "daemon/job.h"
#include "proto/ring.h"

#define CROWD_N   256u
#define KEPT_MAX  (UINT64_C(4) << 20)
#define IDS_BYTES (RING_IDS_MAX * sizeof(uint64_t))

/* As job_prepare() has them for a submission of so many ids. */
static void give_buffer(struct job *job, size_t n_ids) {
        if (job->words_size >= n_ids)
                return;
        free(job->words);
        job->words = malloc(n_ids * sizeof(*job->words));
        assert_non_null(job->words);
        job->words_size = n_ids;
}

/* All at once, each with as many ids as can be. */
static void come_and_go(struct job_pool *pool, size_t n_jobs, size_t n_ids) {
        struct job *jobs[CROWD_N];

        for (size_t i = 0; i < n_jobs; i++) {
                jobs[i] = job_new(pool);
                assert_non_null(jobs[i]);
                give_buffer(jobs[i], n_ids);
        }
        for (size_t i = 0; i < n_jobs; i++)
                assert_null(job_free(pool, jobs[i]));
}

static uint64_t kept_bytes(const struct job_pool *pool) {
        uint64_t n = 0;
        struct job *job;

        SLIST_FOREACH(job, &pool->jobs, link) {
                n += job->words_size * sizeof(*job->words);
        }
        return n;
}

static void test_crowd(void **state) {
        struct job_pool pool = { 0 };

        (void)state;
        for (int i = 0; i < 3; i++) {
                come_and_go(&pool, CROWD_N, RING_IDS_MAX);
                assert_in_range(kept_bytes(&pool), IDS_BYTES, KEPT_MAX);
                assert_int_equal(pool.n_bytes, kept_bytes(&pool));
        }
        job_pool_deinit(&pool);
}

/* In the daily run nothing is allocated: the same buffer comes back. */
static void test_few(void **state) {
        struct job_pool pool = { 0 };
        const uint64_t *words;

        (void)state;
        come_and_go(&pool, 4, RING_IDS_MAX);
        come_and_go(&pool, 4, RING_IDS_MAX);
        words = SLIST_FIRST(&pool.jobs)->words;
        assert_non_null(words);
        come_and_go(&pool, 1, 1);
        assert_int_equal(kept_bytes(&pool), 4 * IDS_BYTES);
        assert_int_equal(pool.n_bytes, 4 * IDS_BYTES);
        assert_ptr_equal(SLIST_FIRST(&pool.jobs)->words, words);
        job_pool_deinit(&pool);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_crowd),
                cmocka_unit_test(test_few),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

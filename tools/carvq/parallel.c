/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that live for one loop. Items are handed out by a shared counter; results belong to
 * items, so the order does not matter. Starting a thread costs some 20 us, which no loop here
 * notices.
 */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

struct loop {
        parallel_fn fn;
        void *userdata;
        size_t n_items;
        atomic_size_t next;
        atomic_bool failed;

        pthread_mutex_t lock; /* guards the three below */
        size_t bad_item;
        int r;
        struct fault fault;
};

struct worker {
        struct loop *loop;
        unsigned thread;
        pthread_t id;
};

static void loop_fail(struct loop *loop, size_t item, int r, const struct fault *fault) {
        pthread_mutex_lock(&loop->lock);
        if (loop->r == 0 || item < loop->bad_item) {
                loop->bad_item = item;
                loop->r = r;
                loop->fault = *fault;
        }
        pthread_mutex_unlock(&loop->lock);
        atomic_store_explicit(&loop->failed, true, memory_order_relaxed);
}

/* Items are taken in order, so when one fails every lower one has been taken and will be finished.
 */
static void *worker_run(void *userdata) {
        struct worker *worker = userdata;
        struct loop *loop = worker->loop;
        size_t item;

        while (!atomic_load_explicit(&loop->failed, memory_order_relaxed) &&
               (item = atomic_fetch_add_explicit(&loop->next, 1, memory_order_relaxed)) <
                       loop->n_items) {
                struct fault fault = { 0 };
                int r = loop->fn(loop->userdata, item, worker->thread, &fault);

                if (r < 0)
                        loop_fail(loop, item, r, &fault);
        }
        return NULL;
}

int parallel_for(unsigned n_threads, size_t n_items, parallel_fn fn, void *userdata,
                 struct fault *ret_fault) {
        struct loop loop = { .fn = fn, .userdata = userdata, .n_items = n_items };
        struct worker workers[PARALLEL_THREADS_MAX];
        unsigned n_started = 1;

        n_threads = (unsigned)MIN(MIN(n_threads, PARALLEL_THREADS_MAX), MAX(n_items, 1u));
        pthread_mutex_init(&loop.lock, NULL);
        workers[0] = (struct worker){ .loop = &loop };
        for (; n_started < n_threads; n_started++) {
                workers[n_started] = (struct worker){ .loop = &loop, .thread = n_started };
                /* Fewer threads than asked for give the same result, later. */
                if (pthread_create(&workers[n_started].id, NULL, worker_run, &workers[n_started]))
                        break;
        }
        worker_run(&workers[0]);
        for (unsigned i = 1; i < n_started; i++)
                pthread_join(workers[i].id, NULL);
        pthread_mutex_destroy(&loop.lock);

        if (loop.r < 0 && ret_fault)
                *ret_fault = loop.fault;
        return loop.r;
}

unsigned parallel_default_threads(void) {
        cpu_set_t cpus;

        if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
                return 1;
        return (unsigned)MIN(MAX(CPU_COUNT(&cpus), 1), (int)PARALLEL_THREADS_MAX);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See resident.h. madvise(2) and mlock2(2) say what the calls do to a mapping of a file. */
#include "resident.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "daemon.h"

#define STEP_BYTES (UINT64_C(64) << 20)

static void warn(const struct store_table *table) {
        log_fields(LOG_LEVEL_WARNING, (const char *[]){ "TABLE", table->name, NULL }, "table %s %s",
                   table->name, table->resident.problem.text);
}

static void advise_huge_pages(struct store_table *table) {
        const struct codec_file *file = &table->file;

        if (madvise((void *)(uintptr_t)file->map, file->map_bytes, MADV_HUGEPAGE) >= 0)
                return;
        fault_write(&table->resident.problem, "gets no huge pages: %s", strerror(errno));
        warn(table);
}

/* All or nothing, and at once: pages are locked as they come, and populating brings them. */
static void lock_pages(struct store_table *table) {
        const struct codec_file *file = &table->file;
        struct rlimit limit = { 0 };
        int error;

        if (mlock2(file->map, file->map_bytes, MLOCK_ONFAULT) >= 0) {
                table->resident.is_locked = true;
                return;
        }
        error = errno;
        getrlimit(RLIMIT_MEMLOCK, &limit);
        fault_write(&table->resident.problem,
                    "is not locked: %s; it has %" PRIu64 " bytes, and all locked memory of carvqd "
                    "may have %" PRIu64 " (LimitMEMLOCK= in the unit)",
                    strerror(error), file->map_bytes, (uint64_t)limit.rlim_cur);
        warn(table);
}

void resident_prepare(struct store_table *table) {
        if (table->options.huge_pages)
                advise_huge_pages(table);
        if (table->options.lock)
                lock_pages(table);
}

/*
 * Reading ahead first: tables are mapped with MADV_RANDOM, by which each fault brings one page. A
 * file that was cut is told from here, so that the loop hears of it while the step still has its
 * reference.
 */
static void step_work(struct chore *chore) {
        struct store_table *table = container_of(chore, struct store_table, resident.step);
        struct resident *resident = &table->resident;
        uint64_t at = resident->populated_bytes;
        uint8_t *map = (uint8_t *)(uintptr_t)table->file.map + at;

        resident->step_bytes = MIN(STEP_BYTES, table->file.map_bytes - at);
        madvise(map, resident->step_bytes, MADV_WILLNEED);
        resident->step_error =
                madvise(map, resident->step_bytes, MADV_POPULATE_READ) < 0 ? -errno : 0;
        if (resident->step_error == -EFAULT || resident->step_error == -EHWPOISON)
                store_table_fail(table); /* as a worker that met the same page */
}

static void post_step(struct store_table *table) {
        chores_post(table->resident.daemon->chores, &table->resident.step);
}

static void step_done(struct chore *chore) {
        struct store_table *table = container_of(chore, struct store_table, resident.step);
        struct resident *resident = &table->resident;
        struct daemon *daemon = resident->daemon;

        if (resident->step_error >= 0)
                resident->populated_bytes += resident->step_bytes;
        else if (!atomic_load_explicit(&table->failed, memory_order_relaxed)) {
                fault_write(&resident->problem, "is not populated: %s",
                            strerror(-resident->step_error));
                warn(table);
        }
        log_fields(LOG_LEVEL_DEBUG, (const char *[]){ "TABLE", table->name, NULL },
                   "table %s: %" PRIu64 " of %" PRIu64 " bytes populated", table->name,
                   resident->populated_bytes, table->file.map_bytes);
        if (resident->step_error >= 0 && resident->populated_bytes < table->file.map_bytes &&
            table->published && !daemon->stopping) {
                post_step(table);
                return;
        }
        resident->is_populating = false;
        daemon->n_populating--;
        store_table_unref(table);
        daemon_stop_if_done(daemon);
}

void resident_start(struct daemon *daemon, struct store_table *table) {
        if (!table->options.populate && !table->resident.is_locked)
                return;
        table->resident.daemon = daemon;
        table->resident.is_populating = true;
        table->resident.step.work = step_work;
        table->resident.step.done = step_done;
        store_table_ref(table);
        daemon->n_populating++;
        post_step(table);
}

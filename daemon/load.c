/* SPDX-License-Identifier: Apache-2.0 */
/* See load.h. The loop thread, but for load_work(). */
#include "load.h"

#include <string.h>
#include <sys/stat.h>

#include "daemon.h"
#include "proto/spin.h"
#include "resident.h"

struct load {
        struct chore chore; /* first */
        struct daemon *daemon;
        char *name, *path;
        struct load_request request;
        struct table_options options;
        struct store_table *current; /* a reference, or NULL */
        struct store_table *table;
        struct stat file; /* as it was opened, or just after */
        bool file_exists;
        int r, cache_r;
        struct fault fault, cache_fault;
};

static void load_free(struct load *load) {
        store_table_unref(load->current);
        free(load->name);
        free(load->path);
        free(load);
}

/* ---- Refusals ---- */

struct refusal *refusal_find(struct daemon *daemon, const char *name) {
        struct refusal *refusal;

        LIST_FOREACH(refusal, &daemon->refusals, link) {
                if (!strcmp(refusal->name, name))
                        return refusal;
        }
        return NULL;
}

struct refusal *refusal_free(struct refusal *refusal) {
        if (!refusal)
                return NULL;
        LIST_REMOVE(refusal, link);
        free(refusal->name);
        free(refusal->path);
        free(refusal);
        return NULL;
}

void refusals_free(struct daemon *daemon) {
        while (!LIST_EMPTY(&daemon->refusals))
                refusal_free(LIST_FIRST(&daemon->refusals));
}

/* For the same reason as before it is the same refusal, and as old. Returns whether it is a new
 * one. Without memory it is in the log only. */
static bool refuse(const struct load *load) {
        struct refusal *refusal = refusal_find(load->daemon, load->name);

        if (refusal && !strcmp(refusal->path, load->path) &&
            !strcmp(refusal->reason, load->fault.text))
                return false;
        refusal_free(refusal);
        refusal = calloc(1, sizeof(*refusal));
        if (!refusal)
                return true;
        LIST_INSERT_HEAD(&load->daemon->refusals, refusal, link);
        refusal->name = strdup(load->name);
        refusal->path = strdup(load->path);
        if (!refusal->name || !refusal->path) {
                refusal_free(refusal);
                return true;
        }
        refusal->origin = load->request.origin;
        strcpy(refusal->reason, load->fault.text);
        refusal->since_ns = clock_ns();
        return true;
}

/* ---- On the chore thread ---- */

/* Without one the table is served all the same. */
static int make_cache(struct load *load) {
        const struct table_header *h = &load->table->file.table.contents.header;
        uint64_t bytes = load->options.cache_bytes;

        if (bytes == CONFIG_CACHE_AUTO)
                bytes = cache_auto_bytes(h);
        return cache_new(bytes, h, &load->table->cache, &load->cache_fault);
}

/* The group is no reason to load a table again: it counts when somebody opens it. */
static bool same_options(const struct table_options *a, const struct table_options *b) {
        return a->cache_bytes == b->cache_bytes && a->populate == b->populate &&
               a->lock == b->lock && a->huge_pages == b->huge_pages;
}

static bool being_written(const struct load *load) {
        struct stat st;

        return load->request.only_links && lstat(load->path, &st) >= 0 && S_ISREG(st.st_mode) &&
               st.st_nlink == 1;
}

static bool unchanged(const struct load *load) {
        const struct store_table *current = load->current;
        struct stat st;

        return current && !atomic_load_explicit(&current->failed, memory_order_relaxed) &&
               !strcmp(current->path, load->path) &&
               same_options(&current->options, &load->options) && stat(load->path, &st) >= 0 &&
               store_table_is(current, &st);
}

/* Written to since, it would be another table under the same number. */
static int adopt(struct load *load) {
        const struct handover_table *former = load->request.former;
        const struct store_table *table;
        int r;

        r = store_table_adopt(load->name, load->path, load->request.former_fd, &load->table,
                              &load->fault);
        if (r < 0)
                return r;
        table = load->table;
        if (table->identity.device != former->device || table->identity.inode != former->inode ||
            table->identity.n_bytes != former->file_bytes ||
            table->identity.changed_ns != former->changed_ns) {
                load->table = store_table_unref(load->table);
                return fault_set(&load->fault, -ESTALE,
                                 "%s: generation %" PRIu64 " was written to during the restart",
                                 load->path, former->generation);
        }
        return 0;
}

static void load_work(struct chore *chore) {
        struct load *load = (struct load *)chore;

        if (being_written(load)) {
                load->r = -EINPROGRESS;
                return;
        }
        if (unchanged(load)) {
                load->r = -EALREADY;
                return;
        }
        load->r = load->request.former
                          ? adopt(load)
                          : store_table_new(load->name, load->path, &load->table, &load->fault);
        load->file_exists = stat(load->path, &load->file) >= 0;
        if (load->r < 0)
                return;
        load->table->options = load->options;
        load->table->origin = load->request.origin;
        load->cache_r = make_cache(load);
        resident_prepare(load->table);
}

/* ---- And back ---- */

static void publish(struct load *load) {
        struct store_table *table = load->table;
        const struct table_header *h = &table->file.table.contents.header;
        const char *const fields[] = { "TABLE", load->name, NULL };
        const struct table_options options =
                config_table_options(&load->daemon->config, table->name);

        /* A reload may have changed it since the request. */
        table->options.gid = options.gid;
        strcpy(table->options.group, options.group);
        if (load->request.former)
                store_restore(&load->daemon->store, table, load->request.former->generation,
                              load->request.former->published);
        else
                store_publish(&load->daemon->store, table);
        log_fields(LOG_LEVEL_INFO, fields,
                   "table %s: %" PRIu64 " x %" PRIu32 ", %s, generation %" PRIu64 ", from %s",
                   load->name, h->n_rows, h->n_dims, table_codec_name(h->codec), table->generation,
                   load->path);
        if (load->cache_r < 0)
                log_fields(LOG_LEVEL_WARNING, fields, "table %s has no cache: %s", load->name,
                           load->cache_fault.text);
        refusal_free(refusal_find(load->daemon, load->name));
        resident_start(load->daemon, table);
}

/* What was asked for by hand is answered; the rest is remembered. A file that is gone from the
 * folder is no refusal. */
static void report_failure(struct load *load) {
        const struct store_table *old = store_find(&load->daemon->store, load->name);
        bool is_new = true;

        if (load->request.origin == STORE_FOLDER && load->r == -ENOENT)
                return;
        if (load->request.origin != STORE_LOADED && !load->request.former)
                is_new = refuse(load);
        log_fields(is_new ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG,
                   (const char *[]){ "TABLE", load->name, NULL }, "table %s is not loaded: %s%s",
                   load->name, load->fault.text, old ? "; the older generation stays" : "");
}

/* Whoever wants it now decides when it goes. */
static void keep(struct load *load) {
        if (load->current->published)
                load->current->origin = load->request.origin;
        refusal_free(refusal_find(load->daemon, load->name));
}

/* Who writes into a file instead of renaming another over it takes the rows away from under whoever
 * has it open. */
static void retire_overwritten(struct load *load) {
        const struct table_header *now =
                load->r >= 0 ? &load->table->file.table.contents.header : NULL;
        uint32_t n;

        if (!load->file_exists)
                return;
        n = store_retire_overwritten(&load->daemon->store, &load->file, now);
        if (n)
                log_fields(LOG_LEVEL_ERROR, (const char *[]){ "TABLE", load->name, NULL },
                           "table %s: %s was overwritten, expected another file renamed to it; "
                           "generations from before are retired (%" PRIu32 ")",
                           load->name, load->path, n);
}

static void load_finished(struct chore *chore) {
        struct load *load = (struct load *)chore;
        struct daemon *daemon = load->daemon;

        if (load->r != -EALREADY && load->r != -EINPROGRESS)
                retire_overwritten(load);
        if (load->r >= 0)
                publish(load);
        else if (load->r == -EALREADY)
                keep(load);
        else if (load->r != -EINPROGRESS)
                report_failure(load);
        if (load->request.done)
                load->request.done(load->request.userdata, load->name, load->r, load->fault.text);
        load_free(load);
        daemon_loaded(daemon);
}

int load_start(struct daemon *daemon, const struct load_request *request) {
        struct load *load = calloc(1, sizeof(*load));
        struct store_table *current = store_find(&daemon->store, request->name);

        if (!load)
                return -ENOMEM;
        load->daemon = daemon;
        load->request = *request;
        load->options = config_table_options(&daemon->config, request->name);
        load->name = strdup(request->name);
        load->path = strdup(request->path);
        if (!load->name || !load->path) {
                load_free(load);
                return -ENOMEM;
        }
        load->current = request->if_changed && current ? store_table_ref(current) : NULL;
        load->chore.work = load_work;
        load->chore.done = load_finished;
        daemon->n_loading++;
        chores_post(daemon->chores, &load->chore);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "probes.h"

static void table_free(struct store_table *table) {
        codec_file_unmap(&table->file);
        cache_free(table->cache);
        closep(&table->fd);
        free(table->path);
        free(table);
}

static void table_freep(struct store_table **table) {
        if (*table)
                table_free(*table);
}

static int64_t changed_ns(const struct stat *file) {
        return file->st_mtim.tv_sec * INT64_C(1000000000) + file->st_mtim.tv_nsec;
}

static bool same_file(const struct store_table *table, const struct stat *file) {
        return table->identity.device == file->st_dev && table->identity.inode == file->st_ino;
}

bool store_table_is(const struct store_table *table, const struct stat *file) {
        return same_file(table, file) && table->identity.n_bytes == (uint64_t)file->st_size &&
               table->identity.changed_ns == changed_ns(file);
}

/* Before the file is read: what is written to it afterwards makes it another one. */
static int identify(struct store_table *table) {
        struct stat st;

        if (fstat(table->fd, &st) < 0)
                return -errno;
        table->identity.device = st.st_dev;
        table->identity.inode = st.st_ino;
        table->identity.n_bytes = (uint64_t)st.st_size;
        table->identity.changed_ns = changed_ns(&st);
        return 0;
}

static int table_map(struct store_table *table, struct fault *ret_fault) {
        struct fault why = { 0 };
        int r;

        r = identify(table);
        if (r < 0)
                return fault_set(ret_fault, r, "%s: %s", table->path, strerror(-r));
        r = codec_file_map(table->fd, &table->file, &why);
        return r < 0 ? fault_set(ret_fault, r, "%s: %s", table->path, why.text) : 0;
}

int store_table_adopt(const char *name, const char *path, int file_fd,
                      struct store_table **ret_table, struct fault *ret_fault) {
        _cleanup_(closep) int fd = file_fd;
        _cleanup_(table_freep) struct store_table *table = NULL;
        int r;

        if (!wire_table_name_valid(name))
                return fault_set(ret_fault, -EINVAL,
                                 "table name '%.140s': expected 1 to 127 of A-Z a-z 0-9 . _ -, not "
                                 "starting with a dot",
                                 name);
        table = calloc(1, sizeof(*table));
        if (!table)
                return fault_set(ret_fault, -ENOMEM, "%s: out of memory", path);
        table->fd = steal_fd(&fd);
        table->path = strdup(path);
        if (!table->path)
                return fault_set(ret_fault, -ENOMEM, "%s: out of memory", path);
        strcpy(table->name, name);
        table->n_refs = 1;
        r = table_map(table, ret_fault);
        if (r < 0)
                return r;
        *ret_table = steal_pointer(&table);
        return 0;
}

/* O_NONBLOCK: opening a FIFO by mistake must not hang; it changes nothing for files. */
int store_table_new(const char *name, const char *path, struct store_table **ret_table,
                    struct fault *ret_fault) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

        if (fd < 0)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        return store_table_adopt(name, path, fd, ret_table, ret_fault);
}

struct store_table *store_table_ref(struct store_table *table) {
        table->n_refs++;
        return table;
}

static void table_unmap(struct chore *chore) {
        table_free(container_of(chore, struct store_table, unmap));
}

struct store_table *store_table_unref(struct store_table *table) {
        if (!table || --table->n_refs)
                return NULL;
        if (table->store) {
                table->unmap.work = table_unmap;
                chores_post(table->store->chores, &table->unmap);
        } else
                table_free(table);
        return NULL;
}

void store_init(struct store *store, struct chores *chores, struct mailbox *home) {
        *store = (struct store){ .chores = chores, .home = home };
        TAILQ_INIT(&store->tables);
}

/* The list's own reference goes with the last reason to be listed. */
static void unlist_if_done(struct store *store, struct store_table *table) {
        if (table->published || table->n_users)
                return;
        TAILQ_REMOVE(&store->tables, table, link);
        store_table_unref(table);
}

static void retire(struct store *store, struct store_table *table) {
        table->published = false;
        probe_table_retire(table->generation, table->name);
        unlist_if_done(store, table);
}

static void deliver_failure(struct mail *mail) {
        struct store_table *table = container_of(mail, struct store_table, failure);

        log_fields(LOG_LEVEL_ERROR, (const char *[]){ "TABLE", table->name, NULL },
                   "table %s, generation %" PRIu64
                   ": its file %s was truncated or cannot be read; it is retired",
                   table->name, table->generation, table->path);
        if (table->published)
                retire(table->store, table);
}

void store_table_fail(struct store_table *table) {
        if (atomic_exchange(&table->failed, true))
                return;
        table->failure.deliver = deliver_failure;
        mailbox_post(table->store->home, &table->failure);
}

void store_deinit(struct store *store) {
        struct store_table *table, *next;

        for (table = TAILQ_FIRST(&store->tables); table; table = next) {
                next = TAILQ_NEXT(table, link);
                retire(store, table);
        }
}

struct store_table *store_find(struct store *store, const char *name) {
        struct store_table *table;

        TAILQ_FOREACH(table, &store->tables, link) {
                if (table->published && !strcmp(table->name, name))
                        return table;
        }
        return NULL;
}

void store_publish(struct store *store, struct store_table *table) {
        struct store_table *old = store_find(store, table->name);

        table->generation = ++store->last_generation;
        table->published = true;
        table->store = store;
        probe_table_publish(table->generation, table->name, table->file.map, table->file.map_bytes);
        if (old)
                TAILQ_INSERT_BEFORE(old, table, link);
        else
                TAILQ_INSERT_TAIL(&store->tables, table, link);
        if (old)
                retire(store, old);
}

struct store_table *store_find_generation(struct store *store, uint64_t generation) {
        struct store_table *table;

        TAILQ_FOREACH(table, &store->tables, link) {
                if (table->generation == generation)
                        return table;
        }
        return NULL;
}

void store_restore(struct store *store, struct store_table *table, uint64_t generation,
                   bool published) {
        table->generation = generation;
        table->published = published;
        table->store = store;
        probe_table_publish(generation, table->name, table->file.map, table->file.map_bytes);
        TAILQ_INSERT_TAIL(&store->tables, table, link);
        store_use(table);
}

int store_retire(struct store *store, const char *name) {
        struct store_table *table = store_find(store, name);

        if (!table)
                return -ENOENT;
        retire(store, table);
        return 0;
}

/* Here and not by mail: a table that nobody uses is gone when it is retired. The header's checksums
 * are over those of all chunks. */
uint32_t store_retire_overwritten(struct store *store, const struct stat *file,
                                  const struct table_header *header) {
        struct store_table *table, *next;
        uint32_t n = 0;

        for (table = TAILQ_FIRST(&store->tables); table; table = next) {
                next = TAILQ_NEXT(table, link);
                if (!same_file(table, file) || store_table_is(table, file) ||
                    (header &&
                     !memcmp(&table->file.table.contents.header, header, sizeof(*header))) ||
                    atomic_exchange(&table->failed, true))
                        continue;
                n++;
                if (table->published)
                        retire(store, table);
        }
        return n;
}

void store_use(struct store_table *table) {
        table->n_users++;
        store_table_ref(table);
}

void store_unuse(struct store *store, struct store_table *table) {
        table->n_users--;
        table->n_refs--; /* never the last: the list holds one */
        unlist_if_done(store, table);
}

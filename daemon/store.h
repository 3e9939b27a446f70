/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables. A table is immutable; loading a name again publishes a new generation, and the old
 * one lives until its last user is gone. List and references belong to the loop thread. A table's
 * memory may be read by any thread on behalf of a session that uses it. Loading and unmapping touch
 * the disk: chore thread.
 */
#pragma once

#include <stdatomic.h>
#include <sys/queue.h>

#include "cache.h"
#include "chore.h"
#include "config.h"
#include "lib/codec/codec.h"
#include "proto/wire.h"
#include "resident.h"
#include "stats.h"

struct stat;

/* Who wanted a table to be served. */
enum store_origin {
        STORE_LOADED,     /* somebody, by hand */
        STORE_CONFIGURED, /* the configuration names its path */
        STORE_FOLDER,     /* its file is in the watched folder */
};

#define STORE_NOT_HANDED_OVER UINT32_MAX

struct store_table {
        uint32_t n_refs;
        uint32_t n_users;   /* sessions that have it open */
        atomic_bool failed; /* its file cannot be read any more; any thread */
        bool published;
        char name[WIRE_NAME_BYTES];
        char *path;
        enum store_origin origin;
        struct table_options options; /* the group may change while it is published */
        struct {
                uint64_t device, inode, n_bytes;
                int64_t changed_ns;
        } identity;              /* of the file, as opened */
        uint64_t generation;     /* unique, also among daemons that hand over; 0 until published */
        uint32_t handover_index; /* in what is handed over, or STORE_NOT_HANDED_OVER */
        struct codec_file file;
        int fd;                  /* of it, read-only: for clients that decode for themselves */
        _Atomic uint32_t row_ns; /* of a row that goes through an adaptor, of late; 0: unknown */
        struct cache *cache;     /* of decoded rows; NULL: none */
        struct stats stats;
        struct resident resident;
        struct store *store; /* NULL until published */
        struct mail failure;
        struct chore unmap;
        TAILQ_ENTRY(store_table) link;
};

/* Blocking: opens, checks and maps. Returns an unpublished table with one reference. */
int store_table_new(const char *name, const char *path, struct store_table **ret_table,
                    struct fault *ret_fault);
/* The same for a file that is open already, and taken over. `path` is where it was. */
int store_table_adopt(const char *name, const char *path, int fd, struct store_table **ret_table,
                      struct fault *ret_fault);
/* Whether this file, not written to since, is the one that the table was loaded from. Any thread.
 */
bool store_table_is(const struct store_table *table, const struct stat *file);
struct store_table *store_table_ref(struct store_table *table);
/* Returns NULL. After the last reference a published table is unmapped on the chore thread. */
struct store_table *store_table_unref(struct store_table *table);

/* Every table that has a name or a user; the newest generation of a name comes first. */
struct store {
        TAILQ_HEAD(, store_table) tables;
        struct chores *chores; /* where tables are unmapped */
        struct mailbox *home;  /* the loop's */
        uint64_t last_generation;
};

void store_init(struct store *store, struct chores *chores, struct mailbox *home);
void store_deinit(struct store *store);

/* Takes over the caller's reference. An older table of the same name is retired. */
void store_publish(struct store *store, struct store_table *table);
/* A generation of a former daemon, with one use, which the caller ends; else as store_publish(). */
void store_restore(struct store *store, struct store_table *table, uint64_t generation,
                   bool published);
/* -ENOENT. Sessions that have it open keep it. */
int store_retire(struct store *store, const char *name);
/*
 * The file as it is now, and its header if it is a table still, else NULL. Tables that were loaded
 * from it before somebody wrote into it are retired like those whose file failed, unless it holds
 * the same table as then. Returns how many.
 */
uint32_t store_retire_overwritten(struct store *store, const struct stat *file,
                                  const struct table_header *header);
/* The published generation, borrowed; NULL if there is none. */
struct store_table *store_find(struct store *store, const char *name);

/* Of this number, published or not, borrowed; NULL if there is none. */
struct store_table *store_find_generation(struct store *store, uint64_t generation);

/*
 * From any thread on behalf of a session that uses the table: reading its file failed. Every lookup
 * is refused from now on, and the loop thread retires it.
 */
void store_table_fail(struct store_table *table);

/* A session opens or closes the table; each use holds a reference. */
void store_use(struct store_table *table);
void store_unuse(struct store *store, struct store_table *table);

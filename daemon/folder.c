/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See folder.h. The loop thread, but for scan_work(). Events only say which names to look at, and
 * never twice at a time: while tables of the folder are being loaded names are collected, so that a
 * burst costs one load for each name. A queue that overflowed is answered by looking at everything.
 */
#include "folder.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "daemon.h"

#define SUFFIX ".carvq"

/* Beyond so many names it is cheaper to look at all. */
#define NAMES_MAX 256u

/*
 * IN_CREATE is also the first sign of a file that is about to be written, and the only one of a
 * link; IN_ATTRIB may make a file readable that was not.
 */
#define EVENTS                                                                                     \
        (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB |        \
         IN_DELETE_SELF | IN_MOVE_SELF)

struct folder_name {
        bool only_links;
        STAILQ_ENTRY(folder_name) link;
        char name[]; /* of the table */
};

struct scan {
        struct chore chore; /* first */
        struct folder *folder;
        char *path;
        int error, watch_error;
        STAILQ_HEAD(, folder_name) names;
};

static struct folder_name *name_free(struct folder_name *name) {
        free(name);
        return NULL;
}

/* NAME of "NAME.carvq", NULL for other files. One that begins with a dot is somebody's work in
 * progress. */
static struct folder_name *name_new(const char *file_name) {
        size_t n = strlen(file_name), n_suffix = strlen(SUFFIX);
        struct folder_name *name;

        if (file_name[0] == '.' || n <= n_suffix || strcmp(file_name + n - n_suffix, SUFFIX) != 0)
                return NULL;
        name = calloc(1, sizeof(*name) + n + 1);
        if (name)
                memcpy(name->name, file_name, n - n_suffix);
        return name;
}

static void next_round(struct folder *folder);

static void finish_one(struct folder *folder) {
        if (--folder->n_busy == 0)
                next_round(folder);
}

/* ---- One file ---- */

static void retire(struct folder *folder, const char *name) {
        struct store_table *table = store_find(&folder->daemon->store, name);
        struct refusal *refusal = refusal_find(folder->daemon, name);

        if (refusal && refusal->origin == STORE_FOLDER)
                refusal_free(refusal);
        if (!table || table->origin != STORE_FOLDER)
                return;
        /* Before, because the name may be the table's own. */
        log_fields(LOG_LEVEL_INFO, (const char *[]){ "TABLE", name, NULL },
                   "table %s: its file is gone from the folder", name);
        store_retire(&folder->daemon->store, name);
}

static void loaded(void *userdata, const char *name, int r, const char *reason) {
        struct folder *folder = userdata;

        (void)reason;
        if (r == -ENOENT)
                retire(folder, name);
        finish_one(folder);
}

/* The configuration's own tables win. */
static void load(struct folder *folder, const struct folder_name *name) {
        const struct config *config = &folder->daemon->config;
        const struct config_table *configured = config_find_table(config, name->name);
        char path[PATH_MAX + NAME_MAX + 2];
        const struct load_request request = {
                .name = name->name,
                .path = path,
                .origin = STORE_FOLDER,
                .if_changed = true,
                .only_links = name->only_links,
                .done = loaded,
                .userdata = folder,
        };

        if (!config->tables_dir || (configured && configured->path))
                return;
        snprintf(path, sizeof(path), "%s/%s" SUFFIX, config->tables_dir, name->name);
        folder->n_busy++;
        if (load_start(folder->daemon, &request) < 0) {
                log_error("%s: out of memory", path);
                folder->n_busy--;
        }
}

/* ---- All files ---- */

/* The watch comes first, so that nothing falls between it and the list. A second one of the same
 * folder is the same. */
static void watch(struct scan *scan) {
        struct folder *folder = scan->folder;
        int old = atomic_load(&folder->watch), new;

        if (folder->inotify_fd < 0)
                return;
        new = inotify_add_watch(folder->inotify_fd, scan->path, EVENTS | IN_ONLYDIR);
        if (new < 0)
                scan->watch_error = -errno;
        atomic_store(&folder->watch, new);
        if (old >= 0 && old != new)
                inotify_rm_watch(folder->inotify_fd, old);
}

static void scan_work(struct chore *chore) {
        struct scan *scan = (struct scan *)chore;
        struct dirent *entry;
        DIR *dir;

        watch(scan);
        dir = opendir(scan->path);
        if (!dir) {
                scan->error = -errno;
                return;
        }
        while ((entry = readdir(dir))) {
                struct folder_name *name = name_new(entry->d_name);

                if (name)
                        STAILQ_INSERT_TAIL(&scan->names, name, link);
        }
        closedir(dir);
}

static bool scan_has(const struct scan *scan, const char *name) {
        const struct folder_name *n;

        STAILQ_FOREACH(n, &scan->names, link) {
                if (!strcmp(n->name, name))
                        return true;
        }
        return false;
}

static void retire_missing(struct scan *scan) {
        struct daemon *daemon = scan->folder->daemon;
        struct store_table *table, *next;
        struct refusal *refusal, *next_refusal;

        for (table = TAILQ_FIRST(&daemon->store.tables); table; table = next) {
                next = TAILQ_NEXT(table, link);
                if (table->published && table->origin == STORE_FOLDER &&
                    !scan_has(scan, table->name))
                        retire(scan->folder, table->name);
        }
        for (refusal = LIST_FIRST(&daemon->refusals); refusal; refusal = next_refusal) {
                next_refusal = LIST_NEXT(refusal, link);
                if (refusal->origin == STORE_FOLDER && !scan_has(scan, refusal->name))
                        refusal_free(refusal);
        }
}

static void explain_scan(const struct scan *scan) {
        const struct config *config = &scan->folder->daemon->config;
        bool is_missing_default = scan->error == -ENOENT && config->tables_dir_is_default;

        if (scan->error < 0)
                log_fields(is_missing_default ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, NULL, "%s: %s",
                           scan->path, strerror(-scan->error));
        else if (scan->watch_error < 0)
                log_warning("%s is not watched: %s; a reload looks at it", scan->path,
                            strerror(-scan->watch_error));
}

/* Where the folder cannot be read its tables stay as they are. */
static void scanned(struct chore *chore) {
        struct scan *scan = (struct scan *)chore;
        struct folder *folder = scan->folder;
        struct daemon *daemon = folder->daemon;
        struct folder_name *name;

        if (*scan->path)
                explain_scan(scan);
        if (scan->error >= 0)
                retire_missing(scan);
        while ((name = STAILQ_FIRST(&scan->names))) {
                STAILQ_REMOVE_HEAD(&scan->names, link);
                if (!daemon->stopping)
                        load(folder, name);
                name_free(name);
        }
        free(scan->path);
        free(scan);
        finish_one(folder);
        daemon_loaded(daemon);
}

static void no_folder(struct chore *chore) {
        struct scan *scan = (struct scan *)chore;
        int old = atomic_exchange(&scan->folder->watch, -1);

        if (old >= 0)
                inotify_rm_watch(scan->folder->inotify_fd, old);
}

static void start_scan(struct folder *folder) {
        const char *path = folder->daemon->config.tables_dir;
        struct scan *scan = calloc(1, sizeof(*scan));

        if (scan)
                scan->path = strdup(path ? path : "");
        if (!scan || !scan->path) {
                log_error("the folder of tables is not looked at: out of memory");
                free(scan);
                return;
        }
        STAILQ_INIT(&scan->names);
        scan->folder = folder;
        scan->chore.work = path ? scan_work : no_folder;
        scan->chore.done = scanned;
        folder->n_busy++;
        folder->daemon->n_loading++;
        chores_post(folder->daemon->chores, &scan->chore);
}

/* ---- What there is to do ---- */

static void forget_names(struct folder *folder) {
        struct folder_name *name;

        while ((name = STAILQ_FIRST(&folder->names))) {
                STAILQ_REMOVE_HEAD(&folder->names, link);
                name_free(name);
        }
        folder->n_names = 0;
}

static void next_round(struct folder *folder) {
        struct folder_name *name;

        if (folder->n_busy || folder->daemon->stopping)
                return;
        if (folder->scan_wanted) {
                folder->scan_wanted = false;
                forget_names(folder);
                start_scan(folder);
                return;
        }
        STAILQ_FOREACH(name, &folder->names, link) {
                load(folder, name);
        }
        forget_names(folder);
}

void folder_scan(struct folder *folder) {
        folder->scan_wanted = true;
        next_round(folder);
}

/* ---- Events ---- */

static void want(struct folder *folder, const char *file_name, uint32_t mask) {
        bool only_links = !(mask & ~(uint32_t)IN_CREATE);
        struct folder_name *name, *known;

        if (folder->scan_wanted)
                return; /* which looks at this one too */
        name = name_new(file_name);
        if (!name)
                return;
        if (mask == IN_ATTRIB && !refusal_find(folder->daemon, name->name)) {
                name_free(name);
                return;
        }
        STAILQ_FOREACH(known, &folder->names, link) {
                if (!strcmp(known->name, name->name)) {
                        if (mask != IN_ATTRIB) /* the last word about it */
                                known->only_links = only_links;
                        name_free(name);
                        return;
                }
        }
        name->only_links = only_links;
        STAILQ_INSERT_TAIL(&folder->names, name, link);
        if (++folder->n_names > NAMES_MAX)
                folder->scan_wanted = true;
}

static void take_event(struct folder *folder, const struct inotify_event *event) {
        if (event->mask & IN_Q_OVERFLOW) {
                log_notice("more happened in the folder of tables than the kernel keeps events: "
                           "looking at all of it");
                folder->scan_wanted = true;
        } else if (event->wd != atomic_load(&folder->watch))
                return; /* of a folder that was watched before */
        else if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
                log_warning("the folder of tables was removed or renamed: what is served of it "
                            "stays until a reload");
                atomic_store(&folder->watch, -1);
                inotify_rm_watch(folder->inotify_fd, event->wd);
        } else if (event->len)
                want(folder, event->name, event->mask & IN_ALL_EVENTS);
}

static void wait_for_events(struct folder *folder) {
        io_uring_prep_poll_add(loop_prepare(folder->daemon->loop, &folder->op), folder->inotify_fd,
                               POLLIN);
}

static void events_arrived(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct folder *folder = container_of(op, struct folder, op);
        _Alignas(struct inotify_event) char buffer[16384];
        ssize_t n;

        (void)res;
        (void)cqe_flags;
        while ((n = read(folder->inotify_fd, buffer, sizeof(buffer))) > 0) {
                const struct inotify_event *event;

                for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*event) + event->len)) {
                        event = (const void *)(buffer + at);
                        take_event(folder, event);
                }
        }
        next_round(folder);
        wait_for_events(folder);
}

void folder_init(struct folder *folder, struct daemon *daemon) {
        *folder = (struct folder){ .daemon = daemon, .watch = -1, .op.done = events_arrived };
        STAILQ_INIT(&folder->names);
        folder->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (folder->inotify_fd < 0)
                log_warning("folders are not watched: inotify_init1: %s; a reload looks at them",
                            strerror(errno));
        else
                wait_for_events(folder);
}

void folder_deinit(struct folder *folder) {
        forget_names(folder);
        closep(&folder->inotify_fd);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See reload.h. What a reload did is found by comparing what is served before and after it, so that
 * nobody on the way has to keep a record. The loop thread, but for read_work().
 */
#include "reload.h"

#include <string.h>

#include "control-report.h"
#include "varlink.h"

struct reload {
        struct chore chore; /* first */
        struct daemon *daemon;
        reload_done done;
        void *userdata;
        int r;
        bool applied; /* waits for the tables */
        struct config config;
        json_t *problems, *warnings, *needs_restart;
        uint64_t last_generation; /* before */
        size_t n_before;
        struct store_table **before; /* references to what was published */
        struct reload *next;
};

static void free_reload(struct reload *reload) {
        for (size_t i = 0; i < reload->n_before; i++)
                store_table_unref(reload->before[i]);
        free(reload->before);
        json_decref(reload->problems);
        json_decref(reload->warnings);
        json_decref(reload->needs_restart);
        free(reload);
}

/* ---- What is to be served ---- */

static void load_configured(struct daemon *daemon) {
        const struct config_table *t;

        SLIST_FOREACH(t, &daemon->config.tables, link) {
                const struct load_request request = {
                        .name = t->name,
                        .path = t->path,
                        .origin = STORE_CONFIGURED,
                        .if_changed = true,
                };

                if (t->path && load_start(daemon, &request) < 0)
                        log_error("%s: out of memory", t->path);
        }
}

static bool is_configured(const struct daemon *daemon, const char *name) {
        const struct config_table *t = config_find_table(&daemon->config, name);

        return t && t->path;
}

/* Those that the configuration does not name any more. The folder may have them. */
static void retire_unconfigured(struct daemon *daemon) {
        struct store_table *table, *next;
        struct refusal *refusal, *next_refusal;

        for (table = TAILQ_FIRST(&daemon->store.tables); table; table = next) {
                next = TAILQ_NEXT(table, link);
                if (!table->published || table->origin != STORE_CONFIGURED ||
                    is_configured(daemon, table->name))
                        continue;
                log_fields(LOG_LEVEL_INFO, (const char *[]){ "TABLE", table->name, NULL },
                           "table %s: the configuration does not name it any more", table->name);
                store_retire(&daemon->store, table->name);
        }
        for (refusal = LIST_FIRST(&daemon->refusals); refusal; refusal = next_refusal) {
                next_refusal = LIST_NEXT(refusal, link);
                if (refusal->origin == STORE_CONFIGURED && !is_configured(daemon, refusal->name))
                        refusal_free(refusal);
        }
}

void reload_tables(struct daemon *daemon) {
        retire_unconfigured(daemon);
        load_configured(daemon);
        folder_scan(&daemon->folder);
}

/* At once, also for those that are not loaded again. */
static void apply_groups(struct daemon *daemon) {
        struct store_table *table;

        TAILQ_FOREACH(table, &daemon->store.tables, link) {
                const struct table_options options =
                        config_table_options(&daemon->config, table->name);

                strcpy(table->options.group, options.group);
                table->options.gid = options.gid;
        }
}

/* ---- Before and after ---- */

static int remember_published(struct reload *reload) {
        struct store *store = &reload->daemon->store;
        struct store_table *table;
        size_t n = 0;

        TAILQ_FOREACH(table, &store->tables, link) {
                n += table->published;
        }
        reload->last_generation = store->last_generation;
        reload->before = calloc(n + 1, sizeof(struct store_table *));
        if (!reload->before)
                return -ENOMEM;
        TAILQ_FOREACH(table, &store->tables, link) {
                if (table->published)
                        reload->before[reload->n_before++] = store_table_ref(table);
        }
        return 0;
}

static json_t *list_loaded(const struct reload *reload) {
        const struct store_table *table;
        json_t *list = json_array();

        TAILQ_FOREACH(table, &reload->daemon->store.tables, link) {
                if (table->published && table->generation > reload->last_generation)
                        json_array_append_new(list, varlink_text(table->name));
        }
        return list;
}

static json_t *list_unloaded(const struct reload *reload) {
        json_t *list = json_array();

        for (size_t i = 0; i < reload->n_before; i++)
                if (!store_find(&reload->daemon->store, reload->before[i]->name))
                        json_array_append_new(list, varlink_text(reload->before[i]->name));
        return list;
}

static json_t *report_new(const struct reload *reload) {
        const struct varlink_field fields[] = {
                { "loaded", list_loaded(reload) },
                { "unloaded", list_unloaded(reload) },
                { "refusals", control_report_refusals(reload->daemon) },
                { "warnings", json_incref(reload->warnings) },
                { "needs_restart", json_incref(reload->needs_restart) },
        };

        return varlink_object_new(fields, ARRAY_SIZE(fields));
}

/* ---- One reload ---- */

static void run(struct reload *reload);

static void finish(struct reload *reload) {
        struct daemon *daemon = reload->daemon;
        json_t *report = reload->r < 0 ? json_incref(reload->problems) : report_new(reload);

        if (reload->r == -EINVAL)
                log_error("the configuration has errors: nothing is changed");
        else if (reload->r < 0)
                log_error("not reloaded: %s", strerror(-reload->r));
        else if (report)
                log_notice("reloaded: %zu tables loaded, %zu unloaded, %zu refused",
                           json_array_size(json_object_get(report, "loaded")),
                           json_array_size(json_object_get(report, "unloaded")),
                           json_array_size(json_object_get(report, "refusals")));
        daemon->reloads = reload->next;
        if (reload->done)
                reload->done(reload->userdata, reload->r, report);
        json_decref(report);
        free_reload(reload);
        if (daemon->reloads)
                run(daemon->reloads);
        else if (daemon->ready && !daemon->stopping)
                notify_ready(daemon);
}

void reload_settled(struct daemon *daemon) {
        if (daemon->reloads && daemon->reloads->applied)
                finish(daemon->reloads);
}

static void say(void *userdata, enum log_level level, const char *sentence) {
        struct reload *reload = userdata;

        log_fields(level, NULL, "%s", sentence);
        json_array_append_new(level == LOG_LEVEL_ERROR ? reload->problems : reload->warnings,
                              varlink_text(sentence));
}

static void read_work(struct chore *chore) {
        struct reload *reload = (struct reload *)chore;

        reload->r = config_reload(&reload->daemon->config, say, reload, &reload->config);
}

static void note_restart_keys(struct reload *reload) {
        const char *keys[CONFIG_RESTART_KEYS_MAX];
        size_t n = config_restart_keys(&reload->daemon->config, &reload->config, keys);

        for (size_t i = 0; i < n; i++) {
                log_warning("%s has changed: that takes a restart", keys[i]);
                json_array_append_new(reload->needs_restart, json_string(keys[i]));
        }
}

static void read_done(struct chore *chore) {
        struct reload *reload = (struct reload *)chore;
        struct daemon *daemon = reload->daemon;
        uint64_t limits[QUOTA_KINDS_N];

        if (reload->r >= 0 && daemon->stopping) {
                config_deinit(&reload->config);
                reload->r = -ESHUTDOWN;
        }
        reload->applied = true;
        if (reload->r >= 0) {
                note_restart_keys(reload);
                config_swap_live(&daemon->config, &reload->config);
                config_deinit(&reload->config);
                log_set_level(daemon->config.log_level);
                config_user_limits(&daemon->config, limits);
                quota_set_limits(&daemon->quota, limits);
                apply_groups(daemon);
                reload_tables(daemon);
        }
        daemon_loaded(daemon);
}

static void run(struct reload *reload) {
        notify_reloading(reload->daemon);
        reload->r = remember_published(reload);
        if (reload->r < 0) {
                finish(reload);
                return;
        }
        reload->chore.work = read_work;
        reload->chore.done = read_done;
        reload->daemon->n_loading++;
        chores_post(reload->daemon->chores, &reload->chore);
}

int reload_start(struct daemon *daemon, reload_done done, void *userdata) {
        struct reload *reload = calloc(1, sizeof(*reload)), **end = &daemon->reloads;

        if (!reload)
                return -ENOMEM;
        reload->daemon = daemon;
        reload->done = done;
        reload->userdata = userdata;
        reload->problems = json_array();
        reload->warnings = json_array();
        reload->needs_restart = json_array();
        while (*end)
                end = &(*end)->next;
        *end = reload;
        if (daemon->reloads == reload)
                run(reload);
        return 0;
}

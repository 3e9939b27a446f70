/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sections [table NAME] and the option --table, which can say the same. A group is looked up
 * when it is read, so that whoever opens a table is compared with a number.
 */
#include "config-impl.h"

#include <grp.h>
#include <string.h>

#include "proto/wire.h"

#define GROUP_ENTRY_BYTES_MAX (1u << 20)

static int set_table_path(struct config_table *t, const char *value, struct fault *ret_fault) {
        return config_set_path(&t->path, value, 4095, ret_fault);
}

static int set_table_cache(struct config_table *t, const char *value, struct fault *ret_fault) {
        int r;

        r = config_parse_cache_bytes(value, &t->options.cache_bytes, ret_fault);
        if (r >= 0)
                t->has_cache_bytes = true;
        return r;
}

/* 1: found, 0: there is no such group, or a negative errno. */
static int find_group(const char *name, gid_t *ret_gid) {
        struct group group, *found = NULL;

        for (size_t bytes = 1024; bytes <= GROUP_ENTRY_BYTES_MAX; bytes *= 4) {
                _cleanup_(freep) char *buffer = malloc(bytes);
                int r = buffer ? getgrnam_r(name, &group, buffer, bytes, &found) : ENOMEM;

                if (r == ERANGE)
                        continue; /* a group of many members */
                if (found)
                        *ret_gid = found->gr_gid;
                return r == ENOMEM ? -ENOMEM : found != NULL;
        }
        return -ENOMEM;
}

/* By name, or by number where no group has such a name. */
static int set_table_group(struct config_table *t, const char *value, struct fault *ret_fault) {
        gid_t gid = 0;
        int r;

        if (!*value || strlen(value) >= sizeof(t->options.group))
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.80s', expected a group of 1 to %zu bytes", value,
                                 sizeof(t->options.group) - 1);
        r = find_group(value, &gid);
        if (r < 0)
                return r;
        if (r == 0) {
                unsigned long number;
                char *end;

                errno = 0;
                number = strtoul(value, &end, 10);
                if (value[0] < '0' || value[0] > '9' || *end || errno || number >= UINT32_MAX)
                        return fault_set(ret_fault, -EINVAL,
                                         "is '%s', expected a group of this system or its number",
                                         value);
                gid = (gid_t)number;
        }
        strcpy(t->options.group, value);
        t->options.gid = gid;
        return 0;
}

static int parse_yes_no(const char *value, bool *ret_yes, struct fault *ret_fault) {
        bool yes = !strcmp(value, "yes");

        if (!yes && strcmp(value, "no") != 0)
                return fault_set(ret_fault, -EINVAL, "is '%.100s', expected yes or no", value);
        *ret_yes = yes;
        return 0;
}

static int set_table_populate(struct config_table *t, const char *value, struct fault *ret_fault) {
        return parse_yes_no(value, &t->options.populate, ret_fault);
}

static int set_table_lock(struct config_table *t, const char *value, struct fault *ret_fault) {
        return parse_yes_no(value, &t->options.lock, ret_fault);
}

static int set_table_huge(struct config_table *t, const char *value, struct fault *ret_fault) {
        return parse_yes_no(value, &t->options.huge_pages, ret_fault);
}

int config_set_table_key(struct config_table *table, const char *key, const char *value,
                         struct fault *ret_fault) {
        static const struct {
                const char *name;
                int (*set)(struct config_table *table, const char *value, struct fault *ret_fault);
        } keys[] = {
                { "path", set_table_path },   { "cache-bytes", set_table_cache },
                { "group", set_table_group }, { "populate", set_table_populate },
                { "lock", set_table_lock },   { "huge-pages", set_table_huge },
        };

        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (!strcmp(keys[i].name, key))
                        return keys[i].set(table, value, ret_fault);
        return -ENOENT;
}

const struct config_table *config_find_table(const struct config *config, const char *name) {
        const struct config_table *t;

        SLIST_FOREACH(t, &config->tables, link) {
                if (!strcmp(t->name, name))
                        return t;
        }
        return NULL;
}

struct table_options config_table_options(const struct config *config, const char *name) {
        const struct config_table *t = config_find_table(config, name);
        struct table_options options = t ? t->options : (struct table_options){ 0 };

        if (!t || !t->has_cache_bytes)
                options.cache_bytes = config->cache_bytes;
        return options;
}

int config_get_table(struct config *config, const char *name, struct config_table **ret_table,
                     struct fault *ret_fault) {
        struct config_table *t, *last = NULL;
        int r;

        if (!wire_table_name_valid(name))
                return fault_set(ret_fault, -EINVAL,
                                 "names a table '%.140s', expected 1 to %u of A-Z a-z 0-9 . _ -, "
                                 "not starting with a dot",
                                 name, WIRE_NAME_BYTES - 1);
        SLIST_FOREACH(t, &config->tables, link) {
                if (!strcmp(t->name, name)) {
                        *ret_table = t;
                        return 0;
                }
                last = t;
        }
        t = calloc(1, sizeof(*t));
        if (!t)
                return -ENOMEM;
        r = config_set_string(&t->name, name);
        if (r < 0) {
                free(t);
                return r;
        }
        if (last)
                SLIST_INSERT_AFTER(last, t, link);
        else
                SLIST_INSERT_HEAD(&config->tables, t, link);
        *ret_table = t;
        return 0;
}

int config_set_table(struct config *config, const char *value, struct fault *ret_fault) {
        const char *equals = strchr(value, '='), *key = "path";
        _cleanup_(freep) char *name = NULL;
        struct config_table *table;
        char *colon;
        int r;

        if (!equals)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.200s', expected NAME=PATH or NAME:KEY=VALUE", value);
        name = strndup(value, (size_t)(equals - value));
        if (!name)
                return -ENOMEM;
        /* No name has a colon. */
        colon = strchr(name, ':');
        if (colon) {
                *colon = '\0';
                key = colon + 1;
        }
        r = config_get_table(config, name, &table, ret_fault);
        if (r < 0)
                return r;
        r = config_set_table_key(table, key, equals + 1, ret_fault);
        if (r == -ENOENT)
                return fault_set(
                        ret_fault, -EINVAL,
                        "has the key '%.60s', expected path, cache-bytes, group, populate, "
                        "lock or huge-pages",
                        key);
        return r;
}

void config_tables_deinit(struct config *config) {
        struct config_table *t;

        while ((t = SLIST_FIRST(&config->tables))) {
                SLIST_REMOVE_HEAD(&config->tables, link);
                free(t->name);
                free(t->path);
                free(t);
        }
}

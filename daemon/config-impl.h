/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What config.c (command line, order, defaults), config-settings.c (the keys of [carvqd]),
 * config-table.c (those of [table NAME]) and config-file.c (the INI file) share.
 */
#pragma once

#include "config.h"

/* A key of [carvqd] and a long option. */
struct setting {
        const char *name;
        /* 0, or a negative errno and a fault that goes on after the key's name. */
        int (*set)(struct config *config, const char *value, struct fault *ret_fault);
        size_t offset, bytes; /* in struct config; 0 bytes: a string */
        bool live;            /* can be changed while the daemon runs */
};

extern const struct setting config_settings[];
extern const size_t config_n_settings;

/* Indices that others know. */
enum { SETTING_SOCKET, SETTING_CONTROL };

/* Fills as_read. -ENOMEM. */
int config_remember(struct config *config);

/* Takes a copy. -ENOMEM. */
int config_set_string(char **string, const char *value);
/* A path of 1 to `bytes_max` bytes. */
int config_set_path(char **path, const char *value, size_t bytes_max, struct fault *ret_fault);
/* "auto", or a number of bytes. */
int config_parse_cache_bytes(const char *value, uint64_t *ret_bytes, struct fault *ret_fault);

/* The section's content, made if there is none yet. -EINVAL for a bad name, -ENOMEM. */
int config_get_table(struct config *config, const char *name, struct config_table **ret_table,
                     struct fault *ret_fault);
/* A key of [table NAME]: 0, -EINVAL, -ENOMEM, or -ENOENT without a fault: no such key. */
int config_set_table_key(struct config_table *table, const char *key, const char *value,
                         struct fault *ret_fault);
/* NAME=PATH or NAME:KEY=VALUE, of the command line. */
int config_set_table(struct config *config, const char *value, struct fault *ret_fault);
void config_tables_deinit(struct config *config);

/*
 * The file and then every FILE.d/NAME.conf in the order of their names; NULL: the default ones, if
 * they are there. Every error is said; -EINVAL if there was one.
 */
int config_read_files(struct config *config, const char *path, config_say say, void *userdata);

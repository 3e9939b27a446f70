/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soak's tables: files of known content in a folder that carvqd watches, what is done to them,
 * and a record of it that clients hold their rows against.
 */
#pragma once

#include "soak.h"

enum table_state {
        TABLE_SOUND,
        TABLE_DAMAGED, /* the file is; the daemon should refuse it and keep what it has */
        TABLE_CUT,     /* truncated in place; the daemon should retire it */
};

struct tables {
        struct soak *soak;
        char folder[PATH_MAX]; /* watched */
        enum table_state state[SOAK_TABLES];
        uint64_t repair_ns[SOAK_TABLES]; /* of those that are not sound */
};

/* Makes all variants, decodes them into memory that is shared, and publishes one of each. */
void tables_init(struct tables *tables, struct soak *soak);

/* Another variant, by rename; repairs the table, if need be. */
void tables_replace(struct tables *tables, uint32_t table);

/* By rename too, of a sound table; it is to be repaired at `repair_ns`. */
void tables_damage(struct tables *tables, uint32_t table, uint64_t repair_ns);

/* In place, of a sound table that may be cut. */
void tables_cut(struct tables *tables, uint32_t table, uint64_t repair_ns);

/* Repairs what is due. */
void tables_repair(struct tables *tables, uint64_t now_ns);

/* A daemon is about to start: it knows nothing of tables that are damaged now. */
void tables_daemon_starts(struct tables *tables);

/* ---- For clients ---- */

/* Could lookups of the table fail between these times? */
bool tables_bad_between(const struct soak *soak, uint32_t table, uint64_t from_ns,
                        uint64_t until_ns);

/* The variants that who opened the table between these times may have got, as a mask. */
uint32_t tables_published_between(const struct soak *soak, uint32_t table, uint64_t from_ns,
                                  uint64_t until_ns);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the administrator decided: defaults, then the configuration file and its drop-ins, then the
 * command line. Read at start on the main thread, and again for every reload on the chore thread:
 * files and groups may be slow.
 */
#pragma once

#include <sys/queue.h>
#include <sys/types.h>

#include "log.h"
#include "loop-io.h"
#include "quota.h"

/* Of a cache's bytes: as much as the table deserves. */
#define CONFIG_CACHE_AUTO  UINT64_MAX

#define CONFIG_GROUP_BYTES 64

/* How a table is kept, and for whom. */
struct table_options {
        uint64_t cache_bytes; /* or CONFIG_CACHE_AUTO */
        bool populate, lock, huge_pages;
        char group[CONFIG_GROUP_BYTES]; /* whose members may open it; empty: everybody */
        gid_t gid;                      /* of that group */
};

/* A section [table NAME]. */
struct config_table {
        char *name;
        char *path; /* NULL: options for a table that comes from elsewhere */
        bool has_cache_bytes;
        struct table_options options;
        SLIST_ENTRY(config_table) link;
};

struct config {
        char *socket_path;
        char *control_path;
        char *default_folder; /* of sockets that were not named, made at start; NULL: none */
        char *tables_dir;     /* watched: every NAME.carvq in it is served as NAME; NULL: none */
        bool tables_dir_is_default;        /* and so need not exist */
        SLIST_HEAD(, config_table) tables; /* in the order of their first mention */
        uint64_t cache_bytes;              /* of tables that do not say */
        enum log_level log_level;
        uint32_t cpu_mask; /* of enum codec_cpu: what may be used */
        enum loop_choice event_loop;
        uint64_t spin_ns_max;
        uint32_t n_workers;
        uint32_t max_sessions;
        uint64_t max_ring_bytes; /* of one session */
        /* Of all sessions of one user; sessions 0: three quarters of max_sessions. */
        uint64_t user_max[QUOTA_KINDS_N];
        struct command_line *command_line; /* for the next time; points into argv */
        struct config
                *as_read; /* what takes a restart, before anybody adapted it; NULL: reloaded */
};

/*
 * argv as main() got it; it must stay. 0: go on; 1: --help or --version was printed, exit 0;
 * -EINVAL: said on stderr or logged (exit 2). The socket paths default to /run/carvq/ for root and
 * under systemd's RUNTIME_DIRECTORY, else to $XDG_RUNTIME_DIR/carvq/; tables_dir to systemd's
 * STATE_DIRECTORY, for root to /var/lib/carvq.
 */
int config_init(struct config *config, int argc, char **argv);
void config_deinit(struct config *config);

/* What is wrong with a configuration, one sentence at a time: an error or a warning. */
typedef void (*config_say)(void *userdata, enum log_level level, const char *sentence);

/* Reads everything again as config_init() did for `running`, whose command line counts again.
 * -EINVAL after saying why; nothing is changed then. */
int config_reload(const struct config *running, config_say say, void *userdata,
                  struct config *ret_config);

/* Exchanges what a running daemon can change: everything but the settings below. */
void config_swap_live(struct config *running, struct config *reloaded);

#define CONFIG_RESTART_KEYS_MAX 8

/* The keys in which a reloaded one differs from what was read at start, and which take effect at a
 * start only. Returns their number. */
size_t config_restart_keys(const struct config *running, const struct config *reloaded,
                           const char *ret_keys[CONFIG_RESTART_KEYS_MAX]);

/* What user_max comes to. */
void config_user_limits(const struct config *config, uint64_t ret_limits[QUOTA_KINDS_N]);

/* NULL: no section is about it. */
const struct config_table *config_find_table(const struct config *config, const char *name);

/* Those of its section, or the defaults. */
struct table_options config_table_options(const struct config *config, const char *name);

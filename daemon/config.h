/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the administrator decided: defaults, then the configuration file, then the command line.
 * Read once at start, on the main thread.
 */
#pragma once

#include <sys/queue.h>

#include "log.h"

/* Of a cache's bytes: as much as the table deserves. */
#define CONFIG_CACHE_AUTO UINT64_MAX

struct config_cache {
        char *name; /* of the table */
        uint64_t bytes;
        STAILQ_ENTRY(config_cache) link;
};

struct config_table {
        char *name;
        char *path;
        STAILQ_ENTRY(config_table) link;
};

struct config {
        char *socket_path;
        char *control_path;
        char *default_folder; /* of sockets that were not named, made at start; NULL: none */
        char *tables_dir;     /* NULL: none. Every NAME.carvq in it is loaded as NAME at start */
        STAILQ_HEAD(, config_table) tables;
        STAILQ_HEAD(, config_cache) caches;
        uint64_t cache_bytes; /* of tables that are not among them */
        enum log_level log_level;
        uint32_t cpu_mask; /* of enum codec_cpu: what may be used */
        uint64_t spin_ns_max;
        uint32_t n_workers;
        uint32_t max_sessions;
        uint64_t max_ring_bytes; /* of one session */
};

/*
 * argv as main() got it. 0: go on; 1: --help or --version was printed, exit 0; -EINVAL: said on
 * stderr (exit 2). The socket paths default to /run/carvq/ for root and under systemd's
 * RUNTIME_DIRECTORY, else to $XDG_RUNTIME_DIR/carvq/.
 */
int config_init(struct config *config, int argc, char **argv);
void config_deinit(struct config *config);

/* Of this table's cache, or CONFIG_CACHE_AUTO. */
uint64_t config_cache_bytes(const struct config *config, const char *name);

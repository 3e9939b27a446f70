/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon says about itself, as the JSON of proto/io.carvq.Control.varlink: that file
 * explains each figure. Runs on the loop thread; changes nothing. All return NULL without memory.
 */
#pragma once

#include <jansson.h>

#include "daemon.h"
#include "page-cache.h"
#include "smaps.h"

/* What the kernel says about memory, measured on the chore thread. `error`s: negative errno, or 0.
 */
struct table_memory {
        struct smaps_range mapping;
        struct page_cache cache;
        int cache_error;
};

struct client_memory {
        uint64_t session;
        struct smaps_range ring;
};

/* Of the whole daemon. */
struct process_memory {
        int smaps_error;
        struct smaps_range all;
        uint64_t n_major_faults, n_refaults;
        int refaults_error;
};

json_t *control_report_info(void);
json_t *control_report_status(const struct daemon *daemon);
json_t *control_report_clients(struct daemon *daemon);
json_t *control_report_users(const struct daemon *daemon);
/* `clients`: measured, of `n` of them. */
json_t *control_report_client_stats(struct daemon *daemon, const struct client_memory *clients,
                                    size_t n, const struct process_memory *process);
json_t *control_report_process(const struct process_memory *process);

json_t *control_report_refusals(struct daemon *daemon);

json_t *control_report_table(const struct store_table *table, const struct table_memory *memory,
                             const struct process_memory *process);
json_t *control_report_table_stats(const struct store_table *table,
                                   const struct table_memory *memory,
                                   const struct process_memory *process);

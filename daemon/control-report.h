/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon says about itself, as the JSON of proto/io.carvq.Control.varlink: that file
 * explains each figure. Runs on the loop thread; changes nothing. All return NULL without memory.
 */
#pragma once

#include <jansson.h>

#include "daemon.h"
#include "smaps.h"

json_t *control_report_info(void);
json_t *control_report_status(const struct daemon *daemon);
json_t *control_report_clients(struct daemon *daemon);
json_t *control_report_client_stats(struct daemon *daemon);

json_t *control_report_refusals(struct daemon *daemon);

/* `error`: negative errno of smaps_measure(), or 0. */
json_t *control_report_table(const struct store_table *table, const struct smaps_range *memory,
                             int error);
json_t *control_report_table_stats(const struct store_table *table,
                                   const struct smaps_range *memory, int error);

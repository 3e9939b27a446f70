/* SPDX-License-Identifier: Apache-2.0 */
/* What was seen, for people and as JSON. carvq-trace.8 documents the keys. */
#pragma once

#include "target.h"
#include "tracer.h"

struct report {
        const struct tracer *tracer; /* stopped */
        const struct target_files *files;
        uint64_t traced_ns;
        bool daemon_ended;
};

void report_print(const struct report *report);
void report_print_json(const struct report *report);

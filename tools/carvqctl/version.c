/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl version: ours always, the daemon's where it runs; that it does not is no failure. */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

int verb_version(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *status = NULL, *versions = NULL;
        struct fault fault = { 0 };
        const char *daemon = NULL;

        if (control_try(ctl, "GetStatus", NULL, CONTROL_TIMEOUT_S, &status, &fault) == EXIT_OK)
                daemon = field_text(status, "version");
        if (ctl->json) {
                versions = json_pack("{ss ss?}", "carvqctl", CARVQ_VERSION, "carvqd", daemon);
                return print_json(versions);
        }
        puts("carvqctl " CARVQ_VERSION);
        if (daemon)
                printf("carvqd %s\n", daemon);
        else
                printf("carvqd: not reached (%s)\n", fault.text);
        return EXIT_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl version: ours always, the daemon's where it runs; that it does not is no failure. */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"
#include "varlink-client.h"

int verb_version(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *status = NULL, *versions = NULL;
        _cleanup_(freep) char *error = NULL;
        struct fault fault = { 0 };
        const char *daemon;
        int r;

        r = varlink_client_call(ctl->control_path, "io.carvq.Control.GetStatus", NULL, &error,
                                &status, &fault);
        daemon = r >= 0 && !error ? field_text(status, "version") : NULL;
        if (ctl->json) {
                versions = json_pack("{ss ss?}", "carvqctl", CARVQ_VERSION, "carvqd", daemon);
                return print_json(versions);
        }
        puts("carvqctl " CARVQ_VERSION);
        if (daemon)
                printf("carvqd %s\n", daemon);
        else
                printf("carvqd: not reached (%s)\n", error ? error : fault.text);
        return EXIT_OK;
}

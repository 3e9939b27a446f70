/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl unload NAME */
#include <stdio.h>

#include "carvqctl.h"

int verb_unload(const struct carvqctl *ctl) {
        json_t *parameters = json_pack("{ss}", "name", ctl->arguments[0]);
        _cleanup_(json_decrefp) json_t *reply = NULL;
        int r;

        if (!parameters) {
                complain("the name must be UTF-8");
                return EXIT_USAGE;
        }
        r = control_call(ctl, "UnloadTable", parameters, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                return print_json(reply);
        printf("Unloaded %s\n", ctl->arguments[0]);
        return EXIT_OK;
}

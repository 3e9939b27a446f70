/* SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>

#include "daemon.h"

/* 0 after an orderly end, 1 when it cannot run, 2 for a wrong command line or configuration. */
int main(int argc, char **argv) {
        struct config config = { 0 };
        struct fault fault = { 0 };
        int r;

        claim_standard_descriptors();
        /* Sessions, and the ids of large submissions, are mappings of their own: what a crowd of
         * them took goes back to the system with the last one, whatever lies beside it. */
        mallopt(M_MMAP_THRESHOLD, 16 << 10);
        r = config_init(&config, argc, argv);
        if (r != 0)
                return r < 0 ? 2 : 0;
        log_set_level(config.log_level);
        r = daemon_run(&config, &fault);
        if (r < 0) {
                log_error("%s", fault.text);
                return 1;
        }
        log_notice("stopped");
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile client of the soak: tests/integration/scribbler.c in a process that has no rights,
 * where there are some to give up, and that comes back when the daemon does. Counts what it did.
 */
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "soak.h"

#define NOBODY   65534
#define RETRY_US 20000u

/* Quotas are a user's: what this one takes up is not the good clients'. The group opens the socket.
 */
static int drop_rights(void) {
        if (geteuid() != 0)
                return 0;
        if (setgroups(0, NULL) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
                return -errno;
        return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0; /* that was reset */
}

int hostile_run(const struct soak *soak, const struct soak_client *client,
                enum scribbler_kind kind) {
        struct scribbler_report *report = &soak->shared->hostile[client->slot];
        uint64_t random = client->seed;
        int r = drop_rights();

        if (r < 0)
                return 1;
        for (uint64_t run = 0; clock_ns() < client->until_ns; run++) {
                const struct scribbler_options o = {
                        .socket_path = soak->socket_path,
                        .table = soak->tables[soak_below(&random, SOAK_TABLES)].name,
                        .kind = kind,
                        .seed = client->seed + run,
                        .until_ns = MIN(client->until_ns, clock_ns() + 1000000000),
                };

                if (atomic_load_explicit(&soak->shared->calm, memory_order_relaxed))
                        break;
                r = scribbler_run(&o, report);
                atomic_fetch_add_explicit(&soak->shared->acts[kind], report->n_acts,
                                          memory_order_relaxed);
                report->n_acts = 0;
                if (r == -ENOTRECOVERABLE) {
                        soak_add(soak, SOAK_MEMORY_CUT, 1);
                        soak_complain(soak, "shared memory could be truncated under the daemon");
                }
                if (r < 0) /* the daemon is dead, or the table retired */
                        soak_sleep_us(RETRY_US);
        }
        return 0;
}

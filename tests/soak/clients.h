/* SPDX-License-Identifier: Apache-2.0 */
/* The soak's crowd: clients that come, live for seconds, are stopped or killed, and go. */
#pragma once

#include "soak.h"

struct client {
        pid_t pid; /* 0: none */
        bool hostile, killed, stopped;
        uint32_t kind; /* of hostile ones; the style of good ones */
        /* When something happens to it, or, without a process, when the next one comes; 0: never */
        uint64_t start_ns, stop_ns, go_on_ns, kill_ns;
};

struct clients {
        struct soak *soak;
        struct client clients[SOAK_CLIENTS];
};

void clients_init(struct clients *clients, struct soak *soak);

/* Does what is due. Never blocks. */
void clients_tick(struct clients *clients, uint64_t now_ns);

/* All go; good ones finish the lookup that they are at. Those that do not end are faults. */
void clients_calm(struct clients *clients);

/* One good client and nobody else, until then. */
void clients_run_alone(struct clients *clients, uint32_t style, uint64_t until_ns);

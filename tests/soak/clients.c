/* SPDX-License-Identifier: Apache-2.0 */
/* See clients.h. The director's thread; children run good_run() or hostile_run() and nothing else.
 */
#include "clients.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tools/bench/bench.h"

#define MS             UINT64_C(1000000)
#define LIFE_MS_MAX    6000u
#define GAP_MS_MAX     300u
#define STOP_MS_MAX    3000u
#define CALM_NS        UINT64_C(60000000000)
#define HOSTILE_NICE   10
#define HOSTILE_OUT_OF 3u /* one of so many */
#define DISTURBED_OF   5u

void clients_init(struct clients *clients, struct soak *soak) {
        *clients = (struct clients){ .soak = soak };
}

/* ---- Coming ---- */

static _Noreturn void run_child(struct clients *clients, const struct soak_client *is,
                                const struct client *client, pid_t parent) {
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0); /* Ctrl-C is for the director */
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                signal(signals[i], SIG_DFL);
        if (getppid() != parent)
                _exit(1);
        if (client->hostile) {
                (void)!nice(HOSTILE_NICE);
                _exit(hostile_run(clients->soak, is, client->kind));
        }
        exit(good_run(clients->soak, is, client->kind));
}

static void start(struct clients *clients, struct client *client, bool alone, uint64_t until_ns) {
        const struct soak_client is = { .slot = (uint32_t)(client - clients->clients),
                                        .seed = 1 + soak_below(&clients->soak->random, UINT32_MAX),
                                        .until_ns = until_ns,
                                        .alone = alone,
                                        .disturbed = client->stop_ns != 0 };
        pid_t parent = getpid();

        fflush(NULL); /* or children would write it again */
        client->pid = fork();
        if (client->pid < 0)
                die("fork: %s", strerror(errno));
        if (client->pid == 0)
                run_child(clients, &is, client, parent);
        soak_add(clients->soak, client->hostile ? SOAK_HOSTILE_CLIENTS : SOAK_GOOD_CLIENTS, 1);
}

/* Who comes next, and what becomes of it. */
static void come(struct clients *clients, struct client *c, uint64_t now_ns) {
        uint64_t *random = &clients->soak->random;
        const uint64_t life_ms = 200 + soak_below(random, LIFE_MS_MAX);

        *c = (struct client){ .hostile = soak_below(random, HOSTILE_OUT_OF) == 0 };
        c->kind = (uint32_t)soak_below(random, c->hostile ? SCRIBBLER_N : SOAK_GOOD_STYLES);
        switch (soak_below(random, DISTURBED_OF)) {
        case 0:
                c->kill_ns = now_ns + soak_below(random, life_ms) * MS;
                break;
        case 1:
                c->stop_ns = now_ns + soak_below(random, life_ms) * MS;
                break;
        default:
                break;
        }
        start(clients, c, false, now_ns + life_ms * MS);
}

/* ---- Going ---- */

static void gone(struct clients *clients, struct client *c, int status) {
        const struct soak *soak = clients->soak;

        if (c->hostile) {
                struct scribbler_report *report = &soak->shared->hostile[c - clients->clients];

                atomic_fetch_add(&soak->shared->acts[c->kind], report->n_acts);
                report->n_acts = 0;
        }
        if (status != 0 && !(c->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
                soak_add(soak, SOAK_DEAD_CLIENTS, 1);
                soak_complain(soak, "a client (%s) died: %s %d",
                              c->hostile ? scribbler_kind_name(c->kind) : good_style_name(c->kind),
                              WIFSIGNALED(status) ? "signal" : "exit status",
                              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
        *c = (struct client){ .start_ns = clock_ns() +
                                          soak_below(&clients->soak->random, GAP_MS_MAX) * MS };
}

static void reap(struct clients *clients, struct client *c) {
        int status;

        if (c->pid && waitpid(c->pid, &status, WNOHANG) == c->pid)
                gone(clients, c, status);
}

static void disturb(struct clients *clients, struct client *c, uint64_t now_ns) {
        if (c->kill_ns && c->kill_ns <= now_ns) {
                kill(c->pid, SIGKILL);
                c->killed = true;
                c->kill_ns = 0;
                soak_add(clients->soak, SOAK_CLIENTS_KILLED, 1);
        }
        if (c->stop_ns && c->stop_ns <= now_ns) {
                kill(c->pid, SIGSTOP);
                c->stop_ns = 0;
                c->go_on_ns = now_ns + soak_below(&clients->soak->random, STOP_MS_MAX) * MS;
                soak_add(clients->soak, SOAK_CLIENTS_STOPPED, 1);
        }
        if (c->go_on_ns && c->go_on_ns <= now_ns) {
                kill(c->pid, SIGCONT);
                c->go_on_ns = 0;
        }
}

void clients_tick(struct clients *clients, uint64_t now_ns) {
        for (struct client *c = clients->clients; c < clients->clients + SOAK_CLIENTS; c++) {
                reap(clients, c);
                if (c->pid)
                        disturb(clients, c, now_ns);
                else if (c->start_ns <= now_ns)
                        come(clients, c, now_ns);
        }
}

static bool any_left(struct clients *clients) {
        bool any = false;

        for (struct client *c = clients->clients; c < clients->clients + SOAK_CLIENTS; c++) {
                reap(clients, c);
                any |= c->pid != 0;
        }
        return any;
}

void clients_calm(struct clients *clients) {
        const uint64_t deadline_ns = deadline_after(CALM_NS);

        atomic_store(&clients->soak->shared->calm, true);
        for (struct client *c = clients->clients; c < clients->clients + SOAK_CLIENTS; c++) {
                if (!c->pid)
                        continue;
                c->killed |= c->hostile;
                kill(c->pid, c->hostile ? SIGKILL : SIGCONT);
        }
        while (any_left(clients) && clock_ns() < deadline_ns)
                soak_sleep_us(1000);
        /* Whatever they wait for does not come: gone() will say so. */
        for (struct client *c = clients->clients; c < clients->clients + SOAK_CLIENTS; c++)
                if (c->pid)
                        kill(c->pid, SIGABRT);
        while (any_left(clients))
                soak_sleep_us(1000);
        atomic_store(&clients->soak->shared->calm, false);
}

void clients_run_alone(struct clients *clients, uint32_t style, uint64_t until_ns) {
        struct client *c = &clients->clients[0];

        *c = (struct client){ .kind = style };
        start(clients, c, true, until_ns);
        while (any_left(clients))
                soak_sleep_us(1000);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "private-daemon.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "bench.h"

#define READY_S       30
#define ARGUMENTS_MAX 16u

/* Where the daemon says READY=1, as sd_notify(3) has it: no polling, no sleeping. */
static int notify_socket(struct sockaddr_un *ret_address) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct timeval timeout = { .tv_sec = READY_S };
        int fd;

        work_path("notify", address.sun_path, sizeof(address.sun_path));
        unlink(address.sun_path);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
                die("%s: %s", address.sun_path, strerror(errno));
        *ret_address = address;
        return fd;
}

static void wait_ready(const struct private_daemon *daemon, int fd) {
        char text[512];
        ssize_t n;

        do {
                n = recv(fd, text, sizeof(text) - 1, 0);
                if (n < 0)
                        die("carvqd (process %d) was not ready within %d s", daemon->pid, READY_S);
                text[n] = '\0';
        } while (!strstr(text, "READY=1"));
}

void private_daemon_start(struct private_daemon *daemon, const char *table_name,
                          const char *table_path) {
        private_daemon_start_with(daemon, table_name, table_path, (const char *const[]){ NULL });
}

void private_daemon_start_with(struct private_daemon *daemon, const char *table_name,
                               const char *table_path, const char *const *arguments) {
        char program[PATH_MAX], control[PATH_MAX], table[PATH_MAX + 32];
        struct sockaddr_un address;
        _cleanup_(closep) int fd = notify_socket(&address);
        pid_t parent = getpid();
        uint64_t start_ns;

        program_beside("../../daemon/carvqd", program, sizeof(program));
        work_path("data.sock", daemon->socket_path, sizeof(daemon->socket_path));
        work_path("control.sock", control, sizeof(control));
        snprintf(table, sizeof(table), "%s=%s", table_name, table_path);
        start_ns = clock_ns();
        daemon->pid = fork();
        if (daemon->pid < 0)
                die("fork: %s", strerror(errno));
        if (daemon->pid == 0) {
                const char *argv[11 + ARGUMENTS_MAX + 1] = {
                        program,   "--socket", daemon->socket_path, "--control", control,
                        "--table", table,      "--log-level",       "warning",   "--tables-dir",
                        ""
                };

                for (size_t i = 0; i < ARGUMENTS_MAX && arguments[i]; i++)
                        argv[11 + i] = arguments[i];

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent || setenv("NOTIFY_SOCKET", address.sun_path, 1) < 0)
                        _exit(127);
                execv(program, (char *const *)argv);
                _exit(127);
        }
        keep_child(daemon->pid);
        wait_ready(daemon, fd);
        daemon->ready_ns = clock_ns() - start_ns;
}

void private_daemon_stop(struct private_daemon *daemon) {
        kill(daemon->pid, SIGTERM);
        waitpid(daemon->pid, NULL, 0);
        forget_child(daemon->pid);
}

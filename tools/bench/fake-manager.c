/* SPDX-License-Identifier: Apache-2.0 */
/* See fake-manager.h. */
#include "fake-manager.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "bench.h"

#define READY_MS    60000
#define FDS_MAX     16
#define FIRST_FD    3 /* sd_listen_fds(3) */
#define NAMES_BYTES 131072

static int make_socket(const char *path, int type, bool listens) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        unlink(path);
        if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
            (listens && listen(fd, SOMAXCONN) < 0))
                die("%s: %s", path, strerror(errno));
        return fd;
}

void fake_manager_init(struct fake_manager *m, const char *folder) {
        char notify_path[112];

        *m = (struct fake_manager){ .store_max = FAKE_STORE_MAX };
        snprintf(m->folder, sizeof(m->folder), "%s", folder);
        snprintf(m->data_path, sizeof(m->data_path), "%s/data.sock", m->folder);
        snprintf(m->control_path, sizeof(m->control_path), "%s/control.sock", m->folder);
        snprintf(m->log_path, sizeof(m->log_path), "%s/log", m->folder);
        snprintf(notify_path, sizeof(notify_path), "%s/notify", m->folder);
        m->listen_fds[0] = make_socket(m->data_path, SOCK_SEQPACKET, true);
        m->listen_fds[1] = make_socket(m->control_path, SOCK_STREAM, true);
        m->notify_fd = make_socket(notify_path, SOCK_DGRAM, false);
}

void fake_manager_drop(struct fake_manager *m) {
        for (uint32_t i = 0; i < m->n_stored; i++)
                close(m->stored[i].fd);
        m->n_stored = 0;
}

void fake_manager_deinit(struct fake_manager *m) {
        if (m->pid)
                fake_manager_stop(m, SIGKILL);
        fake_manager_drop(m);
        close(m->listen_fds[0]);
        close(m->listen_fds[1]);
        close(m->notify_fd);
}

/* ---- What the daemon says ---- */

static void store(struct fake_manager *m, const char *name, int fd) {
        if (m->n_stored == m->store_max) {
                close(fd); /* as systemd: too many, which nobody is told */
                return;
        }
        snprintf(m->stored[m->n_stored].name, sizeof(m->stored[0].name), "%s", name);
        m->stored[m->n_stored++].fd = fd;
}

static void forget(struct fake_manager *m, const char *name) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < m->n_stored; i++)
                if (!strcmp(m->stored[i].name, name))
                        close(m->stored[i].fd);
                else
                        m->stored[n++] = m->stored[i];
        m->n_stored = n;
}

static size_t take_fds(struct msghdr *message, int fds[FDS_MAX]) {
        size_t n = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
                }
        return n;
}

/* One message. True: READY=1. */
static bool hear(struct fake_manager *m) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(FDS_MAX * sizeof(int))];
        char text[1024] = "", name[64] = "stored";
        struct iovec iov = { text, sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &iov,
                                  .msg_iovlen = 1,
                                  .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        bool ready = false, stores = false, forgets = false;
        int fds[FDS_MAX];
        size_t n_fds;

        if (recvmsg(m->notify_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
                return false;
        n_fds = take_fds(&message, fds);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                ready |= !strcmp(line, "READY=1");
                stores |= !strcmp(line, "FDSTORE=1");
                forgets |= !strcmp(line, "FDSTOREREMOVE=1");
                if (!strncmp(line, "FDNAME=", 7))
                        snprintf(name, sizeof(name), "%.63s", line + 7);
        }
        /* Others are closed, which is also the answer to BARRIER=1. Newest first, as systemd has
         * them, so that nobody relies on an order. */
        for (size_t i = n_fds; i-- > 0;)
                if (stores)
                        store(m, name, fds[i]);
                else
                        close(fds[i]);
        if (forgets)
                forget(m, name);
        return ready;
}

void fake_manager_listen(struct fake_manager *m, int timeout_ms) {
        struct pollfd p = { .fd = m->notify_fd, .events = POLLIN };

        while (poll(&p, 1, timeout_ms) > 0) {
                hear(m);
                timeout_ms = 0;
        }
}

/* ---- Start and stop ---- */

static void exec_daemon(const struct fake_manager *m, const char *const *argv) {
        static char names[NAMES_BYTES] = "data:control";
        static int spares[FAKE_STORE_MAX + 2];
        const uint32_t n_fds = m->n_stored + 2;
        char text[32], notify_path[112];
        size_t n = strlen(names);
        int log_fd;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        log_fd = open(m->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(log_fd, 2);
        /* Out of the way first, as they may lie where others have to go. */
        for (uint32_t i = 0; i < n_fds; i++) {
                int fd = i < 2 ? m->listen_fds[i] : m->stored[i - 2].fd;

                spares[i] = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD + (int)n_fds);
                if (spares[i] < 0)
                        _exit(126);
        }
        for (uint32_t i = 0; i < n_fds; i++) {
                dup2(spares[i], FIRST_FD + (int)i);
                if (i >= 2)
                        n += (size_t)snprintf(names + n, sizeof(names) - n, ":%s",
                                              m->stored[i - 2].name);
        }
        snprintf(text, sizeof(text), "%d", getpid());
        setenv("LISTEN_PID", text, 1);
        snprintf(text, sizeof(text), "%" PRIu32, n_fds);
        setenv("LISTEN_FDS", text, 1);
        setenv("LISTEN_FDNAMES", names, 1);
        snprintf(notify_path, sizeof(notify_path), "%s/notify", m->folder);
        setenv("NOTIFY_SOCKET", notify_path, 1);
        unsetenv("FDSTORE"); /* systemd 252 does not say */
        unsetenv("JOURNAL_STREAM");
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
}

void fake_manager_spawn(struct fake_manager *m, const char *const *argv) {
        m->pid = fork();
        if (m->pid < 0)
                die("fork: %s", strerror(errno));
        if (m->pid == 0)
                exec_daemon(m, argv);
}

void fake_manager_start(struct fake_manager *m, const char *const *argv) {
        uint64_t deadline_ns = clock_ns() + READY_MS * UINT64_C(1000000);

        fake_manager_spawn(m, argv);
        for (;;) {
                struct pollfd p = { .fd = m->notify_fd, .events = POLLIN };

                if (poll(&p, 1, 100) > 0 && hear(m))
                        return;
                if (waitpid(m->pid, NULL, WNOHANG) != 0 || clock_ns() > deadline_ns)
                        die("carvqd (process %d) was not ready; see %s", m->pid, m->log_path);
        }
}

int fake_manager_stop(struct fake_manager *m, int signal) {
        int pid_fd = (int)syscall(SYS_pidfd_open, m->pid, 0), status;
        struct pollfd p[2] = { { .fd = m->notify_fd, .events = POLLIN },
                               { .fd = pid_fd, .events = POLLIN } };

        if (pid_fd < 0)
                die("pidfd_open: %s", strerror(errno));
        kill(m->pid, signal);
        while (!p[1].revents) {
                poll(p, 2, -1);
                if (p[0].revents)
                        hear(m);
        }
        fake_manager_listen(m, 0);
        close(pid_fd);
        waitpid(m->pid, &status, 0);
        m->pid = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "notify.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "daemon.h"
#include "proto/spin.h"

/* Clients may come and go thousands of times a second; people read one line of it. */
#define STATUS_PAUSE_S 1

/* Of the line, for the names of tables. */
#define NAMES_BYTES 128u

/* So that the manager misses no sign of life for lack of a single one. */
#define SIGNS_PER_TIMEOUT 4u

/* For the store, where the manager is to be waited for. */
#define STORE_WAIT_S  3
#define STORE_FDS_MAX 4

/* ---- The status line ---- */

struct line {
        char *text;
        size_t length;
};

static void _printf_(2, 3) add(struct line *line, const char *format, ...) {
        size_t n_left = NOTIFY_STATUS_BYTES - line->length;
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(line->text + line->length, n_left, format, arguments);
        va_end(arguments);
        line->length += MIN((size_t)MAX(n, 0), n_left - 1);
}

/* As many names as leave room for the rest of the line. */
static void add_names(struct line *line, const struct store *store, uint32_t n_tables) {
        const char *separator = " (";
        const struct store_table *table;

        TAILQ_FOREACH(table, &store->tables, link) {
                if (!table->published)
                        continue;
                if (line->length + strlen(table->name) > NAMES_BYTES) {
                        add(line, "%s%" PRIu32 " more", separator, n_tables);
                        break;
                }
                add(line, "%s%s", separator, table->name);
                separator = ", ";
                n_tables--;
        }
        add(line, ")");
}

static const char *plural(uint32_t n) {
        return n == 1 ? "" : "s";
}

void notify_describe(const struct daemon *daemon, char ret_status[NOTIFY_STATUS_BYTES]) {
        struct line line = { .text = ret_status };
        const struct store_table *table;
        uint32_t n_tables = 0;

        if (daemon->stopping) {
                add(&line, "Stopping, %" PRIu32 " client%s to %s", daemon->n_sessions,
                    plural(daemon->n_sessions), daemon->handing_over ? "hand over" : "drain");
                return;
        }
        if (!daemon->ready) {
                add(&line, "Loading %" PRIu32 " table%s", daemon->n_loading,
                    plural(daemon->n_loading));
                return;
        }
        TAILQ_FOREACH(table, &daemon->store.tables, link) {
                n_tables += table->published;
        }
        add(&line, "Serving %" PRIu32 " table%s", n_tables, plural(n_tables));
        if (n_tables)
                add_names(&line, &daemon->store, n_tables);
        add(&line, " to %" PRIu32 " client%s, kernels %s, event loop %s", daemon->n_sessions,
            plural(daemon->n_sessions), daemon->kernels->name, loop_name(daemon->loop));
        if (loop_why(daemon->loop)[0])
                add(&line, " (%s)", loop_why(daemon->loop));
}

/* ---- Telling ---- */

/* sd_notify(3) would wait for a manager that does not read, and every client's messages with it. */
static int send_now(const struct notify *n, const char *text) {
        return send(n->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void pause_telling(struct daemon *daemon) {
        struct notify *n = &daemon->notify;

        if (n->pausing)
                return;
        n->pausing = true;
        n->pause.tv_sec = STATUS_PAUSE_S;
        io_uring_prep_timeout(loop_prepare(daemon->loop, &n->pause_op), &n->pause, 0, 0);
}

/* What cannot be sent is owed until the pause is over. */
static void tell(struct daemon *daemon) {
        struct notify *n = &daemon->notify;
        char status[NOTIFY_STATUS_BYTES], text[sizeof(n->owed) + sizeof(status) + 16];

        notify_describe(daemon, status);
        if (!n->owed[0] && !strcmp(status, n->status))
                return;
        snprintf(text, sizeof(text), "%sSTATUS=%s", n->owed, status);
        if (send_now(n, text) >= 0) {
                n->owed[0] = '\0';
                strcpy(n->status, status);
        }
        pause_telling(daemon);
}

/* After every turn of the loop, because all that the line tells changes there. */
static void tell_news(void *userdata) {
        struct daemon *daemon = userdata;

        if (!daemon->notify.pausing)
                tell(daemon);
}

/* The end of this turn tells what has changed meanwhile. */
static void pause_over(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        (void)res;
        (void)cqe_flags;
        container_of(op, struct notify, pause_op)->pausing = false;
}

/* ---- The watchdog ---- */

static void wait_for_signs(struct daemon *daemon) {
        struct notify *n = &daemon->notify;

        for (uint32_t i = 0; i < daemon->config.n_workers; i++)
                worker_heartbeat(daemon->workers[i]);
        io_uring_prep_timeout(loop_prepare(daemon->loop, &n->watchdog_op), &n->watchdog_period, 0,
                              0);
}

/* That this runs is the loop's sign of life. The chore thread gives none: it may wait for a disk as
 * long as it likes, nobody's lookup waits for it. */
static void on_watchdog(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct daemon *daemon = container_of(op, struct daemon, notify.watchdog_op);
        bool all_moved = true;

        (void)res;
        (void)cqe_flags;
        for (uint32_t i = 0; i < daemon->config.n_workers; i++)
                if (!worker_has_moved(daemon->workers[i])) {
                        log_warning("worker %" PRIu32 " gives no sign of life", i);
                        all_moved = false;
                }
        if (all_moved)
                send_now(&daemon->notify, "WATCHDOG=1");
        wait_for_signs(daemon);
}

static void start_watchdog(struct daemon *daemon) {
        struct notify *n = &daemon->notify;
        uint64_t timeout_us, period_us;

        if (sd_watchdog_enabled(0, &timeout_us) <= 0)
                return;
        period_us = timeout_us / SIGNS_PER_TIMEOUT;
        n->watchdog_period =
                (struct __kernel_timespec){ .tv_sec = (int64_t)(period_us / 1000000),
                                            .tv_nsec = (int64_t)(period_us % 1000000) * 1000 };
        n->watchdog_op.done = on_watchdog;
        wait_for_signs(daemon);
}

/* ---- The manager's store of descriptors ---- */

int notify_store(struct daemon *daemon, const char *text, const int *fds, size_t n_fds) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(STORE_FDS_MAX * sizeof(int))] = { 0 };
        struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        if (n_fds) {
                struct cmsghdr *c;

                assert(n_fds <= STORE_FDS_MAX);
                m.msg_control = control;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        do
                n = sendmsg(daemon->notify.fd, &m, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

/* As sd_notify_barrier(3), which waits for ever where there is no room for the message. */
int notify_barrier(struct daemon *daemon) {
        _cleanup_(closep) int read_fd = -1;
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        read_fd = fds[0];
        r = notify_store(daemon, "BARRIER=1", &fds[1], 1);
        close(fds[1]);
        if (r < 0)
                return r;
        /* The end of the pipe: the manager has closed its other end, too. */
        r = poll(&(struct pollfd){ .fd = read_fd }, 1, STORE_WAIT_S * 1000);
        return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

/* ---- States ---- */

/* As NOTIFY_SOCKET has it: a path, or '@' and an abstract name. -errno where nobody listens. */
static int connect_to(const char *name, int *ret_fd) {
        const struct timeval wait = { .tv_sec = STORE_WAIT_S };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = -1;
        size_t n = strlen(name);

        if ((name[0] != '/' && name[0] != '@') || n >= sizeof(address.sun_path))
                return -EINVAL;
        memcpy(address.sun_path, name, n);
        if (name[0] == '@')
                address.sun_path[0] = '\0';
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0 ||
            connect(fd, (struct sockaddr *)&address,
                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
                return -errno;
        *ret_fd = steal_fd(&fd);
        return 0;
}

void notify_start(struct daemon *daemon) {
        const char *name = getenv("NOTIFY_SOCKET");
        struct notify *n = &daemon->notify;
        int r;

        if (!name || !*name)
                return;
        r = connect_to(name, &n->fd);
        if (r < 0) {
                log_warning("NOTIFY_SOCKET %s: %s; the service manager is told nothing", name,
                            strerror(-r));
                return;
        }
        n->pause_op.done = pause_over;
        loop_set_turned(daemon->loop, tell_news, daemon);
        start_watchdog(daemon);
}

void notify_deinit(struct daemon *daemon) {
        closep(&daemon->notify.fd);
}

/* At once and with the status, which else might be as old as its pause: now is when people look. A
 * later state makes an earlier one that is still owed meaningless. */
static void enter(struct daemon *daemon, const char *state) {
        struct notify *n = &daemon->notify;

        if (n->fd < 0)
                return;
        snprintf(n->owed, sizeof(n->owed), "%s\n", state);
        tell(daemon);
}

void notify_ready(struct daemon *daemon) {
        enter(daemon, "READY=1");
}

/* The time lets the manager tell the answer to this reload from that to an earlier one. */
void notify_reloading(struct daemon *daemon) {
        char state[NOTIFY_OWED_BYTES - 1];

        snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_ns() / 1000);
        enter(daemon, state);
}

void notify_stopping(struct daemon *daemon) {
        enter(daemon, "STOPPING=1");
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the modules together and runs them: start, readiness, signals, the half-second tick, the
 * end. All on the main thread, which runs the loop and touches no table page.
 */
#include "daemon.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "control.h"
#include "guard.h"
#include "handover.h"
#include "proto/spin.h"
#include "reload.h"
#include "takeover.h"

#define TICK_NS 500000000

/* Longer than sessions take to be drained. */
#define STOP_NS UINT64_C(10000000000)

/* ---- clients ---- */

void daemon_start_tick(struct daemon *daemon) {
        if (daemon->ticking)
                return;
        daemon->ticking = true;
        daemon->tick.tv_nsec = TICK_NS;
        io_uring_prep_timeout(loop_prepare(daemon->loop, &daemon->tick_op), &daemon->tick, 0, 0);
}

/* What clients sent need never close; a thread that waits for it goes with the process alone. */
_Noreturn static void stop_without(const struct daemon *daemon) {
        log_warning("stopping without %" PRIu32 " client%s whose descriptors do not close",
                    daemon->n_sessions, daemon->n_sessions == 1 ? "" : "s");
        _exit(EXIT_SUCCESS);
}

static void on_tick(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct daemon *daemon = container_of(op, struct daemon, tick_op);
        const uint64_t now_ns = clock_ns();

        (void)res;
        (void)cqe_flags;
        daemon->ticking = false;
        if (!daemon->n_sessions)
                return;
        for (uint32_t i = 0; i < daemon->config.n_workers; i++)
                worker_heartbeat(daemon->workers[i]);
        sessions_expire(daemon, now_ns);
        if (daemon->stopping && now_ns - daemon->stopping_ns > STOP_NS)
                stop_without(daemon);
        daemon_start_tick(daemon);
}

static void on_data_client(void *userdata, int fd) {
        struct daemon *daemon = userdata;

        if (session_new(daemon, fd) >= 0)
                daemon_start_tick(daemon);
}

static void on_control_client(void *userdata, int fd) {
        control_connection_new(userdata, fd);
}

/* When the first tables are there, so that an early client does not miss one. */
static void serve_clients(struct daemon *daemon) {
        if (daemon->ready || daemon->stopping)
                return;
        daemon->ready = true;
        listener_start(&daemon->data, daemon->loop, on_data_client, daemon);
        listener_start(&daemon->control, daemon->loop, on_control_client, daemon);
        log_notice("ready: data socket %s, control socket %s, kernels %s, %" PRIu32 " worker%s",
                   daemon->config.socket_path, daemon->config.control_path, daemon->kernels->name,
                   daemon->config.n_workers, daemon->config.n_workers == 1 ? "" : "s");
        notify_ready(daemon);
}

void daemon_loaded(struct daemon *daemon) {
        if (--daemon->n_loading == 0) {
                serve_clients(daemon);
                reload_settled(daemon);
        }
        daemon_stop_if_done(daemon);
}

/* ---- the end ---- */

void daemon_stop_if_done(struct daemon *daemon) {
        if (!daemon->stopping || daemon->n_control_connections || daemon->n_loading ||
            daemon->n_populating)
                return;
        if (daemon->handing_over)
                handover_go_on(daemon);
        if (!daemon->n_sessions)
                loop_stop(daemon->loop);
        else if (daemon->n_sessions <= daemon->n_left_behind) {
                log_info("not waiting for %" PRIu32 " client%s gone but not closed yet",
                         daemon->n_sessions, daemon->n_sessions == 1 ? "" : "s");
                _exit(EXIT_SUCCESS);
        }
}

void daemon_stop(struct daemon *daemon) {
        if (daemon->stopping)
                return;
        daemon->stopping = true;
        daemon->stopping_ns = clock_ns();
        log_notice("stopping: %" PRIu32 " client%s to %s", daemon->n_sessions,
                   daemon->n_sessions == 1 ? "" : "s",
                   daemon->handing_over ? "hand over" : "drain");
        notify_stopping(daemon);
        listener_close(&daemon->data);
        listener_close(&daemon->control);
        if (!daemon->handing_over)
                sessions_dismiss(daemon);
        control_close(daemon);
        daemon_stop_if_done(daemon);
}

static void wait_for_signal(struct daemon *daemon) {
        io_uring_prep_poll_add(loop_prepare(daemon->loop, &daemon->signal_op), daemon->signal_fd,
                               POLLIN);
}

static void on_signal(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct daemon *daemon = container_of(op, struct daemon, signal_op);
        struct signalfd_siginfo info;

        (void)res;
        (void)cqe_flags;
        while (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                if (daemon->stopping)
                        continue;
                if (info.ssi_signo == SIGHUP) {
                        reload_start(daemon, NULL, NULL);
                        continue;
                }
                daemon->handing_over = info.ssi_signo == SIGTERM && handover_offered(daemon);
                daemon_stop(daemon);
        }
        wait_for_signal(daemon);
}

static int init_signals(struct daemon *daemon, struct fault *ret_fault) {
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        /* Before there is a second thread, so that all of them inherit it. */
        sigprocmask(SIG_BLOCK, &set, NULL);
        signal(SIGPIPE, SIG_IGN);
        daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (daemon->signal_fd < 0)
                return fault_set(ret_fault, -errno, "signalfd: %s", strerror(errno));
        return 0;
}

/* ---- the beginning ---- */

/* Reports are to tell where clients really connect. */
static int take_path(int fd, char **path) {
        struct sockaddr_un address = { 0 };
        socklen_t n = sizeof(address) - 1; /* a NUL stays behind the longest path */
        char *copy;

        if (getsockname(fd, (struct sockaddr *)&address, &n) < 0 || !address.sun_path[0])
                return 0;
        copy = strdup(address.sun_path);
        if (!copy)
                return -ENOMEM;
        free(*path);
        *path = copy;
        return 0;
}

static int adopt(struct listener *listener, int fd, int type, char **path,
                 struct fault *ret_fault) {
        int r = listener_adopt(listener, fd, type, ret_fault);

        if (r < 0)
                return r;
        r = take_path(fd, path);
        return r < 0 ? fault_set(ret_fault, r, "out of memory") : 0;
}

/* Sockets from the service manager, by name; those it does not pass are made here. */
static int init_listeners(struct daemon *daemon, struct fault *ret_fault) {
        const char *folder = daemon->config.default_folder;
        char **names = NULL;
        int n = sd_listen_fds_with_names(1, &names), r = 0;
        bool data = false, control = false;

        for (int i = 0; i < n && r >= 0; i++) {
                int fd = SD_LISTEN_FDS_START + i;

                if (!strcmp(names[i], "data") && !data) {
                        data = true;
                        r = adopt(&daemon->data, fd, SOCK_SEQPACKET, &daemon->config.socket_path,
                                  ret_fault);
                } else if (!strcmp(names[i], "control") && !control) {
                        control = true;
                        r = adopt(&daemon->control, fd, SOCK_STREAM, &daemon->config.control_path,
                                  ret_fault);
                } else if (!takeover_offer(daemon, names[i], fd)) {
                        log_warning("passed descriptor %d is named '%s', expected data or control: "
                                    "closed",
                                    fd, names[i]);
                        close(fd);
                }
        }
        for (int i = 0; i < n; i++)
                free(names[i]);
        free(names);
        /* Only our own: a mistyped --socket should not make folders. */
        if (r >= 0 && folder && (!data || !control) && mkdir(folder, 0755) < 0 && errno != EEXIST)
                r = fault_set(ret_fault, -errno, "%s: cannot make the folder: %s", folder,
                              strerror(errno));
        if (r >= 0 && !data)
                r = listener_bind(&daemon->data, daemon->config.socket_path, SOCK_SEQPACKET,
                                  ret_fault);
        if (r >= 0 && !control)
                r = listener_bind(&daemon->control, daemon->config.control_path, SOCK_STREAM,
                                  ret_fault);
        return r;
}

/* A session takes a socket, its memory and a doorbell, and the usual soft limit of 1,024 is for
 * programs that select(). */
static void raise_descriptor_limit(const struct daemon *daemon) {
        uint64_t n_needed =
                3 * (uint64_t)daemon->config.max_sessions + 2 * daemon->config.n_workers + 128;
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max < n_needed)
                log_warning("%" PRIu32 " sessions (max-sessions) take up to %" PRIu64
                            " descriptors, the limit is %" PRIu64 " (LimitNOFILE= in the unit)",
                            daemon->config.max_sessions, n_needed, (uint64_t)limit.rlim_max);
}

static int init_workers(struct daemon *daemon, struct fault *ret_fault) {
        struct worker_options options = {
                .kernels = daemon->kernels,
                .spin_ns_max = daemon->config.spin_ns_max,
                .n_workers = daemon->config.n_workers,
                .is_epoll = loop_is_epoll(daemon->loop),
                .home = loop_mailbox(daemon->loop),
        };
        int r = 0;

        daemon->workers = calloc(daemon->config.n_workers, sizeof(*daemon->workers));
        if (!daemon->workers)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < daemon->config.n_workers && r >= 0; i++) {
                options.number = i;
                r = worker_new(&options, &daemon->workers[i], ret_fault);
        }
        return r;
}

static int daemon_init(struct daemon *daemon, struct fault *ret_fault) {
        uint64_t limits[QUOTA_KINDS_N];
        int r;

        TAILQ_INIT(&daemon->sessions);
        control_init(daemon);
        config_user_limits(&daemon->config, limits);
        quota_init(&daemon->quota, limits, daemon->config.n_workers);
        store_init(&daemon->store, NULL, NULL);
        daemon->signal_fd = daemon->data.fd = daemon->control.fd = daemon->notify.fd =
                daemon->folder.inotify_fd = -1;
        daemon->started_ns = clock_ns();
        daemon->signal_op.done = on_signal;
        daemon->tick_op.done = on_tick;
        while (getrandom(&daemon->epoch, sizeof(daemon->epoch), 0) < 0 && errno == EINTR)
                ;

        raise_descriptor_limit(daemon);
        guard_install();
        daemon->cpu_features = codec_cpu_features() & daemon->config.cpu_mask;
        daemon->kernels = codec_kernels_choose(daemon->cpu_features);
        r = init_signals(daemon, ret_fault);
        if (r >= 0)
                r = loop_new(daemon->config.event_loop, &daemon->loop, ret_fault);
        if (r >= 0)
                r = init_listeners(daemon, ret_fault);
        if (r < 0)
                return r;
        r = chores_new(loop_mailbox(daemon->loop), &daemon->chores);
        if (r < 0)
                return fault_set(ret_fault, r, "chore thread: %s", strerror(-r));
        store_init(&daemon->store, daemon->chores, loop_mailbox(daemon->loop));
        return init_workers(daemon, ret_fault);
}

static void daemon_deinit(struct daemon *daemon) {
        refusals_free(daemon);
        takeover_free(daemon);
        for (uint32_t i = 0; daemon->workers && i < daemon->config.n_workers; i++)
                worker_free(daemon->workers[i]);
        free(daemon->workers);
        store_deinit(&daemon->store);
        chores_free(daemon->chores);
        listener_close(&daemon->data);
        listener_close(&daemon->control);
        loop_free(daemon->loop);
        notify_deinit(daemon);
        folder_deinit(&daemon->folder);
        closep(&daemon->signal_fd);
        quota_deinit(&daemon->quota);
        config_deinit(&daemon->config);
}

int daemon_run(struct config *config, struct fault *ret_fault) {
        struct daemon daemon = { .config = *config };
        int r;

        *config = (struct config){ 0 };
        r = daemon_init(&daemon, ret_fault);
        if (r >= 0) {
                notify_start(&daemon);
                wait_for_signal(&daemon);
                folder_init(&daemon.folder, &daemon);
                daemon.n_loading++; /* all below is one step of the start */
                takeover_start(&daemon);
                daemon_loaded(&daemon);
                r = loop_run(daemon.loop);
                if (r < 0)
                        fault_set(ret_fault, r, "event loop: %s", strerror(-r));
        }
        daemon_deinit(&daemon);
        return r;
}

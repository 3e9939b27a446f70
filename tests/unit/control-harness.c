/* SPDX-License-Identifier: Apache-2.0 */
/* See control-harness.h. Aborts on whatever goes wrong in the harness itself. */
#include "control-harness.h"

#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/control.h"
#include "daemon/daemon.h"
#include "proto/spin.h"
#include "tests/make-table.h"

#define TIMEOUT_MS 20000

struct harness {
        struct daemon daemon;
        pthread_t thread;
        sem_t started;
        int session_fd; /* our end of the client's connection */
        char table_path[64], config_path[64];
        char *arguments[7];
};

/* A function on the loop's thread, waited for. */
struct order {
        struct mail mail;
        struct harness *harness;
        void (*run)(struct harness *harness, int argument);
        int argument;
        sem_t done;
};

static void require(bool ok, const char *what) {
        if (ok)
                return;
        fprintf(stderr, "control-harness: %s: %s\n", what, strerror(errno));
        abort();
}

static void deliver(struct mail *mail) {
        struct order *order = container_of(mail, struct order, mail);

        order->run(order->harness, order->argument);
        sem_post(&order->done);
}

static void run_there(struct harness *h, void (*run)(struct harness *harness, int argument),
                      int argument) {
        struct order order = {
                .mail.deliver = deliver, .harness = h, .run = run, .argument = argument
        };

        sem_init(&order.done, 0, 0);
        mailbox_post(loop_mailbox(h->daemon.loop), &order.mail);
        sem_wait(&order.done);
        sem_destroy(&order.done);
}

static void make_daemon(struct harness *h) {
        struct daemon *d = &h->daemon;
        struct store_table *table;
        struct fault fault = { 0 };
        uint64_t limits[QUOTA_KINDS_N];
        int pair[2];

        TAILQ_INIT(&d->sessions);
        control_init(d);
        require(config_init(&d->config, ARRAY_SIZE(h->arguments), h->arguments) == 0,
                "config_init");
        config_user_limits(&d->config, limits);
        quota_init(&d->quota, limits, d->config.n_workers);
        d->kernels = &codec_kernels_scalar;
        d->cpu_features = CODEC_CPU_AVX2;
        d->epoch = UINT64_C(0xfedcba9876543210);
        d->started_ns = clock_ns();
        d->data.fd = d->control.fd = d->signal_fd = -1;
        d->ready = true;
        require(loop_new(LOOP_AUTO, &d->loop, &fault) >= 0, fault.text);
        require(chores_new(loop_mailbox(d->loop), &d->chores) >= 0, "chores");
        store_init(&d->store, d->chores, loop_mailbox(d->loop));
        folder_init(&d->folder, d);
        require(store_table_new(HARNESS_TABLE_NAME, h->table_path, &table, &fault) >= 0,
                fault.text);
        store_publish(&d->store, table);
        require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) >= 0, "socketpair");
        h->session_fd = pair[0];
        require(session_new(d, pair[1]) >= 0, "session");
}

static void *harness_main(void *userdata) {
        struct harness *h = userdata;
        struct daemon *d = &h->daemon;

        make_daemon(h);
        sem_post(&h->started);
        require(loop_run(d->loop) >= 0, "loop_run");
        store_deinit(&d->store);
        chores_free(d->chores);
        loop_free(d->loop);
        folder_deinit(&d->folder);
        refusals_free(d);
        quota_deinit(&d->quota);
        config_deinit(&d->config);
        return NULL;
}

struct harness *harness_new(void) {
        const struct table_header parameters = { .codec = TABLE_CODEC_F32,
                                                 .n_rows = 1000,
                                                 .n_dims = 8 };
        const char *const arguments[] = { "carvqd",
                                          "--config",
                                          NULL,
                                          "--tables-dir=",
                                          "--socket=/run/test/carvqd.sock",
                                          "--control=/run/test/control.sock",
                                          "--max-sessions=10" };
        struct harness *h = calloc(1, sizeof(*h));
        int fd;

        require(h, "calloc");
        strcpy(h->table_path, "/tmp/test-control-XXXXXX");
        fd = mkstemp(h->table_path);
        require(fd >= 0, "mkstemp");
        close(fd);
        make_table_file(h->table_path, &parameters, 1);
        strcpy(h->config_path, "/tmp/test-control-XXXXXX");
        fd = mkstemp(h->config_path);
        require(fd >= 0, "mkstemp");
        close(fd);
        static_assert(sizeof(arguments) == sizeof(h->arguments), "");
        memcpy(h->arguments, arguments, sizeof(arguments));
        h->arguments[2] = h->config_path;
        sem_init(&h->started, 0, 0);
        require(!pthread_create(&h->thread, NULL, harness_main, h), "pthread_create");
        sem_wait(&h->started);
        return h;
}

static void stop_there(struct harness *h, int argument) {
        (void)argument;
        h->daemon.stopping = false;
        daemon_stop(&h->daemon);
}

void harness_free(struct harness *h) {
        run_there(h, stop_there, 0);
        pthread_join(h->thread, NULL);
        close(h->session_fd);
        unlink(h->table_path);
        unlink(h->config_path);
        sem_destroy(&h->started);
        free(h);
}

const char *harness_table_path(const struct harness *h) {
        return h->table_path;
}

void harness_write_config(const struct harness *h, const char *text) {
        FILE *f = fopen(h->config_path, "we");

        require(f && fputs(text, f) >= 0 && !fclose(f), "writing the configuration");
}

static void set_stopping_there(struct harness *h, int stopping) {
        h->daemon.stopping = stopping;
}

void harness_set_stopping(struct harness *h, bool stopping) {
        run_there(h, set_stopping_there, stopping);
}

static void connect_there(struct harness *h, int fd) {
        control_connection_new(&h->daemon, fd);
}

int harness_connect(struct harness *h) {
        const struct timeval timeout = { .tv_sec = TIMEOUT_MS / 1000 };
        int pair[2];

        require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) >= 0, "socketpair");
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        run_there(h, connect_there, pair[1]);
        return pair[0];
}

struct received {
        char *bytes;
        size_t n_bytes;
};

/* False at the end. */
static bool receive(int fd, struct received *r) {
        ssize_t n;

        r->bytes = realloc(r->bytes, r->n_bytes + 65536 + 1);
        require(r->bytes, "realloc");
        n = recv(fd, r->bytes + r->n_bytes, 65536, 0);
        r->n_bytes += (size_t)MAX(n, 0);
        r->bytes[r->n_bytes] = '\0';
        return n > 0;
}

/* Reads while it writes: the daemon takes no further call before its answer has left. */
char *harness_talk(struct harness *h, const void *bytes, size_t n_bytes, size_t piece_bytes,
                   size_t *ret_bytes) {
        struct received r = { .bytes = calloc(1, 1) };
        struct pollfd p = { .fd = harness_connect(h), .events = POLLIN | POLLOUT };
        size_t n_sent = 0;

        for (;;) {
                require(poll(&p, 1, TIMEOUT_MS) > 0, "no answer in time");
                if (p.revents & (POLLIN | POLLHUP)) {
                        if (!receive(p.fd, &r))
                                break;
                } else if (p.revents & POLLOUT) {
                        ssize_t n = send(p.fd, (const char *)bytes + n_sent,
                                         MIN(piece_bytes, n_bytes - n_sent),
                                         MSG_NOSIGNAL | MSG_DONTWAIT);

                        n_sent = n < 0 && errno != EAGAIN ? n_bytes : n_sent + (size_t)MAX(n, 0);
                        if (n_sent == n_bytes) {
                                shutdown(p.fd, SHUT_WR);
                                p.events = POLLIN;
                        }
                }
        }
        close(p.fd);
        *ret_bytes = r.n_bytes;
        return r.bytes;
}

json_t *harness_call(struct harness *h, const char *json) {
        size_t n_bytes;
        _cleanup_(freep) char *text =
                harness_talk(h, json, strlen(json) + 1, strlen(json) + 1, &n_bytes);
        json_error_t error;
        json_t *reply = json_loads(text, 0, &error);

        if (!reply || n_bytes != strlen(text) + 1) {
                fprintf(stderr, "control-harness: %s is answered by %zu bytes: %s\n", json, n_bytes,
                        text);
                abort();
        }
        return reply;
}

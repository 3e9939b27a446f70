/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis: rows of f16 under binary ids, in a server of the bench's own on a Unix socket. Batches go
 * out as MGETs, all before the first answer is read, so that the server works while the answers are
 * converted.
 */
#include "peer.h"

#if HAVE_HIREDIS
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench.h"

/* Of one MGET; 16 to 128 did best, of 1 to 4096. */
#define CHUNK_IDS 64u

#define START_NS  UINT64_C(10000000000)
#define RETRY_NS  10000000

static pid_t server_pid;

/* ---- The server ---- */

static void socket_path(char *ret_path) {
        work_path("redis.sock", ret_path, PATH_MAX);
}

/* Debian's redis-tools has the server, too, as redis-check-rdb: one program that goes by its name.
 * That package starts no service. */
static void exec_server(void) {
        char path[PATH_MAX], work[PATH_MAX];
        char *argv[] = { "redis-server", "--port",    "0",         "--unixsocket",
                         path,           "--save",    "",          "--appendonly",
                         "no",           "--dir",     work,        "--daemonize",
                         "no",           "--logfile", "/dev/null", NULL };

        socket_path(path);
        work_path(".", work, sizeof(work));
        execvp("redis-server", argv);
        execvp("redis-check-rdb", argv);
        _exit(127);
}

static redisContext *try_connect(void) {
        char path[PATH_MAX];
        redisContext *c;
        redisReply *reply;

        socket_path(path);
        c = redisConnectUnix(path);
        if (c && !c->err) {
                reply = redisCommand(c, "PING");
                if (reply) {
                        freeReplyObject(reply);
                        return c;
                }
        }
        if (c)
                redisFree(c);
        return NULL;
}

/* Until it answers; NULL if it ended instead. */
static redisContext *wait_for_server(void) {
        uint64_t deadline_ns = deadline_after(START_NS);

        while (clock_ns() < deadline_ns) {
                redisContext *c = try_connect();

                if (c)
                        return c;
                if (waitpid(server_pid, NULL, WNOHANG) == server_pid) {
                        forget_child(server_pid);
                        server_pid = 0;
                        return NULL;
                }
                nanosleep(&(struct timespec){ .tv_nsec = RETRY_NS }, NULL);
        }
        die("redis-server does not answer");
}

static redisContext *start_server(struct fault *ret_why) {
        redisContext *c;
        pid_t parent = getpid();

        server_pid = fork();
        if (server_pid < 0)
                die("fork: %s", strerror(errno));
        if (server_pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() == parent)
                        exec_server();
                _exit(127);
        }
        keep_child(server_pid);
        c = wait_for_server();
        if (!c)
                fault_write(ret_why, "redis-server is not there or does not start (Debian: "
                                     "redis-tools has it, too)");
        return c;
}

/* ---- The rows ---- */

static redisReply *next_reply(redisContext *c) {
        void *reply = NULL;

        if (redisGetReply(c, &reply) != REDIS_OK)
                die("Redis: %s", c->errstr);
        return reply;
}

struct writing {
        redisContext *c;
        size_t row_bytes;
};

static void put(void *userdata, uint64_t first, size_t n_rows, const void *rows) {
        struct writing *w = userdata;

        for (size_t i = 0; i < n_rows; i++) {
                uint64_t id = first + i;

                redisAppendCommand(w->c, "SET %b %b", &id, sizeof(id),
                                   (const uint8_t *)rows + i * w->row_bytes, w->row_bytes);
        }
        for (size_t i = 0; i < n_rows; i++) {
                redisReply *reply = next_reply(w->c);

                if (reply->type == REDIS_REPLY_ERROR)
                        die("Redis: %s", reply->str);
                freeReplyObject(reply);
        }
}

static bool set_up(struct peer_world *world, struct fault *ret_why) {
        struct writing w = { .c = start_server(ret_why),
                             .row_bytes = world->n_dims * sizeof(uint16_t) };

        if (!w.c)
                return false;
        peer_world_each(world, CODEC_TYPE_F16, put, &w);
        redisFree(w.c);
        return true;
}

struct redis_peer {
        struct peer_world *world;
        redisContext *c;
};

static void *open_peer(struct peer_world *world) {
        struct redis_peer *p = allocate(1, sizeof(*p));

        p->world = world;
        p->c = try_connect();
        if (!p->c)
                die("Redis: cannot connect");
        return p;
}

static void ask(struct redis_peer *p, const uint64_t *ids, size_t n_ids) {
        const char *argv[CHUNK_IDS + 1] = { "MGET" };
        size_t lengths[CHUNK_IDS + 1] = { 4 };

        for (size_t i = 0; i < n_ids; i++) {
                argv[i + 1] = (const char *)&ids[i];
                lengths[i + 1] = sizeof(ids[i]);
        }
        redisAppendCommandArgv(p->c, (int)n_ids + 1, argv, lengths);
}

static void take(struct redis_peer *p, size_t n_ids, uint8_t *ret_rows) {
        redisReply *reply = next_reply(p->c);

        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != n_ids)
                die("Redis: not an array of %zu rows", n_ids);
        for (size_t i = 0; i < n_ids; i++) {
                const redisReply *row = reply->element[i];

                if (row->type != REDIS_REPLY_STRING ||
                    row->len != p->world->n_dims * sizeof(uint16_t))
                        die("Redis: not a row");
                peer_deliver(p->world, row->str, ret_rows + i * p->world->row_bytes);
        }
        freeReplyObject(reply);
}

static void get(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                struct peer_rows *ret_rows) {
        struct redis_peer *p = handle;

        for (size_t i = 0; i < n_ids; i += CHUNK_IDS)
                ask(p, ids + i, MIN(n_ids - i, CHUNK_IDS));
        for (size_t i = 0; i < n_ids; i += CHUNK_IDS)
                take(p, MIN(n_ids - i, CHUNK_IDS), (uint8_t *)buffer + i * p->world->row_bytes);
        *ret_rows = (struct peer_rows){ buffer, p->world->row_bytes };
}

static void close_peer(void *handle) {
        struct redis_peer *p = handle;

        redisFree(p->c);
        free(p);
}

static void tear_down(void) {
        kill(server_pid, SIGKILL); /* nothing in it is to be kept */
        waitpid(server_pid, NULL, 0);
        forget_child(server_pid);
}

static pid_t server(void) {
        return server_pid;
}

const struct peer peer_redis = {
        .name = "Redis, f16",
        .set_up = set_up,
        .open = open_peer,
        .get = get,
        .close = close_peer,
        .tear_down = tear_down,
        .server = server,
};
#else
const struct peer peer_redis = {
        .name = "Redis, f16",
        .missing = "built without libhiredis (Debian: libhiredis-dev)",
};
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the modules of the library share: the client with its lookups in flight, and the table with
 * its two kinds. One thread at a time; nothing here is locked.
 */
#pragma once

#include <sys/queue.h>

#include "arena.h"
#include "carvq.h"
#include "client-ring.h"
#include "codec/codec.h"
#include "packet.h"
#include "row-cache.h"
#include "wait-budget.h"

/* In flight or not yet released. A ticket's low bits are the index of its slot. */
#define CLIENT_LOOKUPS_MAX 256u

enum lookup_state {
        LOOKUP_FREE = 0,
        LOOKUP_PENDING,   /* to be submitted once there is a daemon, with the table and with room */
        LOOKUP_FLYING,    /* with the daemon */
        LOOKUP_ABANDONED, /* with the daemon, but nobody waits: freed when it completes */
        LOOKUP_DONE,      /* completed; its memory is the caller's until release */
};

struct lookup {
        carvq_ticket ticket;
        enum lookup_state state;
        bool seen;  /* the caller knows that it is done */
        bool again; /* a daemon that is gone had it before */
        uint32_t status;
        uint64_t detail;
        struct arena_block ids, rows;
        struct carvq_table *table;         /* NULL: closed since */
        struct ring_submission submission; /* so that it can be made again */
        uint64_t n_table_rows;
        uint32_t n_rows;
        SLIST_ENTRY(lookup) link; /* while free */
};

/* `status` of a lookup whose table the daemon no longer serves: none of ring_status. */
#define LOOKUP_STATUS_REFUSED UINT32_MAX

/* Not known to be done. */
static inline bool lookup_is_open(const struct lookup *l) {
        return l->state == LOOKUP_PENDING || l->state == LOOKUP_FLYING;
}

/* Of a lookup by a cache: what goes through the ring, and where its rows belong. */
#define CLIENT_MISSES_MAX 4096u

struct client_misses {
        uint64_t ids[CLIENT_MISSES_MAX];
        uint64_t places[CLIENT_MISSES_MAX]; /* in the output */
};

/* What there is between us and a daemon. */
enum client_link {
        LINK_UP = 0,
        LINK_DOWN,     /* nothing; the next attempt is at `retry_ns` */
        LINK_GREETING, /* HELLO is sent */
        LINK_SHARING,  /* RING is sent */
        LINK_ENDED,    /* nothing, for good */
};

struct carvq_client {
        int socket_fd; /* -1: while down */
        enum client_link link;
        struct fault why;   /* it is not up */
        struct fault error; /* of the last call */

        /* What a handshake takes, the first one and those after it. */
        char socket_path[108];
        char name[WIRE_NAME_BYTES];
        uint64_t arena_bytes;
        int memfd; /* of the ring */

        /* Reconnecting. */
        bool no_reconnect;
        pid_t pid;             /* who may */
        uint64_t retry_ns;     /* of CLOCK_MONOTONIC */
        uint64_t backoff_ns;   /* between two attempts; 0: all has been well since the last one */
        uint32_t n_violations; /* by what answered, since a handshake was sound */
        bool refused;          /* the last handshake, by a daemon of our version */
        uint64_t down_ns;      /* since when somebody has been kept waiting; 0: nobody is */
        uint64_t n_reconnects, n_handovers, n_resubmitted, last_pause_ns, longest_pause_ns;
        uint64_t epoch; /* of the daemon */

        /* For event loops; -1 until asked for. */
        int events_fd, retry_timer_fd;

        uint64_t timeout_ns;
        uint64_t spin_ns; /* as in carvq_connect_options */
        bool single_cpu;
        struct wait_history waits; /* what the adaptive budget learns from */
        uint32_t max_ids;
        uint64_t features;     /* in force */
        uint64_t last_request; /* of OPEN_TABLE, GET_FILE and GET_CACHE */
        uint64_t n_idle_polls;
        struct client_ring ring;
        struct arena ids, arena;
        struct lookup lookups[CLIENT_LOOKUPS_MAX];
        SLIST_HEAD(, lookup) free_lookups;
        uint64_t last_ticket;
        uint32_t n_with_daemon; /* flying or abandoned */
        uint32_t n_pending;
        uint64_t n_completed;     /* ever */
        uint64_t populated_bytes; /* of the arena, from its start */
        uint32_t n_unseen;        /* done, and the caller does not know yet */
        LIST_HEAD(, carvq_table) tables;
        struct client_misses *misses; /* NULL until a table has a cache */
};

struct carvq_table {
        struct carvq_client *client; /* NULL: from a file, with no daemon */
        struct table_header shape;   /* in ring mode only n_rows, n_dims, codec, record_bytes,
                                        file_bytes */
        char name[WIRE_NAME_BYTES];
        uint64_t handle; /* 0: this daemon has not opened it yet, or refused to */
        uint64_t generation;
        uint64_t open_request;        /* that will be answered some time; 0: none */
        struct fault refusal;         /* why it has no handle, when it was asked for last */
        LIST_ENTRY(carvq_table) link; /* of its client */

        /* Ring mode, with a cache. */
        bool wants_cache;
        bool cache_due; /* the daemon is another one since it was asked for */
        struct row_cache cache;
        const struct codec_kernels *kernels;
        float *row;

        /* Direct mode only. */
        struct codec_file file;
        struct codec_context context;
        struct fault error; /* without a client */
};

/* Decoded here, whoever gave us the file. */
static inline bool table_is_direct(const struct carvq_table *table) {
        return table->file.map;
}

/* Where the sentence behind its last error goes. */
static inline struct fault *table_fault(struct carvq_table *table) {
        return table->client ? &table->client->error : &table->error;
}

/* ---- client.c ---- */

/* Ends the connection for good: all later calls return -ECONNRESET with this sentence. */
void client_break(struct carvq_client *client, const char *format, ...) _printf_(2, 3);

/* 0, or -ECONNRESET with the reason in client->error: the connection has ended for good. */
int client_check(struct carvq_client *client);

/* Takes in what the daemon has sent: wake-ups, late answers, its end. Does not wait. */
void client_drain(struct carvq_client *client);

/* Blocks for one message, in one system call, as packet_await() for at most CLIENT_SLEEP_NS_MAX.
 * False: none came. */
bool client_sleep(struct carvq_client *client);

#define CLIENT_SLEEP_NS_MAX UINT64_C(1000000000)

/* One message that no call waits for. */
void client_dispatch(struct carvq_client *client, int type, const union packet *packet);

/* errno for a wire_status other than WIRE_OK. */
int client_status_errno(uint32_t status);

/* A daemon's text, safe to print. */
const char *client_text(char *text);

/* ---- handshake.c ---- */

/*
 * Connects and says HELLO: -> LINK_GREETING. `flags` are socket()'s. Leaves a socket to whoever
 * called, also when it fails.
 */
int handshake_start(struct carvq_client *client, int flags, struct fault *ret_fault);

/*
 * Takes the daemon's next answer: -> LINK_SHARING, and with the one after it -> LINK_UP. Waits
 * until `deadline_ns`, or not at all: 0: none is there. 1 when it was taken; as carvq_connect().
 */
int handshake_step(struct carvq_client *client, uint64_t deadline_ns, struct fault *ret_fault);

/* ---- reconnect.c ---- */

/* The connection has ended: what was completed before it is taken in, the rest will be asked for
 * again, if this client reconnects. */
void client_lose(struct carvq_client *client, const char *why);

/* One step towards the daemon, without waiting; none when the link is up or has ended. */
void client_reconnect(struct carvq_client *client);

/* Waits until the link is up: 0; -ETIMEDOUT, -ECONNRESET. At least one step is made. */
int client_await_link(struct carvq_client *client, uint64_t deadline_ns);

/* Pending lookups -> the ring, as far as it has room and their tables are open. */
void client_resubmit(struct carvq_client *client);

/* The answer to a question that the above asked? Then all about it is done. */
bool client_table_reopened(struct carvq_client *client, const struct wire_table *answer);

/* A completion has come, the first one since a connection was lost. */
void client_recovered(struct carvq_client *client);

/* Another daemon may have taken the connection over. */
void client_look_at_epoch(struct carvq_client *client);

/* ---- client-fd.c ---- */

/* The socket joins (epoll_ctl()'s errno), or leaves and is closed. */
int client_fd_add_socket(struct carvq_client *client);
void client_fd_close_socket(struct carvq_client *client);

/* Readable when the next step is due. */
void client_fd_set_timer(struct carvq_client *client);

/* ---- ticket.c ---- */

/* Completions -> lookups, and pending ones into the ring. Returns how many; a daemon that breaks
 * the rules breaks the connection. */
int client_reap(struct carvq_client *client);

/* To the daemon: 0; -EAGAIN: its ring is full; -ENOTCONN: it is not there, or has yet to open the
 * table; -EPROTO. */
int lookup_send(struct carvq_client *client, struct lookup *lookup);

/* Completes a pending lookup as refused. */
void lookup_refuse(struct carvq_client *client, struct lookup *lookup);

/* The daemon's memory of it is gone. */
void lookup_orphan(struct carvq_client *client, struct lookup *lookup);

/* Blocks until something completes: 0; -ETIMEDOUT, -ECONNRESET. */
int client_wait(struct carvq_client *client, uint64_t deadline_ns);

/*
 * The request, which has passed request_init(), into the ring; its bags may start past 0. -EAGAIN,
 * -EMSGSIZE, -ECONNRESET.
 */
int lookup_submit(struct carvq_client *client, struct carvq_table *table,
                  const struct codec_request *request, struct lookup **ret_lookup);

/* Blocks until it is done: 0; -ETIMEDOUT, -ECONNRESET. */
int lookup_wait(struct carvq_client *client, struct lookup *lookup, uint64_t deadline_ns);

/* What a completed lookup came to; `id_first` is added to the index of a bad id. */
int lookup_outcome(struct carvq_client *client, const struct lookup *lookup, uint64_t id_first);

/* Its rows, while done. */
const uint8_t *lookup_rows(const struct carvq_client *client, const struct lookup *lookup);

/* Frees it, or lets it go when it is still with the daemon. */
void lookup_release(struct carvq_client *client, struct lookup *lookup);

/* ---- lookup.c ---- */

/*
 * Arguments and options of a lookup -> a checked request without `out`, whose ids have not been
 * looked at. The stride, when the caller leaves it open, is a row's bytes rounded up to
 * `stride_alignment`.
 */
int request_init(struct codec_request *request, const struct carvq_table *table,
                 const uint64_t *ids, size_t n_ids, const struct carvq_lookup_options *options,
                 uint32_t stride_alignment, struct fault *ret_fault);

/* Rows into `request->out`: row i at place i, or, with `places`, at places[i]. */
int ring_lookup(struct carvq_table *table, const struct codec_request *request,
                const uint64_t *places, uint64_t deadline_ns);

/* ---- cached.c ---- */

/* `fd` is a cache that the daemon handed over, and stays the caller's. -EPROTO, -ENOMEM, or mmap's
 * errno; the table then has none. */
int cached_init(struct carvq_table *table, int fd, uint32_t n_sets, struct fault *ret_fault);
void cached_deinit(struct carvq_table *table);
int cached_lookup(struct carvq_table *table, const struct codec_request *request,
                  uint64_t deadline_ns);

/* ---- direct.c ---- */

/*
 * Makes a table of a client direct: `fd` is a file that the daemon handed over, and stays the
 * caller's. -EBADMSG, -EPROTONOSUPPORT as carvq_file_open(); -EINVAL for a mask that names no
 * kernels; -EPROTO: another table than the daemon described; -ENOMEM.
 */
int direct_init(struct carvq_table *table, int fd, const char *cpu_mask, struct fault *ret_fault);
void direct_deinit(struct carvq_table *table);

/* The request's ids are checked here. */
int direct_lookup(struct carvq_table *table, const struct codec_request *request);

/* ---- table.c ---- */

/* The OPEN_TABLE of a name, under a new request: 0, or packet_send()'s errno. */
int table_ask(struct carvq_client *client, const char *name, uint64_t *ret_request);

/* Hands back what the daemon has opened and nobody wants. */
void table_hand_back(struct carvq_client *client, const struct wire_table *table);

/* Asks for the cache of a table whose daemon is another one by now. 0 also when there is none;
 * -ETIMEDOUT. */
int table_renew_cache(struct carvq_table *table);

/* Without a word to the daemon. */
void table_free(struct carvq_table *table);

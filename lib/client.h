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
        LOOKUP_FLYING,    /* with the daemon */
        LOOKUP_ABANDONED, /* with the daemon, but nobody waits: freed when it completes */
        LOOKUP_DONE,      /* completed; its memory is the caller's until release */
};

struct lookup {
        carvq_ticket ticket;
        enum lookup_state state;
        bool seen; /* the caller knows that it is done */
        uint32_t status;
        uint64_t detail;
        struct arena_block ids, rows;
        uint64_t n_table_rows;
        uint32_t n_ids, n_rows, n_cols, type;
        uint64_t row_stride_bytes;
        SLIST_ENTRY(lookup) link; /* while free */
};

/* Of a lookup by a cache: what goes through the ring, and where its rows belong. */
#define CLIENT_MISSES_MAX 4096u

struct client_misses {
        uint64_t ids[CLIENT_MISSES_MAX];
        uint64_t places[CLIENT_MISSES_MAX]; /* in the output */
};

struct carvq_client {
        int socket_fd;
        bool broken; /* the connection has ended, for the reason in `broken_why` */
        struct fault broken_why;
        struct fault error; /* of the last call */
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
        uint32_t n_with_daemon;   /* flying or abandoned */
        uint64_t populated_bytes; /* of the arena, from its start */
        uint32_t n_unseen;        /* done, and the caller does not know yet */
        LIST_HEAD(, carvq_table) tables;
        struct client_misses *misses; /* NULL until a table has a cache */
};

struct carvq_table {
        struct carvq_client *client; /* NULL: from a file, with no daemon */
        struct table_header shape;   /* in ring mode only n_rows, n_dims, codec, record_bytes,
                                        file_bytes */
        uint64_t handle;
        uint64_t generation;
        LIST_ENTRY(carvq_table) link; /* of its client */

        /* Ring mode, with a cache. */
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

/* Ends the connection: all later calls return -ECONNRESET with this sentence. */
void client_break(struct carvq_client *client, const char *format, ...) _printf_(2, 3);

/* 0, or -ECONNRESET with the reason in client->error. */
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

/* ---- ticket.c ---- */

/* Completions -> lookups. Returns how many; a daemon that breaks the rules breaks the connection.
 */
int client_reap(struct carvq_client *client);

/* Blocks until something completes: 0; -ETIMEDOUT, -ECONNRESET. */
int client_wait(struct carvq_client *client, uint64_t deadline_ns);

/*
 * The request, which has passed request_init(), into the ring; its bags may start past 0. -EAGAIN,
 * -EMSGSIZE, -ECONNRESET.
 */
int lookup_submit(struct carvq_client *client, const struct carvq_table *table,
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
                const uint64_t *places);

/* ---- cached.c ---- */

/* `fd` is a cache that the daemon handed over, and stays the caller's. -EPROTO, -ENOMEM, or mmap's
 * errno; the table then has none. */
int cached_init(struct carvq_table *table, int fd, uint32_t n_sets, struct fault *ret_fault);
void cached_deinit(struct carvq_table *table);
int cached_lookup(struct carvq_table *table, const struct codec_request *request);

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

/* Without a word to the daemon. */
void table_free(struct carvq_table *table);

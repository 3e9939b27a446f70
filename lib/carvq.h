/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcarvq: rows of compressed embedding tables, from carvqd or straight from a file.
 *
 * Two ways in, one API:
 *   - ring, carvq_connect() and carvq_table_open(): the daemon decodes into memory shared with this
 *     process. Lookups block (carvq_lookup) or run in flight (carvq_submit, carvq_wait).
 *   - direct, carvq_file_open(): no daemon; the calling thread decodes with the same kernels. Or
 *     with a daemon that supplies the file, carvq_table_open_with().
 *
 * Threads: a client and its tables belong to one thread at a time; use one client for each thread,
 * they are cheap. A direct table may be shared by threads only if each call is serialized by the
 * caller. Nothing here installs signal handlers, logs, exits or starts threads; descriptors are
 * close-on-exec. After fork() the child must not use the parent's clients.
 *
 * Errors are negative errno values; carvq_strerror() words them, carvq_client_error() and the
 * `ret_message` arguments give the details. Each function lists what it returns. Common to all:
 *   -EINVAL   an argument or option is outside its documented range
 *   -E2BIG    an options struct is larger than this library knows and its tail is not zero
 *   -ENOMEM   no memory
 *
 * When the daemon goes, by a crash or a restart, the client connects again by itself: calls that
 * block go on with the next daemon for as long as their time-out lets them (-ETIMEDOUT), the others
 * make a step whenever they are called. Tables are opened again by name, lookups in flight are
 * asked for again and complete once; rows that the caller holds stay. carvq_client_stats() counts
 * it.
 *   -EBADF        from lookups of a table that the next daemon does not serve, or with another
 *                 number of rows or dimensions or another codec; each lookup asks for it again
 *   -ECONNRESET   from the call that finds out and from all later ones: the daemon broke the
 *                 protocol, or what answers in its place does (three times); or it went, and
 *                 `no_reconnect` was set. carvq_client_error() says which; free the client.
 */
#ifndef CARVQ_H
#define CARVQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct carvq_client carvq_client;
typedef struct carvq_table carvq_table;

/* An in-flight lookup of one client. Never reused within a client's life. */
typedef uint64_t carvq_ticket;

/* Longest sentence written to a `ret_message`, with its NUL. */
#define CARVQ_MESSAGE_BYTES 320

/* Largest number of ids in one carvq_submit(); carvq_lookup() has no limit. */
#define CARVQ_IDS_MAX 65536

enum carvq_type {
        CARVQ_F32 = 0,
        CARVQ_F16 = 1,  /* IEEE 754 binary16 */
        CARVQ_BF16 = 2, /* upper half of a binary32 */
};

enum carvq_pooling {
        CARVQ_POOLING_NONE = 0,
        CARVQ_POOLING_SUM = 1,
        CARVQ_POOLING_MEAN = 2, /* of an empty bag: a zero row */
};

enum carvq_out_of_range {
        CARVQ_OUT_OF_RANGE_ERROR = 0,    /* the lookup fails with -ERANGE */
        CARVQ_OUT_OF_RANGE_ZERO_ROW = 1, /* an id past the table's end counts as a row of zeros */
};

/* ---- Connecting ---- */

/*
 * Set `size` to sizeof(struct), leave what you do not care about 0. The struct may grow; a library
 * that meets a larger one than its own refuses it only if the part it does not know is not zero.
 */
struct carvq_connect_options {
        size_t size;
        /* NULL: $CARVQ_SOCKET, else /run/carvq/carvqd.sock where it exists, else
         * $XDG_RUNTIME_DIR/carvq/carvqd.sock. */
        const char *socket_path;
        const char *name;     /* shown by `carvqctl clients`; NULL: the program's name */
        uint64_t arena_bytes; /* for answers, allocated when touched; 0: 64 MiB */
        uint64_t timeout_ns;  /* for the handshake and each blocking call, with all that it takes to
                                 reconnect; 0: 30 s */
        uint64_t spin_ns; /* busy-wait this long before sleeping; 0: adaptive; UINT64_MAX: never */
        uint32_t no_reconnect; /* not 0: when the daemon goes, -ECONNRESET from then on */
};

/*
 * Connects and does the handshake. Blocks up to the time-out. `options` may be NULL. `ret_message`
 * (CARVQ_MESSAGE_BYTES, may be NULL) gets a sentence on failure.
 *   -ENOENT, -ECONNREFUSED   no daemon at that socket
 *   -EACCES                  the socket's mode does not let you in
 *   -EPROTO                  what answers does not speak our protocol
 *   -EPROTONOSUPPORT         another major version
 *   -EDQUOT                  the daemon grants no further session, or not an arena of this size, to
 *                            anybody or to this user; or the user connects too often. ret_message
 *                            names the limit; later it may succeed
 *   -EIO                     the daemon failed
 *   -ETIMEDOUT               no answer
 *   -ECONNRESET              the daemon closed the connection without a word
 * and what socket(), connect(), memfd_create() and mmap() give besides.
 */
int carvq_connect(const struct carvq_connect_options *options, carvq_client **ret_client,
                  char *ret_message);

/* Closes the connection, drops lookups in flight, frees everything, tables included. NULL is fine.
 */
void carvq_client_free(carvq_client *client);

/* The sentence behind the last error of this client or its tables; "" after success. Never NULL. */
const char *carvq_client_error(const carvq_client *client);

/*
 * Readable (POLLIN) when a completion may be there and carvq_poll() would not spin; for event
 * loops. See carvq_arm(). Without a daemon, when the next step to one is due. The same descriptor
 * for as long as the client lives, and owned by it; from the first call on, which may fail: -EMFILE
 * and what epoll_create1() and timerfd_create() give besides.
 */
int carvq_client_fd(carvq_client *client);

struct carvq_client_stats {
        size_t size;               /* set by the caller */
        uint64_t epoch;            /* of the daemon; another one with each start of it */
        uint64_t n_reconnects;     /* after the connection had been lost */
        uint64_t n_handovers;      /* to another daemon, which kept the connection */
        uint64_t n_resubmitted;    /* lookups that were in flight then and were asked for again */
        uint64_t last_pause_ns;    /* from finding out to the first completion; or, with nothing */
        uint64_t longest_pause_ns; /* in flight, to the connection */
};

/* Since carvq_connect(); does not look at the connection. 0, or -EINVAL: `size` is not set. */
int carvq_client_stats(const carvq_client *client, struct carvq_client_stats *stats);

/* ---- Tables ---- */

/*
 * Opens a published table by name. Blocks for two round trips. Where the daemon keeps rows of the
 * table decoded in memory for all to read, carvq_lookup() takes them from there and asks for the
 * rest only; they are the same rows, of the same generation, also when the daemon has died since
 * and no call has found out. With another daemon the table is what that one serves under the name:
 * rows of one lookup are all of one generation, but two lookups may see two.
 *   -ENOENT      no table of that name
 *   -EACCES      the table is for a group that this process was not in when it connected
 *   -EDQUOT      too many tables open in this session, or in all of this user's
 *   -EIO         the daemon failed
 *   -ECONNRESET, -ETIMEDOUT
 */
int carvq_table_open(carvq_client *client, const char *name, carvq_table **ret_table);

enum carvq_mode {
        CARVQ_MODE_RING = 0,   /* the daemon decodes */
        CARVQ_MODE_DIRECT = 1, /* this process does */
};

struct carvq_table_options {
        size_t size;
        uint32_t mode;        /* enum carvq_mode */
        uint32_t no_cache;    /* ring, not 0: ask the daemon for every row */
        const char *cpu_mask; /* direct: as in carvq_file_options */
};

/*
 * The same with options, which may be NULL. With CARVQ_MODE_DIRECT the daemon hands over the file
 * that it has mapped (this generation of the table, whatever its path has come to mean), read-only;
 * it is mapped here too and carvq_lookup() decodes in the calling thread. What was looked up is
 * still told to the daemon, for `carvqctl stats`; to a next one only what comes after another call
 * of this client has found it. Lookups go on when the connection ends, with the same file, until
 * the client is freed. As carvq_table_open(), and
 *   -EOPNOTSUPP       direct: the daemon does not hand out files
 *   -EBADMSG          direct: the file is damaged by now, or not a table
 *   -EPROTONOSUPPORT  direct: the file was written by a version that is newer than this library
 * The file may be cut as with carvq_file_open().
 */
int carvq_table_open_with(carvq_client *client, const char *name,
                          const struct carvq_table_options *options, carvq_table **ret_table);

struct carvq_file_options {
        size_t size;
        const char *cpu_mask; /* kernels to allow, as $CARVQ_CPU_MASK: "scalar", "avx512" ...; NULL:
                                 all */
        int verify;           /* not 0: read the whole file once and check every checksum */
};

/*
 * Direct mode: maps a .carvq file read-only. Reads one page, and an adaptor, unless asked to
 * verify. `ret_message` as above. For a table with latents, on a CPU with AMX, the process asks the
 * system for its use; then alternate signal stacks that are set up later must be of AT_MINSIGSTKSZ
 * bytes (about 11 KiB; sigaltstack() says so). A cpu_mask without "amx" does not ask. -ENOENT,
 * -EACCES ...   from open() -EBADMSG               damaged, foreign, or not a regular file
 *   -EPROTONOSUPPORT       written by a newer version
 *   -ENOMEM
 * A file that is truncated while it is mapped raises SIGBUS in the reader, as any mapping does.
 */
int carvq_file_open(const char *path, const struct carvq_file_options *options,
                    carvq_table **ret_table, char *ret_message);

/* NULL is fine. Lookups in flight on the table must have been released. */
void carvq_table_close(carvq_table *table);

struct carvq_table_info {
        size_t size; /* set by the caller */
        uint64_t n_rows;
        uint32_t n_dims;
        uint32_t codec;        /* as in the file: 1 f32, 2 f16, 3 bf16, 4 int8, 5 int4, 6 carvq */
        uint64_t record_bytes; /* of one row in the file; at most, where rows differ */
        uint64_t file_bytes;
        uint64_t generation;    /* 0 without a daemon */
        const char *codec_name; /* static */
        const char *kernel;     /* static; "" in ring mode, where the daemon chooses */
};

int carvq_table_info(const carvq_table *table, struct carvq_table_info *info);

/* ---- Lookups ---- */

struct carvq_lookup_options {
        size_t size;
        uint32_t type;         /* enum carvq_type of the output */
        uint32_t pooling;      /* enum carvq_pooling */
        uint32_t out_of_range; /* enum carvq_out_of_range */
        uint32_t col_first;    /* columns [col_first, col_first + n_cols) */
        uint32_t n_cols;       /* 0: to the row's end */
        float scale;           /* rows are multiplied by it; 0: 1 */
        /* Pooling: bag i is ids[bag_offsets[i]] to ids[bag_offsets[i + 1] - 1], the last one ends
         * at n_ids; bag_offsets[0] is 0 and offsets ascend. Output has n_bags rows. */
        const uint64_t *bag_offsets;
        size_t n_bags;
        size_t row_stride_bytes; /* from row to row of the output; 0: rows are packed */
};

/*
 * Looks up n_ids rows into the caller's buffer, aligned to a value of `type`. Blocks. `options` may
 * be NULL. Output rows: n_bags when pooling, else n_ids; row i starts at i * row_stride_bytes, and
 * bytes between rows are left alone. On failure the buffer's content is undefined.
 *   -EINVAL      n_ids is 0, or an option is out of its range
 *   -ERANGE      an id is not below n_rows
 *   -ENOBUFS     rows_bytes is too small for the rows
 *   -EMSGSIZE    ring: a row exceeds the arena, or a bag has more than CARVQ_IDS_MAX ids
 *   -EAGAIN      ring: unreleased tickets leave no room in the arena
 *   -EBADF       ring: the table was retired because its file failed, or is no longer served
 *   -ENOMEM      here or in the daemon; the next one may succeed
 *   -ECONNRESET, -ETIMEDOUT
 */
int carvq_lookup(carvq_table *table, const uint64_t *ids, size_t n_ids,
                 const struct carvq_lookup_options *options, void *ret_rows, size_t rows_bytes);

/*
 * The sentence behind the last error of a table; "" after success. Never NULL. With a
 * daemon the same as carvq_client_error() of its client.
 */
const char *carvq_table_error(const carvq_table *table);

/*
 * Starts a lookup and returns at once, also while there is no daemon. Ids and bags are copied; the
 * answer appears in the arena.
 * The row stride, when 0, is the row's size rounded up to 64 bytes.
 *   -EINVAL      as carvq_lookup()
 *   -EMSGSIZE    more than CARVQ_IDS_MAX ids or bags, or rows that would never fit the arena
 *   -EAGAIN      rings or arena are full: wait for and release a ticket first
 *   -EOPNOTSUPP  a direct table
 *   -ECONNRESET
 */
int carvq_submit(carvq_table *table, const uint64_t *ids, size_t n_ids,
                 const struct carvq_lookup_options *options, carvq_ticket *ret_ticket);

struct carvq_rows {
        const void *rows; /* in the arena, 64-byte aligned, readable and writable; yours until
                             release */
        size_t n_rows;
        size_t row_stride_bytes;
        uint32_t n_cols;
        uint32_t type;
};

/*
 * carvq_poll: 1 and the rows if the lookup is done, 0 if not; never blocks.
 * carvq_wait: blocks until it is done, at most `timeout_ns` (0: the connection's time-out): 0 or
 * -ETIMEDOUT, after which the lookup is still in flight.
 * Both: the lookup's own errors (-ERANGE, -EBADF, -ENOMEM) and -ECONNRESET, and then the ticket
 * is released already; -ENOENT for a ticket that is not in flight.
 */
int carvq_poll(carvq_client *client, carvq_ticket ticket, struct carvq_rows *ret_rows);
int carvq_wait(carvq_client *client, carvq_ticket ticket, uint64_t timeout_ns,
               struct carvq_rows *ret_rows);

/* Gives the rows' memory back. Also cancels interest in a lookup that is still in flight. */
void carvq_release(carvq_client *client, carvq_ticket ticket);

/*
 * For event loops: asks the daemon to make carvq_client_fd() readable at the next completion.
 * Returns 1 if a lookup is done that you do not know of yet (poll your tickets, do not sleep), 0 if
 * armed, -ECONNRESET. Polling a ticket that is not done disarms: arm last, then sleep. Without a
 * daemon it makes a step towards the next one.
 */
int carvq_arm(carvq_client *client);

/* ---- Words ---- */

const char *carvq_strerror(int error); /* static; for the negative values above */
const char *carvq_version(void);       /* "0.1.0" */

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages on carvqd's data socket (AF_UNIX, SOCK_SEQPACKET): the handshake, then the rare
 * ones. One message is one packet of exactly its struct's size. PROTOCOL.md has the state diagram.
 */
#pragma once

#include <assert.h>

#include "base.h"
#include "ring.h"

#define WIRE_MAGIC         UINT64_C(0x474e495251565243) /* "CRVQRING" */
#define WIRE_VERSION_MAJOR 1
#define WIRE_VERSION_MINOR 1

/* Feature bits, append-only. */
#define WIRE_FEATURE_FILES  UINT64_C(1) /* GET_FILE, FILE and ring_claims */
#define WIRE_FEATURE_CACHE  UINT64_C(2) /* GET_CACHE, CACHE and ring_cache_use */
#define WIRE_FEATURES_KNOWN (WIRE_FEATURE_FILES | WIRE_FEATURE_CACHE)

#define WIRE_NAME_BYTES     128u /* with the final NUL; bytes behind it are 0 */
#define WIRE_TEXT_BYTES     256u
#define WIRE_MESSAGE_BYTES  512u /* no message is larger */
#define WIRE_TABLES_MAX     256u /* open in one session */

enum wire_type {
        WIRE_HELLO = 1,       /* client */
        WIRE_WELCOME = 2,     /* daemon */
        WIRE_RING = 3,        /* client, with the memfd */
        WIRE_READY = 4,       /* daemon, with the doorbell's eventfd */
        WIRE_OPEN_TABLE = 5,  /* client */
        WIRE_TABLE = 6,       /* daemon: the answer */
        WIRE_CLOSE_TABLE = 7, /* client; not answered */
        WIRE_WAKE = 8,        /* daemon: look at your completion ring */
        WIRE_ERROR = 9,       /* daemon: why it closes this connection */
        WIRE_GET_FILE = 10,   /* client, with WIRE_FEATURE_FILES */
        WIRE_FILE = 11,       /* daemon: the answer, with the table's file, read-only */
        WIRE_GET_CACHE = 12,  /* client, with WIRE_FEATURE_CACHE */
        WIRE_CACHE = 13,      /* daemon: the answer, with the memory of decoded rows */
        WIRE_TYPE_LAST = WIRE_CACHE,
};

/* Append-only; libcarvq turns them into errno values. */
enum wire_status {
        WIRE_OK = 0,
        WIRE_PROTOCOL = 1,     /* a message that the state or the checker does not allow */
        WIRE_VERSION = 2,      /* another major version, or a required feature is missing */
        WIRE_RING_REFUSED = 3, /* seals, size or kind of the memfd are not as they must be */
        WIRE_LIMIT = 4,        /* sessions, tables or bytes: more than this daemon grants */
        WIRE_NO_TABLE = 5,     /* no table of that name is published */
        WIRE_SHUTDOWN = 6,     /* the daemon ends */
        WIRE_INTERNAL = 7,     /* out of memory, say: not the client's fault */
        WIRE_NO_CACHE = 8,     /* CACHE: the table has none */
        WIRE_DENIED = 9,       /* the table is for another group */
};

struct wire_header {
        uint32_t type;
        uint32_t bytes; /* of the whole message */
};

struct wire_hello {
        struct wire_header header;
        uint64_t magic;
        uint16_t version_major;
        uint16_t version_minor;
        uint32_t reserved;
        uint64_t features_offered;
        uint64_t features_required; /* a subset of those offered */
        char name[WIRE_NAME_BYTES]; /* for people: who this client is; may be empty */
};

struct wire_welcome {
        struct wire_header header;
        uint64_t magic;
        uint16_t version_major;
        uint16_t version_minor;
        uint32_t max_ids; /* of one submission */
        uint64_t features_accepted;
        uint64_t epoch; /* differs from daemon start to daemon start */
        uint64_t session;
        uint64_t max_ring_bytes;
        char server[WIRE_NAME_BYTES]; /* "carvqd 0.1.0" */
};

struct wire_ring {
        struct wire_header header;
        struct ring_geometry geometry;
};

struct wire_ready {
        struct wire_header header;
};

struct wire_open_table {
        struct wire_header header;
        uint64_t request; /* comes back in the answer */
        char name[WIRE_NAME_BYTES];
};

struct wire_table {
        struct wire_header header;
        uint64_t request;
        uint32_t status;
        uint32_t codec; /* enum table_codec */
        uint64_t table; /* handle */
        uint64_t n_rows;
        uint32_t n_dims;
        uint32_t reserved;
        uint64_t record_bytes;
        uint64_t file_bytes;
        uint64_t generation;
        char text[WIRE_TEXT_BYTES]; /* when status is not WIRE_OK */
};

struct wire_close_table {
        struct wire_header header;
        uint64_t table;
};

struct wire_wake {
        struct wire_header header;
};

struct wire_error {
        struct wire_header header;
        uint32_t status;
        uint32_t reserved;
        char text[WIRE_TEXT_BYTES];
};

struct wire_get_file {
        struct wire_header header;
        uint64_t request;
        uint64_t table;
};

struct wire_file {
        struct wire_header header;
        uint64_t request;
        uint32_t status;
        uint32_t reserved;
        char text[WIRE_TEXT_BYTES]; /* when status is not WIRE_OK; then no descriptor comes along */
};

struct wire_get_cache {
        struct wire_header header;
        uint64_t request;
        uint64_t table;
};

struct wire_cache {
        struct wire_header header;
        uint64_t request;
        uint32_t status;
        uint32_t n_sets;            /* 0 when status is not WIRE_OK */
        char text[WIRE_TEXT_BYTES]; /* and then no descriptor comes along */
};

static_assert(offsetof(struct wire_hello, magic) == offsetof(struct wire_welcome, magic), "");
static_assert(offsetof(struct wire_hello, version_major) == 16 &&
                      offsetof(struct wire_welcome, version_major) == 16,
              "");
static_assert(sizeof(struct wire_hello) == 168, "");
static_assert(sizeof(struct wire_welcome) == 184, "");
static_assert(sizeof(struct wire_ring) == 32, "");
static_assert(sizeof(struct wire_open_table) == 144, "");
static_assert(sizeof(struct wire_table) == 328, "");
static_assert(sizeof(struct wire_close_table) == 16, "");
static_assert(sizeof(struct wire_error) == 272, "");
static_assert(sizeof(struct wire_get_file) == 24, "");
static_assert(sizeof(struct wire_file) == 280, "");
static_assert(sizeof(struct wire_get_cache) == 24, "");
static_assert(sizeof(struct wire_cache) == 280, "");
static_assert(offsetof(struct wire_table, request) == 8 &&
                      offsetof(struct wire_file, request) == 8 &&
                      offsetof(struct wire_cache, request) == 8,
              "answers begin alike");
static_assert(sizeof(struct wire_table) <= WIRE_MESSAGE_BYTES, "");

/*
 * Pure. One received packet and the number of descriptors that came with it: known type, exact
 * size, zeroed reserved fields, terminated names and texts, the right number of descriptors.
 * -EPROTO; the fault names the field. Returns the type (> 0).
 */
int wire_check(const void *message, size_t bytes, size_t n_fds, struct fault *ret_fault);

/*
 * Pure. HELLO and WELCOME begin alike in every version of the protocol (header, magic, versions),
 * so this comes before wire_check(), whose sizes are those of version 1. 0 also for other messages;
 * -EPROTO: another magic; -EPROTONOSUPPORT: another major version.
 */
int wire_check_version(const void *message, size_t bytes, struct fault *ret_fault);

/* Terminated, and nothing but zeros behind: no stray bytes of the sender's memory. */
bool wire_text_padded(const char *text, size_t bytes);

/* 1 to 127 of A-Z a-z 0-9 . _ - and not starting with a dot. */
bool wire_table_name_valid(const char *name);

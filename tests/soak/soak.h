/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soak: what its processes share. One process directs (director.c): it starts, kills and
 * restarts carvqd, replaces and damages tables, and forks clients, good ones (good.c) and hostile
 * ones (hostile.c). They share one mapping: counters, the rows that every table may have, and what
 * was published when. Any of them may be killed at any instruction, so there is no lock in it.
 */
#pragma once

#include <limits.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "lib/carvq.h"
#include "proto/base.h"
#include "proto/spin.h"
#include "tests/integration/scribbler.h"

#define SOAK_TABLES           5u
#define SOAK_VARIANTS         4u  /* of each table: what a file of that name may hold */
#define SOAK_CLIENTS          16u /* at a time */
#define SOAK_PUBLICATIONS_MAX 16384u
#define SOAK_GENERATIONS_MAX  65536u /* a power of two */
#define SOAK_BUCKETS          1024u

enum soak_count {
        SOAK_LOOKUPS, /* that were answered */
        SOAK_ROWS,    /* of these, each verified */
        SOAK_WRONG_ROWS,
        SOAK_FAILED_LOOKUPS,  /* and opens, and connections */
        SOAK_RETIRED_LOOKUPS, /* refused as documented, while the table's file was bad */
        SOAK_RECONNECTIONS,
        SOAK_RESUBMITTED,
        SOAK_MEMORY_CUT,   /* a client could truncate what it had shared */
        SOAK_DEAD_CLIENTS, /* ended in a way that nobody had asked for */
        SOAK_GOOD_CLIENTS,
        SOAK_HOSTILE_CLIENTS,

        /* Faults that the director injects; clients of SCRIBBLER_N kinds count their own. */
        SOAK_DAEMON_KILLED,
        SOAK_DAEMON_TERMINATED,
        SOAK_FILES_REPLACED,
        SOAK_FILES_DAMAGED,
        SOAK_FILES_CUT,
        SOAK_CLIENTS_KILLED,
        SOAK_CLIENTS_STOPPED,
        SOAK_COUNTS
};

enum soak_latency {
        SOAK_ONE_ALONE, /* one row, nobody else there */
        SOAK_MANY_ALONE,
        SOAK_ONE,
        SOAK_MANY,  /* 256 rows */
        SOAK_PAUSE, /* of lookups through which the daemon died and came back */
        SOAK_LATENCIES
};

/* A variant under a table's name. `from_ns` is before rename(), `until_ns` after that of the next
 * one; 0: it is still there. */
struct soak_publication {
        uint32_t variant;
        uint64_t from_ns;
        _Atomic uint64_t until_ns;
};

struct soak_shared_table {
        _Atomic uint32_t n_publications;
        struct soak_publication publications[SOAK_PUBLICATIONS_MAX];
        /* When its lookups may fail, its file being bad: see tables.c. */
        _Atomic uint64_t bad_from_ns, bad_until_ns;
};

struct soak_shared {
        _Atomic bool calm; /* clients end */
        /* When connecting may fail, the daemon being dead or about to be ready. */
        _Atomic uint64_t down_from_ns, down_until_ns;
        _Atomic uint64_t counts[SOAK_COUNTS];
        _Atomic uint64_t acts[SCRIBBLER_N];
        _Atomic uint32_t n_complaints;
        _Atomic uint64_t latencies[SOAK_LATENCIES][SOAK_BUCKETS];
        struct soak_shared_table tables[SOAK_TABLES];
        /* What (daemon, table, generation) has turned out to hold: see verify.c. */
        _Atomic uint64_t generations[SOAK_GENERATIONS_MAX];
        struct scribbler_report hostile[SOAK_CLIENTS]; /* of clients that run */
};

struct soak_table {
        const char *name;
        uint64_t n_rows;
        uint32_t n_dims;
        bool is_cut; /* its file is truncated in place: nobody may map it but the daemon */
        uint8_t *file[SOAK_VARIANTS]; /* for the director */
        uint64_t file_bytes;
        /* By enum carvq_type, packed. */
        const uint8_t *rows[SOAK_VARIANTS][3];
};

struct soak {
        uint64_t seed, random;
        uint64_t grace_ns; /* for the daemon to notice a file */
        char socket_path[PATH_MAX];
        struct soak_table tables[SOAK_TABLES];
        struct soak_shared *shared;
};

static inline uint64_t soak_below(uint64_t *random, uint64_t n) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return (*random >> 16) % n;
}

static inline void soak_add(const struct soak *soak, enum soak_count count, uint64_t n) {
        atomic_fetch_add_explicit(&soak->shared->counts[count], n, memory_order_relaxed);
}

static inline size_t soak_type_bytes(uint32_t type) {
        return type == CARVQ_F32 ? 4 : 2;
}

void soak_sleep_us(uint64_t us);

/* A line on standard error; the first few of all processes. */
void soak_complain(const struct soak *soak, const char *format, ...) _printf_(2, 3);

void soak_latency_add(const struct soak *soak, enum soak_latency which, uint64_t ns);

/* ---- Clients: run in a child until their time is over, and return its exit status. ---- */

struct soak_client {
        uint32_t slot;
        uint64_t seed;
        uint64_t until_ns;
        bool alone;     /* nobody else is there: its latencies are what others are compared with */
        bool disturbed; /* stopped from outside: its latencies say nothing */
};

#define SOAK_GOOD_STYLES 8u

const char *good_style_name(uint32_t style);
int good_run(const struct soak *soak, const struct soak_client *client, uint32_t style);
int hostile_run(const struct soak *soak, const struct soak_client *client,
                enum scribbler_kind kind);

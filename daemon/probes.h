/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places where a tracer may look on: USDT probes of the provider `carvq`. While none is attached,
 * each is a no-op behind a few loads into registers; built without sys/sdt.h, it is nothing at all.
 * carvq-trace reads them, and so does whatever else knows USDT. Names, order and meaning of
 * arguments are an interface: append only.
 *
 * What the arguments are:
 *   session     a session's id, as `carvqctl clients` shows it
 *   seat        its address while it lives: the only name that a worker has for it
 *   job         one submission's address, its own until it is complete
 *   generation  of a table, unique in the daemon's life; 0: no table
 *   ..._ns      CLOCK_MONOTONIC, or a difference of two such times
 */
#pragma once

#include <stdint.h>

#ifdef CARVQ_SDT
/* Arguments in registers, or constants: not every tracer can parse each addressing mode that the
 * compiler would otherwise leave in the note. */
#define STAP_SDT_ARG_CONSTRAINT nr
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define PROBE(name, ...) STAP_PROBEV(carvq, name, __VA_ARGS__)
#else
/* Declared, never defined or called: the arguments count as used, and are not evaluated. */
int probe_nothing(uint64_t first, ...);
#define PROBE(name, ...) ((void)sizeof(probe_nothing(__VA_ARGS__)))
#endif

#ifdef __clang__ /* of sys/sdt.h's own macros */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif

/* ---- On the loop thread ---- */

/* A client has connected; the handshake is still to come. */
static inline void probe_session_open(uint64_t session, const void *seat, int32_t pid,
                                      uint32_t uid) {
        PROBE(session_open, session, (uintptr_t)seat, pid, uid);
}

/* `status` is an enum wire_status, 0 when the client left by itself. */
static inline void probe_session_close(uint64_t session, const void *seat, uint32_t status) {
        PROBE(session_close, session, (uintptr_t)seat, status);
}

/* `name` is a string, `map` and `map_bytes` where the file lies in the daemon. */
static inline void probe_table_publish(uint64_t generation, const char *name, const void *map,
                                       uint64_t map_bytes) {
        PROBE(table_publish, generation, (uintptr_t)name, (uintptr_t)map, map_bytes);
}

/* The name is another generation's, or nobody's, from now on. */
static inline void probe_table_retire(uint64_t generation, const char *name) {
        PROBE(table_retire, generation, (uintptr_t)name);
}

/* Rows that a client says it found in a table's cache since the last time; 0 or any other number.
 * The daemon learns of them when it reports, and when the client closes the table. */
static inline void probe_cache_hit(uint64_t session, uint64_t generation, uint64_t n_rows) {
        PROBE(cache_hit, session, generation, n_rows);
}

/* ---- On a worker ---- */

/* The worker has taken a submission, made at `submit_ns` by the client's clock. */
static inline void probe_submit(const void *job, const void *seat, uint64_t generation,
                                uint32_t n_ids, uint64_t submit_ns) {
        PROBE(submit, (uintptr_t)job, (uintptr_t)seat, generation, n_ids, submit_ns);
}

/* Ids of this table that came through the rings although it has a cache. */
static inline void probe_cache_miss(uint64_t generation, uint64_t n_ids) {
        PROBE(cache_miss, generation, n_ids);
}

/* A round decodes what it took for one table: `n_pieces`, of one submission each, and perhaps one
 * for the cache. `map` as in table_publish. */
static inline void probe_decode_start(uint64_t generation, const void *map, uint32_t n_pieces) {
        PROBE(decode_start, generation, (uintptr_t)map, n_pieces);
}

/* On the same thread. `sound` is 0 when the file could not be read. */
static inline void probe_decode_end(uint64_t generation, uint32_t n_pieces, uint32_t sound) {
        PROBE(decode_end, generation, n_pieces, sound);
}

/* The last of a submission's completions: `status` is an enum ring_status, `latency_ns` what the
 * daemon counts from `submit_ns` on. */
static inline void probe_complete(const void *job, const void *seat, uint32_t status,
                                  uint32_t n_rows, uint64_t latency_ns) {
        PROBE(complete, (uintptr_t)job, (uintptr_t)seat, status, n_rows, latency_ns);
}

/* The client sleeps, and a wake message follows from this thread. */
static inline void probe_wake(const void *seat) {
        PROBE(wake, (uintptr_t)seat);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif

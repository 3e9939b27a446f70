/* SPDX-License-Identifier: Apache-2.0 */
/* See control-report.h. A value that could not be made is NULL, and makes what contains it NULL. */
#include "control-report.h"

#include <string.h>

#include "control-call.h"
#include "proto/spin.h"

#define NS_PER_S UINT64_C(1000000000)

static json_t *number(uint64_t n) {
        return varlink_number(n);
}

static json_t *text(const char *t) {
        return varlink_text(t);
}

#define object(fields) varlink_object_new(fields, ARRAY_SIZE(fields))

static uint64_t seconds_since(uint64_t start_ns) {
        return (clock_ns() - start_ns) / NS_PER_S;
}

json_t *control_report_info(void) {
        return json_pack("{ss ss ss ss s[ss]}", "vendor", "carvq", "product", "carvqd", "version",
                         CARVQ_VERSION, "url", "", "interfaces", CONTROL_SERVICE_INTERFACE,
                         CONTROL_INTERFACE);
}

static json_t *cpu_features(uint32_t features) {
        static const struct {
                uint32_t bit;
                const char *name;
        } names[] = {
                { CODEC_CPU_AVX2, "avx2" }, { CODEC_CPU_AVX512, "avx512" },
                { CODEC_CPU_VNNI, "vnni" }, { CODEC_CPU_AMX, "amx" },
                { CODEC_CPU_NEON, "neon" }, { CODEC_CPU_DOTPROD, "dotprod" },
        };
        json_t *list = json_array();

        for (size_t i = 0; list && i < ARRAY_SIZE(names); i++)
                if ((features & names[i].bit) &&
                    json_array_append_new(list, json_string(names[i].name)) < 0) {
                        json_decref(list);
                        return NULL;
                }
        return list;
}

static json_t *report_user_limits(const struct quota *q) {
        const struct varlink_field fields[] = {
                { "max_sessions", number(q->limits[QUOTA_SESSIONS]) },
                { "max_ring_bytes", number(q->limits[QUOTA_RING_BYTES]) },
                { "max_tables", number(q->limits[QUOTA_TABLES]) },
                { "max_ids_in_flight", number(q->limits[QUOTA_IDS]) },
                { "max_handshakes_per_second", number(q->limits[QUOTA_HANDSHAKES]) },
        };
        return object(fields);
}

json_t *control_report_status(const struct daemon *daemon) {
        const struct config *config = &daemon->config;
        const char *why = loop_why(daemon->loop);
        const struct store_table *table;
        uint64_t n_tables = 0;

        TAILQ_FOREACH(table, &daemon->store.tables, link) {
                n_tables += table->published;
        }

        const struct varlink_field fields[] = {
                { "version", text(CARVQ_VERSION) },
                { "pid", number((uint64_t)getpid()) },
                { "uptime_seconds", number(seconds_since(daemon->started_ns)) },
                { "epoch", json_sprintf("%016" PRIx64, daemon->epoch) },
                { "stopping", json_boolean(daemon->stopping) },
                { "socket_path", text(config->socket_path) },
                { "control_path", text(config->control_path) },
                { "event_loop", text(loop_name(daemon->loop)) },
                { "event_loop_reason", why[0] ? text(why) : json_null() },
                { "kernel", text(daemon->kernels->name) },
                { "cpu_features", cpu_features(daemon->cpu_features) },
                { "n_tables", number(n_tables) },
                { "n_clients", number(daemon->n_sessions) },
                { "n_workers", number(config->n_workers) },
                { "spin_ns_max", number(config->spin_ns_max) },
                { "max_sessions", number(config->max_sessions) },
                { "max_ring_bytes", number(config->max_ring_bytes) },
                { "per_user", report_user_limits(&daemon->quota) },
        };
        return object(fields);
}

static json_t *report_memory(const struct smaps_range *memory, int error) {
        bool known = error >= 0 && memory->found;
        json_t *reason = json_null();

        if (error < 0)
                reason = json_sprintf("/proc/self/smaps: %s", strerror(-error));
        else if (!memory->found)
                reason = text("/proc/self/smaps does not list the mapping by itself");

        const struct varlink_field fields[] = {
                { "pss_bytes", known ? number(memory->pss_bytes) : json_null() },
                { "rss_bytes", known ? number(memory->rss_bytes) : json_null() },
                { "unavailable", reason },
        };
        return object(fields);
}

static json_t *report_options(const struct table_options *o) {
        const struct varlink_field fields[] = {
                { "cache_bytes",
                  o->cache_bytes == CONFIG_CACHE_AUTO ? json_null() : number(o->cache_bytes) },
                { "group", o->group[0] ? text(o->group) : json_null() },
                { "populate", json_boolean(o->populate) },
                { "lock", json_boolean(o->lock) },
                { "huge_pages", json_boolean(o->huge_pages) },
        };
        return object(fields);
}

static json_t *report_resident(const struct resident *r) {
        const struct varlink_field fields[] = {
                { "is_locked", json_boolean(r->is_locked) },
                { "is_populating", json_boolean(r->is_populating) },
                { "populated_bytes", number(r->populated_bytes) },
                { "problem", r->problem.text[0] ? text(r->problem.text) : json_null() },
        };
        return object(fields);
}

static json_t *report_refusal(const struct refusal *refusal) {
        const struct varlink_field fields[] = {
                { "name", text(refusal->name) },
                { "path", text(refusal->path) },
                { "reason", text(refusal->reason) },
                { "refused_seconds", number(seconds_since(refusal->since_ns)) },
        };
        return object(fields);
}

json_t *control_report_refusals(struct daemon *daemon) {
        const struct refusal *refusal;
        json_t *list = json_array();

        LIST_FOREACH(refusal, &daemon->refusals, link) {
                if (json_array_append_new(list, report_refusal(refusal)) < 0) {
                        json_decref(list);
                        return NULL;
                }
        }
        return list;
}

static json_t *report_page_cache(const struct table_memory *m) {
        bool known = m->cache_error >= 0;
        bool knows_evicted = known && m->cache.knows_evicted;
        json_t *reason = json_null();

        if (m->cache_error == -EPERM)
                reason = text("the kernel tells it to the file's owner alone");
        else if (!known)
                reason = text(strerror(-m->cache_error));

        const struct varlink_field fields[] = {
                { "cached_bytes", known ? number(m->cache.cached_bytes) : json_null() },
                { "evicted_bytes", knows_evicted ? number(m->cache.evicted_bytes) : json_null() },
                { "unavailable", reason },
        };
        return object(fields);
}

json_t *control_report_process(const struct process_memory *m) {
        bool known = m->refaults_error >= 0;
        const struct varlink_field fields[] = {
                { "memory", report_memory(&m->all, m->smaps_error) },
                { "n_major_faults", number(m->n_major_faults) },
                { "n_refaults", known ? number(m->n_refaults) : json_null() },
                { "unavailable", known ? json_null()
                                       : json_sprintf("memory.stat of the control group: %s",
                                                      strerror(-m->refaults_error)) },
        };
        return object(fields);
}

json_t *control_report_table(const struct store_table *table, const struct table_memory *memory,
                             const struct process_memory *process) {
        static const char *const origins[] = {
                [STORE_LOADED] = "loaded",
                [STORE_CONFIGURED] = "configured",
                [STORE_FOLDER] = "folder",
        };
        const struct table_header *h = &table->file.table.contents.header;
        uint64_t n_values = h->n_rows * h->n_dims; /* at most 2^40 x 2^16 */
        const struct varlink_field size[] = {
                { "file_bytes", number(h->file_bytes) },
                { "bits_per_parameter", json_real(table_bits_per_param(h)) },
        };
        const struct varlink_field full[] = {
                { "f32_bytes", number(n_values * sizeof(float)) },
                { "f16_bytes", number(n_values * sizeof(uint16_t)) },
        };
        const struct varlink_field fields[] = {
                { "name", text(table->name) },
                { "generation", number(table->generation) },
                { "path", text(table->path) },
                { "is_published", json_boolean(table->published) },
                { "n_clients", number(table->n_users) },
                { "origin", text(origins[table->origin]) },
                { "options", report_options(&table->options) },
                { "codec", text(table_codec_name(h->codec)) },
                { "n_rows", number(h->n_rows) },
                { "n_dims", number(h->n_dims) },
                { "record_bytes", number(h->record_bytes) },
                { "counted", object(size) },
                { "resident", report_resident(&table->resident) },
                { "modelled", object(full) },
                { "measured", report_memory(&memory->mapping, process->smaps_error) },
                { "page_cache", report_page_cache(memory) },
        };
        return object(fields);
}

static json_t *report_counted(const struct stats_snapshot *s) {
        const struct varlink_field errors[] = {
                { "invalid", number(s->n_status[RING_STATUS_INVALID]) },
                { "out_of_range", number(s->n_status[RING_STATUS_OUT_OF_RANGE]) },
                { "no_table", number(s->n_status[RING_STATUS_NO_TABLE]) },
                { "retired", number(s->n_status[RING_STATUS_RETIRED]) },
                { "no_memory", number(s->n_status[RING_STATUS_NO_MEMORY]) },
        };
        const struct varlink_field fields[] = {
                { "n_lookups", number(s->n_lookups) },
                { "n_errors", number(s->n_errors) },
                { "errors", object(errors) },
                { "n_rows", number(s->n_rows) },
                { "n_rows_read", number(s->n_rows_read) },
                { "n_values_read", number(s->n_values_read) },
                { "table_read_bytes", number(s->bytes_read) },
                { "table_read_lines", number(s->lines_read) },
                { "arena_write_bytes", number(s->bytes_written) },
        };
        return object(fields);
}

static json_t *saved(uint64_t actual, uint64_t full) {
        return full ? json_real(1.0 - (double)actual / (double)full) : json_null();
}

/* Three legs: the table's records, the answers written, and the answers read by the client. */
static uint64_t all_legs(uint64_t table_read_bytes, const struct stats_snapshot *s) {
        return table_read_bytes + 2 * s->bytes_written;
}

static json_t *report_full(const struct stats_snapshot *s, uint64_t value_bytes) {
        uint64_t read = s->n_values_read * value_bytes, total = all_legs(read, s);
        const struct varlink_field fields[] = {
                { "table_read_bytes", number(read) },
                { "arena_write_bytes", number(s->bytes_written) },
                { "client_read_bytes", number(s->bytes_written) },
                { "total_bytes", number(total) },
                { "table_read_saved", saved(s->bytes_read, read) },
                { "total_saved", saved(all_legs(s->bytes_read, s), total) },
        };
        return object(fields);
}

static json_t *report_modelled(const struct stats_snapshot *s) {
        const struct varlink_field fields[] = {
                { "client_read_bytes", number(s->bytes_written) },
                { "total_bytes", number(all_legs(s->bytes_read, s)) },
                { "full_f32", report_full(s, sizeof(float)) },
                { "full_f16", report_full(s, sizeof(uint16_t)) },
        };
        return object(fields);
}

static json_t *report_latency(const struct stats_snapshot *s) {
        bool known = s->n_lookups > s->n_errors;
        const struct varlink_field fields[] = {
                { "p50_ns", known ? number(s->latency_p50_ns) : json_null() },
                { "p99_ns", known ? number(s->latency_p99_ns) : json_null() },
                { "max_ns", known ? number(s->latency_max_ns) : json_null() },
        };
        return object(fields);
}

static json_t *report_stats(const struct stats *stats) {
        struct stats_snapshot s;

        stats_read(stats, &s);

        const struct varlink_field fields[] = {
                { "counted", report_counted(&s) },
                { "modelled", report_modelled(&s) },
                { "measured", report_latency(&s) },
        };
        return object(fields);
}

#define read_of(counter) atomic_load_explicit(counter, memory_order_relaxed)

static json_t *report_cache(const struct cache *c) {
        if (!c)
                return json_null();

        const struct varlink_field counted[] = {
                { "n_misses", number(read_of(&c->n_misses)) },
                { "n_insertions", number(read_of(&c->n_insertions)) },
                { "n_evictions", number(read_of(&c->n_evictions)) },
        };
        const struct varlink_field claimed[] = { { "n_hits", number(c->n_hits) } };
        const struct varlink_field fields[] = {
                { "cache_bytes", number(c->layout.cache_bytes) },
                { "n_slots", number(cache_slots(&c->layout)) },
                { "counted", object(counted) },
                { "claimed", object(claimed) },
        };
        return object(fields);
}

json_t *control_report_table_stats(const struct store_table *table,
                                   const struct table_memory *memory,
                                   const struct process_memory *process) {
        const struct varlink_field fields[] = {
                { "table", control_report_table(table, memory, process) },
                { "stats", report_stats(&table->stats) },
                { "cache", report_cache(table->cache) },
        };
        return object(fields);
}

static json_t *report_client(struct session *session) {
        static const char *const states[] = {
                [SESSION_HELLO] = "hello",
                [SESSION_RING] = "ring",
                [SESSION_READY] = "ready",
                [SESSION_CLOSING] = "closing",
        };
        const struct session_info *info = session_info(session);
        struct stats_snapshot s;

        stats_read(session_stats(session), &s);

        const struct varlink_field fields[] = {
                { "session", number(info->id) },
                { "pid", number((uint64_t)info->pid) },
                { "uid", number(info->uid) },
                { "gid", number(info->gid) },
                { "name", text(info->name) },
                { "state", text(states[info->state]) },
                { "connected_seconds", number(seconds_since(info->connected_ns)) },
                { "ring_bytes", number(info->ring_bytes) },
                { "n_tables", number(info->n_tables) },
                { "n_lookups", number(s.n_lookups) },
                { "n_rows", number(s.n_rows) },
        };
        return object(fields);
}

static json_t *report_claims(const struct session_claims *c) {
        const struct varlink_field fields[] = {
                { "n_lookups", number(c->n_lookups) },
                { "n_rows", number(c->n_rows) },
                { "n_rows_read", number(c->n_rows_read) },
                { "n_values_read", number(c->n_values_read) },
                { "table_read_bytes", number(c->bytes_read) },
                { "table_read_lines", number(c->lines_read) },
                { "row_write_bytes", number(c->bytes_written) },
        };
        return object(fields);
}

/* One that has come since has no measurement. */
static const struct smaps_range *find_ring(const struct client_memory *clients, size_t n,
                                           uint64_t session) {
        static const struct smaps_range none = { 0 };

        for (size_t i = 0; i < n; i++)
                if (clients[i].session == session)
                        return &clients[i].ring;
        return &none;
}

static json_t *report_client_stats(struct session *session, const struct smaps_range *ring,
                                   int error) {
        const struct session_claims claims = session_claims(session);
        const struct varlink_field fields[] = {
                { "client", report_client(session) },
                { "stats", report_stats(session_stats(session)) },
                { "claimed", report_claims(&claims) },
                { "measured", report_memory(ring, error) },
        };
        return object(fields);
}

/* Appends to a list that it frees if there is no memory. */
static json_t *append(json_t *list, json_t *item) {
        if (list && json_array_append_new(list, item) >= 0)
                return list;
        json_decref(list);
        return NULL;
}

json_t *control_report_clients(struct daemon *daemon) {
        json_t *list = json_array();

        for (struct session *s = session_first(daemon); list && s; s = session_next(s))
                list = append(list, report_client(s));
        return list;
}

json_t *control_report_client_stats(struct daemon *daemon, const struct client_memory *clients,
                                    size_t n, const struct process_memory *process) {
        json_t *list = json_array();

        for (struct session *s = session_first(daemon); list && s; s = session_next(s))
                list = append(list,
                              report_client_stats(s, find_ring(clients, n, session_info(s)->id),
                                                  process->smaps_error));
        return list;
}

static json_t *report_user(const struct quota_usage *u) {
        const struct varlink_field fields[] = {
                { "uid", number(u->uid) },
                { "n_clients", number(u->used[QUOTA_SESSIONS]) },
                { "ring_bytes", number(u->used[QUOTA_RING_BYTES]) },
                { "n_tables", number(u->used[QUOTA_TABLES]) },
                { "n_ids_in_flight", number(u->used[QUOTA_IDS]) },
        };
        return object(fields);
}

json_t *control_report_users(const struct daemon *daemon) {
        json_t *list = json_array();

        for (const struct quota_account *a = quota_first(&daemon->quota); list && a;
             a = quota_next(a)) {
                const struct quota_usage usage = quota_usage(&daemon->quota, a);

                list = append(list, report_user(&usage));
        }
        return list;
}

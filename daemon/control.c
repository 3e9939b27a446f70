/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See control.h. A connection waits for exactly one thing at any time: bytes to arrive, an answer
 * to be ready, or bytes to leave. That bounds what it can make the daemon hold to one call's buffer
 * and one reply, keeps answers in order, and makes its end simple: whatever it waits for frees it.
 */
#include "control.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "control-call.h"
#include "control-report.h"
#include "proto/interfaces.h"
#include "reload.h"

struct control_connection {
        struct daemon *daemon;
        int fd;
        bool closing;
        struct loop_op op; /* the receive or the send */
        struct control_call call;
        /* received[n_taken_bytes .. n_received_bytes) is still to be served. */
        size_t n_received_bytes, n_taken_bytes;
        char *reply; /* owned, with its NUL */
        size_t reply_bytes, n_sent_bytes;
        TAILQ_ENTRY(control_connection) link;
        char received[VARLINK_CALL_BYTES_MAX];
};

/* A walk over smaps on the chore thread for a call that reports tables. */
struct measurement {
        struct chore chore;
        struct control_connection *connection;
        size_t n_tables, n_clients;
        struct store_table **tables; /* references */
        struct table_memory *memory; /* of each */
        struct client_memory *clients;
        struct process_memory process;
};

static void continue_calls(struct control_connection *c);

static void connection_free(struct control_connection *c) {
        struct daemon *daemon = c->daemon;

        TAILQ_REMOVE(&daemon->control_connections, c, link);
        daemon->n_control_connections--;
        control_call_deinit(&c->call);
        close(c->fd);
        free(c->reply);
        free(c);
        daemon_stop_if_done(daemon);
}

/* ---- Replies ---- */

static void sent(struct loop_op *op, int32_t res, uint32_t cqe_flags);

static void send_more(struct control_connection *c) {
        struct io_uring_sqe *sqe = loop_prepare(c->daemon->loop, &c->op);

        c->op.done = sent;
        io_uring_prep_send(sqe, c->fd, c->reply + c->n_sent_bytes, c->reply_bytes - c->n_sent_bytes,
                           MSG_NOSIGNAL);
}

static void sent(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct control_connection *c = container_of(op, struct control_connection, op);

        (void)cqe_flags;
        if (res <= 0 || c->closing) {
                connection_free(c);
                return;
        }
        c->n_sent_bytes += (size_t)res;
        if (c->n_sent_bytes < c->reply_bytes) {
                send_more(c);
                return;
        }
        free(steal_pointer(&c->reply));
        continue_calls(c);
}

/*
 * Ends the current call with a reply that it takes over; NULL: there was no memory for one. Returns
 * whether the connection may go on with the next call at once.
 */
static bool finish_call(struct control_connection *c, json_t *reply) {
        bool oneway = c->call.oneway;

        control_call_deinit(&c->call);
        if (reply && !oneway && !c->closing)
                c->reply = varlink_dump(reply);
        json_decref(reply);
        if (c->closing || !reply || (!oneway && !c->reply)) {
                connection_free(c);
                return false;
        }
        if (oneway)
                return true;
        c->reply_bytes = strlen(c->reply) + 1;
        c->n_sent_bytes = 0;
        send_more(c);
        return false;
}

/* For answers that were waited for. */
static void finish_later(struct control_connection *c, json_t *reply) {
        if (finish_call(c, reply))
                continue_calls(c);
}

static json_t *reply_with(const char *name, json_t *value) {
        return varlink_reply_new(json_pack("{so}", name, value));
}

static json_t *error_with(const char *error, const char *name, const char *value) {
        return varlink_error_new(error, json_pack("{so}", name, varlink_text(value)));
}

/* ---- Tables: measured on the chore thread ---- */

static void measurement_free(struct measurement *m) {
        for (size_t i = 0; i < m->n_tables; i++)
                store_table_unref(m->tables[i]);
        free(m->tables);
        free(m->memory);
        free(m->clients);
        free(m);
}

/* All ranges together, as each look at /proc/self/smaps walks over all memory. */
static int measure_ranges(struct measurement *m) {
        size_t n = 1 + m->n_tables + m->n_clients, k = 0;
        _cleanup_(freep) struct smaps_range **ranges = calloc(n, sizeof(struct smaps_range *));

        if (!ranges)
                return -ENOMEM;
        ranges[k++] = &m->process.all;
        for (size_t i = 0; i < m->n_tables; i++)
                ranges[k++] = &m->memory[i].mapping;
        for (size_t i = 0; i < m->n_clients; i++)
                ranges[k++] = &m->clients[i].ring;
        return smaps_measure(ranges, n);
}

static void measure(struct chore *chore) {
        struct measurement *m = container_of(chore, struct measurement, chore);
        struct rusage usage = { 0 };

        m->process.smaps_error = measure_ranges(m);
        for (size_t i = 0; i < m->n_tables; i++) {
                struct store_table *t = m->tables[i];

                m->memory[i].cache_error = page_cache_measure(
                        t->fd, (void *)t->file.map, t->file.map_bytes, &m->memory[i].cache);
        }
        getrusage(RUSAGE_SELF, &usage);
        m->process.n_major_faults = (uint64_t)usage.ru_majflt;
        m->process.refaults_error = page_cache_refaults(&m->process.n_refaults);
}

static json_t *report_tables(const struct measurement *m,
                             json_t *(*report)(const struct store_table *table,
                                               const struct table_memory *memory,
                                               const struct process_memory *process)) {
        json_t *list = json_array();

        for (size_t i = 0; list && i < m->n_tables; i++)
                if (json_array_append_new(list, report(m->tables[i], &m->memory[i], &m->process)) <
                    0) {
                        json_decref(list);
                        return NULL;
                }
        return list;
}

static void measured(struct chore *chore) {
        struct measurement *m = container_of(chore, struct measurement, chore);
        struct control_connection *c = m->connection;
        json_t *reply;

        if (c->call.method == CONTROL_LIST_TABLES)
                reply = varlink_reply_new(
                        json_pack("{so so}", "tables", report_tables(m, control_report_table),
                                  "refusals", control_report_refusals(c->daemon)));
        else {
                sessions_count_hits(c->daemon);
                reply = varlink_reply_new(
                        json_pack("{so so so}", "tables",
                                  report_tables(m, control_report_table_stats), "clients",
                                  c->call.arguments[0]
                                          ? json_array()
                                          : control_report_client_stats(c->daemon, m->clients,
                                                                        m->n_clients, &m->process),
                                  "daemon", control_report_process(&m->process)));
        }
        measurement_free(m);
        finish_later(c, reply);
}

/* All tables, or the generations of `name`. */
static int measurement_new(struct control_connection *c, const char *name,
                           struct measurement **ret_measurement) {
        struct measurement *m = calloc(1, sizeof(*m));
        struct store_table *table;
        size_t n_tables = 0, n_clients = c->daemon->n_sessions;

        if (!m)
                return -ENOMEM;
        TAILQ_FOREACH(table, &c->daemon->store.tables, link) {
                n_tables++;
        }
        m->connection = c;
        m->chore.work = measure;
        m->chore.done = measured;
        m->tables = calloc(n_tables + 1, sizeof(*m->tables));
        m->memory = calloc(n_tables + 1, sizeof(*m->memory));
        m->clients = calloc(n_clients + 1, sizeof(*m->clients));
        m->process.all = (struct smaps_range){ .length_bytes = UINT64_MAX >> 1 };
        if (!m->tables || !m->memory || !m->clients) {
                measurement_free(m);
                return -ENOMEM;
        }
        TAILQ_FOREACH(table, &c->daemon->store.tables, link) {
                if (name && strcmp(name, table->name))
                        continue;
                m->tables[m->n_tables] = store_table_ref(table);
                m->memory[m->n_tables++].mapping =
                        (struct smaps_range){ .start = (uintptr_t)table->file.map,
                                              .length_bytes = table->file.map_bytes };
        }
        for (struct session *s = session_first(c->daemon); s && m->n_clients < n_clients;
             s = session_next(s))
                m->clients[m->n_clients++] = (struct client_memory){ .session = session_info(s)->id,
                                                                     .ring = session_ring(s) };
        *ret_measurement = m;
        return 0;
}

/* As serve_call(). */
static int start_measurement(struct control_connection *c, const char *name, json_t **ret_reply) {
        struct measurement *m;
        int r;

        r = measurement_new(c, name, &m);
        if (r < 0)
                return r;
        if (name && !m->n_tables) {
                measurement_free(m);
                *ret_reply = error_with(CONTROL_INTERFACE ".NoSuchTable", "name", name);
                return 1;
        }
        chores_post(c->daemon->chores, &m->chore);
        return 0;
}

/* ---- Calls ---- */

static void loaded(void *userdata, const char *name, int r, const char *reason) {
        struct control_connection *c = userdata;
        const char *path = c->call.arguments[1];
        const struct store_table *table = store_find(&c->daemon->store, name);

        if (r < 0)
                finish_later(c,
                             varlink_error_new(CONTROL_INTERFACE ".LoadFailed",
                                               json_pack("{so so so}", "name", varlink_text(name),
                                                         "path", varlink_text(path), "reason",
                                                         varlink_text(reason))));
        else
                finish_later(
                        c, reply_with("generation", varlink_number(table ? table->generation : 0)));
}

/* As serve_call(). */
static int load_table(struct control_connection *c, const char *name, const char *path,
                      json_t **ret_reply) {
        const struct load_request request = {
                .name = name, .path = path, .origin = STORE_LOADED, .done = loaded, .userdata = c
        };
        int r;

        if (!wire_table_name_valid(name))
                *ret_reply = error_with(CONTROL_INTERFACE ".InvalidName", "name", name);
        else if (path[0] != '/')
                *ret_reply = error_with(CONTROL_SERVICE_INTERFACE ".InvalidParameter", "parameter",
                                        "path");
        else if (c->daemon->stopping)
                *ret_reply = error_with(CONTROL_INTERFACE ".Unavailable", "reason",
                                        "carvqd is shutting down");
        else {
                r = load_start(c->daemon, &request);
                if (r >= 0)
                        return 0;
                *ret_reply = error_with(CONTROL_INTERFACE ".Unavailable", "reason", strerror(-r));
        }
        return 1;
}

static json_t *unload_table(struct control_connection *c, const char *name) {
        if (store_retire(&c->daemon->store, name) < 0)
                return error_with(CONTROL_INTERFACE ".NoSuchTable", "name", name);
        log_fields(LOG_LEVEL_INFO, (const char *[]){ "TABLE", name, NULL }, "Unloaded %s", name);
        return varlink_reply_new(json_object());
}

static void reloaded(void *userdata, int r, json_t *report) {
        struct control_connection *c = userdata;

        if (r >= 0)
                finish_later(c, varlink_reply_new(json_incref(report)));
        else if (r == -EINVAL)
                finish_later(c,
                             varlink_error_new(CONTROL_INTERFACE ".ConfigurationInvalid",
                                               json_pack("{so}", "problems", json_incref(report))));
        else
                finish_later(c,
                             error_with(CONTROL_INTERFACE ".Unavailable", "reason", strerror(-r)));
}

/* As serve_call(). */
static int reload(struct control_connection *c, json_t **ret_reply) {
        int r = -ESHUTDOWN;

        if (!c->daemon->stopping)
                r = reload_start(c->daemon, reloaded, c);
        if (r >= 0)
                return 0;
        *ret_reply = error_with(CONTROL_INTERFACE ".Unavailable", "reason", strerror(-r));
        return 1;
}

static json_t *describe_interface(const char *interface) {
        if (!strcmp(interface, CONTROL_INTERFACE))
                return reply_with("description", json_string(interface_control));
        if (!strcmp(interface, CONTROL_SERVICE_INTERFACE))
                return reply_with("description", json_string(interface_service));
        return error_with(CONTROL_SERVICE_INTERFACE ".InterfaceNotFound", "interface", interface);
}

/* 1: `*ret_reply` is the answer, NULL for lack of memory. 0: it comes later. Negative errno. */
static int serve_call(struct control_connection *c, json_t **ret_reply) {
        const char *const *arguments = c->call.arguments;

        if (c->call.refusal) {
                *ret_reply = steal_pointer(&c->call.refusal);
                return 1;
        }
        switch (c->call.method) {
        case CONTROL_GET_INFO:
                *ret_reply = varlink_reply_new(control_report_info());
                return 1;
        case CONTROL_GET_INTERFACE_DESCRIPTION:
                *ret_reply = describe_interface(arguments[0]);
                return 1;
        case CONTROL_GET_STATUS:
                *ret_reply = varlink_reply_new(control_report_status(c->daemon));
                return 1;
        case CONTROL_LIST_CLIENTS:
                *ret_reply = varlink_reply_new(json_pack("{so so}", "clients",
                                                         control_report_clients(c->daemon), "users",
                                                         control_report_users(c->daemon)));
                return 1;
        case CONTROL_UNLOAD_TABLE:
                *ret_reply = unload_table(c, arguments[0]);
                return 1;
        case CONTROL_LIST_TABLES:
        case CONTROL_GET_STATS:
                return start_measurement(c, arguments[0], ret_reply);
        case CONTROL_LOAD_TABLE:
                return load_table(c, arguments[0], arguments[1], ret_reply);
        case CONTROL_RELOAD:
                return reload(c, ret_reply);
        case CONTROL_METHODS_N:
                break;
        }
        return -EINVAL;
}

/* ---- The stream ---- */

static void received(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct control_connection *c = container_of(op, struct control_connection, op);

        (void)cqe_flags;
        if (res <= 0 || c->closing) {
                connection_free(c);
                return;
        }
        c->n_received_bytes += (size_t)res;
        continue_calls(c);
}

static void receive_more(struct control_connection *c) {
        struct io_uring_sqe *sqe = loop_prepare(c->daemon->loop, &c->op);

        c->n_received_bytes -= c->n_taken_bytes;
        memmove(c->received, c->received + c->n_taken_bytes, c->n_received_bytes);
        c->n_taken_bytes = 0;
        c->op.done = received;
        io_uring_prep_recv(sqe, c->fd, c->received + c->n_received_bytes,
                           sizeof(c->received) - c->n_received_bytes, 0);
}

/* The next call in what was received: 1, 0 if it is not complete, or why the connection must end.
 */
static int take_call(struct control_connection *c, struct fault *ret_fault) {
        const char *bytes = c->received + c->n_taken_bytes;
        size_t n_bytes;
        int r;

        r = varlink_frame(bytes, c->n_received_bytes - c->n_taken_bytes, &n_bytes);
        if (r < 0)
                return fault_set(ret_fault, r, "varlink call: longer than %u bytes",
                                 VARLINK_CALL_BYTES_MAX);
        if (r == 0)
                return 0;
        c->n_taken_bytes += n_bytes + 1;
        r = control_call_parse(bytes, n_bytes, &c->call, ret_fault);
        return r < 0 ? r : 1;
}

/* Serves what is there until something has to be waited for. */
static void continue_calls(struct control_connection *c) {
        json_t *reply = NULL;
        struct fault fault;
        int r;

        do {
                r = take_call(c, &fault);
                if (r == 0) {
                        receive_more(c);
                        return;
                }
                if (r < 0) {
                        log_warning("Control connection closed: %s", fault.text);
                        connection_free(c);
                        return;
                }
                r = serve_call(c, &reply);
                if (r < 0) {
                        log_error("Control call failed: %s", strerror(-r));
                        connection_free(c);
                        return;
                }
        } while (r > 0 && finish_call(c, reply));
}

void control_init(struct daemon *daemon) {
        TAILQ_INIT(&daemon->control_connections);
        daemon->n_control_connections = 0;
}

int control_connection_new(struct daemon *daemon, int fd) {
        _cleanup_(closep) int owned_fd = fd;
        struct control_connection *c;

        if (daemon->n_control_connections >= CONTROL_CONNECTIONS_MAX)
                return -EUSERS;
        c = malloc(sizeof(*c));
        if (!c)
                return -ENOMEM;
        memset(c, 0, offsetof(struct control_connection, received));
        c->daemon = daemon;
        c->fd = steal_fd(&owned_fd);
        TAILQ_INSERT_TAIL(&daemon->control_connections, c, link);
        daemon->n_control_connections++;
        receive_more(c);
        return 0;
}

void control_close(struct daemon *daemon) {
        struct control_connection *c;

        TAILQ_FOREACH(c, &daemon->control_connections, link) {
                c->closing = true;
                shutdown(c->fd, SHUT_RDWR);
        }
}

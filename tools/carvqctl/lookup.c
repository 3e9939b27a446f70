/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl lookup TABLE ID...: f32 rows through libcarvq's rings, as any client gets them. Nine
 * significant digits restore each f32 exactly.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "carvqctl.h"
#include "lib/carvq.h"

#define ROWS_AT_ONCE 256

static void client_freep(carvq_client **client) {
        carvq_client_free(*client);
}

/* What failed on our side of the socket, and what the daemon refused. */
static int exit_status_of(int error) {
        switch (error) {
        case -ENOENT:
        case -EDQUOT:
        case -ERANGE:
        case -EBADF:
        case -EMSGSIZE:
                return EXIT_REFUSED;
        default:
                return EXIT_UNREACHABLE;
        }
}

/* All of them, before anything is printed. */
static int parse_ids(const struct carvqctl *ctl, uint64_t n_rows, uint64_t **ret_ids) {
        size_t n_ids = (size_t)ctl->n_arguments - 1;
        _cleanup_(freep) uint64_t *ids = calloc(n_ids, sizeof(*ids));

        if (!ids) {
                complain("out of memory");
                return EXIT_USAGE;
        }
        for (size_t i = 0; i < n_ids; i++) {
                const char *text = ctl->arguments[i + 1];
                char *end;

                errno = 0;
                ids[i] = strtoull(text, &end, 10);
                if (text[0] < '0' || text[0] > '9' || *end || errno) {
                        complain("lookup: '%s' is no row id, expected a decimal number", text);
                        return EXIT_USAGE;
                }
                if (ids[i] >= n_rows) {
                        complain("row %" PRIu64 " is not in table %s, which has rows 0 to %" PRIu64,
                                 ids[i], ctl->arguments[0], n_rows - 1);
                        return EXIT_REFUSED;
                }
        }
        *ret_ids = steal_pointer(&ids);
        return EXIT_OK;
}

static void print_row_json(uint64_t id, const float *values, uint32_t n_dims, bool first) {
        printf("%s\n    {\"id\": %" PRIu64 ", \"values\": [", first ? "" : ",", id);
        for (uint32_t i = 0; i < n_dims; i++)
                if (!isfinite(values[i]))
                        printf("%snull", i ? ", " : "");
                else if (values[i] == 0 && signbit(values[i]))
                        printf("%s-0.0", i ? ", " : ""); /* "-0" is read as an integer */
                else
                        printf("%s%.9g", i ? ", " : "", (double)values[i]);
        fputs("]}", stdout);
}

static void print_row_text(uint64_t id, const float *values, uint32_t n_dims) {
        printf("%" PRIu64, id);
        for (uint32_t i = 0; i < n_dims; i++)
                printf(" %.9g", (double)values[i]);
        putchar('\n');
}

static int print_rows(const struct carvqctl *ctl, carvq_table *table, uint32_t n_dims,
                      const uint64_t *ids, size_t n_ids) {
        size_t n_values = (size_t)n_dims * ROWS_AT_ONCE;
        _cleanup_(freep) float *values = calloc(n_values, sizeof(*values));

        if (!values) {
                complain("out of memory");
                return EXIT_USAGE;
        }
        for (size_t first = 0; first < n_ids; first += ROWS_AT_ONCE) {
                size_t n = MIN(n_ids - first, (size_t)ROWS_AT_ONCE);
                int r = carvq_lookup(table, ids + first, n, NULL, values,
                                     n_values * sizeof(*values));

                if (r < 0) {
                        complain("lookup in %s: %s", ctl->arguments[0], carvq_table_error(table));
                        return exit_status_of(r);
                }
                if (first == 0 && ctl->json)
                        printf("{\n  \"table\": \"%s\",\n  \"rows\": [", ctl->arguments[0]);
                for (size_t i = 0; i < n; i++)
                        if (ctl->json)
                                print_row_json(ids[first + i], values + i * n_dims, n_dims,
                                               first + i == 0);
                        else
                                print_row_text(ids[first + i], values + i * n_dims, n_dims);
        }
        if (ctl->json)
                puts("\n  ]\n}");
        return EXIT_OK;
}

int verb_lookup(const struct carvqctl *ctl) {
        const struct carvq_connect_options options = { .size = sizeof(options),
                                                       .socket_path = ctl->socket_path,
                                                       .name = "carvqctl lookup" };
        struct carvq_table_info info = { .size = sizeof(info) };
        _cleanup_(client_freep) carvq_client *client = NULL;
        _cleanup_(freep) uint64_t *ids = NULL;
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table; /* the client's */
        int r;

        r = carvq_connect(&options, &client, message);
        if (r < 0) {
                complain("%s", *message ? message : carvq_strerror(r));
                return r == -EDQUOT ? EXIT_REFUSED : EXIT_UNREACHABLE;
        }
        r = carvq_table_open(client, ctl->arguments[0], &table);
        if (r < 0) {
                complain("%s", carvq_client_error(client));
                return exit_status_of(r);
        }
        r = carvq_table_info(table, &info);
        if (r < 0) {
                complain("%s", carvq_table_error(table));
                return exit_status_of(r);
        }
        r = parse_ids(ctl, info.n_rows, &ids);
        if (r != EXIT_OK)
                return r;
        return print_rows(ctl, table, info.n_dims, ids, (size_t)ctl->n_arguments - 1);
}

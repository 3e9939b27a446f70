/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl lookup TABLE ID...: f32 rows through libcarvq's rings, as any client gets them. Nine
 * significant digits restore each f32 exactly; .npy has the bits themselves.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

/* ---- Formats ---- */

struct writer {
        void (*begin)(FILE *out, const char *table, size_t n_rows, uint32_t n_dims);
        void (*row)(FILE *out, uint64_t id, const float *values, uint32_t n_dims, bool first);
        void (*end)(FILE *out);
};

static void begin_json(FILE *out, const char *table, size_t n_rows, uint32_t n_dims) {
        (void)n_rows;
        (void)n_dims;
        fprintf(out, "{\n  \"table\": \"%s\",\n  \"rows\": [", table);
}

static void write_row_json(FILE *out, uint64_t id, const float *values, uint32_t n_dims,
                           bool first) {
        fprintf(out, "%s\n    {\"id\": %" PRIu64 ", \"values\": [", first ? "" : ",", id);
        for (uint32_t i = 0; i < n_dims; i++)
                if (!isfinite(values[i]))
                        fprintf(out, "%snull", i ? ", " : "");
                else if (values[i] == 0 && signbit(values[i]))
                        fprintf(out, "%s-0.0", i ? ", " : ""); /* "-0" is read as an integer */
                else
                        fprintf(out, "%s%.9g", i ? ", " : "", (double)values[i]);
        fputs("]}", out);
}

static void end_json(FILE *out) {
        fputs("\n  ]\n}\n", out);
}

static void write_row_text(FILE *out, uint64_t id, const float *values, uint32_t n_dims,
                           bool first) {
        (void)first;
        fprintf(out, "%" PRIu64, id);
        for (uint32_t i = 0; i < n_dims; i++)
                fprintf(out, " %.9g", (double)values[i]);
        fputc('\n', out);
}

/* Version 1.0 of NumPy's format: the header ends in a newline and on a multiple of 64 bytes. */
static void begin_npy(FILE *out, const char *table, size_t n_rows, uint32_t n_dims) {
        char header[118];
        int n;

        (void)table;
        memset(header, ' ', sizeof(header));
        n = snprintf(header, sizeof(header),
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %" PRIu32 "), }",
                     n_rows, n_dims);
        header[n] = ' ';
        header[sizeof(header) - 1] = '\n';
        fwrite("\x93NUMPY\x01\x00", 1, 8, out);
        fwrite((uint8_t[]){ sizeof(header), 0 }, 1, 2, out);
        fwrite(header, 1, sizeof(header), out);
}

static void write_row_npy(FILE *out, uint64_t id, const float *values, uint32_t n_dims,
                          bool first) {
        (void)id;
        (void)first;
        fwrite(values, sizeof(*values), n_dims, out);
}

static const struct format {
        const char *name;
        struct writer writer;
} formats[] = {
        { "text", { NULL, write_row_text, NULL } },
        { "json", { begin_json, write_row_json, end_json } },
        { "npy", { begin_npy, write_row_npy, NULL } },
};

/* The default is text, --json a short word for one of the others. */
static const struct writer *find_writer(const struct carvqctl *ctl) {
        const char *name = ctl->format ? ctl->format : ctl->json ? "json" : "text";

        if (ctl->json && strcmp(name, "json")) {
                complain("lookup: --json and --format %s exclude each other", name);
                return NULL;
        }
        for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
                if (!strcmp(formats[i].name, name))
                        return &formats[i].writer;
        complain("lookup: '%s' is no format, expected text, json or npy", name);
        return NULL;
}

/* ---- Rows ---- */

static int write_rows(const struct carvqctl *ctl, const struct writer *writer, carvq_table *table,
                      uint32_t n_dims, const uint64_t *ids, size_t n_ids, FILE *out) {
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
                if (first == 0 && writer->begin)
                        writer->begin(out, ctl->arguments[0], n_ids, n_dims);
                for (size_t i = 0; i < n; i++)
                        writer->row(out, ids[first + i], values + i * n_dims, n_dims,
                                    first + i == 0);
        }
        if (writer->end)
                writer->end(out);
        return EXIT_OK;
}

static void remove_regular(const char *path) {
        struct stat st;

        if (!lstat(path, &st) && S_ISREG(st.st_mode))
                unlink(path);
}

/* A file that is not whole is none: it goes, unless it is a device or a pipe. */
static int write_file(const struct carvqctl *ctl, const struct writer *writer, carvq_table *table,
                      uint32_t n_dims, const uint64_t *ids, size_t n_ids) {
        FILE *out = fopen(ctl->output_path, "we");
        int r;

        if (!out) {
                complain("%s: %s", ctl->output_path, strerror(errno));
                return EXIT_REFUSED;
        }
        r = write_rows(ctl, writer, table, n_dims, ids, n_ids, out);
        if (fflush(out) && r == EXIT_OK) {
                complain("%s: %s", ctl->output_path, strerror(errno));
                r = EXIT_REFUSED;
        }
        fclose(out);
        if (r != EXIT_OK)
                remove_regular(ctl->output_path);
        return r;
}

static int look_up(const struct carvqctl *ctl, const struct writer *writer, carvq_client *client) {
        struct carvq_table_info info = { .size = sizeof(info) };
        _cleanup_(freep) uint64_t *ids = NULL;
        size_t n_ids = (size_t)ctl->n_arguments - 1;
        carvq_table *table; /* the client's */
        int r;

        r = carvq_table_open(client, ctl->arguments[0], &table);
        if (r >= 0)
                r = carvq_table_info(table, &info);
        if (r < 0) {
                complain("%s", carvq_client_error(client));
                return exit_status_of(r);
        }
        r = parse_ids(ctl, info.n_rows, &ids);
        if (r != EXIT_OK)
                return r;
        if (ctl->output_path)
                return write_file(ctl, writer, table, info.n_dims, ids, n_ids);
        return write_rows(ctl, writer, table, info.n_dims, ids, n_ids, stdout);
}

int verb_lookup(const struct carvqctl *ctl) {
        const struct carvq_connect_options options = { .size = sizeof(options),
                                                       .socket_path = ctl->socket_path,
                                                       .name = "carvqctl lookup" };
        const struct writer *writer = find_writer(ctl);
        _cleanup_(client_freep) carvq_client *client = NULL;
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        if (!writer)
                return EXIT_USAGE;
        if (writer->begin == begin_npy && !ctl->output_path && isatty(STDOUT_FILENO)) {
                complain("lookup: npy is binary, and standard output a terminal: use -o FILE");
                return EXIT_USAGE;
        }
        r = carvq_connect(&options, &client, message);
        if (r < 0) {
                complain("%s", *message ? message : carvq_strerror(r));
                return r == -EDQUOT ? EXIT_REFUSED : EXIT_UNREACHABLE;
        }
        return look_up(ctl, writer, client);
}

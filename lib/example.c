/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks up three rows and prints their first values. Copy it.
 *   cc example.c $(pkg-config --cflags --libs libcarvq)
 *   example NAME          a table that carvqd serves
 *   example FILE.carvq    a file, with no daemon
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carvq.h"

int main(int argc, char **argv) {
        const uint64_t ids[] = { 0, 1, 2 };
        struct carvq_lookup_options options = {
                .size = sizeof(options),
                .out_of_range = CARVQ_OUT_OF_RANGE_ZERO_ROW, /* the table may have fewer rows */
        };
        struct carvq_table_info info = { .size = sizeof(info) };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client = NULL;
        carvq_table *table = NULL;
        float *rows = NULL;
        int r;

        if (argc != 2) {
                fprintf(stderr, "usage: %s NAME|FILE.carvq\n", argv[0]);
                return 2;
        }
        if (strstr(argv[1], ".carvq")) {
                r = carvq_file_open(argv[1], NULL, &table, message);
        } else {
                r = carvq_connect(NULL, &client, message);
                if (r == 0)
                        r = carvq_table_open(client, argv[1], &table);
                if (r < 0 && client)
                        snprintf(message, sizeof(message), "%s", carvq_client_error(client));
        }
        if (r < 0) {
                fprintf(stderr, "example: %s: %s\n", carvq_strerror(r), message);
                carvq_client_free(client);
                return 1;
        }

        carvq_table_info(table, &info);
        rows = calloc(3 * (size_t)info.n_dims, sizeof(*rows));
        if (rows)
                r = carvq_lookup(table, ids, 3, &options, rows, 3 * info.n_dims * sizeof(*rows));
        if (!rows || r < 0)
                fprintf(stderr, "example: %s\n", rows ? carvq_table_error(table) : "out of memory");
        else
                for (size_t i = 0; i < 3; i++)
                        printf("row %llu: %g ...\n", (unsigned long long)ids[i],
                               (double)rows[i * info.n_dims]);

        free(rows);
        carvq_table_close(table);
        carvq_client_free(client);
        return rows && r == 0 ? 0 : 1;
}

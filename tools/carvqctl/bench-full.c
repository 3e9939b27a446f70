/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The opponent of `carvqctl bench`: a table in full precision, as a process without carvqd would
 * hold it. It goes through the same decoder as any table of that codec, whose loop is the best
 * gather there is, on huge pages where there are any.
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "format.h"
#include "tools/bench/memory-table.h"

#define BLOCK_ROWS 1024u

static const uint32_t codecs[] = {
        [CODEC_TYPE_F32] = TABLE_CODEC_F32,
        [CODEC_TYPE_F16] = TABLE_CODEC_F16,
        [CODEC_TYPE_BF16] = TABLE_CODEC_BF16,
};

/* "MemAvailable" of /proc/meminfo; 0 where it is not told. */
static uint64_t available_bytes(void) {
        FILE *f = fopen("/proc/meminfo", "re");
        uint64_t kib = 0;
        char line[128];

        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1)
                        break;
        if (f)
                fclose(f);
        return kib * 1024;
}

static int fill(const struct bench *b, uint8_t *rows) {
        size_t row_bytes = b->n_dims * codec_type_bytes(b->type);
        struct carvq_lookup_options o = { .size = sizeof(o), .type = b->type };
        uint64_t ids[BLOCK_ROWS];

        for (uint64_t first = 0; first < b->n_used; first += BLOCK_ROWS) {
                size_t n = MIN(b->n_used - first, BLOCK_ROWS);
                int r;

                for (size_t i = 0; i < n; i++)
                        ids[i] = first + i;
                r = carvq_lookup(b->ring, ids, n, &o, rows + first * row_bytes, n * row_bytes);
                if (r < 0) {
                        complain("bench: %s", carvq_client_error(b->client));
                        return r == -ECONNRESET ? EXIT_UNREACHABLE : EXIT_REFUSED;
                }
        }
        return EXIT_OK;
}

int bench_full_make(struct bench *b) {
        uint64_t row_bytes = b->n_dims * codec_type_bytes(b->type), n_rows_max;
        struct table_header h = { .codec = codecs[b->type], .n_dims = b->n_dims };
        struct fault fault = { 0 };
        int r;

        n_rows_max = MAX(available_bytes() / 2 / row_bytes, 1u);
        b->n_used = MIN(b->n_rows, n_rows_max);
        codec_context_init(&b->context, codec_kernels_choose(codec_cpu_features()));
        h.n_rows = b->n_used;
        r = memory_table_new(&h, &b->full, &fault);
        if (r >= 0 && codec_context_reserve(&b->context, &b->full.table) < 0)
                r = fault_set(&fault, -ENOMEM, "out of memory");
        if (r < 0) {
                complain("bench: %s of rows in %s: %s", format_bytes(b->n_used * row_bytes).text,
                         bench_type_names[b->type], fault.text);
                return EXIT_REFUSED;
        }
        return fill(b, (uint8_t *)b->full.map + b->full.table.contents.rows.offset);
}

void bench_full_free(struct bench *b) {
        codec_file_unmap(&b->full);
        codec_context_deinit(&b->context);
}

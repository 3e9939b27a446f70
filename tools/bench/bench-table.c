/* SPDX-License-Identifier: Apache-2.0 */
#include "bench-table.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "lib/codec/codec.h"
#include "npy-rows.h"

#define SEED_ROWS     256u
#define ARGUMENTS_MAX 32u

#define CODES(stages, bits, window, subvector)                                                     \
        "--stages", stages, "--codebook-bits", bits, "--window", window, "--subvector", subvector, \
                "--group", "global", "--col-scale", "off"

const char *const bench_table_rvq[] = {
        CODES("3", "4", "4", "8"), "--row-scale", "off", "--adaptor", "none", NULL
};
const char *const bench_table_trellis[] = {
        CODES("1", "6", "12", "4"), "--row-scale", "on", "--adaptor", "none", NULL
};
const char *const bench_table_adaptor[] = { CODES("1", "6", "12", "4"),
                                            "--row-scale",
                                            "on",
                                            "--adaptor",
                                            "16x256",
                                            "--adaptor-weights",
                                            "int8",
                                            "--adaptor-force",
                                            NULL };

/* Deviates of a normal distribution, by Box and Muller. */
static void write_seed_rows(const char *path, uint32_t n_dims, uint64_t seed) {
        size_t n = (size_t)SEED_ROWS * n_dims;
        _cleanup_(freep) float *values = allocate(n, sizeof(*values));
        uint64_t random = seed;
        FILE *f;

        for (size_t i = 0; i < n; i++) {
                double radius = sqrt(-2 * log(1 - random_fraction(&random)));

                values[i] = (float)(0.02 * radius * cos(2 * M_PI * random_fraction(&random)));
        }
        f = npy_create(path, NPY_F32, SEED_ROWS, n_dims);
        if (fwrite(values, sizeof(*values), n, f) != n || fclose(f))
                die("%s: %s", path, strerror(errno));
}

static void pack(const char *source, const char *path, const char *const *arguments) {
        char program[PATH_MAX];
        const char *argv[ARGUMENTS_MAX] = { program, "pack",    source,     "-o",
                                            path,    "--quiet", "--preset", "fast" };
        size_t n = 8;

        program_beside("../carvq/carvq", program, sizeof(program));
        for (; *arguments && n + 1 < ARGUMENTS_MAX; n++)
                argv[n] = *arguments++;
        run_program((char *const *)argv);
}

/* What stands before the codes of a record is a row of the packed table's. */
static void fill_rows(const struct codec_table *packed, const struct table_header *h, uint8_t *rows,
                      uint64_t seed) {
        const struct table_layout *l = &packed->contents.layout;
        uint64_t n_kept = h->codec == TABLE_CODEC_CARVQ ? l->codes_offset : h->record_bytes;
        uint64_t random = seed, word;

        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint8_t *record = rows + row * l->record_bytes;

                memcpy(record,
                       packed->rows + row % packed->contents.header.n_rows * l->record_bytes,
                       n_kept);
                for (uint64_t i = n_kept; i < l->record_bytes; i += sizeof(word)) {
                        word = random_next(&random);
                        memcpy(record + i, &word, MIN(sizeof(word), l->record_bytes - i));
                }
        }
}

/* Chunk checksums stay 0: nothing but `carvq verify` looks at them. */
static void stretch(const char *packed_path, const struct bench_table *table, const char *path) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct codec_file packed;
        struct table_header h;
        struct fault fault;
        uint8_t *file;
        int fd;

        if (codec_file_open(packed_path, &packed, &fault) < 0)
                die("%s", fault.text);
        h = packed.table.contents.header;
        if (h.n_tiers > 1 || packed.table.contents.layout.n_row_groups > 1)
                die("%s: rows differ, expected one tier and one group of rows", packed_path);
        h.group_rows = h.codec == TABLE_CODEC_CARVQ ? table->n_rows : 0;
        h.n_rows = table->n_rows;
        if (table_plan(&h, 0, chunks, &fault) < 0)
                die("%s: %s", path, fault.text);
        table_seal(&h, chunks);

        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)h.file_bytes) < 0)
                die("%s: %s", path, strerror(errno));
        file = mmap(NULL, h.file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (file == MAP_FAILED)
                die("%s: mmap: %s", path, strerror(errno));
        memcpy(file, &h, sizeof(h));
        memcpy(file + sizeof(h), chunks, h.n_chunks * sizeof(chunks[0]));
        for (uint32_t i = 0; i < h.n_chunks; i++)
                if (chunks[i].id == TABLE_CHUNK_ROWS)
                        fill_rows(&packed.table, &h, file + chunks[i].offset, table->seed);
                else if (chunks[i].id == TABLE_CHUNK_CODEBOOKS)
                        memcpy(file + chunks[i].offset,
                               (const uint8_t *)packed.map + packed.table.contents.codebooks.offset,
                               chunks[i].length);
                else if (chunks[i].id == TABLE_CHUNK_ADAPTOR)
                        memcpy(file + chunks[i].offset,
                               (const uint8_t *)packed.map + packed.table.contents.adaptor.offset,
                               chunks[i].length);
        munmap(file, h.file_bytes);
        close(fd);
        codec_file_unmap(&packed);
}

void bench_table_make(const struct bench_table *table, const char *name, char *ret_path,
                      size_t path_bytes) {
        char source[PATH_MAX], packed[PATH_MAX];

        work_path("seed-rows.npy", source, sizeof(source));
        work_path("seed-rows.carvq", packed, sizeof(packed));
        work_path(name, ret_path, path_bytes);
        write_seed_rows(source, table->n_dims, table->seed);
        pack(source, packed, table->arguments);
        stretch(packed, table, ret_path);
        unlink(source);
        unlink(packed);
}

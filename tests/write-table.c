/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write-table OUT ROWS DIMS f32|f16|carvq|tiered|adapted: a sound table file for test scripts, without the
 * packer. f32: column c of row r is r + c / 1024, but row 0 starts with NaN, infinity and -0.0.
 * carvq: h = 8, three stages of 16 centroids, random. tiered: h = 16, one, two or four stages of
 * 256 centroids (the first half and the first eighth of the rows have more), and a mean row.
 * adapted: as carvq, and an adaptor of 16 latents and 512 hidden values.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/make-table.h"

static void fill_f32(float *values, uint64_t n_rows, uint32_t n_dims) {
        static const float odd[] = { NAN, INFINITY, -0.0f };

        for (uint64_t r = 0; r < n_rows; r++)
                for (uint32_t c = 0; c < n_dims; c++)
                        values[r * n_dims + c] =
                                r == 0 && c < ARRAY_SIZE(odd) ? odd[c] : (float)r + (float)c / 1024;
}

static struct table_header carvq_header(uint64_t n_rows) {
        struct table_header h = {
                .n_rows = n_rows,
                .codec = TABLE_CODEC_CARVQ,
                .codebook_bits = 4,
                .subvector_dims = 8,
                .group_cols = 32,
                .group_rows = n_rows,
        };

        table_set_one_tier(&h, 3);
        return h;
}

static struct table_header tiered_header(uint64_t n_rows) {
        return (struct table_header){
                .n_rows = n_rows,
                .codec = TABLE_CODEC_CARVQ,
                .n_stages = 4,
                .codebook_bits = 8,
                .subvector_dims = 16,
                .group_cols = 32,
                .group_rows = n_rows,
                .adaptor_type = TABLE_ADAPTOR_HALF,
                .n_tiers = 3,
                .tier_stages = { 1, 2, 4 },
                .tier_rows = { div_round_up(n_rows, 2), div_round_up(n_rows, 8) },
        };
}

static struct table_header adapted_header(uint64_t n_rows) {
        struct table_header h = carvq_header(n_rows);

        h.adaptor_type = TABLE_ADAPTOR_HALF;
        h.latent_dims = 16;
        h.latent_bits = 16;
        h.hidden_dims[0] = 512;
        return h;
}

int main(int argc, char **argv) {
        struct table_header h = { .codec = TABLE_CODEC_F32 };
        _cleanup_(freep) uint8_t *file = NULL;
        struct table_contents contents;
        struct fault fault;
        uint64_t n_bytes;
        FILE *f;

        if (argc != 5)
                return 2;
        h.n_rows = strtoull(argv[2], NULL, 10);
        if (!strcmp(argv[4], "carvq"))
                h = carvq_header(h.n_rows);
        else if (!strcmp(argv[4], "tiered"))
                h = tiered_header(h.n_rows);
        else if (!strcmp(argv[4], "adapted"))
                h = adapted_header(h.n_rows);
        else if (!strcmp(argv[4], "f16"))
                h.codec = TABLE_CODEC_F16;
        else if (strcmp(argv[4], "f32") != 0)
                return 2;
        h.n_dims = (uint32_t)strtoul(argv[3], NULL, 10);
        file = make_table(&h, 1, &n_bytes);
        if (h.codec == TABLE_CODEC_F32) {
                /* The checksum of the rows is now wrong, which only `carvq verify` would see. */
                if (table_check(file, MIN(n_bytes, TABLE_HEAD_BYTES_MAX), n_bytes, &contents,
                                &fault) < 0)
                        return 1;
                fill_f32((float *)(file + contents.rows.offset), h.n_rows, h.n_dims);
        }
        f = fopen(argv[1], "wbe");
        if (!f || fwrite(file, 1, n_bytes, f) != n_bytes || fclose(f)) {
                perror(argv[1]);
                return 1;
        }
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvq info: what a packed table is, from its first page, tier map and meta chunk. Main thread. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

static const char help[] =
        "Usage: carvq info FILE [--json]\n"
        "\n"
        "Prints shape, codec and parameters, bytes by chunk and bits per parameter (file bytes x\n"
        "8 / (rows x dimensions), all included) of a .carvq file. Reads its first page, tier\n"
        "map and meta chunk only.\n"
        "\n"
        "      --json              one object: n_rows, n_dims, codec, version, file_bytes,\n"
        "                          record_bytes, bits_per_param, chunk_bytes {header, NAME ...,\n"
        "                          padding}, parameters (codec carvq: n_stages, codebook_bits,\n"
        "                          window_bits, subvector_dims, group_rows, group_cols,\n"
        "                          row_scale, col_scale, adaptor (none, half, int8),\n"
        "                          latent_dims, latent_bits, hidden_dims, tiers [{n_rows, of\n"
        "                          (codes, int8), n_stages, code_bits, record_bytes} ...]),\n"
        "                          meta (as packed, or null)\n"
        "      --help\n"
        "\n"
        "Exit status: 0 done; 2 wrong usage; 3 failure.\n";

static json_t *chunk_bytes(const struct table_contents *c) {
        const struct table_chunk *chunks[] = { &c->codebooks, &c->adaptor, &c->tiers, &c->rows,
                                               &c->meta };
        uint64_t header = sizeof(c->header) + c->header.n_chunks * sizeof(struct table_chunk);
        uint64_t rest = c->header.file_bytes - header;
        json_t *bytes = json_pack("{s:I}", "header", (json_int_t)header);

        for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
                rest -= chunks[i]->length;
                if (chunks[i]->length)
                        json_object_set_new(bytes, table_chunk_name(chunks[i]->id),
                                            json_integer((json_int_t)chunks[i]->length));
        }
        json_object_set_new(bytes, "padding", json_integer((json_int_t)rest));
        return bytes;
}

/* Rows of exactly this tier. */
static json_t *tiers(const struct table_contents *c) {
        const struct table_header *h = &c->header;
        json_t *list = json_array();

        for (uint32_t t = 0; t < h->n_tiers; t++) {
                uint64_t n_rows = t ? h->tier_rows[t - 1] : h->n_rows;
                uint64_t n_higher = t + 1 < h->n_tiers ? h->tier_rows[t] : 0;

                json_array_append_new(
                        list, json_pack("{s:I, s:s, s:i, s:i, s:I}", "n_rows",
                                        (json_int_t)(n_rows - n_higher), "of",
                                        t < table_code_tiers(h) ? "codes" : "int8", "n_stages",
                                        (int)h->tier_stages[t], "code_bits", (int)h->tier_bits[t],
                                        "record_bytes", (json_int_t)c->layout.tier_bytes[t]));
        }
        return list;
}

static json_t *parameters(const struct table_contents *c) {
        const struct table_header *h = &c->header;

        if (h->codec != TABLE_CODEC_CARVQ)
                return json_null();
        return json_pack("{s:i, s:i, s:i, s:i, s:I, s:i, s:b, s:b, s:s, s:i, s:i, s:[i, i], s:o}",
                         "n_stages", (int)h->n_stages, "codebook_bits", (int)h->codebook_bits,
                         "window_bits", (int)h->window_bits, "subvector_dims",
                         (int)h->subvector_dims, "group_rows", (json_int_t)h->group_rows,
                         "group_cols", (int)h->group_cols, "row_scale", (int)h->row_scale,
                         "col_scale", (int)h->col_scale, "adaptor",
                         table_adaptor_name(h->adaptor_type), "latent_dims", (int)h->latent_dims,
                         "latent_bits", (int)h->latent_bits, "hidden_dims", (int)h->hidden_dims[0],
                         (int)h->hidden_dims[1], "tiers", tiers(c));
}

static json_t *describe(const struct codec_file *file) {
        const struct table_header *h = &file->table.contents.header;
        json_t *meta = cli_table_meta(file);
        char version[16];

        snprintf(version, sizeof(version), "%u.%u", h->version_major, h->version_minor);
        return json_pack("{s:I, s:i, s:s, s:s, s:I, s:I, s:f, s:o, s:o, s:o}", "n_rows",
                         (json_int_t)h->n_rows, "n_dims", (int)h->n_dims, "codec",
                         table_codec_name(h->codec), "version", version, "file_bytes",
                         (json_int_t)h->file_bytes, "record_bytes", (json_int_t)h->record_bytes,
                         "bits_per_param", table_bits_per_param(h), "chunk_bytes",
                         chunk_bytes(&file->table.contents), "parameters",
                         parameters(&file->table.contents), "meta", meta ? meta : json_null());
}

/* A line for each value, nested names joined by a dot. */
static void print_lines(const char *prefix, json_t *object) {
        const char *key;
        json_t *value;

        json_object_foreach(object, key, value) {
                char name[128];

                snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
                if (json_is_object(value)) {
                        print_lines(name, value);
                } else if (!json_is_null(value)) {
                        /* As JSON, so that a file's strings cannot steer a terminal. */
                        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII |
                                                               JSON_REAL_PRECISION(9));

                        printf("%-28s %s\n", name, text ? text : "?");
                        free(text);
                }
        }
}

int cmd_info(int argc, char **argv) {
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct codec_file file = { 0 };
        struct fault fault = { 0 };
        bool json = false;
        json_t *info;
        int option, r;

        opterr = 0;
        while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
                if (option == 'h')
                        return cli_print_help(help);
                if (option != 'j')
                        return cli_bad_option("info", option, argv);
                json = true;
        }
        if (optind + 1 != argc)
                return cli_usage("info", "expected one FILE");
        r = cli_map_table(argv[optind], &file, &fault);
        if (r < 0)
                return cli_fail(argv[optind], r, &fault);
        info = describe(&file);
        codec_file_unmap(&file);
        if (!info)
                return cli_fail(argv[optind], -ENOMEM, NULL);
        if (json) {
                json_dumpf(info, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
                putchar('\n');
        } else {
                print_lines("", info);
        }
        json_decref(info);
        return cli_finish(CLI_OK);
}

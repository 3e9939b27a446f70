/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-cache: 1-row lookups of a table through carvqd, with its cache of decoded rows and without,
 * beside the same rows of an f16 table in-process. Ids are those of a text, of a Zipf distribution,
 * and of the text with a scan mixed in. The three take turns, a block of lookups at a time, so that
 * the machine's moods hit all of them; compared are medians of blocks' means, misses included.
 */
#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "lib/client.h"
#include "proto/spin.h"

#define BLOCK      256u
#define WORDS_MAX  (UINT32_C(1) << 22)
#define WORD_BYTES 32u

static const char usage[] =
        "Usage: bench-cache [OPTION]... TABLE F16FILE\n"
        "Times 1-row lookups of TABLE through carvqd, with its cache and without, against "
        "F16FILE,\n"
        "an f16 table of the same shape, decoded in-process.\n"
        "\n"
        "  --socket PATH   carvqd's (default: as carvq_connect())\n"
        "  --tokens FILE   ids, as decimal numbers\n"
        "  --text FILE     or words, each of which stands for an id; the default is the text of\n"
        "                  the licences in /usr/share/common-licenses\n"
        "  --lookups N     of each kind (default: 200000)\n"
        "  --json FILE     writes the figures, and how they compare with their targets\n";

static const char *const licences[] = {
        "/usr/share/common-licenses/GPL-3",      "/usr/share/common-licenses/LGPL-2.1",
        "/usr/share/common-licenses/GFDL-1.3",   "/usr/share/common-licenses/MPL-2.0",
        "/usr/share/common-licenses/Apache-2.0", "/usr/share/common-licenses/Artistic",
};

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state;
}

/* ---- Ids ---- */

struct ids {
        uint64_t *ids;
        size_t n, n_distinct;
};

struct word {
        char text[WORD_BYTES];
        uint32_t n, at; /* how often; the first one's place in the text */
};

static int by_text(const void *a, const void *b) {
        const struct word *x = a, *y = b;
        int r = strcmp(x->text, y->text);

        return r ? r : (x->at > y->at) - (x->at < y->at);
}

static int by_count(const void *a, const void *b) {
        const struct word *x = a, *y = b;

        return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : strcmp(x->text, y->text);
}

static size_t read_words(const char *path, struct word *words, size_t n) {
        FILE *f = fopen(path, "re");
        size_t length = 0;
        int c;

        if (!f)
                return n;
        do {
                c = fgetc(f);
                if (c != EOF && isalnum(c) && length + 1 < WORD_BYTES) {
                        words[n].text[length++] = (char)tolower(c);
                } else if (length) {
                        words[n].at = (uint32_t)n;
                        n++;
                        length = 0;
                }
        } while (c != EOF && n < WORDS_MAX);
        fclose(f);
        return n;
}

/* The r-th most frequent word is the r-th id of a fixed shuffle: neighbours in rank should not be
 * neighbours in the file. */
static uint64_t id_of_rank(uint64_t rank, uint64_t n_rows) {
        return rank * UINT64_C(2654435761) % n_rows;
}

static int make_text(const char *path, uint64_t n_rows, struct ids *ret) {
        _cleanup_(freep) struct word *words = calloc(WORDS_MAX, sizeof(*words));
        _cleanup_(freep) struct word *kinds = NULL;
        size_t n = 0, n_kinds = 0;

        if (!words)
                return -ENOMEM;
        if (path)
                n = read_words(path, words, 0);
        for (size_t i = 0; !path && i < ARRAY_SIZE(licences); i++)
                n = read_words(licences[i], words, n);
        ret->ids = calloc(n + 1, sizeof(*ret->ids));
        kinds = calloc(n + 1, sizeof(*kinds));
        if (!n || !ret->ids || !kinds)
                return -ENOENT;
        qsort(words, n, sizeof(*words), by_text);
        for (size_t i = 0; i < n; i++) {
                if (!i || strcmp(words[i].text, words[i - 1].text))
                        kinds[n_kinds++] = (struct word){ .at = (uint32_t)i };
                memcpy(kinds[n_kinds - 1].text, words[i].text, WORD_BYTES);
                kinds[n_kinds - 1].n++;
        }
        qsort(kinds, n_kinds, sizeof(*kinds), by_count);
        for (size_t k = 0; k < n_kinds; k++)
                for (size_t i = 0; i < kinds[k].n; i++)
                        ret->ids[words[kinds[k].at + i].at] = id_of_rank(k, n_rows);
        ret->n = n;
        ret->n_distinct = n_kinds;
        return 0;
}

static int read_tokens(const char *path, uint64_t n_rows, struct ids *ret) {
        FILE *f = fopen(path, "re");
        uint64_t id;

        if (!f)
                return -errno;
        ret->ids = calloc(WORDS_MAX, sizeof(*ret->ids));
        while (ret->ids && ret->n < WORDS_MAX && fscanf(f, "%" SCNu64, &id) == 1)
                ret->ids[ret->n++] = id % n_rows;
        fclose(f);
        return ret->n ? 0 : -ENOENT;
}

/* s = 1: the inverse of the distribution of a continuous rank, which is close enough. */
static int make_zipf(size_t n, uint64_t n_rows, struct ids *ret) {
        ret->ids = calloc(n, sizeof(*ret->ids));
        if (!ret->ids)
                return -ENOMEM;
        for (ret->n = 0; ret->n < n; ret->n++) {
                double u = (double)(next_random() >> 11) * 0x1p-53;
                uint64_t rank = (uint64_t)pow((double)n_rows + 1, u) - 1;

                ret->ids[ret->n] = id_of_rank(MIN(rank, n_rows - 1), n_rows);
        }
        return 0;
}

/* Every fourth id is the next one of a walk through the whole table. */
static int mix_scan(const struct ids *text, size_t n, uint64_t n_rows, struct ids *ret) {
        ret->ids = calloc(n, sizeof(*ret->ids));
        if (!ret->ids)
                return -ENOMEM;
        for (ret->n = 0; ret->n < n; ret->n++)
                ret->ids[ret->n] =
                        ret->n % 4 == 3 ? ret->n / 4 % n_rows : text->ids[ret->n * 3 / 4 % text->n];
        return 0;
}

/* ---- Timing ---- */

enum { CACHED, PLAIN, F16, WAYS_N };

static const char *const way_names[WAYS_N] = { "with cache", "without", "f16 in-process" };

struct figures {
        double hit_ratio;
        double mean_us[WAYS_N], p50_us[WAYS_N], p99_us[WAYS_N];
};

static int by_value(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static uint64_t n_hits(const carvq_table *table) {
        return table->client->ring.n_hits[table->handle % RING_TABLES_N];
}

/* A block's mean; each lookup's time to `ret_us`. */
static int time_block(carvq_table *table, const struct ids *ids, size_t first, float *row,
                      size_t row_bytes, double *ret_us, double *ret_mean_us) {
        uint64_t start = clock_ns(), before = start;

        for (size_t i = 0; i < BLOCK; i++) {
                uint64_t now;
                int r = carvq_lookup(table, &ids->ids[(first + i) % ids->n], 1, NULL, row,
                                     row_bytes);

                if (r < 0) {
                        fprintf(stderr, "bench-cache: %s\n", carvq_table_error(table));
                        return r;
                }
                now = clock_ns();
                ret_us[i] = (double)(now - before) / 1e3;
                before = now;
        }
        *ret_mean_us = (double)(before - start) / 1e3 / BLOCK;
        return 0;
}

static int time_ids(carvq_table *const tables[WAYS_N], const struct ids *ids, size_t n_lookups,
                    struct figures *ret) {
        const size_t n_blocks = n_lookups / BLOCK + 1;
        const size_t row_bytes = tables[CACHED]->shape.n_dims * sizeof(float);
        _cleanup_(freep) float *row = malloc(row_bytes);
        _cleanup_(freep) double *us = calloc(WAYS_N * n_blocks * BLOCK, sizeof(*us));
        _cleanup_(freep) double *means = calloc(WAYS_N * n_blocks, sizeof(*means));
        uint64_t hits_before = n_hits(tables[CACHED]);
        int r = 0;

        if (!row || !us || !means)
                return -ENOMEM;
        for (size_t b = 0; b < n_blocks && r >= 0; b++)
                for (size_t w = 0; w < WAYS_N && r >= 0; w++)
                        r = time_block(tables[w], ids, b * BLOCK, row, row_bytes,
                                       us + (w * n_blocks + b) * BLOCK, means + w * n_blocks + b);
        ret->hit_ratio =
                (double)(n_hits(tables[CACHED]) - hits_before) / (double)(n_blocks * BLOCK);
        for (size_t w = 0; w < WAYS_N; w++) {
                double *way_us = us + w * n_blocks * BLOCK;

                qsort(means + w * n_blocks, n_blocks, sizeof(*means), by_value);
                qsort(way_us, n_blocks * BLOCK, sizeof(*us), by_value);
                ret->mean_us[w] = means[w * n_blocks + n_blocks / 2];
                ret->p50_us[w] = way_us[n_blocks * BLOCK / 2];
                ret->p99_us[w] = way_us[n_blocks * BLOCK * 99 / 100];
        }
        return r;
}

/* ---- Words ---- */

static void print_figures(const char *what, const struct figures *f) {
        printf("%s: %.1f %% hits\n", what, f->hit_ratio * 100);
        for (size_t w = 0; w < WAYS_N; w++)
                printf("  %-16s mean %7.3f us   p50 %7.3f us   p99 %8.3f us\n", way_names[w],
                       f->mean_us[w], f->p50_us[w], f->p99_us[w]);
        printf("  without / with   %.2f      with / f16   %.2f\n",
               f->mean_us[PLAIN] / f->mean_us[CACHED], f->mean_us[CACHED] / f->mean_us[F16]);
}

static int write_json(const char *path, const char *const names[3], const struct figures f[3]) {
        double faster = f[0].mean_us[PLAIN] / f[0].mean_us[CACHED];
        double slower = f[0].mean_us[CACHED] / f[0].mean_us[F16];
        FILE *out = fopen(path, "we");

        if (!out)
                return -errno;
        fprintf(out, "{\n  \"targets\": [\n");
        fprintf(out,
                "    {\"measure\": \"adaptor table, ids of text, 1 row, without the cache / with "
                "it\", "
                "\"target\": \"at least 3x faster\", \"value\": %.3f, \"unit\": \"x\", "
                "\"limit\": 3, \"pass\": %s},\n",
                faster, faster >= 3 ? "true" : "false");
        fprintf(out,
                "    {\"measure\": \"adaptor table, ids of text, 1 row, with the cache / f16 "
                "in-process\", \"target\": \"at most 2x\", \"value\": %.3f, \"unit\": \"x\", "
                "\"limit\": 2, \"pass\": %s}\n  ],\n  \"workloads\": [\n",
                slower, slower <= 2 ? "true" : "false");
        for (size_t i = 0; i < 3; i++) {
                fprintf(out, "    {\"ids\": \"%s\", \"hit_ratio\": %.4f", names[i], f[i].hit_ratio);
                for (size_t w = 0; w < WAYS_N; w++)
                        fprintf(out,
                                ", \"%s\": {\"mean_us\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f}",
                                way_names[w], f[i].mean_us[w], f[i].p50_us[w], f[i].p99_us[w]);
                fprintf(out, "}%s\n", i < 2 ? "," : "");
        }
        fprintf(out, "  ]\n}\n");
        return fclose(out) ? -EIO : 0;
}

struct options {
        const char *socket, *tokens, *text, *json;
        size_t n_lookups;
};

static int run(carvq_table *const tables[WAYS_N], const struct options *o) {
        static const char *const names[3] = { "text", "zipf 1.0", "text and scan" };
        const uint64_t n_rows = tables[CACHED]->shape.n_rows;
        struct figures figures[3] = { 0 };
        struct ids ids[3] = { 0 };
        struct utsname u;
        int r;

        r = o->tokens ? read_tokens(o->tokens, n_rows, &ids[0])
                      : make_text(o->text, n_rows, &ids[0]);
        if (r < 0) {
                fprintf(stderr, "bench-cache: no ids to look up: give --tokens or --text\n");
                return r;
        }
        r = make_zipf(o->n_lookups, n_rows, &ids[1]);
        if (r >= 0)
                r = mix_scan(&ids[0], o->n_lookups, n_rows, &ids[2]);
        uname(&u);
        printf("table %" PRIu64 " x %" PRIu32 "; in-process kernels %s; %s, Linux %s, %ld cores; "
               "warm\n%zu ids of text (%zu different), cache of %" PRIu64 " rows%s\n",
               n_rows, tables[CACHED]->shape.n_dims, tables[F16]->context.kernels->name, u.machine,
               u.release, sysconf(_SC_NPROCESSORS_ONLN), ids[0].n, ids[0].n_distinct,
               tables[CACHED]->cache.memory ? cache_slots(&tables[CACHED]->cache.layout) : 0,
               tables[CACHED]->cache.memory ? "" : ": carvqd keeps none for this table");
        for (size_t i = 0; i < 3 && r >= 0; i++) {
                r = time_ids(tables, &ids[i], o->n_lookups, &figures[i]);
                if (r >= 0)
                        print_figures(names[i], &figures[i]);
        }
        for (size_t i = 0; i < 3; i++)
                free(ids[i].ids);
        return r >= 0 && o->json ? write_json(o->json, names, figures) : r;
}

static int open_all(const struct options *o, char **arguments, carvq_client **ret_client,
                    carvq_table *tables[WAYS_N]) {
        const struct carvq_connect_options co = { .size = sizeof(co),
                                                  .socket_path = o->socket,
                                                  .name = "bench-cache" };
        const struct carvq_table_options to = { .size = sizeof(to), .no_cache = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        r = carvq_connect(&co, ret_client, message);
        if (r >= 0)
                r = carvq_table_open(*ret_client, arguments[0], &tables[CACHED]);
        if (r >= 0)
                r = carvq_table_open_with(*ret_client, arguments[0], &to, &tables[PLAIN]);
        if (r < 0 && !message[0])
                snprintf(message, sizeof(message), "%s", carvq_client_error(*ret_client));
        if (r >= 0)
                r = carvq_file_open(arguments[1], NULL, &tables[F16], message);
        if (r >= 0 && (tables[F16]->shape.n_rows != tables[CACHED]->shape.n_rows ||
                       tables[F16]->shape.n_dims != tables[CACHED]->shape.n_dims)) {
                snprintf(message, sizeof(message), "%s has another shape", arguments[1]);
                r = -EINVAL;
        }
        if (r < 0)
                fprintf(stderr, "bench-cache: %s\n", message);
        return r;
}

int main(int argc, char **argv) {
        static const struct option longs[] = {
                { "socket", required_argument, NULL, 's' },
                { "tokens", required_argument, NULL, 't' },
                { "text", required_argument, NULL, 'T' },
                { "lookups", required_argument, NULL, 'n' },
                { "json", required_argument, NULL, 'j' },
                { "help", no_argument, NULL, 'h' },
                { 0 },
        };
        struct options o = { .n_lookups = 200000 };
        carvq_table *tables[WAYS_N] = { NULL };
        carvq_client *client = NULL;
        int c, r;

        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (c == 's')
                        o.socket = optarg;
                else if (c == 't')
                        o.tokens = optarg;
                else if (c == 'T')
                        o.text = optarg;
                else if (c == 'n')
                        o.n_lookups = strtoull(optarg, NULL, 10);
                else if (c == 'j')
                        o.json = optarg;
                else {
                        fputs(usage, c == 'h' ? stdout : stderr);
                        return c == 'h' ? 0 : 2;
                }
        }
        if (argc - optind != 2 || !o.n_lookups) {
                fputs(usage, stderr);
                return 2;
        }
        r = open_all(&o, argv + optind, &client, tables);
        if (r >= 0)
                r = run(tables, &o);
        carvq_table_close(tables[F16]);
        carvq_client_free(client);
        return r < 0;
}

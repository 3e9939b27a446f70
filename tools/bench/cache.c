/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-cache: 1-row lookups of a table through carvqd, with its cache of decoded rows and without,
 * beside the same rows of an f16 table in-process. Ids are those of a text, of a Zipf distribution,
 * and of the text with a scan mixed in. The three take turns, a block of lookups at a time, so that
 * the machine's moods hit all of them; compared are medians of blocks' means, misses included.
 */
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench-table.h"
#include "bench.h"
#include "ids.h"
#include "lib/client.h"
#include "options.h"
#include "outcome.h"
#include "private-daemon.h"

#define BLOCK      256u
#define WORDS_MAX  (UINT32_C(1) << 22)
#define WORD_BYTES 32u
#define TABLE_NAME "table"

static const char *const licences[] = {
        "/usr/share/common-licenses/GPL-3",      "/usr/share/common-licenses/LGPL-2.1",
        "/usr/share/common-licenses/GFDL-1.3",   "/usr/share/common-licenses/MPL-2.0",
        "/usr/share/common-licenses/Apache-2.0", "/usr/share/common-licenses/Artistic",
};

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

static json_t *figures_json(const char *ids, const struct figures *f) {
        json_t *o = json_pack("{s:s, s:f}", "ids", ids, "hit_ratio", f->hit_ratio);

        for (size_t w = 0; w < WAYS_N; w++)
                json_object_set_new(o, way_names[w],
                                    json_pack("{s:f, s:f, s:f}", "mean_us", f->mean_us[w], "p50_us",
                                              f->p50_us[w], "p99_us", f->p99_us[w]));
        return o;
}

/* Of ids of text. */
static void print_targets(json_t *outcome, const struct figures *f) {
        outcome_target(outcome,
                       &(struct outcome_target){
                               .measure = "adaptor table, ids of text, 1 row: the cache's gain",
                               .target = "at least 3 x faster than without",
                               .value = f->mean_us[PLAIN] / f->mean_us[CACHED],
                               .unit = "x",
                               .limit = 3,
                               .at_least = true,
                               .sides = { { "with cache", f->mean_us[CACHED], "us" },
                                          { "without", f->mean_us[PLAIN], "us" } },
                       });
        outcome_target(outcome,
                       &(struct outcome_target){
                               .measure = "adaptor table, ids of text, 1 row, with the cache",
                               .target = "at most 2 x an f16 row in-process",
                               .value = f->mean_us[CACHED] / f->mean_us[F16],
                               .unit = "x",
                               .limit = 2,
                               .sides = { { "with cache", f->mean_us[CACHED], "us" },
                                          { "f16", f->mean_us[F16], "us" } },
                       });
}

/* ---- The run ---- */

struct options {
        const char *tokens, *text, *json, *work;
        uint64_t n_lookups, n_rows, n_dims, seed;
};

static void make_ids(const struct options *o, struct ids ids[3]) {
        int r;

        r = o->tokens ? read_tokens(o->tokens, o->n_rows, &ids[0])
                      : make_text(o->text, o->n_rows, &ids[0]);
        ids[1] = (struct ids){
                .ids = ids_draw(IDS_ZIPF, o->n_rows, o->n_lookups, o->seed),
                .n = o->n_lookups,
        };
        if (r >= 0)
                r = mix_scan(&ids[0], o->n_lookups, o->n_rows, &ids[2]);
        if (r < 0)
                die("no ids to look up: give --tokens or --text");
}

/* The same rows as halves. */
static void make_f16(const char *table_path, char *ret_path, size_t path_bytes) {
        char carvq[PATH_MAX], npy[PATH_MAX];

        program_beside("../carvq/carvq", carvq, sizeof(carvq));
        work_path("rows.npy", npy, sizeof(npy));
        work_path("f16.carvq", ret_path, path_bytes);
        run_program((char *const[]){ carvq, (char *)"unpack", (char *)(uintptr_t)table_path,
                                     (char *)"-o", npy, (char *)"--quiet", NULL });
        run_program((char *const[]){ carvq, (char *)"pack", npy, (char *)"-o", ret_path,
                                     (char *)"--codec", (char *)"f16", (char *)"--quiet", NULL });
        unlink(npy);
}

static void open_all(const struct private_daemon *daemon, const char *f16_path,
                     carvq_client **ret_client, carvq_table *ret_tables[WAYS_N]) {
        const struct carvq_connect_options co = { .size = sizeof(co),
                                                  .socket_path = daemon->socket_path,
                                                  .name = "bench-cache",
                                                  .no_reconnect = 1 };
        const struct carvq_table_options to = { .size = sizeof(to), .no_cache = 1 };
        char message[CARVQ_MESSAGE_BYTES];

        if (carvq_connect(&co, ret_client, message) < 0)
                die("%s", message);
        if (carvq_table_open(*ret_client, TABLE_NAME, &ret_tables[CACHED]) < 0 ||
            carvq_table_open_with(*ret_client, TABLE_NAME, &to, &ret_tables[PLAIN]) < 0)
                die("%s", carvq_client_error(*ret_client));
        if (carvq_file_open(f16_path, NULL, &ret_tables[F16], message) < 0)
                die("%s", message);
}

static void run(carvq_table *const tables[WAYS_N], const struct options *o) {
        static const char *const names[3] = { "text", "zipf 1.0", "text and scan" };
        const struct carvq_table *cached = tables[CACHED];
        const char *kernels = tables[F16]->context.kernels->name;
        json_t *outcome = outcome_new("cache", kernels, "warm"), *workloads = json_array();
        struct figures figures[3] = { 0 };
        struct ids ids[3] = { 0 };
        char machine[256];

        make_ids(o, ids);
        machine_name(machine, sizeof(machine));
        printf("%s; kernels %s; page cache warm\ntable %" PRIu64 " x %" PRIu64
               " with an adaptor; %zu ids of text, %zu of them different; cache of %" PRIu64
               " rows\n",
               machine, kernels, o->n_rows, o->n_dims, ids[0].n, ids[0].n_distinct,
               cached->cache.memory ? cache_slots(&cached->cache.layout) : 0);
        for (size_t i = 0; i < 3; i++) {
                if (time_ids(tables, &ids[i], o->n_lookups, &figures[i]) < 0)
                        die("%s", carvq_client_error(cached->client));
                print_figures(names[i], &figures[i]);
                json_array_append_new(workloads, figures_json(names[i], &figures[i]));
                free(ids[i].ids);
        }
        json_object_set_new(outcome, "workloads", workloads);
        print_targets(outcome, &figures[0]);
        outcome_write(outcome, o->json);
        json_decref(outcome);
}

int main(int argc, char **argv) {
        struct options o = { .n_lookups = 200000, .n_rows = 30522, .n_dims = 384, .seed = 1 };
        carvq_table *tables[WAYS_N] = { NULL };
        char table_path[PATH_MAX], f16_path[PATH_MAX];
        struct private_daemon daemon;
        carvq_client *client = NULL;

        bench_options(
                argc, argv,
                "Time 1-row lookups of a table with an adaptor through a carvqd of its own, "
                "with its cache\nand without, beside an f16 table decoded in-process.",
                (const struct bench_option[]){
                        { "lookups", "N", "of each kind", &o.n_lookups, NULL, 1, 100000000 },
                        { "rows", "N", "of the table", &o.n_rows, NULL, 1000, 100000000 },
                        { "dims", "N", "of its rows", &o.n_dims, NULL, 16, 65536 },
                        { "tokens", "FILE", "ids, as decimal numbers", NULL, &o.tokens, 0, 0 },
                        { "text", "FILE",
                          "or words, each of which stands for an id; else of some licences", NULL,
                          &o.text, 0, 0 },
                        { "seed", "N", "of all random numbers", &o.seed, NULL, 1, UINT32_MAX },
                        { "work", "DIR", "for the tables", NULL, &o.work, 0, 0 },
                        { "json", "FILE", "the figures, for programs", NULL, &o.json, 0, 0 },
                        { 0 },
                });
        work_folder(o.work);
        bench_table_make(&(struct bench_table){ .n_rows = o.n_rows,
                                                .n_dims = (uint32_t)o.n_dims,
                                                .seed = o.seed,
                                                .arguments = bench_table_adaptor },
                         "table.carvq", table_path, sizeof(table_path));
        make_f16(table_path, f16_path, sizeof(f16_path));
        private_daemon_start(&daemon, TABLE_NAME, table_path);
        open_all(&daemon, f16_path, &client, tables);
        run(tables, &o);
        carvq_table_close(tables[F16]);
        carvq_client_free(client);
        private_daemon_stop(&daemon);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq-compare: looks rows up through the daemon, decodes the same rows of the same file in this
 * process, and compares every byte. Batches of 1 to 65,536 ids, all output types, slices and bags,
 * drawn from a seed. Exit 0: all rows right; 1: a wrong row, which is named; 3: something
 * failed.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/carvq.h"
#include "proto/base.h"
#include "proto/spin.h"

#define BATCH_BYTES_MAX (64u << 20)

struct compare {
        carvq_client *client;
        carvq_table *ring, *direct;
        struct carvq_table_info info;
        uint64_t seed, random;
        uint64_t *ids, *bags;
        uint8_t *ours, *theirs;
        uint64_t n_rows, n_lookups, ring_ns, direct_ns;
};

static const char usage[] =
        "Usage: carvq-compare [OPTION]... TABLE FILE\n"
        "Looks rows of TABLE up through carvqd and compares them with FILE decoded in this "
        "process.\n\n"
        "  --socket PATH  carvqd's data socket (default: $CARVQ_SOCKET, /run/carvq/carvqd.sock)\n"
        "  --rows N       stop after about N rows (default 100000)\n"
        "  --seed S       of ids, batch sizes and options (default 1)\n"
        "  --max-batch N  largest batch (default 65536)\n"
        "  --hold         then stay connected until standard input ends\n"
        "  --help\n\n"
        "Exit status: 0 all rows right, 1 a wrong row, 2 wrong usage, 3 a failure.\n";

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
static uint64_t next_random(struct compare *c) {
        c->random ^= c->random >> 12;
        c->random ^= c->random << 25;
        c->random ^= c->random >> 27;
        return c->random * UINT64_C(2685821657736338717);
}

/* Small batches often, large ones now and then: 1 to 2^k ids with k drawn first. */
static size_t draw_batch(struct compare *c, size_t max) {
        size_t bound = (size_t)1 << (next_random(c) % 17);

        return MIN(MIN(1 + next_random(c) % bound, max),
                   MAX(BATCH_BYTES_MAX / (c->info.n_dims * sizeof(float)), 1u));
}

static void draw_options(struct compare *c, size_t n_ids, struct carvq_lookup_options *o) {
        uint32_t dice = (uint32_t)next_random(c);

        *o = (struct carvq_lookup_options){ .size = sizeof(*o), .type = dice % 3 };
        if (dice & 0x100) {
                o->col_first = (uint32_t)(next_random(c) % c->info.n_dims);
                o->n_cols = 1 + (uint32_t)(next_random(c) % (c->info.n_dims - o->col_first));
        }
        if (dice & 0x200)
                o->scale = 0.25f;
        if ((dice & 0xc00) == 0xc00) {
                o->pooling = CARVQ_POOLING_SUM + (dice >> 12) % 2;
                o->n_bags = 1 + next_random(c) % n_ids;
                o->bag_offsets = c->bags;
                for (size_t b = 1; b < o->n_bags; b++)
                        c->bags[b] =
                                c->bags[b - 1] + (n_ids - c->bags[b - 1]) / (o->n_bags - b + 1);
        }
}

static int look_up(carvq_table *table, struct compare *c, size_t n_ids,
                   const struct carvq_lookup_options *o, void *rows, size_t bytes, uint64_t *ns) {
        uint64_t start = clock_ns();
        int r = carvq_lookup(table, c->ids, n_ids, o, rows, bytes);

        *ns += clock_ns() - start;
        if (r < 0)
                fprintf(stderr, "carvq-compare: lookup of %zu ids: %s: %s\n", n_ids,
                        carvq_strerror(r), carvq_table_error(table));
        return r;
}

static int compare_batch(struct compare *c, size_t max_batch) {
        size_t n_ids = draw_batch(c, max_batch), n_rows, row_bytes;
        struct carvq_lookup_options o;

        for (size_t i = 0; i < n_ids; i++)
                c->ids[i] = next_random(c) % c->info.n_rows;
        draw_options(c, n_ids, &o);
        n_rows = o.pooling ? o.n_bags : n_ids;
        row_bytes = (size_t)(o.n_cols ? o.n_cols : c->info.n_dims) * (o.type == CARVQ_F32 ? 4 : 2);

        if (look_up(c->ring, c, n_ids, &o, c->theirs, n_rows * row_bytes, &c->ring_ns) < 0 ||
            look_up(c->direct, c, n_ids, &o, c->ours, n_rows * row_bytes, &c->direct_ns) < 0)
                return 3;
        c->n_rows += n_rows;
        c->n_lookups++;
        for (size_t i = 0; i < n_rows; i++)
                if (memcmp(c->theirs + i * row_bytes, c->ours + i * row_bytes, row_bytes) != 0) {
                        fprintf(stderr,
                                "carvq-compare: wrong row: seed %" PRIu64 ", lookup %" PRIu64
                                ", output row %zu of %zu, "
                                "type %u, pooling %u, columns %u + %u\n",
                                c->seed, c->n_lookups, i, n_rows, o.type, o.pooling, o.col_first,
                                o.n_cols);
                        return 1;
                }
        return 0;
}

static int open_both(struct compare *c, const char *socket, const char *name, const char *path) {
        struct carvq_connect_options o = { .size = sizeof(o),
                                           .socket_path = socket,
                                           .name = "carvq-compare" };
        char message[CARVQ_MESSAGE_BYTES] = "";
        int r;

        r = carvq_connect(&o, &c->client, message);
        if (r >= 0)
                r = carvq_file_open(path, NULL, &c->direct, message);
        if (r < 0) {
                fprintf(stderr, "carvq-compare: %s\n", message);
                return 3;
        }
        r = carvq_table_open(c->client, name, &c->ring);
        if (r < 0) {
                fprintf(stderr, "carvq-compare: %s: %s\n", name, carvq_client_error(c->client));
                return 3;
        }
        c->info.size = sizeof(c->info);
        carvq_table_info(c->direct, &c->info);
        return 0;
}

static int run(struct compare *c, uint64_t n_rows, size_t max_batch) {
        size_t bytes = MAX(BATCH_BYTES_MAX, c->info.n_dims * sizeof(float));
        int r = 0;

        c->ids = calloc(65536, sizeof(uint64_t));
        c->bags = calloc(65536, sizeof(uint64_t));
        c->ours = malloc(bytes);
        c->theirs = malloc(bytes);
        if (!c->ids || !c->bags || !c->ours || !c->theirs)
                return 3;
        while (r == 0 && c->n_rows < n_rows)
                r = compare_batch(c, max_batch);
        return r;
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "socket", required_argument, NULL, 's' },
                { "rows", required_argument, NULL, 'r' },
                { "seed", required_argument, NULL, 'S' },
                { "max-batch", required_argument, NULL, 'b' },
                { "hold", no_argument, NULL, 'H' },
                { "help", no_argument, NULL, 'h' },
                { 0 },
        };
        uint64_t n_rows = 100000, max_batch = 65536;
        struct compare c = { .seed = 1 };
        const char *socket = NULL;
        bool hold = false;
        int opt, r;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (opt) {
                case 's':
                        socket = optarg;
                        break;
                case 'r':
                        n_rows = strtoull(optarg, NULL, 0);
                        break;
                case 'S':
                        c.seed = strtoull(optarg, NULL, 0);
                        break;
                case 'b':
                        max_batch = strtoull(optarg, NULL, 0);
                        break;
                case 'H':
                        hold = true;
                        break;
                case 'h':
                        fputs(usage, stdout);
                        return 0;
                default:
                        fputs(usage, stderr);
                        return 2;
                }
        if (argc - optind != 2 || !max_batch || max_batch > 65536) {
                fputs(usage, stderr);
                return 2;
        }
        c.random = c.seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        r = open_both(&c, socket, argv[optind], argv[optind + 1]);
        if (r == 0)
                r = run(&c, n_rows, max_batch);
        if (r == 0)
                printf("%" PRIu64 " rows in %" PRIu64
                       " lookups, all right; us a row: %.2f ring, %.2f direct\n",
                       c.n_rows, c.n_lookups, c.ring_ns / 1e3 / c.n_rows,
                       c.direct_ns / 1e3 / c.n_rows);
        fflush(stdout);
        while (r == 0 && hold && getchar() != EOF)
                ;
        carvq_table_close(c.direct);
        carvq_client_free(c.client);
        free(c.ids);
        free(c.bags);
        free(c.ours);
        free(c.theirs);
        return r;
}

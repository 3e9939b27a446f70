/* SPDX-License-Identifier: Apache-2.0 */
/* See report.h. */
#include "report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tools/carvqctl/format.h"

#define BAR         "########################################"
#define BAR_COLUMNS ((int)sizeof(BAR) - 1)

static const struct {
        const char *key, *title;
} phases[PHASES_N] = {
        [PHASE_QUEUED] = { "queued", "submitted -> taken by the worker" },
        [PHASE_GATHERED] = { "gathered", "taken -> decoded, waiting" },
        [PHASE_DECODED] = { "decoded", "taken -> decoded, decoding" },
        [PHASE_COMPLETED] = { "completed", "decoded -> completed" },
        [PHASE_TOTAL] = { "total", "submitted -> completed" },
        [PHASE_DOORBELL] = { "doorbell_to_drain", "doorbell -> taken, worker slept" },
        [PHASE_CLIENT] = { "completed_to_client", "completed -> client runs, it slept" },
        [PHASE_FAULT] = { "major_fault", "major fault on a table" },
        [PHASE_BLOCK] = { "block_read", "read from disk for a table" },
};

/* ---- Histograms ---- */

static uint64_t percentile(const struct histogram *h, unsigned percent) {
        uint64_t n_below = h->n - h->n * (100 - percent) / 100, n = 0;

        for (uint32_t i = 0; i < BUCKETS_N; i++) {
                n += h->buckets[i];
                if (n && n >= n_below)
                        return bucket_end(i);
        }
        return 0;
}

/* Eight buckets make a line: a power of two. The first line is 0 to 7 ns. */
static uint64_t line_count(const struct histogram *h, uint32_t line) {
        uint64_t n = 0;

        for (uint32_t i = 8 * line; i < 8 * line + 8; i++)
                n += h->buckets[i];
        return n;
}

static void print_histogram(const struct histogram *h, const char *title) {
        uint32_t first = BUCKETS_N / 8, last = 0;
        uint64_t n_most = 1;

        if (!h->n)
                return;
        for (uint32_t line = 0; line < BUCKETS_N / 8; line++) {
                uint64_t n = line_count(h, line);

                first = n ? MIN(first, line) : first;
                last = n ? line : last;
                n_most = MAX(n_most, n);
        }
        printf("\n%s\n", title);
        for (uint32_t line = first; line <= last; line++) {
                uint64_t n = line_count(h, line);
                /* Something is shown of all that is there. */
                int width = (int)div_round_up(n * (uint64_t)BAR_COLUMNS, n_most);

                printf("  %8s .. %8s |%-*.*s| %s\n", format_ns(line ? UINT64_C(4) << line : 0).text,
                       format_ns(UINT64_C(8) << line).text, BAR_COLUMNS, width, BAR,
                       format_count(n).text);
        }
}

static void print_phases(const struct tracer *tracer) {
        static const char *const titles[] = { "<PHASE", "COUNT", "P50", "P99", "MEAN", "SHARE" };
        uint64_t total_ns = tracer_phase(tracer, PHASE_TOTAL)->sum_ns;
        struct grid grid;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        for (enum phase i = 0; i < PHASES_N; i++) {
                const struct histogram *h = tracer_phase(tracer, i);

                grid_add(&grid, "%s", phases[i].title);
                grid_add(&grid, "%s", format_count(h->n).text);
                grid_add(&grid, "%s", h->n ? format_ns(percentile(h, 50)).text : "-");
                grid_add(&grid, "%s", h->n ? format_ns(percentile(h, 99)).text : "-");
                grid_add(&grid, "%s", h->n ? format_ns(h->sum_ns / h->n).text : "-");
                if (i <= PHASE_TOTAL && total_ns)
                        grid_add(&grid, "%.1f %%", 100 * (double)h->sum_ns / (double)total_ns);
                else
                        grid_add(&grid, "%s", "");
        }
        putchar('\n');
        grid_print(&grid, 2);
        grid_deinit(&grid);
        for (enum phase i = 0; i < PHASES_N; i++)
                print_histogram(tracer_phase(tracer, i), phases[i].title);
}

/* ---- Tables and files ---- */

static const char *path_at(const struct target_files *files, uint64_t address) {
        for (uint32_t i = files->n; i-- > 0;) /* the last one that was seen there */
                if (address >= files->list[i].start && address < files->list[i].end)
                        return files->list[i].path;
        return NULL;
}

/* A file as a whole, at its first mapping; false at the others. */
static bool file_sum(const struct report *r, uint32_t number, struct file_counts *ret_sum) {
        const struct target_file *list = r->files->list;
        struct file_counts sum = { 0 };

        for (uint32_t i = 0; i < r->files->n; i++) {
                const struct file_counts *c = tracer_file(r->tracer, i);

                if (list[i].inode != list[number].inode || list[i].major != list[number].major ||
                    list[i].minor != list[number].minor)
                        continue;
                if (i < number)
                        return false;
                sum.n_faults += c->n_faults;
                sum.n_major_faults += c->n_major_faults;
                sum.n_block_reads += c->n_block_reads;
                sum.block_read_bytes += c->block_read_bytes;
        }
        *ret_sum = sum;
        return true;
}

static int by_generation(const void *a, const void *b) {
        uint64_t x = ((const struct tracer_table *)a)->generation;
        uint64_t y = ((const struct tracer_table *)b)->generation;

        return (x > y) - (x < y);
}

static size_t sorted_tables(const struct report *r, struct tracer_table *ret_tables) {
        size_t n = tracer_tables(r->tracer, ret_tables, TABLES_N);

        qsort(ret_tables, n, sizeof(*ret_tables), by_generation);
        return n;
}

static void print_tables(const struct report *r) {
        static const char *const titles[] = { "GENERATION", "LOOKUPS", "ROWS",
                                              "DECODING",   "MISSES",  "<FILE" };
        static struct tracer_table tables[TABLES_N];
        size_t n = sorted_tables(r, tables);
        struct grid grid;

        if (!n)
                return;
        grid_init(&grid, titles, ARRAY_SIZE(titles));
        for (size_t i = 0; i < n; i++) {
                const struct table_counts *c = &tables[i].counts;
                const char *path = path_at(r->files, c->map);

                grid_add(&grid, "%" PRIu64, tables[i].generation);
                grid_add(&grid, "%s", format_short_count(c->n_lookups).text);
                grid_add(&grid, "%s", format_short_count(c->n_rows).text);
                grid_add(&grid, "%s", format_ns(c->decode_ns).text);
                grid_add(&grid, "%s", format_short_count(c->n_cache_misses).text);
                grid_add(&grid, "%s", path ? path : "?");
        }
        putchar('\n');
        grid_print(&grid, 2);
        grid_deinit(&grid);
}

static void add_count(struct grid *grid, uint64_t n, const char *unavailable) {
        grid_add(grid, "%s", unavailable[0] ? "-" : format_short_count(n).text);
}

static void print_files(const struct report *r) {
        static const char *const titles[] = { "FAULTS", "MAJOR", "DISK READS", "BYTES", "<FILE" };
        const struct tracer *t = r->tracer;
        struct file_counts sum;
        struct grid grid;

        grid_init(&grid, titles, ARRAY_SIZE(titles));
        for (uint32_t i = 0; i < r->files->n; i++) {
                if (!file_sum(r, i, &sum))
                        continue;
                add_count(&grid, sum.n_faults, t->no_faults);
                add_count(&grid, sum.n_major_faults, t->no_major_faults);
                add_count(&grid, sum.n_block_reads, t->no_block);
                grid_add(&grid, "%s",
                         t->no_block[0] ? "-" : format_bytes(sum.block_read_bytes).text);
                grid_add(&grid, "%s", r->files->list[i].path);
        }
        putchar('\n');
        grid_print(&grid, 2);
        grid_deinit(&grid);
        if (t->no_faults[0])
                printf("  faults unavailable (%s)\n", t->no_faults);
        if (t->no_major_faults[0])
                printf("  major faults unavailable (%s)\n", t->no_major_faults);
        if (t->no_block[0])
                printf("  disk reads unavailable (%s)\n", t->no_block);
}

/* ---- The whole ---- */

static uint64_t n_under_way(const struct counts *c) {
        uint64_t n_known = c->n_completed + c->n_failed + c->n_lost_lookups;

        return c->n_submitted - MIN(n_known, c->n_submitted);
}

static void print_lost(const struct report *r, const struct counts *c) {
        const struct {
                const char *what;
                uint64_t n;
        } lost[] = {
                { "lookups", c->n_lost_lookups },
                { "looks at threads", c->n_lost_threads },
                { "decodes", c->n_lost_decodes },
                { "wake-ups", c->n_lost_wakes },
                { "counts of tables", c->n_lost_tables },
                { "disk reads", c->n_lost_block },
                { "files not watched", r->files->n_unwatched },
        };
        bool any = false;

        printf("  lost      ");
        for (size_t i = 0; i < ARRAY_SIZE(lost); i++)
                if (lost[i].n) {
                        printf("%s%s %s", any ? ", " : "", format_count(lost[i].n).text,
                               lost[i].what);
                        any = true;
                }
        puts(any ? "" : "nothing");
}

/* A lookup that found no room at its start is not known at its end. */
static uint64_t n_earlier(const struct counts *c) {
        return c->n_unknown - MIN(c->n_lost_lookups, c->n_unknown);
}

void report_print(const struct report *r) {
        const struct counts *c = tracer_counts(r->tracer);

        printf("carvqd, pid %d, traced for %.1f s%s\n", r->files->pid, (double)r->traced_ns / 1e9,
               r->daemon_ended ? ", until it ended" : "");
        printf("  lookups   %s taken: %s completed, %s failed, %s under way or dropped\n",
               format_count(c->n_submitted).text, format_count(c->n_completed).text,
               format_count(c->n_failed).text, format_count(n_under_way(c)).text);
        printf("  earlier   %s taken before, completed meanwhile\n",
               format_count(n_earlier(c)).text);
        printf("  sessions  %s opened, %s closed\n", format_count(c->n_sessions_opened).text,
               format_count(c->n_sessions_closed).text);
        printf("  tables    %s published, %s retired\n", format_count(c->n_tables_published).text,
               format_count(c->n_tables_retired).text);
        if (!r->tracer->no_faults[0])
                printf("  faults    %s of the daemon that were not on tables\n",
                       format_count(c->n_faults_elsewhere).text);
        print_lost(r, c);
        print_tables(r);
        print_files(r);
        print_phases(r->tracer);
}

/* ---- JSON ---- */

static json_t *number(uint64_t n) {
        return json_integer((json_int_t)n);
}

/* A path need not be UTF-8; a JSON string must be. */
static json_t *text(const char *path) {
        json_t *string = path ? json_string(path) : json_null();
        char *copy;

        if (string)
                return string;
        copy = strdup(path);
        for (char *c = copy; c && *c; c++)
                if ((unsigned char)*c >= 0x80)
                        *c = '?';
        string = json_string(copy);
        free(copy);
        return string;
}

static json_t *histogram_json(const struct histogram *h) {
        json_t *buckets = json_array();

        for (uint32_t i = 0; i < BUCKETS_N; i++)
                if (h->buckets[i])
                        json_array_append_new(buckets, json_pack("{so so}", "up_to_ns",
                                                                 number(bucket_end(i)), "count",
                                                                 number(h->buckets[i])));
        return json_pack("{so so so so so}", "count", number(h->n), "sum_ns", number(h->sum_ns),
                         "p50_ns", h->n ? number(percentile(h, 50)) : json_null(), "p99_ns",
                         h->n ? number(percentile(h, 99)) : json_null(), "buckets", buckets);
}

static json_t *phases_json(const struct tracer *tracer) {
        json_t *all = json_object();

        for (enum phase i = 0; i < PHASES_N; i++)
                json_object_set_new(all, phases[i].key, histogram_json(tracer_phase(tracer, i)));
        return all;
}

static json_t *tables_json(const struct report *r) {
        static struct tracer_table tables[TABLES_N];
        size_t n = sorted_tables(r, tables);
        json_t *all = json_array();

        for (size_t i = 0; i < n; i++) {
                const struct table_counts *c = &tables[i].counts;

                json_array_append_new(
                        all, json_pack("{so so so so so so so}", "generation",
                                       number(tables[i].generation), "path",
                                       text(path_at(r->files, c->map)), "lookups",
                                       number(c->n_lookups), "rows", number(c->n_rows), "decode_ns",
                                       number(c->decode_ns), "cache_hits", number(c->n_cache_hits),
                                       "cache_misses", number(c->n_cache_misses)));
        }
        return all;
}

static json_t *available(uint64_t n, const char *unavailable) {
        return unavailable[0] ? json_null() : number(n);
}

static json_t *files_json(const struct report *r) {
        const struct tracer *t = r->tracer;
        json_t *all = json_array();
        struct file_counts sum;

        for (uint32_t i = 0; i < r->files->n; i++) {
                if (!file_sum(r, i, &sum))
                        continue;
                json_array_append_new(
                        all,
                        json_pack("{so so so so so}", "path", text(r->files->list[i].path),
                                  "faults", available(sum.n_faults, t->no_faults), "major_faults",
                                  available(sum.n_major_faults, t->no_major_faults), "block_reads",
                                  available(sum.n_block_reads, t->no_block), "block_read_bytes",
                                  available(sum.block_read_bytes, t->no_block)));
        }
        return all;
}

static json_t *why(const char *unavailable) {
        return unavailable[0] ? json_string(unavailable) : json_null();
}

void report_print_json(const struct report *r) {
        const struct counts *c = tracer_counts(r->tracer);
        json_t *json;

        json = json_pack(
                "{si sf sb s{so so so so so} s{so so so so} so so so so s{so so so so so so so} "
                "s{so so so}}",
                "pid", r->files->pid, "seconds", (double)r->traced_ns / 1e9, "daemon_ended",
                r->daemon_ended, "lookups", "taken", number(c->n_submitted), "completed",
                number(c->n_completed), "failed", number(c->n_failed), "under_way",
                number(n_under_way(c)), "earlier", number(n_earlier(c)), "events",
                "sessions_opened", number(c->n_sessions_opened), "sessions_closed",
                number(c->n_sessions_closed), "tables_published", number(c->n_tables_published),
                "tables_retired", number(c->n_tables_retired), "phases", phases_json(r->tracer),
                "tables", tables_json(r), "files", files_json(r), "faults_elsewhere",
                available(c->n_faults_elsewhere, r->tracer->no_faults), "lost", "lookups",
                number(c->n_lost_lookups), "threads", number(c->n_lost_threads), "decodes",
                number(c->n_lost_decodes), "wake_ups", number(c->n_lost_wakes), "tables",
                number(c->n_lost_tables), "block_reads", number(c->n_lost_block), "files",
                number(r->files->n_unwatched), "unavailable", "faults", why(r->tracer->no_faults),
                "major_faults", why(r->tracer->no_major_faults), "block_reads",
                why(r->tracer->no_block));
        json_dumpf(json, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(json);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-start: how long carvqd takes from fork() until its table is published and a client has a
 * row, and how much of the table's file it reads for that. The file is as large as asked for, of
 * f16 rows, all but its first page a hole: a daemon that read or checked it all would still have to
 * walk through every page, and the counts of pages and bytes would show it.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "lib/carvq.h"
#include "lib/codec/codec.h"
#include "options.h"
#include "outcome.h"
#include "private-daemon.h"

#define TABLE_NAME      "large"
#define N_DIMS          2048u
#define LIMIT_MS        100.0
#define STARTS_MAX      1000u
#define RESIDENT_WINDOW (UINT64_C(1) << 30)

struct options {
        uint64_t gib, n_starts;
        const char *json_path, *work_path;
};

struct start {
        uint64_t published_ns, row_ns; /* since the fork; the first row through a ring */
        uint64_t bytes_read;           /* by read() and the like, of all files */
        uint64_t n_resident;           /* pages of the table in the page cache afterwards */
};

/* The header and nothing else. */
static uint64_t make_file(const char *path, uint64_t bytes) {
        struct table_header h = {
                .codec = TABLE_CODEC_F16,
                .n_rows = bytes / (N_DIMS * sizeof(uint16_t)),
                .n_dims = N_DIMS,
        };
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct fault fault;
        FILE *f;

        if (table_plan(&h, 0, chunks, &fault) < 0)
                die("%s", fault.text);
        table_seal(&h, chunks);
        f = fopen(path, "we");
        if (!f || fwrite(&h, sizeof(h), 1, f) != 1 ||
            fwrite(chunks, sizeof(chunks[0]), h.n_chunks, f) != h.n_chunks || fflush(f) ||
            ftruncate(fileno(f), (off_t)h.file_bytes) < 0 || fclose(f))
                die("%s: %s", path, strerror(errno));
        return h.file_bytes;
}

/* Pages of the file that are in the page cache, whoever brought them there. */
static uint64_t resident_pages(const char *path, uint64_t file_bytes) {
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), n_resident = 0;
        _cleanup_(freep) unsigned char *pages = allocate(RESIDENT_WINDOW / page_bytes, 1);

        if (fd < 0)
                die("%s: %s", path, strerror(errno));
        for (uint64_t at = 0; at < file_bytes; at += RESIDENT_WINDOW) {
                size_t bytes = MIN(RESIDENT_WINDOW, file_bytes - at);
                void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)at);

                if (map == MAP_FAILED || mincore(map, bytes, pages) < 0)
                        die("%s: mincore: %s", path, strerror(errno));
                for (uint64_t i = 0; i < div_round_up(bytes, page_bytes); i++)
                        n_resident += pages[i] & 1;
                munmap(map, bytes);
        }
        return n_resident;
}

static uint64_t bytes_read_by(pid_t pid) {
        char path[64];
        uint64_t bytes;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/io", pid);
        f = fopen(path, "re");
        if (!f || fscanf(f, "rchar: %" SCNu64, &bytes) != 1)
                die("%s: cannot be read", path);
        fclose(f);
        return bytes;
}

static void look_up(const struct private_daemon *daemon) {
        struct carvq_connect_options co = { .size = sizeof(co),
                                            .socket_path = daemon->socket_path,
                                            .no_reconnect = 1 };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client;
        carvq_table *table;
        uint64_t id = 0;
        float row[N_DIMS];

        if (carvq_connect(&co, &client, message) < 0)
                die("%s", message);
        if (carvq_table_open(client, TABLE_NAME, &table) < 0 ||
            carvq_lookup(table, &id, 1, NULL, row, sizeof(row)) < 0)
                die("%s", carvq_client_error(client));
        carvq_client_free(client);
}

static void start_once(const char *path, uint64_t file_bytes, struct start *ret_start) {
        struct private_daemon daemon;
        uint64_t start_ns = clock_ns();

        private_daemon_start(&daemon, TABLE_NAME, path);
        ret_start->published_ns = daemon.ready_ns;
        ret_start->bytes_read = bytes_read_by(daemon.pid);
        ret_start->n_resident = resident_pages(path, file_bytes);
        start_ns = clock_ns();
        look_up(&daemon);
        ret_start->row_ns = daemon.ready_ns + clock_ns() - start_ns;
        private_daemon_stop(&daemon);
}

static void report(const struct options *o, const struct start *starts, uint64_t file_bytes,
                   uint64_t n_resident_before) {
        json_t *outcome =
                outcome_new("start", codec_kernels_choose(codec_cpu_features())->name, "warm");
        uint64_t published_ns[STARTS_MAX], row_ns[STARTS_MAX], bytes_read = 0, n_resident = 0;
        double median_ms, worst_ms, row_ms, read_share;
        char measure[96];

        for (uint64_t i = 0; i < o->n_starts; i++) {
                published_ns[i] = starts[i].published_ns;
                row_ns[i] = starts[i].row_ns;
                bytes_read = MAX(bytes_read, starts[i].bytes_read);
                n_resident = MAX(n_resident, starts[i].n_resident);
        }
        median_ms = (double)percentile(published_ns, o->n_starts, 0.5) / 1e6;
        worst_ms = (double)published_ns[o->n_starts - 1] / 1e6; /* sorted by now */
        row_ms = (double)percentile(row_ns, o->n_starts, 0.5) / 1e6;
        printf("%-44s %10.2f ms (worst of %" PRIu64 ": %.2f)\n",
               "fork to published (READY=1), median", median_ms, o->n_starts, worst_ms);
        printf("%-44s %10.2f ms\n", "fork to a client's first row, median", row_ms);
        printf("%-44s %10" PRIu64 " bytes of %" PRIu64 "\n",
               "read by the daemon until then, all files", bytes_read, file_bytes);
        printf("%-44s %10" PRIu64 " of %" PRIu64 " (before: %" PRIu64 ")\n",
               "pages of the table in the page cache", n_resident, file_bytes / 4096,
               n_resident_before);
        json_object_update_new(outcome,
                               json_pack("{sI, sf, sf, sf, sI, sI, sI}", "file_bytes",
                                         (json_int_t)file_bytes, "published_ms_median", median_ms,
                                         "published_ms_worst", worst_ms, "first_row_ms_median",
                                         row_ms, "bytes_read", (json_int_t)bytes_read,
                                         "pages_resident_before", (json_int_t)n_resident_before,
                                         "pages_resident", (json_int_t)n_resident));
        snprintf(measure, sizeof(measure), "start to published, %" PRIu64 " GiB table, warm",
                 o->gib);
        outcome_target(outcome, &(struct outcome_target){ .measure = measure,
                                                          .target = "at most 100 ms",
                                                          .value = worst_ms,
                                                          .unit = "ms",
                                                          .limit = LIMIT_MS });
        snprintf(measure, sizeof(measure), "share of a %" PRIu64 " GiB table read by the start",
                 o->gib);
        read_share = (double)MAX(bytes_read, n_resident * 4096) / (double)file_bytes;
        outcome_target(outcome, &(struct outcome_target){ .measure = measure,
                                                          .target = "at most 0.001: no full read",
                                                          .value = read_share,
                                                          .unit = "of the file",
                                                          .limit = 0.001 });
        outcome_write(outcome, o->json_path);
        json_decref(outcome);
}

static void run(const struct options *o) {
        struct start *starts = allocate(o->n_starts, sizeof(*starts)), first;
        char path[PATH_MAX], machine[256];
        uint64_t file_bytes, n_resident;

        work_path(TABLE_NAME ".carvq", path, sizeof(path));
        file_bytes = make_file(path, o->gib << 30);
        n_resident = resident_pages(path, file_bytes);
        machine_name(machine, sizeof(machine));
        printf("%s; a table of %" PRIu64 " GiB, f16, sparse; programs and head warm\n", machine,
               o->gib);
        start_once(path, file_bytes, &first); /* brings the programs in */
        for (uint64_t i = 0; i < o->n_starts; i++)
                start_once(path, file_bytes, &starts[i]);
        report(o, starts, file_bytes, n_resident);
        free(starts);
}

int main(int argc, char **argv) {
        struct options o = { .gib = 8, .n_starts = 20 };
        const struct bench_option options[] = {
                { "gib", "N", "size of the table", .count = &o.gib, .min = 1, .max = 4096 },
                { "starts", "N", "how often", .count = &o.n_starts, .min = 1, .max = STARTS_MAX },
                { "work", "DIR", "where the table goes; default $TMPDIR, /tmp",
                  .text = &o.work_path },
                { "json", "FILE", "write the figures there, too", .text = &o.json_path },
                { 0 },
        };

        bench_options(argc, argv, "Times the start of carvqd with a large table.", options);
        work_folder(o.work_path);
        run(&o);
        return 0;
}

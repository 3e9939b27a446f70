/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same from storage: files of our own, which nobody else has mapped, so that the page cache can
 * be made to forget them. Where it does not, there is no figure.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "bench.h"
#include "proto/spin.h"

#define TURNS 4u

/* More than this share of a file in memory, and it is not cold. */
#define RESIDENT_MAX 0.02

struct files {
        char folder[64];
        char full[96], carvq[96];
};

/* ---- Files ---- */

static int write_all(int fd, const uint8_t *bytes, uint64_t n) {
        while (n) {
                ssize_t done = write(fd, bytes, MIN(n, UINT64_C(1) << 26));

                if (done < 0 && errno == EINTR)
                        continue;
                if (done < 0)
                        return -errno;
                bytes += done;
                n -= (uint64_t)done;
        }
        return 0;
}

static int copy_all(const char *from, int to_fd) {
        _cleanup_(closep) int fd = open(from, O_RDONLY | O_CLOEXEC);
        ssize_t n = 1;

        if (fd < 0)
                return -errno;
        while (n > 0)
                n = sendfile(to_fd, fd, NULL, 1 << 26);
        return n < 0 ? -errno : 0;
}

static int create(const char *path) {
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        return fd < 0 ? -errno : fd;
}

static int make_file(const struct bench *b, const char *path, bool full) {
        _cleanup_(closep) int fd = create(path);
        int r;

        if (fd < 0)
                return fd;
        r = full ? write_all(fd, b->full.map, b->full.map_bytes) : copy_all(b->path, fd);
        return r < 0 ? r : fsync(fd) < 0 ? -errno : 0;
}

static double resident_share(int fd, uint64_t n_bytes) {
        uint64_t n_pages = div_round_up(n_bytes, 4096), n_resident = 0;
        _cleanup_(freep) uint8_t *pages = malloc(n_pages);
        void *map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);

        if (map == MAP_FAILED)
                return 1;
        if (!pages || mincore(map, n_bytes, pages) < 0)
                n_resident = n_pages;
        else
                for (uint64_t i = 0; i < n_pages; i++)
                        n_resident += pages[i] & 1;
        munmap(map, n_bytes);
        return (double)n_resident / (double)n_pages;
}

/* Makes the page cache forget the file. */
static int forget(const char *path, struct fault *ret_fault) {
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct stat st;
        double share;

        if (fd < 0 || fstat(fd, &st) < 0)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        share = resident_share(fd, (uint64_t)st.st_size);
        if (share > RESIDENT_MAX)
                return fault_set(ret_fault, -EBUSY,
                                 "%.0f %% of %s stays in memory; $TMPDIR names"
                                 " another place for it",
                                 100 * share, path);
        return 0;
}

/* What a process has read from storage; NAN where it is not told. */
static double storage_bytes(pid_t pid) {
        char path[32], line[64];
        uint64_t bytes;
        bool known = false;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
        f = fopen(path, "re");
        while (f && !known && fgets(line, sizeof(line), f))
                known = sscanf(line, "read_bytes: %" SCNu64, &bytes) == 1;
        if (f)
                fclose(f);
        return known ? (double)bytes : NAN;
}

/* ---- Ways ---- */

static int run_turns(struct bench *b, enum bench_way way, const struct codec_table *full,
                     carvq_table *direct, carvq_table *ring, struct bench_cell *cell) {
        pid_t reader = way == BENCH_RING ? b->daemon_pid : getpid();
        double before = storage_bytes(reader),
               n_rows = (double)(TURNS * BENCH_TURN_BATCHES * b->batch);
        uint64_t ns = 0;
        int r = 0;

        for (unsigned turn = 0; turn < TURNS && r >= 0; turn++) {
                uint64_t start_ns;

                bench_draw(b, BENCH_UNIFORM);
                start_ns = clock_ns();
                r = bench_turn(b, way, full, direct, ring, &cell->unavailable);
                ns += clock_ns() - start_ns;
        }
        *cell = (struct bench_cell){
                .unavailable = cell->unavailable,
                .ns = (double)ns / n_rows,
                .table_bytes = b->cells[BENCH_UNIFORM][way].table_bytes,
                .table_lines = b->cells[BENCH_UNIFORM][way].table_lines,
                .written_bytes = b->cells[BENCH_UNIFORM][way].written_bytes,
                .mbm_bytes = NAN,
                .imc_bytes = NAN,
                .storage_bytes = (storage_bytes(reader) - before) / n_rows,
        };
        return r;
}

static int cold_full(struct bench *b, const char *path, struct bench_cell *cell) {
        struct codec_file file;
        int r = forget(path, &cell->unavailable);

        if (r >= 0)
                r = codec_file_open(path, &file, &cell->unavailable);
        if (r < 0)
                return r;
        r = run_turns(b, BENCH_FULL, &file.table, NULL, NULL, cell);
        codec_file_unmap(&file);
        return r;
}

static int cold_direct(struct bench *b, const char *path, struct bench_cell *cell) {
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table;
        int r = forget(path, &cell->unavailable);

        if (r < 0)
                return r;
        r = carvq_file_open(path, NULL, &table, message);
        if (r < 0)
                return fault_set(&cell->unavailable, r, "%s", message);
        r = run_turns(b, BENCH_DIRECT, NULL, table, NULL, cell);
        carvq_table_close(table);
        return r;
}

/* The daemon is asked to serve the copy meanwhile, which its sandbox may not let it see. */
static int cold_ring(struct bench *b, const char *path, struct bench_cell *cell) {
        _cleanup_(json_decrefp) json_t *reply = NULL, *unloaded = NULL;
        struct carvq_table_options to = { .size = sizeof(to), .no_cache = 1 };
        carvq_table *table = NULL;
        char name[32];
        int r = forget(path, &cell->unavailable);

        if (r < 0)
                return r;
        snprintf(name, sizeof(name), "carvqctl-bench-%d", (int)getpid());
        if (control_try(b->ctl, "LoadTable", json_pack("{ss, ss}", "name", name, "path", path),
                        CONTROL_TIMEOUT_S, &reply, &cell->unavailable) != EXIT_OK)
                return -EACCES;
        r = carvq_table_open_with(b->client, name, &to, &table);
        if (r < 0)
                fault_set(&cell->unavailable, r, "%s", carvq_client_error(b->client));
        else
                r = run_turns(b, BENCH_RING, NULL, NULL, table, cell);
        carvq_table_close(table);
        (void)control_try(b->ctl, "UnloadTable", json_pack("{ss}", "name", name), CONTROL_TIMEOUT_S,
                          &unloaded, NULL);
        return r;
}

static void remove_files(const struct files *files) {
        unlink(files->full);
        unlink(files->carvq);
        rmdir(files->folder);
}

int bench_cold(struct bench *b) {
        const char *parent = getenv("TMPDIR");
        struct bench_cell *cells = b->cells[BENCH_COLD];
        struct files files;
        int r;

        parent = parent && *parent ? parent : "/tmp";
        if ((size_t)snprintf(files.folder, sizeof(files.folder), "%s/carvqctl-XXXXXX", parent) >=
                    sizeof(files.folder) ||
            !mkdtemp(files.folder)) {
                complain("bench: no folder in %s: %s", parent, strerror(errno));
                return EXIT_REFUSED;
        }
        (void)chmod(files.folder, 0755); /* the daemon may be somebody else */
        snprintf(files.full, sizeof(files.full), "%s/full.carvq", files.folder);
        snprintf(files.carvq, sizeof(files.carvq), "%s/table.carvq", files.folder);

        r = make_file(b, files.full, true);
        if (r < 0)
                fault_set(&cells[BENCH_FULL].unavailable, r, "%s: %s", files.full, strerror(-r));
        else
                (void)cold_full(b, files.full, &cells[BENCH_FULL]);
        unlink(files.full);
        r = make_file(b, files.carvq, false);
        if (r < 0) {
                fault_set(&cells[BENCH_DIRECT].unavailable, r, "a copy of %s: %s", b->path,
                          strerror(-r));
                cells[BENCH_RING].unavailable = cells[BENCH_DIRECT].unavailable;
        } else {
                (void)cold_direct(b, files.carvq, &cells[BENCH_DIRECT]);
                (void)cold_ring(b, files.carvq, &cells[BENCH_RING]);
        }
        remove_files(&files);
        return EXIT_OK;
}

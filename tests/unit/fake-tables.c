/* SPDX-License-Identifier: Apache-2.0 */
/* The fake daemon's tables: opening them, and handing out what belongs to them. Descriptors that a
 * trick leaves open go with the test process. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fake-daemon-impl.h"
#include "tests/make-table.h"

static bool open_table(struct fake_daemon *f, const struct wire_open_table *open) {
        const struct table_header *h = &f->file.table.contents.header;
        struct wire_table m = { .header = { WIRE_TABLE, sizeof(m) },
                                .request = open->request,
                                .codec = h->codec,
                                .table = 100 + f->n_opened,
                                .n_rows = h->n_rows,
                                .n_dims = h->n_dims,
                                .record_bytes = h->record_bytes,
                                .file_bytes = h->file_bytes,
                                .generation = 5 };
        uint64_t word;

        if (strcmp(open->name, "t") != 0) {
                m.status = WIRE_NO_TABLE;
                strcpy(m.text, "no such table is published");
        }
        switch (f->trick) {
        case TRICK_SILENT_AT_OPEN:
                /* The answer comes after all, but the client has given up by then. */
                while (f->hold && !f->stop)
                        (void)read(f->control_fd, &word, sizeof(word));
                break;
        case TRICK_CLOSE_AT_OPEN:
                return false;
        case TRICK_ERROR_AT_OPEN:
                fake_error(f, WIRE_SHUTDOWN, "the daemon ends");
                return false;
        case TRICK_TABLE_LIMIT:
                m.status = WIRE_LIMIT;
                strcpy(m.text, "256 tables are open");
                break;
        case TRICK_TABLE_INTERNAL:
                m.status = WIRE_INTERNAL;
                break;
        case TRICK_TABLE_NO_ROWS:
                m.n_rows = 0;
                break;
        case TRICK_TABLE_DIMS:
                m.n_dims = TABLE_DIMS_MAX + 1;
                break;
        case TRICK_TABLE_REQUEST:
                m.request += 1000;
                break;
        case TRICK_TABLE_GONE:
                m.status = WIRE_NO_TABLE;
                strcpy(m.text, "no table named 't' is published");
                break;
        case TRICK_TABLE_OTHER:
                m.n_rows++;
                break;
        case TRICK_TABLE_TEXT:
                m.status = WIRE_NO_TABLE;
                strcpy(m.text, "a\033[2Jb\nc");
                break;
        case TRICK_CLIENT_MESSAGE_AT_OPEN:
                fake_send(f, &(struct wire_close_table){ { WIRE_CLOSE_TABLE, 16 }, 1 }, 16, -1, 0);
                return true;
        default:
                break;
        }
        f->n_opened += m.status == WIRE_OK;
        fake_send(f, &m, sizeof(m), -1, 0);
        return true;
}

/* ---- Files ---- */

/* A file of the table's size that is something else. */
static int make_garbage(const struct fake_daemon *f) {
        int fd = memfd_create("garbage", MFD_CLOEXEC);

        assert_int_equal(ftruncate(fd, (off_t)f->file.map_bytes), 0);
        assert_int_equal(pwrite(fd, "garbage", 7, 0), 7);
        return fd;
}

/* The first `bytes` of the table. */
static int make_copy(const struct fake_daemon *f, uint64_t bytes) {
        int fd = memfd_create("copy", MFD_CLOEXEC);

        assert_int_equal(write(fd, f->file.map, bytes), bytes);
        return fd;
}

/* A sound table, of another shape. */
static int make_other(void) {
        uint64_t bytes;
        const struct table_header shape = { .codec = TABLE_CODEC_F32, .n_rows = 3, .n_dims = 2 };
        _cleanup_(freep) uint8_t *table = make_table(&shape, 1, &bytes);
        int fd = memfd_create("other", MFD_CLOEXEC);

        assert_int_equal(write(fd, table, bytes), bytes);
        return fd;
}

static int make_pipe(void) {
        int pipes[2];

        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        close(pipes[1]);
        return pipes[0];
}

static bool give_file(struct fake_daemon *f, const struct wire_get_file *get) {
        struct wire_file m = { .header = { WIRE_FILE, sizeof(m) }, .request = get->request };
        size_t n_fds = 1;
        int fd = dup(f->file_fd);

        switch (f->trick) {
        case TRICK_SILENT_AT_FILE:
                fake_be_silent(f);
                break;
        case TRICK_FILE_REFUSED:
                m.status = WIRE_NO_TABLE;
                strcpy(m.text, "table t was retired");
                n_fds = 0;
                break;
        case TRICK_FILE_REFUSED_WITH_FD:
                m.status = WIRE_NO_TABLE;
                break;
        case TRICK_FILE_WITHOUT_FD:
                n_fds = 0;
                break;
        case TRICK_FILE_WITH_FDS:
                n_fds = 2;
                break;
        case TRICK_FILE_REQUEST:
                m.request += 1000;
                break;
        case TRICK_FILE_IS_PIPE:
                dup2(make_pipe(), fd);
                break;
        case TRICK_FILE_IS_SOCKET:
                dup2(f->fd, fd);
                break;
        case TRICK_FILE_IS_FOLDER:
                dup2(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd);
                break;
        case TRICK_FILE_IS_ZERO:
                dup2(open("/dev/zero", O_RDONLY | O_CLOEXEC), fd);
                break;
        case TRICK_FILE_IS_PATH: /* names a file and cannot be read */
                dup2(open("/dev/null", O_PATH | O_CLOEXEC), fd);
                break;
        case TRICK_FILE_EMPTY:
                dup2(make_copy(f, 0), fd);
                break;
        case TRICK_FILE_SHORT:
                dup2(make_copy(f, f->file.map_bytes - 1), fd);
                break;
        case TRICK_FILE_GARBAGE:
                dup2(make_garbage(f), fd);
                break;
        case TRICK_FILE_OTHER:
                dup2(make_other(), fd);
                break;
        case TRICK_FILE_CHANGES:
                f->copy_fd = make_copy(f, f->file.map_bytes);
                dup2(f->copy_fd, fd);
                break;
        default:
                break;
        }
        fake_send(f, &m, sizeof(m), fd, n_fds);
        close(fd);
        return true;
}

/* ---- Caches ---- */

/* Memory for `n_sets`, with these seals. */
static int make_cache(const struct fake_daemon *f, uint32_t n_sets, uint64_t more_bytes,
                      int seals) {
        int fd = memfd_create("cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct cache_layout layout;

        assert_int_equal(
                cache_layout_compute(n_sets, f->file.table.contents.header.n_dims, &layout, NULL),
                0);
        assert_int_equal(ftruncate(fd, (off_t)(layout.cache_bytes + more_bytes)), 0);
        if (seals)
                assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
        return fd;
}

static bool give_cache(struct fake_daemon *f, const struct wire_get_cache *get) {
        struct wire_cache m = { .header = { WIRE_CACHE, sizeof(m) },
                                .request = get->request,
                                .n_sets = FAKE_CACHE_SETS };
        int fd = make_cache(f, FAKE_CACHE_SETS, 0, F_SEAL_SHRINK);
        size_t n_fds = 1;

        f->n_caches_asked++;
        switch (f->trick) {
        case TRICK_SILENT_AT_CACHE:
                fake_be_silent(f);
                break;
        case TRICK_CACHE_REFUSED_WITH_FD:
                m.status = WIRE_NO_CACHE;
                break;
        case TRICK_CACHE_WITHOUT_FD:
                n_fds = 0;
                break;
        case TRICK_CACHE_REQUEST:
                m.request += 1000;
                break;
        case TRICK_CACHE_IS_PIPE:
                dup2(make_pipe(), fd);
                break;
        case TRICK_CACHE_IS_FILE:
                dup2(f->file_fd, fd);
                break;
        case TRICK_CACHE_CAN_SHRINK:
                dup2(make_cache(f, FAKE_CACHE_SETS, 0, F_SEAL_GROW), fd);
                break;
        case TRICK_CACHE_SHORT:
                dup2(make_cache(f, FAKE_CACHE_SETS - 64, 0, F_SEAL_SHRINK), fd);
                break;
        case TRICK_CACHE_LONG:
                dup2(make_cache(f, FAKE_CACHE_SETS, 4096, F_SEAL_SHRINK), fd);
                break;
        case TRICK_CACHE_NO_SETS:
                m.n_sets = 0;
                break;
        case TRICK_CACHE_MANY_SETS:
                m.n_sets = UINT32_MAX;
                break;
        case TRICK_CACHE_LIES:
                f->copy_fd = dup(fd);
                break;
        default:
                m.status = WIRE_NO_CACHE;
                m.n_sets = 0;
                n_fds = 0;
                break;
        }
        fake_send(f, &m, sizeof(m), fd, n_fds);
        close(fd);
        return true;
}

bool fake_on_message(struct fake_daemon *f) {
        uint8_t buffer[WIRE_MESSAGE_BYTES];
        int fd, type = fake_receive(f, buffer, &fd);

        if (type == WIRE_OPEN_TABLE)
                return open_table(f, (void *)buffer);
        if (type == WIRE_GET_FILE)
                return give_file(f, (void *)buffer);
        if (type == WIRE_GET_CACHE)
                return give_cache(f, (void *)buffer);
        if (type == WIRE_CLOSE_TABLE)
                f->n_closed++;
        return type == WIRE_CLOSE_TABLE;
}

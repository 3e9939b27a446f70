/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files or none. The header is written last, so that even a temporary file that survives a
 * power cut is no .carvq file. A signal handler unlinks by a name and a descriptor that it finds in
 * two globals; they are set with these signals blocked.
 */
#include "writer.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

static const int fatal_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };

static const char *volatile doomed_name;
static volatile int doomed_dir_fd = -1;

void writer_abandon(void) {
        if (doomed_name)
                unlinkat(doomed_dir_fd, doomed_name, 0);
}

/* Unlinks and dies of the same signal, so that a shell sees what happened. */
static void on_fatal_signal(int signal_number) {
        writer_abandon();
        signal(signal_number, SIG_DFL);
        raise(signal_number);
}

static void set_doomed(int dir_fd, const char *name) {
        struct sigaction action = { .sa_handler = on_fatal_signal }, old;
        sigset_t blocked, saved;

        sigemptyset(&blocked);
        for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
                sigaddset(&blocked, fatal_signals[i]);
        action.sa_mask = blocked;
        pthread_sigmask(SIG_BLOCK, &blocked, &saved);
        doomed_name = name;
        doomed_dir_fd = dir_fd;
        for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
                /* What was ignored stays ignored: nohup, background jobs. */
                if (sigaction(fatal_signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
                        sigaction(fatal_signals[i], &action, NULL);
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

static int writer_fault(const struct writer *writer, int error, const char *what,
                        struct fault *ret_fault) {
        return fault_set(ret_fault, -error, "%s: cannot %s: %s", writer->path, what,
                         strerror(error));
}

static int open_folder(struct writer *w) {
        const char *slash = strrchr(w->path, '/');
        _cleanup_(freep) char *folder =
                slash ? strndup(w->path, MAX((size_t)(slash - w->path), 1u)) : strdup(".");

        w->name = strdup(slash ? slash + 1 : w->path);
        if (!folder || !w->name)
                return -ENOMEM;
        w->dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return w->dir_fd < 0 ? -errno : 0;
}

/* The process id makes the name ours unless an earlier process of that id was killed -9. */
static int open_temporary(struct writer *w) {
        for (unsigned attempt = 0; attempt < 16; attempt++) {
                if (asprintf(&w->temp_name, ".%.200s.%d-%u.tmp", w->name, (int)getpid(), attempt) <
                    0) {
                        w->temp_name = NULL;
                        return -ENOMEM;
                }
                set_doomed(w->dir_fd, w->temp_name);
                w->fd = openat(w->dir_fd, w->temp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                               0666);
                if (w->fd >= 0)
                        return 0;
                set_doomed(-1, NULL);
                free(steal_pointer(&w->temp_name));
                if (errno != EEXIST)
                        break;
        }
        return -errno;
}

/* What OUT names now: nothing, or a file that may be replaced. Renaming over a device node or a
 * pipe would replace it, too, which is never what was meant. */
static int check_target(struct writer *w, struct fault *ret_fault) {
        struct stat st;

        if (!*w->name)
                return fault_set(ret_fault, -EISDIR, "%s: names a folder, expected a file",
                                 w->path);
        if (fstatat(w->dir_fd, w->name, &st, 0) < 0)
                return errno == ENOENT ? 0 : writer_fault(w, errno, "create", ret_fault);
        if (S_ISDIR(st.st_mode))
                return fault_set(ret_fault, -EISDIR, "%s: is a folder, expected a file", w->path);
        if (!S_ISREG(st.st_mode))
                return fault_set(ret_fault, -EEXIST, "%s: exists and is not a regular file",
                                 w->path);
        w->replaces = true;
        w->replaced_dev = st.st_dev;
        w->replaced_ino = st.st_ino;
        return 0;
}

int writer_open(struct writer *writer, const char *path, struct fault *ret_fault) {
        struct writer w = WRITER_INIT;
        int r;

        w.path = strdup(path);
        if (!w.path)
                return -ENOMEM;
        r = open_folder(&w);
        if (r < 0)
                writer_fault(&w, -r, "create", ret_fault);
        else
                r = check_target(&w, ret_fault);
        if (r >= 0) {
                r = open_temporary(&w);
                if (r < 0)
                        writer_fault(&w, -r, "create", ret_fault);
        }
        if (r < 0) {
                writer_deinit(&w);
                return r;
        }
        *writer = w;
        return 0;
}

int writer_check_source(const struct writer *w, const struct stat *source,
                        struct fault *ret_fault) {
        if (!w->replaces || w->replaced_dev != source->st_dev || w->replaced_ino != source->st_ino)
                return 0;
        return fault_set(ret_fault, -EEXIST, "%s: is the source itself", w->path);
}

int writer_write(struct writer *writer, uint64_t offset, const void *bytes, size_t n_bytes,
                 struct fault *ret_fault) {
        const uint8_t *p = bytes;

        while (n_bytes) {
                ssize_t n = pwrite(writer->fd, p, n_bytes, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return writer_fault(writer, errno, "write", ret_fault);
                p += n;
                n_bytes -= (size_t)n;
                offset += (uint64_t)n;
        }
        return 0;
}

int writer_commit(struct writer *w, uint64_t file_bytes, struct fault *ret_fault) {
        if (ftruncate(w->fd, (off_t)file_bytes) < 0 || fsync(w->fd) < 0)
                return writer_fault(w, errno, "write", ret_fault);
        if (renameat(w->dir_fd, w->temp_name, w->dir_fd, w->name) < 0)
                return writer_fault(w, errno, "rename the finished file", ret_fault);
        set_doomed(-1, NULL);
        free(steal_pointer(&w->temp_name));
        /* The file is in place; that its name survives a power cut is the folder's business. */
        if (fsync(w->dir_fd) < 0 && errno != EINVAL)
                return writer_fault(w, errno, "sync the folder", ret_fault);
        return 0;
}

void writer_deinit(struct writer *w) {
        if (w->temp_name) {
                unlinkat(w->dir_fd, w->temp_name, 0);
                set_doomed(-1, NULL);
        }
        closep(&w->fd);
        closep(&w->dir_fd);
        free(w->path);
        free(w->name);
        free(w->temp_name);
        *w = (struct writer)WRITER_INIT;
}

/* ---- A .carvq file ---- */

int table_writer_begin(struct table_writer *w, const struct table_header *header,
                       struct fault *ret_fault) {
        int r;

        w->header = *header;
        /* The length of meta is not known yet; that it exists decides where the others start. */
        r = table_plan(&w->header, 1, w->chunks, ret_fault);
        for (uint32_t i = 0; r >= 0 && i < w->header.n_chunks; i++) {
                w->states[i] = XXH3_createState();
                if (!w->states[i])
                        return -ENOMEM;
                XXH3_64bits_reset(w->states[i]);
        }
        return r;
}

static uint32_t find_chunk(const struct table_writer *w, uint32_t id) {
        uint32_t i = 0;

        while (w->chunks[i].id != id)
                i++;
        assert(i < w->header.n_chunks);
        return i;
}

int table_writer_append(struct table_writer *w, uint32_t chunk_id, const void *bytes,
                        size_t n_bytes, struct fault *ret_fault) {
        uint32_t i = find_chunk(w, chunk_id);
        int r;

        assert(n_bytes <= w->chunks[i].length - w->n_written[i]);
        XXH3_64bits_update(w->states[i], bytes, n_bytes);
        r = writer_write(&w->file, w->chunks[i].offset + w->n_written[i], bytes, n_bytes,
                         ret_fault);
        w->n_written[i] += n_bytes;
        return r;
}

int table_writer_commit(struct table_writer *w, const char *meta, struct fault *ret_fault) {
        size_t meta_bytes = strlen(meta);
        int r;

        r = table_plan(&w->header, meta_bytes, w->chunks, ret_fault);
        if (r >= 0)
                r = table_writer_append(w, TABLE_CHUNK_META, meta, meta_bytes, ret_fault);
        if (r < 0)
                return r;
        for (uint32_t i = 0; i < w->header.n_chunks; i++) {
                assert(w->n_written[i] == w->chunks[i].length);
                w->chunks[i].checksum = XXH3_64bits_digest(w->states[i]);
        }
        table_seal(&w->header, w->chunks);
        r = writer_write(&w->file, sizeof(w->header), w->chunks,
                         w->header.n_chunks * sizeof(w->chunks[0]), ret_fault);
        if (r >= 0)
                r = writer_write(&w->file, 0, &w->header, sizeof(w->header), ret_fault);
        if (r >= 0)
                r = writer_commit(&w->file, w->header.file_bytes, ret_fault);
        return r;
}

void table_writer_deinit(struct table_writer *w) {
        for (uint32_t i = 0; i < TABLE_CHUNKS_MAX; i++)
                XXH3_freeState(w->states[i]);
        writer_deinit(&w->file);
        *w = (struct table_writer){ .file = WRITER_INIT };
}

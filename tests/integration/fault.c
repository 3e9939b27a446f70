/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To be preloaded: a disk that fails, at one call. $CARVQ_FAULT is CALL:N:ERRNO:TEXT: the Nth CALL
 * on a file whose path contains TEXT fails with that number, later ones do not. CALL is open,
 * pread, pwrite, fsync, ftruncate, rename or mmap; or cut, by which the Nth mmap succeeds and the
 * file is cut to nothing behind it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The program's own calls come here. */
#pragma GCC visibility push(default)

/* ISO C has no way from a pointer to a function; POSIX asks for one. */
#define NEXT(name) (__extension__(__typeof__(&name))(uintptr_t) dlsym(RTLD_NEXT, #name))

/* Whether this is the call that fails; errno is set then. */
static bool fails(const char *call, const char *path) {
        static atomic_ulong n_seen;
        const char *fault = getenv("CARVQ_FAULT");
        size_t n_call = strlen(call);
        unsigned long n;
        char *end;
        int error;

        if (!fault || strncmp(fault, call, n_call) != 0 || fault[n_call] != ':')
                return false;
        n = strtoul(fault + n_call + 1, &end, 10);
        error = (int)strtol(end + 1, &end, 10);
        if (!path || !strstr(path, end + 1) || atomic_fetch_add(&n_seen, 1) + 1 != n)
                return false;
        errno = error;
        return true;
}

static bool fd_fails(const char *call, int fd) {
        char link[64], path[4096];
        ssize_t n;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        n = readlink(link, path, sizeof(path) - 1);
        if (n < 0)
                return false;
        path[n] = '\0';
        return fails(call, path);
}

int open64(const char *path, int flags, ...) {
        va_list args;
        mode_t mode;

        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        return fails("open", path) ? -1 : NEXT(open64)(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
        va_list args;
        mode_t mode;

        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        return fails("open", path) ? -1 : NEXT(openat64)(folder, path, flags, mode);
}

ssize_t pread64(int fd, void *bytes, size_t n_bytes, off64_t offset) {
        return fd_fails("pread", fd) ? -1 : NEXT(pread64)(fd, bytes, n_bytes, offset);
}

ssize_t __pread64_chk(int fd, void *bytes, size_t n_bytes, off64_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *bytes, size_t n_bytes, off64_t offset, size_t room) {
        return fd_fails("pread", fd) ? -1 : NEXT(__pread64_chk)(fd, bytes, n_bytes, offset, room);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n_bytes, off64_t offset) {
        return fd_fails("pwrite", fd) ? -1 : NEXT(pwrite64)(fd, bytes, n_bytes, offset);
}

int fsync(int fd) {
        return fd_fails("fsync", fd) ? -1 : NEXT(fsync)(fd);
}

int ftruncate64(int fd, off64_t n_bytes) {
        return fd_fails("ftruncate", fd) ? -1 : NEXT(ftruncate64)(fd, n_bytes);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
        return fails("rename", to) ? -1 : NEXT(renameat)(from_folder, from, to_folder, to);
}

static void cut(int fd) {
        char link[64];

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (truncate(link, 0) < 0)
                abort();
}

void *mmap64(void *at, size_t n_bytes, int protection, int flags, int fd, off64_t offset) {
        void *map;

        if (fd >= 0 && fd_fails("mmap", fd))
                return MAP_FAILED;
        map = NEXT(mmap64)(at, n_bytes, protection, flags, fd, offset);
        if (fd >= 0 && map != MAP_FAILED && fd_fails("cut", fd))
                cut(fd);
        return map;
}

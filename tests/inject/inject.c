/* SPDX-License-Identifier: Apache-2.0 */
/* See inject.h. Any thread; the call that is counted down to zero is the one that fails. */
#include "inject.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct inject own;
struct inject *inject = &own;

void *__real_mmap64(void *addr, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_open64(const char *path, int flags, ...);

/* Before main(), so that the first call already counts. */
__attribute__((constructor)) static void map_file(void) {
        const char *path = getenv("CARVQ_INJECT");
        void *map;
        int fd;

        if (!path)
                return;
        fd = __real_open64(path, O_RDWR | O_CLOEXEC);
        map = fd < 0 ? MAP_FAILED
                     : __real_mmap64(NULL, sizeof(*inject), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                     0);
        if (map == MAP_FAILED)
                abort();
        close(fd);
        inject = map;
}

static bool fails(enum inject_kind kind) {
        if (atomic_load_explicit(&inject->kind, memory_order_relaxed) != kind ||
            atomic_fetch_sub(&inject->n_before, 1) != 0)
                return false;
        atomic_fetch_add(&inject->n_failed, 1);
        return true;
}

static bool fails_with(enum inject_kind kind, int error) {
        if (!fails(kind))
                return false;
        errno = error;
        return true;
}

#define WRAP(kind, error, failure, type, name, parameters, arguments)                              \
        type __real_##name parameters;                                                             \
        type __wrap_##name parameters;                                                             \
        type __wrap_##name parameters {                                                            \
                return fails_with(kind, error) ? failure : __real_##name arguments;                \
        }

WRAP(INJECT_MEMORY, ENOMEM, NULL, void *, malloc, (size_t n), (n))
WRAP(INJECT_MEMORY, ENOMEM, NULL, void *, calloc, (size_t n, size_t size), (n, size))
WRAP(INJECT_MEMORY, ENOMEM, NULL, void *, realloc, (void *p, size_t n), (p, n))
WRAP(INJECT_MEMORY, ENOMEM, NULL, void *, reallocarray, (void *p, size_t n, size_t size),
     (p, n, size))
WRAP(INJECT_MEMORY, ENOMEM, NULL, void *, aligned_alloc, (size_t alignment, size_t n),
     (alignment, n))
WRAP(INJECT_MEMORY, ENOMEM, NULL, char *, strdup, (const char *s), (s))
WRAP(INJECT_MEMORY, ENOMEM, NULL, char *, strndup, (const char *s, size_t n), (s, n))
WRAP(INJECT_MMAP, ENOMEM, MAP_FAILED, void *, mmap64,
     (void *addr, size_t bytes, int protection, int flags, int fd, off_t offset),
     (addr, bytes, protection, flags, fd, offset))
WRAP(INJECT_OPEN, EMFILE, NULL, FILE *, fopen64, (const char *path, const char *mode), (path, mode))
WRAP(INJECT_SOCKET, EMFILE, -1, int, socket, (int domain, int type, int protocol),
     (domain, type, protocol))
WRAP(INJECT_STAT, EIO, -1, int, fstat64, (int fd, struct stat *st), (fd, st))
WRAP(INJECT_READ, EIO, -1, ssize_t, read, (int fd, void *to, size_t n), (fd, to, n))
WRAP(INJECT_READ, EIO, -1, ssize_t, pread64, (int fd, void *to, size_t n, off_t offset),
     (fd, to, n, offset))
WRAP(INJECT_WRITE, ENOSPC, -1, ssize_t, pwrite64,
     (int fd, const void *from, size_t n, off_t offset), (fd, from, n, offset))
WRAP(INJECT_WRITE, ENOSPC, -1, int, ftruncate64, (int fd, off_t bytes), (fd, bytes))
WRAP(INJECT_SYNC, EIO, -1, int, fsync, (int fd), (fd))
WRAP(INJECT_RENAME, EIO, -1, int, renameat,
     (int from_fd, const char *from, int to_fd, const char *to), (from_fd, from, to_fd, to))
WRAP(INJECT_EVENTFD, EMFILE, -1, int, eventfd, (unsigned count, int flags), (count, flags))
WRAP(INJECT_EVENTFD, EMFILE, -1, int, signalfd, (int fd, const sigset_t *set, int flags),
     (fd, set, flags))
WRAP(INJECT_MEMFD, EMFILE, -1, int, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(INJECT_RECEIVE, ENOBUFS, -1, ssize_t, recv, (int fd, void *to, size_t n, int flags),
     (fd, to, n, flags))
WRAP(INJECT_RECEIVE, ENOBUFS, -1, ssize_t, recvmsg, (int fd, struct msghdr *m, int flags),
     (fd, m, flags))
WRAP(INJECT_SEND, ENOBUFS, -1, ssize_t, send, (int fd, const void *from, size_t n, int flags),
     (fd, from, n, flags))
WRAP(INJECT_SEND, ENOBUFS, -1, ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags),
     (fd, m, flags))
WRAP(INJECT_ACCEPT, EMFILE, -1, int, accept4,
     (int fd, struct sockaddr *address, socklen_t *n, int flags), (fd, address, n, flags))
WRAP(INJECT_EPOLL, ENOMEM, -1, int, epoll_create1, (int flags), (flags))
/* These return what went wrong. */
WRAP(INJECT_THREAD, EAGAIN, EAGAIN, int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*main)(void *), void *userdata),
     (thread, attributes, main, userdata))
WRAP(INJECT_IO_URING, ENOMEM, -ENOMEM, int, io_uring_queue_init_params,
     (unsigned entries, struct io_uring *ring, struct io_uring_params *p), (entries, ring, p))
WRAP(INJECT_IO_URING, EAGAIN, -EAGAIN, int, io_uring_submit, (struct io_uring * ring), (ring))
WRAP(INJECT_IO_URING, EAGAIN, -EAGAIN, int, io_uring_submit_and_wait,
     (struct io_uring * ring, unsigned n), (ring, n))

/* Letting go of a descriptor needs nothing. */
int __real_epoll_ctl(int fd, int op, int of, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int op, int of, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int op, int of, struct epoll_event *event) {
        if (op != EPOLL_CTL_DEL && fails_with(INJECT_EPOLL, ENOMEM))
                return -1;
        return __real_epoll_ctl(fd, op, of, event);
}

/* The optional argument is passed on whether it is there or not, as the C library does. */
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...) {
        va_list arguments;
        mode_t mode;

        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        return fails_with(INJECT_OPEN, EMFILE) ? -1 : __real_open64(path, flags, mode);
}

int __real_openat64(int dir_fd, const char *path, int flags, ...);
int __wrap_openat64(int dir_fd, const char *path, int flags, ...);
int __wrap_openat64(int dir_fd, const char *path, int flags, ...) {
        va_list arguments;
        mode_t mode;

        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        return fails_with(INJECT_OPEN, EMFILE) ? -1 : __real_openat64(dir_fd, path, flags, mode);
}

int __wrap_asprintf(char **ret_text, const char *format, ...);
int __wrap_asprintf(char **ret_text, const char *format, ...) {
        va_list arguments;
        int n;

        if (fails_with(INJECT_MEMORY, ENOMEM)) {
                *ret_text = (char *)1; /* "undefined", says the manual: whoever frees it is wrong */
                return -1;
        }
        va_start(arguments, format);
        n = vasprintf(ret_text, format, arguments);
        va_end(arguments);
        return n;
}

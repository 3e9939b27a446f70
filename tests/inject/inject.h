/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures on demand: the Nth call of a kind fails, in a program that is linked a second time with
 * its own calls of these functions wrapped (--wrap of the linker, so that sanitizers stay what they
 * are, and other libraries' calls do not count). Tests arm it in memory that both have mapped.
 */
#pragma once

#include <stdatomic.h>

enum inject_kind {
        INJECT_NOTHING,
        INJECT_MEMORY,   /* malloc() and its kin, also jansson's: ENOMEM */
        INJECT_MMAP,     /* ENOMEM */
        INJECT_OPEN,     /* open(), openat(), fopen(): EMFILE */
        INJECT_SOCKET,   /* EMFILE */
        INJECT_STAT,     /* fstat(): EIO */
        INJECT_READ,     /* read(), pread(): EIO */
        INJECT_WRITE,    /* pwrite(), ftruncate(): ENOSPC */
        INJECT_SYNC,     /* fsync(): EIO */
        INJECT_RENAME,   /* renameat(): EIO */
        INJECT_EVENTFD,  /* and signalfd(): EMFILE */
        INJECT_MEMFD,    /* memfd_create(): EMFILE */
        INJECT_RECEIVE,  /* recv(), recvmsg(): ENOBUFS */
        INJECT_SEND,     /* send(), sendmsg(): ENOBUFS */
        INJECT_ACCEPT,   /* accept4(): EMFILE */
        INJECT_IO_URING, /* setting up: ENOMEM; submitting: EAGAIN */
        INJECT_EPOLL,    /* epoll_create1(), epoll_ctl(): ENOMEM */
        INJECT_THREAD,   /* pthread_create(): EAGAIN */
        INJECT_KINDS_N,
};

struct inject {
        atomic_uint kind;     /* enum inject_kind */
        atomic_uint n_before; /* calls that still succeed */
        atomic_uint n_failed;
};

/* This process's, or those of the file that $CARVQ_INJECT names. */
extern struct inject *inject;

static inline void inject_arm(struct inject *i, enum inject_kind kind, unsigned n_before) {
        atomic_store(&i->kind, INJECT_NOTHING);
        atomic_store(&i->n_before, n_before);
        atomic_store(&i->n_failed, 0);
        atomic_store(&i->kind, kind);
}

/* True if something failed. */
static inline unsigned inject_disarm(struct inject *i) {
        atomic_store(&i->kind, INJECT_NOTHING);
        return atomic_load(&i->n_failed);
}

#define INJECT_NAMES                                                                               \
        "nothing", "memory", "mmap", "open", "socket", "stat", "read", "write", "sync", "rename",  \
                "eventfd", "memfd", "receive", "send", "accept", "io_uring", "epoll", "thread"

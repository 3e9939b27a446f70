/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that plays carvqd for one client at a time, and one after the other, from the
 * specification alone; it shares no code with either real side. It can play tricks: each is one
 * thing that a broken or hostile daemon could do.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "lib/codec/codec.h"
#include "proto/cache.h"
#include "proto/wire.h"

#define FAKE_CACHE_SETS 128u

enum trick {
        TRICK_NONE,
        /* Handshake. */
        TRICK_CLOSE_AT_ACCEPT,
        TRICK_REFUSE_AT_ACCEPT, /* ERROR before HELLO was read: the session limit */
        TRICK_SILENT_AT_HELLO,
        TRICK_CLOSE_AT_HELLO,
        TRICK_REFUSE_VERSION,
        TRICK_REFUSE_INTERNAL,
        TRICK_REFUSE_UNKNOWN_STATUS,
        TRICK_WELCOME_MAGIC,
        TRICK_WELCOME_MAJOR,
        TRICK_WELCOME_MAJOR_LONGER,
        TRICK_WELCOME_SHORT,
        TRICK_WELCOME_LONG,
        TRICK_WELCOME_HUGE,
        TRICK_WELCOME_FEATURES,
        TRICK_WELCOME_MAX_IDS,
        TRICK_WELCOME_WITH_FD,
        TRICK_WELCOME_WITH_FDS, /* more than any receiver makes room for */
        TRICK_WELCOME_SMALL_RING,
        TRICK_WAKE_FOR_WELCOME,
        TRICK_EMPTY_FOR_WELCOME,
        TRICK_SILENT_AT_RING,
        TRICK_CLOSE_AT_RING,
        TRICK_REFUSE_RING,
        TRICK_READY_WITHOUT_FD,
        TRICK_READY_WITH_PIPE,
        /* OPEN_TABLE. */
        TRICK_SILENT_AT_OPEN,
        TRICK_CLOSE_AT_OPEN,
        TRICK_ERROR_AT_OPEN,
        TRICK_TABLE_LIMIT,
        TRICK_TABLE_INTERNAL,
        TRICK_TABLE_NO_ROWS,
        TRICK_TABLE_DIMS,
        TRICK_TABLE_REQUEST,          /* answers what was never asked */
        TRICK_TABLE_TEXT,             /* control characters in the reason */
        TRICK_TABLE_GONE,             /* no longer published */
        TRICK_TABLE_OTHER,            /* of another shape */
        TRICK_CLIENT_MESSAGE_AT_OPEN, /* a message that is the client's to send */
        /* GET_FILE. */
        TRICK_SILENT_AT_FILE,
        TRICK_FILE_REFUSED,
        TRICK_FILE_REFUSED_WITH_FD,
        TRICK_FILE_WITHOUT_FD,
        TRICK_FILE_WITH_FDS,
        TRICK_FILE_REQUEST,
        TRICK_FILE_IS_PIPE,
        TRICK_FILE_IS_SOCKET,
        TRICK_FILE_IS_FOLDER,
        TRICK_FILE_IS_ZERO,
        TRICK_FILE_IS_PATH,
        TRICK_FILE_EMPTY,
        TRICK_FILE_SHORT,
        TRICK_FILE_GARBAGE,
        TRICK_FILE_OTHER,   /* a table of another shape */
        TRICK_FILE_CHANGES, /* `copy_fd` is what the client maps, for the test to write to */
        /* GET_CACHE. */
        TRICK_SILENT_AT_CACHE,
        TRICK_CACHE_REFUSED_WITH_FD,
        TRICK_CACHE_WITHOUT_FD,
        TRICK_CACHE_REQUEST,
        TRICK_CACHE_IS_PIPE,
        TRICK_CACHE_IS_FILE,
        TRICK_CACHE_CAN_SHRINK, /* the seal is missing */
        TRICK_CACHE_SHORT,
        TRICK_CACHE_LONG,
        TRICK_CACHE_NO_SETS,
        TRICK_CACHE_MANY_SETS,
        TRICK_CACHE_LIES, /* `copy_fd` is the memory, for the test to write to */
        /* The rings. */
        TRICK_SILENT_AT_SUBMIT,
        TRICK_STOPPED_AT_SUBMIT, /* silent, and its heartbeat is old */
        TRICK_CLOSE_AT_SUBMIT,
        TRICK_CLOSE_AFTER_COMPLETION,
        TRICK_CLOSE_WHEN_HELD, /* once `hold` is set */
        TRICK_ERROR_AT_SUBMIT,
        TRICK_GARBAGE_AT_SUBMIT,
        TRICK_FLOOD_AT_SUBMIT, /* WAKE without end */
        TRICK_CQ_TAIL_AHEAD,
        TRICK_CQ_TAIL_BACK,
        TRICK_SQ_HEAD_AHEAD,
        TRICK_UNKNOWN_TICKET,
        TRICK_COMPLETE_TWICE,
        TRICK_WRONG_ROWS,
        TRICK_ROW_FIRST,
        TRICK_STATUS_UNKNOWN,
        TRICK_FLAG_MORE,
        TRICK_DETAIL_PAST_END,
        TRICK_STATUS_INVALID,
        TRICK_STATUS_NO_TABLE,
        TRICK_STATUS_RETIRED,
        TRICK_STATUS_NO_MEMORY,
};

struct fake_daemon {
        char path[96];
        _Atomic enum trick trick; /* of the connection that is served */
        struct codec_file file;   /* published as "t" */
        uint32_t max_ids;
        uint64_t features; /* that it has */
        int file_fd, copy_fd;

        _Atomic bool stop;
        _Atomic bool hold; /* takes nothing from the submission ring while set */
        _Atomic uint32_t n_taken, n_wakes, n_doorbells, n_opened, n_closed, n_caches_asked;
        _Atomic uint32_t n_connections; /* served, or being served */
        _Atomic uint64_t epoch;         /* of the connections to come */
        int listen_fd, control_fd;
        pthread_t thread;

        /* The tricks of later connections; without any there is one connection. The last one is
         * for all that follow. */
        const enum trick *later;
        uint32_t n_later;

        /* Of the connection that is served; the thread's own. */
        int fd, memfd, doorbell_fd;
        struct ring_layout layout;
        uint8_t *memory;
        struct ring_header *header;
        uint32_t sq_head, cq_tail, answered;
};

/* `dir` gets the socket; `table_path` is what it serves. Fails the test when it cannot start. */
void fake_daemon_start(struct fake_daemon *fake, const char *dir, const char *table_path,
                       enum trick trick);
void fake_daemon_stop(struct fake_daemon *fake);

/* Sets `hold` and makes the thread look at it. */
void fake_daemon_hold(struct fake_daemon *fake, bool hold);

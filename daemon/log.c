/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See log.h. A line is built in a fixed buffer and leaves in one call, so threads do not mix their
 * lines; what does not fit is cut. Values may come from clients: they cannot start a line.
 */
#include "log.h"

#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "proto/spin.h"

#define LOG_MESSAGE_BYTES 1024
#define LOG_LINE_BYTES    4096
#define LOG_FIELDS_MAX    8
#define LOG_NAME_BYTES    40 /* of a field, and what goes between name and value */
#define LOG_MORE_BYTES    80

#define NS_PER_S          UINT64_C(1000000000)

static const struct {
        enum log_level level;
        const char *name;
} names[] = {
        { LOG_LEVEL_ERROR, "error" },   { LOG_LEVEL_WARNING, "warning" },
        { LOG_LEVEL_NOTICE, "notice" }, { LOG_LEVEL_INFO, "info" },
        { LOG_LEVEL_DEBUG, "debug" },
};

static atomic_int level_max = LOG_LEVEL_INFO;

int log_level_parse(const char *text, enum log_level *ret_level) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (!strcmp(names[i].name, text)) {
                        *ret_level = names[i].level;
                        return 0;
                }
        return -EINVAL;
}

void log_set_level(enum log_level level) {
        atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

static const char *level_name(enum log_level level) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (names[i].level == level)
                        return names[i].name;
        return "unknown";
}

/* systemd.exec(5), JOURNAL_STREAM: "device:inode" of the stream it connected; ours may differ. */
static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        uintmax_t device, inode;
        struct stat st;

        if (!stream || sscanf(stream, "%ju:%ju", &device, &inode) != 2)
                return false;
        return fstat(STDERR_FILENO, &st) >= 0 && st.st_dev == device && st.st_ino == inode;
}

static int journal_fd = -1; /* -1: to stderr */
static pthread_once_t choose_once = PTHREAD_ONCE_INIT;

static void choose(void) {
        if (stderr_is_journal())
                journal_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

/* Of the journal's native protocol: a line NAME=value, or, where the value has line ends, its
 * length as 64 bits, little-endian, in front of it. */
static size_t add_field(char *datagram, size_t length, const char *name, const char *value) {
        uint64_t n_bytes = MIN(strlen(value), LOG_MESSAGE_BYTES);
        bool is_long = memchr(value, '\n', n_bytes);

        length = (size_t)(stpcpy(datagram + length, name) - datagram);
        datagram[length++] = is_long ? '\n' : '=';
        if (is_long) {
                uint64_t le = htole64(n_bytes);

                memcpy(datagram + length, &le, sizeof(le));
                length += sizeof(le);
        }
        memcpy(datagram + length, value, n_bytes);
        datagram[length + n_bytes] = '\n';
        return length + n_bytes + 1;
}

/* libsystemd's own function waits for a journal that is stuck, or stopped. */
static bool send_to_journal(enum log_level level, const char *const *fields, const char *message) {
        static const struct sockaddr_un journal = { .sun_family = AF_UNIX,
                                                    .sun_path = "/run/systemd/journal/socket" };
        char datagram[(LOG_FIELDS_MAX + 3) * (LOG_MESSAGE_BYTES + LOG_NAME_BYTES)];
        const char priority[2] = { (char)('0' + (int)level) };
        size_t length = 0;

        length = add_field(datagram, length, "MESSAGE", message);
        length = add_field(datagram, length, "PRIORITY", priority);
        length = add_field(datagram, length, "SYSLOG_IDENTIFIER", "carvqd");
        for (int i = 0; i < LOG_FIELDS_MAX && fields && fields[0]; i++, fields += 2)
                length = add_field(datagram, length, fields[0], fields[1]);
        return sendto(journal_fd, datagram, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                      (const struct sockaddr *)&journal, sizeof(journal)) >= 0;
}

static size_t append(char line[LOG_LINE_BYTES], size_t length, const char *text) {
        for (; *text && length < LOG_LINE_BYTES - 1; text++)
                line[length++] = (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
        return length;
}

/*
 * What polls as writable takes a line without waiting: a pipe then has room for PIPE_BUF bytes. It
 * is nobody's business here to make a descriptor that others share non-blocking.
 */
static bool write_line(const char *line, size_t length) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
        ssize_t n;

        n = send(STDERR_FILENO, line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK) {
                pthread_mutex_lock(&lock);
                if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT))
                        n = write(STDERR_FILENO, line, length);
                pthread_mutex_unlock(&lock);
        }
        return n == (ssize_t)length;
}

static bool send_to_stderr(enum log_level level, const char *const *fields, const char *message) {
        char line[LOG_LINE_BYTES];
        size_t length = 0;

        length = append(line, length, level_name(level));
        length = append(line, length, " ");
        length = append(line, length, message);
        for (; fields && fields[0]; fields += 2) {
                length = append(line, length, " ");
                length = append(line, length, fields[0]);
                length = append(line, length, "=");
                length = append(line, length, fields[1]);
        }
        line[length++] = '\n'; /* append() leaves one byte */
        return write_line(line, length);
}

static bool send_line(enum log_level level, const char *const *fields, const char *message) {
        pthread_once(&choose_once, choose);
        return journal_fd >= 0 ? send_to_journal(level, fields, message)
                               : send_to_stderr(level, fields, message);
}

/* A line that is not taken is lost: nobody's rows wait for a log. The next one that is taken tells
 * how many. */
static void emit(enum log_level level, const char *const *fields, const char *message) {
        static _Atomic uint64_t n_lost;
        char text[96];
        uint64_t n;

        if (!send_line(level, fields, message)) {
                atomic_fetch_add_explicit(&n_lost, 1, memory_order_relaxed);
                return;
        }
        n = atomic_exchange_explicit(&n_lost, 0, memory_order_relaxed);
        if (!n)
                return;
        snprintf(text, sizeof(text), "%" PRIu64 " lines of this log were lost: nobody took them",
                 n);
        if (!send_line(LOG_LEVEL_WARNING, NULL, text))
                atomic_fetch_add_explicit(&n_lost, n, memory_order_relaxed);
}

static bool is_shown(enum log_level level) {
        return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

void log_fields(enum log_level level, const char *const *fields, const char *format, ...) {
        char message[LOG_MESSAGE_BYTES];
        int saved_errno = errno;
        va_list arguments;

        if (!is_shown(level))
                return;
        va_start(arguments, format);
        vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        emit(level, fields, message);
        errno = saved_errno;
}

/* False: this one is left out. Else what the line has to end with. */
static bool admit(struct log_limit *limit, char ret_more[LOG_MORE_BYTES]) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        uint64_t now_ns = clock_ns();
        bool admitted;

        pthread_mutex_lock(&lock);
        admitted = now_ns >= limit->next_ns;
        if (!admitted) {
                if (!limit->n_left_out++)
                        limit->first_ns = now_ns;
        } else {
                if (limit->n_left_out)
                        snprintf(ret_more, LOG_MORE_BYTES,
                                 ", and %" PRIu64 " more like this in the last %" PRIu64 " s",
                                 limit->n_left_out, (now_ns - limit->first_ns) / NS_PER_S + 1);
                limit->next_ns = now_ns + NS_PER_S;
                limit->n_left_out = 0;
        }
        pthread_mutex_unlock(&lock);
        return admitted;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *const *fields,
                 const char *format, ...) {
        char message[LOG_MESSAGE_BYTES], more[LOG_MORE_BYTES] = "";
        int saved_errno = errno;
        va_list arguments;

        if (!is_shown(level) || (level != LOG_LEVEL_DEBUG && !admit(limit, more))) {
                errno = saved_errno;
                return;
        }
        va_start(arguments, format);
        vsnprintf(message, sizeof(message) - sizeof(more), format, arguments);
        va_end(arguments);
        strcat(message, more);
        emit(level, fields, message);
        errno = saved_errno;
}

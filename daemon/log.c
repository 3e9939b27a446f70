/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See log.h. A line is built in a fixed buffer and leaves in one call, so threads do not mix their
 * lines; what does not fit is cut. Values may come from clients: they cannot start a line.
 */
#include "log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LOG_MESSAGE_BYTES 1024
#define LOG_LINE_BYTES    4096
#define LOG_FIELDS_MAX    8

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

static bool to_journal;
static pthread_once_t choose_once = PTHREAD_ONCE_INIT;

static void choose(void) {
        to_journal = stderr_is_journal();
}

/* The journal keeps any bytes in a value apart, so nothing needs escaping. */
static void send_to_journal(enum log_level level, const char *const *fields, const char *message) {
        char lines[LOG_FIELDS_MAX + 3][LOG_MESSAGE_BYTES + 16];
        struct iovec parts[ARRAY_SIZE(lines)];
        int n = 0;

        snprintf(lines[n++], sizeof(lines[0]), "MESSAGE=%s", message);
        snprintf(lines[n++], sizeof(lines[0]), "PRIORITY=%d", (int)level);
        snprintf(lines[n++], sizeof(lines[0]), "SYSLOG_IDENTIFIER=carvqd");
        for (; fields && fields[0] && n < (int)ARRAY_SIZE(lines); fields += 2)
                snprintf(lines[n++], sizeof(lines[0]), "%s=%s", fields[0], fields[1]);
        for (int i = 0; i < n; i++)
                parts[i] = (struct iovec){ lines[i], strlen(lines[i]) };
        sd_journal_sendv(parts, n);
}

static size_t append(char line[LOG_LINE_BYTES], size_t length, const char *text) {
        for (; *text && length < LOG_LINE_BYTES - 1; text++)
                line[length++] = (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
        return length;
}

static void send_to_stderr(enum log_level level, const char *const *fields, const char *message) {
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
        (void)write(STDERR_FILENO, line, length);
}

void log_fields(enum log_level level, const char *const *fields, const char *format, ...) {
        char message[LOG_MESSAGE_BYTES];
        int saved_errno = errno;
        va_list arguments;

        if ((int)level > atomic_load_explicit(&level_max, memory_order_relaxed))
                return;
        va_start(arguments, format);
        vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);

        pthread_once(&choose_once, choose);
        if (to_journal)
                send_to_journal(level, fields, message);
        else
                send_to_stderr(level, fields, message);
        errno = saved_errno;
}

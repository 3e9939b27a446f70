/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line for each decision, to the journal with fields when stderr is connected to it
 * (JOURNAL_STREAM), else to stderr as "LEVEL message FIELD=value". Thread-safe. Never waits: where
 * nobody takes the lines they are lost, and counted. The library and the codec never log.
 */
#pragma once

#include "proto/base.h"

enum log_level {
        LOG_LEVEL_ERROR = 3, /* syslog's numbers */
        LOG_LEVEL_WARNING = 4,
        LOG_LEVEL_NOTICE = 5,
        LOG_LEVEL_INFO = 6,
        LOG_LEVEL_DEBUG = 7,
};

/* "error", "warning", "notice", "info", "debug"; -EINVAL. */
int log_level_parse(const char *text, enum log_level *ret_level);
void log_set_level(enum log_level level);

/*
 * `fields`: "TABLE=gemma\0CLIENT_PID=12\0" style is clumsy in C, so each is one argument: pairs of
 * name and value, ended by NULL.   log_fields(LOG_LEVEL_INFO, (const char *[]){ "TABLE", name, NULL
 * }, "...", ...)
 */
void log_fields(enum log_level level, const char *const *fields, const char *format, ...)
        _printf_(3, 4);

/*
 * For what others than administrators can cause, however often they like: at most one line a second
 * for each limit, and the next one says how many were left out. A limit is static, of zeros, and
 * belongs to one place in the code. Debugging is asked for, and gets all.
 */
struct log_limit {
        uint64_t next_ns;  /* no line before; CLOCK_MONOTONIC */
        uint64_t first_ns; /* of those that were left out */
        uint64_t n_left_out;
};

void log_limited(struct log_limit *limit, enum log_level level, const char *const *fields,
                 const char *format, ...) _printf_(4, 5);

#define log_error(...)   log_fields(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_notice(...)  log_fields(LOG_LEVEL_NOTICE, NULL, __VA_ARGS__)
#define log_info(...)    log_fields(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_debug(...)   log_fields(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)

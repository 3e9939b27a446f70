/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of [carvqd], which are the long options: one list serves the command line, the file and
 * the comparison after a reload, so that they cannot differ. Values are text from a person, checked
 * here.
 */
#include "config-impl.h"

#include <string.h>
#include <sys/un.h>

#include "lib/codec/codec.h"
#include "proto/ring.h"
#include "proto/wire.h"

#define SPIN_US_MAX           1000000u
#define WORKERS_MAX           256u
#define SESSIONS_MAX          65536u
#define HANDSHAKES_MAX        1000000u
#define SOCKET_PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

int config_set_string(char **string, const char *value) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*string);
        *string = copy;
        return 0;
}

int config_set_path(char **path, const char *value, size_t bytes_max, struct fault *ret_fault) {
        if (!*value || strlen(value) > bytes_max)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.120s', expected a path of 1 to %zu bytes", value,
                                 bytes_max);
        return config_set_string(path, value);
}

static int set_socket(struct config *c, const char *value, struct fault *ret_fault) {
        return config_set_path(&c->socket_path, value, SOCKET_PATH_BYTES_MAX, ret_fault);
}

static int set_control(struct config *c, const char *value, struct fault *ret_fault) {
        return config_set_path(&c->control_path, value, SOCKET_PATH_BYTES_MAX, ret_fault);
}

/* Empty: none, not even the default. */
static int set_tables_dir(struct config *c, const char *value, struct fault *ret_fault) {
        if (!*value)
                return config_set_string(&c->tables_dir, "");
        return config_set_path(&c->tables_dir, value, 4095, ret_fault);
}

/* Decimal digits, and K, M, G or T for powers of 1024 behind them where `suffixes` allow. */
static int parse_number(const char *value, const char *suffixes, uint64_t min, uint64_t max,
                        uint64_t *ret_number, struct fault *ret_fault) {
        const char *suffix;
        uint64_t number;
        char *end;

        errno = 0;
        number = strtoull(value, &end, 10);
        suffix = *end ? strchr(suffixes, *end) : NULL;
        if (suffix && !end[1]) {
                if (__builtin_mul_overflow(number, UINT64_C(1024) << (10 * (suffix - suffixes)),
                                           &number))
                        errno = ERANGE;
                end++;
        }
        if (value[0] < '0' || value[0] > '9' || *end || errno || number < min || number > max)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected a number from %" PRIu64 " to %" PRIu64,
                                 value, min, max);
        *ret_number = number;
        return 0;
}

int config_parse_cache_bytes(const char *value, uint64_t *ret_bytes, struct fault *ret_fault) {
        if (!strcmp(value, "auto")) {
                *ret_bytes = CONFIG_CACHE_AUTO;
                return 0;
        }
        if (parse_number(value, "KMGT", 0, RING_BYTES_MAX, ret_bytes, NULL) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected auto or a number from 0 to %" PRIu64, value,
                                 RING_BYTES_MAX);
        return 0;
}

static int set_cache_bytes(struct config *c, const char *value, struct fault *ret_fault) {
        return config_parse_cache_bytes(value, &c->cache_bytes, ret_fault);
}

static int set_log_level(struct config *c, const char *value, struct fault *ret_fault) {
        if (log_level_parse(value, &c->log_level) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected error, warning, notice, info or debug",
                                 value);
        return 0;
}

static int set_event_loop(struct config *c, const char *value, struct fault *ret_fault) {
        static const char *const names[] = {
                [LOOP_AUTO] = "auto", [LOOP_IO_URING] = "io_uring", [LOOP_EPOLL] = "epoll"
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                if (strcmp(value, names[i]) != 0)
                        continue;
                c->event_loop = (enum loop_choice)i;
                return 0;
        }
        return fault_set(ret_fault, -EINVAL, "is '%.100s', expected auto, io_uring or epoll",
                         value);
}

static int set_cpu_mask(struct config *c, const char *value, struct fault *ret_fault) {
        if (codec_cpu_mask_parse(value, &c->cpu_mask) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected kernels such as scalar, avx512 or all",
                                 value);
        return 0;
}

static int set_spin_us(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t us;
        int r;

        r = parse_number(value, "", 0, SPIN_US_MAX, &us, ret_fault);
        if (r < 0)
                return r;
        c->spin_ns_max = us * 1000;
        return 0;
}

static int set_workers(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t n;
        int r;

        r = parse_number(value, "", 1, WORKERS_MAX, &n, ret_fault);
        if (r < 0)
                return r;
        c->n_workers = (uint32_t)n;
        return 0;
}

static int set_max_sessions(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t n;
        int r;

        r = parse_number(value, "", 1, SESSIONS_MAX, &n, ret_fault);
        if (r < 0)
                return r;
        c->max_sessions = (uint32_t)n;
        return 0;
}

static int set_max_ring_bytes(struct config *c, const char *value, struct fault *ret_fault) {
        /* At least what the smallest geometry needs. */
        return parse_number(value, "KMGT", 8 * RING_PAGE_BYTES, RING_BYTES_MAX, &c->max_ring_bytes,
                            ret_fault);
}

/* Shared by those below; the smallest limit that lets anything through is 1. */
static int set_user_max(struct config *c, enum quota_kind kind, const char *value,
                        const char *suffixes, uint64_t max, struct fault *ret_fault) {
        return parse_number(value, suffixes, 1, max, &c->user_max[kind], ret_fault);
}

static int set_user_sessions(struct config *c, const char *value, struct fault *ret_fault) {
        if (!strcmp(value, "auto")) {
                c->user_max[QUOTA_SESSIONS] = 0;
                return 0;
        }
        if (set_user_max(c, QUOTA_SESSIONS, value, "", SESSIONS_MAX, NULL) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected auto or a number from 1 to %u", value,
                                 SESSIONS_MAX);
        return 0;
}

static int set_user_ring_bytes(struct config *c, const char *value, struct fault *ret_fault) {
        return set_user_max(c, QUOTA_RING_BYTES, value, "KMGT", UINT64_C(1) << 62, ret_fault);
}

static int set_user_tables(struct config *c, const char *value, struct fault *ret_fault) {
        return set_user_max(c, QUOTA_TABLES, value, "", SESSIONS_MAX * WIRE_TABLES_MAX, ret_fault);
}

static int set_user_ids(struct config *c, const char *value, struct fault *ret_fault) {
        return set_user_max(c, QUOTA_IDS, value, "KMGT", UINT64_C(1) << 40, ret_fault);
}

static int set_user_handshakes(struct config *c, const char *value, struct fault *ret_fault) {
        return set_user_max(c, QUOTA_HANDSHAKES, value, "", HANDSHAKES_MAX, ret_fault);
}

/* What is left of the sessions is for somebody else, however many one user opens. */
void config_user_limits(const struct config *c, uint64_t ret_limits[QUOTA_KINDS_N]) {
        memcpy(ret_limits, c->user_max, sizeof(c->user_max));
        if (!ret_limits[QUOTA_SESSIONS])
                ret_limits[QUOTA_SESSIONS] = c->max_sessions - c->max_sessions / 4;
}

#define TEXT(field)   offsetof(struct config, field), 0
#define NUMBER(field) offsetof(struct config, field), sizeof(((struct config *)NULL)->field)

const struct setting config_settings[] = {
        [SETTING_SOCKET] = { "socket", set_socket, TEXT(socket_path), false },
        [SETTING_CONTROL] = { "control", set_control, TEXT(control_path), false },
        { "tables-dir", set_tables_dir, TEXT(tables_dir), true },
        { "cache-bytes", set_cache_bytes, NUMBER(cache_bytes), true },
        { "log-level", set_log_level, NUMBER(log_level), true },
        { "cpu-mask", set_cpu_mask, NUMBER(cpu_mask), false },
        { "event-loop", set_event_loop, NUMBER(event_loop), false },
        { "spin-us", set_spin_us, NUMBER(spin_ns_max), false },
        { "workers", set_workers, NUMBER(n_workers), false },
        { "max-sessions", set_max_sessions, NUMBER(max_sessions), true },
        { "max-ring-bytes", set_max_ring_bytes, NUMBER(max_ring_bytes), true },
        { "max-sessions-per-user", set_user_sessions, NUMBER(user_max[QUOTA_SESSIONS]), true },
        { "max-ring-bytes-per-user", set_user_ring_bytes, NUMBER(user_max[QUOTA_RING_BYTES]),
          true },
        { "max-tables-per-user", set_user_tables, NUMBER(user_max[QUOTA_TABLES]), true },
        { "max-ids-in-flight-per-user", set_user_ids, NUMBER(user_max[QUOTA_IDS]), true },
        { "max-handshakes-per-second-per-user", set_user_handshakes,
          NUMBER(user_max[QUOTA_HANDSHAKES]), true },
};

const size_t config_n_settings = ARRAY_SIZE(config_settings);

/* As they are now: the daemon writes the sockets that it was passed into its own. */
int config_remember(struct config *config) {
        int r = 0;

        config->as_read = calloc(1, sizeof(*config->as_read));
        if (!config->as_read)
                return -ENOMEM;
        for (size_t i = 0; i < config_n_settings && r >= 0; i++) {
                const struct setting *s = &config_settings[i];
                const uint8_t *from = (const uint8_t *)config + s->offset;
                uint8_t *to = (uint8_t *)config->as_read + s->offset;

                if (s->live)
                        continue;
                if (s->bytes)
                        memcpy(to, from, s->bytes);
                else
                        r = config_set_string((char **)(void *)to,
                                              *(char *const *)(const void *)from);
        }
        return r;
}

static bool same(const struct setting *setting, const struct config *a, const struct config *b) {
        const uint8_t *x = (const uint8_t *)a + setting->offset,
                      *y = (const uint8_t *)b + setting->offset;

        if (setting->bytes)
                return !memcmp(x, y, setting->bytes);
        return !strcmp(*(char *const *)(const void *)x, *(char *const *)(const void *)y);
}

size_t config_restart_keys(const struct config *running, const struct config *reloaded,
                           const char *ret_keys[CONFIG_RESTART_KEYS_MAX]) {
        size_t n = 0;

        for (size_t i = 0; i < config_n_settings && n < CONFIG_RESTART_KEYS_MAX; i++)
                if (!config_settings[i].live &&
                    !same(&config_settings[i], running->as_read, reloaded))
                        ret_keys[n++] = config_settings[i].name;
        return n;
}

/* A string's pointer is exchanged like a number: both stay owned. */
static void swap(struct config *a, struct config *b, size_t offset, size_t bytes) {
        uint8_t x[sizeof(uint64_t)];

        memcpy(x, (uint8_t *)a + offset, bytes);
        memcpy((uint8_t *)a + offset, (uint8_t *)b + offset, bytes);
        memcpy((uint8_t *)b + offset, x, bytes);
}

void config_swap_live(struct config *running, struct config *reloaded) {
        swap(running, reloaded, offsetof(struct config, tables), sizeof(running->tables));
        swap(running, reloaded, offsetof(struct config, tables_dir_is_default), sizeof(bool));
        for (size_t i = 0; i < config_n_settings; i++) {
                const struct setting *s = &config_settings[i];

                if (s->live)
                        swap(running, reloaded, s->offset, s->bytes ? s->bytes : sizeof(char *));
        }
}

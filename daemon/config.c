/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config.h. One list of settings serves the command line and the file, so that they cannot
 * differ: a setting's name is its long option and its key in the section [carvqd]. Main thread,
 * before anything else runs.
 */
#include "config.h"

#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "lib/codec/codec.h"
#include "proto/ring.h"
#include "proto/wire.h"

#define CONFIG_DEFAULT_PATH "/etc/carvq/carvqd.conf"
#define CONFIG_SPIN_US_MAX  1000000u
#define CONFIG_WORKERS_MAX  256u

static int set_string(char **string, const char *value) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*string);
        *string = copy;
        return 0;
}

/* ---- The settings: each 0, or a negative errno and a fault that names what was expected ---- */

static int set_path(char **path, const char *value, size_t bytes_max, struct fault *ret_fault) {
        if (!*value || strlen(value) > bytes_max)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.120s', expected a path of 1 to %zu bytes", value,
                                 bytes_max);
        return set_string(path, value);
}

#define SOCKET_PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

static int set_socket(struct config *c, const char *value, struct fault *ret_fault) {
        return set_path(&c->socket_path, value, SOCKET_PATH_BYTES_MAX, ret_fault);
}

static int set_control(struct config *c, const char *value, struct fault *ret_fault) {
        return set_path(&c->control_path, value, SOCKET_PATH_BYTES_MAX, ret_fault);
}

static int set_tables_dir(struct config *c, const char *value, struct fault *ret_fault) {
        return set_path(&c->tables_dir, value, 4095, ret_fault);
}

static int check_name(const char *name, struct fault *ret_fault) {
        if (wire_table_name_valid(name))
                return 0;
        return fault_set(ret_fault, -EINVAL,
                         "names a table '%.140s', expected 1 to %u of A-Z a-z 0-9 . _ -, "
                         "not starting with a dot",
                         name, WIRE_NAME_BYTES - 1);
}

/* The later of two of the same name wins; 1 if there was one. */
static int put_table(struct config *c, const char *name, const char *path,
                     struct fault *ret_fault) {
        struct config_table *t;
        int r;

        r = check_name(name, ret_fault);
        if (r < 0)
                return r;
        STAILQ_FOREACH(t, &c->tables, link) {
                if (!strcmp(t->name, name)) {
                        r = set_path(&t->path, path, 4095, ret_fault);
                        return r < 0 ? r : 1;
                }
        }
        t = calloc(1, sizeof(*t));
        if (!t)
                return -ENOMEM;
        r = set_path(&t->path, path, 4095, ret_fault);
        if (r >= 0)
                r = set_string(&t->name, name);
        if (r < 0) {
                free(t->path);
                free(t);
                return r;
        }
        STAILQ_INSERT_TAIL(&c->tables, t, link);
        return 0;
}

static int set_table(struct config *c, const char *value, struct fault *ret_fault) {
        const char *equals = strchr(value, '=');
        _cleanup_(freep) char *name = NULL;
        int r;

        if (!equals)
                return fault_set(ret_fault, -EINVAL, "is '%.200s', expected NAME=PATH", value);
        name = strndup(value, (size_t)(equals - value));
        if (!name)
                return -ENOMEM;
        r = put_table(c, name, equals + 1, ret_fault);
        return MIN(r, 0);
}

static int parse_number(const char *value, const char *suffixes, uint64_t min, uint64_t max,
                        uint64_t *ret_number, struct fault *ret_fault);

static int parse_cache_bytes(const char *value, uint64_t *ret_bytes, struct fault *ret_fault) {
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
        return parse_cache_bytes(value, &c->cache_bytes, ret_fault);
}

/* The later of two of the same name wins. */
static int put_cache(struct config *c, const char *name, const char *value,
                     struct fault *ret_fault) {
        struct config_cache *cache;
        uint64_t bytes = 0;
        int r;

        r = check_name(name, ret_fault);
        if (r >= 0)
                r = parse_cache_bytes(value, &bytes, ret_fault);
        if (r < 0)
                return r;
        cache = calloc(1, sizeof(*cache));
        if (!cache)
                return -ENOMEM;
        cache->bytes = bytes;
        r = set_string(&cache->name, name);
        if (r < 0)
                free(cache);
        else
                STAILQ_INSERT_HEAD(&c->caches, cache, link);
        return r;
}

static int set_table_cache(struct config *c, const char *value, struct fault *ret_fault) {
        const char *equals = strchr(value, '=');
        _cleanup_(freep) char *name = NULL;

        if (!equals)
                return fault_set(ret_fault, -EINVAL, "is '%.200s', expected NAME=BYTES", value);
        name = strndup(value, (size_t)(equals - value));
        return name ? put_cache(c, name, equals + 1, ret_fault) : -ENOMEM;
}

uint64_t config_cache_bytes(const struct config *c, const char *name) {
        const struct config_cache *cache;

        STAILQ_FOREACH(cache, &c->caches, link) {
                if (!strcmp(cache->name, name))
                        return cache->bytes;
        }
        return c->cache_bytes;
}

static int set_log_level(struct config *c, const char *value, struct fault *ret_fault) {
        if (log_level_parse(value, &c->log_level) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected error, warning, notice, info or debug",
                                 value);
        return 0;
}

static int set_cpu_mask(struct config *c, const char *value, struct fault *ret_fault) {
        if (codec_cpu_mask_parse(value, &c->cpu_mask) < 0)
                return fault_set(ret_fault, -EINVAL,
                                 "is '%.100s', expected kernels such as scalar, avx512 or all",
                                 value);
        return 0;
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

static int set_spin_us(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t us;
        int r;

        r = parse_number(value, "", 0, CONFIG_SPIN_US_MAX, &us, ret_fault);
        if (r < 0)
                return r;
        c->spin_ns_max = us * 1000;
        return 0;
}

static int set_workers(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t n;
        int r;

        r = parse_number(value, "", 1, CONFIG_WORKERS_MAX, &n, ret_fault);
        if (r < 0)
                return r;
        c->n_workers = (uint32_t)n;
        return 0;
}

static int set_max_sessions(struct config *c, const char *value, struct fault *ret_fault) {
        uint64_t n;
        int r;

        r = parse_number(value, "", 1, 65536, &n, ret_fault);
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

static const struct setting {
        const char *name;
        int (*set)(struct config *config, const char *value, struct fault *ret_fault);
} settings[] = {
        { "socket", set_socket },
        { "control", set_control },
        { "table", set_table },
        { "tables-dir", set_tables_dir },
        { "cache-bytes", set_cache_bytes },
        { "table-cache", set_table_cache },
        { "log-level", set_log_level },
        { "cpu-mask", set_cpu_mask },
        { "spin-us", set_spin_us },
        { "workers", set_workers },
        { "max-sessions", set_max_sessions },
        { "max-ring-bytes", set_max_ring_bytes },
};

/* ---- Defaults ---- */

static const char help[] =
        "Usage: carvqd [OPTION]...\n"
        "Serve rows of compressed embedding tables to the processes of this host.\n"
        "\n"
        "  --config FILE        read settings from FILE; the command line overrides them\n"
        "                       (default: /etc/carvq/carvqd.conf where it exists)\n"
        "  --socket PATH        where clients connect (default: carvqd.sock in\n"
        "                       $RUNTIME_DIRECTORY, else /run/carvq for root, else\n"
        "                       $XDG_RUNTIME_DIR/carvq)\n"
        "  --control PATH       where carvqctl connects (default: control.sock there)\n"
        "  --table NAME=PATH    serve the .carvq file PATH as NAME; may be repeated\n"
        "  --tables-dir DIR     serve each NAME.carvq in DIR as NAME\n"
        "  --cache-bytes N      keep rows that are used most decoded, for clients to read\n"
        "                       at once, in at most N bytes a table; 0: none; auto:\n"
        "                       for tables with an adaptor, as much as their file, at\n"
        "                       most 64M (default: auto)\n"
        "  --table-cache NAME=N the same for one table; may be repeated\n"
        "  --log-level LEVEL    error, warning, notice, info or debug (default: info)\n"
        "  --cpu-mask LIST      decode with these kernels only: scalar, avx512 ...\n"
        "                       (default: all that this CPU has)\n"
        "  --spin-us N          busy-wait up to N microseconds before sleeping, 0: never\n"
        "                       (default: 50)\n"
        "  --workers N          threads that decode; clients are spread over them. None\n"
        "                       of as many as there are CPUs busy-waits (default: 1)\n"
        "  --max-sessions N     clients connected at once (default: 1024)\n"
        "  --max-ring-bytes N   shared memory of one client, K M G T are powers of 1024\n"
        "                       (default: 4G)\n"
        "  --help               print this and exit\n"
        "  --version            print the version and exit\n"
        "\n"
        "Exit status: 0 after SIGTERM or SIGINT, 1 on failure, 2 on a usage or\n"
        "configuration error.\n";

/* RUNTIME_DIRECTORY may list several, separated by colons: the first is ours. */
static int default_dir(char **ret_dir, struct fault *ret_fault) {
        const char *systemd = getenv("RUNTIME_DIRECTORY"), *user = getenv("XDG_RUNTIME_DIR");
        char *dir;
        int r;

        if (systemd && *systemd)
                r = asprintf(&dir, "%.*s", (int)strcspn(systemd, ":"), systemd);
        else if (geteuid() == 0)
                r = asprintf(&dir, "/run/carvq");
        else if (user && *user)
                r = asprintf(&dir, "%s/carvq", user);
        else
                return fault_set(ret_fault, -EINVAL,
                                 "has no default: XDG_RUNTIME_DIR is not set; give --socket and "
                                 "--control");
        if (r < 0)
                return -ENOMEM;
        *ret_dir = dir;
        return 0;
}

static int default_socket(struct config *c, const struct setting *setting, const char *dir,
                          const char *name, struct fault *ret_fault) {
        _cleanup_(freep) char *path = NULL;

        if (asprintf(&path, "%s/%s", dir, name) < 0)
                return -ENOMEM;
        return setting->set(c, path, ret_fault);
}

/* Last, because only then is it known whether they are needed. */
static int set_default_sockets(struct config *c, struct fault *ret_fault) {
        _cleanup_(freep) char *dir = NULL;
        int r = 0;

        if (c->socket_path && c->control_path)
                return 0;
        r = default_dir(&dir, ret_fault);
        if (r >= 0 && !c->socket_path)
                r = default_socket(c, &settings[0], dir, "carvqd.sock", ret_fault);
        if (r >= 0 && !c->control_path)
                r = default_socket(c, &settings[1], dir, "control.sock", ret_fault);
        c->default_folder = steal_pointer(&dir);
        return r;
}

/* ---- The file ---- */

struct file_reader {
        FILE *file;
        const char *path;
        struct config *config;
        int line;
        int error; /* the first; said on stderr already */
};

static void _printf_(2, 3) complain(struct file_reader *f, const char *format, ...) {
        va_list arguments;

        fprintf(stderr, "carvqd: %s:%d: ", f->path, f->line);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
}

/* inih would silently cut a line in two that does not fit into its buffer, and counts no lines. */
static char *read_line(char *buffer, int n, void *userdata) {
        struct file_reader *f = userdata;
        size_t length;

        if (!fgets(buffer, n, f->file))
                return NULL;
        f->line++;
        length = strlen(buffer);
        if (length == (size_t)n - 1 && buffer[length - 1] != '\n' && !feof(f->file)) {
                complain(f, "the line has more than %d bytes", n - 2);
                f->error = -EINVAL;
                return NULL;
        }
        return buffer;
}

static const struct setting *find_setting(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
                if (!strcmp(settings[i].name, name))
                        return &settings[i];
        return NULL;
}

/* inih's handler: never fails, so that every line is looked at and every error told at once. */
static int take_line(void *userdata, const char *section, const char *key, const char *value) {
        struct file_reader *f = userdata;
        const struct setting *setting;
        struct fault fault = { 0 };
        int r;

        if (!strcmp(section, "tables")) {
                r = put_table(f->config, key, value, &fault);
                if (r > 0)
                        complain(f, "warning: table %s was given before; this path is used", key);
        } else if (!strcmp(section, "caches")) {
                r = put_cache(f->config, key, value, &fault);
        } else if (!strcmp(section, "carvqd")) {
                setting = find_setting(key);
                if (!setting || setting->set == set_table || setting->set == set_table_cache) {
                        complain(f, "warning: unknown key '%s' is ignored", key);
                        return 1;
                }
                r = setting->set(f->config, value, &fault);
        } else {
                complain(f, "warning: key '%s' in unknown section [%s] is ignored", key, section);
                return 1;
        }
        if (r < 0) {
                complain(f, "%s %s", key, r == -ENOMEM ? "is lost: out of memory" : fault.text);
                f->error = r;
        }
        return 1;
}

/* Without `path`: the default one, if there is any. */
static int read_file(struct config *config, const char *path) {
        struct file_reader f = { .path = path ? path : CONFIG_DEFAULT_PATH, .config = config };
        int r;

        f.file = fopen(f.path, "re");
        if (!f.file && !path && errno == ENOENT)
                return 0;
        if (!f.file) {
                fprintf(stderr, "carvqd: %s: %s\n", f.path, strerror(errno));
                return -EINVAL;
        }
        r = ini_parse_stream(read_line, &f, take_line, &f);
        if (ferror(f.file)) {
                fprintf(stderr, "carvqd: %s: read error\n", f.path);
                f.error = -EINVAL;
        } else if (r > 0) {
                f.line = r;
                complain(&f, "expected [SECTION], KEY = VALUE or a comment");
                f.error = -EINVAL;
        }
        fclose(f.file);
        return f.error;
}

/* ---- The command line ---- */

enum {
        OPTION_CONFIG = ARRAY_SIZE(settings), /* below: an index into settings */
        OPTION_HELP,
        OPTION_VERSION,
        OPTIONS_N,
};

struct command_line {
        const char *config_path;
        size_t n_given;
        struct {
                const struct setting *setting;
                const char *value;
        } * given; /* owned; in order */
};

static void make_options(struct option options[OPTIONS_N + 1]) {
        for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
                options[i] = (struct option){ settings[i].name, required_argument, NULL, (int)i };
        options[OPTION_CONFIG] =
                (struct option){ "config", required_argument, NULL, OPTION_CONFIG };
        options[OPTION_HELP] = (struct option){ "help", no_argument, NULL, OPTION_HELP };
        options[OPTION_VERSION] = (struct option){ "version", no_argument, NULL, OPTION_VERSION };
        options[OPTIONS_N] = (struct option){ 0 };
}

/* As config_init(). Only collects: the file's settings come first. */
static int parse_command_line(struct command_line *l, int argc, char **argv) {
        struct option options[OPTIONS_N + 1];
        int option;

        make_options(options);
        optind = 0; /* start over, whoever used getopt before */
        while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (option) {
                case OPTION_HELP:
                        fputs(help, stdout);
                        return 1;
                case OPTION_VERSION:
                        puts("carvqd " CARVQ_VERSION);
                        return 1;
                case OPTION_CONFIG:
                        l->config_path = optarg;
                        break;
                case '?':
                        fputs("Try 'carvqd --help'.\n", stderr);
                        return -EINVAL;
                default:
                        l->given[l->n_given].setting = &settings[option];
                        l->given[l->n_given++].value = optarg;
                }
        if (optind < argc) {
                fprintf(stderr, "carvqd: unexpected argument '%s'\nTry 'carvqd --help'.\n",
                        argv[optind]);
                return -EINVAL;
        }
        return 0;
}

static int apply_command_line(struct config *config, const struct command_line *l) {
        for (size_t i = 0; i < l->n_given; i++) {
                struct fault fault = { 0 };
                int r = l->given[i].setting->set(config, l->given[i].value, &fault);

                if (r < 0) {
                        fprintf(stderr, "carvqd: --%s %s\n", l->given[i].setting->name,
                                r == -ENOMEM ? "is lost: out of memory" : fault.text);
                        return -EINVAL;
                }
        }
        return 0;
}

static int config_read(struct config *config, const struct command_line *l) {
        struct fault fault = { 0 };
        int r;

        r = read_file(config, l->config_path);
        if (r >= 0)
                r = apply_command_line(config, l);
        if (r < 0)
                return -EINVAL;
        r = set_default_sockets(config, &fault);
        if (r < 0) {
                fprintf(stderr, "carvqd: socket %s\n", fault.text);
                return -EINVAL;
        }
        return 0;
}

int config_init(struct config *config, int argc, char **argv) {
        struct command_line line = { 0 };
        _cleanup_(freep) void *given = calloc((size_t)argc + 1, sizeof(*line.given));
        int r;

        if (!given) {
                fputs("carvqd: out of memory\n", stderr);
                return -EINVAL;
        }
        line.given = given;
        r = parse_command_line(&line, argc, argv);
        if (r != 0)
                return r;

        *config = (struct config){
                .cache_bytes = CONFIG_CACHE_AUTO,
                .log_level = LOG_LEVEL_INFO,
                .spin_ns_max = 50 * 1000,
                .cpu_mask = UINT32_MAX,
                .n_workers = 1,
                .max_sessions = 1024,
                .max_ring_bytes = UINT64_C(4) << 30,
        };
        STAILQ_INIT(&config->tables);
        STAILQ_INIT(&config->caches);
        r = config_read(config, &line);
        if (r < 0)
                config_deinit(config);
        return r;
}

void config_deinit(struct config *config) {
        struct config_table *t;
        struct config_cache *c;

        while ((c = STAILQ_FIRST(&config->caches))) {
                STAILQ_REMOVE_HEAD(&config->caches, link);
                free(c->name);
                free(c);
        }
        while ((t = STAILQ_FIRST(&config->tables))) {
                STAILQ_REMOVE_HEAD(&config->tables, link);
                free(t->name);
                free(t->path);
                free(t);
        }
        free(config->socket_path);
        free(config->control_path);
        free(config->default_folder);
        free(config->tables_dir);
        *config = (struct config){ 0 };
}

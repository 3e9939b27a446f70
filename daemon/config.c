/* SPDX-License-Identifier: Apache-2.0 */
/* See config.h: the command line, the order of things, and the defaults. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "config-impl.h"

static const char help[] =
        "Usage: carvqd [OPTION]...\n"
        "Serve rows of compressed embedding tables to the processes of this host.\n"
        "\n"
        "  --config FILE        read settings from FILE and then FILE.d/*.conf; the\n"
        "                       command line overrides them (default:\n"
        "                       /etc/carvq/carvqd.conf where it exists)\n"
        "  --socket PATH        where clients connect (default: carvqd.sock in\n"
        "                       $RUNTIME_DIRECTORY, else /run/carvq for root, else\n"
        "                       $XDG_RUNTIME_DIR/carvq)\n"
        "  --control PATH       where carvqctl connects (default: control.sock there)\n"
        "  --table NAME=PATH    serve the .carvq file PATH as NAME; may be repeated\n"
        "  --table NAME:KEY=VALUE\n"
        "                       a key of the table's section: path, cache-bytes, group,\n"
        "                       populate, lock, huge-pages; may be repeated\n"
        "  --tables-dir DIR     serve each NAME.carvq in DIR as NAME, and watch DIR;\n"
        "                       empty: none (default: $STATE_DIRECTORY, else\n"
        "                       /var/lib/carvq for root)\n"
        "  --cache-bytes N      keep rows that are used most decoded, for clients to read\n"
        "                       at once, in at most N bytes a table; 0: none; auto:\n"
        "                       for tables with an adaptor, as much as their file, 8M\n"
        "                       to 64M (default: auto)\n"
        "  --log-level LEVEL    error, warning, notice, info or debug (default: info)\n"
        "  --cpu-mask LIST      decode with these kernels only: scalar, avx512 ...\n"
        "                       (default: all that this CPU has)\n"
        "  --event-loop NAME    io_uring, epoll, or auto: io_uring, and epoll where that\n"
        "                       is forbidden (default: auto)\n"
        "  --spin-us N          busy-wait up to N microseconds before sleeping, 0: never\n"
        "                       (default: 50)\n"
        "  --workers N          threads that decode; clients are spread over them. None\n"
        "                       of as many as there are CPUs busy-waits (default: 1)\n"
        "  --max-sessions N     clients connected at once (default: 1024)\n"
        "  --max-ring-bytes N   shared memory of one client, K M G T are powers of 1024\n"
        "                       (default: 4G)\n"
        "\n"
        "What all clients of one user may have together; root is a user like any:\n"
        "  --max-sessions-per-user N\n"
        "                       connections; auto: three quarters of --max-sessions\n"
        "                       (default: auto)\n"
        "  --max-ring-bytes-per-user N\n"
        "                       shared memory (default: 64G)\n"
        "  --max-tables-per-user N\n"
        "                       open tables (default: 65536)\n"
        "  --max-ids-in-flight-per-user N\n"
        "                       ids of large lookups that are under way; further ones\n"
        "                       wait (default: 16M)\n"
        "  --max-handshakes-per-second-per-user N\n"
        "                       new connections (default: 2000)\n"
        "\n"
        "  --help               print this and exit\n"
        "  --version            print the version and exit\n"
        "\n"
        "SIGHUP, like `carvqctl reload`, reads the settings again.\n"
        "\n"
        "Exit status: 0 after SIGTERM or SIGINT, 1 on failure, 2 on a usage or\n"
        "configuration error.\n";

/* These variables may list several folders, separated by colons: the first is ours. */
static int first_folder(const char *variable, char **ret_folder) {
        const char *value = getenv(variable);

        if (!value || !*value)
                return -ENOENT;
        *ret_folder = strndup(value, strcspn(value, ":"));
        return *ret_folder ? 0 : -ENOMEM;
}

static int default_dir(char **ret_dir, struct fault *ret_fault) {
        const char *user = getenv("XDG_RUNTIME_DIR");
        char *dir;
        int r;

        r = first_folder("RUNTIME_DIRECTORY", ret_dir);
        if (r != -ENOENT)
                return r;
        if (geteuid() == 0)
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
                r = default_socket(c, &config_settings[SETTING_SOCKET], dir, "carvqd.sock",
                                   ret_fault);
        if (r >= 0 && !c->control_path)
                r = default_socket(c, &config_settings[SETTING_CONTROL], dir, "control.sock",
                                   ret_fault);
        c->default_folder = steal_pointer(&dir);
        return r;
}

/* An ordinary user has none. */
static int set_default_tables_dir(struct config *c) {
        int r;

        if (c->tables_dir) {
                if (!*c->tables_dir)
                        free(steal_pointer(&c->tables_dir));
                return 0;
        }
        c->tables_dir_is_default = true;
        r = first_folder("STATE_DIRECTORY", &c->tables_dir);
        if (r == -ENOENT)
                return geteuid() == 0 ? config_set_string(&c->tables_dir, "/var/lib/carvq") : 0;
        return r;
}

/* ---- The command line ---- */

struct command_line {
        const char *config_path;
        size_t n_given;
        struct {
                const struct setting *setting; /* NULL: --table */
                const char *value;
        } given[]; /* in order */
};

enum {
        OPTION_TABLE = 256, /* below: an index into config_settings */
        OPTION_CONFIG,
        OPTION_HELP,
        OPTION_VERSION,
};

#define OPTIONS_MAX 32

static void make_options(struct option options[OPTIONS_MAX]) {
        static const struct option others[] = {
                { "table", required_argument, NULL, OPTION_TABLE },
                { "config", required_argument, NULL, OPTION_CONFIG },
                { "help", no_argument, NULL, OPTION_HELP },
                { "version", no_argument, NULL, OPTION_VERSION },
                { 0 },
        };

        for (size_t i = 0; i < config_n_settings; i++)
                options[i] =
                        (struct option){ config_settings[i].name, required_argument, NULL, (int)i };
        memcpy(options + config_n_settings, others, sizeof(others));
}

/* As config_init(). Only collects: the file's settings come first. */
static int parse_command_line(struct command_line *l, int argc, char **argv) {
        struct option options[OPTIONS_MAX];
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
                        l->given[l->n_given].setting =
                                option == OPTION_TABLE ? NULL : &config_settings[option];
                        l->given[l->n_given++].value = optarg;
                }
        if (optind < argc) {
                fprintf(stderr, "carvqd: unexpected argument '%s'\nTry 'carvqd --help'.\n",
                        argv[optind]);
                return -EINVAL;
        }
        return 0;
}

static int apply_command_line(struct config *config, const struct command_line *l,
                              struct fault *ret_fault) {
        for (size_t i = 0; i < l->n_given; i++) {
                const struct setting *setting = l->given[i].setting;
                struct fault fault = { 0 };
                int r;

                if (setting)
                        r = setting->set(config, l->given[i].value, &fault);
                else
                        r = config_set_table(config, l->given[i].value, &fault);
                if (r < 0)
                        return fault_set(ret_fault, r, "--%s %s", setting ? setting->name : "table",
                                         r == -ENOMEM ? "is lost: out of memory" : fault.text);
        }
        return 0;
}

static int finish(struct config *config, const struct command_line *l, struct fault *ret_fault) {
        struct fault fault = { 0 };
        int r;

        r = apply_command_line(config, l, ret_fault);
        if (r < 0)
                return r;
        r = set_default_sockets(config, &fault);
        if (r < 0)
                return fault_set(ret_fault, r, "socket %s", fault.text);
        r = set_default_tables_dir(config);
        return r < 0 ? fault_set(ret_fault, r, "out of memory") : 0;
}

static void init(struct config *config) {
        *config = (struct config){
                .cache_bytes = CONFIG_CACHE_AUTO,
                .log_level = LOG_LEVEL_INFO,
                .spin_ns_max = 50 * 1000,
                .cpu_mask = UINT32_MAX,
                .n_workers = 1,
                .max_sessions = 1024,
                .max_ring_bytes = UINT64_C(4) << 30,
                .user_max = { [QUOTA_RING_BYTES] = UINT64_C(64) << 30,
                              [QUOTA_TABLES] = 65536,
                              [QUOTA_IDS] = UINT64_C(16) << 20,
                              [QUOTA_HANDSHAKES] = 2000 },
        };
}

static void log_sentence(void *userdata, enum log_level level, const char *sentence) {
        (void)userdata;
        log_fields(level, NULL, "%s", sentence);
}

int config_init(struct config *config, int argc, char **argv) {
        struct fault fault = { 0 };
        struct command_line *line;
        int r;

        init(config);
        line = calloc(1, sizeof(*line) + (size_t)argc * sizeof(line->given[0]));
        if (!line) {
                fputs("carvqd: out of memory\n", stderr);
                return -EINVAL;
        }
        config->command_line = line;
        r = parse_command_line(line, argc, argv);
        if (r == 0)
                r = config_read_files(config, line->config_path, log_sentence, NULL);
        if (r == 0) {
                r = finish(config, line, &fault);
                if (r >= 0 && config_remember(config) < 0)
                        r = fault_set(&fault, -ENOMEM, "out of memory");
                if (r < 0)
                        fprintf(stderr, "carvqd: %s\n", fault.text);
        }
        if (r != 0)
                config_deinit(config);
        return r < 0 ? -EINVAL : r;
}

int config_reload(const struct config *running, config_say say, void *userdata,
                  struct config *ret_config) {
        struct fault fault = { 0 };
        struct config config;
        int r;

        init(&config);
        r = config_read_files(&config, running->command_line->config_path, say, userdata);
        if (r >= 0) {
                r = finish(&config, running->command_line, &fault);
                if (r < 0)
                        say(userdata, LOG_LEVEL_ERROR, fault.text);
        }
        if (r < 0) {
                config_deinit(&config);
                return -EINVAL;
        }
        *ret_config = config;
        return 0;
}

void config_deinit(struct config *config) {
        config_tables_deinit(config);
        free(config->socket_path);
        free(config->control_path);
        free(config->default_folder);
        free(config->tables_dir);
        free(config->command_line);
        if (config->as_read)
                config_deinit(config->as_read);
        free(config->as_read);
        *config = (struct config){ 0 };
}

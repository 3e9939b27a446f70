/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon/config*.c: a configuration file and its drop-ins, read as for a reload, and what follows:
 * a comparison with what runs, options of every table. An input is the file's text; a line
 * "%%%NAME" begins the drop-in NAME, and a line "%%%--table VALUE" is an option of the command
 * line.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "daemon/config-impl.h"
#include "fuzz.h"
#include "proto/wire.h"

#define MARK "%%%"

static struct config running;
static char folder[64], path[80], drop_ins[96];

static void remove_files(void) {
        DIR *dir = opendir(drop_ins);
        const struct dirent *entry;

        while (dir && (entry = readdir(dir)))
                if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2)
                        unlinkat(dirfd(dir), entry->d_name, 0);
        if (dir)
                closedir(dir);
}

static void remove_folder(void) {
        remove_files();
        rmdir(drop_ins);
        unlink(path);
        rmdir(folder);
}

static void write_file(const char *name, const void *bytes, size_t n_bytes) {
        FILE *f = fopen(name, "we");

        /* Not every name is one. */
        if (!f)
                return;
        require(fwrite(bytes, 1, n_bytes, f) == n_bytes && !fclose(f), "writing a file");
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
        static char config_option[96], *arguments[] = {
                (char *)"carvqd",
                config_option,
                (char *)"--socket=/run/fuzz/carvqd.sock",
                (char *)"--table=given=/given.carvq",
                NULL,
        };

        (void)argc;
        (void)argv;
        /* In memory where that is possible. */
        strcpy(folder, access("/dev/shm", W_OK) >= 0 ? "/dev/shm/fuzz-config-XXXXXX"
                                                     : "/tmp/fuzz-config-XXXXXX");
        require(mkdtemp(folder), "mkdtemp");
        snprintf(path, sizeof(path), "%s/carvqd.conf", folder);
        snprintf(drop_ins, sizeof(drop_ins), "%s.d", path);
        snprintf(config_option, sizeof(config_option), "--config=%s", path);
        require(mkdir(drop_ins, 0700) >= 0, "mkdir");
        atexit(remove_folder);
        setenv("RUNTIME_DIRECTORY", "/run/fuzz", 1);
        write_file(path, "", 0);
        require(!config_init(&running, ARRAY_SIZE(arguments) - 1, arguments), "config_init");
        return 0;
}

struct said {
        bool errors;
};

static void say(void *userdata, enum log_level level, const char *sentence) {
        struct said *said = userdata;

        require(*sentence && strlen(sentence) < 512, "one sentence");
        require(level == LOG_LEVEL_ERROR || level == LOG_LEVEL_WARNING, "an error or a warning");
        said->errors |= level == LOG_LEVEL_ERROR;
}

static void check_option(const char *value, size_t n_bytes) {
        _cleanup_(freep) char *copy = calloc(1, n_bytes + 1);
        struct config config = { 0 };
        struct fault fault = { 0 };
        int r;

        require(copy, "memory");
        memcpy(copy, value, n_bytes); /* as an option: to the first NUL */
        r = config_set_table(&config, copy, &fault);
        require(r == 0 || *fault.text, "a refusal has a reason");
        config_deinit(&config);
}

/* One of the marks, up to the next: a drop-in, or an option. */
static void take_part(const char *part, size_t n_bytes) {
        static const char table_option[] = "--table ";
        const char *line_end = memchr(part, '\n', n_bytes);
        size_t name_bytes = line_end ? (size_t)(line_end - part) : n_bytes;
        size_t text_at = MIN(name_bytes + 1, n_bytes);
        char file[512];

        if (name_bytes > strlen(table_option) && !memcmp(part, table_option, strlen(table_option)))
                check_option(part + strlen(table_option), name_bytes - strlen(table_option));
        else if (name_bytes && name_bytes < 100 && !memchr(part, '/', name_bytes) &&
                 !memchr(part, 0, name_bytes)) {
                snprintf(file, sizeof(file), "%s/%.*s", drop_ins, (int)name_bytes, part);
                write_file(file, part + text_at, n_bytes - text_at);
        }
}

/* Up to the first mark is the file itself. */
static void write_files(const char *text, size_t n_bytes) {
        bool is_first = true;

        for (;;) {
                const char *mark = memmem(text, n_bytes, MARK, strlen(MARK));
                size_t part_bytes = mark ? (size_t)(mark - text) : n_bytes;

                if (is_first)
                        write_file(path, text, part_bytes);
                else
                        take_part(text, part_bytes);
                if (!mark)
                        return;
                is_first = false;
                text = mark + strlen(MARK);
                n_bytes -= part_bytes + strlen(MARK);
        }
}

static void check_config(struct config *config) {
        const char *keys[CONFIG_RESTART_KEYS_MAX];
        const struct config_table *table;

        require(config->socket_path && *config->socket_path, "a socket");
        require(config->n_workers >= 1 && config->max_sessions >= 1, "limits");
        require(config_restart_keys(&running, config, keys) <= CONFIG_RESTART_KEYS_MAX, "keys");
        require(config_find_table(config, "given"), "the command line counts again");
        SLIST_FOREACH(table, &config->tables, link) {
                struct table_options options = config_table_options(config, table->name);

                require(wire_table_name_valid(table->name), "a table's name");
                require(config_find_table(config, table->name) == table, "once");
                require(memchr(options.group, 0, sizeof(options.group)), "terminated");
                require(!table->path || *table->path, "a path");
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        struct config config = { 0 };
        struct said said = { 0 };
        int r;

        write_files((const char *)bytes, n_bytes);
        r = config_reload(&running, say, &said, &config);
        require(r == 0 || r == -EINVAL, "as documented");
        require((r < 0) == said.errors, "refused for what was said");
        if (r >= 0) {
                check_config(&config);
                /* There and back. */
                config_swap_live(&running, &config);
                config_swap_live(&running, &config);
                config_deinit(&config);
        }
        remove_files();
        return 0;
}

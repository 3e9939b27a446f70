/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file and its drop-ins: lines to inih, keys to their sections, and every
 * complaint with file and line. inih keeps only 49 bytes of a section's name, so headers are taken
 * from the lines themselves. Whoever may write these files is trusted; what is in them is checked.
 */
#include "config-impl.h"

#include <dirent.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_PATH "/etc/carvq/carvqd.conf"

struct file_reader {
        FILE *file;
        const char *path;
        struct config *config;
        config_say say;
        void *userdata;
        enum { SECTION_NONE, SECTION_CARVQD, SECTION_TABLE, SECTION_IGNORED } section;
        struct config_table *table; /* of SECTION_TABLE */
        int line;
        int error; /* the last; said already */
};

static void _printf_(3, 4)
        complain(struct file_reader *f, enum log_level level, const char *format, ...) {
        char text[512];
        va_list arguments;
        int n = snprintf(text, sizeof(text), "%.150s:%d: ", f->path, f->line);

        va_start(arguments, format);
        vsnprintf(text + n, sizeof(text) - (size_t)n, format, arguments);
        va_end(arguments);
        f->say(f->userdata, level, text);
        if (level == LOG_LEVEL_ERROR)
                f->error = -EINVAL;
}

static void enter_section(struct file_reader *f, const char *name) {
        static const char table[] = "table ";
        struct fault fault = { 0 };
        int r;

        f->section = SECTION_IGNORED;
        if (!strcmp(name, "carvqd"))
                f->section = SECTION_CARVQD;
        else if (!strncmp(name, table, strlen(table))) {
                r = config_get_table(f->config, name + strlen(table), &f->table, &fault);
                if (r >= 0)
                        f->section = SECTION_TABLE;
                else
                        complain(f, LOG_LEVEL_ERROR, "the section %s",
                                 r == -ENOMEM ? "is lost: out of memory" : fault.text);
        } else
                complain(f, LOG_LEVEL_WARNING, "unknown section [%.100s] is ignored", name);
}

/*
 * inih would silently cut a line in two that does not fit into its buffer, and counts no lines.
 * Without blanks in front none of them continues the line before, so that '[' always begins a
 * section.
 */
static char *read_line(char *buffer, int n, void *userdata) {
        struct file_reader *f = userdata;
        size_t length;
        char *end;

        if (!fgets(buffer, n, f->file))
                return NULL;
        f->line++;
        length = strlen(buffer);
        if (length == (size_t)n - 1 && buffer[length - 1] != '\n' && !feof(f->file)) {
                complain(f, LOG_LEVEL_ERROR, "the line has more than %d bytes", n - 2);
                return NULL;
        }
        length = strspn(buffer, " \t");
        memmove(buffer, buffer + length, strlen(buffer + length) + 1);
        end = buffer[0] == '[' ? strchr(buffer, ']') : NULL;
        if (end) {
                *end = '\0';
                enter_section(f, buffer + 1);
                *end = ']';
        }
        return buffer;
}

static const struct setting *find_setting(const char *name) {
        for (size_t i = 0; i < config_n_settings; i++)
                if (!strcmp(config_settings[i].name, name))
                        return &config_settings[i];
        return NULL;
}

/* inih's handler: never fails, so that every line is looked at and every error told at once. */
static int take_line(void *userdata, const char *section, const char *key, const char *value) {
        struct file_reader *f = userdata;
        const struct setting *setting;
        struct fault fault = { 0 };
        int r = -ENOENT;

        (void)section;
        if (f->section == SECTION_IGNORED)
                return 1;
        if (f->section == SECTION_NONE) {
                complain(f, LOG_LEVEL_WARNING, "key '%s' in front of all sections is ignored", key);
                return 1;
        }
        if (f->section == SECTION_TABLE)
                r = config_set_table_key(f->table, key, value, &fault);
        else {
                setting = find_setting(key);
                if (setting)
                        r = setting->set(f->config, value, &fault);
        }
        if (r == -ENOENT)
                complain(f, LOG_LEVEL_WARNING, "unknown key '%s' is ignored", key);
        else if (r < 0)
                complain(f, LOG_LEVEL_ERROR, "%s %s", key,
                         r == -ENOMEM ? "is lost: out of memory" : fault.text);
        return 1;
}

static int read_file(struct config *config, const char *path, bool may_be_missing, config_say say,
                     void *userdata) {
        struct file_reader f = { .path = path, .config = config, .say = say, .userdata = userdata };
        char text[320];
        int r;

        f.file = fopen(f.path, "re");
        if (!f.file && may_be_missing && errno == ENOENT)
                return 0;
        if (!f.file) {
                snprintf(text, sizeof(text), "%.200s: %s", f.path, strerror(errno));
                say(userdata, LOG_LEVEL_ERROR, text);
                return -EINVAL;
        }
        r = ini_parse_stream(read_line, &f, take_line, &f);
        if (ferror(f.file))
                complain(&f, LOG_LEVEL_ERROR, "read error");
        else if (r > 0) {
                f.line = r;
                complain(&f, LOG_LEVEL_ERROR, "expected [SECTION], KEY = VALUE or a comment");
        }
        fclose(f.file);
        return f.error;
}

static int is_drop_in(const struct dirent *entry) {
        size_t n = strlen(entry->d_name);

        return entry->d_name[0] != '.' && n > 5 && !strcmp(entry->d_name + n - 5, ".conf");
}

/* By bytes, whatever the locale: 10-x.conf comes before 9-x.conf everywhere. */
static int by_name(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_drop_ins(struct config *config, const char *path, config_say say, void *userdata) {
        struct dirent **entries = NULL;
        char folder[PATH_MAX], text[320];
        int n, error = 0;

        snprintf(folder, sizeof(folder), "%.4000s.d", path);
        n = scandir(folder, &entries, is_drop_in, by_name);
        if (n < 0 && (errno == ENOENT || errno == ENOTDIR))
                return 0;
        if (n < 0) {
                snprintf(text, sizeof(text), "%.200s: %s", folder, strerror(errno));
                say(userdata, LOG_LEVEL_ERROR, text);
                return -EINVAL;
        }
        for (int i = 0; i < n; i++) {
                char file[PATH_MAX + NAME_MAX + 2];
                int r;

                snprintf(file, sizeof(file), "%s/%s", folder, entries[i]->d_name);
                r = read_file(config, file, false, say, userdata);
                error = MIN(error, r);
                free(entries[i]);
        }
        free(entries);
        return error;
}

int config_read_files(struct config *config, const char *path, config_say say, void *userdata) {
        const char *main_path = path ? path : DEFAULT_PATH;
        int r, error;

        error = read_file(config, main_path, !path, say, userdata);
        r = read_drop_ins(config, main_path, say, userdata);
        return MIN(r, error);
}

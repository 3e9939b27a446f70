/* SPDX-License-Identifier: Apache-2.0 */
/* Main thread only. Text that comes from files passes through here on its way to a terminal. */
#include "cli.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "mapped.h"

int cli_fail(const char *subject, int r, const struct fault *fault) {
        const char *text = fault && *fault->text ? fault->text : strerror(-r);

        /* A path too long for a fault is cut at its beginning. */
        if (strncmp(text, subject, strlen(subject)) == 0 || strncmp(text, "...", 3) == 0)
                fprintf(stderr, "carvq: %s\n", text);
        else
                fprintf(stderr, "carvq: %s: %s\n", subject, text);
        return CLI_FAILURE;
}

int cli_usage(const char *command, const char *format, ...) {
        va_list args;

        fprintf(stderr, "carvq %s: ", command);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fprintf(stderr, "; see carvq %s --help\n", command);
        return CLI_USAGE;
}

int cli_bad_option(const char *command, int option, char **argv) {
        const char *what = option == ':' ? "needs a value" : "is not an option here";
        const char *word = argv[optind - 1];

        /* In a cluster like -xq the word may be another one; long options have words of their own.
         */
        if (optopt && optopt < 128 && !(option == ':' && !strncmp(word, "--", 2)))
                return cli_usage(command, "-%c %s", optopt, what);
        return cli_usage(command, "%s %s", word, what);
}

int cli_finish(int status) {
        if (fflush(stdout) == 0 && !ferror(stdout))
                return status;
        fprintf(stderr, "carvq: standard output: %s\n", strerror(errno));
        return CLI_FAILURE;
}

int cli_print_help(const char *text) {
        fputs(text, stdout);
        return cli_finish(CLI_OK);
}

int cli_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value) {
        unsigned long long value;
        char *end;

        if (*text < '0' || *text > '9')
                return -EINVAL;
        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno || *end || value < min || value > max)
                return -EINVAL;
        *ret_value = value;
        return 0;
}

int cli_map_table(const char *path, struct codec_file *ret_file, struct fault *ret_fault) {
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        struct stat st;
        int r;

        if (fd < 0)
                return fault_set(ret_fault, -errno, "%s: cannot open: %s", path, strerror(errno));
        /* Not a matter of damage, which -EBADMSG would say. */
        if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
                return fault_set(ret_fault, -EINVAL, "%s: is not a regular file", path);
        r = codec_file_map(fd, ret_file, ret_fault);
        if (r >= 0)
                mapped_watch(path, ret_file);
        return r;
}

json_t *cli_table_meta(const struct codec_file *file) {
        const struct table_chunk *meta = &file->table.contents.meta;

        if (!meta->length || meta->length > 1u << 20)
                return NULL;
        return json_loadb((const char *)file->map + meta->offset, meta->length, 0, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands share: exit codes, error lines, numbers from the command line. */
#pragma once

#include <getopt.h>

#include "lib/codec/codec.h"

enum cli_exit {
        CLI_OK = 0,
        CLI_NO = 1, /* the answer is no: verify found damage */
        CLI_USAGE = 2,
        CLI_FAILURE = 3,
};

int cmd_pack(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_unpack(int argc, char **argv);
int cmd_verify(int argc, char **argv);

/* "carvq: SUBJECT: cause" on stderr; the fault may already begin with its subject. CLI_FAILURE. */
int cli_fail(const char *subject, int r, const struct fault *fault);

/* "carvq COMMAND: ..., see carvq COMMAND --help". CLI_USAGE. */
int cli_usage(const char *command, const char *format, ...) _printf_(2, 3);

/* What getopt_long() returned '?' or ':' for, in the words of cli_usage(). */
int cli_bad_option(const char *command, int option, char **argv);

/* CLI_OK, or CLI_FAILURE when stdout cannot take the text: a full disk must not look like success.
 */
int cli_print_help(const char *text);
int cli_finish(int status);

/* Decimal, min to max. -EINVAL otherwise. */
int cli_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

/* Opens and checks FILE.carvq. */
int cli_map_table(const char *path, struct codec_file *ret_file, struct fault *ret_fault);

/* The JSON of the meta chunk, or NULL; json_decref() it. */
struct json_t *cli_table_meta(const struct codec_file *file);

/* SPDX-License-Identifier: Apache-2.0 */
/* carvq verify: reads every byte of a file and compares all checksums. Main thread. */
#include <stdio.h>

#include "cli.h"

static const char help[] =
        "Usage: carvq verify FILE\n"
        "\n"
        "Checks header, contents table and all checksums of a .carvq file, and lists each chunk\n"
        "as ok or damaged.\n"
        "\n"
        "      --quiet             no list; the exit status tells\n"
        "      --help\n"
        "\n"
        "Exit status: 0 sound; 1 damaged; 2 wrong usage; 3 the file cannot be read.\n";

struct findings {
        const char *path;
        bool quiet;
};

static void found(void *userdata, const char *chunk, int r, const struct fault *fault) {
        const struct findings *f = userdata;

        if (!f->quiet)
                printf("%-10s %s\n", chunk, r < 0 ? "damaged" : "ok");
        if (r < 0)
                fprintf(stderr, "carvq: %s: %s\n", f->path, fault->text);
}

int cmd_verify(int argc, char **argv) {
        static const struct option options[] = {
                { "quiet", no_argument, NULL, 'q' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct findings findings = { 0 };
        struct codec_file file = { 0 };
        struct fault fault = { 0 };
        int option, r;

        opterr = 0;
        while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
                if (option == 'h')
                        return cli_print_help(help);
                if (option != 'q')
                        return cli_bad_option("verify", option, argv);
                findings.quiet = true;
        }
        if (optind + 1 != argc)
                return cli_usage("verify", "expected one FILE");
        findings.path = argv[optind];
        r = cli_map_table(argv[optind], &file, &fault);
        if (r < 0) {
                cli_fail(argv[optind], r, &fault);
                return r == -EBADMSG ? CLI_NO : CLI_FAILURE;
        }
        found(&findings, "header", 0, NULL);
        r = codec_file_verify(&file, found, &findings, &fault);
        codec_file_unmap(&file);
        return cli_finish(r == 0 ? CLI_OK : r == -EBADMSG ? CLI_NO : CLI_FAILURE);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvq: packs embedding tables and looks after packed ones. Chooses the subcommand. */
#include <cblas.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "mapped.h"
#include "writer.h"

static const char help[] =
        "Usage: carvq COMMAND [ARGUMENT]...\n"
        "\n"
        "Packs embedding tables into .carvq files and looks after them.\n"
        "\n"
        "Commands:\n"
        "  pack SRC -o OUT.carvq   compress a table of a model file\n"
        "  info FILE               shape, codec and size of a packed table\n"
        "  eval FILE SRC           how close a packed table is to its source\n"
        "  unpack FILE -o OUT      back to .npy or .safetensors\n"
        "  verify FILE             check all checksums\n"
        "\n"
        "carvq COMMAND --help tells more. --version prints the version.\n"
        "\n"
        "SRC is a .safetensors, .safetensors.index.json, .gguf, .npy or .carvq file.\n"
        "\n"
        "Exit status: 0 done; 1 the answer is no (verify found damage); 2 wrong usage; 3 "
        "failure.\n";

static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
} commands[] = {
        { "pack", cmd_pack },     { "info", cmd_info },     { "eval", cmd_eval },
        { "unpack", cmd_unpack }, { "verify", cmd_verify },
};

int main(int argc, char **argv) {
        claim_standard_descriptors();
        /* A file size limit is an error like a full disk. */
        signal(SIGXFSZ, SIG_IGN);
        mapped_install(writer_abandon);
        /* Threads are ours: results must not depend on how a library splits its work. */
        openblas_set_num_threads(1);

        if (argc < 2) {
                fputs(help, stderr);
                return CLI_USAGE;
        }
        if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
                return cli_print_help(help);
        if (!strcmp(argv[1], "--version"))
                return cli_print_help("carvq " CARVQ_VERSION "\n");
        for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
                if (!strcmp(argv[1], commands[i].name))
                        return commands[i].run(argc - 1, argv + 1);
        fprintf(stderr, "carvq: no command \"%s\"; see carvq --help\n", argv[1]);
        return CLI_USAGE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over files, without a fuzzer: replay-NAME FILE-OR-FOLDER... So the corpora and
 * every find are ordinary tests, with any compiler. Inputs are copied to memory of exactly their
 * size. A find ends the process and leaves no last line, which counts as a failure.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#pragma weak LLVMFuzzerInitialize

static unsigned n_run;

static void replay_file(const char *path) {
        FILE *f = fopen(path, "rbe");
        _cleanup_(freep) uint8_t *bytes = NULL;
        struct stat st;

        require(f && fstat(fileno(f), &st) >= 0, path);
        bytes = malloc((size_t)MAX(st.st_size, 1));
        require(bytes, path);
        require(fread(bytes, 1, (size_t)st.st_size, f) == (size_t)st.st_size, path);
        fclose(f);
        /* What runs when the process dies is named already. */
        printf("# %s\n", path);
        fflush(stdout);
        LLVMFuzzerTestOneInput(bytes, (size_t)st.st_size);
        n_run++;
}

static int is_visible(const struct dirent *entry) {
        return entry->d_name[0] != '.';
}

static void replay(const char *path) {
        struct dirent **entries = NULL;
        struct stat st;
        int n;

        require(stat(path, &st) >= 0, path);
        if (!S_ISDIR(st.st_mode)) {
                replay_file(path);
                return;
        }
        n = scandir(path, &entries, is_visible, alphasort);
        require(n >= 0, path);
        for (int i = 0; i < n; i++) {
                char file[4096];

                snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
                replay_file(file);
                free(entries[i]);
        }
        free(entries);
}

int main(int argc, char **argv) {
        if (LLVMFuzzerInitialize)
                LLVMFuzzerInitialize(&argc, &argv);
        for (int i = 1; i < argc; i++) {
                unsigned n_before = n_run;

                replay(argv[i]);
                printf("ok %d - %s: %u inputs\n", i, argv[i], n_run - n_before);
        }
        require(n_run, "no input was found");
        printf("1..%d\n", argc - 1);
        return 0;
}

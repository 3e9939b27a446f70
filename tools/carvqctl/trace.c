/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl trace: carvq-trace, which is a program of its own because it wants root. */
#include <string.h>
#include <unistd.h>

#include "carvqctl.h"

int verb_trace(const struct carvqctl *ctl) {
        char *command[64] = { "carvq-trace" };

        if ((size_t)ctl->n_arguments + 2 > ARRAY_SIZE(command)) {
                complain("trace: too many arguments");
                return EXIT_USAGE;
        }
        memcpy(command + 1, ctl->arguments, (size_t)ctl->n_arguments * sizeof(*command));
        /* Installed beside us; root's PATH has it, and others' might. */
        execv(CARVQ_TRACE_PATH, command);
        if (errno == ENOENT)
                execvp(command[0], command);
        complain("%s: %s%s", CARVQ_TRACE_PATH, strerror(errno),
                 errno == ENOENT ? " (it is built where clang, bpftool and libbpf are: "
                                   "tools/install-packages --trace)"
                                 : "");
        return EXIT_REFUSED;
}

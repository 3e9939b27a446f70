/* SPDX-License-Identifier: Apache-2.0 */
/* See mapped.h. Nothing in the handler allocates, locks or returns to what was interrupted. */
#include "mapped.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/uio.h>

#define FILES_MAX   4u /* two are mapped at most: a table and what it is compared with */
#define EXIT_STATUS 3  /* as CLI_FAILURE */

static struct {
        const char *path; /* NULL: free */
        uintptr_t start, end;
} watched[FILES_MAX];

static void (*clean_up_hook)(void);

static struct iovec piece(const char *text) {
        return (struct iovec){ (void *)(uintptr_t)text, strlen(text) };
}

static void say(const char *path) {
        struct iovec pieces[] = {
                piece("carvq: "),
                piece(path),
                piece(": was truncated, or cannot be read\n"),
        };

        (void)writev(STDERR_FILENO, pieces, ARRAY_SIZE(pieces));
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
        static atomic_flag ending = ATOMIC_FLAG_INIT;
        uintptr_t at = (uintptr_t)info->si_addr;

        (void)context;
        for (size_t i = 0; i < FILES_MAX; i++) {
                if (!watched[i].path || at < watched[i].start || at >= watched[i].end)
                        continue;
                /* Threads that read the same file fault together: one speaks. */
                while (atomic_flag_test_and_set(&ending))
                        pause();
                say(watched[i].path);
                clean_up_hook();
                _exit(EXIT_STATUS);
        }
        /* Not ours: the load faults again and ends the process as it would have. */
        signal(signal_number, SIG_DFL);
}

void mapped_install(void (*clean_up)(void)) {
        struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };

        clean_up_hook = clean_up;
        sigaction(SIGBUS, &action, NULL);
}

void mapped_watch(const char *path, const struct codec_file *file) {
        for (size_t i = 0; i < FILES_MAX; i++)
                if (!watched[i].path) {
                        watched[i].start = (uintptr_t)file->map;
                        watched[i].end = watched[i].start + file->map_bytes;
                        watched[i].path = path;
                        return;
                }
}

void mapped_forget(const struct codec_file *file) {
        for (size_t i = 0; i < FILES_MAX; i++)
                if (watched[i].start == (uintptr_t)file->map)
                        watched[i].path = NULL;
}

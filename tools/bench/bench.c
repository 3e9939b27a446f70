/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define CHILDREN_MAX 64u
#define HUGE_BYTES   (UINT64_C(2) << 20)

static char folder[PATH_MAX];
static pid_t folder_owner, children[CHILDREN_MAX];

void die(const char *format, ...) {
        va_list args;

        fflush(stdout);
        fprintf(stderr, "%s: ", program_invocation_short_name);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        exit(3);
}

void *allocate(size_t n, size_t item_bytes) {
        void *memory = calloc(n, item_bytes);

        if (!memory)
                die("no memory for %zu x %zu bytes", n, item_bytes);
        return memory;
}

void *allocate_pages(size_t bytes) {
        void *memory = aligned_alloc(4096, align_up(bytes, 4096));

        if (!memory)
                die("no memory for %zu bytes", bytes);
        return memset(memory, 0, bytes);
}

void *allocate_huge(size_t bytes) {
        size_t rounded = align_up(bytes, HUGE_BYTES);
        void *memory = aligned_alloc(HUGE_BYTES, rounded);

        if (!memory)
                die("no memory for %zu bytes", bytes);
        (void)madvise(memory, rounded, MADV_HUGEPAGE);
        return memset(memory, 0, bytes);
}

static int by_value(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

uint64_t percentile(uint64_t *ns, size_t n, double share) {
        qsort(ns, n, sizeof(*ns), by_value);
        return ns[MIN((size_t)((double)n * share), n - 1)];
}

uint64_t parse_count(const char *option, const char *text, uint64_t min, uint64_t max) {
        static const char units[] = "kMG";
        uint64_t value, factor = 1;
        const char *unit;
        char *end;

        errno = 0;
        value = strtoull(text, &end, 10);
        unit = *end ? strchr(units, *end) : NULL;
        if (unit) {
                factor = UINT64_C(1) << 10 * (unit - units + 1);
                end++;
        }
        if (errno || *text < '0' || *text > '9' || *end ||
            __builtin_mul_overflow(value, factor, &value) || value < min || value > max)
                die("%s is \"%s\", expected %" PRIu64 " to %" PRIu64, option, text, min, max);
        return value;
}

/* ---- Other programs ---- */

void program_beside(const char *relative, char *ret_path, size_t path_bytes) {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

        if (n < 0)
                die("/proc/self/exe: %s", strerror(errno));
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        if ((size_t)snprintf(ret_path, path_bytes, "%s/%s", self, relative) >= path_bytes)
                die("%s/%s is too long a path", self, relative);
        if (access(ret_path, X_OK) < 0)
                die("%s: %s; it is built with this program", ret_path, strerror(errno));
}

void run_program(char *const *argv) {
        int status, null_fd;
        pid_t pid = fork();

        if (pid < 0)
                die("fork: %s", strerror(errno));
        if (pid == 0) {
                null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
                dup2(null_fd, STDOUT_FILENO);
                execv(argv[0], argv);
                _exit(127);
        }
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        die("waitpid: %s", strerror(errno));
        if (!WIFEXITED(status) || WEXITSTATUS(status))
                die("%s failed", argv[0]);
}

void keep_child(pid_t pid) {
        for (size_t i = 0; i < CHILDREN_MAX; i++)
                if (!children[i]) {
                        children[i] = pid;
                        return;
                }
        die("more than %u programs at once", CHILDREN_MAX);
}

void forget_child(pid_t pid) {
        for (size_t i = 0; i < CHILDREN_MAX; i++)
                if (children[i] == pid)
                        children[i] = 0;
}

/* ---- The folder ---- */

static void clean_up(void) {
        char *argv[] = { "/bin/rm", "-rf", "--", folder, NULL };
        pid_t pid;

        if (getpid() != folder_owner) /* a forked client that died */
                return;
        for (size_t i = 0; i < CHILDREN_MAX; i++)
                if (children[i]) {
                        kill(children[i], SIGKILL);
                        waitpid(children[i], NULL, 0);
                }
        pid = fork();
        if (pid == 0) {
                execv(argv[0], argv);
                _exit(127);
        }
        waitpid(pid, NULL, 0);
}

static void on_signal(int signal_number) {
        (void)signal_number;
        clean_up(); /* system calls alone: safe here */
        _exit(3);
}

const char *work_folder(const char *parent) {
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };

        if (folder[0])
                return folder;
        if (!parent)
                parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
        if (!realpath(parent, folder) || strlen(folder) > 60)
                die("%s: not a folder with a short name", parent);
        strcat(folder, "/carvq-bench-XXXXXX");
        if (!mkdtemp(folder))
                die("%s: %s", folder, strerror(errno));
        folder_owner = getpid();
        atexit(clean_up);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                signal(signals[i], on_signal);
        return folder;
}

void work_path(const char *name, char *ret_path, size_t path_bytes) {
        if ((size_t)snprintf(ret_path, path_bytes, "%s/%s", work_folder(NULL), name) >= path_bytes)
                die("%s/%s is too long a path", folder, name);
}

/* ---- The machine ---- */

void machine_name(char *ret_text, size_t text_bytes) {
        char line[256], model[128] = "";
        struct utsname u;
        FILE *f;

        uname(&u);
        f = fopen("/proc/cpuinfo", "re");
        while (f && !model[0] && fgets(line, sizeof(line), f))
                (void)sscanf(line, "model name : %127[^\n]", model);
        if (f)
                fclose(f);
        snprintf(ret_text, text_bytes, "%s, %ld CPUs, %s %s", model[0] ? model : u.machine,
                 sysconf(_SC_NPROCESSORS_ONLN), u.sysname, u.release);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See daemon-process.h. The director's thread. Dies where it cannot go on. */
#include "daemon-process.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tools/bench/bench.h"

#define READY_NS   UINT64_C(60000000000)
#define END_NS     UINT64_C(30000000000)
#define SHOWN_MAX  60u
#define LINE_BYTES 1024u

/* Cached rows are memory of the daemon's that grows by design: little of it. */
static void write_config(struct daemon_process *d, const char *tables_folder, uint64_t n_workers) {
        char control[PATH_MAX];
        FILE *f;

        work_path("carvqd.conf", d->config_path, sizeof(d->config_path));
        work_path("control.sock", control, sizeof(control));
        f = fopen(d->config_path, "we");
        if (!f)
                die("%s: %s", d->config_path, strerror(errno));
        fprintf(f, "[carvqd]\nsocket = %s\ncontrol = %s\ntables-dir = %s\nworkers = %" PRIu64 "\n",
                d->soak->socket_path, control, tables_folder, n_workers);
        fprintf(f, "\n[table adapted]\ncache-bytes = 256K\n");
        if (fclose(f) != 0)
                die("%s: %s", d->config_path, strerror(errno));
}

/* Where it says READY=1, as sd_notify(3) has it. */
static int notify_socket(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct timeval timeout = { .tv_usec = 100000 };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (strlen(path) >= sizeof(address.sun_path))
                die("%s is too long a path", path);
        strcpy(address.sun_path, path);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
                die("%s: %s", path, strerror(errno));
        return fd;
}

void daemon_init(struct daemon_process *d, struct soak *soak, const char *tables_folder,
                 uint64_t n_workers, const char *log_path) {
        int fd;

        *d = (struct daemon_process){ .soak = soak, .log_path = log_path };
        program_beside("../../daemon/carvqd", d->program, sizeof(d->program));
        work_path("data.sock", soak->socket_path, sizeof(soak->socket_path));
        work_path("notify", d->notify_path, sizeof(d->notify_path));
        write_config(d, tables_folder, n_workers);
        d->notify_fd = notify_socket(d->notify_path);
        fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                die("%s: %s", log_path, strerror(errno));
        close(fd);
}

/* ---- Start and end ---- */

static _Noreturn void run_daemon(const struct daemon_process *d, pid_t parent) {
        int fd = open(d->log_path, O_WRONLY | O_APPEND);

        setpgid(0, 0); /* Ctrl-C is for the director */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || fd < 0 || dup2(fd, STDERR_FILENO) < 0 ||
            setenv("NOTIFY_SOCKET", d->notify_path, 1) < 0 ||
            setenv("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1", 0) < 0)
                _exit(127);
        close(fd);
        execl(d->program, d->program, "--config", d->config_path, NULL);
        _exit(127);
}

static void log_fault(struct daemon_process *d, const char *what, int status) {
        d->n_faults++;
        fprintf(stderr, "soak: the daemon %s (%s %d)\n", what,
                WIFSIGNALED(status) ? "signal" : "exit status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        daemon_show_log(d);
}

bool daemon_check(struct daemon_process *d) {
        int status;

        if (waitpid(d->pid, &status, WNOHANG) == 0)
                return true;
        atomic_store(&d->soak->shared->down_from_ns, clock_ns());
        atomic_store(&d->soak->shared->down_until_ns, UINT64_MAX);
        log_fault(d, "ended by itself", status);
        d->pid = 0;
        return false;
}

static void wait_ready(struct daemon_process *d) {
        const uint64_t deadline_ns = deadline_after(READY_NS);
        char text[512] = "";

        while (!strstr(text, "READY=1")) {
                ssize_t n = recv(d->notify_fd, text, sizeof(text) - 1, 0);

                text[MAX(n, 0)] = '\0';
                if (n >= 0 || clock_ns() < deadline_ns)
                        if (daemon_check(d))
                                continue;
                daemon_show_log(d);
                die("carvqd did not get ready");
        }
}

void daemon_start(struct daemon_process *d) {
        uint64_t start_ns = clock_ns();
        pid_t parent = getpid();
        char text[512];

        while (recv(d->notify_fd, text, sizeof(text), MSG_DONTWAIT) >= 0)
                ; /* of the one before */
        fflush(NULL);
        d->pid = fork();
        if (d->pid < 0)
                die("fork: %s", strerror(errno));
        if (d->pid == 0)
                run_daemon(d, parent);
        wait_ready(d);
        d->longest_start_ns = MAX(d->longest_start_ns, clock_ns() - start_ns);
        atomic_store(&d->soak->shared->down_until_ns, clock_ns());
}

void daemon_end(struct daemon_process *d, int signal_number) {
        const uint64_t start_ns = clock_ns(), deadline_ns = start_ns + END_NS;
        int status = 0;
        pid_t pid;

        atomic_store(&d->soak->shared->down_from_ns, start_ns);
        atomic_store(&d->soak->shared->down_until_ns, UINT64_MAX);
        kill(d->pid, signal_number);
        while ((pid = waitpid(d->pid, &status, WNOHANG)) == 0 && clock_ns() < deadline_ns)
                soak_sleep_us(1000);
        if (pid == 0) {
                kill(d->pid, SIGABRT);
                waitpid(d->pid, &status, 0);
                log_fault(d, "did not end when it was told to", status);
        } else if (signal_number == SIGTERM ? status != 0
                                            : !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
                log_fault(d, "did not end as it was told to", status);
        }
        if (signal_number == SIGTERM)
                d->longest_end_ns = MAX(d->longest_end_ns, clock_ns() - start_ns);
        d->pid = 0;
}

/* ---- What it takes ---- */

static FILE *open_proc(const struct daemon_process *d, const char *name) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/%s", d->pid, name);
        return fopen(path, "re");
}

static uint32_t count_entries(const struct daemon_process *d, const char *name) {
        uint32_t n = 0;
        char path[64];
        DIR *dir;

        snprintf(path, sizeof(path), "/proc/%d/%s", d->pid, name);
        dir = opendir(path);
        if (!dir)
                return 0;
        for (struct dirent *e; (e = readdir(dir));)
                n += e->d_name[0] != '.';
        closedir(dir);
        return n;
}

struct daemon_sample daemon_counts(const struct daemon_process *d) {
        struct daemon_sample sample = { .n_fds = count_entries(d, "fd"),
                                        .n_threads = count_entries(d, "task") };
        FILE *f = open_proc(d, "maps");
        unsigned long long inode;
        char line[LINE_BYTES];

        while (f && fgets(line, sizeof(line), f))
                sample.n_mappings +=
                        sscanf(line, "%*s %*s %*s %*s %llu", &inode) == 1 && inode != 0;
        if (f)
                fclose(f);
        return sample;
}

struct daemon_sample daemon_sample(const struct daemon_process *d) {
        struct daemon_sample sample = daemon_counts(d);
        FILE *f = open_proc(d, "smaps_rollup");
        unsigned long long kib;
        char line[LINE_BYTES];

        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "Pss: %llu", &kib) == 1)
                        sample.pss_bytes = kib * 1024;
                else if (sscanf(line, "Private_Dirty: %llu", &kib) == 1)
                        sample.dirty_bytes = kib * 1024;
        if (f)
                fclose(f);
        return sample;
}

/* ---- What it said ---- */

uint64_t daemon_log_lines(const struct daemon_process *d) {
        FILE *f = fopen(d->log_path, "re");
        uint64_t n = 0;
        int c;

        while (f && (c = getc(f)) != EOF)
                n += c == '\n';
        if (f)
                fclose(f);
        return n;
}

void daemon_show_log(const struct daemon_process *d) {
        uint64_t n = daemon_log_lines(d), first = n > SHOWN_MAX ? n - SHOWN_MAX : 0;
        FILE *f = fopen(d->log_path, "re");
        char line[LINE_BYTES];

        for (uint64_t i = 0; f && fgets(line, sizeof(line), f);) {
                if (i >= first)
                        fprintf(stderr, "carvqd: %s", line);
                i += strchr(line, '\n') != NULL;
        }
        if (f)
                fclose(f);
}

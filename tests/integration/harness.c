/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"

#define START_MS 60000

void harness_watch_memory(void) {
        const char *given = getenv("ASAN_OPTIONS");
        char options[512];

        snprintf(options, sizeof(options),
                 "%s:quarantine_size_mb=2:thread_local_quarantine_size_kb=16", given ? given : "");
        setenv("ASAN_OPTIONS", options, 1);
}

void harness_init(struct harness *h) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        *h = (struct harness){ .folder = "/tmp/carvq-test-XXXXXX" };
        assert_non_null(mkdtemp(h->folder));
        snprintf(h->socket_path, sizeof(h->socket_path), "%s/carvqd.sock", h->folder);
        snprintf(h->control_path, sizeof(h->control_path), "%s/control.sock", h->folder);
        snprintf(h->log_path, sizeof(h->log_path), "%s/log", h->folder);
        h->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", h->folder);
        assert_int_equal(bind(h->notify_fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

void harness_deinit(struct harness *h) {
        struct dirent *entry;
        DIR *dir;

        if (h->pid)
                harness_stop(h);
        close(h->notify_fd);
        dir = opendir(h->folder);
        while (dir && (entry = readdir(dir)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        unlinkat(dirfd(dir), entry->d_name, 0);
        if (dir)
                closedir(dir);
        rmdir(h->folder);
}

const char *harness_path(const struct harness *h, const char *name) {
        static char paths[8][160];
        static unsigned turn;
        char *path = paths[turn++ % 8];

        snprintf(path, sizeof(paths[0]), "%s/%s", h->folder, name);
        return path;
}

/* As systemd does it: listening sockets from descriptor 3 on, with their names. */
static void pass_sockets(const struct harness *h) {
        const struct {
                const char *path;
                int type;
        } sockets[] = { { h->socket_path, SOCK_SEQPACKET }, { h->control_path, SOCK_STREAM } };
        char pid[16];

        for (int i = 0; i < 2; i++) {
                struct sockaddr_un a = { .sun_family = AF_UNIX };
                int fd = socket(AF_UNIX, sockets[i].type, 0);

                strcpy(a.sun_path, sockets[i].path);
                if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0 ||
                    dup2(fd, 3 + i) < 0)
                        _exit(126);
                if (fd != 3 + i)
                        close(fd);
        }
        snprintf(pid, sizeof(pid), "%d", getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "2", 1);
        setenv("LISTEN_FDNAMES", "data:control", 1);
}

static void forbid_io_uring(int error) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { ARRAY_SIZE(filter), filter };

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                _exit(125);
}

/* The folder is theirs then, and the program need not be in one that they may search. */
static void become(const struct harness *h, char *const *argv) {
        int fd = open(argv[0], O_PATH | O_CLOEXEC);

        if (chown(h->folder, h->user, h->user) < 0 || chmod(harness_path(h, "notify"), 0666) < 0 ||
            chmod(h->log_path, 0666) < 0 || setgroups(0, NULL) < 0 || setgid(h->user) < 0 ||
            setuid(h->user) < 0)
                _exit(124);
        fexecve(fd, argv, environ);
}

static pid_t spawn(struct harness *h, const char *const *args) {
        const char *argv[64] = { getenv("CARVQD") };
        int n = 1;
        pid_t pid;

        assert_non_null(argv[0]);
        if (!h->pass_sockets) {
                const char *const sockets[] = { "--socket", h->socket_path, "--control",
                                                h->control_path };

                memcpy(argv + n, sockets, sizeof(sockets));
                n += (int)ARRAY_SIZE(sockets);
        }
        /* Whatever this machine serves is none of the test's business. */
        memcpy(argv + n, (const char *const[]){ "--tables-dir", "" }, 2 * sizeof(*argv));
        n += 2;
        if (getenv("CARVQD_WORKERS")) {
                argv[n++] = "--workers";
                argv[n++] = getenv("CARVQD_WORKERS");
        }
        if (getenv("CARVQD_EVENT_LOOP")) {
                argv[n++] = "--event-loop";
                argv[n++] = getenv("CARVQD_EVENT_LOOP");
        }
        while (args && *args && n < 63)
                argv[n++] = *args++;
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                int fd = open(h->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);

                dup2(fd, 2);
                setenv("NOTIFY_SOCKET", harness_path(h, "notify"), 1);
                setenv("FDSTORE", "0", 1); /* nobody here keeps descriptors */
                unsetenv("JOURNAL_STREAM");
                if (h->pass_sockets)
                        pass_sockets(h);
                if (h->io_uring_error)
                        forbid_io_uring(h->io_uring_error);
                if (h->user)
                        become(h, (char *const *)(uintptr_t)argv);
                execv(argv[0], (char *const *)(uintptr_t)argv);
                _exit(127);
        }
        return pid;
}

static int wait_for(pid_t pid) {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void print_log(const struct harness *h) {
        FILE *f = fopen(h->log_path, "re");
        char line[512];

        while (f && fgets(line, sizeof(line), f))
                print_message("# carvqd: %s", line);
        if (f)
                fclose(f);
}

int harness_try_start(struct harness *h, const char *const *args) {
        char text[512] = "";
        int pid_fd;

        /* What an earlier daemon said is not about this one. */
        while (recv(h->notify_fd, text, sizeof(text), MSG_DONTWAIT) >= 0)
                ;
        text[0] = '\0';
        h->pid = spawn(h, args);
        pid_fd = (int)syscall(SYS_pidfd_open, h->pid, 0);
        while (!strstr(text, "READY=1")) {
                struct pollfd p[] = { { .fd = h->notify_fd, .events = POLLIN },
                                      { .fd = pid_fd, .events = POLLIN } };
                ssize_t n;

                if (poll(p, 2, START_MS) < 1 || !p[0].revents) {
                        close(pid_fd);
                        if (!p[1].revents)
                                kill(h->pid, SIGKILL);
                        n = wait_for(h->pid);
                        h->pid = 0;
                        return (int)n;
                }
                n = recv(h->notify_fd, text, sizeof(text) - 1, 0);
                text[MAX(n, 0)] = '\0';
        }
        close(pid_fd);
        return -EALREADY;
}

void harness_start(struct harness *h, const char *const *args) {
        if (harness_try_start(h, args) == -EALREADY)
                return;
        print_log(h);
        fail_msg("carvqd did not become ready");
}

int harness_start_fails(struct harness *h, const char *const *args) {
        return wait_for(spawn(h, args));
}

int harness_stop(struct harness *h) {
        int status;

        kill(h->pid, SIGTERM);
        status = wait_for(h->pid);
        h->pid = 0;
        if (status != 0)
                print_log(h);
        return status;
}

static bool find_logged(const struct harness *h, const char *text) {
        FILE *f = fopen(h->log_path, "re");
        char line[1024];
        bool found = false;

        while (f && fgets(line, sizeof(line), f))
                found = found || strstr(line, text);
        if (f)
                fclose(f);
        return found;
}

bool harness_logged(const struct harness *h, const char *text) {
        bool found = find_logged(h, text);

        if (!found)
                print_log(h);
        return found;
}

void harness_wait_logged(const struct harness *h, const char *text) {
        for (int i = 0; i < 3000 && !find_logged(h, text); i++)
                nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        if (!harness_logged(h, text))
                fail_msg("not logged: %s", text);
}

int harness_ctl(const struct harness *h, const char *arguments, char *ret_said, size_t size) {
        char command[1024];
        size_t n = 0, got;
        FILE *f;

        snprintf(command, sizeof(command), "%s --control %s %s 2>&1", getenv("CARVQCTL"),
                 h->control_path, arguments);
        f = popen(command, "re");
        assert_non_null(f);
        while ((got = fread(ret_said + n, 1, size - 1 - n, f)) > 0)
                n += got;
        ret_said[n] = '\0';
        return WEXITSTATUS(pclose(f));
}

carvq_client *harness_connect(const struct harness *h) {
        struct carvq_connect_options o = { .size = sizeof(o), .socket_path = h->socket_path };
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_client *client = NULL;

        if (carvq_connect(&o, &client, message) < 0)
                fprintf(stderr, "# carvq_connect: %s\n", message);
        return client;
}

size_t harness_count(const struct harness *h, const char *proc_folder) {
        char path[64];
        struct dirent *entry;
        size_t n = 0;
        DIR *dir;

        snprintf(path, sizeof(path), "/proc/%d/%s", h->pid, proc_folder);
        dir = opendir(path);
        assert_non_null(dir);
        while ((entry = readdir(dir)))
                n += entry->d_name[0] != '.';
        closedir(dir);
        return n;
}

void harness_wait_count(const struct harness *h, const char *proc_folder, size_t n) {
        size_t now = 0;

        for (int i = 0; i < 3000; i++) {
                now = harness_count(h, proc_folder);
                if (now <= n)
                        return;
                nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        }
        fail_msg("%s: %zu entries, expected %zu", proc_folder, now, n);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tries what the sandbox of carvqd.service forbids and what the daemon needs, in the daemon's
 * place, as TAP without numbers: probe TABLE
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/io_uring.h>

static void result(const char *name, bool ok) {
        printf("%sok - sandbox: %s (%s)\n", ok ? "" : "not ", name, strerror(errno));
}

static void forbidden(const char *name, long r) {
        result(name, r < 0);
}

static void allowed(const char *name, long r) {
        if (r >= 0)
                errno = 0;
        result(name, r >= 0);
}

static int create(const char *path) {
        return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long map(int protection) {
        void *p = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return p == MAP_FAILED ? -1 : 0;
}

static long execute_copy(const char *program) {
        static char bytes[1 << 20];
        int from = open(program, O_RDONLY | O_CLOEXEC);
        int to = open("/tmp/copy", O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
        ssize_t n = read(from, bytes, sizeof(bytes));

        if (n <= 0 || write(to, bytes, (size_t)n) != n)
                return 0;
        close(to); /* else it is busy, which is no merit of the sandbox */
        return execl("/tmp/copy", "true", NULL);
}

static void try_files(const char *table) {
        forbidden("no file in /etc", create("/etc/carvq-probe"));
        forbidden("no file in /var/tmp's host", open("/var/tmp/carvq-test-host", O_RDONLY));
        forbidden("no file beside the tables", create("/var/lib/carvq/probe.carvq"));
        forbidden("no change of a table", open(table, O_WRONLY | O_CLOEXEC));
        forbidden("no socket where clients look", create("/run/carvq/probe"));
        forbidden("nothing in home folders", open("/root/carvq-test-home", O_RDONLY));
        forbidden("no kernel settings", open("/proc/sys/kernel/core_pattern", O_RDONLY));
        forbidden("no shared memory of others", create("/dev/shm/carvq-probe"));
        forbidden("no file in /usr", create("/usr/carvq-probe"));
        forbidden("no set-user-id file", open("/tmp/suid", O_WRONLY | O_CREAT, 04755));
        allowed("tables can be read", open(table, O_RDONLY | O_CLOEXEC));
        allowed("own memory can be measured", open("/proc/self/smaps", O_RDONLY));
}

static void try_network(void) {
        forbidden("no IPv4 socket", socket(AF_INET, SOCK_STREAM, 0));
        forbidden("no IPv6 socket", socket(AF_INET6, SOCK_DGRAM, 0));
        forbidden("no netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
        forbidden("no packet socket", socket(AF_PACKET, SOCK_RAW, 0));
        allowed("Unix sockets", socket(AF_UNIX, SOCK_SEQPACKET, 0));
}

static void try_calls(void) {
        const struct sched_param fifo = { .sched_priority = 1 };
        struct io_uring_params params = { 0 };

        allowed("io_uring", syscall(SYS_io_uring_setup, 8, &params));
        allowed("shared memory", memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        result("no new privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
        forbidden("no memory to write and execute", map(PROT_WRITE | PROT_EXEC));
        forbidden("no mount", mount("none", "/tmp", "tmpfs", 0, NULL));
        forbidden("no other user", setresuid(0, 0, 0));
        forbidden("no real-time scheduling", sched_setscheduler(0, SCHED_FIFO, &fifo));
        /* Last, because what they forbid would change who tries the others, or replace it. */
        forbidden("no user namespace", unshare(CLONE_NEWUSER));
        forbidden("no program that was written here", execute_copy("/usr/bin/true"));
}

int main(int argc, char **argv) {
        if (argc != 2)
                return 2;
        setlinebuf(stdout);
        try_files(argv[1]);
        try_network();
        try_calls();
        return 0;
}

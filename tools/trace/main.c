/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvq-trace: looks on while a carvqd works, from within the kernel. Privileged, and no part of
 * the daemon, which needs no capability for it. One thread.
 */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "proto/spin.h"
#include "report.h"

#define SECONDS_MAX 86400u

/* How often what the daemon has mapped is looked at, besides when a table is published. */
#define REFRESH_MS 100

/* Inode of the first PID namespace: PROC_PID_INIT_INO in the kernel, and part of its interface. */
#define FIRST_PID_NAMESPACE 0xeffffffcu

enum {
        EXIT_DONE = 0,
        EXIT_REFUSED = 1, /* the kernel or the daemon does not let us, or nobody takes our output */
        EXIT_USAGE = 2,
        EXIT_UNREACHABLE = 3, /* there is no such daemon */
};

struct options {
        const char *control_path;
        pid_t pid; /* 0: ask the control socket */
        uint32_t seconds;
        bool json;
};

static const char help[] =
        "Usage: carvq-trace [OPTION]...\n"
        "Trace a running carvqd: where lookups spend their time, the page faults and disk\n"
        "reads of each table, how long wake-ups take. Needs root.\n"
        "\n"
        "  --seconds N     for how long, 1 to 86400 (default: 10); Ctrl-C ends it earlier\n"
        "  --pid PID       which carvqd (default: the one behind the control socket)\n"
        "  --control PATH  carvqd's control socket (default: $CARVQ_CONTROL, else\n"
        "                  /run/carvq/control.sock where it exists, else\n"
        "                  $XDG_RUNTIME_DIR/carvq/control.sock)\n"
        "  --json          print JSON\n"
        "  --help          print this and exit\n"
        "  --version       print carvq-trace's version and exit\n"
        "\n"
        "While it runs, each lookup takes some microseconds longer.\n"
        "\n"
        "Exit status: 0 done, 1 it cannot be traced or the output cannot be written, 2\n"
        "wrong usage, 3 there is no such carvqd.\n";

static void complain(const char *format, ...) _printf_(1, 2);

static void complain(const char *format, ...) {
        va_list arguments;

        fputs("carvq-trace: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
}

/* ---- Options ---- */

static bool parse_number(const char *text, uint32_t max, uint32_t *ret_number) {
        unsigned long long n;
        char *end;

        errno = 0;
        n = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno || n < 1 || n > max)
                return false;
        *ret_number = (uint32_t)n;
        return true;
}

static int refuse_number(const char *option, const char *text, uint32_t max) {
        complain("%s '%s': expected a number from 1 to %" PRIu32, option, text, max);
        return -EINVAL;
}

/* 0; -EINVAL, and it was said why; 1: there is nothing more to do. */
static int parse_options(int argc, char **argv, struct options *ret_options) {
        static const struct option long_options[] = {
                { "seconds", required_argument, NULL, 's' },
                { "pid", required_argument, NULL, 'p' },
                { "control", required_argument, NULL, 'c' },
                { "json", no_argument, NULL, 'j' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { 0 },
        };
        struct options o = { .seconds = 10 };
        uint32_t pid;
        int option;

        while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
                switch (option) {
                case 's':
                        if (!parse_number(optarg, SECONDS_MAX, &o.seconds))
                                return refuse_number("--seconds", optarg, SECONDS_MAX);
                        break;
                case 'p':
                        if (!parse_number(optarg, INT32_MAX, &pid))
                                return refuse_number("--pid", optarg, INT32_MAX);
                        o.pid = (pid_t)pid;
                        break;
                case 'c':
                        o.control_path = optarg;
                        break;
                case 'j':
                        o.json = true;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 1;
                case 'v':
                        puts("carvq-trace " CARVQ_VERSION);
                        return 1;
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                complain("unexpected argument '%s'", argv[optind]);
                return -EINVAL;
        }
        *ret_options = o;
        return 0;
}

/* ---- Tracing ---- */

/* Programs in the kernel know processes by the numbers of the first namespace. */
static bool in_first_namespace(void) {
        struct stat st;

        return stat("/proc/self/ns/pid", &st) < 0 || st.st_ino == FIRST_PID_NAMESPACE;
}

/* Until the time is over, a signal comes or the daemon ends. */
static int look_on(struct tracer *tracer, struct target_files *files, const struct options *o,
                   int daemon_fd, struct report *report, struct fault *ret_fault) {
        const uint64_t start_ns = clock_ns(), end_ns = start_ns + o->seconds * UINT64_C(1000000000);
        _cleanup_(closep) int signal_fd = -1;
        sigset_t signals;
        int r = 0;

        sigemptyset(&signals);
        sigaddset(&signals, SIGINT);
        sigaddset(&signals, SIGTERM);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
        if (signal_fd < 0)
                return fault_set(ret_fault, -errno, "signalfd: %s", strerror(errno));

        tracer_start(tracer);
        complain("tracing process %d for %" PRIu32 " s; Ctrl-C ends it", files->pid, o->seconds);
        while (r >= 0 && clock_ns() < end_ns) {
                struct pollfd fds[] = { { .fd = signal_fd, .events = POLLIN },
                                        { .fd = daemon_fd, .events = POLLIN },
                                        { .fd = tracer_news_fd(tracer), .events = POLLIN } };
                const uint64_t now_ns = clock_ns();
                int timeout_ms = (int)MIN((end_ns - MIN(now_ns, end_ns)) / 1000000 + 1, REFRESH_MS);

                poll(fds, ARRAY_SIZE(fds), timeout_ms);
                report->daemon_ended = fds[1].revents;
                if (fds[0].revents || fds[1].revents)
                        break;
                tracer_take_news(tracer);
                r = target_files_refresh(files, tracer_ranges(tracer), ret_fault);
                if (r == -ENOENT || r == -ESRCH) {
                        report->daemon_ended = true;
                        r = 0;
                        break;
                }
        }
        report->traced_ns = clock_ns() - start_ns;
        tracer_stop(tracer);
        return r;
}

static int trace(const struct options *o, pid_t pid, int daemon_fd, struct fault *ret_fault) {
        static struct target_files files;
        static struct tracer tracer;
        struct report report = { .tracer = &tracer, .files = &files };
        int r;

        files.pid = pid;
        r = tracer_init(&tracer, pid, ret_fault);
        if (r >= 0)
                r = target_files_refresh(&files, tracer_ranges(&tracer), ret_fault);
        if (r >= 0)
                r = look_on(&tracer, &files, o, daemon_fd, &report, ret_fault);
        if (r >= 0)
                (o->json ? report_print_json : report_print)(&report);
        tracer_deinit(&tracer);
        target_files_deinit(&files);
        return r;
}

static int run(const struct options *o) {
        _cleanup_(closep) int daemon_fd = -1;
        struct fault fault = { 0 };
        pid_t pid = o->pid;
        int r;

        r = pid ? 0 : target_find(o->control_path, &pid, &fault);
        if (r < 0) {
                complain("%s", fault.text);
                return EXIT_UNREACHABLE;
        }
        daemon_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (daemon_fd < 0) {
                complain("process %d: %s", pid, strerror(errno));
                return EXIT_UNREACHABLE;
        }
        if (!in_first_namespace()) {
                complain("in a PID namespace; run it where all processes of the machine are seen");
                return EXIT_REFUSED;
        }
        r = trace(o, pid, daemon_fd, &fault);
        if (r < 0) {
                complain("%s", fault.text);
                return EXIT_REFUSED;
        }
        if (fflush(stdout) || ferror(stdout)) {
                complain("standard output: %s", strerror(errno));
                return EXIT_REFUSED;
        }
        return EXIT_DONE;
}

int main(int argc, char **argv) {
        struct options options;
        int r;

        claim_standard_descriptors();
        r = parse_options(argc, argv, &options);
        if (r < 0) {
                fputs("Try 'carvq-trace --help'.\n", stderr);
                return EXIT_USAGE;
        }
        return r > 0 ? EXIT_DONE : run(&options);
}

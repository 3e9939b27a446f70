/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon-thread.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/un.h>

#include "daemon/daemon.h"
#include "fuzz.h"
#include "tests/make-table.h"

#define TIMEOUT_S 20

static char folder[] = "/tmp/fuzz-daemon-XXXXXX";
static char data_path[64], control_path[64], table_path[64];
static struct config config;
static size_t n_descriptors; /* when nobody is connected; other than sockets */

static void *daemon_main(void *userdata) {
        struct fault fault = { 0 };

        (void)userdata;
        daemon_run(&config, &fault);
        require(false, fault.text); /* nobody stops it */
        return NULL;
}

/* The daemon's memory stays as it is: threads go on until the last moment. */
static void remove_folder(void) {
        char lock_path[80];

        unlink(table_path);
        unlink(data_path);
        unlink(control_path);
        snprintf(lock_path, sizeof(lock_path), "%s.lock", data_path);
        unlink(lock_path);
        snprintf(lock_path, sizeof(lock_path), "%s.lock", control_path);
        unlink(lock_path);
        rmdir(folder);
}

static int try_connect(int type) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const struct timeval timeout = { .tv_sec = TIMEOUT_S };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        require(fd >= 0, "socket");
        strcpy(address.sun_path, type == SOCK_SEQPACKET ? data_path : control_path);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) >= 0)
                return fd;
        close(fd);
        return -1;
}

/* But sockets: of those the daemon has one more for a moment. */
static size_t count_descriptors(void) {
        DIR *dir = opendir("/proc/self/fd");
        const struct dirent *entry;
        size_t n = 0;

        require(dir, "/proc");
        while ((entry = readdir(dir))) {
                char link[16] = "";

                if (readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1) > 0)
                        n += strncmp(link, "socket:", 7) != 0;
        }
        closedir(dir);
        return n;
}

/* Sessions end in their own time, on threads of the daemon. */
void daemon_thread_settle(void) {
        time_t start = time(NULL);

        while (count_descriptors() > n_descriptors) {
                require(time(NULL) - start < TIMEOUT_S, "no descriptor is left open");
                sched_yield();
        }
}

void daemon_thread_start(void) {
        const struct table_header parameters = { .codec = TABLE_CODEC_F32,
                                                 .n_rows = 100,
                                                 .n_dims = 8 };
        static char socket_option[96], control_option[96], table_option[96];
        static char *arguments[] = {
                (char *)"carvqd",
                (char *)"--config=/dev/null",
                /* Each input connects. */
                (char *)"--max-handshakes-per-second-per-user=1000000",
                (char *)"--tables-dir=",
                (char *)"--spin-us=0",
                (char *)"--log-level=error",
                (char *)"--cache-bytes=64K",
                (char *)"--max-ring-bytes=16M",
                socket_option,
                control_option,
                table_option,
                NULL,
        };
        pthread_t thread;
        int fd;

        require(mkdtemp(folder), "mkdtemp");
        snprintf(data_path, sizeof(data_path), "%s/data", folder);
        snprintf(control_path, sizeof(control_path), "%s/control", folder);
        snprintf(table_path, sizeof(table_path), "%s/small.carvq", folder);
        snprintf(socket_option, sizeof(socket_option), "--socket=%s", data_path);
        snprintf(control_option, sizeof(control_option), "--control=%s", control_path);
        snprintf(table_option, sizeof(table_option), "--table=small=%s", table_path);
        make_table_file(table_path, &parameters, 1);
        atexit(remove_folder);
        require(!config_init(&config, ARRAY_SIZE(arguments) - 1, arguments), "config_init");
        log_set_level(config.log_level);
        require(!pthread_create(&thread, NULL, daemon_main, NULL), "pthread_create");
        while ((fd = try_connect(SOCK_SEQPACKET)) < 0)
                sched_yield();
        /* It answers after the table has been loaded. */
        shutdown(fd, SHUT_WR);
        daemon_thread_drain(fd);
        close(fd);
        n_descriptors = count_descriptors();
}

int daemon_thread_connect(int type) {
        int fd = try_connect(type);

        require(fd >= 0, "connect");
        return fd;
}

size_t daemon_thread_drain(int fd) {
        size_t n_all = 0;
        char bytes[4096];
        ssize_t n;

        /* With a time-out an alarm of the fuzzer's interrupts it, whatever SA_RESTART says. */
        while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0 || (n < 0 && errno == EINTR))
                n_all += (size_t)MAX(n, 0);
        require(n == 0 || errno == ECONNRESET, "the daemon answers in time");
        return n_all;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "loop-io.h"

#include <stdio.h>
#include <string.h>

#define ENTRIES 256

/* ---- Why there is no io_uring ---- */

static int read_number(const char *path, long *ret_number) {
        _cleanup_(freep) char *line = NULL;
        FILE *f = fopen(path, "re");
        size_t size = 0;
        ssize_t n;

        if (!f)
                return -errno;
        n = getline(&line, &size, f);
        fclose(f);
        if (n < 0)
                return -EIO;
        *ret_number = strtol(line, NULL, 10);
        return 0;
}

/* The "Seccomp:" line of our own status: 2 is a filter. */
static bool under_seccomp(void) {
        _cleanup_(freep) char *line = NULL;
        FILE *f = fopen("/proc/self/status", "re");
        size_t size = 0;
        bool filter = false;

        if (!f)
                return false;
        while (getline(&line, &size, f) >= 0)
                if (!strncmp(line, "Seccomp:", 8))
                        filter = strtol(line + 8, NULL, 10) == 2;
        fclose(f);
        return filter;
}

/* What to tell a person: two halves of a sentence, of which there may be no second. */
static void explain(int error, struct fault *ret_why, struct fault *ret_remedy) {
        bool filtered = under_seccomp();
        long disabled = 0;

        if (error == -EOPNOTSUPP || (error == -ENOSYS && !filtered)) {
                fault_write(ret_why, "io_uring is %s",
                            error == -ENOSYS ? "not in this kernel (CONFIG_IO_URING)"
                                             : "older than Linux 5.19 in this kernel");
                fault_write(ret_remedy, "Linux 5.19 or newer has what is needed");
        } else if (read_number("/proc/sys/kernel/io_uring_disabled", &disabled) >= 0 && disabled) {
                fault_write(ret_why,
                            "io_uring is forbidden by the sysctl kernel.io_uring_disabled=%ld",
                            disabled);
                fault_write(ret_remedy, "set it to 0%s",
                            disabled == 1 ? " or add this user to kernel.io_uring_group" : "");
        } else if ((error == -EPERM || error == -ENOSYS || error == -EACCES) && filtered) {
                fault_write(ret_why, "io_uring is forbidden by a seccomp profile");
                fault_write(ret_remedy,
                            "containers' default ones do so: allow io_uring_setup, io_uring_enter "
                            "and io_uring_register, or run carvqd outside; clients need nothing");
        } else {
                fault_write(ret_why, "io_uring_setup: %s", strerror(-error));
                if (error == -ENOMEM)
                        fault_write(ret_remedy, "LimitMEMLOCK= in the unit may be too low");
        }
}

/* ---- io_uring ---- */

/*
 * Multishot accept() cannot be probed for; it came with Linux 5.19, as did socket(). A profile may
 * let the set-up pass and nothing else, so an entry is really submitted.
 */
static int try_ring(struct io_uring *ring) {
        struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
        bool is_new = probe && io_uring_opcode_supported(probe, IORING_OP_SOCKET);
        int r;

        if (probe)
                io_uring_free_probe(probe);
        io_uring_prep_nop(io_uring_get_sqe(ring));
        r = io_uring_submit(ring);
        if (r < 0)
                return r;
        return probe && !is_new ? -EOPNOTSUPP : 0;
}

static int init_ring(struct io_uring *ring, uint32_t setup_flags) {
        struct io_uring_params p = { .flags = setup_flags };
        int r = io_uring_queue_init_params(ENTRIES, ring, &p);

        if (r == -EINVAL && setup_flags) /* flags of a later kernel */
                r = io_uring_queue_init(ENTRIES, ring, 0);
        if (r < 0)
                return r;
        r = try_ring(ring);
        if (r < 0)
                io_uring_queue_exit(ring);
        return r;
}

int loop_io_init(struct loop_io *io, enum loop_choice choice, uint32_t setup_flags,
                 struct fault *ret_fault) {
        int r = 0;

        *io = (struct loop_io){ .epoll.fd = -1 };
        if (choice != LOOP_EPOLL) {
                r = init_ring(&io->ring, setup_flags);
                if (r >= 0)
                        return 0;
                explain(r, &io->why, &io->remedy);
        }
        if (choice == LOOP_IO_URING)
                return fault_set(ret_fault, r, "%.140s%s%.170s", io->why.text,
                                 io->remedy.text[0] ? "; " : "", io->remedy.text);
        r = loop_epoll_init(&io->epoll);
        return r < 0 ? fault_set(ret_fault, r, "epoll_create1: %s", strerror(-r)) : 0;
}

void loop_io_deinit(struct loop_io *io) {
        if (loop_io_is_epoll(io))
                closep(&io->epoll.fd);
        else
                io_uring_queue_exit(&io->ring);
}

struct io_uring_sqe *loop_io_prepare(struct loop_io *io, struct loop_op *op) {
        struct io_uring_sqe *sqe;

        if (loop_io_is_epoll(io))
                sqe = loop_epoll_prepare(&io->epoll, op);
        else
                while (!(sqe = io_uring_get_sqe(&io->ring)))
                        io_uring_submit(&io->ring);
        memset(sqe, 0, sizeof(*sqe));
        sqe->user_data = (uintptr_t)op;
        return sqe;
}

bool loop_io_has_room(struct loop_io *io) {
        return loop_io_is_epoll(io) || io_uring_sq_space_left(&io->ring) ||
               io_uring_submit(&io->ring) > 0;
}

void loop_io_submit(struct loop_io *io) {
        if (loop_io_is_epoll(io))
                loop_epoll_submit(&io->epoll);
        else if (io_uring_sq_ready(&io->ring))
                io_uring_submit(&io->ring); /* what stays behind goes with the next ones */
}

int loop_io_wait(struct loop_io *io) {
        int r;

        if (loop_io_is_epoll(io))
                return loop_epoll_wait(&io->epoll);
        r = io_uring_submit_and_wait(&io->ring, 1);
        return r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY ? r : 0;
}

void loop_io_dispatch(struct loop_io *io) {
        struct io_uring_cqe *cqe;

        if (loop_io_is_epoll(io)) {
                loop_epoll_dispatch(&io->epoll);
                return;
        }
        while (!io_uring_peek_cqe(&io->ring, &cqe)) {
                struct loop_op *op = (struct loop_op *)(uintptr_t)cqe->user_data;
                int32_t res = cqe->res;
                uint32_t flags = cqe->flags;

                /* Seen first: the callback may submit, and so need room for completions. */
                io_uring_cqe_seen(&io->ring, cqe);
                if (op)
                        op->done(op, res, flags);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <stdio.h>
#include <string.h>

#define LOOP_ENTRIES 256

struct loop {
        struct io_uring ring;
        struct mailbox mailbox;
        struct loop_op mail_op;
        void (*turned)(void *userdata); /* NULL: nobody cares */
        void *userdata;
        bool stopping;
};

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

void loop_explain(int error, struct fault *ret_fault) {
        long disabled = 0;

        if (error == -ENOSYS && !under_seccomp())
                fault_set(ret_fault, error,
                          "io_uring is not in this kernel (CONFIG_IO_URING), Linux 5.19 or newer "
                          "is needed");
        else if (read_number("/proc/sys/kernel/io_uring_disabled", &disabled) >= 0 && disabled)
                fault_set(ret_fault, error,
                          "io_uring is forbidden by the sysctl kernel.io_uring_disabled=%ld; set "
                          "it to 0%s",
                          disabled,
                          disabled == 1 ? " or add this user to kernel.io_uring_group" : "");
        else if ((error == -EPERM || error == -ENOSYS || error == -EACCES) && under_seccomp())
                fault_set(
                        ret_fault, error,
                        "io_uring is forbidden by a seccomp profile (containers' default ones do "
                        "so); "
                        "allow io_uring_setup, io_uring_enter and io_uring_register, or run carvqd "
                        "outside: clients do not need io_uring");
        else if (error == -ENOMEM)
                fault_set(ret_fault, error,
                          "io_uring: no memory, or RLIMIT_MEMLOCK is too low (LimitMEMLOCK= in the "
                          "unit)");
        else
                fault_set(ret_fault, error, "io_uring_setup: %s", strerror(-error));
}

static int ring_init(struct io_uring *ring) {
        /* One thread submits and reaps: let the kernel run completions when we ask, without
         * interrupts. */
        struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN };
        int r = io_uring_queue_init_params(LOOP_ENTRIES, ring, &p);

        return r == -EINVAL ? io_uring_queue_init(LOOP_ENTRIES, ring, 0) : r; /* before Linux 6.1 */
}

static void arm_mailbox(struct loop *loop) {
        struct io_uring_sqe *sqe = loop_prepare(loop, &loop->mail_op);

        io_uring_prep_poll_multishot(sqe, loop->mailbox.event_fd, POLLIN);
}

static void mail_arrived(struct loop_op *op, int32_t res, uint32_t cqe_flags) {
        struct loop *loop = container_of(op, struct loop, mail_op);

        (void)res;
        if (!(cqe_flags & IORING_CQE_F_MORE))
                arm_mailbox(loop);
        mailbox_drain(&loop->mailbox);
}

int loop_new(struct loop **ret_loop, struct fault *ret_fault) {
        _cleanup_(freep) struct loop *loop = calloc(1, sizeof(*loop));
        int r;

        if (!loop)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = mailbox_init(&loop->mailbox);
        if (r < 0)
                return fault_set(ret_fault, r, "eventfd: %s", strerror(-r));
        r = ring_init(&loop->ring);
        if (r < 0) {
                mailbox_deinit(&loop->mailbox);
                loop_explain(r, ret_fault);
                return r;
        }
        loop->mail_op.done = mail_arrived;
        arm_mailbox(loop);
        *ret_loop = steal_pointer(&loop);
        return 0;
}

struct loop *loop_free(struct loop *loop) {
        if (!loop)
                return NULL;
        io_uring_queue_exit(&loop->ring);
        mailbox_deinit(&loop->mailbox);
        free(loop);
        return NULL;
}

struct mailbox *loop_mailbox(struct loop *loop) {
        return &loop->mailbox;
}

struct io_uring_sqe *loop_prepare(struct loop *loop, struct loop_op *op) {
        struct io_uring_sqe *sqe;

        while (!(sqe = io_uring_get_sqe(&loop->ring)))
                io_uring_submit(&loop->ring);
        memset(sqe, 0, sizeof(*sqe));
        sqe->user_data = (uintptr_t)op;
        return sqe;
}

void loop_set_turned(struct loop *loop, void (*turned)(void *userdata), void *userdata) {
        loop->turned = turned;
        loop->userdata = userdata;
}

int loop_run(struct loop *loop) {
        while (!loop->stopping) {
                struct io_uring_cqe *cqe;
                int r;

                if (loop->turned)
                        loop->turned(loop->userdata);
                r = io_uring_submit_and_wait(&loop->ring, 1);
                if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
                        return r;
                while (!io_uring_peek_cqe(&loop->ring, &cqe)) {
                        struct loop_op *op = (struct loop_op *)(uintptr_t)cqe->user_data;
                        int32_t res = cqe->res;
                        uint32_t flags = cqe->flags;

                        /* Seen first: the callback may submit, and so need room for completions. */
                        io_uring_cqe_seen(&loop->ring, cqe);
                        if (op)
                                op->done(op, res, flags);
                }
        }
        return 0;
}

void loop_stop(struct loop *loop) {
        loop->stopping = true;
}

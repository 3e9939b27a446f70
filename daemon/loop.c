/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <string.h>

#include "log.h"

struct loop {
        struct loop_io io;
        struct mailbox mailbox;
        struct loop_op mail_op;
        void (*turned)(void *userdata); /* NULL: nobody cares */
        void *userdata;
        bool stopping;
};

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

int loop_new(enum loop_choice choice, struct loop **ret_loop, struct fault *ret_fault) {
        _cleanup_(freep) struct loop *loop = calloc(1, sizeof(*loop));
        int r;

        if (!loop)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = mailbox_init(&loop->mailbox);
        if (r < 0)
                return fault_set(ret_fault, r, "eventfd: %s", strerror(-r));
        /* One thread submits and reaps: let the kernel run completions when we ask, without
         * interrupts. */
        r = loop_io_init(&loop->io, choice, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                         ret_fault);
        if (r < 0) {
                mailbox_deinit(&loop->mailbox);
                return r;
        }
        if (loop->io.why.text[0])
                log_notice("%s: the event loop is epoll, which takes a few system calls more "
                           "wherever somebody sleeps%s%s",
                           loop->io.why.text, loop->io.remedy.text[0] ? "; " : "",
                           loop->io.remedy.text);
        loop->mail_op.done = mail_arrived;
        arm_mailbox(loop);
        *ret_loop = steal_pointer(&loop);
        return 0;
}

struct loop *loop_free(struct loop *loop) {
        if (!loop)
                return NULL;
        loop_io_deinit(&loop->io);
        mailbox_deinit(&loop->mailbox);
        free(loop);
        return NULL;
}

struct mailbox *loop_mailbox(struct loop *loop) {
        return &loop->mailbox;
}

bool loop_is_epoll(const struct loop *loop) {
        return loop_io_is_epoll(&loop->io);
}

const char *loop_name(const struct loop *loop) {
        return loop_is_epoll(loop) ? "epoll" : "io_uring";
}

const char *loop_why(const struct loop *loop) {
        return loop->io.why.text;
}

struct io_uring_sqe *loop_prepare(struct loop *loop, struct loop_op *op) {
        return loop_io_prepare(&loop->io, op);
}

void loop_cancel(struct loop *loop, struct loop_op *op) {
        io_uring_prep_cancel(loop_io_prepare(&loop->io, NULL), op, 0);
        loop_io_submit(&loop->io);
}

void loop_set_turned(struct loop *loop, void (*turned)(void *userdata), void *userdata) {
        loop->turned = turned;
        loop->userdata = userdata;
}

int loop_run(struct loop *loop) {
        while (!loop->stopping) {
                int r;

                if (loop->turned)
                        loop->turned(loop->userdata);
                r = loop_io_wait(&loop->io);
                if (r < 0)
                        return r;
                loop_io_dispatch(&loop->io);
        }
        return 0;
}

void loop_stop(struct loop *loop) {
        loop->stopping = true;
}

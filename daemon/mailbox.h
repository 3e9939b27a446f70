/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How threads talk: "run this over there". A mailbox belongs to one thread, which waits for its
 * eventfd and drains it; anyone may post. Mail is embedded in what it is about, so posting cannot
 * fail.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "proto/base.h"

struct mail {
        /* Runs on the mailbox's thread; the mail belongs to it from then on and may be posted
         * again. */
        void (*deliver)(struct mail *mail);
        STAILQ_ENTRY(mail) link;
};

struct mailbox {
        int event_fd; /* readable while there may be mail */
        pthread_mutex_t lock;
        STAILQ_HEAD(, mail) mails;
        atomic_bool pending; /* for a thread that spins: cheaper to look at than the eventfd */
};

int mailbox_init(struct mailbox *mailbox);
void mailbox_deinit(struct mailbox *mailbox);
void mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* Delivers all mail, in order. The caller need not have read the eventfd; that is done here. */
void mailbox_drain(struct mailbox *mailbox);

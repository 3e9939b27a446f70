/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chore thread: a mailbox whose mails do blocking work and then travel home to the loop. Its
 * eventfd is the only descriptor it waits for.
 */
#include "chore.h"

#include <poll.h>

#define APART_STACK_BYTES (256u << 10)

struct chores {
        struct mailbox mailbox, *home;
        pthread_t thread;
        struct mail stop;
        bool stopping; /* chore thread only */
};

static void chore_done(struct mail *mail) {
        struct chore *chore = (struct chore *)mail;

        chore->done(chore);
}

static void chore_work(struct mail *mail) {
        struct chore *chore = (struct chore *)mail;
        struct mailbox *home = chore->done ? chore->home : NULL;

        chore->work(chore); /* frees the chore if it has no `done` */
        if (!home)
                return;
        chore->mail.deliver = chore_done;
        mailbox_post(home, &chore->mail);
}

static void chores_stop(struct mail *mail) {
        struct chores *chores = container_of(mail, struct chores, stop);

        chores->stopping = true;
}

static void *chores_main(void *userdata) {
        struct chores *chores = userdata;

        while (!chores->stopping) {
                struct pollfd p = { .fd = chores->mailbox.event_fd, .events = POLLIN };

                poll(&p, 1, -1);
                mailbox_drain(&chores->mailbox);
        }
        return NULL;
}

int chores_new(struct mailbox *home, struct chores **ret_chores) {
        _cleanup_(freep) struct chores *chores = NULL;
        int r;

        chores = calloc(1, sizeof(*chores));
        if (!chores)
                return -ENOMEM;
        chores->home = home;
        r = mailbox_init(&chores->mailbox);
        if (r < 0)
                return r;
        r = -pthread_create(&chores->thread, NULL, chores_main, chores);
        if (r < 0) {
                mailbox_deinit(&chores->mailbox);
                return r;
        }
        pthread_setname_np(chores->thread, "carvqd-chores");
        *ret_chores = steal_pointer(&chores);
        return 0;
}

struct chores *chores_free(struct chores *chores) {
        if (!chores)
                return NULL;
        chores->stop.deliver = chores_stop;
        mailbox_post(&chores->mailbox, &chores->stop);
        pthread_join(chores->thread, NULL);
        mailbox_deinit(&chores->mailbox);
        free(chores);
        return NULL;
}

static void *apart_main(void *userdata) {
        chore_work(userdata);
        return NULL;
}

void chores_post_apart(struct chores *chores, struct chore *chore) {
        pthread_attr_t attributes;
        pthread_t thread;
        int r;

        chore->home = chores->home;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, APART_STACK_BYTES);
        r = pthread_create(&thread, &attributes, apart_main, &chore->mail);
        pthread_attr_destroy(&attributes);
        /* Where there are threads enough already, it is done where it may hold others up. */
        if (r != 0)
                chores_post(chores, chore);
}

void chores_post(struct chores *chores, struct chore *chore) {
        chore->home = chores->home;
        chore->mail.deliver = chore_work;
        mailbox_post(&chores->mailbox, &chore->mail);
}

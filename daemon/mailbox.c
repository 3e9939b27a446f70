/* SPDX-License-Identifier: Apache-2.0 */
#include "mailbox.h"

#include <sys/eventfd.h>

int mailbox_init(struct mailbox *m) {
        m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->event_fd < 0)
                return -errno;
        pthread_mutex_init(&m->lock, NULL);
        STAILQ_INIT(&m->mails);
        atomic_init(&m->pending, false);
        return 0;
}

void mailbox_deinit(struct mailbox *m) {
        closep(&m->event_fd);
        pthread_mutex_destroy(&m->lock);
}

void mailbox_post(struct mailbox *m, struct mail *mail) {
        bool was_empty;

        pthread_mutex_lock(&m->lock);
        was_empty = STAILQ_EMPTY(&m->mails);
        STAILQ_INSERT_TAIL(&m->mails, mail, link);
        atomic_store_explicit(&m->pending, true, memory_order_release);
        pthread_mutex_unlock(&m->lock);

        /* Only the first mail rings: the owner takes the whole list at once. */
        if (was_empty)
                (void)!write(m->event_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

void mailbox_drain(struct mailbox *m) {
        STAILQ_HEAD(, mail) mails = STAILQ_HEAD_INITIALIZER(mails);
        struct mail *mail;
        uint64_t count;

        /* Before the list is taken: a post that comes later rings again. */
        (void)!read(m->event_fd, &count, sizeof(count));

        pthread_mutex_lock(&m->lock);
        STAILQ_CONCAT(&mails, &m->mails);
        atomic_store_explicit(&m->pending, false, memory_order_relaxed);
        pthread_mutex_unlock(&m->lock);

        while ((mail = STAILQ_FIRST(&mails))) {
                STAILQ_REMOVE_HEAD(&mails, link);
                mail->deliver(mail);
        }
}

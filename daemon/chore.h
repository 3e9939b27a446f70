/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread for what may block on a disk or walk page tables: loading and unmapping tables,
 * measuring their PSS. First in, first out.
 */
#pragma once

#include "mailbox.h"

struct chore {
        struct mail mail;
        void (*work)(struct chore *chore); /* on the chore thread */
        /* Then on the loop thread; may free the chore. May be NULL. */
        void (*done)(struct chore *chore);
        struct mailbox *home;
};

struct chores;

/* Chores' `done` runs from `home`, the loop thread's mailbox. */
int chores_new(struct mailbox *home, struct chores **ret_chores);
/* Finishes what was posted, joins the thread. */
struct chores *chores_free(struct chores *chores);
void chores_post(struct chores *chores, struct chore *chore);
/* The same on a thread of its own, which need not come to an end: nobody waits for it. The chore
 * has a `done`. */
void chores_post_apart(struct chores *chores, struct chore *chore);

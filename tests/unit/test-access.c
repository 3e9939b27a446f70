/* SPDX-License-Identifier: Apache-2.0 */
/* Who may open a table: peers of several users and groups, each in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "daemon/access.h"

#define GROUP 4242

struct peer {
        uid_t uid;
        gid_t gid;
        size_t n_groups;
        gid_t first_group; /* and those after it */
};

/*
 * A socket whose peer is such a process; asked by this one, as the daemon does. Aborts if it cannot
 * be made.
 */
static int connect_as(const struct peer *peer) {
        int pair[2], listening[2];
        pid_t pid;

        assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, listening), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
                struct iovec iov = { (char *)"x", 1 };
                struct msghdr m = { .msg_iov = &iov,
                                    .msg_iovlen = 1,
                                    .msg_control = control,
                                    .msg_controllen = sizeof(control) };
                struct cmsghdr *c = CMSG_FIRSTHDR(&m);
                gid_t *groups = calloc(peer->n_groups + 1, sizeof(*groups));

                for (size_t i = 0; i < peer->n_groups; i++)
                        groups[i] = peer->first_group + (gid_t)i;
                if (setgroups(peer->n_groups, groups) < 0 || setgid(peer->gid) < 0 ||
                    setuid(peer->uid) < 0 ||
                    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                        _exit(1);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(c), &pair[0], sizeof(int));
                _exit(sendmsg(listening[1], &m, 0) != 1);
        }

        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        char byte;
        struct iovec iov = { &byte, 1 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control) };
        int status, fd;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(recvmsg(listening[0], &m, MSG_DONTWAIT), 1);
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
        close(listening[0]);
        close(listening[1]);
        return fd;
}

static bool granted(const struct peer *peer, const char *group) {
        struct table_options options = { .gid = GROUP };
        struct ucred cred;
        int fd = connect_as(peer);
        bool yes;

        snprintf(options.group, sizeof(options.group), "%s", group);
        assert_int_equal(
                getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &(socklen_t){ sizeof(cred) }), 0);
        assert_int_equal(cred.uid, peer->uid);
        yes = access_granted(fd, cred.uid, cred.gid, &options);
        close(fd);
        return yes;
}

static void test_peers(void **state) {
        static const struct {
                struct peer peer;
                bool granted;
        } cases[] = {
                { { 1000, 1000, 0, 0 }, false },
                { { 1000, GROUP, 0, 0 }, true },
                { { 1000, 1000, 1, GROUP }, true },
                { { 1000, 1000, 1, GROUP + 1 }, false },
                { { 1000, 1000, 5, GROUP - 4 }, true },  /* the last one */
                { { 1000, 1000, 5, GROUP - 5 }, false }, /* just not */
                { { 1000, 1000, 40000, 2 }, true },
                { { 1000, 1000, 40000, GROUP + 1 }, false },
                { { 0, 0, 0, 0 }, true },
        };

        (void)state;
        if (geteuid() != 0) {
                print_message("# left out: only root can become others\n");
                skip();
        }
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                if (granted(&cases[i].peer, "some") != cases[i].granted)
                        fail_msg("case %zu", i);
                assert_true(granted(&cases[i].peer, "")); /* no group: for everybody */
        }
}

/* Whoever runs the daemon may; in a child, because this cannot be undone. */
static void test_own_user(void **state) {
        int status;
        pid_t pid;

        (void)state;
        pid = fork();
        if (pid == 0) {
                const struct table_options options = { .gid = GROUP, .group = "some" };
                int pair[2];

                if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setuid(1000) < 0))
                        _exit(2);
                if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                        _exit(3);
                if (!access_granted(pair[0], geteuid(), 77, &options))
                        _exit(4);
                _exit(access_granted(pair[0], geteuid() + 1, 77, &options) ? 5 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* What is no Unix socket has no groups. */
static void test_other_descriptors(void **state) {
        const struct table_options options = { .gid = GROUP, .group = "some" };
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void)state;
        assert_false(access_granted(fd, geteuid() + 1, 77, &options));
        close(fd);
        assert_false(access_granted(-1, geteuid() + 1, 77, &options));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_peers),
                cmocka_unit_test(test_own_user),
                cmocka_unit_test(test_other_descriptors),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor for event loops. The socket itself would not do: it is replaced when the client
 * reconnects, and an epoll set that knows it would forget it without a word. So it is an epoll set
 * of our own, with the socket in it, and a timer for the time in which there is none. Made for
 * those who ask for it. The client's thread.
 */
#include "client.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int watch(int events_fd, int fd) {
        struct epoll_event event = { .events = EPOLLIN };

        return epoll_ctl(events_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int client_fd_add_socket(struct carvq_client *client) {
        return client->events_fd < 0 ? 0 : watch(client->events_fd, client->socket_fd);
}

void client_fd_close_socket(struct carvq_client *client) {
        if (client->socket_fd < 0)
                return;
        /* A child may hold copies of both: neither the set nor the daemon would notice. */
        if (client->events_fd >= 0)
                epoll_ctl(client->events_fd, EPOLL_CTL_DEL, client->socket_fd, NULL);
        shutdown(client->socket_fd, SHUT_RDWR);
        closep(&client->socket_fd);
        client->socket_fd = -1;
}

void client_fd_set_timer(struct carvq_client *client) {
        struct itimerspec at = { 0 };

        if (client->retry_timer_fd < 0)
                return;
        if (client->link == LINK_DOWN || client->link == LINK_ENDED) {
                at.it_value.tv_sec = (time_t)(client->retry_ns / 1000000000u);
                at.it_value.tv_nsec = (long)(client->retry_ns % 1000000000u);
        }
        timerfd_settime(client->retry_timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

_public_ int carvq_client_fd(carvq_client *client) {
        _cleanup_(closep) int events_fd = -1, timer_fd = -1;
        int r;

        if (client->events_fd >= 0)
                return client->events_fd;
        client->error.text[0] = '\0';
        events_fd = epoll_create1(EPOLL_CLOEXEC);
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (events_fd < 0 || timer_fd < 0)
                return fault_set(&client->error, -errno, "a descriptor for event loops: %s",
                                 strerror(errno));
        r = watch(events_fd, timer_fd);
        if (r >= 0 && client->socket_fd >= 0)
                r = watch(events_fd, client->socket_fd);
        if (r < 0)
                return fault_set(&client->error, r, "a descriptor for event loops: %s",
                                 strerror(-r));
        client->events_fd = steal_fd(&events_fd);
        client->retry_timer_fd = steal_fd(&timer_fd);
        client_fd_set_timer(client);
        return client->events_fd;
}

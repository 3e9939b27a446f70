/* SPDX-License-Identifier: Apache-2.0 */
/* See access.h. Loop thread; never blocks. */
#include "access.h"

#include <sys/socket.h>

/* SO_PEERCRED tells the primary group only. What cannot be found out is a no. */
static bool has_supplementary_group(int socket_fd, gid_t gid) {
        _cleanup_(freep) gid_t *groups = NULL;
        socklen_t n_bytes = 0;

        if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &n_bytes) >= 0)
                return false; /* none at all */
        if (errno != ERANGE)
                return false;
        groups = malloc(n_bytes);
        if (!groups || getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n_bytes) < 0)
                return false;
        for (size_t i = 0; i < n_bytes / sizeof(*groups); i++)
                if (groups[i] == gid)
                        return true;
        return false;
}

bool access_granted(int socket_fd, uid_t uid, gid_t gid, const struct table_options *options) {
        return !options->group[0] || uid == 0 || uid == geteuid() || gid == options->gid ||
               has_supplementary_group(socket_fd, options->gid);
}

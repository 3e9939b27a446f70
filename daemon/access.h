/* SPDX-License-Identifier: Apache-2.0 */
/* Who may open a table. By what the kernel says of the peer, as it was when it connected. */
#pragma once

#include "config.h"

/*
 * Whether the peer of a Unix socket, `uid` and primary group `gid`, may use a table of these
 * options: root, the daemon's own user and the members of the table's group, supplementary ones
 * included; all where it names no group.
 */
bool access_granted(int socket_fd, uid_t uid, gid_t gid, const struct table_options *options);

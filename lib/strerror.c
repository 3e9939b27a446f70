/* SPDX-License-Identifier: Apache-2.0 */
/* Words for the negative values that carvq.h documents. Static text, any thread. */
#include <limits.h>
#include <string.h>

#include "carvq.h"
#include "proto/base.h"

_public_ const char *carvq_strerror(int error) {
        const char *text;

        switch (error) {
        case 0:
                return "no error";
        case -EINVAL:
                return "an argument or option is outside its range";
        case -E2BIG:
                return "an option is newer than this libcarvq";
        case -ENOENT:
                return "not found";
        case -EPROTO:
                return "what answers does not speak the carvq protocol";
        case -EPROTONOSUPPORT:
                return "another major version of the protocol or of the file format";
        case -EACCES:
                return "not for this user and its groups";
        case -EDQUOT:
                return "more than the daemon grants";
        case -ERANGE:
                return "an id is past the end of the table";
        case -ENOBUFS:
                return "the buffer is too small for the rows";
        case -EMSGSIZE:
                return "too large for one lookup";
        case -EBADF:
                return "the table was closed or retired";
        case -EBADMSG:
                return "damaged, or not a .carvq file";
        case -ECONNRESET:
                return "the daemon is gone";
        case -ETIMEDOUT:
                return "the time-out passed without an answer";
        case -EAGAIN:
                return "rings or arena are full: release a ticket first";
        case -EOPNOTSUPP:
                return "not available in direct mode";
        case -EIO:
                return "the daemon failed";
        default:
                text = error > INT_MIN ? strerrordesc_np(-error) : NULL;
                return text ? text : "unknown error";
        }
}

_public_ const char *carvq_version(void) {
        return CARVQ_VERSION;
}

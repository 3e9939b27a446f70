/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto/wire-check.c, and the daemon's socket behind it: packets in any order and state, with any
 * number of descriptors of several kinds, sent to a whole daemon. An input is a row of packets,
 * each a byte of shape, and then the packet: of a type, sized and headed as it must be, or as it
 * comes.
 */
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon-thread.h"
#include "fuzz.h"
#include "proto/wire.h"

#define PACKETS_MAX    16u
#define FDS_MAX        5u
#define RING_BYTES_FEW (UINT64_C(16) << 20)

enum shape {
        SHAPE_FDS = 0x07,       /* how many, but 6: as the type wants; 7: too many */
        SHAPE_KIND = 0x38,      /* of them */
        SHAPE_MENDED = 0x40,    /* the right size, header and magic */
        SHAPE_TRUNCATED = 0x80, /* one byte less, after that */
};

static const struct {
        size_t bytes, n_fds;
} messages[WIRE_TYPE_LAST + 1] = {
        [WIRE_HELLO] = { sizeof(struct wire_hello), 0 },
        [WIRE_WELCOME] = { sizeof(struct wire_welcome), 0 },
        [WIRE_RING] = { sizeof(struct wire_ring), 1 },
        [WIRE_READY] = { sizeof(struct wire_ready), 1 },
        [WIRE_OPEN_TABLE] = { sizeof(struct wire_open_table), 0 },
        [WIRE_TABLE] = { sizeof(struct wire_table), 0 },
        [WIRE_CLOSE_TABLE] = { sizeof(struct wire_close_table), 0 },
        [WIRE_WAKE] = { sizeof(struct wire_wake), 0 },
        [WIRE_ERROR] = { sizeof(struct wire_error), 0 },
        [WIRE_GET_FILE] = { sizeof(struct wire_get_file), 0 },
        [WIRE_FILE] = { sizeof(struct wire_file), 1 },
        [WIRE_GET_CACHE] = { sizeof(struct wire_get_cache), 0 },
        [WIRE_CACHE] = { sizeof(struct wire_cache), 1 },
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
        (void)argc;
        (void)argv;
        daemon_thread_start();
        return 0;
}

struct packet {
        uint8_t bytes[WIRE_MESSAGE_BYTES + 64];
        size_t n_bytes, n_fds;
        uint8_t kind;
};

static void mend(struct packet *p, struct input *input) {
        uint32_t type = 1 + input_u8(input) % WIRE_TYPE_LAST;
        struct wire_hello hello = { .magic = WIRE_MAGIC, .version_major = WIRE_VERSION_MAJOR };

        p->n_bytes = messages[type].bytes;
        input_take(input, p->bytes, p->n_bytes);
        /* Names are short, and the rest of the input is the next packets'. */
        memcpy(p->bytes, &(struct wire_header){ type, (uint32_t)p->n_bytes },
               sizeof(struct wire_header));
        if (type == WIRE_HELLO)
                memcpy(p->bytes + 8, &hello.magic, 12);
}

static bool take_packet(struct input *input, struct packet *p) {
        uint8_t shape;
        uint32_t type;

        if (!input->n_bytes)
                return false;
        shape = input_u8(input);
        memset(p, 0, sizeof(*p));
        if (shape & SHAPE_MENDED)
                mend(p, input);
        else
                p->n_bytes = input_take(input, p->bytes, input_u16(input) % sizeof(p->bytes));
        memcpy(&type, p->bytes, sizeof(type));
        p->n_fds = shape & SHAPE_FDS;
        if (p->n_fds == 6)
                p->n_fds = type <= WIRE_TYPE_LAST ? messages[type].n_fds : 0;
        p->n_fds = MIN(p->n_fds, FDS_MAX);
        p->kind = (shape & SHAPE_KIND) >> 3;
        if (shape & SHAPE_TRUNCATED && p->n_bytes)
                p->n_bytes--;
        return true;
}

static void check(const struct packet *p) {
        _cleanup_(freep) uint8_t *copy = copy_exactly(p->bytes, p->n_bytes);
        struct fault fault = { 0 };
        int r = wire_check_version(copy, p->n_bytes, &fault);

        require(r == 0 || *fault.text, "a refusal has a reason");
        r = wire_check(copy, p->n_bytes, p->n_fds, &fault);
        require(r > 0 || (r == -EPROTO && *fault.text), "a type or a reason");
        require(r < 0 || (r <= WIRE_TYPE_LAST && p->n_bytes == messages[r].bytes), "of its size");
}

/* What RING should carry: of the size that its geometry asks for, with the seals; or not quite. */
static int make_memfd(const struct packet *p, int wrong) {
        int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct ring_geometry geometry;
        struct ring_layout l;
        uint64_t n_bytes = RING_PAGE_BYTES;

        memcpy(&geometry, p->bytes + sizeof(struct wire_header), sizeof(geometry));
        if (ring_layout_compute(&geometry, &l, NULL) >= 0 && l.ring_bytes <= RING_BYTES_FEW)
                n_bytes = l.ring_bytes;
        require(fd >= 0 && ftruncate(fd, (off_t)n_bytes + (wrong == 1)) >= 0, "memfd");
        if (wrong != 2)
                fcntl(fd, F_ADD_SEALS,
                      F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | (wrong == 3 ? F_SEAL_WRITE : 0));
        return fd;
}

static int make_fd(const struct packet *p) {
        int pair[2], fd;

        switch (p->kind) {
        case 0:
        case 1:
        case 2:
        case 3:
                return make_memfd(p, p->kind);
        case 4:
                fd = eventfd(0, EFD_CLOEXEC);
                break;
        case 5:
                fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
                break;
        case 6:
                fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
                break;
        default:
                require(!pipe2(pair, O_CLOEXEC), "pipe");
                close(pair[1]);
                fd = pair[0];
        }
        require(fd >= 0, "a descriptor");
        return fd;
}

/* False when the daemon has hung up. It reads one packet at a time, so a full queue empties. */
static bool send_packet(int socket_fd, const struct packet *p) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(FDS_MAX * sizeof(int))] = { 0 };
        struct iovec iov = { (void *)(uintptr_t)p->bytes, p->n_bytes };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        int fds[FDS_MAX] = { 0 };
        ssize_t n;

        for (size_t i = 0; i < p->n_fds; i++)
                fds[i] = make_fd(p);
        if (p->n_fds) {
                m.msg_control = control;
                m.msg_controllen = CMSG_SPACE(p->n_fds * sizeof(int));
                CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
                CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
                CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(p->n_fds * sizeof(int));
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, p->n_fds * sizeof(int));
        }
        n = sendmsg(socket_fd, &m, MSG_NOSIGNAL);
        for (size_t i = 0; i < p->n_fds; i++)
                close(fds[i]);
        return n >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        struct input input = { bytes, n_bytes };
        struct packet packet;
        int fd = -1;

        for (uint32_t i = 0; i < PACKETS_MAX && take_packet(&input, &packet); i++) {
                check(&packet);
                if (fd < 0)
                        fd = daemon_thread_connect(SOCK_SEQPACKET);
                if (!send_packet(fd, &packet))
                        break;
        }
        if (fd < 0)
                return 0;
        shutdown(fd, SHUT_WR);
        daemon_thread_drain(fd);
        close(fd);
        daemon_thread_settle();
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trusts no word that the daemon writes: indices are compared with our own before use, entries are
 * copied once and judged by the caller. Our words in the header are written and never read back.
 */
#include "client-ring.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/spin.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

/* Between two looks at the clock, which costs as much as a few of them. */
#define SPINS_PER_LOOK 8u

static int make_memory(uint64_t bytes, int *ret_memfd, struct fault *ret_fault) {
        const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        _cleanup_(closep) int fd = -1;

        /* Sealed against execution as well, where the kernel has heard of it. */
        fd = memfd_create("carvq-ring", flags | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("carvq-ring", flags);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "memfd_create: %s", strerror(errno));
        if (ftruncate(fd, (off_t)bytes) < 0)
                return fault_set(ret_fault, -errno, "ftruncate to %" PRIu64 " bytes: %s", bytes,
                                 strerror(errno));
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return fault_set(ret_fault, -errno, "sealing the ring's memory: %s",
                                 strerror(errno));
        *ret_memfd = steal_fd(&fd);
        return 0;
}

/* Our half of a ring that nobody has used yet. */
static void begin(struct client_ring *ring, uint8_t *memory, const struct ring_layout *layout) {
        *ring = (struct client_ring){
                .layout = *layout,
                .memory = memory,
                .header = (void *)memory,
                .claims = (void *)(memory + RING_CLAIMS_OFFSET),
                .cache_use = (void *)(memory + RING_CACHE_USE_OFFSET),
                .submissions = (void *)(memory + layout->sq_offset),
                .completions = (const void *)(memory + layout->cq_offset),
                .doorbell_fd = -1,
        };
}

int client_ring_init(struct client_ring *ring, const struct ring_geometry *geometry, int *ret_memfd,
                     struct fault *ret_fault) {
        _cleanup_(closep) int fd = -1;
        struct ring_layout layout;
        uint8_t *memory;
        int r;

        r = ring_layout_compute(geometry, &layout, ret_fault);
        if (r < 0)
                return r;
        r = make_memory(layout.ring_bytes, &fd, ret_fault);
        if (r < 0)
                return r;
        memory = mmap(NULL, layout.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return fault_set(ret_fault, -errno, "mmap of %" PRIu64 " bytes: %s",
                                 layout.ring_bytes, strerror(errno));

        begin(ring, memory, &layout);
        *ret_memfd = steal_fd(&fd);
        return 0;
}

void client_ring_deinit(struct client_ring *ring) {
        if (!ring->memory)
                return;
        munmap(ring->memory, ring->layout.ring_bytes);
        closep(&ring->doorbell_fd);
        ring->memory = NULL;
}

void client_ring_reset(struct client_ring *ring) {
        const struct ring_layout layout = ring->layout;

        closep(&ring->doorbell_fd);
        /* The words of both sides: the daemon writes to its own only from RING on. */
        memset(ring->memory, 0, RING_PAGE_BYTES);
        begin(ring, ring->memory, &layout);
}

/* A full counter (EAGAIN) rings as loud as any; a dead daemon is found out by the socket. */
static void ring_doorbell(struct client_ring *ring) {
        (void)write(ring->doorbell_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

int client_ring_submit(struct client_ring *ring, const struct ring_submission *submission) {
        const uint32_t n_entries = ring->layout.geometry.sq_entries;
        uint32_t head, n;
        int r;

        /* Acquire: pairs with the daemon's release of sq_head, after it has copied the entry. */
        head = atomic_load_explicit(&ring->header->sq_head, memory_order_acquire);
        r = ring_distance(ring->sq_tail, head, n_entries, &n);
        if (r < 0)
                return r;
        if (n == n_entries)
                return -EAGAIN;

        ring->submissions[ring->sq_tail & (n_entries - 1)] = *submission;
        ring->has_pieces |= submission->flags & RING_SUBMISSION_PIECES;
        ring->sq_tail++;
        /* Release: entry and ids are written before the daemon can see the index. */
        atomic_store_explicit(&ring->header->sq_tail, ring->sq_tail, memory_order_release);

        /* Pairs with the daemon's fence between daemon_sleeping = 1 and its last look at sq_tail:
         * one of us sees the other's store. */
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&ring->header->daemon_sleeping, memory_order_relaxed))
                ring_doorbell(ring);
        return 0;
}

/*
 * Room in the completion ring wakes a daemon only if it may sleep for want of it: the ring was full
 * behind the head that it knew. As many completions as that need as many submissions, so that a
 * client with few in flight is spared the fence. Else we ask the tail: the daemon's last store to
 * it comes before its fence, so after ours we see it if the daemon missed our head.
 */
static void publish_cq_head(struct client_ring *ring, uint32_t head_before) {
        const uint32_t n_entries = ring->layout.geometry.cq_entries;
        uint32_t tail;

        /* Release: pairs with the daemon's acquire; the entries are copied before it reuses them.
         */
        atomic_store_explicit(&ring->header->cq_head, ring->cq_head, memory_order_release);
        if (ring->sq_tail - head_before < n_entries && !ring->has_pieces)
                return;
        /* Pairs with the daemon's fence between daemon_sleeping = 1 and its last look at cq_head.
         */
        atomic_thread_fence(memory_order_seq_cst);
        tail = atomic_load_explicit(&ring->header->cq_tail, memory_order_relaxed);
        if (tail - head_before >= n_entries &&
            atomic_load_explicit(&ring->header->daemon_sleeping, memory_order_relaxed))
                ring_doorbell(ring);
}

int client_ring_reap(struct client_ring *ring, struct ring_completion *ret_completions,
                     uint32_t n_max) {
        const uint32_t n_entries = ring->layout.geometry.cq_entries;
        uint32_t tail, n, head_before = ring->cq_head;
        int r;

        /* Acquire: pairs with the daemon's release of cq_tail; entries and rows are in place. */
        tail = atomic_load_explicit(&ring->header->cq_tail, memory_order_acquire);
        r = ring_distance(tail, ring->cq_head, n_entries, &n);
        if (r < 0)
                return r;
        n = MIN(n, n_max);
        if (!n)
                return 0;

        for (uint32_t i = 0; i < n; i++)
                ret_completions[i] = ring->completions[ring->cq_head++ & (n_entries - 1)];
        /* The compiler must not come back to the shared copy once the caller judges the private
         * one. */
        atomic_signal_fence(memory_order_seq_cst);
        publish_cq_head(ring, head_before);
        return (int)n;
}

bool client_ring_ready(const struct client_ring *ring) {
        return atomic_load_explicit(&ring->header->cq_tail, memory_order_acquire) != ring->cq_head;
}

bool client_ring_spin(const struct client_ring *ring, uint64_t until_ns) {
        do
                for (unsigned i = 0; i < SPINS_PER_LOOK; i++) {
                        if (client_ring_ready(ring))
                                return true;
                        cpu_relax();
                }
        while (clock_ns() < until_ns);
        return false;
}

static void set_waiting(struct client_ring *ring, uint32_t waiting) {
        ring->waiting = waiting;
        atomic_store_explicit(&ring->header->client_waiting, waiting, memory_order_relaxed);
}

bool client_ring_arm(struct client_ring *ring) {
        /* The next odd value: the daemon sends one message for each that it meets. */
        set_waiting(ring, (ring->waiting + 1) | 1);
        /* Pairs with the daemon's fence between its store to cq_tail and its load of
         * client_waiting: either it sees that we wait, or we see its completion. */
        atomic_thread_fence(memory_order_seq_cst);
        if (!client_ring_ready(ring))
                return true;
        client_ring_disarm(ring);
        return false;
}

void client_ring_disarm(struct client_ring *ring) {
        if (ring->waiting & 1)
                set_waiting(ring, ring->waiting + 1);
}

#define claim(word, n) atomic_store_explicit(word, n, memory_order_relaxed)

void client_ring_claim(struct client_ring *ring, const struct codec_cost *cost, uint64_t n_rows,
                       uint32_t n_dims) {
        struct ring_claims *c = ring->claims;

        ring->direct_cost.n_rows_read += cost->n_rows_read;
        ring->direct_cost.bytes_read += cost->bytes_read;
        ring->direct_cost.lines_read += cost->lines_read;
        ring->direct_cost.bytes_written += cost->bytes_written;
        claim(&c->n_lookups, ++ring->n_direct_lookups);
        claim(&c->n_rows, ring->n_direct_rows += n_rows);
        claim(&c->n_rows_read, ring->direct_cost.n_rows_read);
        claim(&c->n_values_read, ring->n_direct_values += cost->n_rows_read * n_dims);
        claim(&c->bytes_read, ring->direct_cost.bytes_read);
        claim(&c->lines_read, ring->direct_cost.lines_read);
        claim(&c->bytes_written, ring->direct_cost.bytes_written);
}

void client_ring_hit(struct client_ring *ring, uint64_t handle, uint32_t slot) {
        struct ring_cache_use *use = ring->cache_use;
        uint32_t table = (uint32_t)(handle % RING_TABLES_N);

        claim(&use->n_hits[table], ++ring->n_hits[table]);
        claim(&use->hints[ring->n_hints % RING_HINTS_N], (uint64_t)table << 32 | slot);
        /* Release pairs with the daemon's acquire: the hint is written. */
        atomic_store_explicit(&use->n_hints, ++ring->n_hints, memory_order_release);
}

uint64_t client_ring_heartbeat_ns(const struct client_ring *ring) {
        return atomic_load_explicit(&ring->header->heartbeat_ns, memory_order_relaxed);
}

uint64_t client_ring_epoch(const struct client_ring *ring) {
        return atomic_load_explicit(&ring->header->epoch, memory_order_relaxed);
}

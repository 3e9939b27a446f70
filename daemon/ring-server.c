/* SPDX-License-Identifier: Apache-2.0 */
#include "ring-server.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Without these a client could truncate the memory and turn our next store into a SIGBUS. */
static int check_memfd(int memfd, uint64_t ring_bytes, struct fault *ret_fault) {
        struct statfs fs;
        struct stat st;
        int seals;

        seals = fcntl(memfd, F_GET_SEALS);
        if (seals < 0)
                return fault_set(ret_fault, -EINVAL, "ring memory: not a memfd that can be sealed");
        if ((seals & SEALS_NEEDED) != SEALS_NEEDED)
                return fault_set(ret_fault, -EINVAL,
                                 "ring memory: seals are 0x%x, expected SHRINK, GROW and SEAL",
                                 seals);
        /* A write seal would make our mapping fail later and confusingly. */
        if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
                return fault_set(ret_fault, -EINVAL, "ring memory: sealed against writing");
        if (fstat(memfd, &st) < 0)
                return fault_set(ret_fault, -errno, "ring memory: fstat: %s", strerror(errno));
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != ring_bytes)
                return fault_set(ret_fault, -EINVAL,
                                 "ring memory: %" PRIu64 " bytes, expected %" PRIu64
                                 " by its geometry",
                                 (uint64_t)st.st_size, ring_bytes);
        /* From a pool of huge pages the daemon's fault would fail where the pool is empty: SIGBUS
         * again. */
        if (fstatfs(memfd, &fs) < 0 || fs.f_type == HUGETLBFS_MAGIC)
                return fault_set(ret_fault, -EINVAL, "ring memory: on huge pages (hugetlb)");
        return 0;
}

int ring_server_init(struct ring_server *s, int memfd, const struct ring_layout *l, uint64_t epoch,
                     int socket_fd, struct fault *ret_fault) {
        uint8_t *memory;
        int r;

        r = check_memfd(memfd, l->ring_bytes, ret_fault);
        if (r < 0)
                return r;
        memory = mmap(NULL, l->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
        if (memory == MAP_FAILED)
                return fault_set(ret_fault, -errno, "ring memory: mmap of %" PRIu64 " bytes: %s",
                                 l->ring_bytes, strerror(errno));

        *s = (struct ring_server){
                .layout = *l,
                .memory = memory,
                .header = (struct ring_header *)memory,
                .submissions = (const struct ring_submission *)(memory + l->sq_offset),
                .completions = (struct ring_completion *)(memory + l->cq_offset),
                .ids = memory + l->ids_offset,
                .arena = memory + l->arena_offset,
                .claims = (const void *)(memory + RING_CLAIMS_OFFSET),
                .cache_use = (const void *)(memory + RING_CACHE_USE_OFFSET),
                .socket_fd = socket_fd,
        };
        atomic_store_explicit(&s->header->epoch, epoch, memory_order_relaxed);
        return 0;
}

void ring_server_deinit(struct ring_server *s) {
        if (s->memory)
                munmap(s->memory, s->layout.ring_bytes);
        s->memory = NULL;
}

void ring_server_resume(struct ring_server *s, uint32_t sq_head, uint32_t cq_tail,
                        uint32_t wait_answered) {
        s->sq_head = sq_head;
        s->cq_tail = s->cq_published = cq_tail;
        s->wait_answered = wait_answered;
}

int ring_server_room(struct ring_server *s, uint32_t *ret_n, struct fault *ret_fault) {
        /* Acquire pairs with the client's release of cq_head: its reads of the entries are done. */
        uint32_t head = atomic_load_explicit(&s->header->cq_head, memory_order_acquire), n_used;
        uint32_t n_entries = s->layout.geometry.cq_entries;

        if (ring_distance(s->cq_tail, head, n_entries, &n_used) < 0)
                return fault_set(ret_fault, -EPROTO,
                                 "cq_head is %" PRIu32 ", expected at most %" PRIu32
                                 " behind the tail at %" PRIu32,
                                 head, n_entries, s->cq_tail);
        *ret_n = n_entries - n_used;
        return 0;
}

int ring_server_pending(struct ring_server *s, uint32_t *ret_n, struct fault *ret_fault) {
        /* Acquire pairs with the client's release of sq_tail: entry and ids are written. */
        uint32_t tail = atomic_load_explicit(&s->header->sq_tail, memory_order_acquire);
        uint32_t n_entries = s->layout.geometry.sq_entries;

        if (ring_distance(tail, s->sq_head, n_entries, ret_n) < 0)
                return fault_set(ret_fault, -EPROTO,
                                 "sq_tail is %" PRIu32 ", expected at most %" PRIu32
                                 " ahead of the head at %" PRIu32,
                                 tail, n_entries, s->sq_head);
        return 0;
}

void ring_server_take(struct ring_server *s, struct ring_submission *ret_submission) {
        uint32_t mask = s->layout.geometry.sq_entries - 1;

        /* Ids are often where the last ones were: their line comes while the entry does. */
        __builtin_prefetch(s->ids + s->ids_guess);
        memcpy(ret_submission, &s->submissions[s->sq_head & mask], sizeof(*ret_submission));
        if (ret_submission->ids_offset < s->layout.geometry.ids_bytes)
                s->ids_guess = ret_submission->ids_offset;
        s->sq_head++;
        /* Release: the copy is done before the client may reuse the entry. */
        atomic_store_explicit(&s->header->sq_head, s->sq_head, memory_order_release);
}

const struct wire_wake ring_server_wake = { .header = { WIRE_WAKE, sizeof(ring_server_wake) } };

static bool client_sleeps(struct ring_server *s) {
        uint32_t waiting;

        /* Partner: the client's fence between raising client_waiting and its last look at cq_tail.
         */
        atomic_thread_fence(memory_order_seq_cst);
        waiting = atomic_load_explicit(&s->header->client_waiting, memory_order_relaxed);
        if (!(waiting & 1) || waiting == s->wait_answered)
                return false;
        s->wait_answered = waiting;
        return true;
}

void ring_server_complete(struct ring_server *s, const struct ring_completion *completion) {
        uint32_t mask = s->layout.geometry.cq_entries - 1;

        memcpy(&s->completions[s->cq_tail & mask], completion, sizeof(*completion));
        s->cq_tail++;
}

bool ring_server_publish(struct ring_server *s) {
        /* A client that sleeps must not be woken for nothing, round after round. */
        if (s->cq_tail == s->cq_published)
                return false;
        s->cq_published = s->cq_tail;
        /* Release pairs with the client's acquire of cq_tail: entries and rows are written. */
        atomic_store_explicit(&s->header->cq_tail, s->cq_tail, memory_order_release);
        return client_sleeps(s);
}

void ring_server_announce_sleep(struct ring_server *s) {
        atomic_store_explicit(&s->header->daemon_sleeping, 1, memory_order_relaxed);
        /* Partner: the client's fence between publishing an index and reading daemon_sleeping. */
        atomic_thread_fence(memory_order_seq_cst);
}

void ring_server_announce_awake(struct ring_server *s) {
        atomic_store_explicit(&s->header->daemon_sleeping, 0, memory_order_relaxed);
}

void ring_server_heartbeat(struct ring_server *s, uint64_t now_ns) {
        atomic_store_explicit(&s->header->heartbeat_ns, now_ns, memory_order_relaxed);
}

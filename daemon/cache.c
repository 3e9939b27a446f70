/* SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

#include <string.h>
#include <sys/mman.h>

/* As much again as the file takes, but not so little that it would be of no use, nor so much that
 * somebody would have to be asked. */
#define AUTO_BYTES_MIN (UINT64_C(8) << 20)
#define AUTO_BYTES_MAX (UINT64_C(64) << 20)

/* Misses are remembered for about this many times as many rows as fit in: seldom enough forgotten
 * for a row that is used now and then, soon enough for one that is not. */
#define SEEN_PER_SLOT 8u

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

uint64_t cache_auto_bytes(const struct table_header *h) {
        return h->latent_dims ? MIN(MAX(h->file_bytes, AUTO_BYTES_MIN), AUTO_BYTES_MAX) : 0;
}

struct cache *cache_free(struct cache *c) {
        if (!c)
                return NULL;
        if (c->memory)
                munmap(c->memory, c->layout.cache_bytes);
        closep(&c->fd);
        free(c->seen);
        free((void *)c->hinted);
        free(c->hands);
        free(c);
        return NULL;
}

static void cache_freep(struct cache **c) {
        cache_free(*c);
}

/* Sealed after it is mapped: this mapping stays writable, and no other one ever will be. */
static int make_memory(struct cache *c, struct fault *ret_fault) {
        const struct cache_layout *l = &c->layout;
        void *memory;

        c->fd = memfd_create("carvq-cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (c->fd < 0 || ftruncate(c->fd, (off_t)l->cache_bytes) < 0)
                return fault_set(ret_fault, -errno, "memory for the cache: %s", strerror(errno));
        memory = mmap(NULL, l->cache_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
        if (memory == MAP_FAILED)
                return fault_set(ret_fault, -errno, "mmap of the cache's %" PRIu64 " bytes: %s",
                                 l->cache_bytes, strerror(errno));
        c->memory = memory;
        if (fcntl(c->fd, F_ADD_SEALS, SEALS) < 0)
                return fault_set(ret_fault, -errno, "sealing the cache: %s", strerror(errno));
        /* Clients look at words that were never written: their pages are ours to pay for. */
        memset(memory, 0, l->rows_offset);
        return 0;
}

static uint64_t power_of_two(uint64_t n) {
        uint64_t power = 1;

        while (power < n)
                power *= 2;
        return power;
}

/* What fits into `bytes`; twice the table is enough for sets to differ in how full they are. */
static uint32_t n_sets_of(uint64_t bytes, const struct table_header *h) {
        uint64_t row_bytes = align_up((uint64_t)h->n_dims * sizeof(float), 64);
        uint64_t n = bytes / (CACHE_WAYS * row_bytes + sizeof(cache_set));

        return (uint32_t)MIN(MIN(n, CACHE_SETS_MAX), 2 * div_round_up(h->n_rows, CACHE_WAYS));
}

int cache_new(uint64_t bytes, const struct table_header *h, struct cache **ret_cache,
              struct fault *ret_fault) {
        _cleanup_(cache_freep) struct cache *c = NULL;
        uint32_t n_sets = n_sets_of(bytes, h);
        int r;

        if (!n_sets) {
                *ret_cache = NULL;
                return 0;
        }
        c = calloc(1, sizeof(*c));
        if (!c)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        c->fd = -1;
        c->n_rows = h->n_rows;
        atomic_flag_clear(&c->busy);
        r = cache_layout_compute(n_sets, h->n_dims, &c->layout, ret_fault);
        if (r < 0)
                return r;
        c->n_seen = power_of_two(SEEN_PER_SLOT * cache_slots(&c->layout));
        c->seen = calloc(c->n_seen, sizeof(*c->seen));
        c->hinted = calloc(n_sets, sizeof(*c->hinted));
        c->hands = calloc(n_sets, sizeof(*c->hands));
        if (!c->seen || !c->hinted || !c->hands)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = make_memory(c, ret_fault);
        if (r < 0)
                return r;
        *ret_cache = steal_pointer(&c);
        return 0;
}

/* ---- Who may enter ---- */

static bool enter(struct cache *c) {
        return !atomic_flag_test_and_set_explicit(&c->busy, memory_order_acquire);
}

static void leave(struct cache *c) {
        atomic_flag_clear_explicit(&c->busy, memory_order_release);
}

static cache_set *words_of(struct cache *c, uint32_t set) {
        return (cache_set *)(void *)(c->memory + set * sizeof(cache_set));
}

static uint64_t load(const _Atomic uint64_t *word) {
        return atomic_load_explicit(word, memory_order_relaxed);
}

static bool is_in(struct cache *c, uint64_t id) {
        cache_set *words = words_of(c, cache_set_of(&c->layout, id));

        for (uint32_t way = 0; way < CACHE_WAYS; way++)
                if (cache_word_holds(load(&(*words)[way]), id))
                        return true;
        return false;
}

/* True at the second miss; a miss is forgotten when another id comes to its place. */
static bool missed_twice(struct cache *c, uint64_t id) {
        uint64_t hash = (id ^ UINT64_C(0x94d049bb133111eb)) * UINT64_C(0xbf58476d1ce4e5b9);
        uint16_t *seen = &c->seen[(hash >> 16) & (c->n_seen - 1)];
        uint16_t print = (uint16_t)(hash >> 48) | 1; /* not 0: that is nobody's */
        bool twice = *seen == print;

        *seen = twice ? 0 : print;
        return twice;
}

static bool has(const uint64_t *ids, uint32_t n, uint64_t id) {
        for (uint32_t i = 0; i < n; i++)
                if (ids[i] == id)
                        return true;
        return false;
}

uint32_t cache_admit(struct cache *c, const uint64_t *ids, uint64_t n_ids, uint64_t *ret_ids,
                     uint32_t n_max) {
        uint32_t n = 0;

        if (!enter(c))
                return 0;
        for (uint64_t i = 0; i < n_ids && n < n_max; i++)
                if (ids[i] < c->n_rows && !is_in(c, ids[i]) && !has(ret_ids, n, ids[i]) &&
                    missed_twice(c, ids[i]))
                        ret_ids[n++] = ids[i];
        leave(c);
        return n;
}

/* ---- Who must leave ---- */

void cache_hint(struct cache *c, uint64_t slot) {
        _Atomic uint8_t *hinted;
        uint8_t bit = (uint8_t)(1u << (slot % CACHE_WAYS));

        if (slot >= cache_slots(&c->layout))
                return;
        hinted = &c->hinted[slot / CACHE_WAYS];
        if (!(atomic_load_explicit(hinted, memory_order_relaxed) & bit))
                atomic_fetch_or_explicit(hinted, bit, memory_order_relaxed);
}

/* The hand passes ways that were of use, once; a new row waits a whole turn. */
static uint32_t choose_way(struct cache *c, uint32_t set) {
        cache_set *words = words_of(c, set);
        uint8_t hinted = atomic_load_explicit(&c->hinted[set], memory_order_relaxed), passed = 0;
        uint32_t way;

        for (way = 0; way < CACHE_WAYS; way++)
                if (!load(&(*words)[way]))
                        return way;
        for (way = c->hands[set]; hinted & ~passed & (1u << way); way = (way + 1) % CACHE_WAYS)
                passed |= (uint8_t)(1u << way);
        atomic_fetch_and_explicit(&c->hinted[set], (uint8_t)~passed, memory_order_relaxed);
        c->hands[set] = (uint8_t)((way + 1) % CACHE_WAYS);
        return way;
}

static void write_row(struct cache *c, uint32_t set, uint32_t way, uint64_t id,
                      const float *values) {
        uint64_t slot = (uint64_t)set * CACHE_WAYS + way;
        _Atomic uint64_t *to = (void *)(c->memory + cache_row_offset(&c->layout, slot));
        _Atomic uint64_t *word = &(*words_of(c, set))[way];
        uint64_t sequence = (load(word) & CACHE_SEQUENCE_MASK) + 1; /* odd */
        uint32_t n_dims = c->layout.n_dims;

        atomic_store_explicit(word, id << CACHE_SEQUENCE_BITS | sequence, memory_order_relaxed);
        /* Partner: a reader's fence between its copy and its second look at the word. */
        atomic_thread_fence(memory_order_release);
        for (uint32_t i = 0; i < n_dims; i += 2) {
                uint64_t two = 0;

                memcpy(&two, values + i, MIN(n_dims - i, 2u) * sizeof(float));
                atomic_store_explicit(to++, two, memory_order_relaxed);
        }
        /* When the sequence wraps it leaves out 0. Release pairs with a reader's first look. */
        sequence = (sequence + 1) & CACHE_SEQUENCE_MASK;
        sequence = sequence ? sequence : 2;
        atomic_store_explicit(word, id << CACHE_SEQUENCE_BITS | sequence, memory_order_release);
}

void cache_put(struct cache *c, uint64_t id, const float *values) {
        uint32_t set = cache_set_of(&c->layout, id), way;

        if (!enter(c))
                return;
        if (!is_in(c, id)) {
                way = choose_way(c, set);
                if (load(&(*words_of(c, set))[way]))
                        atomic_fetch_add_explicit(&c->n_evictions, 1, memory_order_relaxed);
                write_row(c, set, way, id, values);
                atomic_fetch_add_explicit(&c->n_insertions, 1, memory_order_relaxed);
        }
        leave(c);
}

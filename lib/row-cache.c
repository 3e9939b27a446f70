/* SPDX-License-Identifier: Apache-2.0 */
#include "row-cache.h"

#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Without the first seal the daemon could shorten the memory under us, and a read would be a
 * SIGBUS; from a pool of huge pages that is empty, too. */
static int check_memory(int fd, uint64_t cache_bytes, struct fault *ret_fault) {
        int seals = fcntl(fd, F_GET_SEALS);
        struct statfs fs;
        struct stat st;

        if (seals < 0 || !(seals & F_SEAL_SHRINK))
                return fault_set(ret_fault, -EPROTO, "the cache is not memory that cannot shrink");
        if (fstat(fd, &st) < 0)
                return fault_set(ret_fault, -errno, "fstat of the cache: %s", strerror(errno));
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != cache_bytes)
                return fault_set(ret_fault, -EPROTO,
                                 "the cache has %" PRIu64 " bytes, expected %" PRIu64,
                                 (uint64_t)st.st_size, cache_bytes);
        if (fstatfs(fd, &fs) < 0 || fs.f_type == HUGETLBFS_MAGIC)
                return fault_set(ret_fault, -EPROTO, "the cache is on huge pages (hugetlb)");
        return 0;
}

int row_cache_init(struct row_cache *cache, int fd, uint32_t n_sets, uint32_t n_dims,
                   struct fault *ret_fault) {
        struct cache_layout layout;
        void *memory;
        int r;

        if (cache_layout_compute(n_sets, n_dims, &layout, ret_fault) < 0)
                return -EPROTO;
        r = check_memory(fd, layout.cache_bytes, ret_fault);
        if (r < 0)
                return r;
        memory = mmap(NULL, layout.cache_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return fault_set(ret_fault, -errno, "mmap of the cache's %" PRIu64 " bytes: %s",
                                 layout.cache_bytes, strerror(errno));
        *cache = (struct row_cache){ .layout = layout, .memory = memory };
        return 0;
}

void row_cache_deinit(struct row_cache *cache) {
        if (cache->memory)
                munmap((void *)cache->memory, cache->layout.cache_bytes);
        cache->memory = NULL;
}

static inline void copy_word(const _Atomic uint64_t *word, uint8_t *to, size_t bytes) {
        uint64_t w = atomic_load_explicit(word, memory_order_relaxed);

        memcpy(to, &w, bytes);
}

/* Word by word and relaxed, because they may change under us; a copy that was disturbed is thrown
 * away by whoever looks at the sequence again. */
static void copy_values(const _Atomic uint64_t *words, uint32_t n_dims, float *ret_values) {
        uint8_t *to = (uint8_t *)ret_values;
        uint32_t n_words = n_dims / 2, i = 0;

        /* Unrolled by hand: compilers leave atomic loads in the order and number they find. */
        for (; i + 4 <= n_words; i += 4, to += 4 * sizeof(uint64_t)) {
                copy_word(&words[i], to, 8);
                copy_word(&words[i + 1], to + 8, 8);
                copy_word(&words[i + 2], to + 16, 8);
                copy_word(&words[i + 3], to + 24, 8);
        }
        for (; i < n_words; i++, to += sizeof(uint64_t))
                copy_word(&words[i], to, 8);
        if (n_dims % 2)
                copy_word(&words[i], to, sizeof(float));
}

bool row_cache_read(const struct row_cache *cache, uint64_t id, float *ret_values,
                    uint32_t *ret_slot) {
        const struct cache_layout *l = &cache->layout;
        const uint32_t set = cache_set_of(l, id);
        const _Atomic uint64_t *words = (const void *)(cache->memory + set * sizeof(cache_set));
        uint64_t word = 0, slot;
        uint32_t way = 0;

        /* Acquire pairs with the daemon's release of the word: the row is written. */
        while (way < CACHE_WAYS &&
               !cache_word_holds(word = atomic_load_explicit(&words[way], memory_order_acquire),
                                 id))
                way++;
        if (way == CACHE_WAYS)
                return false;
        slot = (uint64_t)set * CACHE_WAYS + way;
        copy_values((const void *)(cache->memory + cache_row_offset(l, slot)), l->n_dims,
                    ret_values);
        /* Partner: the daemon's fence between making the word odd and writing the row. If we copied
         * any of the new row, we see that the word has changed. */
        atomic_thread_fence(memory_order_acquire);
        *ret_slot = (uint32_t)slot;
        return atomic_load_explicit(&words[way], memory_order_relaxed) == word;
}

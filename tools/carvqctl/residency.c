/* SPDX-License-Identifier: Apache-2.0 */
#include "residency.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/page-cache.h"
#include "format.h"

static int measure(int fd, uint64_t n_bytes, struct page_cache *ret_cache) {
        void *map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
        int r;

        if (map == MAP_FAILED)
                return -errno;
        r = page_cache_measure(fd, map, n_bytes, ret_cache);
        munmap(map, n_bytes);
        return r;
}

/* By its path, which means another file than an older generation's. */
static int measure_table(const json_t *table, struct page_cache *ret_cache) {
        const uint64_t n_bytes = field_number(table, "counted.file_bytes");
        _cleanup_(closep) int fd = -1;
        struct stat st;

        if (!field_true(table, "is_published"))
                return -ESTALE;
        fd = open(field_text(table, "path"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || !n_bytes || (uint64_t)st.st_size != n_bytes)
                return -ESTALE;
        return measure(fd, n_bytes, ret_cache);
}

void residency_complete(json_t *stats) {
        const json_t *item;
        size_t i;

        json_array_foreach(field(stats, "tables"), i, item) {
                const json_t *table = field(item, "table");
                json_t *reported = json_object_get(table, "page_cache");
                struct page_cache cache;

                if (!*field_text(reported, "unavailable") || measure_table(table, &cache) < 0)
                        continue;
                json_object_set_new(reported, "cached_bytes",
                                    json_integer((json_int_t)cache.cached_bytes));
                if (cache.knows_evicted)
                        json_object_set_new(reported, "evicted_bytes",
                                            json_integer((json_int_t)cache.evicted_bytes));
                json_object_set_new(reported, "unavailable", json_null());
        }
}

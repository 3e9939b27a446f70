/* SPDX-License-Identifier: Apache-2.0 */
#include "page-cache.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* of all architectures */
#endif

/* As the kernel has them: Linux, include/uapi/linux/mman.h. */
struct cachestat_range {
        uint64_t offset, length;
};

struct cachestat {
        uint64_t n_cached, n_dirty, n_writeback, n_evicted, n_recently_evicted; /* pages */
};

/* Pages asked for by one mincore(): a byte each. */
#define MINCORE_PAGES 65536u

static int ask_cachestat(int fd, uint64_t n_bytes, struct page_cache *ret_cache) {
        const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
        struct cachestat_range range = { 0, n_bytes };
        struct cachestat stat;

        if (syscall(SYS_cachestat, fd, &range, &stat, 0) < 0)
                return -errno;
        *ret_cache = (struct page_cache){
                .cached_bytes = MIN(stat.n_cached * page_bytes, n_bytes),
                .knows_evicted = true,
                .evicted_bytes = stat.n_recently_evicted * page_bytes,
        };
        return 0;
}

/* To everybody else mincore() says that all pages are there. */
static bool may_know(int fd) {
        struct stat st;
        char path[32];

        if (fstat(fd, &st) < 0)
                return false;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return st.st_uid == geteuid() || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

static int ask_mincore(int fd, uint8_t *map, uint64_t n_bytes, struct page_cache *ret_cache) {
        const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
        _cleanup_(freep) uint8_t *pages = malloc(MINCORE_PAGES);
        uint64_t n_cached = 0;

        if (!pages)
                return -ENOMEM;
        if (!may_know(fd))
                return -EPERM;
        for (uint64_t at = 0; at < n_bytes; at += MINCORE_PAGES * page_bytes) {
                uint64_t n = MIN(n_bytes - at, MINCORE_PAGES * page_bytes);

                if (mincore(map + at, n, pages) < 0)
                        return -errno;
                for (uint64_t i = 0; i < div_round_up(n, page_bytes); i++)
                        n_cached += pages[i] & 1;
        }
        *ret_cache = (struct page_cache){ .cached_bytes = MIN(n_cached * page_bytes, n_bytes) };
        return 0;
}

int page_cache_measure(int fd, void *map, uint64_t n_bytes, struct page_cache *ret_cache) {
        return ask_cachestat(fd, n_bytes, ret_cache) >= 0
                       ? 0
                       : ask_mincore(fd, map, n_bytes, ret_cache);
}

/* The unified hierarchy's line of /proc/self/cgroup: "0::/path". */
static int own_cgroup(char ret_path[PATH_MAX]) {
        FILE *f = fopen("/proc/self/cgroup", "re");
        char line[PATH_MAX];
        int r = -ENODEV;

        if (!f)
                return -errno;
        while (r < 0 && fgets(line, sizeof(line), f)) {
                line[strcspn(line, "\n")] = '\0';
                if (!strncmp(line, "0::", 3) &&
                    snprintf(ret_path, PATH_MAX, "/sys/fs/cgroup%s/memory.stat", line + 3) <
                            PATH_MAX)
                        r = 0;
        }
        fclose(f);
        return r;
}

int page_cache_refaults(uint64_t *ret_pages) {
        char path[PATH_MAX], line[128];
        FILE *f;
        int r;

        r = own_cgroup(path);
        if (r < 0)
                return r;
        f = fopen(path, "re");
        if (!f)
                return -errno;
        r = -ENODATA;
        while (r < 0 && fgets(line, sizeof(line), f))
                if (sscanf(line, "workingset_refault_file %" SCNu64, ret_pages) == 1)
                        r = 0;
        fclose(f);
        return r;
}

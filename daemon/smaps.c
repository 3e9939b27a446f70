/* SPDX-License-Identifier: Apache-2.0 */
/* See smaps.h, and "smaps" in proc(5). madvise() may have cut a mapping into several areas. */
#include "smaps.h"

#include <string.h>

static struct smaps_range *find_range(struct smaps_range *ranges, size_t n_ranges, uintptr_t start,
                                      uintptr_t end) {
        uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

        for (size_t i = 0; i < n_ranges; i++)
                if (start >= ranges[i].start &&
                    end - ranges[i].start <= align_up(ranges[i].length_bytes, page_bytes))
                        return &ranges[i];
        return NULL;
}

int smaps_read(FILE *smaps, struct smaps_range *ranges, size_t n_ranges) {
        _cleanup_(freep) char *line = NULL;
        struct smaps_range *range = NULL;
        uintptr_t start, end;
        uint64_t kib;
        size_t size = 0;

        /* An area is a line "start-end ..." and then lines "Field: N kB". */
        while (getline(&line, &size, smaps) >= 0)
                if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
                        range = find_range(ranges, n_ranges, start, end);
                        if (range)
                                range->found = true;
                } else if (range && sscanf(line, "Pss: %" SCNu64, &kib) == 1)
                        range->pss_bytes += kib * 1024;
                else if (range && sscanf(line, "Rss: %" SCNu64, &kib) == 1)
                        range->rss_bytes += kib * 1024;
        return ferror(smaps) ? -EIO : 0;
}

int smaps_measure(struct smaps_range *ranges, size_t n_ranges) {
        FILE *smaps = fopen("/proc/self/smaps", "re");
        int r;

        if (!smaps)
                return -errno;
        r = smaps_read(smaps, ranges, n_ranges);
        fclose(smaps);
        return r;
}

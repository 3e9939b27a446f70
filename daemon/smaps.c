/* SPDX-License-Identifier: Apache-2.0 */
/* See smaps.h, and "smaps" in proc(5). madvise() may have cut a mapping into several areas. */
#include "smaps.h"

#include <string.h>

static bool is_inside(const struct smaps_range *range, uintptr_t start, uintptr_t end) {
        uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

        return start >= range->start &&
               end - range->start <= align_up(range->length_bytes, page_bytes);
}

int smaps_read(FILE *smaps, struct smaps_range *const *ranges, size_t n_ranges) {
        _cleanup_(freep) char *line = NULL;
        uintptr_t start = 0, end = 0;
        uint64_t kib;
        size_t size = 0;

        /* An area is a line "start-end ..." and then lines "Field: N kB". */
        while (getline(&line, &size, smaps) >= 0) {
                bool area = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2;
                bool pss = !area && sscanf(line, "Pss: %" SCNu64, &kib) == 1;

                if (!area && !pss && sscanf(line, "Rss: %" SCNu64, &kib) != 1)
                        continue;
                for (size_t i = 0; i < n_ranges; i++) {
                        if (!is_inside(ranges[i], start, end))
                                continue;
                        if (area)
                                ranges[i]->found = true;
                        else if (pss)
                                ranges[i]->pss_bytes += kib * 1024;
                        else
                                ranges[i]->rss_bytes += kib * 1024;
                }
        }
        return ferror(smaps) ? -EIO : 0;
}

int smaps_measure(struct smaps_range *const *ranges, size_t n_ranges) {
        FILE *smaps = fopen("/proc/self/smaps", "re");
        int r;

        if (!smaps)
                return -errno;
        r = smaps_read(smaps, ranges, n_ranges);
        fclose(smaps);
        return r;
}

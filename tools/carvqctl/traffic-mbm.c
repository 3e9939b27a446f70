/* SPDX-License-Identifier: Apache-2.0 */
/* The part of traffic.h that asks resctrl. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "traffic.h"

#define MON_FEATURES "fs/resctrl/info/L3_MON/mon_features"

static bool has_line(FILE *f, const char *wanted) {
        char line[256];

        while (fgets(line, sizeof(line), f)) {
                line[strcspn(line, "\n")] = '\0';
                if (!strcmp(line, wanted))
                        return true;
        }
        return false;
}

static int check_features(const char *sysfs, struct fault *ret_fault) {
        char path[PATH_MAX];
        bool monitors;
        FILE *f;

        snprintf(path, sizeof(path), "%s/" MON_FEATURES, sysfs);
        f = fopen(path, "re");
        if (!f)
                return fault_set(ret_fault, -errno,
                                 "resctrl is not mounted, or the CPU does not monitor: %s",
                                 strerror(errno));
        monitors = has_line(f, "mbm_total_bytes");
        fclose(f);
        if (!monitors)
                return fault_set(ret_fault, -ENODEV, "this CPU does not count mbm_total_bytes");
        return 0;
}

int traffic_mbm_open(struct traffic_mbm *mbm, const char *sysfs, struct fault *ret_fault) {
        _cleanup_(freep) char *group = NULL;
        int r;

        r = check_features(sysfs, ret_fault);
        if (r < 0)
                return r;
        if (asprintf(&group, "%s/fs/resctrl/mon_groups/carvq-%d", sysfs, (int)getpid()) < 0) {
                group = NULL;
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        }
        if (mkdir(group, 0700) < 0)
                return fault_set(ret_fault, -errno, "%s: %s", group, strerror(errno));
        mbm->group = steal_pointer(&group);
        return 0;
}

int traffic_mbm_add(const struct traffic_mbm *mbm, pid_t pid, struct fault *ret_fault) {
        char path[PATH_MAX], folder[32];
        struct dirent *entry;
        DIR *threads;
        int r = 0;
        int fd;

        snprintf(path, sizeof(path), "%s/tasks", mbm->group);
        snprintf(folder, sizeof(folder), "/proc/%d/task", (int)pid);
        fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (fd < 0)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        threads = opendir(folder);
        if (!threads)
                r = fault_set(ret_fault, -errno, "%s: %s", folder, strerror(errno));
        /* A write() for each thread, as the file wants it; one that has ended does not count. */
        while (r >= 0 && (entry = readdir(threads)))
                if (entry->d_name[0] != '.' && dprintf(fd, "%s\n", entry->d_name) < 0 &&
                    errno != ESRCH)
                        r = fault_set(ret_fault, -errno, "%s: thread %s: %s", path, entry->d_name,
                                      strerror(errno));
        if (threads)
                closedir(threads);
        close(fd);
        return r;
}

void traffic_mbm_close(struct traffic_mbm *mbm) {
        if (!mbm->group)
                return;
        rmdir(mbm->group); /* its threads go back to where they were */
        free(mbm->group);
        mbm->group = NULL;
}

/* "Unavailable" and "Error" are what the kernel writes where it has no number. */
static int read_domain(const char *path, uint64_t *ret_bytes, struct fault *ret_fault) {
        FILE *f = fopen(path, "re");
        char text[64] = "";
        char *end;
        int r = 0;

        if (!f)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        (void)fgets(text, sizeof(text), f);
        fclose(f);
        errno = 0;
        *ret_bytes = strtoull(text, &end, 10);
        if (end == text || errno || (*end && *end != '\n'))
                r = fault_set(ret_fault, -ENODATA, "%s says \"%.*s\", expected a number", path,
                              (int)strcspn(text, "\n"), text);
        return r;
}

int traffic_mbm_read(const struct traffic_mbm *mbm, uint64_t *ret_bytes, struct fault *ret_fault) {
        char path[PATH_MAX];
        uint64_t sum = 0, bytes = 0;
        struct dirent *entry;
        size_t n_domains = 0;
        DIR *domains;
        int r = 0;

        snprintf(path, sizeof(path), "%s/mon_data", mbm->group);
        domains = opendir(path);
        if (!domains)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        while (r >= 0 && (entry = readdir(domains))) {
                if (strncmp(entry->d_name, "mon_L3_", 7))
                        continue;
                snprintf(path, sizeof(path), "%s/mon_data/%s/mbm_total_bytes", mbm->group,
                         entry->d_name);
                r = read_domain(path, &bytes, ret_fault);
                if (r >= 0)
                        sum += bytes;
                n_domains++;
        }
        closedir(domains);
        if (r >= 0 && !n_domains)
                r = fault_set(ret_fault, -ENODATA, "%s/mon_data has no L3 domain", mbm->group);
        if (r >= 0)
                *ret_bytes = sum;
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of traffic.h that asks the memory controllers. Each is a PMU with a folder under
 * bus/event_source/devices: `type` for perf_event_attr, `cpumask` with a CPU of each socket, and
 * for an event NAME files events/NAME, NAME.scale and NAME.unit.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/perf_event.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "traffic.h"

#define LINE_BYTES 256
#define MIB        1048576.0

/* The first line of folder/name, without its end. */
static int read_line(const char *folder, const char *name, char ret_line[LINE_BYTES]) {
        char path[PATH_MAX];
        FILE *f;
        int r = 0;

        if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
                return -ENAMETOOLONG;
        f = fopen(path, "re");
        if (!f)
                return -errno;
        if (!fgets(ret_line, LINE_BYTES, f))
                r = -ENODATA;
        fclose(f);
        if (r >= 0)
                ret_line[strcspn(ret_line, "\n")] = '\0';
        return r;
}

/* ---- An event's config word ---- */

/* Puts the low bits of `value` where "config:0-7,32-35" says, from its low end on. */
static int scatter(const char *format, uint64_t value, uint64_t *config) {
        const char *at = format;

        if (strncmp(at, "config:", 7))
                return -EINVAL;
        for (at += 7; *at; at += *at == ',') {
                char *end;
                unsigned long first = strtoul(at, &end, 10), last = first;

                if (end == at)
                        return -EINVAL;
                if (*end == '-') {
                        at = end + 1;
                        last = strtoul(at, &end, 10);
                        if (end == at)
                                return -EINVAL;
                }
                if (first > last || last > 63 || (*end && *end != ','))
                        return -EINVAL;
                for (; first <= last; first++, value >>= 1)
                        *config |= (value & 1) << first;
                at = end;
        }
        return value ? -EINVAL : 0;
}

int traffic_event_config(const char *pmu_folder, const char *terms, uint64_t *ret_config,
                         struct fault *ret_fault) {
        uint64_t config = 0;

        while (*terms) {
                size_t n_name = strcspn(terms, "=,"), n_term = strcspn(terms, ",");
                char name[64], format[LINE_BYTES], *end;
                uint64_t value = 1; /* of a term without one */
                int r;

                snprintf(name, sizeof(name), "format/%.*s", (int)MIN(n_name, 50u), terms);
                if (n_name < n_term) {
                        value = strtoull(terms + n_name + 1, &end, 0);
                        if (end != terms + n_term || n_name + 1 == n_term)
                                return fault_set(ret_fault, -EINVAL,
                                                 "%s: event term \"%.*s\" has no number",
                                                 pmu_folder, (int)n_term, terms);
                }
                r = read_line(pmu_folder, name, format);
                if (r >= 0)
                        r = scatter(format, value, &config);
                if (r < 0)
                        return fault_set(ret_fault, -EINVAL,
                                         "%s: event term \"%.*s\" does not fit its format",
                                         pmu_folder, (int)n_term, terms);
                terms += n_term + (terms[n_term] == ',');
        }
        *ret_config = config;
        return 0;
}

/* ---- Counters ---- */

/* Bytes that one count stands for; the kernel gives MiB. */
static int read_scale(const char *pmu_folder, const char *event, double *ret_bytes) {
        char name[64], line[LINE_BYTES], *end;
        double scale;
        int r;

        snprintf(name, sizeof(name), "events/%s.unit", event);
        r = read_line(pmu_folder, name, line);
        if (r < 0)
                return r;
        if (strcmp(line, "MiB"))
                return -EINVAL;
        snprintf(name, sizeof(name), "events/%s.scale", event);
        r = read_line(pmu_folder, name, line);
        if (r < 0)
                return r;
        scale = strtod(line, &end);
        if (end == line || *end || !(scale > 0) || !isfinite(scale))
                return -EINVAL;
        *ret_bytes = scale * MIB;
        return 0;
}

static int open_counter(struct traffic_imc *imc, uint32_t type, uint64_t config, int cpu,
                        bool writes, double bytes_per_count) {
        struct perf_event_attr attr = { .type = type, .size = sizeof(attr), .config = config };
        int fd;

        if (imc->n == TRAFFIC_COUNTERS_MAX)
                return -E2BIG;
        fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd < 0)
                return -errno;
        imc->counters[imc->n].fd = fd;
        imc->counters[imc->n].writes = writes;
        imc->counters[imc->n++].bytes_per_count = bytes_per_count;
        return 0;
}

/* A counter for each CPU of "0" or "0,24" or "0-1". */
static int open_event(struct traffic_imc *imc, const char *pmu_folder, const char *event,
                      bool writes, struct fault *ret_fault) {
        char terms[LINE_BYTES], type[LINE_BYTES], cpus[LINE_BYTES], name[64];
        double bytes_per_count;
        uint64_t config;
        int r;

        snprintf(name, sizeof(name), "events/%s", event);
        r = read_line(pmu_folder, name, terms);
        if (r >= 0)
                r = read_line(pmu_folder, "type", type);
        if (r >= 0)
                r = read_line(pmu_folder, "cpumask", cpus);
        if (r >= 0)
                r = read_scale(pmu_folder, event, &bytes_per_count);
        if (r < 0)
                return fault_set(ret_fault, r, "%s: event %s: %s", pmu_folder, event,
                                 r == -EINVAL ? "its scale is none of MiB" : strerror(-r));
        r = traffic_event_config(pmu_folder, terms, &config, ret_fault);
        if (r < 0)
                return r;
        for (char *at = cpus; *at;) {
                int first = (int)strtol(at, &at, 10), last = first;

                if (*at == '-')
                        last = (int)strtol(at + 1, &at, 10);
                for (; first <= last; first++) {
                        r = open_counter(imc, (uint32_t)strtoul(type, NULL, 10), config, first,
                                         writes, bytes_per_count);
                        if (r < 0)
                                return fault_set(ret_fault, r, "perf_event_open of %s, %s: %s",
                                                 pmu_folder, event, strerror(-r));
                }
                if (*at && *at != ',')
                        return fault_set(ret_fault, -EINVAL, "%s: cpumask is \"%s\"", pmu_folder,
                                         cpus);
                at += *at == ',';
        }
        return 0;
}

int traffic_imc_open(struct traffic_imc *imc, const char *sysfs, struct fault *ret_fault) {
        char folder[PATH_MAX], pmu[PATH_MAX];
        struct dirent *entry;
        DIR *devices;
        int r = 0;

        *imc = (struct traffic_imc){ 0 };
        snprintf(folder, sizeof(folder), "%s/bus/event_source/devices", sysfs);
        devices = opendir(folder);
        if (!devices)
                return fault_set(ret_fault, -errno, "%s: %s", folder, strerror(errno));
        while (r >= 0 && (entry = readdir(devices))) {
                /* Free-running ones count the same again. */
                if (strncmp(entry->d_name, "uncore_imc", 10) ||
                    strstr(entry->d_name, "free_running"))
                        continue;
                if ((size_t)snprintf(pmu, sizeof(pmu), "%s/%s", folder, entry->d_name) >=
                    sizeof(pmu))
                        continue;
                r = open_event(imc, pmu, "cas_count_read", false, ret_fault);
                if (r >= 0)
                        r = open_event(imc, pmu, "cas_count_write", true, ret_fault);
        }
        closedir(devices);
        if (r >= 0 && !imc->n)
                r = fault_set(ret_fault, -ENODEV,
                              "this machine shows no memory controllers, uncore_imc*");
        if (r < 0)
                traffic_imc_close(imc);
        return r;
}

void traffic_imc_close(struct traffic_imc *imc) {
        for (size_t i = 0; i < imc->n; i++)
                close(imc->counters[i].fd);
        imc->n = 0;
}

int traffic_imc_read(const struct traffic_imc *imc, uint64_t *ret_read_bytes,
                     uint64_t *ret_written_bytes, struct fault *ret_fault) {
        double sums[2] = { 0 };

        for (size_t i = 0; i < imc->n; i++) {
                uint64_t count;

                if (read(imc->counters[i].fd, &count, sizeof(count)) != sizeof(count))
                        return fault_set(ret_fault, -EIO, "a memory controller's counter: %s",
                                         strerror(errno));
                sums[imc->counters[i].writes] += (double)count * imc->counters[i].bytes_per_count;
        }
        *ret_read_bytes = (uint64_t)sums[0];
        *ret_written_bytes = (uint64_t)sums[1];
        return 0;
}

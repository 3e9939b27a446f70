/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that memory really moved, where the machine counts them: for some processes by resctrl's
 * memory bandwidth monitoring (Linux, Documentation/filesystems/resctrl.rst), for the whole machine
 * by the memory controllers' own counters (perf_event_open(2), PMUs named uncore_imc*). Neither is
 * there in most virtual machines; then there is a sentence and no figure. Wants root. One thread.
 */
#pragma once

#include "proto/base.h"

/* Where `sysfs` is asked for it is "/sys", but for tests. */

struct traffic_mbm {
        char *group; /* the monitoring group's folder, ours to remove; NULL: not open */
};

/* Makes a monitoring group. -errno, and the fault says what is missing. */
int traffic_mbm_open(struct traffic_mbm *mbm, const char *sysfs, struct fault *ret_fault);
/* Moves all threads of a process into it; those that they start later are in it, too. */
int traffic_mbm_add(const struct traffic_mbm *mbm, pid_t pid, struct fault *ret_fault);
void traffic_mbm_close(struct traffic_mbm *mbm);
/* Of its processes since then, read and written, of all L3 domains. */
int traffic_mbm_read(const struct traffic_mbm *mbm, uint64_t *ret_bytes, struct fault *ret_fault);

#define TRAFFIC_COUNTERS_MAX 64u

/* Of the whole machine: read and written apart. */
struct traffic_imc {
        size_t n;
        struct {
                int fd;
                bool writes;
                double bytes_per_count;
        } counters[TRAFFIC_COUNTERS_MAX];
};

int traffic_imc_open(struct traffic_imc *imc, const char *sysfs, struct fault *ret_fault);
void traffic_imc_close(struct traffic_imc *imc);
/* Since it was opened. */
int traffic_imc_read(const struct traffic_imc *imc, uint64_t *ret_read_bytes,
                     uint64_t *ret_written_bytes, struct fault *ret_fault);

/*
 * What an event file of a PMU says, as "event=0x04,umask=0x03": the config word of perf_event_attr,
 * by the PMU's format files ("config:0-7", or parts with a comma between them). Pure but for
 * reading these; -EINVAL for terms that it does not know. For tests.
 */
int traffic_event_config(const char *pmu_folder, const char *terms, uint64_t *ret_config,
                         struct fault *ret_fault);

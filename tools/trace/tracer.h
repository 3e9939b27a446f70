/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs in the kernel: loads and attaches them, and holds the memory that they share with
 * this process. They go when it goes, however it ends.
 */
#pragma once

#include <sys/types.h>

#include "proto/base.h"
#include "shared.h"

struct trace_bpf;
struct bpf_link;
struct ring_buffer;

#define TRACER_LINKS_MAX 1280u

struct tracer {
        struct trace_bpf *programs;
        struct bpf_link *links[TRACER_LINKS_MAX];
        size_t n_links;
        struct ring_buffer *news;
        /* What this kernel does not offer, as a sentence; empty: all there. */
        char no_faults[96], no_major_faults[96], no_block[96];
};

/*
 * -EPERM: no privileges; -ENOENT: the daemon has no probes; others: the kernel's refusal. The fault
 * says what to do. Nothing is recorded yet.
 */
int tracer_init(struct tracer *tracer, pid_t pid, struct fault *ret_fault);
void tracer_deinit(struct tracer *tracer);

/* From now on; no longer. What is there stays readable. */
void tracer_start(struct tracer *tracer);
void tracer_stop(struct tracer *tracer);

/* Readable when a table was published: take the news, then look where it is. */
int tracer_news_fd(const struct tracer *tracer);
void tracer_take_news(struct tracer *tracer);

struct ranges *tracer_ranges(struct tracer *tracer);
const struct counts *tracer_counts(const struct tracer *tracer);
const struct histogram *tracer_phase(const struct tracer *tracer, enum phase phase);
const struct file_counts *tracer_file(const struct tracer *tracer, uint32_t number);

/* Tables that were seen: at most `n_max`, in any order. Returns how many. */
struct tracer_table {
        uint64_t generation;
        struct table_counts counts;
};

size_t tracer_tables(const struct tracer *tracer, struct tracer_table *ret_tables, size_t n_max);

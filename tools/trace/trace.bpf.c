/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * carvq-trace in the kernel: adds up what passes at the daemon's probes and at a few tracepoints.
 * Runs in whatever thread comes by, on all CPUs at once; trusts no argument of a probe, as the
 * process behind it may be anything. All maps are bounded, and what finds no room is counted.
 *
 * Kernel structs are declared here as far as they are read; where each member lies is looked up in
 * the running kernel's BTF when this is loaded.
 */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/ptrace.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>

#include "shared.h"

#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD */
#define OP_MASK       0xffu      /* REQ_OP_MASK */
#define OP_READ       0u
#define BIOS_MAX      64 /* of one request that are looked at */

struct task_struct {
        int pid, tgid;
        unsigned flags;
        void *bio_list;
} __attribute__((preserve_access_index));

struct bvec_iter {
        unsigned bi_size;
} __attribute__((preserve_access_index));

struct bio {
        struct bio *bi_next;
        unsigned bi_opf;
        struct bvec_iter bi_iter;
} __attribute__((preserve_access_index));

struct request {
        struct bio *bio;
} __attribute__((preserve_access_index));

/* The kernel lends clocks and reads of its memory to programs under the GPL; this file offers both
 * licences. */
char trace_license[] SEC("license") = "GPL";

/* Set before loading. */
const volatile __u32 daemon_pid;

/* Set when everything is attached: a lookup is seen from its start or not at all. */
bool tracing;

struct ranges ranges;
struct counts counts;
struct histogram phases[PHASES_N];
struct file_counts files[FILES_N];

/* A lookup between submit and complete. */
struct lookup {
        __u64 submit_ns, taken_ns;
        __u64 decode_ns; /* of its table, up to then */
        __u64 generation;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 16384);
        __type(key, __u64); /* job */
        __type(value, struct lookup);
} lookups SEC(".maps");

/* What a worker has decoded of a table. A lookup that is served in several rounds is decoded in
 * each; the time is the difference between two of these sums. */
struct decode_key {
        __u64 generation;
        __u64 thread;
};

struct decode {
        __u64 start_ns, end_ns;
        __u64 sum_ns;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 8192);
        __type(key, struct decode_key);
        __type(value, struct decode);
} decodes SEC(".maps");

/* A thread of the daemon; only it writes here, but for the doorbell. */
struct thread {
        __u64 doorbell_ns;  /* has been woken, and taken nothing yet; 0: not so */
        __u64 completed_ns; /* of its last completion */
        __u64 n_wakes;      /* messages under way to clients */
        __u64 fault_ns;     /* its last fault on a table */
        __u32 fault_file, in_fault;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1024);
        __type(key, __u32);
        __type(value, struct thread);
} threads SEC(".maps");

/* Clients' threads that were woken and do not run yet: when their answers were complete. */
struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 4096);
        __type(key, __u32);
        __type(value, __u64);
} woken SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, TABLES_N);
        __type(key, __u64); /* generation */
        __type(value, struct table_counts);
} tables SEC(".maps");

/* That there is a table whose place in memory carvq-trace should learn before rows are asked of it.
 */
struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 65536); /* a power of two pages, of whatever size */
} news SEC(".maps");

struct block_read {
        __u64 start_ns;
        __u32 file, unused;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 16384);
        __type(key, __u64); /* struct bio */
        __type(value, struct block_read);
} block_reads SEC(".maps");

static __always_inline void add(__u64 *sum, __u64 n) {
        __sync_fetch_and_add(sum, n);
}

/*
 * An interval that a wrong clock made negative counts as none. Global, as BPF understands it: the
 * verifier looks at it once and not at all of its ways in each of its callers.
 */
__noinline int note(__u64 phase, __u64 start_ns, __u64 end_ns) {
        __u64 ns = end_ns > start_ns ? end_ns - start_ns : 0;
        __u64 bucket = bucket_of(ns);

        if (phase >= PHASES_N || bucket >= BUCKETS_N)
                return 0;
        add(&phases[phase].n, 1);
        add(&phases[phase].sum_ns, ns);
        add(&phases[phase].buckets[bucket], 1);
        return 0;
}

/* By key; made of zeros where there is none. NULL: no room, and `lost` counts it. */
#define ENTRY(map, key, lost)                                                                      \
        __extension__({                                                                            \
                void *entry_value = bpf_map_lookup_elem(&map, key);                                \
                if (!entry_value) {                                                                \
                        typeof(*(map).value) entry_new = { 0 };                                    \
                        bpf_map_update_elem(&map, key, &entry_new, BPF_NOEXIST);                   \
                        entry_value = bpf_map_lookup_elem(&map, key);                              \
                        if (!entry_value)                                                          \
                                add(lost, 1);                                                      \
                }                                                                                  \
                entry_value;                                                                       \
        })

static __always_inline struct thread *thread_of(__u32 tid) {
        return ENTRY(threads, &tid, &counts.n_lost_threads);
}

static __always_inline struct thread *this_thread(void) {
        return thread_of((__u32)bpf_get_current_pid_tgid());
}

static __always_inline bool is_daemon(void) {
        return tracing && bpf_get_current_pid_tgid() >> 32 == daemon_pid;
}

static __always_inline struct table_counts *table_of(__u64 generation) {
        return ENTRY(tables, &generation, &counts.n_lost_tables);
}

/* ---- The probes: rows' way through the daemon ---- */

SEC("usdt")
int BPF_USDT(submit, __u64 job, __u64 seat, __u64 generation, __u32 n_ids, __u64 submit_ns) {
        struct lookup lookup = { .submit_ns = submit_ns, .generation = generation };
        struct decode_key key = { .generation = generation };
        struct decode *decode;
        struct thread *thread;

        if (!is_daemon())
                return 0;
        lookup.taken_ns = bpf_ktime_get_ns();
        add(&counts.n_submitted, 1);
        thread = this_thread();
        if (thread && thread->doorbell_ns) {
                note(PHASE_DOORBELL, thread->doorbell_ns, lookup.taken_ns);
                thread->doorbell_ns = 0;
        }
        key.thread = (__u32)bpf_get_current_pid_tgid();
        decode = bpf_map_lookup_elem(&decodes, &key);
        if (decode)
                lookup.decode_ns = decode->sum_ns;
        if (bpf_map_update_elem(&lookups, &job, &lookup, BPF_ANY))
                add(&counts.n_lost_lookups, 1);
        return 0;
}

SEC("usdt")
int BPF_USDT(decode_start, __u64 generation, __u64 map) {
        struct decode_key key = { .generation = generation };
        struct table_counts *table;
        struct decode *decode;

        if (!is_daemon())
                return 0;
        table = table_of(generation);
        if (table)
                table->map = map;
        key.thread = (__u32)bpf_get_current_pid_tgid();
        decode = ENTRY(decodes, &key, &counts.n_lost_decodes);
        if (decode)
                decode->start_ns = bpf_ktime_get_ns();
        return 0;
}

SEC("usdt")
int BPF_USDT(decode_end, __u64 generation) {
        struct decode_key key = { .generation = generation };
        struct table_counts *table;
        struct decode *decode;
        struct thread *thread;

        if (!is_daemon())
                return 0;
        thread = this_thread();
        if (thread)
                thread->in_fault = 0;
        key.thread = (__u32)bpf_get_current_pid_tgid();
        decode = bpf_map_lookup_elem(&decodes, &key);
        if (!decode || !decode->start_ns)
                return 0;
        decode->end_ns = bpf_ktime_get_ns();
        decode->sum_ns += decode->end_ns - decode->start_ns;
        table = table_of(generation);
        if (table)
                add(&table->decode_ns, decode->end_ns - decode->start_ns);
        decode->start_ns = 0;
        return 0;
}

/* Four phases whose sum is the fifth, whatever happened: what is no decoding before the last of it
 * was waiting. */
static __always_inline void note_lookup(const struct lookup *lookup, __u64 now_ns) {
        struct decode_key key = { .generation = lookup->generation };
        __u64 end_ns = lookup->taken_ns, decode_ns = 0;
        struct decode *decode;

        key.thread = (__u32)bpf_get_current_pid_tgid();
        decode = bpf_map_lookup_elem(&decodes, &key);
        if (decode && decode->end_ns > lookup->taken_ns) {
                end_ns = decode->end_ns;
                decode_ns = decode->sum_ns - lookup->decode_ns;
        }
        note(PHASE_QUEUED, lookup->submit_ns, lookup->taken_ns);
        note(PHASE_GATHERED, lookup->taken_ns + decode_ns, end_ns);
        note(PHASE_DECODED, 0, decode_ns);
        note(PHASE_COMPLETED, end_ns, now_ns);
        note(PHASE_TOTAL, lookup->submit_ns, now_ns);
}

SEC("usdt")
int BPF_USDT(complete, __u64 job, __u64 seat, __u32 status, __u32 n_rows) {
        __u64 now_ns = bpf_ktime_get_ns();
        struct table_counts *table;
        struct lookup *lookup;
        struct thread *thread;

        if (!is_daemon())
                return 0;
        thread = this_thread();
        if (thread)
                thread->completed_ns = now_ns;
        lookup = bpf_map_lookup_elem(&lookups, &job);
        if (!lookup) {
                add(&counts.n_unknown, 1);
                return 0;
        }
        add(status ? &counts.n_failed : &counts.n_completed, 1);
        table = lookup->generation ? table_of(lookup->generation) : NULL;
        if (table) {
                add(&table->n_lookups, 1);
                add(&table->n_rows, n_rows);
        }
        if (!status)
                note_lookup(lookup, now_ns);
        bpf_map_delete_elem(&lookups, &job);
        return 0;
}

SEC("usdt")
int BPF_USDT(wake) {
        struct thread *thread = is_daemon() ? this_thread() : NULL;

        if (thread)
                thread->n_wakes++;
        return 0;
}

/* ---- The probes: what is rare ---- */

SEC("usdt")
int BPF_USDT(cache_miss, __u64 generation, __u64 n_ids) {
        struct table_counts *table = is_daemon() ? table_of(generation) : NULL;

        if (table)
                add(&table->n_cache_misses, n_ids);
        return 0;
}

SEC("usdt")
int BPF_USDT(cache_hit, __u64 session, __u64 generation, __u64 n_rows) {
        struct table_counts *table = is_daemon() && n_rows ? table_of(generation) : NULL;

        if (table)
                add(&table->n_cache_hits, n_rows);
        return 0;
}

#define COUNTS(probe, counter)                                                                     \
        SEC("usdt")                                                                                \
        int BPF_USDT(probe) {                                                                      \
                if (is_daemon())                                                                   \
                        add(&counts.counter, 1);                                                   \
                return 0;                                                                          \
        }

COUNTS(session_open, n_sessions_opened)
COUNTS(session_close, n_sessions_closed)
COUNTS(table_retire, n_tables_retired)

SEC("usdt")
int BPF_USDT(table_publish, __u64 generation) {
        if (!is_daemon())
                return 0;
        add(&counts.n_tables_published, 1);
        /* Full: then carvq-trace has been told already. */
        bpf_ringbuf_output(&news, &generation, sizeof(generation), BPF_RB_FORCE_WAKEUP);
        return 0;
}

/* ---- Wake-ups ---- */

/* In the thread that wakes, of one that sleeps. */
SEC("tp_btf/sched_waking")
int BPF_PROG(waking, struct task_struct *task) {
        __u32 tgid = bpf_get_current_pid_tgid() >> 32, pid = (__u32)task->pid;
        struct thread *thread;

        if (!tracing || (tgid == daemon_pid) == (task->tgid == (int)daemon_pid))
                return 0;
        if (tgid != daemon_pid) {
                /* Somebody rings. What a loop thread is woken for is never taken as one. */
                thread = thread_of(pid);
                if (thread && !thread->doorbell_ns)
                        thread->doorbell_ns = bpf_ktime_get_ns();
                return 0;
        }
        thread = this_thread();
        if (!thread || !thread->n_wakes || task->flags & KERNEL_THREAD)
                return 0;
        thread->n_wakes--;
        if (!thread->completed_ns)
                return 0; /* before we looked */
        if (bpf_map_update_elem(&woken, &pid, &thread->completed_ns, BPF_ANY))
                add(&counts.n_lost_wakes, 1);
        return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switching, bool preempted, struct task_struct *from, struct task_struct *to) {
        __u32 to_pid, from_pid;
        struct thread *thread;
        __u64 *completed_ns;

        if (!tracing)
                return 0;
        to_pid = (__u32)to->pid;
        completed_ns = bpf_map_lookup_elem(&woken, &to_pid);
        if (completed_ns) {
                note(PHASE_CLIENT, *completed_ns, bpf_ktime_get_ns());
                bpf_map_delete_elem(&woken, &to_pid);
        }
        /* Goes back to sleep: it was woken for something else, and so were those that it woke. */
        if (preempted || from->tgid != (int)daemon_pid)
                return 0;
        from_pid = (__u32)from->pid;
        thread = bpf_map_lookup_elem(&threads, &from_pid);
        if (thread && !thread->in_fault)
                thread->doorbell_ns = thread->n_wakes = 0;
        return 0;
}

/* ---- Tables' pages ---- */

/* FILES_N: none. */
static __always_inline __u32 file_at(__u64 address) {
        __u32 list = ranges.active & 1, low = 0, high = ranges.n[list];

        for (__u32 i = 0; i < 11 && low < high; i++) { /* 2^10 files */
                __u32 middle = (low + high) / 2;
                const struct range *r = &ranges.list[list][middle & (FILES_N - 1)];

                if (address >= r->end)
                        low = middle + 1;
                else if (address < r->start)
                        high = middle;
                else
                        return r->file;
        }
        return FILES_N;
}

/* Null where it is none of a file's, as often as not. */
static __always_inline struct file_counts *counts_at(__u64 address, __u32 *ret_file) {
        __u32 file = file_at(address);

        if (file >= FILES_N)
                return NULL;
        *ret_file = file;
        return &files[file];
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(fault, unsigned long address) {
        struct file_counts *file;
        struct thread *thread;
        __u32 number = 0;

        if (!is_daemon())
                return 0;
        thread = this_thread();
        file = counts_at(address, &number);
        if (!file) {
                add(&counts.n_faults_elsewhere, 1);
                if (thread)
                        thread->in_fault = 0;
                return 0;
        }
        add(&file->n_faults, 1);
        if (thread) {
                thread->fault_ns = bpf_ktime_get_ns();
                thread->fault_file = number;
                thread->in_fault = 1;
        }
        return 0;
}

/* The kernel's own count of major faults, when one is over. */
SEC("perf_event")
int fault_major(struct bpf_perf_event_data *context) {
        struct file_counts *file;
        struct thread *thread;
        __u32 number = 0;

        if (!is_daemon())
                return 0;
        file = counts_at(context->addr, &number);
        if (!file)
                return 0;
        add(&file->n_major_faults, 1);
        thread = this_thread();
        if (thread && thread->in_fault)
                note(PHASE_FAULT, thread->fault_ns, bpf_ktime_get_ns());
        if (thread)
                thread->in_fault = 0;
        return 0;
}

/* ---- The disk ---- */

/* In the thread whose fault asks for it, read-ahead included. */
SEC("tp_btf/block_bio_queue")
int BPF_PROG(block_queue, struct bio *bio) {
        struct task_struct *task = (void *)bpf_get_current_task_btf();
        struct block_read read = { 0 };
        struct file_counts *file;
        struct thread *thread;
        __u64 key = (__u64)bio;
        __u32 number;

        /* What a stacked device makes of it below is the same read once more. */
        if (!is_daemon() || (bio->bi_opf & OP_MASK) != OP_READ || task->bio_list)
                return 0;
        thread = this_thread();
        if (!thread || !thread->in_fault)
                return 0;
        number = thread->fault_file;
        if (number >= FILES_N)
                return 0;
        file = &files[number];
        add(&file->n_block_reads, 1);
        add(&file->block_read_bytes, bio->bi_iter.bi_size);
        read.file = number;
        read.start_ns = bpf_ktime_get_ns();
        if (bpf_map_update_elem(&block_reads, &key, &read, BPF_ANY))
                add(&counts.n_lost_block, 1);
        return 0;
}

static __always_inline void end_read(struct bio *bio) {
        __u64 key = (__u64)bio;
        struct block_read *read = bpf_map_lookup_elem(&block_reads, &key);

        if (!read)
                return;
        note(PHASE_BLOCK, read->start_ns, bpf_ktime_get_ns());
        bpf_map_delete_elem(&block_reads, &key);
}

/* Of most disks the kernel tells of the end of requests, which several reads may share. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_request_complete, struct request *request) {
        struct bio *bio = request->bio;

        for (int i = 0; i < BIOS_MAX && bio; i++) {
                end_read(bio);
                bio = bio->bi_next;
        }
        return 0;
}

/* Of those without requests, of each read. */
SEC("tp_btf/block_bio_complete")
int BPF_PROG(block_complete, void *queue, struct bio *bio) {
        end_read(bio);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See tracer.h. */
#include "tracer.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "trace.skel.h"

#define KERNEL_TYPES "/sys/kernel/btf/vmlinux"

/* The last thing that libbpf had to say about a failure: errno alone rarely explains one. */
static char last_warning[160];

static int keep_warning(enum libbpf_print_level level, const char *format, va_list arguments)
        _printf_(2, 0);

static int keep_warning(enum libbpf_print_level level, const char *format, va_list arguments) {
        if (level == LIBBPF_WARN) {
                vsnprintf(last_warning, sizeof(last_warning), format, arguments);
                last_warning[strcspn(last_warning, "\n")] = '\0';
        }
        return 0;
}

static int explain(int r, const char *what, struct fault *ret_fault) {
        if (r == -EPERM || r == -EACCES)
                return fault_set(ret_fault, -EPERM,
                                 "%s: not permitted; it takes root with all capabilities", what);
        if (r == -ENOSYS)
                return fault_set(ret_fault, r, "%s: this kernel has no BPF", what);
        return fault_set(ret_fault, r, "%s: %s%s%s", what, strerror(-r),
                         last_warning[0] ? "; " : "", last_warning);
}

/* ---- What this kernel has ---- */

static bool has_tracepoint(const struct btf *types, const char *name) {
        char type[64];

        snprintf(type, sizeof(type), "btf_trace_%s", name);
        return btf__find_by_name_kind(types, type, BTF_KIND_TYPEDEF) > 0;
}

/* Not every architecture has a tracepoint for faults, not every kernel those of disks. */
static void leave_out(struct tracer *t, const struct btf *types) {
        struct trace_bpf *p = t->programs;

        if (!has_tracepoint(types, "page_fault_user")) {
                snprintf(t->no_faults, sizeof(t->no_faults),
                         "this kernel has no tracepoint page_fault_user");
                bpf_program__set_autoload(p->progs.fault, false);
        }
        if (!has_tracepoint(types, "block_bio_queue") ||
            !has_tracepoint(types, "block_bio_complete") ||
            !has_tracepoint(types, "block_rq_complete") || t->no_faults[0]) {
                snprintf(t->no_block, sizeof(t->no_block), "%s",
                         t->no_faults[0] ? t->no_faults
                                         : "this kernel has no tracepoint block_bio_queue");
                bpf_program__set_autoload(p->progs.block_queue, false);
                bpf_program__set_autoload(p->progs.block_complete, false);
                bpf_program__set_autoload(p->progs.block_request_complete, false);
        }
}

/* ---- Attaching ---- */

static int keep(struct tracer *t, struct bpf_link *link) {
        if (!link)
                return -errno;
        t->links[t->n_links++] = link;
        return 0;
}

static int attach_probes(struct tracer *t, pid_t pid, struct fault *ret_fault) {
        const struct {
                const char *name;
                struct bpf_program *program;
        } probes[] = {
                { "submit", t->programs->progs.submit },
                { "decode_start", t->programs->progs.decode_start },
                { "decode_end", t->programs->progs.decode_end },
                { "complete", t->programs->progs.complete },
                { "wake", t->programs->progs.wake },
                { "cache_hit", t->programs->progs.cache_hit },
                { "cache_miss", t->programs->progs.cache_miss },
                { "session_open", t->programs->progs.session_open },
                { "session_close", t->programs->progs.session_close },
                { "table_publish", t->programs->progs.table_publish },
                { "table_retire", t->programs->progs.table_retire },
        };
        char path[32], what[96];
        int r;

        /* The file that runs, whatever its path has come to mean since. */
        snprintf(path, sizeof(path), "/proc/%d/exe", pid);
        for (size_t i = 0; i < ARRAY_SIZE(probes); i++) {
                r = keep(t, bpf_program__attach_usdt(probes[i].program, pid, path, "carvq",
                                                     probes[i].name, NULL));
                if (r == -ENOENT)
                        return fault_set(ret_fault, r,
                                         "process %d has no probe carvq:%s; is it a carvqd that "
                                         "was built with -Dsdt=enabled?",
                                         pid, probes[i].name);
                snprintf(what, sizeof(what), "probe carvq:%s of process %d", probes[i].name, pid);
                if (r < 0)
                        return explain(r, what, ret_fault);
        }
        return 0;
}

static int attach_tracepoints(struct tracer *t, struct fault *ret_fault) {
        struct bpf_program *const programs[] = {
                t->programs->progs.waking,         t->programs->progs.switching,
                t->programs->progs.fault,          t->programs->progs.block_queue,
                t->programs->progs.block_complete, t->programs->progs.block_request_complete,
        };
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
                if (!bpf_program__autoload(programs[i]))
                        continue;
                r = keep(t, bpf_program__attach_trace(programs[i]));
                if (r < 0)
                        return explain(r, bpf_program__section_name(programs[i]), ret_fault);
        }
        return 0;
}

/* A software event on each CPU: the kernel raises it at the end of a major fault, and tells where
 * it was. */
static void attach_major_faults(struct tracer *t) {
        struct perf_event_attr attr = {
                .type = PERF_TYPE_SOFTWARE,
                .size = sizeof(attr),
                .config = PERF_COUNT_SW_PAGE_FAULTS_MAJ,
                .sample_type = PERF_SAMPLE_ADDR,
                .sample_period = 1,
        };
        int n_cpus = MIN(libbpf_num_possible_cpus(), (int)(TRACER_LINKS_MAX - t->n_links));
        size_t n_before = t->n_links;
        int r = -ENODEV;

        for (int cpu = 0; cpu < n_cpus; cpu++) {
                _cleanup_(closep) int fd =
                        (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

                if (fd < 0) { /* ENODEV: a CPU that is off */
                        r = errno == ENODEV ? r : -errno;
                        continue;
                }
                r = keep(t, bpf_program__attach_perf_event(t->programs->progs.fault_major, fd));
                if (r >= 0)
                        (void)steal_fd(&fd); /* the link's */
        }
        if (t->n_links == n_before)
                snprintf(t->no_major_faults, sizeof(t->no_major_faults), "perf_event_open: %s",
                         strerror(-r));
}

static int ignore_news(void *userdata, void *data, size_t bytes) {
        (void)userdata, (void)data, (void)bytes;
        return 0;
}

int tracer_init(struct tracer *t, pid_t pid, struct fault *ret_fault) {
        struct btf *types;
        int r;

        *t = (struct tracer){ 0 };
        libbpf_set_print(keep_warning);
        types = btf__load_vmlinux_btf();
        if (!types)
                return fault_set(ret_fault, -errno,
                                 KERNEL_TYPES ": %s; it takes a kernel built with "
                                              "CONFIG_DEBUG_INFO_BTF",
                                 strerror(errno));
        t->programs = trace_bpf__open();
        r = t->programs ? 0 : -errno;
        if (r >= 0) {
                t->programs->rodata->daemon_pid = (uint32_t)pid;
                leave_out(t, types);
                r = trace_bpf__load(t->programs);
        }
        btf__free(types);
        if (r < 0)
                return explain(r, "loading programs into the kernel", ret_fault);
        r = attach_probes(t, pid, ret_fault);
        if (r >= 0)
                r = attach_tracepoints(t, ret_fault);
        if (r < 0)
                return r;
        attach_major_faults(t);
        t->news = ring_buffer__new(bpf_map__fd(t->programs->maps.news), ignore_news, NULL, NULL);
        return t->news ? 0 : explain(-errno, "ring buffer", ret_fault);
}

static void detach(struct tracer *t) {
        for (size_t i = 0; i < t->n_links; i++)
                bpf_link__destroy(t->links[i]);
        t->n_links = 0;
}

void tracer_deinit(struct tracer *t) {
        detach(t);
        ring_buffer__free(t->news);
        trace_bpf__destroy(t->programs);
        *t = (struct tracer){ 0 };
}

void tracer_start(struct tracer *t) {
        *(volatile bool *)&t->programs->bss->tracing = true;
}

void tracer_stop(struct tracer *t) {
        *(volatile bool *)&t->programs->bss->tracing = false;
        detach(t); /* and with that waits for who is in a program still */
}

/* ---- What they have seen ---- */

int tracer_news_fd(const struct tracer *t) {
        return ring_buffer__epoll_fd(t->news);
}

void tracer_take_news(struct tracer *t) {
        ring_buffer__consume(t->news);
}

struct ranges *tracer_ranges(struct tracer *t) {
        return &t->programs->bss->ranges;
}

const struct counts *tracer_counts(const struct tracer *t) {
        return &t->programs->bss->counts;
}

const struct histogram *tracer_phase(const struct tracer *t, enum phase phase) {
        return &t->programs->bss->phases[phase];
}

const struct file_counts *tracer_file(const struct tracer *t, uint32_t number) {
        return &t->programs->bss->files[number];
}

size_t tracer_tables(const struct tracer *t, struct tracer_table *ret_tables, size_t n_max) {
        int fd = bpf_map__fd(t->programs->maps.tables);
        uint64_t *before = NULL, key;
        size_t n = 0;

        while (n < n_max && !bpf_map_get_next_key(fd, before, &key)) {
                struct tracer_table *table = &ret_tables[n];

                table->generation = key;
                n += !bpf_map_lookup_elem(fd, &key, &table->counts);
                before = &table->generation;
        }
        return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carvqctl makes of resctrl and of memory controllers, from folders that look as sysfs does on
 * machines that have them. Counting itself is the kernel's: none of these can be opened here.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tools/carvqctl/traffic.h"

static char sysfs[] = "/tmp/carvq-test-XXXXXX";

/* A file, and the folders that it is in. */
static void put(const char *path, const char *text) {
        char full[PATH_MAX];
        FILE *f;

        snprintf(full, sizeof(full), "%s/%s", sysfs, path);
        for (char *slash = full + strlen(sysfs); (slash = strchr(slash + 1, '/'));) {
                *slash = '\0';
                mkdir(full, 0700);
                *slash = '/';
        }
        f = fopen(full, "w");
        assert_non_null(f);
        fputs(text, f);
        assert_int_equal(fclose(f), 0);
}

static void clear(void) {
        char command[PATH_MAX];

        snprintf(command, sizeof(command), "rm -rf %s/fs %s/bus", sysfs, sysfs);
        assert_int_equal(system(command), 0);
}

static int setup(void **state) {
        (void)state;
        return mkdtemp(sysfs) ? 0 : -1;
}

static int teardown(void **state) {
        (void)state;
        clear();
        return rmdir(sysfs);
}

#define expect_fault(expression, error, words)                                                     \
        do {                                                                                       \
                struct fault fault = { 0 };                                                        \
                assert_int_equal(expression, error);                                               \
                if (!strstr(fault.text, words))                                                    \
                        fail_msg("\"%s\", expected \"%s\"", fault.text, words);                    \
        } while (0)

/* ---- resctrl ---- */

#define FEATURES "fs/resctrl/info/L3_MON/mon_features"

static void test_no_resctrl(void **state) {
        struct traffic_mbm mbm = { 0 };

        (void)state;
        expect_fault(traffic_mbm_open(&mbm, sysfs, &fault), -ENOENT, "resctrl is not mounted");
        put(FEATURES, "llc_occupancy\nmbm_total_bytes_config\n");
        expect_fault(traffic_mbm_open(&mbm, sysfs, &fault), -ENODEV, "mbm_total_bytes");
        put(FEATURES, "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
        expect_fault(traffic_mbm_open(&mbm, sysfs, &fault), -ENOENT, "mon_groups/carvq-");
        assert_null(mbm.group);
        clear();
}

static void test_resctrl(void **state) {
        char group[64], path[PATH_MAX], line[32], wanted[32];
        struct traffic_mbm mbm = { 0 };
        uint64_t bytes = 1;
        FILE *tasks;

        (void)state;
        put(FEATURES, "mbm_total_bytes\n");
        put("fs/resctrl/mon_groups/other/tasks", "");
        assert_int_equal(traffic_mbm_open(&mbm, sysfs, NULL), 0);
        snprintf(group, sizeof(group), "fs/resctrl/mon_groups/carvq-%d", (int)getpid());
        assert_string_equal(mbm.group + strlen(sysfs) + 1, group);

        expect_fault(traffic_mbm_add(&mbm, getpid(), &fault), -ENOENT, "/tasks");
        snprintf(path, sizeof(path), "%s/tasks", group);
        put(path, "");
        assert_int_equal(traffic_mbm_add(&mbm, getpid(), NULL), 0);
        snprintf(path, sizeof(path), "%s/tasks", mbm.group);
        tasks = fopen(path, "r");
        assert_non_null(tasks);
        assert_non_null(fgets(line, sizeof(line), tasks));
        snprintf(wanted, sizeof(wanted), "%d\n", (int)getpid());
        assert_string_equal(line, wanted);
        assert_null(fgets(line, sizeof(line), tasks)); /* one thread */
        fclose(tasks);
        expect_fault(traffic_mbm_add(&mbm, 0x3fffffff, &fault), -ENOENT, "/proc/1073741823/task");

        expect_fault(traffic_mbm_read(&mbm, &bytes, &fault), -ENOENT, "mon_data");
        snprintf(path, sizeof(path), "%s/mon_data/mon_L3_00/mbm_total_bytes", group);
        put(path, "1000\n");
        snprintf(path, sizeof(path), "%s/mon_data/mon_L3_01/mbm_total_bytes", group);
        put(path, "234\n");
        snprintf(path, sizeof(path), "%s/mon_data/mon_sub_L3_01/mbm_total_bytes", group);
        put(path, "7\n");
        assert_int_equal(traffic_mbm_read(&mbm, &bytes, NULL), 0);
        assert_int_equal(bytes, 1234);
        snprintf(path, sizeof(path), "%s/mon_data/mon_L3_01/mbm_total_bytes", group);
        put(path, "Unavailable\n");
        expect_fault(traffic_mbm_read(&mbm, &bytes, &fault), -ENODATA,
                     "says \"Unavailable\", expected a number");
        traffic_mbm_close(&mbm);
        assert_null(mbm.group);
        clear();
}

/* ---- Memory controllers ---- */

#define PMU "bus/event_source/devices/uncore_imc_0/"

static void test_event_config(void **state) {
        const struct {
                const char *terms;
                uint64_t config;
                const char *words; /* NULL: no fault */
        } cases[] = {
                { "event=0x04,umask=0x03", 0x0304, NULL },
                { "umask=255,event=1", 0xff01, NULL },
                { "edge", UINT64_C(1) << 18, NULL },
                { "wide=0x1ff", UINT64_C(0xff) | UINT64_C(1) << 32, NULL },
                { "event=0x100", 0, "\"event=0x100\" does not fit" },
                { "event=", 0, "\"event=\" has no number" },
                { "event=4x", 0, "has no number" },
                { "other=1", 0, "\"other=1\" does not fit" },
                { "odd=1", 0, "\"odd=1\" does not fit" },
                { "beyond=1", 0, "\"beyond=1\" does not fit" },
        };
        char folder[PATH_MAX];

        (void)state;
        put(PMU "format/event", "config:0-7\n");
        put(PMU "format/umask", "config:8-15\n");
        put(PMU "format/edge", "config:18\n");
        put(PMU "format/wide", "config:0-7,32-35\n");
        put(PMU "format/odd", "config1:0-7\n");
        put(PMU "format/beyond", "config:60-64\n");
        snprintf(folder, sizeof(folder), "%s/" PMU, sysfs);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t config = 0;

                if (cases[i].words) {
                        expect_fault(traffic_event_config(folder, cases[i].terms, &config, &fault),
                                     -EINVAL, cases[i].words);
                        continue;
                }
                assert_int_equal(traffic_event_config(folder, cases[i].terms, &config, NULL), 0);
                assert_int_equal(config, cases[i].config);
        }
        clear();
}

static void test_controllers(void **state) {
        struct traffic_imc imc;

        (void)state;
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -ENOENT, "bus/event_source/devices");
        put("bus/event_source/devices/cpu/type", "4\n");
        put("bus/event_source/devices/uncore_imc_free_running_0/type", "5\n");
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -ENODEV, "shows no memory controllers");

        put(PMU "format/event", "config:0-7\n");
        put(PMU "events/cas_count_read", "event=0x04\n");
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -ENOENT, "event cas_count_read");
        put(PMU "type", "99999\n");
        put(PMU "cpumask", "0,x\n");
        put(PMU "events/cas_count_read.unit", "KiB\n");
        put(PMU "events/cas_count_read.scale", "6.103515625e-5\n");
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -EINVAL, "its scale is none of MiB");
        put(PMU "events/cas_count_read.unit", "MiB\n");
        put(PMU "events/cas_count_read.scale", "-1\n");
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -EINVAL, "its scale is none of MiB");
        put(PMU "events/cas_count_read.scale", "6.103515625e-5\n");
        /* No kernel has a PMU of that number, so all has been understood if that is what fails. */
        expect_fault(traffic_imc_open(&imc, sysfs, &fault), -ENOENT, "perf_event_open");
        assert_int_equal(imc.n, 0);
        clear();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_resctrl),
                cmocka_unit_test(test_resctrl),
                cmocka_unit_test(test_event_config),
                cmocka_unit_test(test_controllers),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

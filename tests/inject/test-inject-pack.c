/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carvq pack` with the Nth call of each kind failing, N = 1, 2, 3 ... until none is left to fail:
 * one clear line and no file, not even a temporary one; or the file as it should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "inject.h"
#include "proto/base.h"

#define N_ROWS   96u
#define N_DIMS   16u
#define WALK_MAX 3000

static const char *const kind_names[] = { INJECT_NAMES };

static struct inject *armed;
static char control[64], work[64], said[4096];
static uint8_t whole[65536];
static size_t whole_bytes;

static const char *in_work(const char *name) {
        static char path[160];

        snprintf(path, sizeof(path), "%s/%s", work, name);
        return path;
}

static void write_source(void) {
        static const char format[] =
                "{'descr': '<f4', 'fortran_order': False, 'shape': (%u, %u), }%*s\n";
        FILE *f = fopen(in_work("in.npy"), "we");
        uint32_t seed = 7;
        char text[119];
        int n = snprintf(text, sizeof(text), format, N_ROWS, N_DIMS, 0, "");

        assert_non_null(f);
        snprintf(text, sizeof(text), format, N_ROWS, N_DIMS, 117 - n + 1, "");
        fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, f); /* 118 bytes of text follow */
        fwrite(text, 1, 118, f);
        for (uint32_t i = 0; i < N_ROWS * N_DIMS; i++) {
                float value;

                seed = seed * 1664525 + 1013904223;
                value = (float)(seed >> 8) * 0x1p-24f - 0.5f;
                fwrite(&value, sizeof(value), 1, f);
        }
        fclose(f);
}

static int setup(void **state) {
        int fd;

        (void)state;
        strcpy(control, "/tmp/carvq-inject-XXXXXX");
        strcpy(work, "/tmp/carvq-pack-XXXXXX");
        fd = mkstemp(control);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, sizeof(*armed)), 0);
        armed = mmap(NULL, sizeof(*armed), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(armed, MAP_FAILED);
        close(fd);
        setenv("CARVQ_INJECT", control, 1);
        assert_non_null(mkdtemp(work));
        write_source();
        return 0;
}

static int teardown(void **state) {
        (void)state;
        unlink(in_work("in.npy"));
        unlink(in_work("out.carvq"));
        rmdir(work);
        unlink(control);
        munmap(armed, sizeof(*armed));
        return 0;
}

/* Exit status, and what it said. */
static int pack(const char *arguments) {
        char command[512];
        size_t n;
        int status;
        FILE *f;

        snprintf(command, sizeof(command), "cd %s && %s pack in.npy -o out.carvq --quiet %s 2>&1",
                 work, getenv("CARVQ"), arguments);
        f = popen(command, "re");
        assert_non_null(f);
        n = fread(said, 1, sizeof(said) - 1, f);
        said[n] = '\0';
        status = pclose(f);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static size_t read_output(uint8_t bytes[sizeof(whole)]) {
        FILE *f = fopen(in_work("out.carvq"), "re");
        size_t n;

        if (!f)
                return 0;
        n = fread(bytes, 1, sizeof(whole), f);
        fclose(f);
        return n;
}

static size_t count_files(void) {
        struct dirent *entry;
        DIR *dir = opendir(work);
        size_t n = 0;

        assert_non_null(dir);
        while ((entry = readdir(dir)))
                n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
        closedir(dir);
        return n;
}

/* The first line is the only one, and has words. */
static bool is_one_line(const char *text) {
        const char *end = strchr(text, '\n');

        return !strncmp(text, "carvq", 5) && end && end[1] == '\0';
}

/* Every call; or every so manieth of a thousand, unless $CARVQ_INJECT_ALL is set. */
static void walk(enum inject_kind kind, const char *arguments, unsigned step) {
        static uint8_t bytes[sizeof(whole)];
        unsigned n = 0, n_errors = 0;

        for (bool failed = true; failed && n < WALK_MAX; n += step) {
                size_t n_bytes;
                int r;

                inject_arm(armed, kind, n);
                r = pack(arguments);
                failed = inject_disarm(armed);
                n_bytes = read_output(bytes);
                unlink(in_work("out.carvq"));
                if (r != 0 && (!failed || r != 3 || !is_one_line(said)))
                        fail_msg("call %u of %s: exit status %d: %s", n + 1, kind_names[kind], r,
                                 said);
                /* A folder that cannot be synced is found out with the file in its place. */
                if ((r == 0 || n_bytes) &&
                    (n_bytes != whole_bytes || memcmp(bytes, whole, n_bytes) != 0))
                        fail_msg("call %u of %s: the file is not what it should be", n + 1,
                                 kind_names[kind]);
                if (r != 0 && n_bytes && kind != INJECT_SYNC)
                        fail_msg("call %u of %s: left a file", n + 1, kind_names[kind]);
                assert_int_equal(count_files(), 1);
                n_errors += r != 0;
        }
        assert_true(n < WALK_MAX);
        print_message("# pack %s, %s: %u calls failed, %u with an error\n", arguments,
                      kind_names[kind], n / step - 1, n_errors);
}

static void check_pack(const char *arguments, unsigned memory_step) {
        static const enum inject_kind kinds[] = { INJECT_MEMORY, INJECT_MMAP,   INJECT_OPEN,
                                                  INJECT_STAT,   INJECT_READ,   INJECT_WRITE,
                                                  INJECT_SYNC,   INJECT_RENAME, INJECT_THREAD };

        inject_disarm(armed);
        assert_int_equal(pack(arguments), 0);
        whole_bytes = read_output(whole);
        assert_in_range(whole_bytes, 1, sizeof(whole) - 1);
        unlink(in_work("out.carvq"));
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                walk(kinds[i], arguments, kinds[i] == INJECT_MEMORY ? memory_step : 1);
}

static void test_pack_f16(void **state) {
        (void)state;
        check_pack("--codec f16", 1);
}

static void test_pack_carvq(void **state) {
        (void)state;
        check_pack("--stages 1 --subvector 4 --adaptor 2 --adaptor-force --threads 2 --preset fast",
                   getenv("CARVQ_INJECT_ALL") ? 1 : 37);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pack_f16),
                cmocka_unit_test(test_pack_carvq),
        };

        return cmocka_run_group_tests_name("inject-pack", tests, setup, teardown);
}

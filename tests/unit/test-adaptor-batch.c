/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batched adaptors: of all shapes and batches, each instruction set to the bit against a plain
 * reference (check-adaptor.c), that against the specification; weights that cannot be packed; a
 * system that refuses matrix units.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "check-adaptor.h"
#include "guarded-table.h"
#include "lib/codec/prepared.h"

static uint64_t seed;
static struct check_adaptor_set sets[CHECK_ADAPTOR_SETS_MAX];
static size_t n_sets;

static uint32_t any_of(const uint32_t *values, size_t n, uint64_t *random) {
        return values[test_random(random) % n];
}

static void test_shapes(void **state) {
        const uint32_t latents[] = { 1, 2, 3, 5, 8, 16, 17, 64, 257 };
        const uint32_t hidden[] = { 1, 2, 7, 15, 16, 17, 48, 63, 64, 65, 100, 128, 129, 511, 515 };
        const uint32_t dims[] = { 1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 127, 300 };
        uint64_t random = seed;

        (void)state;
        for (uint32_t i = 0; i < 600; i++) {
                struct check_adaptor_shape shape = {
                        .n_latent = any_of(latents, ARRAY_SIZE(latents), &random),
                        .n_dims = any_of(dims, ARRAY_SIZE(dims), &random),
                        .n_rows = 1 + test_random(&random) % CODEC_BATCH_ROWS,
                        .int8_weights = i % 2,
                        .int8_latents = i / 2 % 2,
                        .row_scale = i / 4 % 2,
                        .some_integers = i % 7 == 0,
                        .wide = i % 5 == 0,
                };

                if (i % 8)
                        shape.n_hidden[0] = any_of(hidden, ARRAY_SIZE(hidden), &random);
                if (i % 8 > 5)
                        shape.n_hidden[1] = any_of(hidden, ARRAY_SIZE(hidden), &random);
                assert_true(check_adaptor(sets, n_sets, &shape, &random));
        }
}

/* Each size of a batch, with two panels and a half, and a tile and a half. */
static void test_batches(void **state) {
        uint64_t random = seed;

        (void)state;
        for (uint32_t n = 1; n <= CODEC_BATCH_ROWS; n++)
                for (uint32_t i = 0; i < 4; i++) {
                        struct check_adaptor_shape shape = {
                                .n_latent = 6,
                                .n_hidden = { 96 },
                                .n_dims = 40,
                                .n_rows = n,
                                .int8_weights = i % 2,
                                .int8_latents = i / 2,
                                .some_integers = n % 5 == 0,
                        };

                        assert_true(check_adaptor(sets, n_sets, &shape, &random));
                }
}

/* More inputs than one sum of 32 bits holds. */
static void test_blocks(void **state) {
        const uint32_t hidden[] = { 1023, 1024, 1025, 1088, 2048, 2100, 5000 };
        uint64_t random = seed;

        (void)state;
        for (size_t i = 0; i < 2 * ARRAY_SIZE(hidden); i++) {
                struct check_adaptor_shape shape = {
                        .n_latent = 4,
                        .n_hidden = { hidden[i / 2], i % 4 == 1 ? 20 : 0 },
                        .n_dims = 50,
                        .n_rows = 1 + 5 * (uint32_t)(i % 7),
                        .int8_weights = i % 2,
                        .wide = i == 5,
                };

                assert_true(check_adaptor(sets, n_sets, &shape, &random));
        }
}

/* Sums as large as they get: all weights and inputs the largest of one sign, or of both. */
static void test_largest_sums(void **state) {
        struct table_header h = {
                .n_dims = 16,
                .n_rows = 1,
                .codec = TABLE_CODEC_CARVQ,
                .n_tiers = 1,
                .latent_dims = 1,
                .latent_bits = 8,
                .hidden_dims = { CODEC_BATCH_ROWS * 64 },
                .adaptor_type = TABLE_ADAPTOR_INT8,
        };
        size_t n_hidden = h.hidden_dims[0], n_scratch = codec_scratch_floats(&h);
        uint8_t *chunk = calloc(1, 5 * n_hidden + n_hidden * 16 + 64), latent = 1;
        uint16_t *first = (uint16_t *)(void *)chunk;
        uint16_t *second = (uint16_t *)(void *)(chunk + 5 * n_hidden);
        struct codec_table table = { .contents.header = h, .adaptor = first };
        struct codec_record record = { .bytes = &latent, .n_bytes = 1 };
        float *scratch = aligned_alloc(64, n_scratch * sizeof(float));
        _Alignas(64) float outputs[16];

        (void)state;
        for (size_t o = 0; o < n_hidden; o++) {
                first[o] = 0x3c00; /* scales of 1, biases of 0, weights of 1 */
                chunk[4 * n_hidden + o] = 1;
        }
        for (size_t o = 0; o < 16; o++)
                second[o] = 0x3c00;
        for (size_t i = 0; i < n_hidden; i++)
                for (size_t o = 0; o < 16; o++)
                        ((int8_t *)(second + 32))[i * 16 + o] = o == 0 ? -128 : o == 1 ? 127 : 0;
        assert_int_equal(codec_prepare(&h, NULL, first, &table.prepared), 0);
        assert_non_null(table.prepared);
        for (size_t s = 0; s < n_sets; s++) {
                sets[s].adaptor(&table, &record, 1, scratch, 16, outputs);
                assert_true(fabsf(outputs[0] + 128 * (float)n_hidden) < 1);
                assert_true(fabsf(outputs[1] - 127 * (float)n_hidden) < 1);
                assert_true(outputs[2] == 0);
        }
        codec_prepared_free(table.prepared);
        free(scratch);
        free(chunk);
}

/* Weights that are no numbers run as specified. */
static void test_not_finite(void **state) {
        uint64_t random = seed;

        (void)state;
        for (int i = 0; i < 12; i++) {
                struct table_header h = {
                        .n_rows = 2,
                        .n_dims = 10,
                        .codec = TABLE_CODEC_CARVQ,
                        .n_stages = 1,
                        .codebook_bits = 4,
                        .subvector_dims = 2,
                        .group_cols = 65536,
                        .group_rows = 2,
                        .latent_dims = 3,
                        .latent_bits = 8,
                        .hidden_dims = { 5 },
                        .adaptor_type = i % 2 ? TABLE_ADAPTOR_INT8 : TABLE_ADAPTOR_HALF,
                };
                _Alignas(64) float found[16], expected[16];
                struct table_contents contents;
                struct codec_prepared *prepared;
                struct codec_record record;
                struct codec_table table;
                struct guarded file;
                uint16_t *adaptor;
                float *scratch;

                make_table(&h, NULL, &random, &file);
                assert_int_equal(table_check(file.bytes, MIN(file.n_bytes, TABLE_HEAD_BYTES_MAX),
                                             h.file_bytes, &contents, NULL),
                                 0);
                codec_table_init(&table, &contents, file.bytes);
                adaptor = (uint16_t *)(void *)(file.bytes + contents.adaptor.offset);
                adaptor[i / 2] = i / 4 % 2 ? 0x7c00 : 0xfe01;
                assert_int_equal(codec_prepare(&h, NULL, adaptor, &prepared), 0);
                assert_int_equal(prepared->n_layers, 0);
                codec_prepared_free(prepared);

                record = codec_kernels_scalar.find(&table, 1);
                scratch = aligned_alloc(64, codec_scratch_floats(&h) * sizeof(float));
                codec_scalar_adaptor(&table, &record, 1, scratch, 16, expected);
                for (size_t s = 0; s < n_sets; s++) {
                        sets[s].adaptor(&table, &record, 1, scratch, 16, found);
                        for (size_t k = 0; k < h.n_dims; k++)
                                assert_true(!memcmp(&found[k], &expected[k], sizeof(float)) ||
                                            (isnan(found[k]) && isnan(expected[k])));
                }
                free(scratch);
                guarded_deinit(&file);
        }
}

#if defined(__x86_64__)
static int refuse_arch_prctl(void) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

static void test_refused(void **state) {
        int status;
        pid_t pid;

        (void)state;
        if (!(codec_cpu_features() & CODEC_CPU_AMX)) {
                print_message("no AMX here\n");
                skip();
        }
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                if (refuse_arch_prctl() < 0)
                        _exit(2);
                _exit(codec_kernels_choose(codec_cpu_features()) != &codec_kernels_avx512_vnni);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 2) {
                print_message("filters of system calls are not to be had here\n");
                skip();
        }
        assert_int_equal(WEXITSTATUS(status), 0);
}
#else
static void test_refused(void **state) {
        (void)state;
        printf("# only x86-64 asks for matrix units\n");
}
#endif

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_shapes),     cmocka_unit_test(test_batches),
                cmocka_unit_test(test_blocks),     cmocka_unit_test(test_largest_sums),
                cmocka_unit_test(test_not_finite), cmocka_unit_test(test_refused),
        };

        seed = test_seed();
        n_sets = check_adaptor_sets(sets);
        for (size_t i = 0; i < n_sets; i++)
                printf("# kernels: %s\n", sets[i].name);
        return cmocka_run_group_tests_name("adaptor-batch", tests, NULL, NULL);
}

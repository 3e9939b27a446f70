/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that codes cannot represent are found, all of them and no others, by one thread as by
 * several; where many are like that, none is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>

#include "tools/carvq/rng.h"
#include "tools/carvq/survey.h"

#define SEED   UINT64_C(20261122)
#define N_ROWS 6000u
#define N_DIMS 100u

static char path[64];
static float rows[N_ROWS][N_DIMS];

static void fill_normal(void) {
        struct rng rng = rng_stream(SEED, 1);

        for (size_t i = 0; i < N_ROWS; i++)
                for (size_t d = 0; d < N_DIMS; d++)
                        rows[i][d] = rng_normal(&rng);
}

static void write_rows(void) {
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        char header[129];

        snprintf(header, sizeof(header), "%-127s\n",
                 "\x93NUMPY\1      {'descr': '<f4', 'fortran_order': False, "
                 "'shape': (6000, 100)}");
        memcpy(header + 7, "\0\x76\0", 3);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, header, 128), 128);
        assert_int_equal(write(fd, rows, sizeof(rows)), sizeof(rows));
}

static struct survey look(const struct adaptor_solver *solver, bool row_scale, unsigned n_threads) {
        _cleanup_(source_freep) struct source *source = NULL;
        _cleanup_(sample_deinit) struct sample sample = { 0 };
        struct progress progress;
        struct survey survey = { 0 };
        struct fault fault = { 0 };
        int r = source_open(path, &source, &fault);

        progress_init(&progress, true);
        if (r >= 0)
                r = source_select(source, NULL, NULL, NULL, &fault);
        if (r >= 0)
                r = sample_read(source, 0, N_ROWS, 1 << 20, SEED, n_threads, &sample, &fault);
        if (r >= 0)
                r = survey_rows(source, &sample, solver, row_scale, n_threads, &progress, &survey,
                                &fault);
        if (r < 0)
                fail_msg("%s", fault.text);
        return survey;
}

/* Exactly these rows, whatever the threads. */
static void expect_outliers(const struct adaptor_solver *solver, bool row_scale,
                            const size_t *expected, size_t n) {
        write_rows();
        for (unsigned n_threads = 1; n_threads <= 3; n_threads += 2) {
                _cleanup_(survey_deinit) struct survey survey = look(solver, row_scale, n_threads);

                for (size_t i = 0; i < N_ROWS; i++)
                        if (survey_is_outlier(&survey, i))
                                printf("# row %zu\n", i);
                assert_int_equal(survey.n_outliers, n);
                for (size_t i = 0; i < n; i++)
                        assert_true(survey_is_outlier(&survey, expected[i]));
        }
}

static void test_spikes(void **state) {
        (void)state;
        fill_normal();
        expect_outliers(NULL, true, NULL, 0);
        rows[0][3] = 30;
        rows[N_ROWS - 1][99] = -30;
        rows[4321][0] = 6; /* beyond reach, but less than a hundredth of the row is */
        /* A small row is measured by its own size. */
        for (size_t d = 0; d < N_DIMS; d++)
                rows[2000][d] *= 1e-3f;
        rows[2000][50] = .03f;
        /* Large, small or zero throughout: a row scale takes care of that. */
        for (size_t d = 0; d < N_DIMS; d++) {
                rows[17][d] *= 100;
                rows[18][d] *= 1e-6f;
                rows[19][d] = 0;
        }
        expect_outliers(NULL, true, (const size_t[]){ 0, 2000, N_ROWS - 1 }, 3);
        /* Without row scales the large row is one and the small one none. */
        expect_outliers(NULL, false, (const size_t[]){ 0, 17, N_ROWS - 1 }, 3);
}

/* A column may be large in all rows. */
static void test_columns(void **state) {
        (void)state;
        fill_normal();
        for (size_t i = 0; i < N_ROWS; i++)
                rows[i][7] *= 50;
        expect_outliers(NULL, true, NULL, 0);
        rows[5][8] = 60;
        expect_outliers(NULL, true, (const size_t[]){ 5 }, 1);
}

/* What an adaptor takes away is not there to be an outlier. */
static void test_adaptor(void **state) {
        const struct adaptor_shape shape = { .n_dims = N_DIMS };
        _cleanup_(adaptor_deinit) struct adaptor adaptor = { 0 };
        _cleanup_(adaptor_solver_deinit) struct adaptor_solver solver = { 0 };

        (void)state;
        assert_int_equal(adaptor_init(&adaptor, &shape), 0);
        adaptor.biases[0][3] = 1000;
        assert_int_equal(adaptor_round(&adaptor, TABLE_ADAPTOR_HALF), 0);
        assert_int_equal(adaptor_solver_init(&solver, &adaptor, NULL, NULL, 0), 0);
        fill_normal();
        for (size_t i = 0; i < N_ROWS; i++)
                rows[i][3] += 1000;
        rows[40][3] -= 1000; /* the one row without it */
        expect_outliers(&solver, true, (const size_t[]){ 40 }, 1);
}

/* Up to one row in SURVEY_SHARE; one more than that, and the table is simply like that. */
static void test_too_many(void **state) {
        const size_t n_most = N_ROWS / SURVEY_SHARE + 1;

        (void)state;
        fill_normal();
        for (size_t i = 0; i < n_most; i++)
                rows[i * 200][i] = 40;
        write_rows();
        {
                _cleanup_(survey_deinit) struct survey survey = look(NULL, true, 2);

                assert_int_equal(survey.n_outliers, n_most);
        }
        rows[5999][50] = 40;
        expect_outliers(NULL, true, NULL, 0);
}

static double energy_of(size_t row) {
        double sum = 0;

        for (size_t d = 0; d < N_DIMS; d++)
                sum += (double)rows[row][d] * (double)rows[row][d];
        return sum;
}

/* To a quarter of an octave, whatever is in the other rows; what is far off is just that. */
static void test_energy(void **state) {
        (void)state;
        fill_normal();
        for (size_t d = 0; d < N_DIMS; d++) {
                rows[1][d] *= 2;
                rows[2][d] *= 1e-10f;
                rows[3][d] = 0;
        }
        write_rows();
        {
                _cleanup_(survey_deinit) struct survey survey = look(NULL, true, 2);

                for (size_t i = 0; i < 100; i++) {
                        double seen = (double)survey_energy(&survey, i) * N_DIMS;

                        if (i == 2 || i == 3)
                                assert_true(seen < 1e-6);
                        else
                                assert_true(fabs(seen / energy_of(i) - 1) < 0.12);
                }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_spikes),  cmocka_unit_test(test_columns),
                cmocka_unit_test(test_adaptor), cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_energy),
        };
        int fd, failed;

        printf("# seed %" PRIu64 "\n", SEED);
        snprintf(path, sizeof(path), "/tmp/carvq-survey-XXXXXX");
        fd = mkstemp(path);
        if (fd < 0)
                return EXIT_FAILURE;
        close(fd);
        failed = cmocka_run_group_tests_name("survey", tests, NULL, NULL);
        unlink(path);
        return failed;
}

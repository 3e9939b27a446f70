/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Means and principal components of a sample, by subspace iteration with a few vectors to spare and
 * a last step by Rayleigh and Ritz (Halko, Martinsson, Tropp 2011). Plain loops in a fixed order,
 * and of libm the square root alone: the same bits on every CPU. Threads share a loop by blocks of
 * rows or of dimensions, and what blocks of rows count is added up in their order.
 */
#include <math.h>
#include <string.h>

#include "adaptor-impl.h"
#include "parallel.h"
#include "rng.h"

#define PASSES         10u
#define SPARE_VECTORS  8u
#define ITERATION_ROWS 8192u /* enough to find directions; energies are counted on all rows */
#define BLOCK_ROWS     256u
#define BLOCK_DIMS     128u
#define VECTORS_MAX    (ADAPTOR_LATENT_MAX + SPARE_VECTORS)

struct fit {
        const float *rows;
        size_t n_rows, n_dims;
        size_t n_vectors;   /* of the basis; with those to spare */
        size_t n_iterated;  /* rows spread over the sample */
        float unit;         /* power of two, to which rows are scaled: no square leaves the range */
        float *means;       /* in that unit */
        float *basis;       /* [vector][n_dims] */
        float *projections; /* [n_iterated][vector] */
        double *sums;       /* [n_dims]: of values */
        double *squares;    /* [n_dims] */
        double *energy;     /* [block][components + 1] */
        float *reach;       /* [block][components] */
        size_t n_components; /* counted in the end */
        unsigned n_threads;
};

static void fit_deinit(struct fit *f) {
        free(f->means);
        free(f->basis);
        free(f->projections);
        free(f->sums);
        free(f->squares);
        free(f->energy);
        free(f->reach);
}

static int fit_init(struct fit *f) {
        size_t n_blocks = div_round_up(f->n_rows, BLOCK_ROWS), n = f->n_dims;

        f->means = malloc(n * sizeof(float));
        f->basis = malloc((f->n_vectors * n + 1) * sizeof(float));
        f->projections = malloc((f->n_iterated * f->n_vectors + 1) * sizeof(float));
        f->sums = calloc(n, sizeof(double));
        f->squares = calloc(n, sizeof(double));
        f->energy = calloc(n_blocks * (f->n_components + 1), sizeof(double));
        f->reach = calloc(n_blocks * f->n_components + 1, sizeof(float));
        return f->means && f->basis && f->projections && f->sums && f->squares && f->energy &&
                               f->reach
                       ? 0
                       : -ENOMEM;
}

static const float *iterated_row(const struct fit *f, size_t i) {
        return f->rows +
               (size_t)((double)i * ((double)f->n_rows / (double)f->n_iterated)) * f->n_dims;
}

/* ---- Moments ---- */

static int sum_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct fit *f = userdata;
        size_t first = item * BLOCK_DIMS, n = MIN(BLOCK_DIMS, f->n_dims - first);
        double *sums = f->sums + first, *squares = f->squares + first;

        (void)thread;
        (void)ret_fault;
        for (size_t r = 0; r < f->n_rows; r++) {
                const float *row = f->rows + r * f->n_dims + first;

                for (size_t d = 0; d < n; d++) {
                        sums[d] += (double)row[d];
                        squares[d] += (double)row[d] * (double)row[d];
                }
        }
        return 0;
}

/* The mean square of all values, the unit that brings it near 1, and the means in it. */
static int find_means(struct fit *f, double *ret_energy) {
        double sum = 0;
        int exponent, r;

        r = parallel_for(f->n_threads, div_round_up(f->n_dims, BLOCK_DIMS), sum_block, f, NULL);
        if (r < 0)
                return r;
        for (size_t d = 0; d < f->n_dims; d++)
                sum += f->squares[d];
        *ret_energy = sum / ((double)f->n_rows * (double)f->n_dims);
        frexp(sqrt(*ret_energy), &exponent);
        f->unit = (float)ldexp(1, -MIN(MAX(exponent, -120), 120));
        for (size_t d = 0; d < f->n_dims; d++)
                f->means[d] = (float)(f->sums[d] / (double)f->n_rows * (double)f->unit);
        return 0;
}

/* Values [first, first + n) of a row, centred. */
static inline void centre(const struct fit *f, const float *row, size_t first, size_t n,
                          float *ret_values) {
        for (size_t d = 0; d < n; d++)
                ret_values[d] = row[first + d] * f->unit - f->means[first + d];
}

/* ---- Subspace iteration ---- */

/* projections = (rows - means) basis' */
static int project_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct fit *f = userdata;
        size_t first = item * BLOCK_ROWS, end = MIN(first + BLOCK_ROWS, f->n_iterated);
        _cleanup_(freep) float *values = malloc(f->n_dims * sizeof(float));

        (void)thread;
        (void)ret_fault;
        if (!values)
                return -ENOMEM;
        for (size_t r = first; r < end; r++) {
                centre(f, iterated_row(f, r), 0, f->n_dims, values);
                for (size_t i = 0; i < f->n_vectors; i++)
                        f->projections[r * f->n_vectors + i] =
                                dot(values, f->basis + i * f->n_dims, f->n_dims);
        }
        return 0;
}

/* basis = projections' (rows - means) */
static int gather_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct fit *f = userdata;
        size_t first = item * BLOCK_DIMS, n = MIN(BLOCK_DIMS, f->n_dims - first);
        float values[BLOCK_DIMS];

        (void)thread;
        (void)ret_fault;
        for (size_t i = 0; i < f->n_vectors; i++)
                memset(f->basis + i * f->n_dims + first, 0, n * sizeof(float));
        for (size_t r = 0; r < f->n_iterated; r++) {
                centre(f, iterated_row(f, r), first, n, values);
                for (size_t i = 0; i < f->n_vectors; i++)
                        add_scaled(f->basis + i * f->n_dims + first,
                                   f->projections[r * f->n_vectors + i], values, n);
        }
        return 0;
}

static double dot_double(const float *x, const float *y, size_t n) {
        double sums[8] = { 0 }, sum = 0;
        size_t i = 0;

        for (; i + 8 <= n; i += 8)
                for (size_t e = 0; e < 8; e++)
                        sums[e] += (double)x[i + e] * (double)y[i + e];
        for (; i < n; i++)
                sums[i % 8] += (double)x[i] * (double)y[i];
        for (size_t e = 0; e < 8; e++)
                sum += sums[e];
        return sum;
}

static void scale_to_unit(float *vector, size_t n) {
        double norm = sqrt(dot_double(vector, vector, n));

        for (size_t d = 0; d < n; d++)
                vector[d] = norm > 0 ? (float)((double)vector[d] / norm) : 0;
}

/*
 * Gram and Schmidt, twice over (Daniel, Gragg, Kaufman, Stewart 1976). A vector that shrinks the
 * second time as well is nothing but rounding: zero.
 */
static void orthonormalize(float *basis, size_t m, size_t n) {
        for (size_t i = 0; i < m; i++) {
                float *vector = basis + i * n;

                for (unsigned round = 0; round < 2; round++) {
                        scale_to_unit(vector, n);
                        for (size_t j = 0; j < i; j++)
                                add_scaled(vector, -(float)dot_double(vector, basis + j * n, n),
                                           basis + j * n, n);
                }
                if (dot_double(vector, vector, n) < 0.25)
                        memset(vector, 0, n * sizeof(float));
                scale_to_unit(vector, n);
        }
}

static int iterate(struct fit *f, uint64_t seed) {
        size_t n_row_blocks = div_round_up(f->n_iterated, BLOCK_ROWS);
        size_t n_dim_blocks = div_round_up(f->n_dims, BLOCK_DIMS);
        struct rng rng = rng_stream(seed, 0);
        int r = 0;

        for (size_t i = 0; i < f->n_vectors * f->n_dims; i++)
                f->basis[i] = (float)(rng_uniform(&rng) - 0.5);
        orthonormalize(f->basis, f->n_vectors, f->n_dims);
        for (unsigned pass = 0; r >= 0 && pass < PASSES; pass++) {
                r = parallel_for(f->n_threads, n_row_blocks, project_block, f, NULL);
                if (r >= 0)
                        r = parallel_for(f->n_threads, n_dim_blocks, gather_block, f, NULL);
                orthonormalize(f->basis, f->n_vectors, f->n_dims);
        }
        return r >= 0 ? parallel_for(f->n_threads, n_row_blocks, project_block, f, NULL) : r;
}

/* ---- Rayleigh and Ritz ---- */

/* Rotates rows and columns p and q of a symmetric matrix, and rows p and q of `vectors`, so that
 * entry (p, q) vanishes (Jacobi 1846). */
static void jacobi_rotate(double *a, double *vectors, size_t m, size_t p, size_t q) {
        double theta = (a[q * m + q] - a[p * m + p]) / (2 * a[p * m + q]);
        double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
        double c = 1 / sqrt(t * t + 1), s = t * c;

        for (size_t k = 0; k < m; k++) {
                double x = a[k * m + p], y = a[k * m + q];

                a[k * m + p] = c * x - s * y;
                a[k * m + q] = s * x + c * y;
        }
        for (size_t k = 0; k < m; k++) {
                double x = a[p * m + k], y = a[q * m + k];
                double u = vectors[p * m + k], v = vectors[q * m + k];

                a[p * m + k] = c * x - s * y;
                a[q * m + k] = s * x + c * y;
                vectors[p * m + k] = c * u - s * v;
                vectors[q * m + k] = s * u + c * v;
        }
}

/* Eigenvalues end on the diagonal, eigenvectors in the rows of `ret_vectors`. */
static void eigen_decompose(double *a, size_t m, double *ret_vectors) {
        memset(ret_vectors, 0, m * m * sizeof(double));
        for (size_t i = 0; i < m; i++)
                ret_vectors[i * m + i] = 1;
        for (unsigned sweep = 0; sweep < 16; sweep++)
                for (size_t p = 0; p < m; p++)
                        for (size_t q = p + 1; q < m; q++)
                                if (fabs(a[p * m + q]) >
                                    1e-15 * sqrt(fabs(a[p * m + p] * a[q * m + q])))
                                        jacobi_rotate(a, ret_vectors, m, p, q);
}

/* basis = the rows of `vectors` in this order, times basis. A column at a time: in place. */
static void rotate_basis(struct fit *f, const double *vectors, const size_t *order) {
        size_t m = f->n_vectors;
        double column[VECTORS_MAX];

        for (size_t d = 0; d < f->n_dims; d++) {
                for (size_t i = 0; i < m; i++)
                        column[i] = (double)f->basis[i * f->n_dims + d];
                for (size_t i = 0; i < m; i++) {
                        double sum = 0;

                        for (size_t k = 0; k < m; k++)
                                sum += vectors[order[i] * m + k] * column[k];
                        f->basis[i * f->n_dims + d] = (float)sum;
                }
        }
}

/* Turns the basis to the principal axes of the projections, the largest first. */
static int find_axes(struct fit *f) {
        size_t m = f->n_vectors, order[VECTORS_MAX];
        _cleanup_(freep) double *moments = calloc(2 * m * m, sizeof(double));
        double *vectors = moments + m * m;

        if (!moments)
                return -ENOMEM;
        for (size_t r = 0; r < f->n_iterated; r++)
                for (size_t i = 0; i < m; i++)
                        for (size_t j = 0; j < m; j++)
                                moments[i * m + j] += (double)f->projections[r * m + i] *
                                                      (double)f->projections[r * m + j];
        eigen_decompose(moments, m, vectors);
        for (size_t i = 0; i < m; i++) {
                size_t at = i;

                for (; at > 0 && moments[order[at - 1] * (m + 1)] < moments[i * (m + 1)]; at--)
                        order[at] = order[at - 1];
                order[at] = i;
        }
        rotate_basis(f, vectors, order);
        orthonormalize(f->basis, f->n_components, f->n_dims);
        return 0;
}

/* ---- What the components catch ---- */

static int count_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct fit *f = userdata;
        size_t first = item * BLOCK_ROWS, end = MIN(first + BLOCK_ROWS, f->n_rows);
        _cleanup_(freep) float *values = malloc(f->n_dims * sizeof(float));
        double *energy = f->energy + item * (f->n_components + 1);
        float *reach = f->reach + item * f->n_components;

        (void)thread;
        (void)ret_fault;
        if (!values)
                return -ENOMEM;
        for (size_t r = first; r < end; r++) {
                double left;

                centre(f, f->rows + r * f->n_dims, 0, f->n_dims, values);
                left = dot_double(values, values, f->n_dims);
                energy[0] += left;
                for (size_t i = 0; i < f->n_components; i++) {
                        float projection = dot(values, f->basis + i * f->n_dims, f->n_dims);

                        left -= (double)projection * (double)projection;
                        energy[i + 1] += left;
                        reach[i] = MAX(reach[i], fabsf(projection));
                }
        }
        return 0;
}

static int spectrum_init(struct adaptor_spectrum *s) {
        s->means = malloc(s->n_dims * sizeof(float));
        s->basis = malloc(((size_t)s->n_components * s->n_dims + 1) * sizeof(float));
        s->energy = calloc(s->n_components + 1, sizeof(double));
        s->reach = calloc(s->n_components + 1, sizeof(float));
        return s->means && s->basis && s->energy && s->reach ? 0 : -ENOMEM;
}

void adaptor_spectrum_deinit(struct adaptor_spectrum *s) {
        free(s->means);
        free(s->basis);
        free(s->energy);
        free(s->reach);
        *s = (struct adaptor_spectrum){ 0 };
}

static int fill_spectrum(struct fit *f, struct adaptor_spectrum *s) {
        size_t n_blocks = div_round_up(f->n_rows, BLOCK_ROWS), m = f->n_components;
        double unit = (double)f->unit, n_values = (double)f->n_rows * (double)f->n_dims;
        int r;

        r = parallel_for(f->n_threads, n_blocks, count_block, f, NULL);
        if (r < 0)
                return r;
        for (size_t b = 0; b < n_blocks; b++) {
                for (size_t i = 0; i <= m; i++)
                        s->energy[i] += f->energy[b * (m + 1) + i];
                for (size_t i = 0; i < m; i++)
                        s->reach[i] = MAX(s->reach[i], f->reach[b * m + i] / f->unit);
        }
        for (size_t i = 0; i <= m; i++) /* nothing left may come out a little less than nothing */
                s->energy[i] = MAX(s->energy[i], 0.) / (n_values * unit * unit);
        for (size_t d = 0; d < f->n_dims; d++)
                s->means[d] = f->means[d] / f->unit;
        memcpy(s->basis, f->basis, m * f->n_dims * sizeof(float));
        return 0;
}

int adaptor_spectrum_fit(const float *rows, size_t n_rows, uint32_t n_dims, uint32_t n_components,
                         uint64_t seed, unsigned n_threads, struct adaptor_spectrum *ret_spectrum) {
        uint32_t m = MIN(MIN(n_components, n_dims), ADAPTOR_LATENT_MAX);
        _cleanup_(adaptor_spectrum_deinit) struct adaptor_spectrum s = {
                .n_dims = n_dims,
                .n_components = m,
        };
        _cleanup_(fit_deinit) struct fit f = {
                .rows = rows,
                .n_rows = n_rows,
                .n_dims = n_dims,
                .n_vectors = m ? MIN(m + SPARE_VECTORS, n_dims) : 0,
                .n_iterated = MIN(n_rows, ITERATION_ROWS),
                .n_components = m,
                .n_threads = n_threads,
        };
        int r;

        r = fit_init(&f);
        if (r >= 0)
                r = spectrum_init(&s);
        if (r >= 0)
                r = find_means(&f, &s.energy_raw);
        if (r >= 0 && m)
                r = iterate(&f, seed);
        if (r >= 0 && m)
                r = find_axes(&f);
        if (r >= 0)
                r = fill_spectrum(&f, &s);
        if (r < 0)
                return r;
        *ret_spectrum = s;
        s = (struct adaptor_spectrum){ 0 };
        return 0;
}

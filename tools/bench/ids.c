/* SPDX-License-Identifier: Apache-2.0 */
#include "ids.h"

#include "bench.h"

/* Sums of 1, 1/2, 1/3 ... */
static double *harmonic_sums(uint64_t n) {
        double *sums = allocate(n, sizeof(*sums)), sum = 0;

        for (uint64_t i = 0; i < n; i++)
                sums[i] = sum += 1 / (double)(i + 1);
        return sums;
}

/* The first index whose sum is beyond `value`. */
static uint64_t find_rank(const double *sums, uint64_t n, double value) {
        uint64_t first = 0, end = n - 1;

        while (first < end) {
                uint64_t middle = first + (end - first) / 2;

                if (sums[middle] > value)
                        end = middle;
                else
                        first = middle + 1;
        }
        return first;
}

static uint64_t *permutation(uint64_t n, uint64_t *random) {
        uint64_t *p = allocate(n, sizeof(*p));

        for (uint64_t i = 0; i < n; i++) {
                uint64_t other = random_next(random) % (i + 1);

                p[i] = p[other];
                p[other] = i;
        }
        return p;
}

uint64_t *ids_draw(enum ids_kind kind, uint64_t n_rows, size_t n, uint64_t seed) {
        uint64_t *ids = allocate(n, sizeof(*ids)), random = seed ? seed : 1;
        _cleanup_(freep) uint64_t *rows = NULL;
        _cleanup_(freep) double *sums = NULL;

        if (kind == IDS_UNIFORM) {
                for (size_t i = 0; i < n; i++)
                        ids[i] = random_next(&random) % n_rows;
                return ids;
        }
        rows = permutation(n_rows, &random);
        sums = harmonic_sums(n_rows);
        for (size_t i = 0; i < n; i++)
                ids[i] = rows[find_rank(sums, n_rows, random_fraction(&random) * sums[n_rows - 1])];
        return ids;
}

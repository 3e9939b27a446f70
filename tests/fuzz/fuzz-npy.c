/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tools/carvq/source-npy.c: as it is, and as the header of a file that is as long as its shape
 * says.
 */
#include "fuzz-source.h"

static void check_mended(const uint8_t *bytes, size_t n_bytes) {
        _cleanup_(freep) uint8_t *copy = NULL;
        struct npy_header h = { 0 };
        const uint8_t *end;
        uint64_t need_bytes, n_values;
        uint16_t text_bytes;

        if (n_bytes < 12)
                return;
        /* The length of the dict as it stands there. */
        copy = copy_exactly(bytes, n_bytes);
        memcpy(copy, "\x93NUMPY\1", 8);
        end = memchr(bytes + 10, '}', n_bytes - 10);
        text_bytes = (uint16_t)MIN(end ? (size_t)(end + 1 - (bytes + 10)) : n_bytes - 10, 65535u);
        memcpy(copy + 8, &text_bytes, sizeof(text_bytes));
        fuzz_open(copy, n_bytes);
        if (npy_read_header(copy, n_bytes, n_bytes, &h, &need_bytes, NULL) < 0)
                return;
        require(h.data_offset <= n_bytes, "as promised");
        require(strnlen(h.descr, sizeof(h.descr)) < sizeof(h.descr), "terminated");
        if (__builtin_mul_overflow(h.axes[0], h.axes[1], &n_values) || n_values > INT64_MAX / 16)
                n_values = INT64_MAX / 16;
        for (uint64_t value_bytes = 2; value_bytes <= 8; value_bytes *= 2)
                fuzz_check(npy_check, copy, n_bytes, h.data_offset + n_values * value_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        fuzz_check(npy_check, bytes, n_bytes, n_bytes);
        fuzz_open(bytes, n_bytes);
        check_mended(bytes, n_bytes);
        return 0;
}

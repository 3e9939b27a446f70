/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tools/carvq/source-safetensors.c: one file's header, and the index of several (an input that
 * begins with a brace). As it is; and as the header of a file as long as its largest number says,
 * so that data of any size need not be there.
 */
#include "fuzz-source.h"

/* The largest decimal number in a text, of those below 2^62. */
static uint64_t largest_number(const char *text, size_t n_bytes) {
        uint64_t largest = 0, value = 0;

        for (size_t i = 0; i < n_bytes; i++) {
                value = text[i] >= '0' && text[i] <= '9' ? value * 10 + (uint64_t)(text[i] - '0')
                                                         : 0;
                if (value >= UINT64_C(1) << 58)
                        value = 0;
                largest = MAX(largest, value);
        }
        return largest;
}

static void check_mended(const uint8_t *bytes, size_t n_bytes) {
        _cleanup_(freep) uint8_t *copy = NULL;
        uint64_t header_bytes = n_bytes - 8;

        if (n_bytes < 8)
                return;
        /* The end of the braces, or all. */
        for (size_t i = n_bytes; i-- > 8;)
                if (bytes[i] == '}') {
                        header_bytes = i + 1 - 8;
                        break;
                }
        copy = copy_exactly(bytes, n_bytes);
        memcpy(copy, &header_bytes, sizeof(header_bytes));
        fuzz_check(safetensors_check, copy, n_bytes,
                   8 + header_bytes + largest_number((const char *)bytes + 8, n_bytes - 8));
        fuzz_open(copy, n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        fuzz_check(safetensors_check, bytes, n_bytes, n_bytes);
        fuzz_open(bytes, n_bytes);
        check_mended(bytes, n_bytes);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Reads only what the caller's `size` covers. Pure. */
#include "options.h"

#include <string.h>

int options_copy(const void *options, size_t known_bytes, void *ret_known,
                 struct fault *ret_fault) {
        size_t size;

        if (!options) {
                memset(ret_known, 0, known_bytes);
                return 0;
        }
        memcpy(&size, options, sizeof(size));
        if (size < sizeof(size))
                return fault_set(ret_fault, -EINVAL,
                                 "options.size is %zu, expected the struct's size, %zu", size,
                                 known_bytes);
        if (size > OPTIONS_BYTES_MAX)
                return fault_set(ret_fault, -E2BIG,
                                 "options.size is %zu, expected %zu: not initialized?", size,
                                 known_bytes);
        for (size_t i = known_bytes; i < size; i++)
                if (((const uint8_t *)options)[i])
                        return fault_set(ret_fault, -E2BIG,
                                         "options uses byte %zu, this libcarvq knows only %zu: a "
                                         "newer one is needed",
                                         i, known_bytes);

        memset(ret_known, 0, known_bytes);
        memcpy(ret_known, options, MIN(size, known_bytes));
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* tools/carvq/source-gguf.c: as it is, and as the beginning of files so long that no length is
 * absurd. */
#include "fuzz-source.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        fuzz_check(gguf_check, bytes, n_bytes, n_bytes);
        fuzz_check(gguf_check, bytes, n_bytes, n_bytes + (UINT64_C(1) << 40));
        fuzz_check(gguf_check, bytes, n_bytes, INT64_MAX);
        fuzz_open(bytes, n_bytes);
        return 0;
}

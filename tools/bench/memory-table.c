/* SPDX-License-Identifier: Apache-2.0 */
#include "memory-table.h"

#include <string.h>
#include <sys/mman.h>

int memory_table_new(struct table_header *header, struct codec_file *ret_file,
                     struct fault *ret_fault) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        struct table_contents contents;
        uint8_t *file;
        int r;

        r = table_plan(header, 0, chunks, ret_fault);
        if (r < 0)
                return r;
        file = mmap(NULL, header->file_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (file == MAP_FAILED)
                return fault_set(ret_fault, -errno, "no memory for %" PRIu64 " bytes: %s",
                                 header->file_bytes, strerror(errno));
        (void)madvise(file, header->file_bytes, MADV_HUGEPAGE);
        table_seal(header, chunks);
        memcpy(file, header, sizeof(*header));
        memcpy(file + sizeof(*header), chunks, header->n_chunks * sizeof(chunks[0]));
        r = table_check(file, MIN(header->file_bytes, TABLE_HEAD_BYTES_MAX), header->file_bytes,
                        &contents, ret_fault);
        if (r < 0) {
                munmap(file, header->file_bytes);
                return r;
        }
        *ret_file = (struct codec_file){ .map = file, .map_bytes = header->file_bytes };
        codec_table_init(&ret_file->table, &contents, file);
        return 0;
}

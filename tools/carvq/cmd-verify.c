/* SPDX-License-Identifier: Apache-2.0 */
/* carvq verify: reads every byte of a file and compares all checksums. Main thread. */
#include <stdio.h>
#include <sys/mman.h>

#include <xxhash.h>

#include "cli.h"

static const char help[] =
        "Usage: carvq verify FILE\n"
        "\n"
        "Checks header, contents table and all checksums of a .carvq file, and lists each chunk\n"
        "as ok or damaged.\n"
        "\n"
        "      --quiet             no list; the exit status tells\n"
        "      --help\n"
        "\n"
        "Exit status: 0 sound; 1 damaged; 2 wrong usage; 3 the file cannot be read.\n";

#define WINDOW_BYTES (UINT64_C(16) << 20)

/* Sums window by window and lets go of each: resident memory does not grow with the file. */
static int sum_chunk(const struct codec_file *file, const struct table_chunk *chunk,
                     uint64_t *ret_checksum) {
        const uint64_t end = chunk->offset + chunk->length;
        XXH3_state_t *state = XXH3_createState();

        if (!state)
                return -ENOMEM;
        XXH3_64bits_reset(state);
        for (uint64_t at = chunk->offset, next; at < end; at = next) {
                uint8_t *window = (uint8_t *)file->map + at / WINDOW_BYTES * WINDOW_BYTES;

                next = MIN((at / WINDOW_BYTES + 1) * WINDOW_BYTES, end);
                (void)madvise(window, next - at / WINDOW_BYTES * WINDOW_BYTES, MADV_SEQUENTIAL);
                XXH3_64bits_update(state, (const uint8_t *)file->map + at, next - at);
                (void)madvise(window, next - at / WINDOW_BYTES * WINDOW_BYTES, MADV_DONTNEED);
        }
        *ret_checksum = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return 0;
}

/* Bytes between chunks are zero: the layout is canonical. Returns the first that is not, or end. */
static uint64_t find_stray_byte(const struct codec_file *file, uint64_t at, uint64_t end) {
        while (at < end && ((const uint8_t *)file->map)[at] == 0)
                at++;
        return at;
}

struct findings {
        const char *path;
        bool quiet;
        unsigned n_damaged;
};

static void found(struct findings *f, const char *name, bool sound) {
        if (!f->quiet)
                printf("%-10s %s\n", name, sound ? "ok" : "damaged");
        f->n_damaged += !sound;
}

static int verify_chunk(struct findings *f, const struct codec_file *file,
                        const struct table_chunk *chunk, uint64_t gap_first) {
        const char *name = table_chunk_name(chunk->id);
        uint64_t stray = find_stray_byte(file, gap_first, chunk->offset), checksum;
        int r = sum_chunk(file, chunk, &checksum);

        if (r < 0)
                return r;
        found(f, name, checksum == chunk->checksum);
        if (checksum != chunk->checksum)
                fprintf(stderr,
                        "carvq: %s: chunk %s is damaged: checksum of bytes %" PRIu64 " to %" PRIu64
                        " is %016" PRIx64 ", expected %016" PRIx64 "\n",
                        f->path, name, chunk->offset, chunk->offset + chunk->length - 1, checksum,
                        chunk->checksum);
        if (stray < chunk->offset) {
                found(f, "padding", false);
                fprintf(stderr,
                        "carvq: %s: padding before chunk %s, byte %" PRIu64
                        ": found 0x%02x, expected 0\n",
                        f->path, name, stray, ((const uint8_t *)file->map)[stray]);
        }
        return 0;
}

static int verify(struct findings *f, const struct codec_file *file) {
        const struct table_contents *c = &file->table.contents;
        const struct table_chunk *chunks[] = { &c->codebooks, &c->adaptor, &c->rows, &c->meta };
        uint64_t end = sizeof(c->header) + c->header.n_chunks * sizeof(struct table_chunk);

        found(f, "header", true);
        for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
                int r;

                if (!chunks[i]->length)
                        continue;
                r = verify_chunk(f, file, chunks[i], end);
                if (r < 0)
                        return r;
                end = chunks[i]->offset + chunks[i]->length;
        }
        return 0;
}

int cmd_verify(int argc, char **argv) {
        static const struct option options[] = {
                { "quiet", no_argument, NULL, 'q' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct findings findings = { 0 };
        struct codec_file file = { 0 };
        struct fault fault = { 0 };
        int option, r;

        opterr = 0;
        while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
                if (option == 'h')
                        return cli_print_help(help);
                if (option != 'q')
                        return cli_usage("verify", "unknown option %s", argv[optind - 1]);
                findings.quiet = true;
        }
        if (optind + 1 != argc)
                return cli_usage("verify", "expected one FILE");
        findings.path = argv[optind];
        r = cli_map_table(argv[optind], &file, &fault);
        if (r >= 0)
                r = verify(&findings, &file);
        codec_file_unmap(&file);
        if (r < 0) {
                cli_fail(argv[optind], r, &fault);
                return r == -EBADMSG ? CLI_NO : CLI_FAILURE;
        }
        return cli_finish(findings.n_damaged ? CLI_NO : CLI_OK);
}

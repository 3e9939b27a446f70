/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto/table-check.c, and what follows a pass: slices, tiers, rows of every codec by every set of
 * kernels. An input is the beginning of a .carvq file. It is checked as it is; with its checksums
 * mended, so that fields are reached; and as a whole file that has its parameters, the canonical
 * layout, and whatever follows the head in all its chunks, over and over.
 */
#include <math.h>

#include "fuzz.h"
#include "lib/codec/codec.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

#define FILE_BYTES_MAX (UINT64_C(1) << 20)
#define ROWS_DECODED   9u /* some from each end, and one behind it */
#define ROW_BYTES_MAX  (UINT64_C(1) << 16)

/* ---- The checker ---- */

static void check_slice(const struct table_chunk *c, uint64_t file_bytes, uint64_t expected_bytes) {
        require(c->length == expected_bytes, "a chunk's length is the layout's");
        require(!c->length || range_inside(c->offset, c->length, file_bytes), "inside the file");
        require(!c->length || c->offset % TABLE_CHUNK_ALIGNMENT == 0, "aligned");
}

static int check_head(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
                      struct table_contents *ret_contents) {
        struct fault fault = { 0 };
        int r = table_check(head, head_bytes, file_bytes, ret_contents, &fault);

        require(r == 0 || *fault.text, "a refusal has a reason");
        require(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT, "as documented");
        if (r < 0)
                return r;
        check_slice(&ret_contents->codebooks, file_bytes, ret_contents->layout.codebook_bytes);
        check_slice(&ret_contents->adaptor, file_bytes, ret_contents->layout.adaptor_bytes);
        check_slice(&ret_contents->tiers, file_bytes, ret_contents->layout.tiers_bytes);
        check_slice(&ret_contents->rows, file_bytes, ret_contents->layout.rows_bytes);
        check_slice(&ret_contents->meta, file_bytes, ret_contents->meta.length);
        return 0;
}

/* The same bytes, but for the checksums, as a file of the size that they claim. */
static void check_mended(const uint8_t *bytes, size_t n_bytes) {
        _cleanup_(freep) uint8_t *head = copy_exactly(bytes, n_bytes);
        struct table_header h;
        struct table_contents contents;
        size_t contents_bytes;

        if (n_bytes < sizeof(h))
                return;
        memcpy(&h, head, sizeof(h));
        contents_bytes = MIN(h.n_chunks, TABLE_CHUNKS_MAX) * sizeof(struct table_chunk);
        memcpy(h.magic, TABLE_MAGIC, sizeof(h.magic));
        h.version_major = TABLE_VERSION_MAJOR;
        h.header_bytes = sizeof(h);
        h.contents_checksum =
                XXH3_64bits(head + sizeof(h), MIN(contents_bytes, n_bytes - sizeof(h)));
        h.header_checksum = XXH3_64bits(&h, offsetof(struct table_header, header_checksum));
        memcpy(head, &h, sizeof(h));
        check_head(head, n_bytes, h.file_bytes, &contents);
}

/* ---- A whole file ---- */

static void fill(uint8_t *to, uint64_t n, struct input body) {
        for (uint64_t i = 0; i < n && body.n_bytes; i++)
                to[i] = body.bytes[i % body.n_bytes];
}

/* As many rows of each tier as the header says, beginning at any row. */
static void fill_tiers(const struct table_header *h, uint8_t *to, uint64_t shift) {
        _cleanup_(freep) uint8_t *tiers = calloc(1, h->n_rows);

        require(tiers, "calloc");
        for (uint64_t row = 0; row < h->n_rows; row++) {
                uint64_t place = (row + shift) % h->n_rows;

                while (tiers[row] + 1u < h->n_tiers && place < h->tier_rows[tiers[row]])
                        tiers[row]++;
        }
        table_tiers_fill(h, tiers, (void *)to);
}

/* NULL: the parameters are none, or make a file that is too large for here. */
static uint8_t *build(const uint8_t *bytes, size_t n_bytes, struct input *ret_body,
                      struct table_chunk chunks[TABLE_CHUNKS_MAX],
                      struct table_header *ret_header) {
        struct input input = { bytes, n_bytes };
        struct table_header h;
        struct fault fault;
        uint64_t meta_bytes;
        uint8_t *file;

        input_take(&input, &h, sizeof(h));
        memset(h.reserved1, 0, sizeof(h.reserved1));
        h.reserved0 = 0;
        h.features_required = 0;
        meta_bytes = h.file_bytes % 64; /* any */
        if (table_plan(&h, meta_bytes, chunks, &fault) < 0 || h.file_bytes > FILE_BYTES_MAX)
                return NULL;
        *ret_body = input;
        file = aligned_alloc(64, align_up(h.file_bytes, 64));
        require(file, "aligned_alloc");
        memset(file, 0, h.file_bytes);
        for (uint32_t i = 0; i < h.n_chunks; i++) {
                fill(file + chunks[i].offset, chunks[i].length, input);
                chunks[i].checksum = XXH3_64bits(file + chunks[i].offset, chunks[i].length);
        }
        table_seal(&h, chunks);
        memcpy(file, &h, sizeof(h));
        memcpy(file + sizeof(h), chunks, h.n_chunks * sizeof(*chunks));
        *ret_header = h;
        return file;
}

/* ---- Rows ---- */

static bool same_value(float a, float b) {
        return !memcmp(&a, &b, sizeof(a)) || (isnan(a) && isnan(b));
}

static void decode(const struct codec_table *table, const struct codec_kernels *kernels,
                   const uint64_t *ids, float *ret_rows) {
        const struct table_header *h = &table->contents.header;
        const struct codec_request request = {
                .ids = ids,
                .n_ids = ROWS_DECODED,
                .n_cols = h->n_dims,
                .scale = 1,
                .out_of_range = CODEC_OUT_OF_RANGE_ZERO,
                .row_stride_bytes = h->n_dims * sizeof(float),
                .out = ret_rows,
        };
        _cleanup_(codec_context_deinit) struct codec_context context;
        struct codec_cost cost = { 0 };
        uint64_t bad;

        require(!codec_request_check(&request, h, &bad, NULL), "a sound request");
        codec_context_init(&context, kernels);
        require(!codec_context_reserve(&context, table), "reserve");
        codec_decode_all(&context, table, &request, &cost);
        require(cost.bytes_written == (uint64_t)ROWS_DECODED * h->n_dims * sizeof(float),
                "written");
        for (uint32_t i = 0; i < h->n_dims; i++)
                require(ret_rows[(size_t)(ROWS_DECODED - 1) * h->n_dims + i] == 0, "no such row");
}

/* The sum of an adaptor's layers has an order of its own in each set of kernels. */
static void compare(const struct codec_table *table, const float *a, const float *b) {
        const struct table_header *h = &table->contents.header;

        for (size_t i = 0; !h->latent_dims && i < (size_t)ROWS_DECODED * h->n_dims; i++)
                require(same_value(a[i], b[i]), "kernels agree with the specification");
}

static void decode_rows(struct codec_table *table) {
        const struct table_header *h = &table->contents.header;
        size_t n_bytes = (size_t)ROWS_DECODED * h->n_dims * sizeof(float);
        _cleanup_(freep) float *expected = malloc(n_bytes), *rows = malloc(n_bytes);
        uint64_t ids[ROWS_DECODED] = { 0, 1, h->n_rows / 2, h->n_rows - 1 };

        require(expected && rows, "malloc");
        for (size_t i = 4; i < ROWS_DECODED - 1; i++)
                ids[i] = h->n_rows - MIN(h->n_rows, i);
        ids[1] %= h->n_rows;
        ids[ROWS_DECODED - 1] = h->n_rows;
        decode(table, &codec_kernels_scalar, ids, expected);
        require(codec_prepare(h, table->col_scales, table->adaptor, &table->prepared) >= 0,
                "memory");
        for (uint32_t features = codec_cpu_features();; features &= features - 1) {
                decode(table, codec_kernels_choose(features), ids, rows);
                compare(table, expected, rows);
                if (!features)
                        break;
        }
        codec_prepared_free(table->prepared);
        table->prepared = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
        struct table_chunk chunks[TABLE_CHUNKS_MAX];
        _cleanup_(freep) uint8_t *file = NULL;
        struct table_contents contents;
        struct codec_table table;
        struct table_header h;
        struct fault fault;
        struct input body;

        check_head(bytes, MIN(n_bytes, TABLE_HEAD_BYTES_MAX), n_bytes, &contents);
        check_mended(bytes, MIN(n_bytes, TABLE_HEAD_BYTES_MAX));
        file = build(bytes, n_bytes, &body, chunks, &h);
        if (!file)
                return 0;
        require(!check_head(file, MIN(h.file_bytes, TABLE_HEAD_BYTES_MAX), h.file_bytes, &contents),
                "what is planned is accepted");
        if ((uint64_t)h.n_dims * sizeof(float) > ROW_BYTES_MAX)
                return 0;
        codec_table_init(&table, &contents, file);
        /* Records are found inside the rows chunk also with a map that nobody has checked. */
        (void)(table.tiers && table_tiers_check(&contents, table.tiers, &fault));
        decode_rows(&table);
        if (table.tiers) {
                fill_tiers(&h, file + contents.tiers.offset, body.n_bytes);
                require(!table_tiers_check(&contents, table.tiers, &fault), "made as documented");
                decode_rows(&table);
        }
        return 0;
}

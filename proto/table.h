/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .carvq file: one embedding table, little-endian, used in place. FORMAT.md is the
 * specification; this header is its C form and table_check() its gate: nothing reads a table that
 * has not passed it.
 */
#pragma once

#include <assert.h>

#include "base.h"

#define TABLE_MAGIC                                                                                \
        "\x89"                                                                                     \
        "CARVQ\r\n" /* 8 bytes: a text-mode copy or a 7-bit path breaks it */
#define TABLE_VERSION_MAJOR      1
#define TABLE_VERSION_MINOR      0

#define TABLE_HEAD_BYTES_MAX     4096u /* header and contents table always fit in the first page */
#define TABLE_CHUNKS_MAX         16u

#define TABLE_ROWS_MAX           (UINT64_C(1) << 40)
#define TABLE_DIMS_MAX           65536u
#define TABLE_STAGES_MAX         16u
#define TABLE_TIERS_MAX          4u
#define TABLE_CODEBOOK_BITS_MAX  12u
#define TABLE_WINDOW_BITS_MAX    16u
#define TABLE_SUBVECTOR_DIMS_MAX 64u
#define TABLE_LATENT_DIMS_MAX    1024u
#define TABLE_HIDDEN_DIMS_MAX    65536u
#define TABLE_ADAPTOR_WEIGHTS_MAX                                                                  \
        (1u << 24) /* with biases; so that no file makes a row take seconds */

/* Codes of one register's size, at most so many bits, are packed in blocks of 64, longer ones in
 * one string of bits (FORMAT.md, "Packed codes"). */
#define TABLE_SMALL_BITS_MAX 4u
#define TABLE_BLOCK_CODES    64u

/* Positions in a block of the tier map (FORMAT.md, "Tiers"). */
#define TABLE_TIER_BLOCK_ROWS 448u

#define TABLE_HALF_ONE        0x3c00u
#define TABLE_HALF_MAX        0x7bffu /* the largest finite one */

#define TABLE_CHUNK_ALIGNMENT 64u
#define TABLE_ROWS_ALIGNMENT  4096u

enum table_codec {
        TABLE_CODEC_F32 = 1,
        TABLE_CODEC_F16 = 2,
        TABLE_CODEC_BF16 = 3,
        TABLE_CODEC_INT8 = 4,
        TABLE_CODEC_INT4 = 5,
        TABLE_CODEC_CARVQ = 6,
};

enum table_adaptor {
        TABLE_ADAPTOR_NONE = 0,
        TABLE_ADAPTOR_HALF = 1,
        TABLE_ADAPTOR_INT8 = 2, /* int8 weights; a scale for each output, and biases, in half */
};

/* Required features: a reader that does not know one of them must refuse the file. None so far. */
#define TABLE_FEATURES_KNOWN UINT64_C(0)

/* Four letters, readable in a hex dump. They stand in the file in this order. */
enum table_chunk_id {
        TABLE_CHUNK_CODEBOOKS = 0x4b424443, /* "CDBK" */
        TABLE_CHUNK_ADAPTOR = 0x54504441,   /* "ADPT" */
        TABLE_CHUNK_TIERS = 0x52454954,     /* "TIER" */
        TABLE_CHUNK_ROWS = 0x53574f52,      /* "ROWS" */
        TABLE_CHUNK_META = 0x4154454d,      /* "META" */
};

struct table_header {
        uint8_t magic[8];
        uint16_t version_major;
        uint16_t version_minor;
        uint32_t header_bytes;
        uint64_t features_required;
        uint64_t features_optional;
        uint64_t file_bytes;
        uint64_t n_rows;
        uint32_t n_dims;
        uint32_t codec;
        uint64_t record_bytes;
        uint32_t n_chunks;
        uint32_t reserved0;

        /* The carvq codec's parameters; all zero for the others. */
        uint32_t n_stages;      /* of a row of the highest tier */
        uint32_t codebook_bits; /* of a code of such a row */
        uint32_t subvector_dims;
        uint32_t group_cols; /* neighbouring sub-vectors of a row that share codebooks */
        uint64_t group_rows; /* neighbouring rows that share codebooks */
        uint32_t row_scale;  /* 1: each record starts with a half-float scale */
        uint32_t latent_dims;
        uint32_t hidden_dims[2]; /* 0: the layer is absent */
        uint32_t adaptor_type;
        uint32_t latent_bits; /* 16: half, 8: integer; 0 without latents */
        uint32_t n_tiers;
        uint8_t tier_stages[TABLE_TIERS_MAX];    /* the last of codes is n_stages */
        uint64_t tier_rows[TABLE_TIERS_MAX - 1]; /* [t - 1]: rows of at least tier t */
        uint32_t window_bits;                    /* of the number that chooses a centroid */
        uint8_t tier_bits[TABLE_TIERS_MAX];      /* of a code; the last of codes: codebook_bits */
        uint32_t col_scale; /* 1: codebooks are preceded by a half-float scale for each column */
        uint16_t tier_scale[TABLE_TIERS_MAX]; /* half, of rows of codes; TABLE_HALF_ONE: none */
        uint32_t int8_tier; /* 1: records of the highest tier hold 8-bit integers, not codes */

        uint8_t reserved1[64];
        uint64_t contents_checksum;
        uint64_t header_checksum; /* XXH3-64 of all bytes before it */
};

struct table_chunk {
        uint32_t id;
        uint32_t reserved;
        uint64_t offset;
        uint64_t length;
        uint64_t checksum; /* XXH3-64 */
};

static_assert(sizeof(struct table_header) == 256, "table header is 256 bytes");
static_assert(offsetof(struct table_header, file_bytes) == 32, "");
static_assert(offsetof(struct table_header, n_dims) == 48, "");
static_assert(offsetof(struct table_header, n_stages) == 72, "");
static_assert(offsetof(struct table_header, group_rows) == 88, "");
static_assert(offsetof(struct table_header, adaptor_type) == 112, "");
static_assert(offsetof(struct table_header, tier_rows) == 128, "");
static_assert(offsetof(struct table_header, window_bits) == 152, "");
static_assert(offsetof(struct table_header, reserved1) == 176, "");
static_assert(offsetof(struct table_header, header_checksum) == 248, "");
static_assert(sizeof(struct table_chunk) == 32, "contents entry is 32 bytes");

/* One cache line of the tier map: which of 448 rows have one tier more. */
struct table_tier_block {
        uint64_t rank; /* ones in the level's blocks before this one */
        uint64_t bits[TABLE_TIER_BLOCK_ROWS / 64];
};

static_assert(sizeof(struct table_tier_block) == 64, "a block is a cache line");

/*
 * What follows from a header's fields alone. The packer fills a header and asks for the layout; the
 * checker computes the same layout and compares it with what the file claims.
 */
struct table_layout {
        uint32_t n_subvectors; /* per row: ceil(n_dims / subvector_dims) */
        uint32_t n_col_groups;
        uint64_t n_row_groups;
        uint64_t stage_bytes[TABLE_TIERS_MAX];     /* one stage's codes in each tier's records */
        uint64_t codes_offset;                     /* in a record, behind scale and latent */
        uint64_t record_bytes;                     /* of the highest tier */
        uint64_t tier_bytes[TABLE_TIERS_MAX];      /* of a record of each tier */
        uint64_t level_first[TABLE_TIERS_MAX - 1]; /* [t - 1]: first block of level t */
        uint64_t n_weights;                        /* of the adaptor, biases and scales included */
        uint64_t col_scale_bytes;                  /* before the codebooks, padding included */
        uint64_t group_bytes;                      /* codebooks of one group */
        uint64_t codebook_bytes;                   /* chunk lengths; 0 where the chunk is absent */
        uint64_t adaptor_bytes;
        uint64_t tiers_bytes;
        uint64_t rows_bytes;
};

/* A checked file: header, layout and the slice of each chunk (length 0: absent). */
struct table_contents {
        struct table_header header;
        struct table_layout layout;
        struct table_chunk codebooks;
        struct table_chunk adaptor;
        struct table_chunk tiers;
        struct table_chunk rows;
        struct table_chunk meta;
};

/* Bytes of `n_codes` packed codes of `bits` bits (1 to 4). */
uint64_t table_packed_bytes(uint64_t n_codes, uint32_t bits);

/* Codebooks of at most 16 centroids fit a register and are laid out for permutes, larger ones for
 * loads (FORMAT.md, "Sub-vectors"). */
static inline bool table_small_codebooks(const struct table_header *header) {
        return header->window_bits <= TABLE_SMALL_BITS_MAX;
}

/* Dimension of slot `slot` of sub-vector `subvector`; at or past n_dims: the slot does not exist.
 */
static inline uint64_t table_slot_dim(const struct table_header *header,
                                      const struct table_layout *layout, uint64_t subvector,
                                      uint64_t slot) {
        return table_small_codebooks(header) ? slot * layout->n_subvectors + subvector
                                             : subvector * header->subvector_dims + slot;
}

/* Tiers whose records hold codes. */
static inline uint32_t table_code_tiers(const struct table_header *header) {
        return header->n_tiers - header->int8_tier;
}

/* For headers that are being made: tiers have no scale where none is set. */
static inline void table_set_tier_scales(struct table_header *header) {
        for (uint32_t t = 0; t < TABLE_TIERS_MAX; t++)
                if (t >= table_code_tiers(header))
                        header->tier_scale[t] = 0;
                else if (!header->tier_scale[t])
                        header->tier_scale[t] = TABLE_HALF_ONE;
}

/* The same, all codes have `codebook_bits` bits, and windows no more unless `window_bits` is set.
 */
static inline void table_set_code_bits(struct table_header *header) {
        if (!header->window_bits)
                header->window_bits = header->codebook_bits;
        for (uint32_t t = 0; t < TABLE_TIERS_MAX; t++)
                header->tier_bits[t] =
                        (uint8_t)(header->tier_stages[t] ? header->codebook_bits : 0);
        table_set_tier_scales(header);
}

/* The same, and every row has `n_stages` stages. */
static inline void table_set_one_tier(struct table_header *header, uint32_t n_stages) {
        header->n_stages = n_stages;
        header->n_tiers = 1;
        header->int8_tier = 0;
        header->tier_stages[0] = (uint8_t)n_stages;
        table_set_code_bits(header);
}

/* Bytes of one stage's codes of `code_bits` bits in a record of the carvq codec, and of a record
 * with `n_stages` of them. */
uint64_t table_stage_bytes(const struct table_header *header, uint32_t code_bits);
uint64_t table_record_bytes(const struct table_header *header, uint32_t n_stages,
                            uint32_t code_bits);

/* Bytes of a record of 8-bit integers. */
static inline uint64_t table_int8_record_bytes(const struct table_header *header) {
        return sizeof(uint16_t) + header->n_dims;
}

/* Bytes of one layer of the adaptor. */
uint64_t table_layer_bytes(uint32_t adaptor_type, uint64_t n_in, uint64_t n_out);

/* Positions of level `level` (1 to n_tiers - 1) of the tier map, and the blocks they take. */
uint64_t table_level_rows(const struct table_header *header, uint32_t level);
uint64_t table_level_blocks(const struct table_header *header, uint32_t level);

/* Pure. -EINVAL with the field's name when a parameter is outside FORMAT.md's limits. */
int table_layout_compute(const struct table_header *header, struct table_layout *ret_layout,
                         struct fault *ret_fault);

/*
 * Pure. `head` holds the first min(file_bytes, TABLE_HEAD_BYTES_MAX) bytes of a file of
 * `file_bytes` bytes. 0: all fields, offsets and lengths are sound and the header's own checksums
 * hold; chunk contents are not looked at. -EBADMSG: damaged or foreign; -EPROTONOSUPPORT: a newer
 * version or an unknown required feature. The fault names the field, what was found and what was
 * expected; a field with one right value also by its byte in the file.
 */
int table_check(const void *head, size_t head_bytes, uint64_t file_bytes,
                struct table_contents *ret_contents, struct fault *ret_fault);

/*
 * Pure. Fills everything that follows from `header`'s parameters: magic, versions, sizes, and the
 * contents table (`ret_chunks`, in file order, TABLE_CHUNKS_MAX entries). Chunk checksums are left
 * 0; table_seal() computes the header's own two when they are in place.
 */
int table_plan(struct table_header *header, uint64_t meta_bytes,
               struct table_chunk ret_chunks[TABLE_CHUNKS_MAX], struct fault *ret_fault);
void table_seal(struct table_header *header, const struct table_chunk *chunks);

/*
 * Pure. The tier map for rows of these tiers (one byte each, 0 to n_tiers - 1), of which the header
 * has the right numbers in tier_rows; `ret_blocks` has room for layout.tiers_bytes.
 */
void table_tiers_fill(const struct table_header *header, const uint8_t *tiers,
                      struct table_tier_block *ret_blocks);

/*
 * Pure. Whether a tier map is what table_tiers_fill() would make of some tiers: every rank, the
 * bits past the end of each level, and the totals. -EBADMSG: the fault names level and block.
 */
int table_tiers_check(const struct table_contents *contents, const struct table_tier_block *blocks,
                      struct fault *ret_fault);

/* The same for the next `n_blocks` of the map, by who reads it in pieces; begin with zeros. */
struct table_tiers_cursor {
        uint32_t level; /* of the last block seen; 0: none yet */
        uint64_t block; /* next of the level */
        uint64_t rank;
};

int table_tiers_check_next(const struct table_contents *contents,
                           const struct table_tier_block *blocks, uint64_t n_blocks,
                           struct table_tiers_cursor *cursor, struct fault *ret_fault);

/* FORMAT.md, "Bits per parameter": of the whole file. */
double table_bits_per_param(const struct table_header *header);

const char *table_codec_name(uint32_t codec); /* "carvq", "f32" ...; "unknown" */
int table_codec_parse(const char *name, uint32_t *ret_codec);
const char *table_chunk_name(uint32_t id);     /* "codebooks", "adaptor" ...; "unknown" */
const char *table_adaptor_name(uint32_t type); /* "none", "half", "int8"; "unknown" */

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from a table's parameters: sizes, offsets, names. Shared by the packer, which writes
 * by it, and the checker, which compares with it; so there is one place where the layout is
 * computed.
 */
#include "table.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const struct {
        uint32_t codec;
        const char *name;
} codec_names[] = {
        { TABLE_CODEC_F32, "f32" },   { TABLE_CODEC_F16, "f16" },   { TABLE_CODEC_BF16, "bf16" },
        { TABLE_CODEC_INT8, "int8" }, { TABLE_CODEC_INT4, "int4" }, { TABLE_CODEC_CARVQ, "carvq" },
};

const char *table_codec_name(uint32_t codec) {
        for (size_t i = 0; i < ARRAY_SIZE(codec_names); i++)
                if (codec_names[i].codec == codec)
                        return codec_names[i].name;
        return "unknown";
}

int table_codec_parse(const char *name, uint32_t *ret_codec) {
        for (size_t i = 0; i < ARRAY_SIZE(codec_names); i++)
                if (!strcmp(codec_names[i].name, name)) {
                        *ret_codec = codec_names[i].codec;
                        return 0;
                }
        return -EINVAL;
}

double table_bits_per_param(const struct table_header *h) {
        return (double)h->file_bytes * 8 / ((double)h->n_rows * (double)h->n_dims);
}

const char *table_chunk_name(uint32_t id) {
        switch (id) {
        case TABLE_CHUNK_CODEBOOKS:
                return "codebooks";
        case TABLE_CHUNK_ADAPTOR:
                return "adaptor";
        case TABLE_CHUNK_TIERS:
                return "tiers";
        case TABLE_CHUNK_ROWS:
                return "rows";
        case TABLE_CHUNK_META:
                return "meta";
        default:
                return "unknown";
        }
}

const char *table_adaptor_name(uint32_t type) {
        static const char *const names[] = { "none", "half", "int8" };

        return type < ARRAY_SIZE(names) ? names[type] : "unknown";
}

uint64_t table_packed_bytes(uint64_t n_codes, uint32_t bits) {
        uint64_t n_blocks = n_codes / TABLE_BLOCK_CODES, n_tail = n_codes % TABLE_BLOCK_CODES;
        uint64_t bytes = 0;

        /* A code of k bits is stored as pieces of 4, 2 and 1 bits: the binary digits of k. */
        for (uint32_t piece = TABLE_SMALL_BITS_MAX; piece; piece >>= 1)
                if (bits & piece)
                        bytes += n_blocks * 8 * piece + div_round_up(n_tail * piece, 8);
        return bytes;
}

static int check_limit(const char *field, uint64_t value, uint64_t min, uint64_t max,
                       struct fault *ret_fault) {
        if (value >= min && value <= max)
                return 0;
        if (min == max)
                return fault_set(ret_fault, -EINVAL, "%s is %" PRIu64 ", expected %" PRIu64, field,
                                 value, min);
        return fault_set(ret_fault, -EINVAL, "%s is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
                         field, value, min, max);
}

uint64_t table_stage_bytes(const struct table_header *h, uint32_t code_bits) {
        uint64_t n_subvectors = div_round_up(h->n_dims, h->subvector_dims);

        if (table_small_codebooks(h))
                return table_packed_bytes(n_subvectors, code_bits);
        return div_round_up(n_subvectors * code_bits, 8);
}

uint64_t table_record_bytes(const struct table_header *h, uint32_t n_stages, uint32_t code_bits) {
        return sizeof(uint16_t) * h->row_scale + (uint64_t)h->latent_dims * (h->latent_bits / 8) +
               n_stages * table_stage_bytes(h, code_bits);
}

uint64_t table_layer_bytes(uint32_t adaptor_type, uint64_t n_in, uint64_t n_out) {
        if (adaptor_type == TABLE_ADAPTOR_INT8)
                return 2 * sizeof(uint16_t) * n_out + align_up(n_in * n_out, sizeof(uint16_t));
        return sizeof(uint16_t) * (n_in + 1) * n_out;
}

static void layout_adaptor(const struct table_header *h, struct table_layout *l) {
        uint64_t n_in = h->latent_dims, n_extra = h->adaptor_type == TABLE_ADAPTOR_INT8 ? 2 : 1;
        const uint64_t outs[] = { h->hidden_dims[0], h->hidden_dims[1], h->n_dims };

        if (!h->adaptor_type)
                return;
        for (size_t i = 0; i < ARRAY_SIZE(outs); i++) {
                if (!outs[i]) /* an absent layer */
                        continue;
                l->adaptor_bytes += table_layer_bytes(h->adaptor_type, n_in, outs[i]);
                l->n_weights += (n_in + n_extra) * outs[i];
                n_in = outs[i];
        }
}

uint64_t table_level_rows(const struct table_header *h, uint32_t level) {
        return level == 1 ? h->n_rows : h->tier_rows[level - 2];
}

uint64_t table_level_blocks(const struct table_header *h, uint32_t level) {
        return div_round_up(table_level_rows(h, level), TABLE_TIER_BLOCK_ROWS);
}

/* A record is little more than 2^20 bytes. */
static void layout_records(const struct table_header *h, struct table_layout *l) {
        l->codes_offset = table_record_bytes(h, 0, 0);
        for (uint32_t t = 0; t < table_code_tiers(h); t++) {
                l->stage_bytes[t] = table_stage_bytes(h, h->tier_bits[t]);
                l->tier_bytes[t] = table_record_bytes(h, h->tier_stages[t], h->tier_bits[t]);
        }
        if (h->int8_tier)
                l->tier_bytes[h->n_tiers - 1] = table_int8_record_bytes(h);
        l->record_bytes = l->tier_bytes[h->n_tiers - 1];
}

/* At most 2^40 rows: no overflow. */
static void layout_tiers(const struct table_header *h, struct table_layout *l) {
        uint64_t n_blocks = 0;

        l->rows_bytes = h->n_rows * l->tier_bytes[0];
        for (uint32_t t = 1; t < h->n_tiers; t++) {
                l->rows_bytes += h->tier_rows[t - 1] * (l->tier_bytes[t] - l->tier_bytes[t - 1]);
                l->level_first[t - 1] = n_blocks;
                n_blocks += table_level_blocks(h, t);
        }
        l->tiers_bytes = n_blocks * sizeof(struct table_tier_block);
}

/* The highest tier's stages and bits are the header's; the lowest may have none. A scale is
 * positive and finite. */
static int check_tier(const struct table_header *h, uint32_t t, struct fault *ret_fault) {
        const char *const stages[] = { "tier_stages[0]", "tier_stages[1]", "tier_stages[2]",
                                       "tier_stages[3]" };
        const char *const bits[] = { "tier_bits[0]", "tier_bits[1]", "tier_bits[2]",
                                     "tier_bits[3]" };
        const char *const scales[] = { "tier_scale[0]", "tier_scale[1]", "tier_scale[2]",
                                       "tier_scale[3]" };
        uint32_t n_tiers = table_code_tiers(h);
        bool last = t + 1 == n_tiers, fixed = last || table_small_codebooks(h);
        uint64_t max_stages = t < n_tiers ? h->n_stages : 0, max_bits = h->codebook_bits;
        int r;

        r = check_limit(stages[t], h->tier_stages[t], last ? max_stages : t > 0 && max_stages,
                        max_stages, ret_fault);
        if (r >= 0)
                r = check_limit(scales[t], h->tier_scale[t], t < n_tiers,
                                t < n_tiers ? TABLE_HALF_MAX : 0, ret_fault);
        if (r < 0)
                return r;
        if (!h->tier_stages[t])
                max_bits = 0;
        return check_limit(bits[t], h->tier_bits[t], fixed ? max_bits : max_bits > 0, max_bits,
                           ret_fault);
}

static int check_tiers(const struct table_header *h, struct fault *ret_fault) {
        uint64_t max_rows = h->n_rows;
        int r = 0;

        for (uint32_t t = 0; r >= 0 && t < TABLE_TIERS_MAX; t++)
                r = check_tier(h, t, ret_fault);
        for (uint32_t t = 1; r >= 0 && t < TABLE_TIERS_MAX; t++) {
                const char *const fields[] = { "tier_rows[0]", "tier_rows[1]", "tier_rows[2]" };
                bool used = t < h->n_tiers;

                r = check_limit(fields[t - 1], h->tier_rows[t - 1], used, used ? max_rows : 0,
                                ret_fault);
                max_rows = h->tier_rows[t - 1];
        }
        return r;
}

/* So that a tier has one name, and offsets grow with the rows before them. */
static int check_tier_bytes(const struct table_header *h, const struct table_layout *l,
                            struct fault *ret_fault) {
        for (uint32_t t = 1; t < h->n_tiers; t++)
                if (l->tier_bytes[t] <= l->tier_bytes[t - 1])
                        return fault_set(ret_fault, -EINVAL,
                                         "a record of tier %" PRIu32 " has %" PRIu64
                                         " bytes, expected more than the %" PRIu64
                                         " of tier %" PRIu32,
                                         t, l->tier_bytes[t], l->tier_bytes[t - 1], t - 1);
        return 0;
}

/* Small codebooks have no windows wider than their codes. */
static int check_window(const struct table_header *h, struct fault *ret_fault) {
        uint32_t k = h->codebook_bits, window = h->window_bits;
        bool small = k <= TABLE_SMALL_BITS_MAX;

        if ((small && window == k) ||
            (window > TABLE_SMALL_BITS_MAX && window >= k && window <= TABLE_WINDOW_BITS_MAX))
                return 0;
        if (small)
                return fault_set(ret_fault, -EINVAL,
                                 "window_bits is %" PRIu32 ", expected %" PRIu32
                                 " (codebook_bits) or %u to %u",
                                 window, k, TABLE_SMALL_BITS_MAX + 1, TABLE_WINDOW_BITS_MAX);
        return check_limit("window_bits", window, k, TABLE_WINDOW_BITS_MAX, ret_fault);
}

static int check_carvq_parameters(const struct table_header *h, struct fault *ret_fault) {
        const struct {
                const char *field;
                uint64_t value, min, max;
        } limits[] = {
                { "n_stages", h->n_stages, 1, TABLE_STAGES_MAX },
                { "codebook_bits", h->codebook_bits, 1, TABLE_CODEBOOK_BITS_MAX },
                { "subvector_dims", h->subvector_dims, 1, TABLE_SUBVECTOR_DIMS_MAX },
                { "group_cols", h->group_cols, 1, TABLE_DIMS_MAX },
                { "group_rows", h->group_rows, 1, h->n_rows },
                { "row_scale", h->row_scale, 0, 1 },
                { "adaptor_type", h->adaptor_type, 0, TABLE_ADAPTOR_INT8 },
                { "latent_dims", h->latent_dims, 0, h->adaptor_type ? TABLE_LATENT_DIMS_MAX : 0 },
                { "hidden_dims[0]", h->hidden_dims[0], 0,
                  h->latent_dims ? TABLE_HIDDEN_DIMS_MAX : 0 },
                { "hidden_dims[1]", h->hidden_dims[1], 0,
                  h->hidden_dims[0] ? TABLE_HIDDEN_DIMS_MAX : 0 },
                { "n_tiers", h->n_tiers, 1, TABLE_TIERS_MAX },
                { "col_scale", h->col_scale, 0, 1 },
                { "int8_tier", h->int8_tier, 0, h->n_tiers > 1 },
        };
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                r = check_limit(limits[i].field, limits[i].value, limits[i].min, limits[i].max,
                                ret_fault);
                if (r < 0)
                        return r;
        }
        if (h->latent_dims ? h->latent_bits != 8 && h->latent_bits != 16 : h->latent_bits != 0)
                return fault_set(ret_fault, -EINVAL, "latent_bits is %" PRIu32 ", expected %s",
                                 h->latent_bits, h->latent_dims ? "8 or 16" : "0");
        r = check_window(h, ret_fault);
        return r < 0 ? r : check_tiers(h, ret_fault);
}

/* They are neighbours in the header. */
static int check_no_carvq_parameters(const struct table_header *h, struct fault *ret_fault) {
        const size_t first = offsetof(struct table_header, n_stages);
        const size_t end = offsetof(struct table_header, reserved1);

        for (size_t i = first; i < end; i++)
                if (((const uint8_t *)h)[i])
                        return fault_set(ret_fault, -EINVAL,
                                         "carvq parameters are set for codec %s, expected all zero",
                                         table_codec_name(h->codec));
        return 0;
}

static int layout_carvq(const struct table_header *h, struct table_layout *l,
                        struct fault *ret_fault) {
        uint64_t n_groups;
        int r;

        r = check_carvq_parameters(h, ret_fault);
        if (r < 0)
                return r;

        l->n_subvectors = (uint32_t)div_round_up(h->n_dims, h->subvector_dims);
        l->n_col_groups = (uint32_t)div_round_up(l->n_subvectors, h->group_cols);
        l->n_row_groups = div_round_up(h->n_rows, h->group_rows);
        layout_records(h, l);
        r = check_tier_bytes(h, l, ret_fault);
        if (r < 0)
                return r;
        layout_tiers(h, l);
        layout_adaptor(h, l);
        r = check_limit("adaptor weights", l->n_weights, 0, TABLE_ADAPTOR_WEIGHTS_MAX, ret_fault);
        if (r < 0)
                return r;
        l->group_bytes = (uint64_t)h->n_stages * h->subvector_dims * sizeof(uint16_t)
                         << h->window_bits;
        if (h->col_scale)
                l->col_scale_bytes = align_up(sizeof(uint16_t) * h->n_dims, TABLE_CHUNK_ALIGNMENT);
        if (__builtin_mul_overflow(l->n_row_groups, l->n_col_groups, &n_groups) ||
            __builtin_mul_overflow(n_groups, l->group_bytes, &l->codebook_bytes) ||
            __builtin_add_overflow(l->codebook_bytes, l->col_scale_bytes, &l->codebook_bytes))
                return fault_set(ret_fault, -EINVAL,
                                 "group_rows %" PRIu64 " and group_cols %" PRIu32
                                 " make codebooks of more than 2^64 bytes",
                                 h->group_rows, h->group_cols);
        return 0;
}

int table_layout_compute(const struct table_header *h, struct table_layout *ret_layout,
                         struct fault *ret_fault) {
        struct table_layout l = { 0 };
        int r;

        r = check_limit("n_rows", h->n_rows, 1, TABLE_ROWS_MAX, ret_fault);
        if (r < 0)
                return r;
        r = check_limit("n_dims", h->n_dims, 1, TABLE_DIMS_MAX, ret_fault);
        if (r < 0)
                return r;

        switch (h->codec) {
        case TABLE_CODEC_F32:
                l.record_bytes = (uint64_t)h->n_dims * 4;
                break;
        case TABLE_CODEC_F16:
        case TABLE_CODEC_BF16:
                l.record_bytes = (uint64_t)h->n_dims * 2;
                break;
        case TABLE_CODEC_INT8:
                l.record_bytes = sizeof(float) + h->n_dims;
                break;
        case TABLE_CODEC_INT4:
                l.record_bytes = sizeof(float) + table_packed_bytes(h->n_dims, 4);
                break;
        case TABLE_CODEC_CARVQ:
                r = layout_carvq(h, &l, ret_fault);
                break;
        default:
                return fault_set(ret_fault, -EINVAL, "codec is %" PRIu32 ", expected 1 to 6",
                                 h->codec);
        }
        if (h->codec != TABLE_CODEC_CARVQ) {
                r = check_no_carvq_parameters(h, ret_fault);
                l.tier_bytes[0] = l.record_bytes;
                l.rows_bytes = h->n_rows * l.record_bytes;
        }
        if (r < 0)
                return r;
        *ret_layout = l;
        return 0;
}

int table_plan(struct table_header *h, uint64_t meta_bytes,
               struct table_chunk ret_chunks[TABLE_CHUNKS_MAX], struct fault *ret_fault) {
        struct table_layout l;
        uint64_t end;
        int r;

        r = table_layout_compute(h, &l, ret_fault);
        if (r < 0)
                return r;

        const struct table_chunk wanted[] = {
                { .id = TABLE_CHUNK_CODEBOOKS, .length = l.codebook_bytes },
                { .id = TABLE_CHUNK_ADAPTOR, .length = l.adaptor_bytes },
                { .id = TABLE_CHUNK_TIERS, .length = l.tiers_bytes },
                { .id = TABLE_CHUNK_ROWS, .length = l.rows_bytes },
                { .id = TABLE_CHUNK_META, .length = meta_bytes },
        };

        h->n_chunks = 0;
        for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
                if (wanted[i].length)
                        ret_chunks[h->n_chunks++] = wanted[i];

        end = sizeof(*h) + h->n_chunks * sizeof(struct table_chunk);
        for (uint32_t i = 0; i < h->n_chunks; i++) {
                struct table_chunk *c = &ret_chunks[i];

                c->offset = align_up(end, c->id == TABLE_CHUNK_ROWS ? TABLE_ROWS_ALIGNMENT
                                                                    : TABLE_CHUNK_ALIGNMENT);
                if (__builtin_add_overflow(c->offset, c->length, &end) || end > INT64_MAX)
                        return fault_set(ret_fault, -EINVAL,
                                         "chunk %s of %" PRIu64 " bytes does not fit into a file",
                                         table_chunk_name(c->id), c->length);
        }

        memcpy(h->magic, TABLE_MAGIC, sizeof(h->magic));
        h->version_major = TABLE_VERSION_MAJOR;
        h->version_minor = TABLE_VERSION_MINOR;
        h->header_bytes = sizeof(*h);
        h->record_bytes = l.record_bytes;
        h->file_bytes = end;
        return 0;
}

void table_seal(struct table_header *h, const struct table_chunk *chunks) {
        h->contents_checksum = XXH3_64bits(chunks, h->n_chunks * sizeof(*chunks));
        h->header_checksum = XXH3_64bits(h, offsetof(struct table_header, header_checksum));
}

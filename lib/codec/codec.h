/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a table -> rows. Used by the daemon's workers, by the library's direct mode and by the
 * packer; all share one path: a checked table, a request, a context with scratch memory, and a
 * kernel set chosen once. Decoding never blocks except on the page faults of a cold table, and
 * never fails on table bytes.
 */
#pragma once

#include "proto/table.h"

/* ---- CPU features and kernels (cpu.c, kernels.c) ---- */

enum codec_cpu {
        CODEC_CPU_AVX2 = 1u << 0, /* AVX2, FMA, F16C and the OS state for them */
        CODEC_CPU_AVX512 =
                1u << 1, /* all that, BMI2, AVX-512 F, BW, DQ, VL, the OS state for them */
        CODEC_CPU_NEON = 1u << 2,
        CODEC_CPU_VNNI = 1u << 3,    /* AVX-512 as above, and its VNNI */
        CODEC_CPU_AMX = 1u << 4,     /* all that, AMX for int8, the OS state for it */
        CODEC_CPU_DOTPROD = 1u << 5, /* NEON's dot products of bytes */
};

/* What this CPU and OS can run, and-ed with the mask of `CARVQ_CPU_MASK`; nothing where that cannot
 * be parsed, since scalar code is right everywhere. */
uint32_t codec_cpu_features(void);

/* "scalar", "avx2,avx512", "all" or a number as strtoul() reads it; -EINVAL for anything else. */
int codec_cpu_mask_parse(const char *text, uint32_t *ret_mask);

struct codec_table;
struct codec_prepared;

/* Where a row is: `n_bytes` of the rows chunk. */
struct codec_record {
        const uint8_t *bytes;
        uint64_t n_bytes;
        uint64_t row;
        uint64_t stage_bytes; /* codec carvq: of this row's tier, like these */
        uint32_t n_stages;
        uint32_t code_bits;
        uint32_t tier;
};

/* Rows that the adaptor runs for at a time. */
#define CODEC_BATCH_ROWS 32u

/*
 * One instruction set's functions. The entry of every codec is set; an ISA that has nothing better
 * for one keeps the scalar's. `scratch` is codec_scratch_floats() floats at a multiple of 64 bytes,
 * private to the caller; nothing in it outlives a call.
 */
struct codec_kernels {
        const char *name;     /* "scalar", "avx512" ... */
        bool runs_linear_map; /* decode() does, of few inputs, if it is prepared: with no addends */
        /* The record of row `row` (< n_rows): inside the rows chunk whatever the tier map says. */
        struct codec_record (*find)(const struct codec_table *table, uint64_t row);
        /* n_dims floats of a row to `ret_values`, each written once. One per codec. `addends` are
         * the adaptor's outputs for the row, where it runs for a batch, else NULL. */
        void (*decode[TABLE_CODEC_CARVQ + 1])(const struct codec_table *table,
                                              const struct codec_record *record,
                                              const float *addends, float *ret_values);
        /* The adaptor of a table with latents: n_dims outputs for each of at most CODEC_BATCH_ROWS
         * records, each `stride` floats (a multiple of 16, all of which may be written) from the
         * one before. A row of integers has no latent, and no outputs. */
        void (*adaptor)(const struct codec_table *table, const struct codec_record *records,
                        size_t n_rows, float *scratch, size_t stride, float *ret_outputs);
        void (*f32_to_f16)(const float *values, size_t n, uint16_t *ret_values);
        void (*f32_to_bf16)(const float *values, size_t n, uint16_t *ret_values);
};

extern const struct codec_kernels codec_kernels_scalar;

/* What the adaptor's kernel needs. */
size_t codec_scratch_floats(const struct table_header *header);

/* The best set among `features` (see codec_cpu_features()). With AMX among them this asks the
 * system to let the process use it, and makes do without where it may not. */
const struct codec_kernels *codec_kernels_choose(uint32_t features);

/* ---- A table (table-file.c) ---- */

/* A checked table in memory, read-only. Whoever made it owns the memory behind it. */
struct codec_table {
        struct table_contents contents;
        const uint8_t *rows;
        const uint16_t *codebooks;            /* NULL where absent */
        const uint16_t *col_scales;           /* half[n_dims]; NULL where absent */
        const uint16_t *adaptor;              /* NULL where absent */
        const struct table_tier_block *tiers; /* NULL where absent */
        struct codec_prepared *prepared;      /* NULL: carvq is decoded as specified, slowly */
};

/* Slices a whole file in memory, at a multiple of 64 bytes, that has passed table_check(). */
void codec_table_init(struct codec_table *table, const struct table_contents *contents,
                      const void *file);

/*
 * What the kernels want of a table in another form: columns' scales and means as floats, and the
 * adaptor's weights packed. A copy, of at most 4 bytes a weight, that nobody changes. A table from
 * codec_table_init() has none until its owner sets it. `col_scales` and `adaptor`: the chunks, if
 * the header has them. Of other codecs than carvq NULL. -ENOMEM.
 */
int codec_prepare(const struct table_header *header, const uint16_t *col_scales,
                  const uint16_t *adaptor, struct codec_prepared **ret_prepared);
void codec_prepared_free(struct codec_prepared *prepared);

struct codec_file {
        struct codec_table table;
        const void *map;
        uint64_t map_bytes;
};

/*
 * Checks and maps a .carvq file, MAP_SHARED and read-only. `fd` is not kept. Reads the first page,
 * the tier map, and an adaptor, whose weights it packs: with one tier the cost does not grow with
 * the table, with more by a cache line for 448 rows. -ENOMEM, -EBADMSG, -EPROTONOSUPPORT (the fault
 * says why), or the negative errno of fstat, pread or mmap.
 */
int codec_file_map(int fd, struct codec_file *ret_file, struct fault *ret_fault);
/* The same by name, or the negative errno of open(); the fault begins with the path. */
int codec_file_open(const char *path, struct codec_file *ret_file, struct fault *ret_fault);
void codec_file_unmap(struct codec_file *file);

/*
 * Reads every byte, in bounded memory, and blocks on I/O: 0, or -EBADMSG with the first damaged
 * chunk's name; -ENOMEM. With a `report`, which is told of each chunk (r is 0 or its error), goes
 * on to the last; else stops at the first.
 */
typedef void (*codec_verify_report)(void *userdata, const char *chunk, int r,
                                    const struct fault *fault);
int codec_file_verify(const struct codec_file *file, codec_verify_report report, void *userdata,
                      struct fault *ret_fault);

/* ---- A request (decode.c) ---- */

enum codec_type {
        CODEC_TYPE_F32 = 0,
        CODEC_TYPE_F16 = 1,
        CODEC_TYPE_BF16 = 2,
};

enum codec_pooling {
        CODEC_POOLING_NONE = 0,
        CODEC_POOLING_SUM = 1,
        CODEC_POOLING_MEAN = 2,
};

enum codec_out_of_range {
        CODEC_OUT_OF_RANGE_ERROR = 0,
        CODEC_OUT_OF_RANGE_ZERO = 1,
};

/*
 * Output row i is, in f32: the row ids[i] (no pooling), or the sum or mean in id order of the rows
 * of bag i, ids[bag_offsets[i]] to ids[bag_offsets[i + 1]] (the last bag ends at n_ids; an empty
 * bag is a zero row; a mean divides by the bag's number of ids). Then columns [col_first, col_first
 * + n_cols), times `scale` (one multiplication, left out when it is 1), rounded to `type` (to
 * nearest even), and written to out + i * row_stride_bytes. With CODEC_OUT_OF_RANGE_ZERO an id >=
 * n_rows is a zero row; in a bag it adds nothing but counts. Any alignment of `out` and stride will
 * do; whole f32 rows at multiples of 4 bytes need no copy.
 */
struct codec_request {
        const uint64_t *ids;
        uint64_t n_ids;
        const uint64_t *bag_offsets; /* NULL unless pooling */
        uint64_t n_bags;             /* 0 unless pooling */
        uint32_t col_first;
        uint32_t n_cols;
        float scale;
        uint8_t type;
        uint8_t pooling;
        uint8_t out_of_range;
        bool streams; /* rows go around the caches, as another CPU reads them */
        uint64_t row_stride_bytes;
        void *out;
};

/* A row that needs no stop on the way: whole, f32, as the table has it. */
static inline bool codec_request_is_plain(const struct codec_request *request,
                                          const struct table_header *header) {
        return request->type == CODEC_TYPE_F32 && request->n_cols == header->n_dims &&
               request->scale == 1;
}

/* Bytes of one value of a codec_type; 0 for an unknown one. */
size_t codec_type_bytes(uint32_t type);

/* Rows of output: n_bags when pooling, else n_ids. */
uint64_t codec_request_rows(const struct codec_request *request);

/*
 * Pure. Everything about the request that does not depend on where the memory is: -EINVAL (types,
 * flags, pooling without bags, offsets not ascending from 0 or past n_ids, stride too small,
 * columns outside, scale not finite), -ERANGE (an id outside the table under
 * CODEC_OUT_OF_RANGE_ERROR; *ret_bad_index is its index).
 */
int codec_request_check(const struct codec_request *request, const struct table_header *header,
                        uint64_t *ret_bad_index, struct fault *ret_fault);

/* Scratch for one thread. Grows to the widest table. */
struct codec_context {
        const struct codec_kernels *kernels;
        float *scratch;
        size_t scratch_floats;
};

void codec_context_init(struct codec_context *context, const struct codec_kernels *kernels);
void codec_context_deinit(struct codec_context *context);

/* -ENOMEM. Call once for each table before decoding from it. */
int codec_context_reserve(struct codec_context *context, const struct codec_table *table);

/* What a piece of work cost, counted: added to, never reset. */
struct codec_cost {
        uint64_t n_rows_read; /* records decoded */
        uint64_t bytes_read;  /* of the compressed records */
        uint64_t lines_read;  /* of 64 bytes, in which they lie: each record's for itself */
        uint64_t bytes_written;
};

/* A bag under way. */
struct codec_bag {
        float *values;    /* n_cols; the caller's, who leaves them alone until the bag has ended */
        uint64_t n_ids;   /* looked at so far */
        uint64_t n_added; /* of them, inside the table */
};

/*
 * A request that has passed codec_request_check(), and how far it has come: begin with 0 rows and 0
 * in the bag. `bag.values` may be NULL where no bag is cut by `n_ids_max`.
 */
struct codec_piece {
        const struct codec_request *request;
        uint64_t n_ids_max; /* to look at in one call, an empty bag counting as one */
        uint64_t n_rows;    /* of output that have been written */
        struct codec_bag bag;
        struct codec_cost cost;
};

/*
 * Takes each piece further, until it has looked at `n_ids_max` ids or is done; all are of the same
 * table. Together they cost less than one after another: their records are prefetched as one
 * stream, and the adaptor's batches are filled across them. Cannot fail. The output is written
 * once and never read. However a request is cut, its rows are the same to the bit.
 */
void codec_decode(struct codec_context *context, const struct codec_table *table,
                  struct codec_piece *pieces, size_t n_pieces);

/* All of one request. */
static inline void codec_decode_all(struct codec_context *context, const struct codec_table *table,
                                    const struct codec_request *request, struct codec_cost *cost) {
        struct codec_piece piece = {
                .request = request,
                .n_ids_max = UINT64_MAX,
                .cost = *cost,
        };

        codec_decode(context, table, &piece, 1);
        *cost = piece.cost;
}

/* The last steps of a row: its n_cols values times the request's scale, in place, and rounded to
 * its type, to `ret_row` at a multiple of a value's size. */
void codec_finish_row(const struct codec_kernels *kernels, const struct codec_request *request,
                      float *values, void *ret_row);

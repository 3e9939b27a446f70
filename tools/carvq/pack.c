/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two passes over the source: a sample to learn from, then all rows in order. Rows are encoded in
 * fixed blocks by several threads and appended by this one; memory is the sample, the codebooks of
 * one row group, and a few blocks for each thread.
 */
#include "pack.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "lib/codec/half.h"
#include "parallel.h"
#include "rng.h"
#include "writer.h"

#define HALF_SAFE_MAX      8192.0f /* an eighth of half's range */
#define SAMPLE_BYTES       (128u << 20)
#define GROUP_SAMPLE_BYTES (32u << 20)
/* RVQ: a quarter of the table's sub-vectors, within these. */
#define TRAIN_MIN         (96u << 10)
#define TRAIN_MAX         (384u << 10)
#define TRAIN_SHARE       300u /* trellis: sub-vectors for each centroid */
#define BLOCK_BYTES       (512u << 10)
#define BLOCKS_PER_THREAD 4u

struct block {
        float *rows;
        uint8_t *records;
        size_t n_bytes; /* of them */
        struct closeness closeness;
};

struct packing {
        struct source *source;
        const struct plan_request *request;
        struct progress *progress;
        struct plan plan;
        struct quantizer quantizer; /* of the carvq codec */
        struct table_writer writer;
        struct table_layout layout;
        uint8_t *tiers; /* of all rows; NULL: there is one */
        struct block *blocks;
        size_t n_blocks, n_block_rows;
        uint64_t wave_first, wave_end; /* rows being encoded */
        struct closeness closeness;
        uint64_t n_passes; /* of training */
};

static void packing_deinit(struct packing *p) {
        for (size_t i = 0; p->blocks && i < p->n_blocks; i++) {
                free(p->blocks[i].rows);
                free(p->blocks[i].records);
        }
        free(p->blocks);
        free(p->tiers);
        quantizer_deinit(&p->quantizer);
        plan_deinit(&p->plan);
        table_writer_deinit(&p->writer);
}

static int init_blocks(struct packing *p) {
        size_t row_bytes = p->request->header.n_dims * sizeof(float);

        p->n_block_rows = MAX(BLOCK_BYTES / row_bytes, 1u);
        p->n_blocks = (size_t)p->request->n_threads * BLOCKS_PER_THREAD;
        p->blocks = calloc(p->n_blocks, sizeof(*p->blocks));
        if (!p->blocks)
                return -ENOMEM;
        for (size_t i = 0; i < p->n_blocks; i++) {
                p->blocks[i].rows = malloc(p->n_block_rows * row_bytes);
                p->blocks[i].records = malloc(p->n_block_rows * p->layout.record_bytes);
                if (!p->blocks[i].rows || !p->blocks[i].records)
                        return -ENOMEM;
        }
        return 0;
}

/* ---- Encoding ---- */

static int encode_scalar_rows(const struct packing *p, struct block *block, uint64_t row_first,
                              size_t n_rows, struct fault *ret_fault) {
        const struct table_header *h = &p->plan.header;
        _cleanup_(freep) float *decoded = malloc(h->n_dims * sizeof(float));
        uint32_t column = 0;

        if (!decoded)
                return -ENOMEM;
        for (size_t i = 0; i < n_rows; i++) {
                const float *row = block->rows + i * h->n_dims;
                int r = scalar_encode(h->codec, row, h->n_dims,
                                      block->records + i * p->layout.record_bytes, decoded,
                                      &column);
                if (r < 0)
                        return fault_set(ret_fault, r,
                                         "row %" PRIu64 ", column %" PRIu32
                                         ": %g is outside the range of %s; use --codec %s",
                                         row_first + i, column, (double)row[column],
                                         table_codec_name(h->codec),
                                         h->codec == TABLE_CODEC_F16 ? "bf16" : "f32");
                closeness_add_row(&block->closeness, row, decoded, h->n_dims);
        }
        block->n_bytes = n_rows * p->layout.record_bytes;
        return 0;
}

static int encode_block(void *userdata, size_t item, unsigned thread, struct fault *ret_fault) {
        struct packing *p = userdata;
        struct block *block = &p->blocks[item];
        uint64_t first = p->wave_first + item * p->n_block_rows;
        size_t n = (size_t)MIN(p->n_block_rows, p->wave_end - first);
        int r;

        (void)thread;
        closeness_init(&block->closeness);
        r = source_read(p->source, first, n, block->rows, ret_fault);
        if (r < 0)
                return r;
        if (p->plan.header.codec == TABLE_CODEC_CARVQ) {
                struct quantizer_rows rows = { block->rows, n, first,
                                               p->tiers ? p->tiers + first : NULL };

                return quantizer_encode(&p->quantizer, &rows, block->records, &block->n_bytes,
                                        &block->closeness, ret_fault);
        }
        return encode_scalar_rows(p, block, first, n, ret_fault);
}

/* Rows [row_first, row_end): as many blocks at a time as there are, appended in order. */
static int encode_rows(struct packing *p, uint64_t row_first, uint64_t row_end,
                       struct fault *ret_fault) {
        for (p->wave_first = row_first; p->wave_first < row_end; p->wave_first = p->wave_end) {
                size_t n;
                int r;

                p->wave_end = MIN(row_end, p->wave_first + p->n_blocks * p->n_block_rows);
                n = div_round_up(p->wave_end - p->wave_first, p->n_block_rows);
                r = parallel_for(p->request->n_threads, n, encode_block, p, ret_fault);
                for (size_t i = 0; r >= 0 && i < n; i++) {
                        closeness_add(&p->closeness, &p->blocks[i].closeness);
                        r = table_writer_append(&p->writer, TABLE_CHUNK_ROWS, p->blocks[i].records,
                                                p->blocks[i].n_bytes, ret_fault);
                }
                if (r < 0)
                        return r;
                progress_update(p->progress, p->wave_end);
        }
        return 0;
}

/* ---- The carvq codec ---- */

static int append_adaptor(struct packing *p, struct fault *ret_fault) {
        size_t n = adaptor_stored_bytes(&p->plan.adaptor.adaptor);
        _cleanup_(freep) uint8_t *bytes = malloc(n);

        if (!bytes)
                return -ENOMEM;
        adaptor_store(&p->plan.adaptor.adaptor, bytes);
        return table_writer_append(&p->writer, TABLE_CHUNK_ADAPTOR, bytes, n, ret_fault);
}

/* Deals all rows to the tiers, by their counts, and writes down who got where. */
static int append_tiers(struct packing *p, struct fault *ret_fault) {
        _cleanup_(freep) struct table_tier_block *blocks = NULL;
        int r;

        if (p->plan.header.n_tiers == 1)
                return 0;
        p->tiers = malloc(p->plan.header.n_rows);
        blocks = malloc(p->layout.tiers_bytes);
        if (!p->tiers || !blocks)
                return -ENOMEM;
        r = plan_deal(p->request, &p->plan, p->tiers, ret_fault);
        if (r < 0)
                return r;
        table_tiers_fill(&p->plan.header, p->tiers, blocks);
        return table_writer_append(&p->writer, TABLE_CHUNK_TIERS, blocks, p->layout.tiers_bytes,
                                   ret_fault);
}

/* Column scales stand before all codebooks, padded with zeros. */
static int append_columns(struct packing *p, struct fault *ret_fault) {
        size_t n = p->layout.col_scale_bytes;
        _cleanup_(freep) uint8_t *bytes = calloc(1, MAX(n, 1u));

        if (!bytes)
                return -ENOMEM;
        memcpy(bytes, p->quantizer.coder.col_scales,
               MIN(n, p->plan.header.n_dims * sizeof(uint16_t)));
        return table_writer_append(&p->writer, TABLE_CHUNK_CODEBOOKS, bytes, n, ret_fault);
}

/* Where there is a training phase of its own: its share of passes, told in rows like everything
 * else. */
static void passed(void *userdata, uint32_t n_passes) {
        struct packing *p = userdata;

        p->n_passes += n_passes;
        if (p->layout.n_row_groups == 1)
                progress_update(p->progress,
                                p->progress->n_total * p->n_passes /
                                        coder_n_passes(&p->quantizer.coder, &p->plan.effort));
}

/* Rows to train on, spread evenly over the sample: as many as the codebooks need. */
static int choose_rows(const struct packing *p, const struct sample *sample,
                       struct sample *ret_chosen) {
        uint64_t n_centroids = (uint64_t)p->layout.n_col_groups << p->plan.header.window_bits;
        size_t n_dims = p->plan.header.n_dims, n = sample->n_rows;
        struct sample chosen;

        if (p->quantizer.coder.trellis)
                n = (size_t)MIN(n, MAX(n_centroids * TRAIN_SHARE / p->layout.n_subvectors, 64u));
        chosen = (struct sample){
                .rows = malloc(n * n_dims * sizeof(float)),
                .indices = malloc(n * sizeof(uint64_t)),
                .n_rows = n,
        };
        if (!chosen.rows || !chosen.indices) {
                sample_deinit(&chosen);
                return -ENOMEM;
        }
        for (size_t i = 0; i < n; i++) {
                size_t from = (size_t)((double)i * ((double)sample->n_rows / (double)n));

                memcpy(chosen.rows + i * n_dims, sample->rows + from * n_dims,
                       n_dims * sizeof(float));
                chosen.indices[i] = sample->indices[from];
        }
        *ret_chosen = chosen;
        return 0;
}

static int train_row_group(struct packing *p, const struct sample *sample, uint64_t group,
                           struct fault *ret_fault) {
        _cleanup_(sample_deinit) struct sample chosen = { 0 };
        uint64_t seed = rng_mix(p->request->seed + PLAN_STREAM_CODEBOOKS) + (group << 32);
        uint64_t n_all = p->plan.header.group_rows * p->layout.n_subvectors;
        _cleanup_(freep) uint8_t *tiers = NULL;
        /* Row groups share the adaptor that they find. */
        bool refits = p->plan.header.adaptor_type && p->layout.n_row_groups == 1;
        struct quantizer_rows rows;
        int r;

        r = choose_rows(p, sample, &chosen);
        if (r < 0)
                return r;
        if (p->tiers)
                tiers = malloc(chosen.n_rows);
        if (p->tiers && !tiers)
                return -ENOMEM;
        for (size_t i = 0; tiers && i < chosen.n_rows; i++)
                tiers[i] = p->tiers[chosen.indices[i]];
        p->plan.effort.n_subvectors = (size_t)MIN(MAX(n_all / 4, TRAIN_MIN), TRAIN_MAX);
        p->plan.effort.rvq.passed = p->plan.effort.trellis.passed = passed;
        p->plan.effort.rvq.userdata = p->plan.effort.trellis.userdata = p;
        rows = (struct quantizer_rows){ chosen.rows, chosen.n_rows, 0, tiers };
        r = quantizer_train(&p->quantizer, &rows, refits ? &p->plan.adaptor : NULL, &p->plan.effort,
                            seed, p->request->n_threads, ret_fault);
        if (r >= 0 && group == 0 && p->plan.header.adaptor_type)
                r = append_adaptor(p, ret_fault);
        if (r >= 0 && group == 0 && p->plan.header.col_scale)
                r = append_columns(p, ret_fault);
        if (r < 0)
                return r;
        return table_writer_append(&p->writer, TABLE_CHUNK_CODEBOOKS, p->quantizer.coder.codebooks,
                                   p->layout.n_col_groups * p->layout.group_bytes, ret_fault);
}

/* Row groups are sampled, trained, written and encoded one by one: memory does not see their
 * number. */
static int encode_row_groups(struct packing *p, struct fault *ret_fault) {
        const struct table_header *h = &p->plan.header;
        int r = 0;

        progress_begin(p->progress, "encode", "rows", h->n_rows);
        for (uint64_t group = 0; r >= 0 && group < p->layout.n_row_groups; group++) {
                _cleanup_(sample_deinit) struct sample sample = { 0 };
                uint64_t first = group * h->group_rows, n = MIN(h->group_rows, h->n_rows - first);

                r = sample_read(p->source, first, n, GROUP_SAMPLE_BYTES, p->request->seed,
                                p->request->n_threads, &sample, ret_fault);
                if (r >= 0)
                        r = train_row_group(p, &sample, group, ret_fault);
                if (r >= 0)
                        r = encode_rows(p, first, first + n, ret_fault);
        }
        return r;
}

/* Without a row scale centroids are as large as the values, and the sum of a few may be larger. */
static bool fits_half(const struct sample *sample, uint32_t n_dims) {
        for (size_t i = 0; i < sample->n_rows * n_dims; i++)
                if (fabsf(sample->rows[i]) > HALF_SAFE_MAX)
                        return false;
        return true;
}

static int pack_carvq(struct packing *p, struct fault *ret_fault) {
        _cleanup_(sample_deinit) struct sample sample = { 0 };
        struct plan_request request = *p->request;
        const struct table_header *h = &p->plan.header;
        int r;

        request.source = p->source;
        progress_begin(p->progress, "sample", "rows", p->request->header.n_rows);
        r = sample_read(p->source, 0, p->request->header.n_rows, SAMPLE_BYTES,
                        rng_mix(p->request->seed + PLAN_STREAM_SAMPLE), p->request->n_threads,
                        &sample, ret_fault);
        if (r < 0)
                return r;
        p->progress->n_total = sample.n_rows;
        progress_end(p->progress);
        if (request.row_scale == PLAN_AUTO && !fits_half(&sample, request.header.n_dims))
                request.row_scale = PLAN_ON;
        r = plan_make(&request, &sample, p->progress, &p->plan, ret_fault);
        if (r >= 0)
                r = quantizer_init(&p->quantizer, h, plan_solver(&p->plan), p->plan.order,
                                   request.width, ret_fault);
        if (r < 0)
                return r;
        p->quantizer.row_rounds = p->plan.row_rounds;
        p->layout = p->quantizer.coder.layout;
        r = init_blocks(p);
        if (r >= 0)
                r = table_writer_begin(&p->writer, h, ret_fault);
        if (r >= 0)
                r = append_tiers(p, ret_fault);
        if (r < 0)
                return r;
        if (p->layout.n_row_groups > 1)
                return encode_row_groups(p, ret_fault);

        progress_begin(p->progress, "train", "rows", sample.n_rows);
        r = train_row_group(p, &sample, 0, ret_fault);
        if (r < 0)
                return r;
        progress_end(p->progress);
        sample_deinit(&sample);
        progress_begin(p->progress, "encode", "rows", h->n_rows);
        return encode_rows(p, 0, h->n_rows, ret_fault);
}

static int pack_scalar(struct packing *p, struct fault *ret_fault) {
        int r;

        p->plan.header = p->request->header;
        r = table_layout_compute(&p->plan.header, &p->layout, ret_fault);
        if (r >= 0)
                r = init_blocks(p);
        if (r >= 0)
                r = table_writer_begin(&p->writer, &p->plan.header, ret_fault);
        if (r < 0)
                return r;
        progress_begin(p->progress, "encode", "rows", p->plan.header.n_rows);
        return encode_rows(p, 0, p->plan.header.n_rows, ret_fault);
}

/* Not json_dumps(), which (2.14) leaves keys out when it has no memory for them and says nothing.
 */
static char *dump(const json_t *value, size_t flags) {
        size_t n = json_dumpb(value, NULL, 0, flags);
        char *text = n ? calloc(1, n + 1) : NULL;

        if (text && json_dumpb(value, text, n, flags) != n)
                free(steal_pointer(&text));
        return text;
}

/* Neither times nor paths: the same input, options and seed give the same bytes. NULL: no memory,
 * and then it must not be a little less. */
static char *make_meta(const struct packing *p) {
        const struct source_tensor *tensor = source_selected(p->source);
        char *text = NULL;
        json_error_t error;
        json_t *meta;
        int r = 0;

        meta = json_pack_ex(&error, 0, "{s:s, s:s, s:s, s:s}", "source_format",
                            source_format(p->source), "source_tensor", tensor->name, "source_dtype",
                            tensor->dtype, "packer", "carvq " CARVQ_VERSION);
        if (!meta && json_error_code(&error) == json_error_invalid_utf8) /* the name */
                meta = json_pack("{s:s}", "packer", "carvq " CARVQ_VERSION);
        if (p->plan.header.codec == TABLE_CODEC_CARVQ)
                r |= json_object_set_new(meta, "seed", json_integer((json_int_t)p->request->seed));
        r |= json_object_set_new(meta, "rel_mse", json_real(closeness_rel_mse(&p->closeness)));
        r |= json_object_set_new(meta, "cosine_mean",
                                 json_real(closeness_cosine_mean(&p->closeness)));
        if (r == 0)
                text = dump(meta, JSON_COMPACT | JSON_REAL_PRECISION(9));
        json_decref(meta);
        return text;
}

/* OUT replaces a file of its name, which must not be one that is being read. */
static int check_sources(const struct packing *p, struct fault *ret_fault) {
        struct stat st;
        int r = 0;

        for (size_t i = 0; r >= 0 && source_stat(p->source, i, &st) >= 0; i++)
                r = writer_check_source(&p->writer.file, &st, ret_fault);
        return r;
}

int pack_table(struct source *source, const char *out_path, const struct plan_request *request,
               struct progress *progress, struct pack_result *ret_result, struct fault *ret_fault) {
        _cleanup_(packing_deinit) struct packing p = {
                .source = source,
                .request = request,
                .progress = progress,
                .writer = { .file = WRITER_INIT },
        };
        _cleanup_(freep) char *meta = NULL;
        int r;

        closeness_init(&p.closeness);
        r = writer_open(&p.writer.file, out_path, ret_fault);
        if (r >= 0)
                r = check_sources(&p, ret_fault);
        if (r < 0)
                return r;
        r = request->header.codec == TABLE_CODEC_CARVQ ? pack_carvq(&p, ret_fault)
                                                       : pack_scalar(&p, ret_fault);
        if (r < 0)
                return r;
        progress_end(progress);
        meta = make_meta(&p);
        if (!meta)
                return -ENOMEM;
        r = table_writer_commit(&p.writer, meta, ret_fault);
        if (r < 0)
                return r;
        ret_result->header = p.writer.header;
        ret_result->closeness = p.closeness;
        memcpy(ret_result->note, p.plan.note, sizeof(ret_result->note));
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "check-adaptor.h"

#include <math.h>
#include <stdio.h>
#include <sys/mman.h>

#include "lib/codec/adaptor.h"

size_t check_adaptor_sets(struct check_adaptor_set ret_sets[CHECK_ADAPTOR_SETS_MAX]) {
        uint32_t features = codec_cpu_features();
        size_t n = 0;

#if defined(__x86_64__)
        if (features & CODEC_CPU_AVX2)
                ret_sets[n++] = (struct check_adaptor_set){ "avx2", codec_avx2_adaptor };
        if (features & CODEC_CPU_VNNI)
                ret_sets[n++] = (struct check_adaptor_set){ "vnni", codec_vnni_adaptor };
        if (codec_kernels_choose(features)->adaptor == codec_amx_adaptor)
                ret_sets[n++] = (struct check_adaptor_set){ "amx", codec_amx_adaptor };
#elif defined(__aarch64__)
        if (features & CODEC_CPU_NEON)
                ret_sets[n++] = (struct check_adaptor_set){ "neon", codec_neon_adaptor };
        if (features & CODEC_CPU_DOTPROD)
                ret_sets[n++] = (struct check_adaptor_set){ "neon+dotprod", codec_dotprod_adaptor };
#endif
        (void)features;
        (void)ret_sets;
        return n;
}

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state >> 16;
}

/* ---- Memory with nothing behind it, or before it ---- */

#define PAGE_BYTES UINT64_C(65536) /* of any machine */

struct memory {
        void *bytes;
        uint8_t *map;
        size_t map_bytes;
};

/* At a multiple of 64 bytes: where `n_bytes` is none, what follows it can be written. */
static struct memory memory_new(size_t n_bytes, bool behind) {
        size_t used = align_up(n_bytes, 64), room = align_up(used, PAGE_BYTES);
        struct memory m = { .map_bytes = room + 2 * PAGE_BYTES };

        m.map = mmap(NULL, m.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m.map == MAP_FAILED || mprotect(m.map + PAGE_BYTES, room, PROT_READ | PROT_WRITE) < 0)
                abort();
        m.bytes = m.map + PAGE_BYTES + (behind ? room - used : 0);
        return m;
}

static void memory_free(struct memory *m) {
        munmap(m->map, m->map_bytes);
}

/* ---- A table ---- */

struct subject {
        struct codec_table table;
        struct codec_record records[CODEC_BATCH_ROWS];
        struct memory adaptor, rows, arrays[CODEC_LAYERS_MAX * 3];
        struct codec_prepared *packed, guarded; /* the same in guarded memory */
        size_t n_arrays;
};

static uint16_t random_half(bool wide, uint64_t *random) {
        uint64_t r = next_random(random);
        uint32_t exponent = wide ? (uint32_t)(r >> 20 & 7) + 9 : 11;

        return (uint16_t)((r & 0x83ff) | exponent << 10);
}

static void fill_layers(const struct table_header *h, bool wide, uint64_t *random,
                        uint16_t *adaptor) {
        struct codec_layer layers[CODEC_LAYERS_MAX];
        size_t n = codec_layers(h, adaptor, layers);

        for (size_t i = 0; i < n; i++) {
                struct codec_layer *l = &layers[i];
                size_t n_weights = l->n_in * l->n_out;

                for (size_t o = 0; o < l->n_out; o++)
                        ((uint16_t *)l->biases)[o] = random_half(wide, random);
                for (size_t o = 0; l->scales && o < l->n_out; o++)
                        ((uint16_t *)l->scales)[o] = random_half(wide, random);
                for (size_t w = 0; l->halves && w < n_weights; w++)
                        ((uint16_t *)l->halves)[w] = random_half(wide, random);
                for (size_t w = 0; l->integers && w < n_weights; w++)
                        ((int8_t *)l->integers)[w] = (int8_t)next_random(random);
        }
}

static void fill_latent(const struct table_header *h, const struct check_adaptor_shape *shape,
                        uint64_t *random, uint8_t *bytes) {
        for (size_t i = 0; i < h->latent_dims; i++) {
                uint16_t any = (uint16_t)next_random(random), half = random_half(false, random);

                if (shape->wide && any % 16 == 0)
                        half = (uint16_t)(any >> 4 | any << 12);
                if (shape->int8_latents)
                        bytes[i] = (uint8_t)any;
                else
                        memcpy(bytes + 2 * i, &half, sizeof(half));
        }
}

static void *guard_array(struct subject *s, const void *bytes, size_t n_bytes, bool behind) {
        struct memory *m = &s->arrays[s->n_arrays++];

        *m = memory_new(n_bytes, behind);
        return memcpy(m->bytes, bytes, n_bytes);
}

static void guard_weights(struct subject *s, bool behind) {
        s->guarded = *s->packed;
        for (size_t i = 0; i < s->guarded.n_layers; i++) {
                struct codec_packed *p = &s->guarded.layers[i];
                size_t n = p->n_panels * CODEC_PANEL_OUTPUTS * sizeof(float);

                p->biases = guard_array(s, p->biases, n, behind);
                if (p->n_digits)
                        p->scales = guard_array(s, p->scales, n, behind);
                if (p->n_digits)
                        p->digits = guard_array(
                                s, p->digits,
                                p->n_panels * p->n_tiles * p->n_digits * CODEC_TILE_BYTES, behind);
                else
                        p->floats = guard_array(s, p->floats, n * p->n_in, behind);
        }
        s->table.prepared = &s->guarded;
}

static struct table_header header_of(const struct check_adaptor_shape *shape) {
        return (struct table_header){
                .codec = TABLE_CODEC_CARVQ,
                .n_rows = CODEC_BATCH_ROWS,
                .n_dims = shape->n_dims,
                .row_scale = shape->row_scale,
                .latent_dims = shape->n_latent,
                .latent_bits = shape->int8_latents ? 8 : 16,
                .hidden_dims = { shape->n_hidden[0], shape->n_hidden[1] },
                .adaptor_type = shape->int8_weights ? TABLE_ADAPTOR_INT8 : TABLE_ADAPTOR_HALF,
                .n_tiers = shape->some_integers ? 2 : 1,
                .int8_tier = shape->some_integers,
        };
}

static void subject_init(struct subject *s, const struct check_adaptor_shape *shape,
                         uint64_t *random) {
        struct table_header h = header_of(shape);
        size_t n_ins[] = { h.latent_dims, h.hidden_dims[0], h.hidden_dims[1] };
        size_t adaptor_bytes = 0, n_in = h.latent_dims;
        size_t row_bytes = 2 * h.row_scale + h.latent_dims * h.latent_bits / 8;
        bool behind = next_random(random) % 2;

        *s = (struct subject){ .table.contents.header = h };
        for (size_t i = 1; i <= ARRAY_SIZE(n_ins); i++) {
                size_t n_out = i < ARRAY_SIZE(n_ins) ? n_ins[i] : h.n_dims;

                if (!n_out)
                        continue;
                adaptor_bytes += table_layer_bytes(h.adaptor_type, n_in, n_out);
                n_in = n_out;
        }
        s->adaptor = memory_new(adaptor_bytes, behind);
        s->table.adaptor = s->adaptor.bytes;
        fill_layers(&h, shape->wide, random, s->adaptor.bytes);

        s->rows = memory_new(row_bytes * shape->n_rows, behind);
        for (size_t i = 0; i < shape->n_rows; i++) {
                uint8_t *bytes = (uint8_t *)s->rows.bytes + i * row_bytes;

                fill_latent(&h, shape, random, bytes + 2 * h.row_scale);
                s->records[i] = (struct codec_record){
                        .bytes = bytes,
                        .n_bytes = row_bytes,
                        .row = i,
                        .tier = shape->some_integers && next_random(random) % 3 == 0,
                };
        }
        if (codec_prepare(&h, s->table.col_scales, s->table.adaptor, &s->packed) < 0 || !s->packed)
                abort();
        guard_weights(s, behind);
}

static void subject_deinit(struct subject *s) {
        memory_free(&s->adaptor);
        memory_free(&s->rows);
        for (size_t i = 0; i < s->n_arrays; i++)
                memory_free(&s->arrays[i]);
        codec_prepared_free(s->packed);
}

/* ---- The reference: adaptor.h, one output at a time, from the file's weights ---- */

static float relu(float v) {
        return v > 0 ? fminf(v, CODEC_HUGE) : 0;
}

static float weight(const struct codec_layer *l, size_t i, size_t o) {
        size_t at = i * l->n_out + o;

        return l->halves ? half_to_float(l->halves[at])
                         : half_to_float(l->scales[o]) * (float)l->integers[at];
}

static void reference_floats(const struct codec_layer *l, const float *inputs, float *ret_outputs) {
        for (size_t o = 0; o < l->n_out; o++) {
                float sum = half_to_float(l->biases[o]);

                for (size_t i = 0; i < l->n_in; i++)
                        sum = fmaf(weight(l, i, o), inputs[i], sum);
                ret_outputs[o] = l->relu ? relu(sum) : sum;
        }
}

/* Sum of products of integers, of inputs [first, end). */
static int64_t reference_sum(const struct codec_layer *l, const int32_t *inputs, size_t first,
                             size_t end, size_t o, float max) {
        int64_t sum = 0;

        for (size_t i = first; i < end; i++)
                if (l->integers) {
                        sum += (int64_t)l->integers[i * l->n_out + o] * inputs[i];
                } else {
                        int q = max > 0 ? (int)lrintf(weight(l, i, o) * (CODEC_WEIGHT_MAX / max))
                                        : 0;
                        int w1 = (int)floor((q + 64) / 128.0), w0 = q - 128 * w1;

                        sum += w1 * inputs[i] + w0 * (inputs[i] / 128);
                }
        if (sum > INT32_MAX || sum < INT32_MIN)
                abort();
        return sum;
}

static void reference_digits(const struct codec_layer *l, const float *inputs, float *ret_outputs) {
        int32_t *integers = calloc(l->n_in, sizeof(*integers));
        float largest = 0, factor, scale;

        for (size_t i = 0; i < l->n_in; i++)
                largest = fmaxf(largest, inputs[i]);
        factor = largest < CODEC_TINY ? 0 : CODEC_INPUT_MAX / largest;
        scale = largest < CODEC_TINY ? 0 : largest / CODEC_INPUT_MAX;
        for (size_t i = 0; i < l->n_in; i++)
                integers[i] = (int32_t)MIN(lrintf(inputs[i] * factor), CODEC_INPUT_MAX);

        for (size_t o = 0; o < l->n_out; o++) {
                float max = 0, sum = 0, output_scale;

                for (size_t i = 0; l->halves && i < l->n_in; i++)
                        max = fmaxf(max, fabsf(weight(l, i, o)));
                output_scale =
                        l->halves ? max * (128.0f / CODEC_WEIGHT_MAX) : half_to_float(l->scales[o]);
                for (size_t i = 0; i < l->n_in; i += CODEC_BLOCK_INPUTS) {
                        size_t end = MIN(i + CODEC_BLOCK_INPUTS, l->n_in);
                        float block = (float)reference_sum(l, integers, i, end, o, max);

                        sum = i ? sum + block : block;
                }
                sum = fmaf(sum, scale * output_scale, half_to_float(l->biases[o]));
                ret_outputs[o] = l->relu ? relu(sum) : sum;
        }
        free(integers);
}

static void reference_row(const struct codec_table *table, const struct codec_record *record,
                          float *ret_outputs) {
        const struct table_header *h = &table->contents.header;
        size_t n_max = MAX(MAX(h->hidden_dims[0], h->hidden_dims[1]), h->latent_dims);
        float *inputs = calloc(n_max, sizeof(float)), *hidden = calloc(n_max, sizeof(float));
        struct codec_layer layers[CODEC_LAYERS_MAX];
        size_t n_layers = codec_layers(h, table->adaptor, layers);

        codec_load_latent(h, record, inputs);
        for (size_t i = 0; i < n_layers; i++) {
                float *outputs = i + 1 < n_layers ? hidden : ret_outputs, *swap = inputs;

                if (i)
                        reference_digits(&layers[i], inputs, outputs);
                else
                        reference_floats(&layers[i], inputs, outputs);
                inputs = hidden;
                hidden = swap;
        }
        free(inputs);
        free(hidden);
}

/* ---- Checking ---- */

static bool differ(const char *name, const struct check_adaptor_shape *s, size_t row, size_t i,
                   float found, float expected) {
        printf("# adaptor %s, %s: %ux%ux%ux%u, %u rows, int8 latents %d, integers %d, wide %d: row"
               " %zu, output %zu: %a, expected %a\n",
               name, s->int8_weights ? "int8" : "half", s->n_latent, s->n_hidden[0], s->n_hidden[1],
               s->n_dims, s->n_rows, s->int8_latents, s->some_integers, s->wide, row, i,
               (double)found, (double)expected);
        return false;
}

/* Fewer sums may all have cancelled, which FORMAT.md excepts. */
#define BOUND_SUMS_MIN 15u

static bool is_bounded(const struct check_adaptor_shape *shape) {
        return !shape->wide && shape->n_dims >= BOUND_SUMS_MIN &&
               (!shape->n_hidden[1] || shape->n_hidden[1] >= BOUND_SUMS_MIN);
}

/* FORMAT.md bounds rows, of which outputs are a part: here they are the whole. */
static bool check_reference(const struct subject *s, const struct check_adaptor_shape *shape,
                            size_t row, const float *found, float *scratch, float *exact) {
        size_t n = shape->n_dims;
        float max = 0;

        codec_scalar_adaptor(&s->table, &s->records[row], 1, scratch, codec_scratch_round(n),
                             exact);
        for (size_t i = 0; i < n; i++)
                max = fmaxf(max, fabsf(exact[i]));
        for (size_t i = 0; i < n; i++)
                if (!(fabsf(found[i] - exact[i]) <= 0x1p-10f * max))
                        return differ("reference", shape, row, i, found[i], exact[i]);
        return true;
}

static bool check_row(const char *name, const struct check_adaptor_shape *shape, size_t row,
                      const float *found, const float *expected) {
        for (size_t i = 0; i < shape->n_dims; i++)
                if (memcmp(&found[i], &expected[i], sizeof(float)) != 0 &&
                    !(isnan(found[i]) && isnan(expected[i])))
                        return differ(name, shape, row, i, found[i], expected[i]);
        return true;
}

/* Rows of integers keep what was there. */
static bool check_set(const struct check_adaptor_set *set, const struct subject *s,
                      const struct check_adaptor_shape *shape, const float *expected, bool behind) {
        size_t stride = codec_scratch_round(shape->n_dims);
        struct memory scratch =
                memory_new(codec_scratch_floats(&s->table.contents.header) * sizeof(float), behind);
        struct memory outputs = memory_new(shape->n_rows * stride * sizeof(float), behind);
        bool same = true;

        memset(scratch.bytes, 0xff, codec_scratch_floats(&s->table.contents.header) * 4);
        for (size_t i = 0; i < shape->n_rows * stride; i++)
                ((float *)outputs.bytes)[i] = 12345;
        set->adaptor(&s->table, s->records, shape->n_rows, scratch.bytes, stride, outputs.bytes);
        for (size_t row = 0; same && row < shape->n_rows; row++)
                same = check_row(set->name, shape, row, (float *)outputs.bytes + row * stride,
                                 expected + row * stride);
        memory_free(&scratch);
        memory_free(&outputs);
        return same;
}

bool check_adaptor(const struct check_adaptor_set *sets, size_t n_sets,
                   const struct check_adaptor_shape *shape, uint64_t *random) {
        size_t stride = codec_scratch_round(shape->n_dims), n_scratch;
        float *expected, *exact, *scratch;
        bool same = true;
        struct subject s;

        subject_init(&s, shape, random);
        n_scratch = codec_scratch_floats(&s.table.contents.header);
        expected = calloc(shape->n_rows * stride, sizeof(float));
        exact = calloc(stride, sizeof(float));
        scratch = calloc(n_scratch, sizeof(float));
        for (size_t row = 0; row < shape->n_rows; row++) {
                float *outputs = expected + row * stride;

                for (size_t i = 0; i < stride; i++)
                        outputs[i] = 12345;
                if (codec_is_int8(&s.table, &s.records[row]))
                        continue;
                reference_row(&s.table, &s.records[row], outputs);
                if (is_bounded(shape))
                        same = same && check_reference(&s, shape, row, outputs, scratch, exact);
        }
        for (size_t i = 0; same && i < n_sets; i++)
                same = check_set(&sets[i], &s, shape, expected, next_random(random) % 2);
        free(expected);
        free(exact);
        free(scratch);
        subject_deinit(&s);
        return same;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct mode: the calling thread decodes from a file that it has mapped itself, with the daemon's
 * kernels. Bytes of the file are hostile until codec_file_map() has passed them, wherever its
 * descriptor came from; that it is not cut while it is mapped, its owner is trusted with.
 */
#include "client.h"

#include <string.h>

#include "options.h"

/* Matrix units, which the caller's whole process pays for (kernels.c), only where there is
 * something for them to do. */
static int choose_kernels(const char *cpu_mask, const struct table_header *shape,
                          const struct codec_kernels **ret_kernels, struct fault *ret_fault) {
        uint32_t features = codec_cpu_features(), mask = UINT32_MAX;

        if (cpu_mask && codec_cpu_mask_parse(cpu_mask, &mask) < 0)
                return fault_set(ret_fault, -EINVAL, "cpu_mask \"%.32s\" names no kernels",
                                 cpu_mask);
        if (!shape->latent_dims)
                mask &= ~(uint32_t)CODEC_CPU_AMX;
        *ret_kernels = codec_kernels_choose(features & mask);
        return 0;
}

static int map_file(struct carvq_table *table, const char *path, bool verify,
                    struct fault *ret_fault) {
        struct fault why;
        int r;

        r = codec_file_open(path, &table->file, ret_fault);
        if (r < 0 || !verify)
                return r;
        r = codec_file_verify(&table->file, NULL, NULL, &why);
        return r < 0 ? fault_set(ret_fault, r, "%s: %s", path, why.text) : 0;
}

/* The file is mapped. */
static int init_context(struct carvq_table *table, const char *cpu_mask, struct fault *ret_fault) {
        const struct codec_kernels *kernels;
        int r;

        table->shape = table->file.table.contents.header;
        r = choose_kernels(cpu_mask, &table->shape, &kernels, ret_fault);
        if (r < 0)
                return r;
        codec_context_init(&table->context, kernels);
        if (codec_context_reserve(&table->context, &table->file.table) < 0)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        return 0;
}

void direct_deinit(struct carvq_table *table) {
        codec_context_deinit(&table->context);
        codec_file_unmap(&table->file);
}

/* Whoever opened the file described it first: another one is a mistake, or worse. */
static int check_shape(const struct carvq_table *table, struct fault *ret_fault) {
        const struct table_header *found = &table->file.table.contents.header,
                                  *expected = &table->shape;

        if (found->n_rows == expected->n_rows && found->n_dims == expected->n_dims &&
            found->codec == expected->codec && found->record_bytes == expected->record_bytes &&
            found->file_bytes == expected->file_bytes)
                return 0;
        return fault_set(ret_fault, -EPROTO,
                         "a file of %" PRIu64 " x %" PRIu32 ", expected the table of %" PRIu64
                         " x %" PRIu32,
                         found->n_rows, found->n_dims, expected->n_rows, expected->n_dims);
}

int direct_init(struct carvq_table *table, int fd, const char *cpu_mask, struct fault *ret_fault) {
        int r;

        r = codec_file_map(fd, &table->file, ret_fault);
        if (r < 0)
                return r;
        r = check_shape(table, ret_fault);
        if (r >= 0)
                r = init_context(table, cpu_mask, ret_fault);
        if (r < 0)
                direct_deinit(table);
        return r;
}

static void table_freep(struct carvq_table **table) {
        if (*table)
                table_free(*table);
}

static int direct_open(const char *path, const struct carvq_file_options *user_options,
                       carvq_table **ret_table, struct fault *ret_fault) {
        _cleanup_(table_freep) struct carvq_table *table = NULL;
        struct carvq_file_options options;
        int r;

        r = options_copy(user_options, sizeof(options), &options, ret_fault);
        if (r < 0)
                return r;
        table = calloc(1, sizeof(*table));
        if (!table)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = map_file(table, path, options.verify, ret_fault);
        if (r >= 0)
                r = init_context(table, options.cpu_mask, ret_fault);
        if (r < 0)
                return r;
        *ret_table = steal_pointer(&table);
        return 0;
}

_public_ int carvq_file_open(const char *path, const struct carvq_file_options *options,
                             carvq_table **ret_table, char *ret_message) {
        struct fault fault = { "" };
        int r;

        r = direct_open(path, options, ret_table, &fault);
        if (r < 0 && ret_message)
                memcpy(ret_message, fault.text, sizeof(fault.text));
        return r;
}

int direct_lookup(struct carvq_table *table, const struct codec_request *request) {
        struct codec_cost cost = { 0 };
        uint64_t bad_index;
        int r;

        r = codec_request_check(request, &table->shape, &bad_index, table_fault(table));
        if (r < 0)
                return r;
        codec_decode_all(&table->context, &table->file.table, request, &cost);
        if (table->client)
                client_ring_claim(&table->client->ring, &cost, codec_request_rows(request),
                                  table->shape.n_dims);
        return 0;
}

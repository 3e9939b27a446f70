/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct mode: the calling thread decodes from a file that it has mapped itself, with the daemon's
 * kernels. Bytes of the file are hostile until codec_file_map() has passed them.
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

void direct_free(struct carvq_table *table) {
        codec_context_deinit(&table->context);
        codec_file_unmap(&table->file);
        free(table);
}

static void direct_freep(struct carvq_table **table) {
        if (*table)
                direct_free(*table);
}

static int direct_open(const char *path, const struct carvq_file_options *user_options,
                       carvq_table **ret_table, struct fault *ret_fault) {
        _cleanup_(direct_freep) struct carvq_table *table = NULL;
        struct carvq_file_options options;
        const struct codec_kernels *kernels = NULL;
        int r;

        r = options_copy(user_options, sizeof(options), &options, ret_fault);
        if (r < 0)
                return r;
        table = calloc(1, sizeof(*table));
        if (!table)
                return fault_set(ret_fault, -ENOMEM, "out of memory");
        r = map_file(table, path, options.verify, ret_fault);
        if (r < 0)
                return r;
        table->shape = table->file.table.contents.header;
        r = choose_kernels(options.cpu_mask, &table->shape, &kernels, ret_fault);
        if (r < 0)
                return r;
        codec_context_init(&table->context, kernels);
        r = codec_context_reserve(&table->context, &table->file.table);
        if (r < 0)
                return fault_set(ret_fault, r, "out of memory");
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

        r = codec_request_check(request, &table->shape, &bad_index, &table->error);
        if (r < 0)
                return r;
        codec_decode_all(&table->context, &table->file.table, request, &cost);
        return 0;
}

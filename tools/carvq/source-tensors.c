/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of tensors as the formats' checkers build them. Owns the names. Names, shapes and ranges
 * come straight from a file and are checked here, once for all formats. Pure; no locking.
 */
#include "source-impl.h"

#include <string.h>

void tensor_list_deinit(struct tensor_list *list) {
        for (size_t i = 0; i < list->n_tensors; i++)
                free((char *)list->tensors[i].info.name);
        free(list->tensors);
        *list = (struct tensor_list){ 0 };
}

static int reserve(struct tensor_list *list, size_t n_more) {
        size_t n_allocated = MAX(list->n_tensors + n_more, list->n_allocated);
        struct tensor *tensors;

        if (n_allocated <= list->n_allocated)
                return 0;
        n_allocated = MAX(n_allocated, MAX(list->n_allocated * 2, 16u));
        tensors = reallocarray(list->tensors, n_allocated, sizeof(*tensors));
        if (!tensors)
                return -ENOMEM;
        list->tensors = tensors;
        list->n_allocated = n_allocated;
        return 0;
}

/* Bytes of the whole tensor; a file has at most 2^63 - 1. */
static int shape_bytes(const char *name, const struct source_dtype *dtype, const uint64_t *axes,
                       uint32_t n_axes, uint64_t *ret_n_bytes, struct fault *ret_fault) {
        uint64_t n_values = 1, n_bytes;
        bool overflow = false, empty = false;

        if (!dtype->block_values) {
                *ret_n_bytes = 0;
                return 0;
        }
        for (uint32_t i = 0; i < n_axes; i++) {
                empty |= axes[i] == 0;
                overflow |= __builtin_mul_overflow(n_values, axes[i], &n_values);
        }
        if (empty) {
                *ret_n_bytes = 0;
                return 0;
        }
        overflow |= __builtin_mul_overflow(n_values / dtype->block_values, dtype->block_bytes,
                                           &n_bytes);
        if (overflow || n_bytes > INT64_MAX)
                return fault_set(ret_fault, -EBADMSG,
                                 "tensor '%.80s': its shape needs more than 2^63 bytes", name);
        if ((n_axes ? axes[n_axes - 1] : 1) % dtype->block_values)
                return fault_set(ret_fault, -EBADMSG,
                                 "tensor '%.80s': rows of %" PRIu64
                                 " values, expected a multiple of %" PRIu32 " (a block of %s)",
                                 name, n_axes ? axes[n_axes - 1] : 1, dtype->block_values,
                                 dtype->name);
        *ret_n_bytes = n_bytes;
        return 0;
}

int tensor_list_add(struct tensor_list *list, const char *name, size_t name_bytes,
                    const struct source_dtype *dtype, const uint64_t *axes, uint32_t n_axes,
                    struct tensor **ret_tensor, struct fault *ret_fault) {
        _cleanup_(freep) char *owned_name = NULL;
        struct tensor t = { .dtype = dtype, .n_axes = n_axes };
        int r;

        /* Names are printed; a terminal must not be steered by them. */
        for (size_t i = 0; i < name_bytes; i++)
                if ((uint8_t)name[i] < 0x20 || name[i] == 0x7f)
                        return fault_set(ret_fault, -EBADMSG,
                                         "tensor %zu: control character 0x%02x in its name",
                                         list->n_tensors, (uint8_t)name[i]);
        if (list->n_tensors >= SOURCE_TENSORS_MAX)
                return fault_set(ret_fault, -EBADMSG, "more than %u tensors", SOURCE_TENSORS_MAX);

        owned_name = strndup(name, name_bytes);
        if (!owned_name)
                return -ENOMEM;
        r = shape_bytes(owned_name, dtype, axes, n_axes, &t.n_bytes, ret_fault);
        if (r < 0)
                return r;
        r = reserve(list, 1);
        if (r < 0)
                return r;

        t.info.dtype = dtype->name;
        if (n_axes == 2 && axes[1] <= SOURCE_DIMS_MAX) {
                t.info.n_rows = axes[0];
                t.info.n_dims = (uint32_t)axes[1];
        }
        t.info.name = steal_pointer(&owned_name);
        list->tensors[list->n_tensors] = t;
        *ret_tensor = &list->tensors[list->n_tensors++];
        return 0;
}

static int compare_offsets(const void *pa, const void *pb) {
        const struct tensor *a = pa, *b = pb;

        if (a->offset != b->offset)
                return a->offset < b->offset ? -1 : 1;
        return (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
}

static int compare_names(const void *pa, const void *pb) {
        return strcmp(*(const char *const *)pa, *(const char *const *)pb);
}

static int check_names(const struct tensor_list *list, struct fault *ret_fault) {
        _cleanup_(freep) const char **names = calloc(list->n_tensors + 1, sizeof(*names));

        if (!names)
                return -ENOMEM;
        for (size_t i = 0; i < list->n_tensors; i++)
                names[i] = list->tensors[i].info.name;
        qsort(names, list->n_tensors, sizeof(*names), compare_names);
        for (size_t i = 1; i < list->n_tensors; i++)
                if (!strcmp(names[i - 1], names[i]))
                        return fault_set(ret_fault, -EBADMSG,
                                         "two tensors are named '%.80s', expected unique names",
                                         names[i]);
        return 0;
}

int tensor_list_settle(struct tensor_list *list, struct fault *ret_fault) {
        if (!list->n_tensors)
                return 0;
        qsort(list->tensors, list->n_tensors, sizeof(*list->tensors), compare_offsets);
        for (size_t i = 1; i < list->n_tensors; i++) {
                const struct tensor *a = &list->tensors[i - 1], *b = &list->tensors[i];

                /* No sum can wrap: both ranges are known to lie inside the file. */
                if (a->offset + a->n_bytes > b->offset)
                        return fault_set(ret_fault, -EBADMSG,
                                         "tensors '%.80s' and '%.80s' overlap at byte %" PRIu64,
                                         a->info.name, b->info.name, b->offset);
        }
        return check_names(list, ret_fault);
}

int tensor_list_append(struct tensor_list *list, struct tensor_list *from) {
        int r = reserve(list, from->n_tensors);

        if (r < 0)
                return r;
        if (from->n_tensors)
                memcpy(list->tensors + list->n_tensors, from->tensors,
                       from->n_tensors * sizeof(*from->tensors));
        list->n_tensors += from->n_tensors;
        from->n_tensors = 0;
        tensor_list_deinit(from);
        return 0;
}

bool tensor_is_readable(const struct tensor *tensor) {
        return tensor->dtype->decode && tensor->info.n_rows && tensor->info.n_dims;
}

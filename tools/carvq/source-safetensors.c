/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors: eight bytes of header length, a JSON object of tensors, then their data without gaps
 * (huggingface/safetensors, "Format"); and the index of a model in several such files, a JSON
 * object that maps tensor names to files beside it. Trusts nothing: what a header may cost in
 * memory is bounded before jansson sees it. Runs on the thread that opens the source.
 */
#include "source-impl.h"

#include <jansson.h>
#include <string.h>

#include "source-json.h"

#define HEADER_BYTES_MAX UINT64_C(100000000) /* the reference implementation's limit */
#define HEADER_DEPTH_MAX 3u                  /* file, tensor, shape */
#define INDEX_BYTES_MAX  (UINT64_C(64) << 20)
#define INDEX_DEPTH_MAX  8u
#define SHARDS_MAX       512u /* each holds a descriptor; the largest known models have some 200 */
#define AXES_MAX         16u

/* ---- The header of one file ---- */

static int check_integer(const json_t *value, const char *name, const char *field,
                         uint64_t *ret_integer, struct fault *ret_fault) {
        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return fault_set(ret_fault, -EBADMSG,
                                 "tensor '%.80s', %s: expected non-negative integers", name, field);
        *ret_integer = (uint64_t)json_integer_value(value);
        return 0;
}

/* `ret_integers` has room for `n_max`. */
static int check_integers(const json_t *tensor, const char *name, const char *field, size_t n_max,
                          uint64_t *ret_integers, uint32_t *ret_n, struct fault *ret_fault) {
        const json_t *array = json_object_get(tensor, field);

        if (!json_is_array(array))
                return fault_set(ret_fault, -EBADMSG, "tensor '%.80s', %s: %s, expected an array",
                                 name, field, array ? "of another type" : "missing");
        if (json_array_size(array) > n_max)
                return fault_set(ret_fault, -EBADMSG,
                                 "tensor '%.80s', %s: %zu values, expected at most %zu", name,
                                 field, json_array_size(array), n_max);
        for (size_t i = 0; i < json_array_size(array); i++) {
                int r = check_integer(json_array_get(array, i), name, field, &ret_integers[i],
                                      ret_fault);
                if (r < 0)
                        return r;
        }
        *ret_n = (uint32_t)json_array_size(array);
        return 0;
}

/* Offsets count from `data_offset`, behind the header. */
static int check_tensor(const char *name, const json_t *value, uint64_t data_offset,
                        uint64_t file_bytes, struct tensor_list *list, struct fault *ret_fault) {
        const char *dtype = json_string_value(json_object_get(value, "dtype"));
        uint64_t axes[AXES_MAX], range[2];
        uint32_t n_axes, n_range;
        struct tensor *tensor;
        int r;

        if (!dtype)
                return fault_set(ret_fault, -EBADMSG, "tensor '%.80s', dtype: expected a string",
                                 name);
        r = check_integers(value, name, "shape", ARRAY_SIZE(axes), axes, &n_axes, ret_fault);
        if (r < 0)
                return r;
        r = check_integers(value, name, "data_offsets", ARRAY_SIZE(range), range, &n_range,
                           ret_fault);
        if (r < 0)
                return r;
        if (n_range != 2 || range[0] > range[1] || range[1] > file_bytes - data_offset)
                return fault_set(
                        ret_fault, -EBADMSG,
                        "tensor '%.80s', data_offsets: expected [begin, end] within %" PRIu64
                        " bytes of data",
                        name, file_bytes - data_offset);

        r = tensor_list_add(list, name, strlen(name), safetensors_dtype(dtype), axes, n_axes,
                            &tensor, ret_fault);
        if (r < 0)
                return r;
        if (!tensor->dtype->block_values)
                tensor->n_bytes = range[1] - range[0];
        if (tensor->n_bytes != range[1] - range[0])
                return fault_set(ret_fault, -EBADMSG,
                                 "tensor '%.80s', data_offsets: a range of %" PRIu64
                                 " bytes, expected %" PRIu64 " (shape times %s)",
                                 name, range[1] - range[0], tensor->n_bytes, tensor->dtype->name);
        tensor->offset = data_offset + range[0];
        return 0;
}

static int check_header(const json_t *root, uint64_t data_offset, uint64_t file_bytes,
                        struct tensor_list *list, struct fault *ret_fault) {
        uint64_t end = data_offset;
        const char *name;
        json_t *value;
        int r;

        json_object_foreach((json_t *)root, name, value) {
                if (!strcmp(name, "__metadata__"))
                        continue;
                r = check_tensor(name, value, data_offset, file_bytes, list, ret_fault);
                if (r < 0)
                        return r;
        }
        r = tensor_list_settle(list, ret_fault);
        if (r < 0)
                return r;

        /* The format has no holes: bytes that belong to nothing mean a damaged header or file. */
        for (size_t i = 0; i < list->n_tensors; i++) {
                if (list->tensors[i].offset != end)
                        return fault_set(ret_fault, -EBADMSG,
                                         "tensor '%.80s' starts at byte %" PRIu64
                                         ", expected %" PRIu64 " (end of the one before)",
                                         list->tensors[i].info.name, list->tensors[i].offset, end);
                end += list->tensors[i].n_bytes;
        }
        if (end != file_bytes)
                return fault_set(ret_fault, -EBADMSG,
                                 "the data ends at byte %" PRIu64 ", the file has %" PRIu64, end,
                                 file_bytes);
        return 0;
}

int safetensors_check(const void *bytes, size_t n_bytes, uint64_t file_bytes,
                      struct tensor_list *ret_list, uint64_t *ret_need_bytes,
                      struct fault *ret_fault) {
        _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
        json_auto_t *root = NULL;
        uint64_t header_bytes;
        int r;

        if (file_bytes < sizeof(header_bytes))
                return fault_set(ret_fault, -EBADMSG,
                                 "the file has %" PRIu64 " bytes, expected at least 8", file_bytes);
        if (n_bytes < sizeof(header_bytes)) {
                *ret_need_bytes = sizeof(header_bytes);
                return -EAGAIN;
        }
        memcpy(&header_bytes, bytes, sizeof(header_bytes));
        if (header_bytes > HEADER_BYTES_MAX || header_bytes > file_bytes - sizeof(header_bytes))
                return fault_set(ret_fault, -EBADMSG,
                                 "header length at byte 0: %" PRIu64 ", expected at most %" PRIu64,
                                 header_bytes,
                                 MIN(HEADER_BYTES_MAX, file_bytes - sizeof(header_bytes)));
        if (header_bytes > n_bytes - sizeof(header_bytes)) {
                *ret_need_bytes = sizeof(header_bytes) + header_bytes;
                return -EAGAIN;
        }

        r = json_load_bounded((const char *)bytes + sizeof(header_bytes), (size_t)header_bytes,
                              HEADER_DEPTH_MAX, &root, ret_fault);
        if (r < 0)
                return r;
        r = check_header(root, sizeof(header_bytes) + header_bytes, file_bytes, &list, ret_fault);
        if (r < 0)
                return r;
        *ret_list = list;
        list = (struct tensor_list){ 0 };
        return 0;
}

/*
 * A header's length is below 2^56, so its eighth byte is zero: an index, which is text, has no zero
 * there. A foreign length that is larger still passes, and is then refused by name.
 */
static bool looks_like_index(const uint8_t *head, size_t head_bytes) {
        size_t i = 0;

        while (i < head_bytes &&
               (head[i] == ' ' || head[i] == '\n' || head[i] == '\r' || head[i] == '\t'))
                i++;
        return i < head_bytes && head[i] == '{' && !memchr(head, 0, head_bytes);
}

static bool safetensors_probe(const uint8_t *head, size_t head_bytes) {
        return head_bytes > 8 && head[8] == '{' && !looks_like_index(head, 8);
}

static int safetensors_open(struct source *source, struct fault *ret_fault) {
        return source_scan(source, 0, safetensors_check, HEADER_BYTES_MAX + 8, &source->list,
                           ret_fault);
}

const struct source_format source_format_safetensors = {
        .name = "safetensors",
        .probe = safetensors_probe,
        .open = safetensors_open,
};

/* ---- The index of several files ---- */

static bool index_probe(const uint8_t *head, size_t head_bytes) {
        return looks_like_index(head, head_bytes);
}

static int index_load(const struct source_file *file, json_t **ret_root, struct fault *ret_fault) {
        _cleanup_(freep) char *text = NULL;
        struct fault why = { 0 };
        int r;

        if (file->n_bytes > INDEX_BYTES_MAX)
                return source_fault(ret_fault, -EBADMSG, file->path,
                                    "an index of %" PRIu64 " bytes, expected at most %" PRIu64,
                                    file->n_bytes, INDEX_BYTES_MAX);
        text = malloc((size_t)file->n_bytes);
        if (!text)
                return -ENOMEM;
        r = source_pread(file, text, (size_t)file->n_bytes, 0, ret_fault);
        if (r < 0)
                return r;
        r = json_load_bounded(text, (size_t)file->n_bytes, INDEX_DEPTH_MAX, ret_root, &why);
        return r < 0 ? source_fault(ret_fault, r, file->path, "%s", why.text) : 0;
}

/* Shards lie beside the index; a name that leads elsewhere is an attack. */
static int shard_path(const char *index_path, const char *shard, char **ret_path) {
        const char *slash = strrchr(index_path, '/');
        int directory_bytes = slash ? (int)(slash + 1 - index_path) : 0;

        if (!*shard || strchr(shard, '/') || !strcmp(shard, "..") || !strcmp(shard, "."))
                return -EBADMSG;
        return asprintf(ret_path, "%.*s%s", directory_bytes, index_path, shard) < 0 ? -ENOMEM : 0;
}

/* Opens each shard that the map names, once, and leaves its index in `files` in `shards`. */
static int open_shards(struct source *source, const json_t *weight_map, json_t *shards,
                       struct fault *ret_fault) {
        const char *index_path = source->files[0].path, *name;
        json_t *value;
        int r;

        json_object_foreach((json_t *)weight_map, name, value) {
                _cleanup_(freep) char *path = NULL;
                const char *shard = json_string_value(value);

                if (shard && json_object_get(shards, shard))
                        continue;
                r = shard ? shard_path(index_path, shard, &path) : -EBADMSG;
                if (r == -EBADMSG)
                        return source_fault(ret_fault, r, index_path,
                                            "weight_map, tensor '%.80s': '%.80s', expected the name"
                                            " of a file beside the index",
                                            name, shard ? shard : "");
                if (r < 0)
                        return r;
                if (json_object_size(shards) >= SHARDS_MAX)
                        return source_fault(ret_fault, -EBADMSG, index_path,
                                            "weight_map names more than %u files", SHARDS_MAX);
                r = source_add_file(source, path, ret_fault);
                if (r < 0)
                        return r;
                if (json_object_set_new(shards, shard,
                                        json_integer((json_int_t)source->n_files - 1)) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* Keeps what the map assigns to this shard, and strikes it off the map. */
static int add_shard(struct source *source, const char *shard, size_t file, json_t *weight_map,
                     struct fault *ret_fault) {
        _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
        size_t n_kept = 0;
        int r;

        r = source_scan(source, file, safetensors_check, HEADER_BYTES_MAX + 8, &list, ret_fault);
        if (r < 0)
                return r;
        for (size_t i = 0; i < list.n_tensors; i++) {
                const char *name = list.tensors[i].info.name;
                const char *mapped = json_string_value(json_object_get(weight_map, name));
                struct tensor tensor = list.tensors[i];

                if (!mapped || strcmp(mapped, shard) != 0)
                        continue;
                json_object_del(weight_map, name);
                list.tensors[i] = list.tensors[n_kept];
                list.tensors[n_kept++] = tensor;
        }
        for (size_t i = n_kept; i < list.n_tensors; i++)
                free((char *)list.tensors[i].info.name);
        list.n_tensors = n_kept;
        return tensor_list_append(&source->list, &list);
}

static int index_open(struct source *source, struct fault *ret_fault) {
        json_auto_t *root = NULL, *shards = json_object();
        const char *name, *index_path = source->files[0].path;
        json_t *weight_map, *value;
        int r;

        r = shards ? index_load(&source->files[0], &root, ret_fault) : -ENOMEM;
        if (r < 0)
                return r;
        weight_map = json_object_get(root, "weight_map");
        if (!json_is_object(weight_map) || !json_object_size(weight_map))
                return source_fault(ret_fault, -EBADMSG, index_path,
                                    "a JSON file without the object weight_map, expected the index"
                                    " of a model in safetensors files");
        r = open_shards(source, weight_map, shards, ret_fault);
        if (r < 0)
                return r;
        json_object_foreach(shards, name, value) {
                r = add_shard(source, name, (size_t)json_integer_value(value), weight_map,
                              ret_fault);
                if (r < 0)
                        return r;
        }
        json_object_foreach(weight_map, name, value) return source_fault(
                ret_fault, -EBADMSG, index_path, "weight_map: tensor '%.80s' is not in '%.80s'",
                name, json_string_value(value));
        return 0;
}

const struct source_format source_format_safetensors_index = {
        .name = "safetensors",
        .probe = index_probe,
        .open = index_open,
};

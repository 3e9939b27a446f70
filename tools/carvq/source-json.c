/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gate before jansson: one pass over the text that counts nesting and values. jansson takes some
 * 300 bytes for a member such as "1":{}, so the number of values, not of bytes, bounds its memory:
 * here to about 350 MB for the worst of headers, and to a quarter million ordinary tensors. Pure
 * but for the allocation.
 */
#include "source-json.h"

#define VALUES_MAX (1u << 21)

/* Wrong JSON is counted wrongly here, but never too low: what matters is that jansson refuses it.
 */
static int check_bounds(const char *text, size_t n_bytes, uint32_t depth_max,
                        struct fault *ret_fault) {
        uint32_t depth = 0, n_values = 0;
        bool in_string = false;

        for (size_t i = 0; i < n_bytes; i++) {
                char c = text[i];

                if (in_string) {
                        if (c == '\\')
                                i++;
                        else
                                in_string = c != '"';
                        continue;
                }
                in_string = c == '"';
                if (c == '{' || c == '[')
                        depth++;
                else if ((c == '}' || c == ']') && depth > 0)
                        depth--;
                if (depth > depth_max)
                        return fault_set(ret_fault, -EBADMSG,
                                         "JSON nested deeper than %" PRIu32
                                         " at byte %zu of the header",
                                         depth_max, i);
                n_values += c == '{' || c == '[' || c == ',';
                if (n_values > VALUES_MAX)
                        return fault_set(ret_fault, -EBADMSG,
                                         "more than %u JSON values in the header", VALUES_MAX);
        }
        return 0;
}

int json_load_bounded(const char *text, size_t n_bytes, uint32_t depth_max, json_t **ret_root,
                      struct fault *ret_fault) {
        json_auto_t *root = NULL;
        json_error_t error;
        int r;

        r = check_bounds(text, n_bytes, depth_max, ret_fault);
        if (r < 0)
                return r;
        root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &error);
        if (!root)
                return fault_set(ret_fault, -EBADMSG, "header, JSON byte %d: %s", error.position,
                                 error.text);
        if (!json_is_object(root))
                return fault_set(ret_fault, -EBADMSG, "header: expected a JSON object");
        *ret_root = steal_pointer(&root);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson's memory is the program's: its calls count like the program's own. Not so while it
 * parses, as its lexer (2.14) does not look whether its buffer could grow, and writes past the copy
 * of a string that it then does not see the end of. No caller can mend that.
 */
#include <jansson.h>
#include <stdlib.h>

void *__real_malloc(size_t n);
json_t *__real_json_loadb(const char *bytes, size_t n, size_t flags, json_error_t *error);
json_t *__wrap_json_loadb(const char *bytes, size_t n, size_t flags, json_error_t *error);

static _Thread_local int parsing;

static void *allocate(size_t n) {
        return parsing ? __real_malloc(n) : malloc(n);
}

json_t *__wrap_json_loadb(const char *bytes, size_t n, size_t flags, json_error_t *error) {
        json_t *value;

        parsing++;
        value = __real_json_loadb(bytes, n, flags, error);
        parsing--;
        return value;
}

__attribute__((constructor)) static void take_allocations(void) {
        json_set_alloc_funcs(allocate, free);
}

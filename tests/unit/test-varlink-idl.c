/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .varlink files against the code: each method's parameters are what the code takes, and each
 * answer has exactly the fields, of the types, that the file promises. Reads as much of the
 * language as our files use.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "control-harness.h"
#include "daemon/control-call.h"
#include "proto/interfaces.h"

/* ---- The language ---- */

/* Spaces, line ends and comments. */
static const char *skip_space(const char *p) {
        for (; isspace((unsigned char)*p) || *p == '#'; p++)
                if (*p == '#')
                        p += strcspn(p, "\n") - 1;
        return p;
}

static const char *take(const char *p, char expected) {
        p = skip_space(p);
        if (*p != expected)
                fail_msg("expected '%c' at: %.60s", expected, p);
        return skip_space(p + 1);
}

/* A word of letters, digits, '_' and '.'. */
static const char *take_word(const char *p, char word[64]) {
        size_t n;

        p = skip_space(p);
        for (n = 0; isalnum((unsigned char)p[n]) || p[n] == '_' || p[n] == '.'; n++)
                ;
        assert_in_range(n, 1, 63);
        memcpy(word, p, n);
        word[n] = '\0';
        return skip_space(p + n);
}

/* What follows "KEYWORD NAME" in the file. NULL: there is no such thing. */
static const char *find(const char *interface, const char *keyword, const char *name) {
        char start[80];

        snprintf(start, sizeof(start), "\n%s %s", keyword, name);
        for (const char *p = interface; (p = strstr(p, start)); p++)
                if (!isalnum((unsigned char)p[strlen(start)]))
                        return p + strlen(start);
        return NULL;
}

/* A value against the type at `p`; returns what follows the type. Without a value: only skips. */
static const char *check_type(const char *interface, const char *p, const json_t *value,
                              const char *where);

/* An enum or a struct; its values must be just the fields. */
static const char *check_struct(const char *interface, const char *p, const json_t *value,
                                const char *where) {
        size_t n_fields = 0;
        bool is_enum = false, matched = false;

        p = take(p, '(');
        while (*p != ')') {
                char name[64], inner[256];
                const json_t *field;

                p = take_word(p, name);
                is_enum = *p != ':';
                if (is_enum)
                        matched = matched || (value && json_is_string(value) &&
                                              !strcmp(json_string_value(value), name));
                else {
                        field = json_object_get(value, name);
                        snprintf(inner, sizeof(inner), "%.180s.%s", where, name);
                        if (value && !field)
                                fail_msg("%s is missing", inner);
                        p = check_type(interface, take(p, ':'), field, inner);
                        n_fields++;
                }
                if (*p == ',')
                        p = take(p, ',');
        }
        if (value && is_enum && !matched)
                fail_msg("%s is none of its enum", where);
        if (value && !is_enum && (!json_is_object(value) || json_object_size(value) != n_fields))
                fail_msg("%s has %zu fields, expected %zu", where, json_object_size(value),
                         n_fields);
        return take(p, ')');
}

static void check_word(const char *interface, const char *word, const json_t *value,
                       const char *where) {
        bool ok;

        if (!value)
                return;
        if (!strcmp(word, "string"))
                ok = json_is_string(value);
        else if (!strcmp(word, "int"))
                ok = json_is_integer(value);
        else if (!strcmp(word, "float"))
                ok = json_is_real(value);
        else if (!strcmp(word, "bool"))
                ok = json_is_boolean(value);
        else {
                const char *type = find(interface, "type", word);

                if (!type)
                        fail_msg("type %s is not defined", word);
                check_struct(interface, skip_space(type), value, where);
                return;
        }
        if (!ok)
                fail_msg("%s is no %s", where, word);
}

static const char *check_type(const char *interface, const char *p, const json_t *value,
                              const char *where) {
        char word[64];

        if (*p == '?')
                return check_type(interface, p + 1, json_is_null(value) ? NULL : value, where);
        if (!strncmp(p, "[]", 2)) {
                const char *end = check_type(interface, p + 2, NULL, where);
                const json_t *item;
                size_t i;

                if (value && !json_is_array(value))
                        fail_msg("%s is no array", where);
                json_array_foreach(value, i, item) check_type(interface, p + 2, item, where);
                return end;
        }
        p = take_word(p, word);
        check_word(interface, word, value, where);
        return p;
}

static const char *interface_of(const char *name) {
        if (!strncmp(name, CONTROL_INTERFACE ".", strlen(CONTROL_INTERFACE ".")))
                return interface_control;
        assert_int_equal(
                strncmp(name, CONTROL_SERVICE_INTERFACE ".", strlen(CONTROL_SERVICE_INTERFACE ".")),
                0);
        return interface_service;
}

/* A reply to `method`, or the error that it names, against the files. */
static void check_reply(const char *method, const json_t *reply) {
        const json_t *parameters = json_object_get(reply, "parameters");
        const char *error = json_string_value(json_object_get(reply, "error"));
        const char *name = error ? error : method;
        const char *interface = interface_of(name), *p;

        p = find(interface, error ? "error" : "method", strrchr(name, '.') + 1);
        if (!p)
                fail_msg("%s is not in the file", name);
        if (!error)
                p = take(take(check_struct(interface, p, NULL, name), '-'), '>');
        assert_non_null(parameters);
        check_struct(interface, p, parameters, name);
}

/* ---- Tests ---- */

static void check_call(struct harness *h, const char *method, json_t *parameters,
                       const char *expected_error) {
        json_t *call = json_pack("{ss so*}", "method", method, "parameters", parameters);
        _cleanup_(freep) char *text = json_dumps(call, 0);
        json_t *reply = harness_call(h, text);
        const char *error = json_string_value(json_object_get(reply, "error"));

        if (expected_error ? !error || strcmp(error, expected_error) : error != NULL)
                fail_msg("%s is answered with error %s", text, error);
        check_reply(method, reply);
        json_decref(reply);
        json_decref(call);
}

static void test_every_answer(void **state) {
        struct harness *h = *state;

        check_call(h, "org.varlink.service.GetInfo", NULL, NULL);
        check_call(h, "org.varlink.service.GetInterfaceDescription",
                   json_pack("{ss}", "interface", "org.varlink.service"), NULL);
        check_call(h, "io.carvq.Control.GetStatus", NULL, NULL);
        check_call(h, "io.carvq.Control.ListTables", NULL, NULL);
        check_call(h, "io.carvq.Control.ListClients", NULL, NULL);
        check_call(h, "io.carvq.Control.GetStats", NULL, NULL);
        check_call(h, "io.carvq.Control.GetStats", json_pack("{ss}", "table", "small"), NULL);
        check_call(h, "io.carvq.Control.LoadTable",
                   json_pack("{ss ss}", "name", "more", "path", harness_table_path(h)), NULL);
        check_call(h, "io.carvq.Control.UnloadTable", json_pack("{ss}", "name", "more"), NULL);
        check_call(h, "io.carvq.Control.Reload", NULL, NULL);
        /* Something in each list. */
        harness_write_config(h, "[carvqd]\nworkers = 3\nfrobnicate = 1\n"
                                "[table bad]\npath = /nonexistent\n");
        check_call(h, "io.carvq.Control.Reload", NULL, NULL);
        check_call(h, "io.carvq.Control.ListTables", NULL, NULL);
}

static void test_every_error(void **state) {
        struct harness *h = *state;

        check_call(h, "io.carvq.Control.GetStats", json_pack("{ss}", "table", "none"),
                   "io.carvq.Control.NoSuchTable");
        check_call(h, "io.carvq.Control.LoadTable",
                   json_pack("{ss ss}", "name", "x", "path", "/nonexistent"),
                   "io.carvq.Control.LoadFailed");
        check_call(h, "io.carvq.Control.LoadTable",
                   json_pack("{ss ss}", "name", ".x", "path", "/nonexistent"),
                   "io.carvq.Control.InvalidName");
        harness_write_config(h, "[carvqd]\nworkers = many\n");
        check_call(h, "io.carvq.Control.Reload", NULL, "io.carvq.Control.ConfigurationInvalid");
        harness_set_stopping(h, true);
        check_call(h, "io.carvq.Control.LoadTable",
                   json_pack("{ss ss}", "name", "x", "path", "/nonexistent"),
                   "io.carvq.Control.Unavailable");
        check_call(h, "io.carvq.Control.Reload", NULL, "io.carvq.Control.Unavailable");
        harness_set_stopping(h, false);
        check_call(h, "io.carvq.Control.Frobnicate", NULL, "org.varlink.service.MethodNotFound");
        check_call(h, "io.carvq.None.GetStatus", NULL, "org.varlink.service.InterfaceNotFound");
        check_call(h, "org.varlink.service.GetInterfaceDescription",
                   json_pack("{ss}", "interface", "x.y"), "org.varlink.service.InterfaceNotFound");
        check_call(h, "io.carvq.Control.UnloadTable", NULL, "org.varlink.service.InvalidParameter");
}

/* All parameters as strings, and then one more. Returns the number of parameters. */
static size_t check_parameters(const char *method, const char *p) {
        json_t *parameters = json_object(), *call;
        struct control_call parsed;
        size_t n = 0;

        for (p = take(p, '('); *p != ')'; n++) {
                char name[64], type[64];

                p = take_word(p, name);
                p = take(p, ':');
                p = take_word(p + (*p == '?'), type);
                assert_string_equal(type, "string");
                json_object_set_new(parameters, name, json_string("text"));
                if (*p == ',')
                        p = take(p, ',');
        }
        for (int surplus = 0; surplus < 2; surplus++) {
                _cleanup_(freep) char *text = NULL;

                if (surplus)
                        json_object_set_new(parameters, "surplus", json_string(""));
                call = json_pack("{ss sO}", "method", method, "parameters", parameters);
                text = json_dumps(call, 0);
                assert_int_equal(control_call_parse(text, strlen(text), &parsed, NULL), 0);
                if (!parsed.refusal != !surplus)
                        fail_msg("%s is%s refused", text, parsed.refusal ? "" : " not");
                control_call_deinit(&parsed);
                json_decref(call);
        }
        json_decref(parameters);
        return n;
}

static void test_methods_of_the_code_are_in_the_file(void **state) {
        (void)state;
        for (int i = 0; i < CONTROL_METHODS_N; i++) {
                const char *name = control_method_name((enum control_method)i);
                const char *p = find(interface_of(name), "method", strrchr(name, '.') + 1);

                if (!p)
                        fail_msg("%s is not in the file", name);
                assert_in_range(check_parameters(name, p), 0, CONTROL_ARGUMENTS_MAX);
        }
}

static unsigned count_methods(const char *interface) {
        unsigned n = 0;

        while ((interface = strstr(interface, "\nmethod "))) {
                interface++;
                n++;
        }
        return n;
}

static void test_methods_of_the_file_are_in_the_code(void **state) {
        (void)state;
        assert_int_equal(count_methods(interface_control) + count_methods(interface_service),
                         CONTROL_METHODS_N);
}

/* What others' parsers stumble over: words outside of comments that begin no declaration. */
static void test_lines_begin_declarations(void **state) {
        static const char *const begins[] = { "#",          " ",     ")",       "\n",
                                              "interface ", "type ", "method ", "error " };
        const char *const files[] = { interface_control, interface_service };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                for (const char *line = files[i]; *line; line = strchr(line, '\n') + 1) {
                        bool known = false;

                        for (size_t k = 0; k < ARRAY_SIZE(begins); k++)
                                known = known || !strncmp(line, begins[k], strlen(begins[k]));
                        if (!known)
                                fail_msg("neither comment nor declaration: %.60s", line);
                        assert_non_null(strchr(line, '\n'));
                }
}

static void test_description_is_the_file(void **state) {
        struct harness *h = *state;
        json_t *reply =
                harness_call(h, "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
                                "\"parameters\":{\"interface\":\"io.carvq.Control\"}}");
        const char *text = json_string_value(
                json_object_get(json_object_get(reply, "parameters"), "description"));

        assert_string_equal(text, interface_control);
        json_decref(reply);
}

static int make_harness(void **state) {
        *state = harness_new();
        return 0;
}

static int end_harness(void **state) {
        harness_free(*state);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_methods_of_the_code_are_in_the_file),
                cmocka_unit_test(test_methods_of_the_file_are_in_the_code),
                cmocka_unit_test(test_lines_begin_declarations),
                cmocka_unit_test_setup_teardown(test_every_answer, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_every_error, make_harness, end_harness),
                cmocka_unit_test_setup_teardown(test_description_is_the_file, make_harness,
                                                end_harness),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

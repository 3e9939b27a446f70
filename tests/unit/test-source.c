/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model files: every file of tests/data/good is read and compared bit for bit with the values that
 * the formats' own packages decode, every file of tests/data/bad must be refused with its sentence
 * (make-fixtures.py wrote both), and the header checkers are fed damaged and cut headers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/stat.h>

#include "lib/codec/half.h"
#include "tools/carvq/source-impl.h"

#define SEED UINT64_C(0x9e3779b97f4a7c15)

static const char *data_dir;

static bool has_suffix(const char *name, const char *suffix) {
        size_t n = strlen(name), n_suffix = strlen(suffix);

        return n >= n_suffix && !strcmp(name + n - n_suffix, suffix);
}

static void data_path(char ret_path[512], const char *format, ...) _printf_(2, 3);

static void data_path(char ret_path[512], const char *format, ...) {
        va_list args;
        int n = snprintf(ret_path, 512, "%s/", data_dir);

        va_start(args, format);
        n += vsnprintf(ret_path + n, 512 - (size_t)n, format, args);
        va_end(args);
        assert_in_range(n, 1, 511);
}

/* The caller frees; one allocation of exactly the file's size, so that ASan guards its end. */
static uint8_t *load(const char *path, size_t *ret_n_bytes) {
        FILE *file = fopen(path, "re");
        uint8_t *bytes;
        struct stat st;

        if (!file)
                fail_msg("%s: %s", path, strerror(errno));
        assert_int_equal(fstat(fileno(file), &st), 0);
        bytes = malloc((size_t)st.st_size + !st.st_size);
        assert_non_null(bytes);
        assert_int_equal(fread(bytes, 1, (size_t)st.st_size, file), st.st_size);
        fclose(file);
        *ret_n_bytes = (size_t)st.st_size;
        return bytes;
}

/* Calls `each` for the files of a folder, sorted by name; returns how many there were. */
static int for_each_file(const char *folder, bool (*wanted)(const char *name),
                         void (*each)(const char *name)) {
        struct dirent **entries;
        char path[512];
        int n, n_done = 0;

        data_path(path, "%s", folder);
        n = scandir(path, &entries, NULL, alphasort);
        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
                if (entries[i]->d_name[0] != '.' && wanted(entries[i]->d_name)) {
                        each(entries[i]->d_name);
                        n_done++;
                }
                free(entries[i]);
        }
        free(entries);
        return n_done;
}

static struct source *open_good(const char *name) {
        struct source *source;
        struct fault fault;
        char path[512];

        data_path(path, "good/%s", name);
        if (source_open(path, &source, &fault) < 0)
                fail_msg("%s", fault.text);
        return source;
}

/* ---- good/ ---- */

static bool is_model(const char *name) {
        return !has_suffix(name, ".f32.npy") && !strstr(name, ".carvq");
}

static void check_tensor(struct source *source, const char *file, const struct source_tensor *t) {
        size_t n_values = (size_t)t->n_rows * t->n_dims, n_bytes;
        _cleanup_(freep) float *values = malloc(n_values * sizeof(*values));
        _cleanup_(freep) uint8_t *expected = NULL;
        struct fault fault;
        char path[512];

        if (source_select(source, t->name, NULL, NULL, &fault) < 0 ||
            source_read(source, 0, (size_t)t->n_rows, values, &fault) < 0)
                fail_msg("%s", fault.text);
        data_path(path, "good/%s%s%s.f32.npy", file, *t->name ? "." : "", t->name);
        expected = load(path, &n_bytes);
        /* Not by the reader under test: the array is simply the end of the file. */
        assert_true(n_bytes > n_values * sizeof(*values));
        if (memcmp(expected + n_bytes - n_values * sizeof(*values), values,
                   n_values * sizeof(*values)) != 0)
                fail_msg("%s, tensor '%s': other values than expected", file, t->name);
}

static size_t n_tensors_checked;

static void check_good(const char *name) {
        _cleanup_(source_freep) struct source *source = open_good(name);

        for (size_t i = 0; i < source_n_tensors(source); i++)
                check_tensor(source, name, source_tensor(source, i));
        assert_null(source_tensor(source, source_n_tensors(source)));
        n_tensors_checked += source_n_tensors(source);
}

static bool is_expected_values(const char *name) {
        return has_suffix(name, ".f32.npy");
}

static void ignore(const char *name) {
        (void)name;
}

static void test_good(void **state) {
        (void)state;
        assert_true(for_each_file("good", is_model, check_good) > 10);
        /* Each file of values belongs to one tensor: none was silently left out. */
        assert_int_equal(for_each_file("good", is_expected_values, ignore), n_tensors_checked);
}

/* ---- bad/ ---- */

static bool has_expectation(const char *name) {
        char path[512];

        if (strstr(name, ".carvq"))
                return false;
        data_path(path, "bad/%s.expect", name);
        return access(path, F_OK) == 0;
}

/* Everything that `carvq pack` would do with it, up to the first refusal. */
static int read_all(const char *path, struct fault *fault) {
        _cleanup_(source_freep) struct source *source = NULL;
        _cleanup_(freep) float *values = NULL;
        const struct source_tensor *t;
        size_t candidates[16], n;
        int r;

        r = source_open(path, &source, fault);
        if (r >= 0)
                r = source_select(source, NULL, candidates, &n, fault);
        if (r < 0)
                return r;
        t = source_selected(source);
        values = malloc((size_t)t->n_rows * t->n_dims * sizeof(*values));
        return source_read(source, 0, (size_t)t->n_rows, values, fault);
}

static int n_bad_accepted;

static void check_bad(const char *name) {
        _cleanup_(freep) char *expected = NULL;
        struct fault fault = { 0 };
        char path[512];
        size_t n;
        int r;

        data_path(path, "bad/%s.expect", name);
        expected = (char *)load(path, &n);
        expected[n - 1] = '\0';
        data_path(path, "bad/%s", name);
        r = read_all(path, &fault);
        /* The sentence names the file (or, for an index, the shard) and is not cut. */
        if (r < 0 && strstr(fault.text, expected) && strstr(fault.text, "/bad/") &&
            strlen(fault.text) < sizeof(fault.text) - 1)
                return;
        print_message("# %s: %d, '%s', expected: '%s'\n", name, r, fault.text, expected);
        n_bad_accepted++;
}

static void test_bad(void **state) {
        (void)state;
        assert_true(for_each_file("bad", has_expectation, check_bad) > 100);
        assert_int_equal(n_bad_accepted, 0);
}

/* ---- Selecting ---- */

static void test_select(void **state) {
        static const struct {
                const char *file, *name, *selected;
                int r;
                const char *fault;
        } cases[] = {
                { "bert.safetensors", NULL, "embeddings.word_embeddings.weight", 0, NULL },
                { "bert.safetensors", "one.by_one", "one.by_one", 0, NULL },
                { "bert.safetensors", "word_embeddings.weight", NULL, -ENOENT,
                  "near it: 'embeddings.word_embeddings.weight'" },
                { "bert.safetensors", "embeddings.word_embedding.weight", NULL, -ENOENT,
                  "near it: 'embeddings.word_embeddings.weight'" },
                { "bert.safetensors", "wte", NULL, -ENOENT, "no tensor 'wte' among 8" },
                { "bert.safetensors", "", NULL, -ENOENT, "no tensor '' among 8" },
                { "bert.safetensors", "encoder.cube", NULL, -EOPNOTSUPP, "has 3 axes" },
                { "bert.safetensors", "embeddings.position_ids", NULL, -EOPNOTSUPP, "type I64" },
                { "sharded.safetensors.index.json", NULL, "model.embed_tokens.weight", 0, NULL },
                { "sharded.safetensors.index.json", "model.stale.weight", NULL, -ENOENT,
                  "no tensor 'model.stale.weight' among 3" },
                { "types.gguf", NULL, NULL, -ENOENT, "11 tensors can be read, none has the name" },
                { "types.gguf", "q2_k.weight", NULL, -EOPNOTSUPP, "type Q2_K" },
                { "alignment.gguf", NULL, "token_embd.weight", 0, NULL },
                { "length-is-brace.safetensors", NULL, "lookup", 0, NULL },
                { "f4-v1.npy", NULL, "", 0, NULL },
                { "v2.gguf", NULL, NULL, -ENOTUNIQ, "2 tensors may be the embedding" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                _cleanup_(source_freep) struct source *source = open_good(cases[i].file);
                struct fault fault = { 0 };
                size_t candidates[16], n = 0;
                int r = source_select(source, cases[i].name, candidates, &n, &fault);

                if (r != cases[i].r || (r < 0 && !strstr(fault.text, cases[i].fault)))
                        fail_msg("case %zu: %d, '%s'", i, r, fault.text);
                if (r < 0)
                        assert_null(source_selected(source));
                else
                        assert_string_equal(source_selected(source)->name, cases[i].selected);
                assert_int_equal(n, r == -ENOTUNIQ ? 2 : 0);
        }
}

static void test_candidates(void **state) {
        _cleanup_(source_freep) struct source *source = open_good("v2.gguf");
        size_t candidates[16], n = 0;

        (void)state;
        assert_string_equal(source_format(source), "gguf");
        assert_int_equal(source_select(source, NULL, candidates, &n, NULL), -ENOTUNIQ);
        assert_int_equal(n, 2);
        assert_string_equal(source_tensor(source, candidates[0])->name, "token_embd.weight");
        assert_string_equal(source_tensor(source, candidates[1])->name,
                            "per_layer_token_embd.weight");
        assert_string_equal(source_tensor(source, candidates[1])->dtype, "F32");
        assert_int_equal(source_tensor(source, candidates[1])->n_rows, 4);
        assert_int_equal(source_tensor(source, candidates[1])->n_dims, 12);
}

/* ---- Reading ---- */

static void test_pieces(void **state) {
        _cleanup_(source_freep) struct source *source = open_good("bert.safetensors");
        const struct source_tensor *t;
        float whole[5 * 100], piece[5 * 100];
        struct fault fault = { 0 };

        (void)state;
        assert_int_equal(source_select(source, NULL, NULL, NULL, NULL), 0);
        t = source_selected(source);
        assert_int_equal(t->n_rows * t->n_dims, ARRAY_SIZE(whole));
        assert_int_equal(source_read(source, 0, 5, whole, NULL), 0);
        for (size_t first = 0; first <= 5; first++)
                for (size_t n = 0; n <= 5 - first; n++) {
                        assert_int_equal(source_read(source, first, n, piece, NULL), 0);
                        assert_memory_equal(piece, whole + first * 100, n * 100 * sizeof(float));
                }
        assert_int_equal(source_read(source, 3, 3, piece, &fault), -ERANGE);
        assert_non_null(strstr(fault.text, "rows 3 + 3, it has 5"));
        assert_int_equal(source_read(source, UINT64_MAX, 1, piece, NULL), -ERANGE);
        assert_int_equal(source_read(source, 1, SIZE_MAX, piece, NULL), -ERANGE);
}

static void temporary_path(char ret_path[64]) {
        int fd;

        strcpy(ret_path, "/tmp/test-source-XXXXXX");
        fd = mkstemp(ret_path);
        assert_true(fd >= 0);
        close(fd);
}

/* A .npy of f4 of which only the last `n_tail` values are stored; the rest is a hole. */
static void write_sparse_npy(const char *path, uint64_t n_rows, uint32_t n_dims, const float *tail,
                             size_t n_tail) {
        uint64_t data_bytes = n_rows * n_dims * sizeof(float);
        int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        char header[128];
        int n;

        memset(header, ' ', sizeof(header));
        memcpy(header, "\x93NUMPY\1\0\x76\0", 10);
        n = snprintf(header + 10, sizeof(header) - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu32
                     ")}",
                     n_rows, n_dims);
        header[10 + n] = ' ';
        assert_true(fd >= 0);
        assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
        assert_int_equal(ftruncate(fd, (off_t)(sizeof(header) + data_bytes)), 0);
        assert_int_equal(pwrite(fd, tail, n_tail * sizeof(float),
                                (off_t)(sizeof(header) + data_bytes - n_tail * sizeof(float))),
                         n_tail * sizeof(float));
        close(fd);
}

/* 100 million rows, 40 GB: offsets past 32 bits, memory that does not depend on the file. */
static void test_large(void **state) {
        _cleanup_(source_freep) struct source *source = NULL;
        static float rows[1000 * 100], tail[3] = { 1, NAN, 3 };
        struct fault fault = { 0 };
        char path[64];

        (void)state;
        temporary_path(path);
        write_sparse_npy(path, 100000000, 100, tail, ARRAY_SIZE(tail));
        assert_int_equal(source_open(path, &source, NULL), 0);
        unlink(path);
        assert_int_equal(source_select(source, NULL, NULL, NULL, NULL), 0);
        assert_int_equal(source_read(source, 99998000, 1000, rows, NULL), 0);
        assert_int_equal(source_read(source, 99999000, 1000, rows, &fault), -EDOM);
        assert_non_null(strstr(fault.text, "row 99999999, column 98: found NaN"));
        assert_true(rows[1000 * 100 - 1] == 3);
}

static void test_truncated_later(void **state) {
        _cleanup_(source_freep) struct source *source = NULL;
        static const float one = 1;
        struct fault fault = { 0 };
        float rows[8];
        char path[64];

        (void)state;
        temporary_path(path);
        write_sparse_npy(path, 4, 2, &one, 1);
        assert_int_equal(source_open(path, &source, NULL), 0);
        assert_int_equal(source_select(source, NULL, NULL, NULL, NULL), 0);
        assert_int_equal(truncate(path, 128 + 20), 0);
        assert_int_equal(source_read(source, 0, 2, rows, NULL), 0);
        assert_int_equal(source_read(source, 0, 4, rows, &fault), -EBADMSG);
        assert_non_null(strstr(fault.text, "ends at byte 148, had 160 when it was opened"));
        unlink(path);
}

static void *read_many_times(void *argument) {
        struct source *source = argument;
        const struct source_tensor *t = source_selected(source);
        size_t n_values = (size_t)t->n_rows * t->n_dims;
        _cleanup_(freep) float *first = malloc(n_values * sizeof(float));
        _cleanup_(freep) float *again = malloc(n_values * sizeof(float));

        if (source_read(source, 0, (size_t)t->n_rows, first, NULL) < 0)
                return source;
        for (int i = 0; i < 200; i++)
                if (source_read(source, 0, (size_t)t->n_rows, again, NULL) < 0 ||
                    memcmp(first, again, n_values * sizeof(float)) != 0)
                        return source;
        return NULL;
}

static void test_threads(void **state) {
        _cleanup_(source_freep) struct source *source = open_good("types.gguf");
        pthread_t threads[4];

        (void)state;
        assert_int_equal(source_select(source, "q6_k.weight", NULL, NULL, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL, read_many_times, source), 0);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
                void *failed;

                assert_int_equal(pthread_join(threads[i], &failed), 0);
                assert_null(failed);
        }
}

static void test_not_a_file(void **state) {
        struct source *source;
        struct fault fault;
        char path[64];

        (void)state;
        assert_int_equal(source_open("/nonexistent/model.gguf", &source, &fault), -ENOENT);
        assert_string_equal(fault.text,
                            "/nonexistent/model.gguf: cannot open: No such file or directory");
        assert_int_equal(source_open("/", &source, &fault), -EISDIR);
        assert_int_equal(source_open("/dev/zero", &source, &fault), -EINVAL);
        temporary_path(path);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(source_open(path, &source, &fault), -EINVAL); /* and does not hang */
        unlink(path);
}

/* ---- Checkers ---- */

static uint64_t next_random(uint64_t *state) {
        /* splitmix64 */
        uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static source_check_fn *checker(const char *name) {
        return has_suffix(name, ".safetensors") ? safetensors_check
               : has_suffix(name, ".gguf")      ? gguf_check
               : has_suffix(name, ".npy")       ? npy_check
                                                : NULL;
}

static bool has_checker(const char *name) {
        return is_model(name) && checker(name);
}

/* Runs a checker on an exact copy of a prefix, and holds it to what source-impl.h promises. */
static int check_prefix(source_check_fn *check, const uint8_t *bytes, size_t n_bytes,
                        uint64_t file_bytes) {
        _cleanup_(tensor_list_deinit) struct tensor_list list = { 0 };
        _cleanup_(freep) uint8_t *copy = malloc(n_bytes + !n_bytes);
        struct fault fault = { 0 };
        uint64_t need_bytes = 0;
        int r;

        memcpy(copy, bytes, n_bytes);
        r = check(copy, n_bytes, file_bytes, &list, &need_bytes, &fault);
        if (r == -EAGAIN) {
                assert_true(need_bytes > n_bytes);
                assert_true(need_bytes <= file_bytes);
        }
        if (r < 0) {
                assert_true(r == -EAGAIN || r == -EBADMSG || r == -EOPNOTSUPP);
                assert_int_equal(r == -EAGAIN, !*fault.text);
                assert_null(list.tensors);
        }
        for (size_t i = 0; i < list.n_tensors; i++) {
                const struct tensor *t = &list.tensors[i];

                assert_true(range_inside(t->offset, t->n_bytes, file_bytes));
                if (tensor_is_readable(t))
                        assert_int_equal(t->n_bytes, t->info.n_rows * t->info.n_dims /
                                                             t->dtype->block_values *
                                                             t->dtype->block_bytes);
        }
        return r;
}

/* Every length of a header, or some of a long one: as a file cut there, and as a first read. */
static void cut(const char *name) {
        _cleanup_(freep) uint8_t *bytes = NULL;
        size_t n_bytes, padding = has_suffix(name, ".gguf") ? 128 : 0;
        char path[512];

        data_path(path, "good/%s", name);
        bytes = load(path, &n_bytes);
        for (size_t n = 0; n < n_bytes; n += n < 1024 ? 1 : 211) {
                int r = check_prefix(checker(name), bytes, n, n);

                /* A GGUF file ends with padding, which nobody misses. */
                if (r == -EAGAIN || (r >= 0 && n + padding <= n_bytes))
                        fail_msg("%s cut at byte %zu: %d", name, n, r);
                r = check_prefix(checker(name), bytes, n, n_bytes);
                if (r < 0 && r != -EAGAIN)
                        fail_msg("%s, the first %zu bytes: %d", name, n, r);
        }
        assert_int_equal(check_prefix(checker(name), bytes, n_bytes, n_bytes), 0);
}

static void test_cut(void **state) {
        (void)state;
        assert_true(for_each_file("good", has_checker, cut) > 10);
}

static void damage(const char *name) {
        static const uint8_t edges[] = { 0x00, 0x01, 0x7f, 0x80, 0xff, '{', '"', '[', ',', '9' };
        _cleanup_(freep) uint8_t *bytes = NULL, *damaged = NULL;
        uint64_t random = SEED;
        char path[512];
        size_t n_bytes;

        data_path(path, "good/%s", name);
        bytes = load(path, &n_bytes);
        damaged = malloc(n_bytes);
        for (int i = 0; i < 500; i++) {
                memcpy(damaged, bytes, n_bytes);
                for (uint64_t n = 1 + next_random(&random) % 4; n; n--) {
                        size_t at = next_random(&random) % MIN(n_bytes, 1024u);
                        uint64_t kind = next_random(&random);

                        damaged[at] = kind & 1 ? (uint8_t)(kind >> 8)
                                               : edges[(kind >> 8) % sizeof(edges)];
                }
                check_prefix(checker(name), damaged, n_bytes, n_bytes);
        }
}

static void test_damaged(void **state) {
        (void)state;
        print_message("# seed 0x%" PRIx64 "\n", SEED);
        assert_true(for_each_file("good", has_checker, damage) > 10);
}

/* ---- Half-floats: against the definition, value by value ---- */

static void test_half(void **state) {
        (void)state;
        for (uint32_t h = 0; h < 0x10000; h++) {
                uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
                double magnitude = exponent ? ldexp(1024 + mantissa, (int)exponent - 25)
                                            : ldexp(mantissa, -24);
                float value = half_to_float((uint16_t)h);

                assert_int_equal(signbit(value) != 0, h >> 15);
                if (exponent == 31)
                        assert_true(mantissa ? isnan(value) : isinf(value));
                else
                        assert_true(fabs(value) == magnitude);
                if (exponent == 31 && mantissa)
                        assert_int_equal(float_to_half(value), h | 0x200); /* quiet */
                else
                        assert_int_equal(float_to_half(value), h);
        }
}

/* Half-way between neighbours the even one wins; one ulp of f32 to either side decides. */
static void test_half_rounding(void **state) {
        (void)state;
        for (uint32_t h = 0; h < 0x7c00; h++) {
                float low = half_to_float((uint16_t)h);
                float high = h == 0x7bff ? 65536.0f : half_to_float((uint16_t)(h + 1));
                float middle = low + (high - low) / 2;

                assert_int_equal(float_to_half(middle), h + (h & 1));
                assert_int_equal(float_to_half(nextafterf(middle, 0)), h);
                assert_int_equal(float_to_half(nextafterf(middle, INFINITY)), h + 1);
                assert_int_equal(float_to_half(-middle), 0x8000 | (h + (h & 1)));
        }
        for (uint32_t b = 0; b < 0x7f80; b++) {
                uint32_t middle = b << 16 | 0x8000;

                assert_int_equal(float_to_bf16(bf16_to_float((uint16_t)b)), b);
                assert_int_equal(float_to_bf16(float_from_bits(middle)), b + (b & 1));
                assert_int_equal(float_to_bf16(float_from_bits(middle - 1)), b);
                assert_int_equal(float_to_bf16(float_from_bits(middle + 1)), b + 1);
        }
        assert_int_equal(float_to_bf16(float_from_bits(0x7f800001)), 0x7fc0);
        assert_int_equal(float_to_bf16(-INFINITY), 0xff80);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_select),
                cmocka_unit_test(test_candidates),
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_truncated_later),
                cmocka_unit_test(test_threads),
                cmocka_unit_test(test_not_a_file),
                cmocka_unit_test(test_cut),
                cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_half),
                cmocka_unit_test(test_half_rounding),
        };

        data_dir = getenv("CARVQ_TEST_DATA");
        if (!data_dir) {
                fprintf(stderr, "CARVQ_TEST_DATA is not set, expected the path of tests/data\n");
                return EXIT_FAILURE;
        }
        return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See tables.h. The director alone writes the record; clients read it without a lock. A time of
 * publication begins before the file is there and ends after it has gone, so that a client that
 * looks sees too many variants rather than too few, by microseconds.
 */
#include "tables.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/make-table.h"
#include "tools/bench/bench.h"

static const struct {
        const char *name;
        struct table_header header;
        bool is_cut;
} kinds[SOAK_TABLES] = {
        { "plain", { .codec = TABLE_CODEC_F32, .n_rows = 3000, .n_dims = 100 }, false },
        { "bytes", { .codec = TABLE_CODEC_INT8, .n_rows = 5000, .n_dims = 128 }, false },
        { "rvq",
          { .codec = TABLE_CODEC_CARVQ,
            .n_rows = 6001,
            .n_dims = 192,
            .n_stages = 3,
            .codebook_bits = 4,
            .subvector_dims = 8,
            .group_cols = 24,
            .group_rows = 6001 },
          false },
        /* With an adaptor there is a cache. */
        { "adapted",
          { .codec = TABLE_CODEC_CARVQ,
            .n_rows = 4000,
            .n_dims = 96,
            .n_stages = 2,
            .codebook_bits = 4,
            .subvector_dims = 8,
            .group_cols = 12,
            .group_rows = 4000,
            .adaptor_type = TABLE_ADAPTOR_HALF,
            .latent_dims = 8,
            .latent_bits = 16,
            .hidden_dims = { 48 } },
          false },
        { "cut", { .codec = TABLE_CODEC_F16, .n_rows = 4000, .n_dims = 64 }, true },
};

/* ---- Contents ---- */

/* Rows as the library gives them to who asks for nothing special, with no daemon. */
static void decode(const struct soak_table *t, const char *path, uint32_t type, uint8_t *ret_rows) {
        const struct carvq_lookup_options o = { .size = sizeof(o), .type = type };
        uint64_t *ids = allocate(t->n_rows, sizeof(*ids));
        char message[CARVQ_MESSAGE_BYTES] = "";
        carvq_table *table;

        if (carvq_file_open(path, NULL, &table, message) < 0)
                die("%s", message);
        for (uint64_t i = 0; i < t->n_rows; i++)
                ids[i] = i;
        if (carvq_lookup(table, ids, t->n_rows, &o, ret_rows,
                         t->n_rows * t->n_dims * soak_type_bytes(type)) < 0)
                die("%s: %s", path, carvq_table_error(table));
        carvq_table_close(table);
        free(ids);
}

static uint8_t *share(size_t bytes) {
        uint8_t *memory =
                mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
                die("no memory for %zu bytes: %s", bytes, strerror(errno));
        return memory;
}

/* Decoded once, and read-only from then on, for the clients too. */
static void make_variant(struct soak_table *t, uint32_t variant, const struct table_header *header,
                         uint64_t seed) {
        char path[PATH_MAX];

        work_path("variant.carvq", path, sizeof(path));
        make_table_file(path, header, seed);
        for (uint32_t type = CARVQ_F32; type <= CARVQ_BF16; type++) {
                const size_t bytes = t->n_rows * t->n_dims * soak_type_bytes(type);
                uint8_t *rows = share(bytes);

                decode(t, path, type, rows);
                mprotect(rows, bytes, PROT_READ);
                t->rows[variant][type] = rows;
        }
        unlink(path);
        t->file[variant] = make_table(header, seed, &t->file_bytes);
}

/* ---- Files ---- */

static void path_of(const struct tables *tables, uint32_t table, char ret_path[PATH_MAX]) {
        if (snprintf(ret_path, PATH_MAX, "%s/%s.carvq", tables->folder,
                     tables->soak->tables[table].name) >= PATH_MAX)
                die("%s is too long a path", tables->folder);
}

/* As everybody should do it. */
static void put_file(const struct tables *tables, uint32_t table, const uint8_t *bytes,
                     uint64_t n_bytes) {
        char path[PATH_MAX], fresh[PATH_MAX];
        FILE *f;

        path_of(tables, table, path);
        work_path("fresh", fresh, sizeof(fresh));
        f = fopen(fresh, "we");
        if (!f || fwrite(bytes, 1, n_bytes, f) != n_bytes || fclose(f) != 0 ||
            rename(fresh, path) < 0)
                die("%s: %s", path, strerror(errno));
}

static struct soak_publication *last_publication(struct soak_shared_table *s) {
        uint32_t n = atomic_load_explicit(&s->n_publications, memory_order_relaxed);

        return n ? &s->publications[n - 1] : NULL;
}

static void publish(struct tables *tables, uint32_t table, uint32_t variant) {
        struct soak_shared_table *s = &tables->soak->shared->tables[table];
        const struct soak_table *t = &tables->soak->tables[table];
        struct soak_publication *before = last_publication(s);
        uint32_t n = atomic_load_explicit(&s->n_publications, memory_order_relaxed);

        if (n == SOAK_PUBLICATIONS_MAX)
                die("more than %u publications of a table", SOAK_PUBLICATIONS_MAX);
        s->publications[n].variant = variant;
        s->publications[n].from_ns = clock_ns();
        atomic_store_explicit(&s->n_publications, n + 1, memory_order_release);
        put_file(tables, table, t->file[variant], t->file_bytes);
        if (before && !atomic_load_explicit(&before->until_ns, memory_order_relaxed))
                atomic_store_explicit(&before->until_ns, clock_ns(), memory_order_release);
}

/* ---- What is done to them ---- */

static void begin_bad(struct tables *tables, uint32_t table) {
        struct soak_shared_table *s = &tables->soak->shared->tables[table];
        uint64_t now_ns = clock_ns();

        /* One time of failure that has not ended yet is prolonged. */
        if (atomic_load_explicit(&s->bad_until_ns, memory_order_relaxed) < now_ns)
                atomic_store_explicit(&s->bad_from_ns, now_ns, memory_order_relaxed);
        atomic_store_explicit(&s->bad_until_ns, UINT64_MAX, memory_order_release);
}

static void end_bad(struct tables *tables, uint32_t table) {
        struct soak_shared_table *s = &tables->soak->shared->tables[table];

        if (atomic_load_explicit(&s->bad_until_ns, memory_order_relaxed) == UINT64_MAX)
                atomic_store_explicit(&s->bad_until_ns, clock_ns() + tables->soak->grace_ns,
                                      memory_order_release);
}

void tables_replace(struct tables *tables, uint32_t table) {
        struct soak_publication *p = last_publication(&tables->soak->shared->tables[table]);
        uint32_t other = 1 + (uint32_t)soak_below(&tables->soak->random, SOAK_VARIANTS - 1);

        publish(tables, table, (p->variant + other) % SOAK_VARIANTS);
        end_bad(tables, table);
        tables->state[table] = TABLE_SOUND;
        soak_add(tables->soak, SOAK_FILES_REPLACED, 1);
}

/* Another variant, behind a header with one wrong bit or with its end missing: where it is served
 * nevertheless, rows are wrong. */
void tables_damage(struct tables *tables, uint32_t table, uint64_t repair_ns) {
        const struct soak_table *t = &tables->soak->tables[table];
        const struct soak_publication *p = last_publication(&tables->soak->shared->tables[table]);
        uint64_t *random = &tables->soak->random, n_bytes = t->file_bytes, bit;
        uint8_t *bytes = t->file[(p->variant + 1) % SOAK_VARIANTS];

        if (soak_below(random, 2)) {
                n_bytes = soak_below(random, n_bytes);
                put_file(tables, table, bytes, n_bytes);
        } else {
                bit = soak_below(random, sizeof(struct table_header) * 8);
                bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
                put_file(tables, table, bytes, n_bytes);
                bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        tables->state[table] = TABLE_DAMAGED;
        tables->repair_ns[table] = repair_ns;
        soak_add(tables->soak, SOAK_FILES_DAMAGED, 1);
}

/* At a page's end: the rest of a page that is cut in the middle reads as zeros, of which nothing
 * tells that they are not the file's. */
void tables_cut(struct tables *tables, uint32_t table, uint64_t repair_ns) {
        const struct soak_table *t = &tables->soak->tables[table];
        struct soak_publication *p = last_publication(&tables->soak->shared->tables[table]);
        uint64_t n_pages = soak_below(&tables->soak->random, t->file_bytes / 4096);
        char path[PATH_MAX];

        path_of(tables, table, path);
        begin_bad(tables, table);
        if (truncate(path, (off_t)(n_pages * 4096)) < 0)
                die("%s: %s", path, strerror(errno));
        atomic_store_explicit(&p->until_ns, clock_ns(), memory_order_release);
        tables->state[table] = TABLE_CUT;
        tables->repair_ns[table] = repair_ns;
        soak_add(tables->soak, SOAK_FILES_CUT, 1);
}

void tables_repair(struct tables *tables, uint64_t now_ns) {
        for (uint32_t i = 0; i < SOAK_TABLES; i++)
                if (tables->state[i] != TABLE_SOUND && tables->repair_ns[i] <= now_ns)
                        tables_replace(tables, i);
}

void tables_daemon_starts(struct tables *tables) {
        for (uint32_t i = 0; i < SOAK_TABLES; i++)
                if (tables->state[i] == TABLE_DAMAGED)
                        begin_bad(tables, i);
}

void tables_init(struct tables *tables, struct soak *soak) {
        tables->soak = soak;
        work_path("tables", tables->folder, sizeof(tables->folder));
        if (mkdir(tables->folder, 0755) < 0)
                die("%s: %s", tables->folder, strerror(errno));
        for (uint32_t i = 0; i < SOAK_TABLES; i++) {
                struct soak_table *t = &soak->tables[i];

                t->name = kinds[i].name;
                t->n_rows = kinds[i].header.n_rows;
                t->n_dims = kinds[i].header.n_dims;
                t->is_cut = kinds[i].is_cut;
                for (uint32_t v = 0; v < SOAK_VARIANTS; v++)
                        make_variant(t, v, &kinds[i].header,
                                     soak->seed * 64 + i * SOAK_VARIANTS + v);
                publish(tables, i, 0);
        }
}

/* ---- For clients ---- */

bool tables_bad_between(const struct soak *soak, uint32_t table, uint64_t from_ns,
                        uint64_t until_ns) {
        const struct soak_shared_table *s = &soak->shared->tables[table];

        return atomic_load_explicit(&s->bad_until_ns, memory_order_acquire) >= from_ns &&
               atomic_load_explicit(&s->bad_from_ns, memory_order_acquire) <= until_ns;
}

uint32_t tables_published_between(const struct soak *soak, uint32_t table, uint64_t from_ns,
                                  uint64_t until_ns) {
        const struct soak_shared_table *s = &soak->shared->tables[table];
        uint32_t n = atomic_load_explicit(&s->n_publications, memory_order_acquire), mask = 0;

        for (uint32_t i = n; i-- > 0;) {
                const struct soak_publication *p = &s->publications[i];
                uint64_t end_ns = atomic_load_explicit(&p->until_ns, memory_order_acquire);

                if (end_ns && end_ns + soak->grace_ns < from_ns)
                        break; /* and so are all before it */
                if (p->from_ns <= until_ns)
                        mask |= 1u << p->variant;
        }
        return mask;
}

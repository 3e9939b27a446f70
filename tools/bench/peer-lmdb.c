/* SPDX-License-Identifier: Apache-2.0 */
/* LMDB: rows of f16 under integer keys, read through its mapping in one transaction a batch. */
#include "peer.h"

#if HAVE_LMDB
#include <lmdb.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"

/* A value that exceeds half a page takes whole pages of its own. */
#define PAGE_BYTES  4096u
#define SPARE_BYTES (UINT64_C(64) << 20)

static void check(int r, const char *what) {
        if (r != MDB_SUCCESS)
                die("%s: %s", what, mdb_strerror(r));
}

static MDB_env *open_env(const struct peer_world *world, unsigned flags) {
        uint64_t row_bytes = world->n_dims * sizeof(uint16_t);
        char path[PATH_MAX];
        MDB_env *env;

        work_path("rows.lmdb", path, sizeof(path));
        check(mdb_env_create(&env), "mdb_env_create");
        check(mdb_env_set_mapsize(env, world->n_rows * 2 * align_up(row_bytes + 16, PAGE_BYTES) +
                                               SPARE_BYTES),
              "mdb_env_set_mapsize");
        check(mdb_env_open(env, path, flags | MDB_NOSUBDIR, 0600), path);
        return env;
}

struct writing {
        MDB_env *env;
        MDB_dbi dbi;
        size_t row_bytes;
};

static void put(void *userdata, uint64_t first, size_t n_rows, const void *rows) {
        struct writing *w = userdata;
        MDB_txn *txn;

        check(mdb_txn_begin(w->env, NULL, 0, &txn), "mdb_txn_begin");
        check(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &w->dbi), "mdb_dbi_open");
        for (size_t i = 0; i < n_rows; i++) {
                size_t id = first + i;
                MDB_val key = { sizeof(id), &id };
                MDB_val value = { w->row_bytes, (uint8_t *)rows + i * w->row_bytes };

                check(mdb_put(txn, w->dbi, &key, &value, MDB_APPEND), "mdb_put");
        }
        check(mdb_txn_commit(txn), "mdb_txn_commit");
}

static bool set_up(struct peer_world *world, struct fault *ret_why) {
        struct writing w = { .env = open_env(world, MDB_NOSYNC | MDB_WRITEMAP),
                             .row_bytes = world->n_dims * sizeof(uint16_t) };

        (void)ret_why;
        peer_world_each(world, CODEC_TYPE_F16, put, &w);
        mdb_env_close(w.env);
        return true;
}

struct lmdb_peer {
        struct peer_world *world;
        MDB_env *env;
        MDB_txn *txn; /* reset between batches */
        MDB_dbi dbi;
};

static void *open_peer(struct peer_world *world) {
        struct lmdb_peer *p = allocate(1, sizeof(*p));

        p->world = world;
        p->env = open_env(world, MDB_RDONLY | MDB_NORDAHEAD);
        check(mdb_txn_begin(p->env, NULL, MDB_RDONLY, &p->txn), "mdb_txn_begin");
        check(mdb_dbi_open(p->txn, NULL, MDB_INTEGERKEY, &p->dbi), "mdb_dbi_open");
        mdb_txn_reset(p->txn);
        return p;
}

static void get(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                struct peer_rows *ret_rows) {
        struct lmdb_peer *p = handle;

        check(mdb_txn_renew(p->txn), "mdb_txn_renew");
        for (size_t i = 0; i < n_ids; i++) {
                size_t id = ids[i];
                MDB_val key = { sizeof(id), &id }, value;

                check(mdb_get(p->txn, p->dbi, &key, &value), "mdb_get");
                if (value.mv_size != p->world->n_dims * sizeof(uint16_t))
                        die("LMDB: row %zu has %zu bytes", id, value.mv_size);
                peer_deliver(p->world, value.mv_data, (uint8_t *)buffer + i * p->world->row_bytes);
        }
        mdb_txn_reset(p->txn);
        *ret_rows = (struct peer_rows){ buffer, p->world->row_bytes };
}

static void close_peer(void *handle) {
        struct lmdb_peer *p = handle;

        mdb_txn_abort(p->txn);
        mdb_env_close(p->env);
        free(p);
}

static void tear_down(void) {
        char path[PATH_MAX];

        work_path("rows.lmdb", path, sizeof(path));
        unlink(path);
}

const struct peer peer_lmdb = {
        .name = "LMDB, f16",
        .set_up = set_up,
        .open = open_peer,
        .get = get,
        .close = close_peer,
        .tear_down = tear_down,
};
#else
const struct peer peer_lmdb = {
        .name = "LMDB, f16",
        .missing = "built without liblmdb (Debian: liblmdb-dev)",
};
#endif

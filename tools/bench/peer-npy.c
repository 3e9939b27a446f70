/* SPDX-License-Identifier: Apache-2.0 */
/* A .npy file, mapped: no copy but the one to the caller, no server, no compression. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "npy-rows.h"
#include "peer.h"

struct npy_peer {
        struct peer_world *world;
        struct npy_rows rows;
};

static const char *const names[] = { [NPY_F32] = "f32.npy", [NPY_F16] = "f16.npy" };

struct writing {
        FILE *f;
        size_t row_bytes;
};

static void put(void *userdata, uint64_t first, size_t n_rows, const void *rows) {
        struct writing *w = userdata;

        (void)first;
        if (fwrite(rows, w->row_bytes, n_rows, w->f) != n_rows)
                die("writing a .npy file: %s", strerror(errno));
}

static bool set_up(struct peer_world *world, enum npy_type type) {
        uint8_t values = type == NPY_F16 ? CODEC_TYPE_F16 : CODEC_TYPE_F32;
        struct writing w = { .row_bytes = world->n_dims * codec_type_bytes(values) };
        char path[PATH_MAX];

        work_path(names[type], path, sizeof(path));
        w.f = npy_create(path, type, world->n_rows, world->n_dims);
        peer_world_each(world, values, put, &w);
        if (fclose(w.f))
                die("%s: %s", path, strerror(errno));
        return true;
}

static bool set_up_f32(struct peer_world *world, struct fault *ret_why) {
        (void)ret_why;
        return set_up(world, NPY_F32);
}

static bool set_up_f16(struct peer_world *world, struct fault *ret_why) {
        (void)ret_why;
        return set_up(world, NPY_F16);
}

static void *open_type(struct peer_world *world, enum npy_type type) {
        struct npy_peer *p = allocate(1, sizeof(*p));
        char path[PATH_MAX];

        p->world = world;
        work_path(names[type], path, sizeof(path));
        npy_open(&p->rows, path, type, world->n_rows, world->n_dims);
        return p;
}

static void *open_f32(struct peer_world *world) {
        return open_type(world, NPY_F32);
}

static void *open_f16(struct peer_world *world) {
        return open_type(world, NPY_F16);
}

static void get(void *handle, const uint64_t *ids, size_t n_ids, void *buffer,
                struct peer_rows *ret_rows) {
        struct npy_peer *p = handle;

        npy_gather(&p->rows, ids, n_ids, p->world->type, buffer);
        *ret_rows = (struct peer_rows){ buffer, p->world->row_bytes };
}

static void close_rows(void *handle) {
        struct npy_peer *p = handle;

        npy_close(&p->rows);
        free(p);
}

static void tear_down(enum npy_type type) {
        char path[PATH_MAX];

        work_path(names[type], path, sizeof(path));
        unlink(path);
}

static void tear_down_f32(void) {
        tear_down(NPY_F32);
}

static void tear_down_f16(void) {
        tear_down(NPY_F16);
}

const struct peer peer_npy_f32 = {
        .name = "f32 .npy, mmap",
        .set_up = set_up_f32,
        .open = open_f32,
        .get = get,
        .close = close_rows,
        .tear_down = tear_down_f32,
};

const struct peer peer_npy_f16 = {
        .name = "f16 .npy, mmap",
        .set_up = set_up_f16,
        .open = open_f16,
        .get = get,
        .close = close_rows,
        .tear_down = tear_down_f16,
};

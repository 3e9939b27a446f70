/* SPDX-License-Identifier: Apache-2.0 */
/* See target.h. */
#include "target.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tools/carvqctl/varlink-client.h"

#define STATUS_TIMEOUT_S 10

int target_find(const char *control_path, pid_t *ret_pid, struct fault *ret_fault) {
        _cleanup_(freep) char *buffer = NULL, *error = NULL;
        const char *path = control_path ? control_path : varlink_client_default_path(&buffer);
        json_t *reply = NULL;
        json_int_t pid;
        int r;

        r = varlink_client_call(path, "io.carvq.Control.GetStatus", NULL, STATUS_TIMEOUT_S, &error,
                                &reply, ret_fault);
        if (r < 0)
                return r;
        pid = json_integer_value(json_object_get(reply, "pid"));
        json_decref(reply);
        if (error || pid <= 0 || pid > INT32_MAX)
                return fault_set(ret_fault, -EPROTO, "%s: does not say which process it is", path);
        *ret_pid = (pid_t)pid;
        return 0;
}

/* ---- Files ---- */

void target_files_deinit(struct target_files *files) {
        for (uint32_t i = 0; i < files->n; i++)
                free(files->list[i].path);
        files->n = 0;
}

/* A terminal would obey what a file's name may contain. */
static void make_printable(char *path) {
        for (; *path; path++)
                if ((unsigned char)*path < ' ' || *path == 0x7f)
                        *path = '?';
}

/* False: the line is no mapping of a table. Those, and only those, are shared and read-only. */
static bool parse_line(char *line, struct target_file *ret_file) {
        struct target_file f = { 0 };
        char permissions[5];
        int path_at = 0;

        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64 " %n", &f.start, &f.end,
                   permissions, &f.major, &f.minor, &f.inode, &path_at) < 6 ||
            strcmp(permissions, "r--s") || line[path_at] != '/' ||
            !strncmp(line + path_at, "/memfd:", 7))
                return false;
        f.path = line + path_at;
        make_printable(f.path);
        *ret_file = f;
        return true;
}

static bool is_same_file(const struct target_file *a, const struct target_file *b) {
        return a->inode == b->inode && a->major == b->major && a->minor == b->minor;
}

/* The one that is known already, or a new one. NULL: there are too many. A file that was replaced
 * or removed since has got another path, which says so. */
static struct target_file *find_or_add(struct target_files *files, const struct target_file *seen) {
        struct target_file *f;
        uint32_t i = 0;
        char *path;

        while (i < files->n &&
               (files->list[i].start != seen->start || files->list[i].end != seen->end ||
                !is_same_file(&files->list[i], seen)))
                i++;
        f = &files->list[i];
        if (i < files->n && !strcmp(f->path, seen->path))
                return f;
        path = i < FILES_N ? strdup(seen->path) : NULL;
        if (!path)
                return NULL;
        if (i < files->n)
                free(f->path);
        else
                files->n++;
        *f = *seen;
        f->path = path;
        return f;
}

static void publish(struct ranges *ranges, const struct range *list, uint32_t n) {
        uint32_t active = ranges->active;

        if (ranges->n[active] == n && !memcmp(ranges->list[active], list, n * sizeof(*list)))
                return;
        memcpy(ranges->list[!active], list, n * sizeof(*list));
        ranges->n[!active] = n;
        /* The list is written before a program can be told to look at it. Who still looks at the
         * other one has until the next change. */
        atomic_thread_fence(memory_order_release);
        *(volatile __u32 *)&ranges->active = !active;
}

/* A file whose parts were advised or locked differently shows as several mappings, each of which
 * has a number here; the report adds them up. */
int target_files_refresh(struct target_files *files, struct ranges *ranges,
                         struct fault *ret_fault) {
        struct range list[FILES_N] = { 0 };
        _cleanup_(freep) char *line = NULL;
        struct target_file seen, *file;
        uint64_t n_unwatched = 0;
        size_t size = 0;
        uint32_t n = 0;
        char path[32];
        FILE *maps;

        snprintf(path, sizeof(path), "/proc/%d/maps", files->pid);
        maps = fopen(path, "re");
        if (!maps)
                return fault_set(ret_fault, -errno, "%s: %s", path, strerror(errno));
        while (getline(&line, &size, maps) > 0) {
                if (!parse_line(line, &seen))
                        continue;
                file = find_or_add(files, &seen);
                if (file && n < FILES_N)
                        list[n++] = (struct range){ seen.start, seen.end,
                                                    (uint32_t)(file - files->list), 0 };
                else
                        n_unwatched++;
        }
        fclose(maps);
        files->n_unwatched = MAX(files->n_unwatched, n_unwatched);
        publish(ranges, list, n);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* carvqctl load NAME PATH. The daemon opens the file, with its own rights. */
#include <stdio.h>

#include "carvqctl.h"
#include "format.h"

/* The daemon's working directory is not ours. Links stay: whether they hold is its business. */
static int make_absolute(const char *path, char **ret_path) {
        _cleanup_(freep) char *directory = path[0] == '/' ? NULL : getcwd(NULL, 0);

        if (path[0] != '/' && !directory)
                return -errno;
        if (asprintf(ret_path, "%s%s%s", directory ? directory : "", directory ? "/" : "", path) <
            0)
                return -ENOMEM;
        return 0;
}

int verb_load(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        _cleanup_(freep) char *path = NULL;
        const char *name = ctl->arguments[0];
        json_t *parameters;
        int r;

        if (make_absolute(ctl->arguments[1], &path) < 0) {
                complain("%s: the current directory is not known", ctl->arguments[1]);
                return EXIT_USAGE;
        }
        parameters = json_pack("{ss ss}", "name", name, "path", path);
        if (!parameters) {
                complain("name and path must be UTF-8");
                return EXIT_USAGE;
        }
        r = control_call(ctl, "LoadTable", parameters, &reply);
        if (r != EXIT_OK)
                return r;
        if (ctl->json)
                return print_json(reply);
        printf("Loaded %s from %s, generation %" PRIu64 "\n", name, path,
               field_number(reply, "generation"));
        return EXIT_OK;
}

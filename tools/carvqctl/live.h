/* SPDX-License-Identifier: Apache-2.0 */
/* What `top` and `stats --watch` have in common: a sample each interval, shown on a live screen. */
#pragma once

#include "sample.h"
#include "screen.h"

struct live {
        const struct carvqctl *ctl;
        struct sample sample; /* the newest that there is */
        struct fault fault;   /* why there is no newer one, else empty */
        /* The whole frame, for a screen of that size. */
        void (*write)(const struct live *live, const struct screen *screen, FILE *out);
        /* May be NULL; 'q' ends without it. */
        void (*press)(struct live *live, const struct screen *screen, int key);
};

/* Until q or a signal; while the daemon is gone it is asked again each interval. An exit status. */
int live_run(struct live *live);

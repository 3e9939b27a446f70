/* SPDX-License-Identifier: Apache-2.0 */
#include "outcome.h"

#include <stdio.h>

#include "bench.h"

json_t *outcome_new(const char *bench, const char *kernels, const char *cache) {
        char machine[256];
        json_t *outcome;

        machine_name(machine, sizeof(machine));
        outcome = json_pack("{ss, ss, ss, ss, ss, s[]}", "bench", bench, "version", CARVQ_VERSION,
                            "machine", machine, "kernels", kernels, "cache", cache, "targets");
        if (!outcome)
                die("out of memory");
        return outcome;
}

void outcome_target(json_t *outcome, const struct outcome_target *t) {
        bool pass = t->at_least ? t->value >= t->limit : t->value <= t->limit;
        json_t *object, *sides = json_array();

        for (size_t i = 0; i < ARRAY_SIZE(t->sides) && t->sides[i].name; i++)
                json_array_append_new(sides,
                                      json_pack("{ss, sf, ss}", "name", t->sides[i].name, "value",
                                                t->sides[i].value, "unit", t->sides[i].unit));
        object = json_pack("{ss, ss, sf, ss, sf, sb, so}", "measure", t->measure, "target",
                           t->target, "value", t->value, "unit", t->unit, "limit", t->limit, "pass",
                           pass, "sides", sides);
        if (!object || json_array_append_new(json_object_get(outcome, "targets"), object) < 0)
                die("out of memory");
        printf("%-5s %s: %.3g %s, target %s\n", pass ? "pass" : "short", t->measure, t->value,
               t->unit, t->target);
}

void outcome_write(const json_t *outcome, const char *path) {
        if (path && json_dump_file(outcome, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0)
                die("%s: cannot be written", path);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See sample.h. */
#include "sample.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "format.h"

double monotonic_seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of numbers that are not trusted: without a sign nothing overflows. */
static double difference(const json_t *now, const json_t *before) {
        return (double)(int64_t)((uint64_t)json_integer_value(now) -
                                 (uint64_t)json_integer_value(before));
}

/*
 * Each counter in `now`, by second, in objects of the same shape. What is not in `before` started
 * at 0 since. Objects that are measured hold no counters.
 */
static json_t *rates_of(const json_t *now, const json_t *before, double seconds) {
        json_t *rates = json_object(), *member;
        const char *key;

        json_object_foreach((json_t *)now, key, member) {
                const json_t *old = json_object_get(before, key);

                if (json_is_object(member) && strcmp(key, "measured"))
                        json_object_set_new(rates, key, rates_of(member, old, seconds));
                else if (json_is_integer(member))
                        json_object_set_new(rates, key,
                                            json_real(difference(member, old) / seconds));
        }
        return rates;
}

static void add_rates(json_t *item, const json_t *before, double seconds) {
        static const char *const parts[] = { "stats", "cache", "claimed" };
        json_t *rates = seconds > 0 ? json_object() : json_null();

        for (size_t i = 0; seconds > 0 && i < ARRAY_SIZE(parts); i++) {
                const json_t *part = json_object_get(item, parts[i]);

                if (json_is_object(part))
                        json_object_set_new(
                                rates, parts[i],
                                rates_of(part, json_object_get(before, parts[i]), seconds));
        }
        /* What a cache consists of does not count anything. */
        json_object_del(json_object_get(rates, "cache"), "cache_bytes");
        json_object_del(json_object_get(rates, "cache"), "n_slots");
        json_object_set_new(item, "rates", rates);
}

/* The same generation of a table, the same session of a client: no number is used twice. */
static const json_t *find_item(const json_t *list, const char *id_path, uint64_t id) {
        const json_t *item;
        size_t i;

        json_array_foreach(list, i, item) if (field_number(item, id_path) == id) return item;
        return NULL;
}

static void add_all_rates(const json_t *list, const json_t *before, const char *id_path,
                          double seconds) {
        json_t *item;
        size_t i;

        json_array_foreach(list, i, item)
                add_rates(item, find_item(before, id_path, field_number(item, id_path)), seconds);
}

int sample_take(const struct carvqctl *ctl, int timeout_s, struct sample *sample,
                struct fault *ret_fault) {
        _cleanup_(json_decrefp) json_t *status = NULL, *stats = NULL;
        json_t *parameters = NULL;
        double now, seconds = 0;
        int r;

        if (ctl->n_arguments) {
                parameters = json_pack("{ss}", "table", ctl->arguments[0]);
                if (!parameters) {
                        fault_write(ret_fault, "the table's name must be UTF-8");
                        return EXIT_USAGE;
                }
        }
        r = control_try(ctl, "GetStats", parameters, timeout_s, &stats, ret_fault);
        now = monotonic_seconds();
        if (r == EXIT_OK)
                r = control_try(ctl, "GetStatus", NULL, timeout_s, &status, ret_fault);
        if (r != EXIT_OK)
                return r;
        if (sample->status &&
            !strcmp(field_text(status, "epoch"), field_text(sample->status, "epoch")))
                seconds = now - sample->time_s;
        add_all_rates(field(stats, "tables"), field(sample->stats, "tables"), "table.generation",
                      seconds);
        add_all_rates(field(stats, "clients"), field(sample->stats, "clients"), "client.session",
                      seconds);
        sample_deinit(sample);
        *sample = (struct sample){ .status = steal_pointer(&status),
                                   .stats = steal_pointer(&stats),
                                   .time_s = now,
                                   .seconds = seconds };
        return EXIT_OK;
}

void sample_deinit(struct sample *sample) {
        json_decref(sample->status);
        json_decref(sample->stats);
        *sample = (struct sample){ 0 };
}

double sample_hit_fraction(const json_t *item) {
        double hits = field_real(item, "rates.cache.claimed.n_hits");
        double all = hits + field_real(item, "rates.cache.counted.n_misses");

        return all > 0 ? hits / all : NAN;
}

double sample_saved_fraction(const json_t *item) {
        double full = field_real(item, "rates.stats.modelled.full_f16.table_read_bytes");

        return full > 0 ? 1 - field_real(item, "rates.stats.counted.table_read_bytes") / full : NAN;
}

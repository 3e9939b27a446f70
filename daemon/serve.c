/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <sys/socket.h>

#include "guard.h"
#include "probes.h"
#include "proto/spin.h"

/*
 * What a round may cost, in values of rows that are written: tens of microseconds, which is as long
 * as a small lookup may have to wait for large ones. What an adaptor costs depends on the kernel,
 * the batch and the cache by orders of magnitude, so it is learned, and guessed until then.
 */
#define ROUND_COST        INT64_C(131072)
#define ROUND_NS          50000u
#define WEIGHTS_PER_VALUE 16u

/* A seat gets this much even when others have used the round up: after a quiet one nobody knows how
 * many will come. */
#define SHARE_MIN (ROUND_COST / 64)

/*
 * A job that a round does not end goes on when its seat has saved this much: so each of many seats
 * gets some dozen rows at a time, less often, and not a row in each round. Rows side by side are
 * twice as fast as the same rows in many clients' memories.
 */
#define RUN_COST INT64_C(32768)

/*
 * Small submissions of one seat are taken together, until they are this much: enough to hide the
 * cost of a look, so little that rows are not held back for others of the same client.
 */
#define GATHER_COST INT64_C(16384)

void serve_init(struct serve *serve, const struct codec_kernels *kernels, struct loop_io *io) {
        *serve = (struct serve){ .left = ROUND_COST, .io = io };
        SLIST_INIT(&serve->pool.jobs);
        codec_context_init(&serve->context, kernels);
}

void serve_deinit(struct serve *serve) {
        codec_context_deinit(&serve->context);
        fill_deinit(&serve->fill);
        job_pool_deinit(&serve->pool);
}

int serve_reserve(struct serve *serve, const struct store_table *table) {
        int r;

        r = codec_context_reserve(&serve->context, &table->file.table);
        if (r >= 0 && table->cache)
                r = fill_reserve(&serve->fill, table->cache);
        return r;
}

/* ---- Request, table ---- */

/* Seats that have work are usually those that had some in the round before. If all that they did
 * was to save, or to pay debts, they get at once what that takes. */
void serve_begin(struct serve *serve) {
        serve->share = ROUND_COST / (serve->left < ROUND_COST ? serve->n_turns : 1u);
        serve->left = ROUND_COST;
        serve->n_turns = serve->n_jobs = 0;
        serve->now_ns = clock_ns();
}

bool serve_full(const struct serve *serve) {
        return serve->n_jobs == SERVE_JOBS_MAX || serve->n_turns == SERVE_JOBS_MAX;
}

static struct store_table *find_table(struct seat *seat, uint64_t handle) {
        struct serve_slot *slot = &seat->slots[handle % WIRE_TABLES_MAX];

        return handle && slot->handle == handle ? slot->table : NULL;
}

/* What the client found in caches since it last asked for a row: any numbers. */
static void take_hints(struct seat *seat) {
        const struct ring_cache_use *use = seat->ring.cache_use;
        /* Acquire pairs with the client's release: the hints are there. */
        uint64_t n = atomic_load_explicit(&use->n_hints, memory_order_acquire);

        for (uint64_t i = n - MIN(n - seat->n_hints, RING_HINTS_N); i != n; i++) {
                uint64_t hint =
                        atomic_load_explicit(&use->hints[i % RING_HINTS_N], memory_order_relaxed);
                const struct store_table *table = seat->slots[(hint >> 32) % WIRE_TABLES_MAX].table;

                if (table && table->cache)
                        cache_hint(table->cache, (uint32_t)hint);
        }
        seat->n_hints = n;
}

/* NULL without memory; the submission then stays where it is. */
static struct job *take_job(struct serve *serve, struct seat *seat) {
        struct job *job = job_new(&serve->pool);
        struct ring_submission s;

        if (!job)
                return NULL;
        ring_server_take(&seat->ring, &s);
        job_prepare(job, &seat->ring, find_table(seat, s.table), &s, serve->now_ns);
        probe_submit(job, seat, job->table ? job->table->generation : 0, s.n_ids, job->start_ns);
        seat->start_ns = job->start_ns;
        if (job->table && job->table->cache)
                take_hints(seat);
        return job;
}

static int64_t cost_of_row(const struct store_table *table) {
        const struct table_contents *c = &table->file.table.contents;
        int64_t ns = atomic_load_explicit(&table->row_ns, memory_order_relaxed);

        if (!c->header.latent_dims)
                return c->header.n_dims;
        return c->header.n_dims + (ns ? ns * ROUND_COST / ROUND_NS
                                      : (int64_t)(c->layout.n_weights / WEIGHTS_PER_VALUE));
}

/* How many of the job's ids the seat can pay for in this round: all, or a run of them, or none. */
static uint64_t affordable(const struct serve *serve, const struct seat *seat,
                           const struct job *job, int64_t cost) {
        int64_t credit = serve->left > 0 ? seat->credit : MIN(seat->credit, SHARE_MIN);
        uint64_t n_ids;

        if ((int64_t)job->n_ids_left * cost <= credit)
                return job->n_ids_left;
        if (credit < RUN_COST)
                return 0;
        n_ids = MIN((uint64_t)MAX(credit / cost, 1), job->n_ids_left);
        /* The adaptor's last batch should be a full one. */
        if (job->table->file.table.contents.header.latent_dims && n_ids > CODEC_BATCH_ROWS)
                n_ids -= n_ids % CODEC_BATCH_ROWS;
        return n_ids;
}

/* Gives the job what ids its seat can pay for. Returns how many. */
static uint64_t add_job(struct serve *serve, struct seat *seat, struct job *job) {
        uint64_t n_ids = 0;

        if (!job_done(job)) {
                int64_t cost = cost_of_row(job->table);

                n_ids = affordable(serve, seat, job, cost);
                /* Only what outlives the round holds memory for long; most jobs do not. */
                if (n_ids < job->n_ids_left && !job->n_ids_charged) {
                        job->n_ids_charged = job->n_ids_left;
                        quota_ids_take(seat->ids_quota, job->n_ids_charged);
                }
                seat->credit -= (int64_t)n_ids * cost;
                serve->left -= (int64_t)n_ids * cost;
        }
        job->piece.n_ids_max = n_ids;
        job->piece.cost = (struct codec_cost){ 0 };
        job->n_ids_left -= n_ids;
        serve->jobs[serve->n_jobs++] = job;
        return n_ids;
}

/* Submissions that wait, while small ones are worth gathering. A job that this round does not end
 * is the last of its seat: completions stay in order. */
static void gather(struct serve *serve, const struct serve_turn *turn, uint32_t n_pending,
                   uint64_t n_ids) {
        struct seat *seat = turn->seat;
        const int64_t credit = seat->credit;

        for (; n_pending; n_pending--) {
                bool cut =
                        serve->n_jobs > turn->first && serve->jobs[serve->n_jobs - 1]->n_ids_left;
                bool enough = n_ids >= CODEC_BATCH_ROWS && credit - seat->credit >= GATHER_COST;
                struct job *job;

                if (cut || enough || seat->credit <= 0 || serve_full(serve) ||
                    serve->n_jobs - turn->first == turn->n_room || quota_ids_over(seat->ids_quota))
                        return;
                job = take_job(serve, seat);
                if (!job)
                        return;
                n_ids += add_job(serve, seat, job);
        }
}

int serve_take(struct serve *serve, struct seat *seat, struct fault *ret_fault) {
        struct serve_turn *turn = &serve->turns[serve->n_turns];
        uint32_t n_room, n_pending;
        int r;

        r = ring_server_room(&seat->ring, &n_room, ret_fault);
        if (r >= 0)
                r = ring_server_pending(&seat->ring, &n_pending, ret_fault);
        if (r < 0)
                return r;
        if (seat->takes_nothing)
                n_pending = 0;
        /* Nothing starts that could not end: a client that does not reap holds up only itself. */
        if (n_room == 0 || (!seat->job && n_pending == 0)) {
                seat->credit = MIN(seat->credit, 0);
                return SERVE_IDLE;
        }
        if (!seat->job && quota_ids_over(seat->ids_quota)) {
                seat->credit = MIN(seat->credit, 0);
                return SERVE_HELD;
        }

        *turn = (struct serve_turn){ .seat = seat, .n_room = n_room, .first = serve->n_jobs };
        serve->n_turns++;
        seat->credit = MIN(seat->credit + serve->share, ROUND_COST);
        if (seat->credit <= 0)
                return SERVE_WORKED; /* a row that cost more than its share is paid for first */
        gather(serve, turn, n_pending, seat->job ? add_job(serve, seat, seat->job) : 0);
        turn->n_jobs = serve->n_jobs - turn->first;
        return SERVE_WORKED;
}

/* ---- Decode ---- */

struct group {
        struct serve *serve;
        const struct codec_table *table;
        uint32_t n_pieces;
};

/* Runs under the guard: owns nothing. */
static void decode_group(void *userdata) {
        struct group *group = userdata;

        codec_decode(&group->serve->context, group->table, group->serve->pieces, group->n_pieces);
}

static bool belongs(const struct job *job, const struct store_table *table) {
        return job->table == table && job->piece.n_ids_max && job->status == RING_STATUS_OK;
}

/* A piece for each of its jobs, from the first on, and one for its cache. */
static uint32_t add_pieces(struct serve *serve, struct store_table *table, uint32_t first) {
        uint32_t n = 0;

        for (uint32_t i = first; i < serve->n_jobs; i++) {
                if (!belongs(serve->jobs[i], table))
                        continue;
                serve->pieces[n++] = serve->jobs[i]->piece;
                if (table->cache)
                        fill_look(&serve->fill, table->cache, serve->jobs[i]);
        }
        if (table->cache && fill_piece(&serve->fill, table->cache, &serve->pieces[n]))
                n++;
        return n;
}

/* The rows are not a client's, but reading them is the table's expense. */
static void fill_cache(struct serve *serve, struct store_table *table,
                       const struct codec_piece *piece, bool sound) {
        struct codec_cost cost = piece->cost;

        cost.bytes_written = 0;
        stats_add_piece(&table->stats, &cost, 0, table->cache->layout.n_dims);
        fill_finish(&serve->fill, table->cache, sound);
}

/* The ids of all jobs of one table, from the first such job on, as one stream. */
static void decode_table(struct serve *serve, struct store_table *table, uint32_t first) {
        struct group group = { .serve = serve, .table = &table->file.table };
        uint32_t n = 0;
        bool sound;

        group.n_pieces = add_pieces(serve, table, first);
        probe_decode_start(table->generation, table->file.map, group.n_pieces);
        sound = guard_run(table->file.map, table->file.map_bytes, decode_group, &group);
        probe_decode_end(table->generation, group.n_pieces, sound);
        if (!sound)
                store_table_fail(table);
        if (serve->fill.n_ids)
                fill_cache(serve, table, &serve->pieces[group.n_pieces - 1], sound);
        for (uint32_t i = first; i < serve->n_jobs; i++) {
                struct job *job = serve->jobs[i];

                if (!belongs(job, table))
                        continue;
                job->piece = serve->pieces[n++];
                job->piece.n_ids_max = 0; /* had its share */
                if (!sound)
                        job->status = RING_STATUS_RETIRED;
        }
}

/* ---- Completion ---- */

static void count_piece(struct seat *seat, struct job *job) {
        uint64_t n_fresh = job->piece.n_rows - job->n_counted;
        uint32_t n_dims = job->table->file.table.contents.header.n_dims;

        stats_add_piece(&seat->stats, &job->piece.cost, n_fresh, n_dims);
        stats_add_piece(&job->table->stats, &job->piece.cost, n_fresh, n_dims);
        job->n_counted = (uint32_t)job->piece.n_rows;
}

/* What the client has not been told of; `flags` and status as they are. */
static void tell(struct seat *seat, struct job *job, uint32_t flags) {
        ring_server_complete(&seat->ring,
                             &(struct ring_completion){
                                     .user_data = job->user_data,
                                     .status = job->status,
                                     .flags = flags,
                                     .row_first = job->n_completed,
                                     .n_rows = (uint32_t)job->piece.n_rows - job->n_completed,
                                     .detail = job->detail,
                             });
        job->n_completed = (uint32_t)job->piece.n_rows;
}

static void drop_job(struct serve *serve, struct seat *seat, struct job *job) {
        quota_ids_give(seat->ids_quota, job->n_ids_charged);
        seat->job = job_free(&serve->pool, job);
}

static void end_job(struct serve *serve, struct seat *seat, struct job *job, uint64_t now_ns) {
        stats_add_lookup(&seat->stats, job->status, now_ns - job->start_ns);
        if (job->table)
                stats_add_lookup(&job->table->stats, job->status, now_ns - job->start_ns);
        tell(seat, job, 0);
        probe_complete(job, seat, job->status, job->n_completed, now_ns - job->start_ns);
        drop_job(serve, seat, job);
}

static void complete(struct serve *serve, struct serve_turn *turn, uint64_t now_ns) {
        struct seat *seat = turn->seat;

        for (uint32_t i = 0; i < turn->n_jobs; i++) {
                struct job *job = serve->jobs[turn->first + i];

                /* Before the client can know of it: whoever then asks for statistics finds it
                 * counted. */
                if (job->table)
                        count_piece(seat, job);
                if (job_done(job)) {
                        end_job(serve, seat, job, now_ns);
                        turn->n_room--;
                        continue;
                }
                seat->job = job;
                /* The last entry is kept for the end; rows that find no room travel with the next
                 * ones. */
                if ((job->flags & RING_SUBMISSION_PIECES) && turn->n_room >= 2 &&
                    job->piece.n_rows > job->n_completed)
                        tell(seat, job, RING_COMPLETION_MORE);
        }
        turn->wakes = turn->n_jobs && ring_server_publish(&seat->ring);
}

/* ---- Wake-ups ---- */

#define WAKE_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

/* What becomes of one is nobody's news: a client that is gone is found out by the loop. */
static void send_wake(const struct seat *seat) {
        probe_wake(seat);
        (void)send(seat->ring.socket_fd, &ring_server_wake, sizeof(ring_server_wake), WAKE_FLAGS);
}

static void queue_wake(struct serve *serve, const struct seat *seat) {
        if (!loop_io_has_room(serve->io)) {
                send_wake(seat);
                return;
        }
        probe_wake(seat);
        io_uring_prep_send(loop_io_prepare(serve->io, NULL), seat->ring.socket_fd,
                           &ring_server_wake, sizeof(ring_server_wake), WAKE_FLAGS);
}

/*
 * All of a round's in one system call: at the end of each call the kernel may give the CPU to whom
 * it has woken, and this thread would be back only after each of its clients. They go out now and
 * not when the worker next submits, as a seat that is released then has no socket any more.
 */
static void wake_clients(struct serve *serve) {
        const struct seat *sleeper = NULL;
        bool several = false;

        for (uint32_t i = 0; i < serve->n_turns; i++) {
                if (!serve->turns[i].wakes)
                        continue;
                if (sleeper) {
                        queue_wake(serve, sleeper);
                        several = true;
                }
                sleeper = serve->turns[i].seat;
        }
        if (sleeper && !several) {
                send_wake(sleeper);
        } else if (sleeper) {
                queue_wake(serve, sleeper);
                loop_io_submit(serve->io);
        }
}

/* A round for one table alone says what its rows cost. One that was disturbed counts for little. */
static void learn_cost(const struct serve *serve, uint64_t round_ns) {
        struct store_table *table = serve->n_jobs ? serve->jobs[0]->table : NULL;
        uint64_t n_rows = 0, row_ns, known_ns;

        if (!table || !table->file.table.contents.header.latent_dims)
                return;
        for (uint32_t i = 0; i < serve->n_jobs; i++) {
                if (serve->jobs[i]->table != table)
                        return;
                n_rows += serve->jobs[i]->piece.cost.n_rows_read;
        }
        if (!n_rows)
                return;
        known_ns = atomic_load_explicit(&table->row_ns, memory_order_relaxed);
        row_ns = MAX(round_ns / n_rows, 1u);
        row_ns = known_ns ? (7 * known_ns + MIN(row_ns, 4 * known_ns) + 7) / 8 : row_ns;
        atomic_store_explicit(&table->row_ns, (uint32_t)MIN(row_ns, UINT32_MAX),
                              memory_order_relaxed);
}

void serve_finish(struct serve *serve) {
        uint64_t now_ns;

        for (uint32_t i = 0; i < serve->n_jobs; i++)
                if (belongs(serve->jobs[i], serve->jobs[i]->table))
                        decode_table(serve, serve->jobs[i]->table, i);
        now_ns = clock_ns();
        learn_cost(serve, now_ns - serve->now_ns);
        for (uint32_t i = 0; i < serve->n_turns; i++)
                complete(serve, &serve->turns[i], now_ns);
        wake_clients(serve);
        serve->now_ns = now_ns;
}

/* ---- Between rounds ---- */

void serve_abort(struct serve *serve, struct seat *seat, enum ring_status status) {
        if (!seat->job)
                return;
        seat->job->status = status;
        end_job(serve, seat, seat->job, clock_ns());
        if (ring_server_publish(&seat->ring))
                send_wake(seat);
}

void serve_forget(struct serve *serve, struct seat *seat) {
        if (seat->job)
                drop_job(serve, seat, seat->job);
}

bool serve_has_work(struct seat *seat) {
        uint32_t n_room, n_pending;

        /* An impossible index counts as work: serve_take() will say what is wrong with it. */
        if (ring_server_room(&seat->ring, &n_room, NULL) < 0 ||
            ring_server_pending(&seat->ring, &n_pending, NULL) < 0)
                return true;
        return n_room && (seat->job || n_pending);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client, one seat of the daemon and the words between them, as PROTOCOL.md's "Memory order" and
 * "Wake-ups" have them; check.py has spin walk through every interleaving. The steps are those of
 * lib/client-ring.c (submit, reap, publish_cq_head, arm), daemon/serve.c (take, finish, has_work),
 * daemon/ring-server.c (take, publish, announce_sleep) and daemon/worker.c (seat_try_sleep).
 *
 * Memory is weaker than x86's: each side's stores wait in a buffer and reach memory in any order, but
 * those to one word in turn, and a release not before the stores that precede it. A full fence waits
 * until the buffer is empty. Neither side loads what it stores, so nothing is forwarded. Acquire loads
 * happen in the order of the program; the two relaxed ones that are neighbours do not.
 *
 * There are no time-outs: a wake-up that gets lost leaves both sides asleep, which spin reports as an
 * invalid end state. To spin is to wait for a guard to come true, and to be free to sleep meanwhile.
 *
 * BROKEN names one thing to leave out or turn round, which must then be found to matter.
 */
#ifndef N_SUBMISSIONS
#define N_SUBMISSIONS 3
#endif
#ifndef N_SLEEPS
#define N_SLEEPS 2              /* of the client, at most; after them it spins */
#endif
#ifndef SQ_ENTRIES
#define SQ_ENTRIES 1            /* 1 or 2 */
#endif
#ifndef CQ_ENTRIES
#define CQ_ENTRIES 1            /* 1 or 2 */
#endif
#ifndef N_PIECES
#define N_PIECES 1              /* completions of a submission, at most */
#endif

#define NOTHING            0
#define FENCE_SUBMIT       1
#define FENCE_REAP         2
#define FENCE_ARM          3
#define FENCE_ANNOUNCE     4
#define FENCE_PUBLISH      5
#define RECHECK_SQ_TAIL    6
#define RECHECK_CQ_HEAD    7
#define RECHECK_CQ_TAIL    8
#define DOORBELL_SUBMIT    9
#define DOORBELL_REAP      10
#define DOORBELL_KEPT      11   /* an event between the last look and the wait is swallowed */
#define FULL_BEFORE_REAP   12   /* "was full" judged by the new head */
#define TAIL_AFTER_FENCE   13   /* cq_tail of that judgement loaded before the fence */
#define DRAIN_BEFORE_ARM   14   /* the socket drained after arming instead */
#define ANSWERED_ONCE      15
#define RELEASE_SQ_TAIL    16
#define RELEASE_CQ_TAIL    17
#define RELEASE_SQ_HEAD    18   /* the entry copied after the store */
#define RELEASE_CQ_HEAD    19
#define ROOM_TO_START      20
#define IN_FLIGHT_BEFORE   21   /* submissions in flight counted against the new head */
#ifndef BROKEN
#define BROKEN NOTHING
#endif

/* Words of the shared memory, each with one writer. */
#define SQ_TAIL         0
#define CQ_HEAD         1
#define CLIENT_WAITING  2
#define SQ_HEAD         3
#define CQ_TAIL         4
#define DAEMON_SLEEPING 5
#define SQ_ENTRY        6
#define CQ_ENTRY        8
byte memory[10];

/* As many as either side makes between two of its fences. */
#define N_STORES        (2 + 2 * SQ_ENTRIES + N_PIECES)

chan client_stores = [N_STORES] of { byte, byte };      /* word, value */
chan daemon_stores = [N_STORES] of { byte, byte };

/* What the kernel keeps. Events and messages that nobody took in add up to one. */
bool doorbell, message;

byte wakes[N_SLEEPS + 1];       /* messages sent for each of the client's sleeps */

#define FENCE(name, stores)     if :: BROKEN == name :: else -> empty(stores) fi

proctype store_buffer(chan stores) {
        byte word, value;

end:    do
        /* The oldest one may always go, relaxed ones may pass it. */
        :: d_step { stores?word, value -> memory[word] = value; word = 0; value = 0 }
        :: d_step { stores??CLIENT_WAITING, value -> memory[CLIENT_WAITING] = value; value = 0 }
        :: d_step { stores??DAEMON_SLEEPING, value -> memory[DAEMON_SLEEPING] = value; value = 0 }
        :: d_step { stores??eval(SQ_ENTRY), value -> memory[SQ_ENTRY] = value; value = 0 }
        :: d_step { stores??eval(SQ_ENTRY + 1), value -> memory[SQ_ENTRY + 1] = value; value = 0 }
        :: d_step { stores??eval(CQ_ENTRY), value -> memory[CQ_ENTRY] = value; value = 0 }
        :: d_step { stores??eval(CQ_ENTRY + 1), value -> memory[CQ_ENTRY + 1] = value; value = 0 }
#if BROKEN == RELEASE_SQ_TAIL
        :: d_step { stores??SQ_TAIL, value -> memory[SQ_TAIL] = value; value = 0 }
#elif BROKEN == RELEASE_CQ_TAIL
        :: d_step { stores??CQ_TAIL, value -> memory[CQ_TAIL] = value; value = 0 }
#endif
        od
}

/* ---- The client ---- */

#define READY   (memory[CQ_TAIL] != reaped)

#if BROKEN == TAIL_AFTER_FENCE
#define LOAD_TAIL       skip
#else
#define LOAD_TAIL       tail = memory[CQ_TAIL]
#endif

inline submit() {
        client_stores!SQ_ENTRY + submitted % SQ_ENTRIES, submitted + 1;
        submitted++;
        client_stores!SQ_TAIL, submitted;
        FENCE(FENCE_SUBMIT, client_stores);
        if
        :: BROKEN != DOORBELL_SUBMIT && memory[DAEMON_SLEEPING] -> doorbell = true
        :: else
        fi
}

inline copy_completions() {
        do
        :: reaped != end ->
                d_step {
                        entry = memory[CQ_ENTRY + reaped % CQ_ENTRIES];
                        /* In order, none twice, none before its words have arrived. */
                        assert(entry / 2 == finished + 1);
                        finished = finished + entry % 2;
                        entry = 0;
                        reaped++
                }
        :: else -> break
        od
}

/* Rings for room if there was none behind the former head, which takes as many submissions. */
inline publish_cq_head() {
#if BROKEN == FULL_BEFORE_REAP
        before = reaped;
#elif BROKEN == TAIL_AFTER_FENCE
        tail = memory[CQ_TAIL];
#endif
        if
        :: N_PIECES == 1 && submitted - before < CQ_ENTRIES
        :: BROKEN == IN_FLIGHT_BEFORE && submitted - reaped < CQ_ENTRIES
        :: else ->
                FENCE(FENCE_REAP, client_stores);
                /* Two relaxed loads, in any order. */
                if
                :: sleeping = memory[DAEMON_SLEEPING]; LOAD_TAIL
                :: LOAD_TAIL; sleeping = memory[DAEMON_SLEEPING]
                fi;
                if
                :: BROKEN != DOORBELL_REAP && tail - before >= CQ_ENTRIES && sleeping ->
                        doorbell = true
                :: else
                fi;
                sleeping = false
        fi;
        tail = 0
}

inline reap() {
        before = reaped;
        end = memory[CQ_TAIL];
        if
        :: end - before > 1 -> end--    /* no room for more where the caller wants them */
        :: true
        fi;
#if BROKEN == RELEASE_CQ_HEAD
        client_stores!CQ_HEAD, end;
        copy_completions();
#else
        copy_completions();
        client_stores!CQ_HEAD, reaped;
#endif
        publish_cq_head();
        end = 0;
        before = 0
}

inline disarm() {
        waiting++;
        client_stores!CLIENT_WAITING, waiting;
        armed = false
}

inline arm() {
        if
        :: BROKEN != DRAIN_BEFORE_ARM -> message = false
        :: true         /* a message from before wakes up once too often, no more */
        fi;
        waiting = (waiting + 1) | 1;
        client_stores!CLIENT_WAITING, waiting;
        armed = true;
        FENCE(FENCE_ARM, client_stores);
        if
        :: BROKEN != RECHECK_CQ_TAIL && READY -> disarm()
        :: else
        fi;
        if
        :: BROKEN == DRAIN_BEFORE_ARM -> message = false
        :: else
        fi
}

/* Any order of calls that the protocol allows, until all is reaped. */
active proctype client() {
        byte submitted, reaped, finished, waiting, before, end, tail, entry;
        bool armed, sleeping;

        do
        :: submitted < N_SUBMISSIONS && submitted - memory[SQ_HEAD] < SQ_ENTRIES -> submit()
        :: READY -> reap()
        :: finished < N_SUBMISSIONS && waiting / 2 < N_SLEEPS -> arm()
        :: armed -> disarm()
        :: armed && finished < submitted -> message; message = false; disarm()
        :: finished == N_SUBMISSIONS -> break
        od
}

/* ---- The daemon ---- */

#define ROOM    (CQ_ENTRIES - (completed - memory[CQ_HEAD]))
#define PENDING (memory[SQ_TAIL] - taken)

inline take() {
#if BROKEN == RELEASE_SQ_HEAD
        daemon_stores!SQ_HEAD, taken + 1;
#endif
        assert(memory[SQ_ENTRY + taken % SQ_ENTRIES] == taken + 1);
        taken++;
#if BROKEN != RELEASE_SQ_HEAD
        daemon_stores!SQ_HEAD, taken;
#endif
        active_job = true
}

inline complete(last) {
        daemon_stores!CQ_ENTRY + completed % CQ_ENTRIES, taken * 2 + last;
        completed++;
        room--
}

inline publish_cq_tail() {
        if
        :: completed != published ->
                published = completed;
                daemon_stores!CQ_TAIL, completed;
                FENCE(FENCE_PUBLISH, daemon_stores);
                waiting = memory[CLIENT_WAITING];
                if
                :: waiting % 2 && (BROKEN == ANSWERED_ONCE || waiting != answered) ->
                        d_step {
                                answered = waiting;
                                message = true;
                                wakes[waiting / 2]++;
                                assert(wakes[waiting / 2] == 1)
                        }
                :: else
                fi;
                waiting = 0
        :: else
        fi
}

/* As many submissions as there is room for and the seat's share allows; the last may be cut short. */
inline serve() {
        do
        :: active_job || pending > 0 ->
                if
                :: !active_job -> take(); pending--
                :: else
                fi;
                if
                :: complete(1); active_job = false; n_pieces = 0
                :: n_pieces + 1 < N_PIECES ->
                        n_pieces++;
                        if
                        :: room > 1 -> complete(0)
                        :: else
                        fi;
                        break
                fi;
                if
                :: room == 0 -> break
                :: else
                fi
        :: !active_job -> break
        od;
        publish_cq_tail()
}

active proctype daemon() {
        byte taken, completed, published, answered, waiting, n_pieces;
        short room, pending;
        bool active_job;

        run store_buffer(client_stores);
        run store_buffer(daemon_stores);
awake:  do
        :: doorbell -> doorbell = false         /* of no consequence for a seat that is awake */
        :: room = ROOM;
                pending = PENDING;
                assert(room >= 0 && room <= CQ_ENTRIES && pending >= 0 && pending <= SQ_ENTRIES);
                if
                :: (room > 0 || BROKEN == ROOM_TO_START) && (active_job || pending > 0) -> serve()
                :: else -> break
                fi;
                room = 0; pending = 0
        od;

        /* Idle: look again, or announce, fence, look once more. */
        if
        :: goto awake
        :: daemon_stores!DAEMON_SLEEPING, 1
        fi;
        FENCE(FENCE_ANNOUNCE, daemon_stores);
        if
        :: BROKEN != RECHECK_CQ_HEAD -> room = ROOM
        :: else
        fi;
        if
        :: BROKEN != RECHECK_SQ_TAIL -> pending = PENDING
        :: else
        fi;
        if
        :: room > 0 && (active_job || pending > 0) -> goto wake
        :: else -> room = 0; pending = 0
        fi;
#if BROKEN == DOORBELL_KEPT
        doorbell = false;
#endif
end:    doorbell -> doorbell = false;
wake:   daemon_stores!DAEMON_SLEEPING, 0;
        goto awake
}

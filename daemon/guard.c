/* SPDX-License-Identifier: Apache-2.0 */
#include "guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>

static _Thread_local struct {
        volatile sig_atomic_t active;
        uintptr_t start, end;
        sigjmp_buf back;
} guard;

/* Synchronous: it interrupts exactly the load that faulted, so nothing it could disturb is half
 * done. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
        uintptr_t at = (uintptr_t)info->si_addr;

        (void)context;
        if (guard.active && at >= guard.start && at < guard.end) {
                guard.active = 0;
                siglongjmp(guard.back, 1);
        }
        /* Not ours: the load faults again and ends the process as it would have. */
        signal(signal_number, SIG_DFL);
}

void guard_install(void) {
        /* NODEFER: it is left by a jump that does not restore the mask, which would be a system
         * call. */
        struct sigaction action = { .sa_sigaction = on_bus_error,
                                    .sa_flags = SA_SIGINFO | SA_NODEFER };

        sigaction(SIGBUS, &action, NULL);
}

bool guard_run(const void *start, size_t bytes, void (*work)(void *userdata), void *userdata) {
        guard.start = (uintptr_t)start;
        guard.end = guard.start + bytes;
        if (sigsetjmp(guard.back, 0))
                return false;
        guard.active = 1;
        /* Else a compiler that sees into the work may move its loads out of the guard's time. */
        atomic_signal_fence(memory_order_seq_cst);
        work(userdata);
        atomic_signal_fence(memory_order_seq_cst);
        guard.active = 0;
        return true;
}

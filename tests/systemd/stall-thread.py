#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds one thread of a process, as if it were stuck, until the process is gone: stall-thread.py PID NAME"""

import ctypes
import glob
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

pid, name = sys.argv[1:]
for task in glob.glob(f"/proc/{pid}/task/*"):
    with open(f"{task}/comm", encoding="utf-8") as comm:
        if comm.read().strip() == name:
            tid = int(os.path.basename(task))
            break
else:
    sys.exit(f"{pid} has no thread {name}")

ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for request in PTRACE_SEIZE, PTRACE_INTERRUPT:
    if ptrace(request, tid, None, None) < 0:
        sys.exit(f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")
print("stalled", flush=True)
while True:
    # A signal for the whole process may choose this thread: it stays where it is, another one dies of it.
    _, status = os.waitpid(tid, 0x40000000)  # __WALL
    if not os.WIFSTOPPED(status):
        break

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Has spin walk through every state of wakeup.pml: none may be wrong. Then once more for each thing
# that the model can leave out (BROKEN), and each of those must be found wrong: a model that cannot
# fail proves nothing. Prints TAP.
#   check.py MODEL
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

SHAPES = [  # what is walked through in full, largest first
    {"N_SUBMISSIONS": 2, "SQ_ENTRIES": 1, "CQ_ENTRIES": 2, "N_PIECES": 2},
    {"N_SUBMISSIONS": 3, "SQ_ENTRIES": 2, "CQ_ENTRIES": 2},
    {"N_SUBMISSIONS": 4, "SQ_ENTRIES": 1, "CQ_ENTRIES": 1},
    {"N_SUBMISSIONS": 3, "SQ_ENTRIES": 1, "CQ_ENTRIES": 1, "N_SLEEPS": 3},
]
BROKEN_SHAPE = {"N_SUBMISSIONS": 3, "SQ_ENTRIES": 2, "CQ_ENTRIES": 2}


def run(command, folder):
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace")


def walk(model, macros):
    """What is wrong, in a line (None: nothing), and the log with the shortest way there at its end."""
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    # What is broken is found soon, so that compiling takes longer than walking.
    optimize = "-O0" if "BROKEN" in macros else "-O1"
    with tempfile.TemporaryDirectory() as folder:
        for command in (["spin", "-a", *defines, model],
                        ["cc", optimize, "-w", "-DSAFETY", "-o", "pan", "pan.c"]):
            built = run(command, folder)
            if built.returncode != 0:
                raise RuntimeError(" ".join(command) + "\n" + built.stdout)
        walked = run(["./pan", "-m100000"], folder).stdout
        wrong = re.search(r"^pan:1: (.*)", walked, re.M)
        # Anything else than a whole walk is no result at all.
        if not wrong and ("errors: 0" not in walked or "Search not completed" in walked
                          or "max search depth too small" in walked):
            raise RuntimeError(walked)
        if not wrong:
            return None, re.search(r"\d+ states, stored", walked).group()
        trail = next(name for name in os.listdir(folder) if name.endswith(".trail"))
        steps = run(["spin", "-p", "-g", "-l", "-k", trail, *defines, model], folder).stdout
        return wrong.group(1), "\n".join(steps.splitlines()[-120:])


def main():
    model = os.path.abspath(sys.argv[1])
    missing = [name for name in ("spin", "cc") if not shutil.which(name)]
    if missing:
        print(f"1..0 # SKIP {missing[0]} is not installed")
        return 0

    with open(model, encoding="utf-8") as f:
        breakable = re.findall(r"^#define ([A-Z_]+) +([1-9]\d*)\b", f.read().split("#define NOTHING")[1]
                               .split("#ifndef BROKEN")[0], re.M)
    cases = [("sound with " + ", ".join(f"{k} {v}" for k, v in shape.items()), shape, False)
             for shape in SHAPES]
    cases += [(f"wrong without {name}", {**BROKEN_SHAPE, "BROKEN": number}, True)
              for name, number in breakable]

    print(f"1..{len(cases)}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda case: walk(model, case[1]), cases)
        for i, ((name, _, broken), (wrong, log)) in enumerate(zip(cases, results), 1):
            good = broken == (wrong is not None)
            failed += not good
            print(f"{'ok' if good else 'not ok'} {i} - {name}: {wrong or log}", flush=True)
            if not good:
                print("\n".join("# " + line for line in log.splitlines()))
    return 1 if failed else 0


sys.exit(main())

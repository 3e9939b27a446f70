#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# That benches run, that their peers serve the right rows, and that what they write is what tools/bench/report
# reads: a bench that nobody runs is soon broken. Small tables, no judgement of speed. TAP.
#   benches.sh BUILD    the build folder
set -u
carvq=/nonexistent # of tap.sh; nothing here packs
. "$(dirname "$0")/tap.sh"

build=$(realpath "$1") report=$(realpath "$(dirname "$0")/../../tools/bench/report")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/work"
cd "$dir" || exit 1
export TMPDIR=$dir/work
# BLAS and OpenMP, which Faiss brings in, keep what they have until the end.
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0

targets='all({"measure", "target", "value", "unit", "limit", "pass"} <= set(t) for t in o["targets"])'
named='o["machine"] and o["kernels"] and o["cache"] == "warm"'

# bench NAME EXPRESSION ARGUMENT...: it succeeds, and its JSON is as expected.
bench() {
        local name=$1 expected=$2 program=$build/tools/bench/bench-$1
        shift 2
        if [ ! -x "$program" ]; then
                skip "bench-$name runs" "not built"
                return
        fi
        check "bench-$name runs" "$program" "$@" --json "$name.json"
        check "bench-$name writes its figures" json "$name.json" "$targets and $named and $expected"
}

bench decode 'len(o["results"]) > 50 and all(r["us"] > 0 for r in o["results"])' --rows 200 --dims 64 --batch 4 --batches 2
bench three-ways 'len(o["targets"]) == 4 and len(o["lines"]) == 24' --rows 2000 --dims 64 --batch 32 --rounds 2
bench faiss-decode 'len(o["targets"]) == 1' --rows 2000 --dims 64 --batch 8 --batches 2
bench ring 'len(o["targets"]) == 2 and len(o["latency"]) == 28 and len(o["throughput"]) == 2' --rows 2000 --dims 16 \
        --lookups 400 --ms 5 --clients 2 --batch 16
bench cache 'len(o["targets"]) == 2 and len(o["workloads"]) == 3' --rows 2000 --dims 64 --lookups 2000
bench hostile 'len(o["targets"]) == 13 and all(m["n_acts"] > 0 for m in o["mischief"].values())' --rows 2000 --dims 64 \
        --ms 10 --rounds 1 --arena-mib 1 --idle 0
bench start 'o["pages_resident"] < 100 and o["bytes_read"] < 10**6' --gib 1 --starts 2
bench restart 'len(o["targets"]) == 1 and o["pause_ms_worst"] > 0' --rows 2000 --dims 64 --clients 2 --restarts 2
peers='len(o["peers"]) + len(o["skipped"]) == 7 and all(c["p99_us"] >= c["p50_us"] > 0 for p in o["peers"] for c in p["cells"])
        and all(m["pss_bytes"] > 0 for p in o["peers"] for m in p["memory"])'
bench peers "$peers" --rows 2000 --dims 60 --ms 5
bench peers "$peers" --rows 2000 --dims 60 --ms 5 --type f16
"$build/tools/bench/bench-start" --gib 1 --starts 1 | head -n 1 >/dev/null # and dies of it
check "nothing is left in the work folder" [ -z "$(ls work)" ]

check "report makes a table of targets" "$report" --build "$build" --only start,faiss-decode --quick -o report.md
check "report has a line for each" grep -q '^| start | start to published, 8 GiB table, warm | at most 100 ms |' report.md
mkdir empty
"$report" --build "$PWD/empty" --only start --quick -o none.md >/dev/null 2>&1
check "report says what is not there" grep -q '^| start |.*| not built' none.md
echo "1..$n"

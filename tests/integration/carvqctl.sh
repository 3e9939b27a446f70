#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each verb of carvqctl against a real carvqd, in text and in JSON, and what goes wrong. TAP.
#   carvqctl.sh CARVQD CARVQCTL WRITE_TABLE
set -u

carvqd=$(realpath "$1") carvqctl=$(realpath "$2") write_table=$(realpath "$3")
dir=$(mktemp -d)
export CARVQ_SOCKET=$dir/carvqd.sock CARVQ_CONTROL=$dir/control.sock
unset JOURNAL_STREAM RUNTIME_DIRECTORY NOTIFY_SOCKET
n=0 failed=0 daemon=

stop() { if [ -n "$daemon" ]; then kill "$daemon"; wait "$daemon"; fi; }
trap 'stop; rm -rf "$dir"' EXIT

# result NAME STATUS: one test case; what was seen goes with a failure.
result() {
  n=$((n + 1))
  if [ "$2" = 0 ]; then echo "ok $n - $1"; return; fi
  failed=1
  echo "not ok $n - $1"
  sed 's/^/# out: /' "$dir/out"
  sed 's/^/# err: /' "$dir/err"
}
ctl() { "$carvqctl" "$@" >"$dir/out" 2>"$dir/err"; }
# expect NAME EXIT_STATUS REGEX ARGUMENT...: of both outputs, as one text.
expect() {
  local name=$1 status=$2 regex=$3 r
  shift 3
  ctl "$@"
  r=$?
  [ $r = "$status" ] && grep -Pqz -- "(?s)$regex" "$dir/out" "$dir/err"
  result "$name" $?
}
# json NAME EXPRESSION ARGUMENT...: true of the answer, which is `j`.
json() {
  local name=$1 expression=$2
  shift 2
  ctl --json "$@" && python3 - "$dir/out" "$expression" <<'PYTHON' 2>>"$dir/err"
import json, struct, sys
def f32(x): return struct.unpack("<f", struct.pack("<f", x))[0]
j = json.load(open(sys.argv[1]))
sys.exit(0 if eval(f"({sys.argv[2]})") else "not true: " + sys.argv[2])
PYTHON
  result "$name" $?
}
# The daemon answers once its sockets are there; up to 20 s of attempts, each a blocking connect.
start() {
  "$carvqd" --config /dev/null --socket "$CARVQ_SOCKET" --control "$CARVQ_CONTROL" "$@" \
    2>"$dir/log" &
  daemon=$!
  for ((i = 0; i < 2000; i++)); do
    [ -S "$CARVQ_CONTROL" ] && ctl status && return
    kill -0 "$daemon" 2>/dev/null || break
    read -rt 0.01 <>"$dir/pause" || true
  done
  echo "Bail out! carvqd does not start: $(tail -n 3 "$dir/log")"
  exit 1
}
mkfifo "$dir/pause"

# ---- nobody there ----
expect "no daemon: exit 3, with the path" 3 "$dir/control.sock: .*is carvqd running" status
expect "no daemon: lookup too" 3 "carvqctl: " lookup small 0
expect "no daemon: version still has ours" 0 "carvqctl [0-9]+\.[0-9]+\.[0-9]+" version
json "no daemon: version is null" 'j["carvqd"] is None' version
expect "a wrong control socket path" 3 "longer than" --control "$(printf 'x%.0s' {1..200})" status

# ---- usage ----
expect "no verb" 2 "a verb is missing"
expect "unknown verb" 2 "unknown verb 'frobnicate'" frobnicate
expect "unknown option" 2 "frobnicate" --frobnicate status
expect "missing argument" 2 "lookup: an argument is missing" lookup small
expect "too many arguments" 2 "unexpected argument 'x'" status x

"$write_table" "$dir/small.carvq" 1000 8 f32
"$write_table" "$dir/packed.carvq" 5000 640 carvq
head -c 100 "$dir/small.carvq" >"$dir/short.carvq"
{ head -c 60 "$dir/small.carvq"; printf 'X'; tail -c +62 "$dir/small.carvq"; } >"$dir/flipped.carvq"
echo "no table" >"$dir/foreign.carvq"
start --table "small=$dir/small.carvq"

# ---- status ----
expect "status" 0 "carvqd [0-9.]+, pid $daemon, .*serves +1 table to 0 clients" status
json "status in JSON" "j['pid'] == $daemon and j['n_tables'] == 1 and not j['stopping'] and \
j['control_path'] == '$CARVQ_CONTROL' and j['spin_ns_max'] == 50000 and j['n_workers'] == 1" status
json "version of both" 'j["carvqd"] == j["carvqctl"]' version

# ---- load, unload ----
expect "load" 0 "Loaded packed from $dir/packed.carvq, generation 2" load packed "$dir/packed.carvq"
(cd "$dir" && "$carvqctl" load again packed.carvq) >"$dir/out" 2>"$dir/err" &&
  grep -q "from $dir/packed.carvq" "$dir/out"
result "load by relative path" $?
expect "load over an older one" 0 "generation 4" load again "$dir/packed.carvq"
expect "unload" 0 "Unloaded again" unload again
expect "unload twice" 1 "carvqd has no table 'again'" unload again
expect "load: no file" 1 "cannot load 'x': $dir/none.carvq: No such file" load x "$dir/none.carvq"
expect "load: truncated" 1 "cannot load 'x': $dir/short.carvq: .*expected" load x "$dir/short.carvq"
expect "load: flipped byte" 1 "cannot load 'x': $dir/flipped.carvq: .*checksum" load x "$dir/flipped.carvq"
expect "load: foreign file" 1 "cannot load 'x': $dir/foreign.carvq: .*" load x "$dir/foreign.carvq"
expect "load: a directory" 1 "cannot load 'x': $dir: " load x "$dir"
expect "load: bad name" 1 "'a/b' cannot name a table" load a/b "$dir/small.carvq"
json "none of that left a table" 'sorted(t["name"] for t in j["tables"]) == ["packed", "small"]' tables

# ---- lookup ----
expect "lookup in text, one row a line" 0 \
  '^7 7 7\.00097656 7\.00195312 [^\n]*\n999 999 999\.000977 [^\n]*\n' lookup small 7 999
expect "text shows what is not finite" 0 "^0 nan inf -0 " lookup small 0
json "lookup restores each f32" 'j["table"] == "small" and [r["id"] for r in j["rows"]] == [7, 999, 7] and
all(f32(v) == f32(r["id"] + c / 1024) for r in j["rows"] for c, v in enumerate(r["values"]))' lookup small 7 999 7
json "null for what is not finite" 'j["rows"][0]["values"][:2] == [None, None] and
str(j["rows"][0]["values"][2]) == "-0.0"' lookup small 0
json "more rows than one batch" 'len(j["rows"]) == 700 and j["rows"][699]["id"] == 700' \
  lookup small $(seq 700)
json "packed rows are finite" 'len(j["rows"][0]["values"]) == 640 and None not in j["rows"][0]["values"]' \
  lookup packed 4999
expect "lookup: no such table" 1 "no table|no such table|none" lookup none 0
expect "lookup: id past the end" 1 "row 1000 is not in table small, which has rows 0 to 999" lookup small 0 1000
[ ! -s "$dir/out" ]
result "and then prints no row" $?
expect "lookup: no number" 2 "'7x' is no row id" lookup small 7x
expect "lookup: beyond 64 bits" 2 "no row id" lookup small 99999999999999999999999

# ---- tables, clients, stats ----
expect "tables" 0 "TABLE +ROWS.*small +1,000 +8  f32" tables
json "tables in JSON" '{t["name"]: t["codec"] for t in j["tables"]} == {"small": "f32", "packed": "carvq"} and
all(t["measured"]["pss_bytes"] > 0 for t in j["tables"]) and
[t for t in j["tables"] if t["name"] == "packed"][0]["modelled"] == {"f32_bytes": 12800000, "f16_bytes": 6400000}' tables
expect "clients" 0 "No clients|CLIENT" clients
json "clients in JSON" 'isinstance(j["clients"], list)' clients
expect "stats" 0 "table packed: 5,000 rows x 640, carvq.*saved on table read +modelled +95\.[0-9] % less" stats packed
expect "stats of all" 0 "table small.*table packed" stats
json "stats add up" '[(s["table"]["name"], len(j["clients"])) for s in j["tables"]] == [("packed", 0)] and
all(c["n_rows"] == 1 and c["n_values_read"] == 640 and c["table_read_bytes"] == 120 and
c["table_read_lines"] in (2, 3) and
c["arena_write_bytes"] == 2560 and m["client_read_bytes"] == 2560 and m["total_bytes"] == 120 + 2 * 2560 and
m["full_f32"]["table_read_bytes"] == 2560 and m["full_f16"]["table_read_bytes"] == 1280 and
abs(m["full_f32"]["table_read_saved"] - (1 - 120 / 2560)) < 1e-12
for c, m in [(s["stats"]["counted"], s["stats"]["modelled"]) for s in j["tables"]])' stats packed
expect "stats: no such table" 1 "carvqd has no table 'none'" stats none
"$carvqctl" stats >/dev/full 2>"$dir/err"
[ $? = 1 ] && grep -q "standard output" "$dir/err"
result "a full disk behind standard output" $?
ctl stats
[ "$(awk 'length > 80' "$dir/out" | wc -l)" = 0 ]
result "stats fit into 80 columns" $?

# ---- the end ----
kill "$daemon"
wait "$daemon"
result "the daemon ends with 0" $?
daemon=
expect "and is not reached then" 3 "is carvqd running" status
echo "1..$n"
exit $failed
